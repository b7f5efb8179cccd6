"""Signal and gradient before the first step: through the depth, and through the loop over time."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.references import references
from nnref.diagnosis.data.targets import target_of
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.program.at_start import AtStart, beside
from nnref.diagnosis.program.ignored import NOT_BEHIND, contents, filler_of
from nnref.diagnosis.program.loss_facts import where_least
from nnref.diagnosis.run.changes import Trial
from nnref.diagnosis.thresholds import bound

# Primitives of activations that lose their slope on both sides.
BOUNDED = {"logistic", "tanh", "erf", "atan", "clamp"}
ROWS, OTHERS = 128, 9  # rows whose own target is held against those of others
PLACES = 8  # along an axis, from which on it is one of time or space
SURE = (1, 3, 10, 30, -1, -3, -10, -30)  # logits of right answers, of either sign
DEEP = 3  # layers: in more than these signal and gradient are followed through the depth


def in_time(signals: Signals) -> Iterator[Finding]:
    """A gradient that dies or explodes on its way back through a sequence."""
    measured = signals.measurements
    times = measured.start.times
    quarter = -(-len(times) // 4)
    early, late = max(times[:quarter], default=0.0), max(times[-quarter:], default=0.0)
    # Such a network may sit still for long before it learns: a run cut short says nothing.
    forgets = measured.run.complete and early < bound("forgotten") * max(times, default=0.0)
    if forgets and cut_off(times):
        yield fault(
            "inputs_ignored",
            "the loop over time",
            "the loss does not depend on the early steps of a sequence at all, and does on later "
            "ones: they are not looked at",
            f"gradient exactly 0 at {sum(size == 0 for size in times)} of {len(times)} steps",
            confidence=0.8,
        )
    elif forgets and (forgotten := behind_padding(signals, early / max(times))):
        yield forgotten
    elif forgets and not signals.slower:
        yield fault(
            "vanishing_gradients",
            "the loop over time",
            "the loss hardly depends on the early steps of a sequence: the gradient shrinks with "
            "every step back in time",
            f"first quarter at most {early / max(times):.1e} of the largest",
            healthy=f"above {bound('forgotten'):g}",
            remedy="an LSTM with a forget bias of 1, or shorter sequences",
        )
    grown = early > bound("exploding") * late > 0
    if grown and measured.start.loss > bound("first loss") * abs(measured.skill.constant_loss):
        yield fault(
            "exploding_gradients",
            "the loop over time",
            "the loss depends far more on the early steps of a sequence than on the late ones: "
            "signal and gradient grow with every step of the loop",
            f"first quarter {early / late:.1e} times the last, first loss "
            f"{measured.start.loss:.3g}",
            remedy="jax.nn.initializers.orthogonal() for the recurrent kernel",
        )


def behind_padding(signals: Signals, early: float) -> Finding | None:
    """Rows that are forgotten while the loop goes on over what fills them up, as a trial proves."""
    # Before the other trials are made, after which there may be no work left for this one.
    cure = signals.cured("padding") if signals.exchanges.padding else None
    if cure is None:
        return None
    x = np.asarray(signals.measurements.recipe.train[0])
    said = np.any(contents(x, filler_of(x)).reshape(*x.shape[:2], -1), axis=2)
    behind = int(np.quantile(said[:, ::-1].argmax(1), 1 - bound("mostly")))
    return fault(
        "inputs_ignored",
        "the loop over time",
        f"behind what a row says stands padding up to its end, at least {behind} of {x.shape[1]} "
        "steps in most rows, and the loop has forgotten the row by then",
        f"gradient of the first quarter at most {early:.1e} of the largest",
        healthy=f"above {bound('forgotten'):g}",
        remedy=NOT_BEHIND,
        confidence=0.95,
        proof=signals.proof(cure),
    )


def cut_off(times: Sequence[float]) -> bool:
    """Whether a gradient is 0 at some steps without having faded: none of the others is tiny."""
    others = [size for size in times if size > 0]
    return 0 < len(others) < len(times) and min(others) > bound("faint") * max(others)


class Depth(NamedTuple):
    """Signal and gradient by layer before the first step."""

    place: str  # of the first layer
    layers: int
    sizes: list[float]  # root mean square of each layer's outputs
    gradients: np.ndarray  # root mean square of each kernel's gradient
    bounded: int  # hidden layers that saturate
    saturated: float  # share of their units without a slope
    kernel: float  # median deviation of the hidden kernels, times the root of the fan-in
    cure: Trial | None = None  # He's kernels, if these go most of the way

    @property
    def deep(self) -> bool:
        """Whether there are enough layers to follow a signal through them."""
        return self.layers > DEEP


def place_by_place(signals: Signals) -> Iterator[Finding]:
    """Outputs along an axis of places, each of which looks at its own place of the inputs alone.

    A fault where simple models of whole rows find what those of one place do not.
    """
    measured = signals.measurements
    recipe, skill = measured.recipe, measured.skill
    x, y = (np.asarray(part) for part in recipe.train)
    places = x.shape[1] if x.ndim > 1 else 0
    along = places >= PLACES and y.shape[1:2] == (places,) and skill.kind == "regression"
    if not along or skill.outputs is None or skill.outputs.shape[1:2] != (places,):
        return
    if x.dtype.kind != "f" or not looks_at_itself_alone(measured, x[:ROWS]):
        return
    inputs, targets = (part.reshape(len(part) * places, -1) for part in (x, y))
    alone = references(inputs, target_of(targets, "regression")).best[1]
    if alone >= bound("failed") * signals.reference:
        return
    start = AtStart(recipe, *measured.initial)
    mixes = [op for op in start.training.operations if op.name == "fft"]
    yield fault(
        "inputs_ignored",
        next((op.where for op in mixes if op.where), start.last),
        f"each of the {places} places of an output depends on its own place of the inputs alone, "
        "and what others hold is needed"
        + (": the transform runs along another axis" if mixes else ""),
        f"simple models of one place {alone:.2f}, of all {signals.reference:.2f}",
        healthy="outputs that change with other places",
        remedy=f"a layer along the axis of the {places} places: axis=1 in a transform, a "
        "convolution, or attention",
        confidence=0.9,
    )


def looks_at_itself_alone(measured: Measurements, x: np.ndarray) -> bool:
    """Whether another number at one place of the inputs moves the output of that place alone."""
    params, state = measured.initial
    network = measured.skill.network[False]
    params = beside(params, 1.0, 0)
    before = np.asarray(network(params, state, jnp.asarray(x)))
    for place in np.linspace(0, x.shape[1] - 1, 4).round().astype(int):
        other = x.copy()
        other[:, place] = np.roll(x[:, place], 1, axis=0)
        moved = np.asarray(network(params, state, jnp.asarray(other))) != before
        moved = moved.reshape(*moved.shape[:2], -1).any((0, 2))
        if not moved[place] or moved.sum() > 1:
            return False
    return True


def in_depth(signals: Signals) -> Iterator[Finding]:
    """The first of these that speaks: each rules the following ones out."""
    depth = through_layers(signals)
    if depth is None:
        return
    depth = depth._replace(cure=signals.cured("initialization"))
    for check in (growing_gradient, growing_signal, without_slope, fading, too_small, too_large):
        finding = check(signals, depth)
        if finding is not None:
            yield finding
            return


def measured_in_depth(signals: Signals) -> Iterator[Finding]:
    """Those of them for which nothing is trained."""
    depth = through_layers(signals)
    if depth is not None:
        found = (check(signals, depth) for check in (growing_gradient, growing_signal, fading))
        yield from (finding for finding in found if finding is not None)


def through_layers(signals: Signals) -> Depth | None:
    """What of a network before its first step has layers; no start is tried in its place."""
    start, layers = signals.measurements.start, signals.measurements.layers
    if len(start.levels) < 2:
        return None
    bounded = [not BOUNDED.isdisjoint(layer.primitives) for layer in layers[:-1]]
    lost = [level.saturated for level, each in zip(start.levels, bounded, strict=False) if each]
    kernels = [
        kernel * np.sqrt(layer.fan_in) for kernel, layer in zip(start.kernels, layers, strict=True)
    ]
    return Depth(
        place=layers[0].place,
        layers=len(layers),
        sizes=[max(level.size, 1e-30) for level in start.levels],
        gradients=np.maximum(start.gradients, 1e-30),
        bounded=sum(bounded),
        saturated=float(np.mean(lost)) if lost else 0.0,
        kernel=float(np.median(kernels[:-1])),
    )


def growing_gradient(signals: Signals, depth: Depth) -> Finding | None:
    """A gradient that grows on its way to the input."""
    first, last = depth.gradients[0], depth.gradients[-1]
    if depth.deep and first > bound("exploding") * last:
        return fault(
            "exploding_gradients",
            depth.place,
            f"the gradient grows through {depth.layers} layers on its way to the input",
            f"first layer {first / last:.0f} times the last",
            remedy="a residual connection around every block: x = x + block(x)",
        )
    return None


def growing_signal(signals: Signals, depth: Depth) -> Finding | None:
    """A signal that grows on its way to the output."""
    first, last = depth.sizes[0], depth.sizes[-2]
    if depth.deep and last > bound("exploding") * first and not signals.slower:
        return fault(
            "exploding_gradients",
            depth.place,
            f"the signal grows through {depth.layers} layers on its way to the output",
            f"last hidden layer {last / first:.0f} times the first",
        )
    return None


def without_slope(signals: Signals, depth: Depth) -> Finding | None:
    """Units that are saturated before any step, where another start helps."""
    if depth.cure and depth.saturated > bound("saturated"):
        return fault(
            "initialization_too_large",
            depth.place,
            "most units have lost their slope before any step",
            f"{depth.saturated:.0%} of the units of saturating layers",
            healthy="few of them",
            remedy="jax.nn.initializers.glorot_uniform()",
            proof=signals.proof(depth.cure),
        )
    return None


def fading(signals: Signals, depth: Depth) -> Finding | None:
    """A gradient that shrinks through saturating layers."""
    first, last = depth.gradients[0], depth.gradients[-1]
    if depth.bounded >= DEEP and first < bound("vanishing") * last:
        return fault(
            "vanishing_gradients",
            depth.place,
            f"{depth.bounded} saturating layers: the gradient shrinks on its way to the input",
            f"first layer {first / last:.1e} of the last",
        )
    return None


def too_small(signals: Signals, depth: Depth) -> Finding | None:
    """Kernels so small that the signal dies."""
    dies = depth.deep and depth.sizes[-2] < bound("dying signal") * depth.sizes[0]
    weak = len(depth.sizes) > 2 and depth.kernel < bound("weak kernel")
    if weak and (depth.cure or dies):
        return fault(
            "initialization_too_small",
            depth.place,
            "the signal shrinks from layer to layer",
            f"root mean square by layer {', '.join(f'{s:.1e}' for s in depth.sizes)}",
            proof=signals.proof(depth.cure),
        )
    return None


def too_large(signals: Signals, depth: Depth) -> Finding | None:
    """Kernels that multiply the signal, where another start helps."""
    if depth.cure and depth.kernel > bound("strong kernel"):
        return fault(
            "initialization_too_large",
            depth.place,
            "each layer multiplies the signal",
            f"kernel deviation {depth.kernel:.2g} / sqrt(fan_in)",
            proof=signals.proof(depth.cure),
        )
    return None


def perfect_answer(signals: Signals) -> Iterator[Finding]:
    """A loss to which the targets themselves are no better an answer than a constant is."""
    skill, loss = signals.measurements.skill, signals.measurements.recipe.loss
    outputs, y = skill.outputs, skill.wanted
    if outputs is None or not skill.fits or outputs.size != y.size or (y == y.ravel()[0]).all():
        return

    def cost(answers: np.ndarray) -> float:
        return float(loss(jnp.asarray(as_outputs(answers)), y))

    def as_outputs(answers: np.ndarray) -> np.ndarray:
        return answers.reshape(outputs.shape).astype(outputs.dtype)

    perfect, constant, alike, endless = cost(y), skill.constant_loss, 0.0, False
    if where_least(loss, (2, *outputs.shape[1:]), y) == "target":
        alike = no_better(loss, as_outputs(y), y)
    elif set(np.unique(y)) == {0, 1} and (outputs.min() < 0 or outputs.max() > 1):
        # What is written for logits is least where these are right and sure, this for a constant.
        # A distance of pairs is least where 1, for those that are alike, stands for none.
        best = min(perfect, cost(1.0 - y), *(cost(size * (2.0 * y - 1)) for size in SURE))
        endless = constant < best - bound("no better") * max(abs(best), abs(constant))
    if not endless and alike < bound("mostly"):
        return
    yield fault(
        "output_activation_missing" if endless else "loss_mismatch",
        signals.exchanges.at_start.loss_line,
        f"where the outputs are the targets themselves the loss is {perfect:.4g}, and a constant "
        f"answer has {constant:.4g}: it falls on and on for outputs outside of [{y.min():.3g}, "
        f"{y.max():.3g}]"
        if endless
        else f"for {alike:.0%} of the rows the right answer costs no less than that of another row "
        "does: the loss takes these numbers for something else than they are",
        f"{perfect:.4g} for the right answers, {constant:.4g} for a constant",
        healthy="least for the right answers",
        remedy="jax.nn.sigmoid behind the last layer, or inside of the loss"
        if endless
        else "outputs and targets in the form that this loss is written for: look at loss(y, y)",
        confidence=0.9,
    )


def no_better(loss: Any, answers: np.ndarray, y: np.ndarray) -> float:
    """The share of rows whose own target costs as much as the target of some other row, or more."""
    answers, y = answers[:ROWS], y[:ROWS]
    others = answers[np.linspace(0, len(answers) - 1, OTHERS).round().astype(int)]
    pair = lambda row: jnp.stack([row, row])  # noqa: E731 -- some losses take no single row
    one = jax.vmap(lambda answer, target: loss(pair(answer), pair(target)))
    own = np.asarray(jax.jit(one)(answers, y))
    costs = np.asarray(
        jax.jit(jax.vmap(lambda a: one(jnp.broadcast_to(a, answers.shape), y)))(others)
    )
    apart = np.array([[np.any(answer != other) for answer in answers] for other in others])
    least = np.where(apart, costs, np.inf).min(0)
    return float(np.mean(own >= least - bound("felt") * np.abs(least)))


def first_loss(signals: Signals) -> Iterator[Finding]:
    """A note where the first outputs are far worse than a constant answer."""
    first, constant = signals.measurements.start.loss, signals.measurements.skill.constant_loss
    if constant > 0 and first > bound("first loss") * constant:
        yield note(
            "initialization_too_large",
            "loss",
            f"the first loss is {first:.3g}, that of the best constant answer {constant:.3g}",
            f"{first / constant:.3g} times",
            healthy="about that of a constant: ln K for K classes",
            remedy="a smaller last kernel, and a last bias at the mean of the targets",
            confidence=0.4,
        )
