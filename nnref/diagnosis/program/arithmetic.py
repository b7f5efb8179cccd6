"""Arithmetic in which a signal is lost: gradients that are no slopes, half precision, integers."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.causes import CAUSES
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.tracing import Operation, Trace, name_of, trace
from nnref.diagnosis.thresholds import bound

HALF = (jnp.float16, jnp.bfloat16)
# Steps of central differences; where two of them disagree, there is a kink. The long ones are for
# programs that compute in single precision whatever they are given.
STEPS, LONG_STEPS = (1e-4, 1e-5), (1e-2, 3e-3)
LEAVES = 24  # parameters of which a slope is measured, at most
EXACT: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
}


def inexact(leaf: Any) -> bool:
    """Whether an array holds numbers with a fraction."""
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def widened(leaf: Any) -> Any:
    """A leaf in double precision, where it has fractions."""
    return np.asarray(leaf, np.float64) if inexact(leaf) else leaf


class Slope(NamedTuple):
    """The slope of the loss along a drawn direction of one parameter, by three ways."""

    path: str
    coarse: float  # a central difference
    fine: float  # one of a tenth of the step
    autodiff: float


def gradients(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Gradients against the slopes of the loss, in double precision; and against half precision.

    What JAX derives by itself is right; a derivative given by hand, or stopped on some ways, may
    not be.
    """
    key = jax.random.key(0)

    def loss(params: Any, state: Any, x: Any, y: Any) -> Any:
        return start.objective(params, state, x, y, key)[0]

    try:
        with jax.enable_x64(True):
            arguments = jax.tree.map(widened, start.arguments)
            exact, slopes = measured(loss, rounding(loss, *arguments), *arguments)
    except Exception:  # functions that insist on single precision
        if start.training.by_hand:
            raise
        return
    low = jax.device_get(jax.jit(jax.grad(loss, allow_int=True))(*start.arguments))
    yield from half_precision(low, exact)
    yield from not_slopes(start, slopes)


def rounding(loss: Callable[..., Any], *arguments: Any) -> float:
    """The relative rounding of the coarsest numbers through which parameters reach the loss.

    A layer that casts to half or single precision itself rounds, whatever it is given.
    """
    opened = trace(loss, *arguments, loops=True)
    dtypes = {
        opened.avals[value].dtype
        for value in opened.reached(opened.arguments[0])
        if hasattr(opened.avals[value], "dtype")
    }
    return max(float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.floating))


def measured(
    loss: Callable[..., Any], eps: float, params: Any, *rest: Any
) -> tuple[Any, list[Slope]]:
    """The gradient of a loss, and of each parameter a slope along a drawn direction.

    They are measured beside the first parameters: where biases are 0, kinks are not rare.

    Args:
        loss: of parameters and the rest.
        eps: relative rounding of what it computes; slopes that drown in it are left out.
        params: in double precision.
        rest: its other arguments.
    """
    random = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(params)
    # Compiling takes the time: one program for values and gradients.
    both = jax.jit(jax.value_and_grad(loss, allow_int=True))
    exact = jax.device_get(both(params, *rest)[1])

    def beside(leaf: Any) -> Any:
        size = max(float(np.sqrt(np.mean(leaf**2))), 1e-2) if inexact(leaf) else 0
        return leaf + 0.1 * size * random.normal(size=leaf.shape) if size else leaf

    point = list(map(beside, leaves))
    slopes = jax.tree.leaves(both(jax.tree.unflatten(tree, point), *rest)[1])
    paths = [name_of(path) for path, _ in jax.tree.leaves_with_path(params)]
    differences = []
    real = [i for i, leaf in enumerate(leaves) if inexact(leaf) and leaf.size]
    for place in random.permutation(real)[:LEAVES]:
        direction = random.normal(size=leaves[place].shape)
        direction /= np.linalg.norm(direction)
        size = float(np.linalg.norm(point[place]))

        def value(step: float, place: int = place, direction: Any = direction) -> float:
            moved = list(point)
            moved[place] = point[place] + step * direction
            return float(both(jax.tree.unflatten(tree, moved), *rest)[0])

        steps = STEPS if eps < np.sqrt(np.finfo(np.float64).eps) else LONG_STEPS
        coarse, fine = (
            (value(step * size) - value(-step * size)) / (2 * step * size) for step in steps
        )
        slope = float(np.vdot(slopes[place], direction))
        drowned = 8 * eps * abs(value(0.0)) / (steps[1] * size) if size else np.inf
        if drowned < bound("slope") * max(abs(slope), abs(fine)):
            differences.append(Slope(paths[place], coarse, fine, slope))
    return exact, differences


