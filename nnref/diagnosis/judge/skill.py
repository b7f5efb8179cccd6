"""How well outputs do on some rows: 0 as well as the best constant answer, 1 perfectly."""

from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.targets import Target, chance, score, skill, target_of
from nnref.diagnosis.judge.constant import least_constant_loss
from nnref.diagnosis.judge.own_metric import OwnMetric, filler, leaves_out
from nnref.diagnosis.program.class_weights import Weighed, class_weights
from nnref.diagnosis.program.expectation import among_rows, row_by_row
from nnref.diagnosis.program.loss_facts import goes_round, kind_of, where_least
from nnref.diagnosis.program.sides import takes_sides
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run.snapshot import looked_at
from nnref.diagnosis.thresholds import bound

ROWS = 1024  # rows whose outputs are scored
AT_ONCE = 512  # rows that the network is called with
FEW_OF_A_CLASS = 30  # rows: with fewer, a share of them is too uncertain to weigh much


class Outcome(NamedTuple):
    """How a network does on some rows: its mean loss and its skill, 0 a constant and 1 perfect."""

    loss: float
    skill: float


class Skill:
    """Scores the network of a recipe, by the user's metric, by accuracy or R², or by its loss."""

    def __init__(self, recipe: Recipe, first_outputs: Any) -> None:
        """Take the outputs before the first step for the rows that a snapshot looks at."""
        self.recipe = recipe
        self.first_outputs = first_outputs

    @cached_property
    def wanted(self) -> np.ndarray:
        """The targets of the rows of the first outputs."""
        return np.asarray(self.recipe.train[1])[looked_at(self.recipe)]

    @cached_property
    def outputs(self) -> np.ndarray | None:
        """The first outputs, where they are one array with the rows first."""
        leaves = jax.tree.leaves(self.first_outputs)
        by_row = len(leaves) == 1 and leaves[0].shape[:1] == (len(self.wanted),)
        return leaves[0] if by_row else None

    @cached_property
    def width(self) -> int:
        """The units of the last axis of the outputs, 1 where there is none."""
        return 1 if self.outputs is None or self.outputs.ndim < 2 else self.outputs.shape[-1]

    @cached_property
    def kind(self) -> str:
        """The task: what the user says, or what targets, outputs and loss speak of."""
        return kind_of(self.recipe, self.first_outputs, self.wanted).task

    @cached_property
    def target(self) -> Target:
        """The training targets."""
        return self.as_target(np.asarray(self.recipe.train[1]))

    def as_target(self, y: np.ndarray) -> Target:
        """Targets as they are scored: classes weigh as they do in the loss."""
        return target_of(y, self.kind)._replace(weights=self.weights)

    @cached_property
    def weighed(self) -> Weighed | None:
        """How the loss weighs the classes of the rows; None where it does not."""
        if self.kind not in ("binary", "multiclass") or self.outputs is None:
            return None
        y = np.asarray(self.recipe.train[1])
        answers = target_of(y, self.kind).answers
        few = np.unique(answers, return_counts=True)[1].min() < FEW_OF_A_CLASS
        if few or among_rows(self.recipe.loss, self.outputs[:16], self.wanted[:16]):
            return None
        return class_weights(self.recipe.loss, self.outputs.shape[1:], y, answers)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """What classes weigh in a score, so that it asks for what the loss asks for.

        Where frequent classes weigh more than rare ones, as by mistake, all classes count alike.
        """
        if self.weighed is None or self.recipe.metric is not None:
            return None
        return self.of_equal_classes if self.weighed_the_wrong_way else self.weighed.weights

    @cached_property
    def of_equal_classes(self) -> np.ndarray:
        """The weights of the classes for which each counts alike, however many rows it has."""
        counts = self.counts
        return np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 1.0)

    @cached_property
    def counts(self) -> np.ndarray:
        """The training rows of each class."""
        answers = target_of(np.asarray(self.recipe.train[1]), self.kind).answers
        return np.bincount(answers[answers >= 0])

    @property
    def weighed_the_wrong_way(self) -> bool:
        """Whether the most frequent class weighs more in the loss than the rarest one."""
        if self.weighed is None:
            return False
        present = np.flatnonzero(self.counts)
        rare, most = (present[pick(self.counts[present])] for pick in (np.argmin, np.argmax))
        weights = self.weighed.weights
        heavier = weights[most] > bound("weighs") * weights[rare]
        return bool(heavier and self.counts[most] > bound("rarer") * self.counts[rare])

    @cached_property
    def row_by_row(self) -> bool:
        """Whether the loss holds each output against its target, not rows against each other."""
        assert self.outputs is not None, "asked of outputs that are one array"
        return row_by_row(self.recipe.loss, self.outputs[:4], self.wanted[:4])

    @cached_property
    def reads_targets(self) -> bool:
        """Whether another target, or class, in the place of each changes the loss."""
        assert self.outputs is not None, "asked of outputs that are one array"
        y, classes = self.wanted[:4], max(2, self.outputs.shape[-1])
        other = y + 1 if self.kind == "regression" else (y + 1) % classes
        drawn = np.random.default_rng(0).normal(size=(len(y), *self.outputs.shape[1:]))
        loss = jax.jit(self.recipe.loss)
        losses = [float(jnp.sum(loss(np.float32(drawn), each))) for each in (y, other)]
        return not np.isclose(*losses, rtol=1e-5, equal_nan=True)

    @cached_property
    def without_targets(self) -> bool:
        """Whether the one target of all rows only stands in for none, as in a density."""
        asked = self.outputs is not None and self.one_target
        return asked and not self.takes_sides and not self.reads_targets

    def as_sets(self) -> bool:
        """Whether the targets of a row may stand in any order, as those of quantiles do."""
        assert self.outputs is not None, "asked of outputs that are one array"
        outputs, y = self.outputs[:16], self.wanted[:16]
        if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind == "b" or not np.ptp(y, axis=1).any():
            return False
        loss = jax.jit(self.recipe.loss)
        one, other = (float(loss(outputs, rows)) for rows in (y, y[:, ::-1]))
        outwards = float(loss(outputs, y + np.ptp(y)))
        return abs(one - other) < bound("felt") * abs(one) < abs(one - outwards)

    @cached_property
    def one_target(self) -> bool:
        """Whether all training rows have the same target."""
        y = np.asarray(self.recipe.train[1])
        return bool((y == y[:1]).all())

    @cached_property
    def takes_sides(self) -> bool:
        """Whether all targets are the same, and the inputs tell what is to be first."""
        return self.outputs is not None and self.one_target and takes_sides(self.recipe)

    @cached_property
    def goes_round(self) -> bool:
        """Whether the loss takes both ends of the targets for the same, as those of an angle."""
        y = np.asarray(self.recipe.train[1])
        if self.outputs is None or y[0].size != 1:
            return False
        return goes_round(self.recipe.loss, self.outputs.shape[1:], y)

    @cached_property
    def takes_either_sign(self) -> bool:
        """Whether outputs and their opposites cost the same, as quaternions that turn alike do."""
        assert self.outputs is not None, "asked of outputs that are one array"
        size = np.abs(self.wanted.astype(np.float64)).reshape(len(self.wanted), -1).max(1)
        y = self.wanted[np.argsort(-size, kind="stable")[:16]]  # of 0 every distance does
        shape = 2, len(y), *self.outputs.shape[1:]
        a, b = (size.max() * np.random.default_rng(0).normal(size=shape)).astype(np.float32)
        loss = jax.jit(self.recipe.loss)
        one, opposite, other = (float(loss(z, y)) for z in (a, -a, b))
        read = not np.isclose(one, float(loss(a, y[::-1])), rtol=1e-5)
        differ = read and not np.isclose(one, other, rtol=1e-5)
        return bool(np.isclose(one, opposite, rtol=1e-5) and differ)

    @cached_property
    def one_length(self) -> float | None:
        """The norm of the outputs where it is that of all rows, as behind a division by it."""
        if self.outputs is None or self.kind != "regression" or self.width < 2:
            return None
        norms = np.linalg.norm(np.asarray(self.outputs, np.float64), axis=-1)
        differ = np.ptp(self.outputs, axis=0).max() > bound("one length") * norms.mean()
        same = np.ptp(norms) < bound("one length") * norms.mean()
        return float(norms.mean()) if same and differ else None

    @cached_property
    def left_out(self) -> float | None:
        """The number of the targets that the loss leaves out, as 0 for a film nobody has rated."""
        assert self.outputs is not None, "asked of outputs that are one array"
        y = self.wanted[:AT_ONCE]
        value, loss = filler(y), jax.jit(self.recipe.loss)
        out = value is not None and leaves_out(
            lambda outputs, y: float(jnp.sum(loss(outputs, y))),
            (len(y), *self.outputs.shape[1:]),
            y,
            value,
        )
        return value if out else None

    @cached_property
    def fits(self) -> bool:
        """Whether outputs can be compared with targets: one by one, or by the user's metric.

        Where they cannot, skill is how far the loss falls below that of a constant answer.
        """
        if self.asks_metric:
            if self.outputs is None or self.row_by_row:
                return True
            return not self.metric.is_indifferent(self.outputs, self.wanted)
        if self.outputs is None or self.recipe.targets is not None:
            return False
        if self.takes_sides or self.without_targets:
            return False
        output, y = self.outputs[0], np.asarray(self.recipe.train[1])
        if output.size > 1 and among_rows(self.recipe.loss, self.outputs[:16], self.wanted[:16]):
            return False  # embeddings, of which only the distances count
        if self.kind == "multiclass":
            classes = output.ndim == 1 and output.size >= self.target.classes
            return classes or output.size == 1 or self.row_by_row
        if self.kind == "binary" and output.size == 2:
            return True
        least = where_least(self.recipe.loss, (2, *output.shape), y)
        if self.kind in ("regression", "binary") and least == "elsewhere":
            return False  # no output is to be its target: logarithms of rates, distances of pairs
        if self.kind == "regression" and (
            self.goes_round or self.takes_either_sign or self.as_sets() or self.left_out is not None
        ):
            return False
        return self.kind == "places" or output.size == y[0].size

    @cached_property
    def metric(self) -> OwnMetric:
        """The user's metric."""
        return OwnMetric(self.recipe.metric, self.kind, self.outputs is not None)

    @cached_property
    def errors_counted(self) -> bool:
        """Whether the user's metric counts errors, so that it is not asked."""
        if self.recipe.metric is None or self.outputs is None:
            return False
        return self.metric.counts_errors(self.outputs, self.wanted)

    @cached_property
    def asks_metric(self) -> bool:
        """Whether the user's metric is one of successes, from a constant answer's to 1."""
        if self.recipe.metric is None or self.errors_counted:
            return False
        return self.outputs is None or not self.metric.is_no_share(self.outputs, self.wanted)

    @cached_property
    def any_scale(self) -> bool:
        """Whether the loss asks for the same of targets that are scaled otherwise.

        One that holds rows against each other knows their order alone, and one whose best output
        is no target, as that of Poisson, is another loss of negative ones.
        """
        if self.fits or self.outputs is None:
            return self.fits
        output, y = self.outputs[0], np.asarray(self.recipe.train[1])
        if self.goes_round or not self.row_by_row:
            return False
        least = where_least(self.recipe.loss, (2, *output.shape), y)
        return output.size != y[0].size or least != "elsewhere"

    def of_other_targets(self, rows: tuple[Any, Any]) -> "Skill":
        """The scores of a training on other targets, of rows (x, y).

        A skill by the loss is held against the best constant answer to these.
        """
        if self.fits:
            return self
        other = Skill(replace(self.recipe, train=rows), self.first_outputs)
        vars(other)["fits"] = False
        return other

    @cached_property
    def costs(self) -> bool:
        """Whether targets are costs of one answer to all rows, as in problems of regret.

        All inputs are the same, and the loss is linear in the outputs: no target can be met.
        """
        x, y = (np.asarray(part) for part in self.recipe.train)
        if (x != x[:1]).any() or self.outputs is None:
            return False
        y = jnp.asarray(y[: len(self.outputs)])
        shape = 2, len(y), *self.outputs.shape[1:]
        a, b = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        one, other, beyond = (
            np.sum(self.recipe.loss(jnp.asarray(z), y)) for z in (a, b, 2 * a - b)
        )
        return bool(one != other and np.isclose(2 * one - other, beyond, rtol=1e-4))

    @cached_property
    def constant_loss(self) -> float:
        """The loss of the best constant answer: outputs the same for every row.

        A loss is measured against it where outputs and targets cannot be compared. A network that
        takes sides has no constant but 0, and one whose outputs have one length none of another.
        Where nothing is to be predicted it is the loss before the first step.
        """
        if self.without_targets:
            return float(jax.jit(self.recipe.loss)(self.first_outputs, self.wanted))
        if self.takes_sides:
            return float(jax.jit(self.recipe.loss)(np.zeros_like(self.outputs), self.wanted))
        length = self.one_length

        def loss(outputs: Any, y: Any) -> Any:
            if length is not None:
                norm = jnp.linalg.norm(outputs, axis=-1, keepdims=True)
                outputs = length * outputs / jnp.maximum(norm, 1e-6 * length)
            return self.recipe.loss(outputs, y)

        return least_constant_loss(loss, self.first_outputs, self.wanted)

    @cached_property
    def decision_threshold(self) -> float:
        """The output above which the larger of two targets is predicted: both cost the same."""
        if self.weighed is not None:
            return self.weighed.neutral
        y = np.asarray(self.recipe.train[1])
        low, high = (np.full_like(y[:2], value) for value in (y.min(), y.max()))
        assert self.outputs is not None, "asked of outputs that are one array"
        shape = (2, *self.outputs.shape[1:])
        grid = np.linspace(-4, 4, 161)
        loss = jax.jit(self.recipe.loss)
        costs = np.array(
            [
                float(loss(jnp.full(shape, v, jnp.float32), low))
                - float(loss(jnp.full(shape, v, jnp.float32), high))
                for v in grid
            ]
        )
        crossing = np.flatnonzero((costs[:-1] < 0) & (costs[1:] >= 0))
        return float(grid[crossing[0] + 1]) if len(crossing) else 0.5

    def predictions(self, outputs: np.ndarray, target: Target) -> np.ndarray:
        """Outputs as classes, labels or values, in the form of the target's answers."""
        if target.kind == "regression":
            return outputs.reshape(len(outputs), -1)
        if target.kind == "places":
            return outputs.argmax(-1)
        if target.kind == "multiclass":
            flat = outputs.reshape(len(outputs), -1)
            return flat.argmax(-1) if flat.shape[1] > 1 else np.round(flat[:, 0])
        if target.kind == "binary" and self.width > 1:
            return outputs.argmax(-1)
        return outputs.reshape(len(outputs), -1) > self.decision_threshold

    @cached_property
    def network(self) -> dict[bool, Any]:
        """The network compiled, in evaluation mode (False) and in training mode (True)."""

        def network(params: Any, state: Any, x: Any, train: bool) -> Any:
            key = jax.random.key(1) if train else None
            return self.recipe.apply(params, state, x, key, train)[0]

        return {
            mode: jax.jit(lambda p, s, x, m=mode: network(p, s, x, m)) for mode in (False, True)
        }

    def outcome(
        self, params: Any, state: Any, rows: tuple[Any, Any] | None = None, train: bool = False
    ) -> Outcome:
        """How the network does on rows, the training rows by default."""
        outputs, y = self.outputs_at(params, state, rows, train)
        if not self.fits:
            loss = self.loss_of_as_many(outputs, y)
            return Outcome(loss, self.of_loss(loss))
        loss = float(jax.jit(self.recipe.loss)(outputs, y))
        value = self.metric(outputs, y) if self.asks_metric else None
        if value is None:
            return Outcome(loss, self.recomputed(outputs, y))
        return Outcome(loss, skill(value, self.metric.most_of_constants(outputs, y)))

    def is_unseen(self, y: np.ndarray) -> bool:
        """Whether no training row has any of the classes of these targets."""
        if self.kind != "multiclass" or not self.fits:
            return False
        return not np.isin(target_of(y, self.kind).answers, self.target.answers).any()

    def of_unseen_class(self, params: Any, state: Any, rows: tuple[Any, Any]) -> Outcome:
        """How the network does on rows whose class it was not trained on: the share answered right.

        To know a class that it never saw is all skill, and no chance.
        """
        outputs, y = self.outputs_at(params, state, rows)
        loss = float(jax.jit(self.recipe.loss)(outputs, y))
        target = self.as_target(y)
        return Outcome(loss, score(target, self.predictions(np.asarray(outputs, float), target)))

    def outputs_at(
        self, params: Any, state: Any, rows: tuple[Any, Any] | None = None, train: bool = False
    ) -> tuple[Any, np.ndarray]:
        """The outputs for at most `ROWS` of the rows, and the targets of these.

        Rows are taken evenly, as they may be sorted. Where the state goes on from batch to batch
        they are the first ones.
        """
        x, y = (np.asarray(part) for part in (self.recipe.train if rows is None else rows))
        many = ROWS if self.fits else AT_ONCE  # outputs without rows cannot be joined
        if len(x) > many:
            chosen = np.linspace(0, len(x) - 1, many).round().astype(int)
            chosen = chosen if self.recipe.restart is None else np.arange(many)
            x, y = x[chosen], y[chosen]
        state = self.recipe.begun(params, state)
        parts = [
            self.network[train](params, state, jnp.asarray(x[i : i + AT_ONCE]))
            for i in range(0, len(x), AT_ONCE)
        ]
        if len(parts) == 1:
            return parts[0], y
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), y

    def recomputed(self, outputs: Any, y: np.ndarray, weights: np.ndarray | None = None) -> float:
        """The skill by accuracy or R²; -1 where outputs do not fit the targets.

        `weights` are those of the classes, as the loss has them by default.
        """
        target = self.as_target(y)
        target = target if weights is None else target._replace(weights=weights)
        try:
            value = score(target, self.predictions(np.asarray(outputs, float), target))
        except (ValueError, TypeError):  # outputs of another shape predict nothing
            return -1.0
        return skill(value, chance(target))

    def loss_of_as_many(self, outputs: Any, y: np.ndarray) -> float:
        """The loss as a mean over parts of as many rows as the constant answer is measured on.

        A loss that holds rows against each other, as that of Cox does, grows with their number.
        """
        whole = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(outputs)} == {(len(y),)}
        size, loss = len(self.wanted), jax.jit(self.recipe.loss)
        if not whole or len(y) <= size or self.recipe.restart is not None:
            return float(loss(outputs, y))
        parts = len(y) // size
        places = np.linspace(0, len(y) - 1, parts * size).round().astype(int)
        each = [places[part::parts] for part in range(parts)]
        return float(
            np.mean([loss(jax.tree.map(lambda o, s=s: o[s], outputs), y[s]) for s in each])
        )

    def of_loss(self, loss: float) -> float:
        """A loss as skill: the share of the best constant answer's loss that is gone."""
        constant = self.constant_loss
        if not np.isfinite([loss, constant]).all():
            return -1.0
        return float(np.clip((constant - loss) / max(abs(constant), 1e-9), -1, 1))

    def hardly_predicted(self, params: Any, state: Any) -> set[int]:
        """Classes that the network predicts far less often than training rows are of them."""
        outputs, y = self.outputs_at(params, state)
        target = target_of(y, self.kind)
        counted = target.answers >= 0
        predicted = np.asarray(self.predictions(np.asarray(outputs, float), target)).astype(int)
        answers, predicted = target.answers[counted], predicted.reshape(counted.shape)[counted]
        asked = np.bincount(answers, minlength=target.classes)
        got = np.bincount(np.maximum(predicted, 0), minlength=len(asked))[: len(asked)]
        return set(np.flatnonzero((asked > 0) & (got < bound("hardly") * asked)).tolist())
