"""The network's answers against the targets and the loss: what range they have, what it expects.

Two functions are probed and never read: the tail, which makes the answers from the last layer's
pre-activations, and the loss as a function of the answers. A loss that does not change when a
number is added to each row applies a softmax; one that grows by the same amount each time a
probability is divided by ten takes its logarithm; and so on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.program.layers import Layer, forward, layers_of
from nnref.diagnosis.program.tracing import Trace
from nnref.diagnosis.recipe import Subject

ROWS = 8  # of a probe
Kind = Literal["one-hot", "classes", "binary", "flags", "values"]


@dataclass(frozen=True)
class Sample:
    """A subject at its start, with a few rows.

    `tail` gives the answers for pre-activations of the last layer, where they depend on nothing
    else of the data; None otherwise.
    """

    subject: Subject
    params: Any
    state: Any
    x: Any
    y: Any
    outputs: Any
    trace: Trace  # in evaluation mode
    layers: list[Layer]

    @property
    def answers(self) -> np.ndarray | None:
        """The outputs, where they are one array with the rows first."""
        leaves = jax.tree.leaves(self.outputs)
        if len(leaves) != 1 or np.shape(leaves[0])[:1] != (len(self.x),):
            return None
        return np.asarray(leaves[0], np.float64)

    @property
    def tail(self) -> tuple[Callable[[Any], Any], tuple[int, ...]] | None:
        """The answers as a function of the last pre-activations, and the shape of these."""
        outputs = self.trace.outputs[: len(jax.tree.leaves(self.outputs))]
        found = [layer for layer in self.layers if not layer.looped]
        if not found or len(outputs) != 1:
            return None
        cut = found[-1].before
        data = set(self.trace.arguments[2])
        if data & self.trace.needed(outputs, [cut]) or cut not in self.trace.needed(outputs):
            return None
        leaves = jax.tree.leaves((self.params, self.state, self.x, jax.random.key(0)))
        dtype = self.trace.avals[cut].dtype

        def tail(z: Any) -> Any:
            return self.trace.evaluate(leaves, outputs, {cut: jnp.asarray(z, dtype)})[0]

        return tail, self.trace.shape(cut)


def sample(subject: Subject, params: Any, state: Any, rows: int = ROWS) -> Sample:
    """A few rows of a subject, chosen over the whole range of its targets."""
    x, y = subject.train
    rows = subject.rows or rows
    order = np.argsort(target_order(y), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)]
    x, y = np.asarray(x)[chosen], np.asarray(y)[chosen]
    traced = forward(subject, params, state, x)
    outputs, _ = jax.jit(subject.apply, static_argnums=4)(
        params, state, x, jax.random.key(0), False
    )
    return Sample(subject, params, state, x, y, outputs, traced, layers_of(traced))


def target_order(y: Any) -> np.ndarray:
    """A number for each row by which to sort: the class of a one-hot row, or the first target."""
    flat = np.asarray(y, np.float64).reshape(len(y), -1)
    return flat.argmax(1) if flat.shape[1] > 1 and is_one_hot(np.asarray(y)) else flat[:, 0]


def is_one_hot(y: np.ndarray) -> bool:
    """Rows that are distributions over the last axis, sharp or smoothed."""
    y = np.asarray(y, np.float64)
    return bool(
        y.ndim > 1
        and y.shape[-1] > 1
        and y.min() >= 0
        and np.abs(y.sum(-1) - 1).max() < 1e-3
        and np.mean(y.max(-1) > 0.5) > 0.9
    )


def kind_of(y: Any, answers: np.ndarray, told: str | None) -> Kind:
    """What targets are, from their values and from what the user tells of the task."""
    y = np.asarray(y)
    if told == "regression" or not np.isfinite(np.asarray(y, np.float64)).all():
        return "values"
    if is_one_hot(y):
        return "one-hot"
    integral = bool((np.rint(y) == y).all())
    width = answers.shape[-1] if answers.ndim > 1 else 1
    numbered = width > 1 and y.shape[1:] in (answers.shape[1:-1], (*answers.shape[1:-1], 1))
    if integral and np.issubdtype(y.dtype, np.integer) and numbered:
        return "classes"
    if integral and y.min() >= 0 and y.max() <= 1:
        return "flags" if y.ndim > 1 and y.shape[-1] > 1 else "binary"
    if integral and told == "multiclass" and y.min() >= 0:
        return "classes"
    return "values"


# The tail


@dataclass(frozen=True)
class Range:
    """What the answers can be.

    `low` and `high` bound them, infinite where nothing does; `floor` tells a bound below that a
    good part of all pre-activations meets exactly, as with ReLU.
    """

    low: float
    high: float
    constant: bool
    floor: bool
    sums_to_one: bool  # over the last axis
    sums_over_batch: bool

    @property
    def raw(self) -> bool:
        """Bounded on neither side."""
        return self.low == -np.inf and self.high == np.inf


def range_of(tail: Callable[[Any], Any], shape: tuple[int, ...]) -> Range:
    """Probe a tail with pre-activations small and huge.

    Args:
        tail: answers of pre-activations.
        shape: of these.
    """
    random = np.random.default_rng(0)
    drawn = random.normal(size=(4, *shape))
    levels = np.ones((4, *shape)) * np.array([-1.0, 0.0, 0.5, 1.0]).reshape(-1, *[1] * len(shape))
    scales = (1.0, 30.0, 900.0)
    stack = np.concatenate([scale * part for scale in scales for part in (drawn, levels)])
    given = np.asarray(jax.jit(jax.vmap(tail))(stack.astype(np.float32)), np.float64)
    given = np.where(np.isfinite(given), given, np.sign(np.nan_to_num(given)) * 1e30)
    small, middle, large = np.split(given, len(scales))
    grows = max(1.0, 3 * np.abs(middle).max())
    low = -np.inf if large.min() < -grows else float(given.min())
    high = np.inf if large.max() > grows else float(given.max())
    width = given.shape[-1] if given.ndim > 2 else 1
    sums = given.sum(-1) if given.ndim > 2 else given
    ordinary = small[:4]
    return Range(
        low=low,
        high=high,
        constant=bool(np.ptp(given) <= 1e-6),
        floor=bool(high == np.inf and low > -np.inf and np.mean(ordinary == ordinary.min()) > 0.2),
        sums_to_one=bool(width > 1 and low >= 0 and np.abs(sums - 1).max() < 1e-3),
        sums_over_batch=bool(
            shape[0] > 1
            and low >= 0
            and np.abs(given.sum(1) - 1).max() < 1e-3
            and not (width > 1 and np.abs(sums - 1).max() < 1e-3)
        ),
    )


# The loss


def row_by_row(loss: Callable[[Any, Any], Any], outputs: Any, y: Any) -> bool:
    """Whether the loss of some rows is the mean, or sum, of the losses of each by itself.

    One that holds rows against each other, as contrastive losses do, is neither: what it wants of
    an answer is not to be told from its target.
    """
    outputs, loss = np.asarray(outputs, np.float32), jax.jit(loss)
    alone = [float(loss(outputs[i : i + 1], y[i : i + 1])) for i in range(len(y))]
    told = float(loss(outputs, y)), np.mean(alone), np.sum(alone)
    return bool(np.isclose(told[0], told[1:], rtol=1e-3).any())


@dataclass(frozen=True)
class Expectation:
    """What a loss does with answers, found by asking it.

    Attributes:
        flat: it does not depend on the answers.
        reads_targets: it depends on the targets.
        pairs: it matters which answer stands beside which target.
        softmax: it applies a softmax over the last axis.
        softmax_over_batch: or over the batch.
        margin: it rewards large answers of the right sign without end, as a logistic loss does.
        logarithm: it takes the logarithm of answers.
        renormalizes: it divides each row by its sum.
        only_true: only the answer for the true class counts.
        positive: it is finite for positive answers and not for negative ones.
        beyond_one: where it takes the logarithm, answers above one are judged too.
        rises: it rises as answers move towards the targets.
        collapses: share of the targets' range within which the best answer is the same.
        weights: how unequally targets weigh, the heaviest over the lightest.
        blind: of two classes, the one whose rows have the same loss whatever the answer.
        bottomless: it falls without end as all answers grow, or fall.
        distance: it is least where the answer is the target.
    """

    flat: bool = False
    reads_targets: bool = True
    pairs: bool = True
    softmax: bool = False
    softmax_over_batch: bool = False
    margin: bool = False
    logarithm: bool = False
    renormalizes: bool = False
    only_true: bool = False
    positive: bool = False
    beyond_one: bool = False
    rises: bool = False
    collapses: float = 0.0
    weights: float = 1.0
    blind: float | None = None
    bottomless: bool = False
    distance: bool = False

    @property
    def logits(self) -> bool:
        """Whether it takes raw values for classes."""
        return self.softmax or self.margin


def expectation_of(loss: Callable[[Any, Any], Any], y: Any, kind: Kind, shape: Any) -> Expectation:
    """Ask a loss what it expects of answers.

    Args:
        loss: of answers and targets.
        y: targets, a few rows.
        kind: what they are.
        shape: of the answers.
    """
    random = np.random.default_rng(0)
    many = jax.jit(jax.vmap(lambda outputs, y: jnp.asarray(loss(outputs, y)).sum()))
    y = np.asarray(y)
    asked: list[np.ndarray] = []
    targets: list[np.ndarray] = []

    def ask(answer: Any, target: Any = y) -> int:
        asked.append(np.broadcast_to(np.asarray(answer, np.float32), shape))
        targets.append(target)
        return len(asked) - 1

    width = shape[-1] if len(shape) > 1 else 1
    column = (*shape[:-1], 1) if len(shape) > 1 else shape
    goal = goal_of(y, kind, shape)
    spread = max(float(np.ptp(np.asarray(y, np.float64))), 1e-6) if kind == "values" else 1.0
    middle = float(np.mean(y)) if kind == "values" else 0.5
    # Any answers, within the range of the targets.
    drawn = [middle + spread * random.uniform(-0.45, 0.45, shape) for _ in range(3)]
    any_answers = [ask(answers) for answers in drawn]
    added = [ask(answers + spread * random.normal(size=column)) for answers in drawn]
    beside = [ask(answers + spread * random.normal(size=(1, *shape[1:]))) for answers in drawn]
    mirrored = ask(2 * drawn[0] - drawn[1])
    turned = [ask(np.roll(answers, 1, 0)) for answers in drawn]
    scaled = (
        [ask(np.abs(answers)) for answers in drawn],
        [ask(2.5 * np.abs(answers)) for answers in drawn],
    )
    signs_of = [ask(sign * (np.abs(drawn[0]) + 0.1 * spread)) for sign in (1, -1)]
    other_targets = [ask(answers, np.roll(y, 1, 0)) for answers in drawn]
    tenths: list[int] = []
    toward = away = ones = level = right = wrong = above = tenths
    if kind != "values" and goal is not None:
        tenths = [ask(probability(goal, kind, width, 10.0**-power)) for power in (1, 2, 3, 4, 5)]
        toward, away = [
            [ask(probability(goal, kind, width, p)) for p in some]
            for some in ((0.6, 0.75, 0.9), (0.4, 0.25, 0.1))
        ]
        ones = [ask(np.full(shape, 0.999))]
        level = [ask(np.full(shape, 1 / max(width, 2)))]
        signs = 2 * goal - 1
        right = [ask(size * signs) for size in (10.0, 20.0, 40.0)]
        wrong = [ask(-size * signs) for size in (10.0, 20.0, 40.0)]
        above = [ask(np.where(goal > 0.5, size, 0.5)) for size in (0.999, 1.5, 2.5)]
    far = [[ask(sign * size * spread) for size in (1e2, 1e4)] for sign in (1, -1)]
    curve: list[list[int]] = []
    grid, quantiles = np.zeros(0), np.zeros(0)
    if kind in ("values", "binary", "flags") and goal is not None:
        quantiles, grid = calibration(y, goal.size)
        curve = [[ask(g, np.full_like(y, v)) for g in grid] for v in quantiles]
    losses = np.concatenate(
        [
            np.asarray(many(np.stack(asked[i : i + 512]), np.stack(targets[i : i + 512])))
            for i in range(0, len(asked), 512)
        ]
    ).astype(np.float64)

    def same(first: Any, second: Any) -> bool:
        a, b = losses[list(first)], losses[list(second)]
        return bool(np.isfinite(a).all() and np.allclose(a, b, rtol=1e-4, atol=1e-7 * spread**2))

    told = np.array([losses[list(any_answers)], losses[list(scaled[0])]])
    # A cost that is linear in the answers may be blind to what is added without a softmax, and has
    # its best answers at infinity.
    on_a_line = 2 * losses[any_answers[0]] - losses[any_answers[1]]
    linear = np.isclose(losses[mirrored], on_a_line, rtol=1e-4, atol=1e-4 * np.abs(told).max())
    flat = np.isfinite(told).all() and np.ptp(told) <= 1e-5 * np.abs(told).max()
    found: dict[str, Any] = {
        "flat": bool(flat),
        "positive": bool(np.array_equal(np.isfinite(losses[signs_of]), [True, False])),
        "reads_targets": not same(any_answers, other_targets) or len(y) == 1 or np.all(y == y[:1]),
        "pairs": not same(any_answers, turned) or len(y) < 3,
        "softmax": width > 1 and not flat and not linear and same(any_answers, added),
        "softmax_over_batch": not flat and not linear and len(y) > 2 and same(any_answers, beside),
        "renormalizes": width > 1 and not flat and same(*scaled),
    }
    if found["softmax"] and found["softmax_over_batch"]:  # all that is added is lost: no softmax
        found["softmax_over_batch"] = False
    if tenths and not flat:
        steps = np.diff(losses[list(tenths)])[1:]
        found["logarithm"] = bool(
            np.isfinite(steps).all() and steps[0] > 1e-6 and np.ptp(steps) < 0.1 * steps.mean()
        )
        found["only_true"] = bool(losses[ones[0]] < 0.05 * losses[level[0]])
        least, most = losses[list(right)], losses[list(wrong)]
        found["margin"] = bool(
            not found["logarithm"]
            and np.isfinite(most).all()
            and np.isfinite(least).all()
            and least[-1] < 1e-3 * most[-1]
            and abs(most[2] / most[1] - 2) < 0.2
        )
        higher = losses[list(above)]
        found["beyond_one"] = bool(np.isfinite(higher).all() and (np.diff(higher) > 0).all())
        towards, backwards = losses[list(toward)], losses[list(away)]
        # A loss that is above 0 was not turned: its answers may be distances, least for a match.
        turned = min(towards.min(), backwards.min()) < 0
        found["rises"] = bool(
            turned and (towards > backwards).all() and (np.diff(towards) > 0).all()
        )
    if kind in ("values", "binary", "flags") and not flat and not linear:
        ends = losses[np.array(far)]
        found["bottomless"] = bool(((ends[:, 1] < 20 * ends[:, 0]) & (ends[:, 0] < 0)).any())
    if curve and not flat and not linear:
        table = losses[np.array(curve)]
        if kind == "binary" and np.isfinite(table).all():
            still = np.ptp(table, axis=1) <= 1e-6 * np.ptp(table)
            found["blind"] = float(quantiles[still][0]) if still.sum() == 1 else None
        best = grid[np.where(np.isfinite(table), table, np.inf).argmin(1)]
        gaps, moves = np.diff(quantiles), np.diff(best)
        if len(gaps):
            still = np.abs(moves) <= 1e-6 * spread
            found["collapses"] = float(gaps[still].sum() / gaps.sum())
            if kind == "values":  # what is worst at the target is a loss with its sign reversed
                worst = grid[np.where(np.isfinite(table), table, -np.inf).argmax(1)]
                found["rises"] = bool(np.abs(worst - quantiles).max() <= 0.02 * spread)
            found["distance"] = bool(np.abs(best - quantiles).max() <= 0.02 * spread)
    if goal is not None and not flat and kind != "classes":
        found["weights"] = weights_of(loss, y, np.asarray(drawn[0]), np.asarray(goal))
    return Expectation(**found)


def goal_of(y: np.ndarray, kind: Kind, shape: Any) -> np.ndarray | None:
    """The targets in the shape of the answers, one-hot for classes; None where none fits."""
    width = shape[-1] if len(shape) > 1 else 1
    if kind == "classes":
        labels = np.asarray(y).astype(int)
        if labels.shape == (*shape[:-1], 1) and width > 1:
            labels = labels[..., 0]
        if labels.shape != tuple(shape[:-1]) or width < 2:
            return None
        return np.eye(width)[np.clip(labels, 0, width - 1)]
    y = np.asarray(y, np.float64)
    if y.size != int(np.prod(shape)):
        return None
    y = y.reshape(shape)
    if kind == "one-hot":
        return np.eye(width)[y.argmax(-1)]
    return y


def probability(goal: np.ndarray, kind: Kind, width: int, true: float) -> np.ndarray:
    """Answers that give the truth this probability and share the rest."""
    rest = (1 - true) / (width - 1) if kind in ("one-hot", "classes") else 1 - true
    return goal * true + (1 - goal) * rest


def calibration(y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets over their whole range, and answers to try for each."""
    values = np.asarray(y, np.float64)
    quantiles = np.unique(np.quantile(values, [0.02, 0.15, 0.3, 0.5, 0.7, 0.85, 0.98]))
    if len(np.unique(values)) == 2:
        quantiles = np.unique(values)
    low, high = values.min(), values.max()
    span = max(high - low, 1e-6)
    points = 121 if size <= 1000 else 31
    fine = np.concatenate([np.geomspace(1e-3, 1.0, 13), -np.geomspace(1e-3, 1.0, 13)])
    around = np.linspace(low - 0.5 * span, high + 0.5 * span, points)
    return quantiles, np.unique(np.concatenate([around, quantiles, fine, np.linspace(-8, 8, 33)]))


def weights_of(
    loss: Callable[[Any, Any], Any], y: np.ndarray, drawn: np.ndarray, goal: np.ndarray
) -> float:
    """How much more the heaviest kind of target weighs than the lightest, in the gradient.

    Zeros are held against all others, because a relative error divides by them.
    """
    gradient = jax.jit(jax.grad(lambda outputs: jnp.asarray(loss(outputs, y)).sum()))
    slopes = np.abs(np.asarray(gradient(drawn.astype(np.float32)), np.float64))
    zero = goal == 0
    if not zero.any() or zero.all() or not np.isfinite(slopes).all():
        return 1.0
    light, heavy = sorted((slopes[zero].mean(), slopes[~zero].mean()))
    return float(heavy / light) if light > 0 else 1.0