def not_slopes(start: AtStart | LossAtStart, slopes: list[Slope]) -> Iterator[Finding]:
    """Gradients that disagree with the slopes of the loss."""
    largest = max((abs(each) for slope in slopes for each in slope[1:]), default=0.0)
    tolerance = bound("slope")
    wrong = []
    for slope in slopes:
        unit = max(abs(slope.fine), abs(slope.autodiff))
        steady = abs(slope.coarse - slope.fine) < tolerance * unit
        # A gradient of 0 is another check's; two differences that disagree stand on a kink.
        large = bound("steady slope") * largest < unit < np.inf
        if slope.autodiff and steady and large:
            wrong += [slope] if abs(slope.autodiff - slope.fine) > tolerance * unit else []
    if not wrong:
        return
    names = ", ".join(slope.path for slope in wrong[:4]) + (" ..." if len(wrong) > 4 else "")
    worst = max(wrong, key=lambda slope: abs(slope.autodiff - slope.fine))
    around = all(abs(s.fine) < bound("felt") * abs(s.autodiff) for s in wrong)
    turned = all(abs(s.autodiff + s.fine) < tolerance * abs(s.autodiff) for s in wrong)
    off = bound("far off")
    far = not around and not 1 / off < worst.autodiff / worst.fine < off
    if not start.training.by_hand and (not (far or around) or stops_its_target(start)):
        return  # a gradient that is stopped on some ways
    evidence = f"the gradient of {names} is not the slope of the loss"
    if around:
        evidence += ": the loss does not feel them, as behind a straight-through gradient"
    elif turned:
        evidence += " but its negative: the loss is climbed"
    yield (fault if far else note)(
        "gradient_ascent" if turned else "wrong_gradient",
        by_hand(start) or start.loss_line,
        evidence,
        f"gradient {worst.autodiff:.4g}, slope {worst.fine:.4g} along a drawn direction of "
        f"{worst.path}",
        healthy=CAUSES["wrong_gradient"].healthy,
        remedy=CAUSES["wrong_gradient"].remedy,
        confidence=0.85 if far else 0.5,
    )


def stops_its_target(start: AtStart | LossAtStart) -> bool:
    """Whether a target of the loss may be what is stopped: it is computed by the network itself.

    So it is in a loss that calls the network, or where one of several outputs is the target of
    another, as in Q-learning.
    """
    stopped = any(op.name == "stop_gradient" for op in start.training.operations)
    whole = isinstance(start, LossAtStart) or len(jax.tree.leaves(start.sample.tree)) > 1
    return stopped and whole


def by_hand(start: AtStart | LossAtStart) -> str:
    """The line of the first derivative that is given by hand, or stopped."""
    stopped = [op.where for op in start.training.operations if op.name == "stop_gradient"]
    return next((line for line in (*start.training.by_hand, *stopped) if line), "")


