"""The measurements that all checks share: made once, in the order in which they are needed."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.causes import bound
from nnref.diagnosis.data.references import Reference, references, scales, standardized
from nnref.diagnosis.data.targets import Target, chance, infer_kind, score, skill, target_of
from nnref.diagnosis.findings import in_a_line
from nnref.diagnosis.program.at_start import drawn_like
from nnref.diagnosis.program.expectation import row_by_row
from nnref.diagnosis.program.layers import Layer, layers
from nnref.diagnosis.program.tracing import COMPARISONS, Trace, trace
from nnref.diagnosis.recipe import Subject, no_penalty, updated
from nnref.diagnosis.run.snapshot import Snapshot, leaf_index, looked_at, watcher
from nnref.diagnosis.run.trials import Change, Run, Trainer, lengths

ROWS = 1024  # that a measure of the whole network looks at
AT_ONCE = 512
BY_HEART = (2, 16, 64)  # rows that a network is asked to learn by heart
STEPS_BY_HEART = 300
CONSTANTS = 20  # classes whose constant answer a metric is asked about
SHORTEST = 2.0  # seconds below which a further run is not begun
CHUNK = 0.1  # of the seconds of a run: the longest compiled part of it that cannot be cut short
ALL_RUNS = 2.5  # times the seconds of the user's own run: all runs together


class Outcome(NamedTuple):
    """How a network does on some rows: its mean loss and its skill, 0 a constant and 1 perfect."""

    loss: float
    skill: float


class Trial(NamedTuple):
    """A run with one thing changed, and the skill on the training rows where it ended."""

    name: str
    change: Change
    skill: float
    valid: float | None


@dataclass
class Case:
    """A subject and what was measured of it."""

    subject: Subject
    seconds: float
    key: jax.Array = field(default_factory=lambda: jax.random.key(0))
    began: float = field(default_factory=time.perf_counter)
    metric_refused: str = ""

    def budget(self, share: float = 1.0) -> float:
        """Seconds that a further run may take: a share of those of the run, while any are left."""
        left = ALL_RUNS * self.seconds - (time.perf_counter() - self.began)
        return max(0.0, min(share * self.seconds, left))

    @cached_property
    def initial(self) -> tuple[Any, Any]:
        """Parameters and state before the first step, the same that the run starts from."""
        return jax.jit(self.subject.init)(jax.random.split(self.key)[0])

    @cached_property
    def layers(self) -> list[Layer]:
        """Products with parameters that run once, in the order of the data."""
        return [layer for layer in layers(self.subject) if not layer.looped]

    @cached_property
    def look(self) -> Callable[[Any, Any], Snapshot]:
        """Looks at the network at some parameters."""
        return watcher(self.subject, self.layers)

    @cached_property
    def start(self) -> Snapshot:
        """The network before the first step."""
        return self.look(*self.initial)

    @cached_property
    def end(self) -> Snapshot:
        """The network after the last one."""
        return self.look(self.run.params, self.run.state)

    @cached_property
    def trainer(self) -> Trainer:
        """The compiled training; step by step where a compiled chunk would outlast the time."""
        convolves = any(layer.kind == "conv_general_dilated" for layer in self.layers)
        stepwise = convolves and jax.default_backend() == "cpu"
        trainer = Trainer(self.subject, stepwise, self.decay)
        if not stepwise:
            chunk = self.seconds_of_a_step * trainer.chunk_epochs * trainer.steps_per_epoch
            trainer.stepwise = chunk > CHUNK * self.seconds
        return trainer

    @cached_property
    def optimizer(self) -> Trace:
        """The program of an update: arguments gradient, optimizer state, parameters."""
        params, optimizer = self.initial[0], self.subject.optimizer
        given = params, optimizer.init(params), params
        return trace(lambda *given: updated(optimizer, *given)[0], *given)

    @cached_property
    def decay(self) -> tuple[float, ...]:
        """The share of each parameter that a step takes away, whatever the gradient.

        () where a whole run of it would not be felt.
        """
        params, optimizer = self.initial[0], self.subject.optimizer
        if self.optimizer.reached(self.optimizer.arguments[2]).isdisjoint(self.optimizer.outputs):
            return ()
        still = jax.tree.map(jnp.zeros_like, params)
        updates, _ = jax.jit(lambda *given: updated(optimizer, *given))(
            still, optimizer.init(params), params
        )
        taken = []
        for update, leaf in zip(*map(jax.tree.leaves, (updates, params)), strict=True):
            update, leaf = np.asarray(update, float), np.asarray(leaf, float)
            share = -float((update * leaf).sum() / max((leaf**2).sum(), 1e-30))
            taken.append(share if np.allclose(update, -share * leaf, rtol=1e-3) else 0.0)
        steps = self.subject.epochs * max(len(self.subject.train[0]) // self.subject.batch_size, 1)
        return tuple(taken) if steps * max(taken) > bound("decayed") else ()

    @cached_property
    def seconds_of_a_step(self) -> float:
        """About what a step takes, from a second look at the start: its rows, there and back."""
        _ = self.start
        began = time.perf_counter()
        self.look(*self.initial)
        taken = time.perf_counter() - began
        return taken * min(self.subject.batch_size, len(self.subject.train[0])) / len(self.wanted)

    @cached_property
    def run(self) -> Run:
        """The user's own training."""
        return self.trainer.run(self.key, seconds=self.seconds, start=self.initial)

    @cached_property
    def wanted(self) -> np.ndarray:
        """The targets of the rows that a look sees."""
        return np.asarray(self.subject.train[1])[looked_at(self.subject)]

    @cached_property
    def answers(self) -> np.ndarray | None:
        """The outputs for them at the start, where they are one array with the rows first."""
        leaves = jax.tree.leaves(self.start.outputs)
        by_row = len(leaves) == 1 and leaves[0].shape[:1] == (len(self.wanted),)
        return leaves[0] if by_row else None

    @cached_property
    def width(self) -> int:
        """Of the outputs: units of the last axis, 1 where there is none."""
        return 1 if self.answers is None or self.answers.ndim < 2 else self.answers.shape[-1]

    @cached_property
    def kind(self) -> str:
        """The kind of task, told or inferred; two classes in two columns are classes."""
        y = np.asarray(self.subject.train[1])
        told = self.subject.kind
        shape = () if self.answers is None else (len(y), *self.answers.shape[1:])
        inferred = infer_kind(y, shape)
        columns = y.ndim > 1 and y.shape[-1] > 1
        again = told == "binary" and columns or told == "multiclass" and inferred == "places"
        return inferred if told is None or again else told

    @cached_property
    def fits(self) -> bool:
        """Whether answers can be held against targets: one by one, or by the user's metric."""
        if self.subject.metric is not None:
            return not self.indifferent
        if self.answers is None:
            return False
        answer, y = self.answers[0], np.asarray(self.subject.train[1])
        if self.kind == "multiclass":
            classes = answer.ndim == 1 and answer.size >= self.target.classes
            return classes or answer.size == 1 or self.row_by_row
        if self.kind == "binary" and answer.size == 2:
            return True
        return self.kind == "places" or answer.size == y[0].size

    @cached_property
    def indifferent(self) -> bool:
        """Whether a metric gives one answer for all rows as much as a perfect one.

        As one of ranks does, of a loss that holds rows against each other, where all are alike.
        """
        if self.answers is None or self.row_by_row:
            return False
        found = self.told_of_constants(self.answers, self.wanted) >= 1
        if found:
            self.metric_refused = "it gives one answer for all rows as much as a perfect one"
        return found

    @cached_property
    def constant_loss(self) -> float:
        """The loss of the best constant answer, found by descent: outputs the same for every row.

        It is what a loss is measured against where answers and targets cannot be compared.
        """
        rows, y = len(self.wanted), jnp.asarray(self.wanted)
        outputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), self.start.outputs)
        by_row = jax.tree.map(lambda leaf: leaf.shape[:1] == (rows,), outputs)

        def loss(constant: Any) -> Any:
            spread = jax.tree.map(
                lambda leaf, many: jnp.repeat(leaf[None], rows, 0) if many else leaf,
                constant,
                by_row,
            )
            return self.subject.loss(spread, y)

        def step(carry: Any, _: None) -> Any:
            constant, state = carry
            value, gradient = jax.value_and_grad(loss)(constant)
            updates, state = descent.update(gradient, state)
            return (optax.apply_updates(constant, updates), state), value

        descent = optax.adam(0.05)
        first = jax.tree.map(lambda leaf, many: leaf.mean(0) if many else leaf, outputs, by_row)
        _, losses = jax.jit(lambda c: jax.lax.scan(step, (c, descent.init(c)), length=500))(first)
        losses = np.asarray(losses)
        return float(np.min(losses[np.isfinite(losses)], initial=np.inf))

    @cached_property
    def target(self) -> Target:
        """The training targets."""
        return target_of(np.asarray(self.subject.train[1]), self.kind)

    @cached_property
    def chance(self) -> float:
        """The score of the best constant answer on the training rows."""
        return chance(self.target)

    @cached_property
    def reference(self) -> Reference:
        """What simple models reach on held-out rows."""
        if not self.fits:
            return Reference({}, {}, 0)
        return references(np.asarray(self.subject.train[0]), self.target)

    @cached_property
    def shuffled(self) -> float:
        """The best skill of the same models where targets are dealt to the rows at random."""
        x = np.asarray(self.subject.train[0])
        return max(references(x, self.target, shuffles=1).shuffled.values(), default=0.0)

    @cached_property
    def threshold(self) -> float:
        """The output above which the answer is the larger of two: where both cost the same."""
        y = np.asarray(self.subject.train[1])
        low, high = (np.full_like(y[:2], value) for value in (y.min(), y.max()))
        assert self.answers is not None, "asked of outputs that are one array"
        shape = (2, *self.answers.shape[1:])
        grid = np.linspace(-4, 4, 161)
        loss = jax.jit(self.subject.loss)
        costs = np.array(
            [
                float(loss(jnp.full(shape, v, jnp.float32), low))
                - float(loss(jnp.full(shape, v, jnp.float32), high))
                for v in grid
            ]
        )
        crossing = np.flatnonzero((costs[:-1] < 0) & (costs[1:] >= 0))
        return float(grid[crossing[0] + 1]) if len(crossing) else 0.5

    def decided(self, outputs: np.ndarray, target: Target) -> np.ndarray:
        """The answers that outputs stand for."""
        if target.kind == "regression":
            return outputs.reshape(len(outputs), -1)
        if target.kind == "places":
            return outputs.argmax(-1)
        if target.kind == "multiclass":
            flat = outputs.reshape(len(outputs), -1)
            return flat.argmax(-1) if flat.shape[1] > 1 else np.round(flat[:, 0])
        if target.kind == "binary" and self.width > 1:
            return outputs.argmax(-1)
        return outputs.reshape(len(outputs), -1) > self.threshold

    @cached_property
    def applied(self) -> dict[bool, Any]:
        """The network compiled, by mode."""

        def network(params: Any, state: Any, x: Any, train: bool) -> Any:
            return self.subject.apply(
                params, state, x, jax.random.key(1) if train else None, train
            )[0]

        return {
            mode: jax.jit(lambda p, s, x, m=mode: network(p, s, x, m)) for mode in (False, True)
        }

    def outcome(
        self,
        params: Any,
        state: Any,
        rows: tuple[Any, Any] | None = None,
        train: bool = False,
    ) -> Outcome:
        """How the network does on rows, the training rows by default."""
        outputs, y = self.answered(params, state, rows, train)
        loss = float(jax.jit(self.subject.loss)(outputs, y))
        if not self.fits:
            return Outcome(loss, self.fall(loss))
        told = self.told(outputs, y)
        if told is None:
            return Outcome(loss, self.recomputed(outputs, y))
        return Outcome(loss, skill(told, self.told_of_constants(outputs, y)))

    @cached_property
    def row_by_row(self) -> bool:
        """Whether the loss holds each answer against its target, not rows against each other."""
        assert self.answers is not None, "asked of outputs that are one array"
        return row_by_row(self.subject.loss, self.answers[:4], self.wanted[:4])

    def answered(
        self, params: Any, state: Any, rows: tuple[Any, Any] | None, train: bool = False
    ) -> tuple[Any, np.ndarray]:
        """Outputs for some of the rows, and the targets of these.

        Rows are taken evenly: they may be sorted. A state that goes on needs those from the start.
        """
        x, y = (np.asarray(part) for part in (self.subject.train if rows is None else rows))
        many = ROWS if self.fits else AT_ONCE  # some outputs may be no rows, and cannot be joined
        if len(x) > many:
            chosen = np.linspace(0, len(x) - 1, many).round().astype(int)
            chosen = chosen if self.subject.restart is None else np.arange(many)
            x, y = x[chosen], y[chosen]
        state = self.subject.begun(params, state)
        parts = [
            self.applied[train](params, state, jnp.asarray(x[i : i + AT_ONCE]))
            for i in range(0, len(x), AT_ONCE)
        ]
        if len(parts) == 1:
            return parts[0], y
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), y

    def recomputed(self, outputs: Any, y: np.ndarray) -> float:
        """The skill by accuracy or R²; -1 where outputs do not fit the targets."""
        target = target_of(y, self.kind)
        try:
            told = score(target, self.decided(np.asarray(outputs, float), target))
        except (ValueError, TypeError):  # outputs that do not fit the targets answer nothing
            return -1.0
        return skill(told, chance(target))

    def told_of_constants(self, outputs: np.ndarray, y: np.ndarray) -> float:
        """The most that the user's metric gives to one answer for all rows."""
        shape = np.shape(outputs)
        width = shape[-1] if len(shape) > 1 else 1
        if self.kind != "regression" and width > 1:
            answers = [20 * np.eye(width)[c] - 10 for c in range(min(width, CONSTANTS))]
        else:
            values = np.asarray(y, float)
            answers = [-10.0, 0.0, 1.0, 10.0, values.min(), values.mean(), values.max()]
            answers += [values.mean(0)] if values.shape == shape else []
        told = [self.told(np.broadcast_to(np.float32(a), shape), y) for a in answers]
        return max((each for each in told if each is not None and np.isfinite(each)), default=0.0)

    @cached_property
    def misjudged(self) -> float | None:
        """The skill of the trained network recomputed, where the user's metric tells another."""
        if self.subject.metric is None or self.answers is None:
            return None
        return self.recomputed(*self.answered(self.run.params, self.run.state, None))

    @cached_property
    def never_answered(self) -> set[int]:
        """Classes of the training rows that the trained network gives to none of them."""
        outputs, y = self.answered(self.run.params, self.run.state, None)
        target = target_of(y, self.kind)
        decided = np.asarray(self.decided(np.asarray(outputs, float), target)).astype(int)
        return set(target.answers.ravel().tolist()) - set(decided.ravel().tolist())

    def fall(self, loss: float) -> float:
        """A loss as skill: how much of that of the best constant answer is gone."""
        if not np.isfinite(loss):
            return -1.0
        constant = self.constant_loss
        return float(np.clip((constant - loss) / max(abs(constant), 1e-9), -1, 1))

    def told(self, outputs: np.ndarray, y: np.ndarray) -> float | None:
        """What the user's metric says; None where there is none, or it cannot."""
        if self.subject.metric is None:
            return None
        try:
            return float(self.subject.metric(jax.tree.map(jnp.asarray, outputs), jnp.asarray(y)))
        except Exception as error:  # whatever it raises, accuracy or R² goes on without it
            self.metric_refused = in_a_line(error)
            return None

    @cached_property
    def trained(self) -> Outcome:
        """At the end of the run, on the training rows, in evaluation mode."""
        return self.outcome(self.run.params, self.run.state)

    @cached_property
    def trained_in_mode(self) -> Outcome:
        """The same in training mode."""
        return self.outcome(self.run.params, self.run.state, train=True)

    @cached_property
    def validated(self) -> Outcome | None:
        """At the end of the run, on the validation rows."""
        return None if self.subject.valid is None else self.on(self.subject.valid)

    def on(self, rows: tuple[Any, Any]) -> Outcome | None:
        """At the end of the run, on rows that were not trained on."""
        if np.ptp(np.asarray(rows[1], float)) == 0:
            return None  # of targets that are all the same no answer explains anything
        return self.outcome(self.run.params, self.run.state, rows)

    def he_start(self) -> tuple[Any, Any]:
        """Parameters with kernels drawn as He et al. 2015 do, everything else as the user's."""
        params, state = self.initial
        leaves, tree = jax.tree.flatten(params)
        at = leaf_index(params)
        fans = {at[name]: each.fan_in for each in self.layers for name in each.parameters}
        random = np.random.default_rng(17)
        drawn = []
        for i, leaf in enumerate(leaves):
            if leaf.ndim >= 2:
                deviation = np.sqrt(2 / max(fans.get(i, int(np.prod(leaf.shape[:-1]))), 1))
                leaf = jnp.asarray(deviation * random.normal(size=leaf.shape), leaf.dtype)
            drawn.append(leaf)
        return jax.tree.unflatten(tree, drawn), state

    @cached_property
    def costs(self) -> bool:
        """Whether targets are costs of one answer to all rows, as in problems of regret.

        All inputs are the same, and the loss is linear in the answers: no target can be met.
        """
        x, y = (np.asarray(part) for part in self.subject.train)
        if (x != x[:1]).any() or self.answers is None:
            return False
        y = jnp.asarray(y[: len(self.answers)])
        shape = 2, len(y), *self.answers.shape[1:]
        a, b = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        one, other, beyond = (
            np.sum(self.subject.loss(jnp.asarray(z), y)) for z in (a, b, 2 * a - b)
        )
        return bool(one != other and np.isclose(2 * one - other, beyond, rtol=1e-4))

    def kept_back(self, trial: Trial | None) -> float:
        """The skill on a fifth of the training rows, kept back from the training of a trial."""
        if self.budget() < SHORTEST:
            return 1.0  # no time to doubt it
        x, y = (np.asarray(part) for part in self.subject.train)
        order = np.random.default_rng(1).permutation(len(x))
        kept, rows = np.split(order, [len(x) // 5])
        change = Change() if trial is None else trial.change._replace(inputs=0, targets=0)
        longer = 5 if trial is not None and trial.name == "longer" else 1
        subject = replace(
            self.subject, train=(x[rows], y[rows]), epochs=longer * self.subject.epochs
        )
        trainer = Trainer(subject, self.trainer.stepwise)
        start = self.he_start() if trial and trial.name == "initialization" else self.initial
        (end,) = trainer.trials(
            self.key, x[rows][None], y[rows][None], [change], [start], self.budget()
        )
        return 1.0 if end is None else self.outcome(*end, (x[kept], y[kept])).skill

    @cached_property
    def takes_fractions(self) -> bool:
        """Whether the inputs may be other numbers than whole ones, as tokens may not."""
        x = np.asarray(self.subject.train[0])
        if np.issubdtype(x.dtype, np.inexact):
            return True
        if any(layer.kind == "gather" for layer in self.layers):
            return False
        given = jax.ShapeDtypeStruct((self.subject.rows or 2, *x.shape[1:]), jnp.float32)
        params, state = self.initial
        try:
            jax.eval_shape(lambda x: self.subject.apply(params, state, x, None, False), given)
        except Exception:  # whatever the user's function raises: it is not asked
            return False
        return True

    def likeliest(self, names: Iterable[str]) -> list[str]:
        """Trials in the order in which the run so far speaks for them."""
        loss = self.run.steps.loss
        slow = np.nanmedian(self.run.steps.update) < 1e-4 * np.nanmedian(self.run.steps.weight)
        climbs = not np.isfinite(loss).all() or np.max(loss) > 1.2 * abs(loss[0])
        words = ("inputs", "penalty", "decay", "initialization")
        order = ["rate x10", "rate x100"] if slow else ["rate x0.1", "rate x0.01"] if climbs else []
        order += [*words, "rate x10", "rate x0.1"]
        return [name for name in dict.fromkeys(order) if name in set(names)]

    @cached_property
    def clipped(self) -> float | None:
        """The share of steps whose gradient was longer than the optimizer lets through.

        None where its program compares the global norm of the gradient with nothing.
        """
        params, optimizer = self.initial[0], self.subject.optimizer
        drawn = drawn_like(params)
        given = drawn, optimizer.init(params), params
        traced = self.optimizer
        gradient = set(traced.arguments[0])
        norm = sum(np.sum(np.square(np.asarray(leaf))) for leaf in jax.tree.leaves(drawn)) ** 0.5
        moving = traced.reached(traced.inputs)
        for op in traced.operations:
            sides = [value for value in op.inputs if traced.shape(value) == ()]
            if op.name not in COMPARISONS | {"min", "max", "clamp"} or len(sides) < 2:
                continue
            told = [value for value in sides if gradient <= traced.needed([value])]
            fixed = [value for value in sides if value not in moving]
            if len(told) == 1 and fixed:
                leaves = jax.tree.leaves(given)
                length, *limits = map(float, traced.evaluate(leaves, [*told, *fixed]))
                if np.isclose(length, norm, rtol=1e-3):
                    return float((lengths(self.run.steps.gradient) > max(limits)).mean())
        return None

    @cached_property
    def noise(self) -> float:
        """How much of the variance of the first outputs is drawn at random in training mode."""
        params, state = self.initial
        x = jnp.asarray(self.subject.train[0][:64])
        apply = jax.jit(lambda p, s, x, key: self.subject.apply(p, s, x, key, True)[0])
        outputs = [apply(params, state, x, jax.random.key(i)) for i in range(8)]
        drawn = np.stack([np.asarray(jax.tree.leaves(each)[0], float) for each in outputs])
        within, total = drawn.var(0).mean(), drawn.var((0, 1)).mean()
        return float(within / total) if total > 0 else 0.0

    @cached_property
    def quiet(self) -> Trial | None:
        """The training again without anything drawn, where most of the signal is noise."""
        if not self.subject.random or self.noise < bound("noise") or self.moded:
            return None
        seconds = self.budget()
        if seconds < SHORTEST:
            return None
        subject = replace(self.subject, apply=self.without_noise)
        run = Trainer(subject, self.trainer.stepwise).run(
            self.key, seconds=seconds, start=self.initial
        )
        skill = self.outcome(run.params, run.state).skill
        return Trial("quiet", Change(), skill, None)

    @cached_property
    def by_heart(self) -> dict[int, float]:
        """The skill on one batch of 2, 16 and 64 rows after training on it alone, by its size.

        All regularization is off but what the optimizer brings, which is Adam at 0.01 here: what
        cannot learn two rows like this is no question of data or patience. Small batches are
        repeated to the length of the largest, so that one program serves all.
        """
        subject, seconds = self.subject, self.budget(0.5)
        x, y = (np.asarray(part) for part in subject.train)
        rows = subject.rows or min(BY_HEART[-1], len(x))
        sizes = [size for size in BY_HEART if size <= rows]
        if seconds < SHORTEST or not sizes:
            return {}
        order = np.random.default_rng(2).permutation(len(x))
        others = np.flatnonzero((y[order] != y[order[0]]).reshape(len(y), -1).any(1))
        if len(others):  # of the first two, each asks for something else
            order[[1, others[0]]] = order[[others[0], 1]]
        chosen = [np.resize(order[:size], rows) for size in sizes]
        learner = Trainer(
            replace(
                subject,
                apply=self.without_noise,
                penalty=no_penalty,
                train=(x[chosen[-1]], y[chosen[-1]]),
                optimizer=optax.adam(1e-2),
                batch_size=rows,
                epochs=STEPS_BY_HEART,
                shuffle=False,
            ),
            self.trainer.stepwise,
        )
        sets = x[np.stack(chosen)], y[np.stack(chosen)]
        changes = [Change(inputs=i, targets=i) for i in range(len(sizes))]
        ended = learner.trials(self.key, *sets, changes, [self.initial] * len(sizes), seconds)
        told = {}
        for size, rows_of, end in zip(sizes, chosen, ended, strict=True):
            target = target_of(y[rows_of], self.kind)
            alike = bool((target.answers == target.answers[:1]).all())
            if end is not None and not alike:  # of targets all the same nothing can be explained
                told[size] = self.outcome(*end, (x[rows_of], y[rows_of]), self.moded).skill
        return told

    @property
    def moded(self) -> bool:
        """Whether training mode differs by a state, as of batch normalization, not by noise."""
        return bool(jax.tree.leaves(self.initial[1]))

    def without_noise(self, params: Any, state: Any, x: Any, key: Any, train: bool) -> Any:
        """The network without dropout, where leaving training mode loses no state."""
        if self.moded:
            return self.subject.apply(params, state, x, key, train)
        return self.subject.apply(params, state, x, None, False)

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """The training again with one thing changed each time."""
        if self.budget() < SHORTEST:
            return {}
        subject = self.subject
        x, y = (np.asarray(part) for part in subject.train)
        inputs, targets = [x], [y]
        changes = {
            "rate x0.1": Change(rate=0.1),
            "rate x10": Change(rate=10.0),
            "rate x0.01": Change(rate=0.01),
            "rate x100": Change(rate=100.0),
        }
        told = scales(x)
        first = {}
        ordinary = abs(told.mean).max() < 3 and 0.1 < told.deviation.max() < 3
        if not ordinary and self.takes_fractions:
            inputs.append(standardized(x))
            first["inputs"] = Change(inputs=1)
            # Plain descent had to go slowly for the largest column, and now goes too slowly.
            changes["inputs, rate x10"] = Change(inputs=1, rate=10.0)
            changes["inputs, rate x100"] = Change(inputs=1, rate=100.0)
        if self.kind == "regression":
            spread = float(np.std(y.astype(float)))
            if spread > 3 or 0 < spread < 0.1 or abs(y.mean()) > 10:
                scaled = (y - y.mean(0)) / np.maximum(y.std(0), 1e-30)
                targets.append(scaled.astype(y.dtype))
                first["targets"] = Change(targets=1)
                if "inputs" in first:
                    first["inputs and targets"] = Change(inputs=1, targets=1)
        if np.any(self.run.steps.penalty) or self.decay:
            first["decay" if self.decay else "penalty"] = Change(penalty=0.0)
        starts: dict[str, Any] = {"initialization": self.he_start()}
        changes = {**first, "initialization": Change(), **changes}
        if self.trainer.stepwise:
            # One after the other, as far as the time goes: the likeliest first.
            changes = {name: changes[name] for name in self.likeliest(changes)}
        ended = self.trainer.trials(
            self.key,
            np.stack(inputs),
            np.stack(targets),
            list(changes.values()),
            [starts.get(name, self.initial) for name in changes],
            self.budget(),
        )
        found = {}
        for (name, change), end in zip(changes.items(), ended, strict=True):
            if end is None:
                continue
            rows = inputs[int(change.inputs)], targets[int(change.targets)]
            valid = None
            if subject.valid is not None and not change.inputs and not change.targets:
                valid = self.outcome(*end, subject.valid).skill
            found[name] = Trial(name, change, self.outcome(*end, rows).skill, valid)
        seconds = self.budget(0.5)
        goes_on = self.run.complete and np.isfinite(self.run.steps.loss[-1])
        if goes_on and seconds > SHORTEST:
            params, state, _ = self.trainer.longer(self.run, 5, seconds)
            valid = (
                None if subject.valid is None else self.outcome(params, state, subject.valid).skill
            )
            found["longer"] = Trial("longer", Change(), self.outcome(params, state).skill, valid)
        return found