def half_precision(low: Any, exact: Any) -> Iterator[Finding]:
    """Gradients that half precision rounds to 0.

    Args:
        low: gradients in the precision of the parameters.
        exact: the same in double precision.
    """
    pairs = list(zip(jax.tree.leaves_with_path(low), jax.tree.leaves(exact), strict=True))
    rounded_away = [
        (name_of(path), rounded.dtype)
        for (path, rounded), double in pairs
        if rounded.dtype in HALF and not np.any(rounded) and np.any(double)
    ]
    if rounded_away:
        names = ", ".join(path for path, _ in rounded_away[:4])
        dtype = rounded_away[0][1]
        largest = max(float(np.abs(double).max()) for _, double in pairs)
        yield fault(
            "vanishing_gradients",
            names,
            f"in {dtype} the gradient of {names} is rounded to 0; in double precision it is not",
            f"largest gradient {largest:.1e}",
            healthy=f"above {float(jnp.finfo(dtype).tiny):.0e}",
            remedy="parameters and loss in float32, or the loss times 1024 and the gradient "
            "divided by it",
            confidence=0.9,
        )


def integers(start: AtStart) -> Iterator[Finding]:
    """Integers that wrap around, and fractions that a cast to integers drops."""
    traced = start.sample.trace
    data = traced.reached(traced.arguments[2])
    of_data = [op for op in traced.operations if not data.isdisjoint(op.inputs)]
    narrow = [op for op in of_data if op.name in EXACT and bits(traced, op.outputs[0]) <= 16]
    casts = [op for op in of_data if op.name == "convert_element_type" and drops(traced, op)]
    if not narrow and not casts:
        return
    leaves = jax.tree.leaves((*start.arguments[:3], jax.random.key(0)))
    wanted = [value for op in narrow + casts for value in (*op.inputs, *op.outputs)]
    values = dict(zip(wanted, jax.device_get(traced.evaluate(leaves, wanted)), strict=True))
    for op in narrow:
        yield from wrapped(traced, op, values)
    for op in casts:
        yield from dropped(op, values)


def bits(traced: Trace, value: int) -> int:
    """The bits of an integer; more than any for what is none."""
    dtype = getattr(traced.avals[value], "dtype", None)
    integer = dtype is not None and jnp.issubdtype(dtype, jnp.integer)
    return jnp.iinfo(dtype).bits if integer else 999


def drops(traced: Trace, op: Operation) -> bool:
    """Whether a cast makes integers of numbers with a fraction."""
    before, after = (traced.avals[value].dtype for value in (op.inputs[0], op.outputs[0]))
    return jnp.issubdtype(before, jnp.floating) and jnp.issubdtype(after, jnp.integer)


def wrapped(traced: Trace, op: Operation, values: dict[int, Any]) -> Iterator[Finding]:
    """An operation whose results do not fit their integers."""
    operands = [np.asarray(values[value], np.int64) for value in op.inputs]
    result, exact = np.asarray(values[op.outputs[0]], np.int64), EXACT[op.name](*operands)
    share = float(np.mean(result != exact))
    if share:
        dtype = traced.avals[op.outputs[0]].dtype
        at = np.unravel_index(int(np.argmax(result != exact)), result.shape)
        yield fault(
            "numerical_instability",
            op.where or "apply",
            f"{dtype} wraps around: what should be {exact[at]} is {result[at]}, and so for "
            f"{share:.0%} of the numbers of this line",
            f"{op.name} of {dtype}",
            healthy="inputs in floating point",
            remedy="x = x.astype(jnp.float32) before anything is computed with it",
            confidence=0.9,
        )


def dropped(op: Operation, values: dict[int, Any]) -> Iterator[Finding]:
    """A cast to integers of numbers that are none."""
    before, after = (np.asarray(values[v], np.float64) for v in (op.inputs[0], op.outputs[0]))
    if not np.isfinite(before).all() or not before.size:
        return
    lost = float(np.mean((before - after) ** 2) / max(before.var(), 1e-30))
    if lost < bound("fractions") or not np.ptp(before):
        return
    still = np.ptp(after) == 0
    yield (fault if still else note)(
        "no_signal",
        op.where or "apply",
        "a cast to integers drops the fractions of numbers between "
        f"{before.min():.3g} and {before.max():.3g}"
        + (f": all of them become {after.flat[0]:g}" if still else ""),
        f"{lost:.0%} of their variance",
        healthy="0",
        remedy="leave the numbers in floating point",
        confidence=0.9 if still else 0.5,
    )
