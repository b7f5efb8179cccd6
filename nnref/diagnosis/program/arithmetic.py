"""Arithmetic in which a signal is lost: gradients that are no slopes, half precision, integers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.program.at_start import Look, LossLook
from nnref.diagnosis.program.tracing import Operation, Trace, name_of

HALF = (jnp.float16, jnp.bfloat16)
STEPS = (1e-4, 1e-5)  # of central differences; where two of them disagree, there is a kink
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


class Slope(NamedTuple):
    """Of one parameter along a drawn direction: two central differences, and what autodiff says."""

    path: str
    coarse: float
    fine: float
    said: float


def gradients(look: Look | LossLook) -> list[Finding]:
    """Gradients against the slopes of the loss, in double precision; and against half precision.

    What JAX derives by itself is right; a derivative given by hand, or stopped on some ways, may
    not be.
    """
    key = jax.random.key(0)

    def loss(params: Any, state: Any, x: Any, y: Any) -> Any:
        return look.objective(params, state, x, y, key)[0]

    def widened(leaf: Any) -> Any:
        return np.asarray(leaf, np.float64) if inexact(leaf) else leaf

    try:
        with jax.enable_x64(True):
            exact, told = measured(loss, *jax.tree.map(widened, look.given))
    except Exception:  # functions that insist on single precision
        if look.training.by_hand:
            raise
        return []
    low = jax.device_get(jax.jit(jax.grad(loss, allow_int=True))(*look.given))
    return half_precision(low, exact) + not_slopes(look, told)


def measured(loss: Callable[..., Any], params: Any, *rest: Any) -> tuple[Any, list[Slope]]:
    """The gradient of a loss, and of each parameter a slope along a drawn direction.

    They are measured beside the first parameters: where biases are 0, kinks are not rare.

    Args:
        loss: of parameters and the rest.
        params: in double precision.
        rest: whatever else it takes.
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
    told = []
    real = [i for i, leaf in enumerate(leaves) if inexact(leaf) and leaf.size]
    for place in random.permutation(real)[:LEAVES]:
        direction = random.normal(size=leaves[place].shape)
        direction /= np.linalg.norm(direction)
        size = float(np.linalg.norm(point[place]))

        def value(step: float, place: int = place, direction: Any = direction) -> float:
            moved = list(point)
            moved[place] = point[place] + step * direction
            return float(both(jax.tree.unflatten(tree, moved), *rest)[0])

        coarse, fine = (
            (value(step * size) - value(-step * size)) / (2 * step * size) for step in STEPS
        )
        told.append(Slope(paths[place], coarse, fine, float(np.vdot(slopes[place], direction))))
    return exact, told


def not_slopes(look: Look | LossLook, told: list[Slope]) -> list[Finding]:
    """A finding where gradients disagree with what the loss does."""
    largest = max((abs(each) for slope in told for each in slope[1:]), default=0.0)
    wrong = []
    for slope in told:
        unit = max(abs(slope.fine), abs(slope.said))
        steady = abs(slope.coarse - slope.fine) < bound("slope") * unit
        # No gradient at all is told elsewhere; two differences that disagree stand on a kink.
        matters = slope.said and steady and 1e-4 * largest < unit < np.inf
        if matters and abs(slope.said - slope.fine) > bound("slope") * unit:
            wrong.append(slope)
    if not wrong:
        return []
    names = ", ".join(slope.path for slope in wrong[:4]) + (" ..." if len(wrong) > 4 else "")
    worst = max(wrong, key=lambda slope: abs(slope.said - slope.fine))
    around = all(abs(slope.fine) < 1e-6 * abs(slope.said) for slope in wrong)
    turned = all(abs(slope.said + slope.fine) < bound("slope") * abs(slope.said) for slope in wrong)
    far = not around and not 0.5 < worst.said / worst.fine < 2
    evidence = f"the gradient of {names} is not the slope of the loss"
    if around:
        evidence += ": the loss does not feel them, as behind a straight-through gradient"
    elif turned:
        evidence += " but its negative: the loss is climbed"
    return [
        Finding(
            "gradient_ascent" if turned else "wrong_gradient",
            "fault" if far else "note",
            by_hand(look) or look.loss_line,
            evidence,
            measured=f"gradient {worst.said:.4g}, slope {worst.fine:.4g} along a drawn direction "
            f"of {worst.path}",
            healthy=f"equal to {bound('slope'):.0%}",
            remedy="the derivative of what is computed: jax.test_util.check_grads(f, (x,), "
            "order=1) tells whether a function's is right",
            confidence=0.85 if far else 0.5,
        )
    ]


def by_hand(look: Look | LossLook) -> str:
    """The line of the first derivative that is given by hand, or stopped."""
    stopped = [op.where for op in look.training.operations if op.name == "stop_gradient"]
    return next((line for line in (*look.training.by_hand, *stopped) if line), "")


def half_precision(low: Any, exact: Any) -> list[Finding]:
    """Gradients that half precision rounds to 0.

    Args:
        low: gradients in the precision of the parameters.
        exact: the same in double precision.
    """
    pairs = list(zip(jax.tree.leaves_with_path(low), jax.tree.leaves(exact), strict=True))
    lost = [
        (name_of(path), rounded.dtype)
        for (path, rounded), told in pairs
        if rounded.dtype in HALF and not np.any(rounded) and np.any(told)
    ]
    if not lost:
        return []
    names = ", ".join(path for path, _ in lost[:4])
    dtype = lost[0][1]
    largest = max(float(np.abs(told).max()) for _, told in pairs)
    return [
        Finding(
            "vanishing_gradients",
            "fault",
            names,
            f"in {dtype} the gradient of {names} is rounded to 0; in double precision it is not",
            measured=f"largest gradient {largest:.1e}",
            healthy=f"above {float(jnp.finfo(dtype).tiny):.0e}",
            remedy="parameters and loss in float32, or the loss times 1024 and the gradient "
            "divided by it",
            confidence=0.9,
        )
    ]


def integers(look: Look) -> list[Finding]:
    """Integers that wrap around, and fractions that a cast to integers drops."""
    traced = look.sample.trace
    data = traced.reached(traced.arguments[2])
    asked = [op for op in traced.operations if not data.isdisjoint(op.inputs)]
    narrow = [op for op in asked if op.name in EXACT and width(traced, op.outputs[0]) <= 16]
    casts = [op for op in asked if op.name == "convert_element_type" and drops(traced, op)]
    if not narrow and not casts:
        return []
    leaves = jax.tree.leaves((*look.given[:3], jax.random.key(0)))
    wanted = [value for op in narrow + casts for value in (*op.inputs, *op.outputs)]
    values = dict(zip(wanted, jax.device_get(traced.evaluate(leaves, wanted)), strict=True))
    return [
        *(found for op in narrow for found in wrapped(traced, op, values)),
        *(found for op in casts for found in dropped(op, values)),
    ]


def width(traced: Trace, value: int) -> int:
    """The bits of an integer; more than any for what is none."""
    dtype = getattr(traced.avals[value], "dtype", None)
    integer = dtype is not None and jnp.issubdtype(dtype, jnp.integer)
    return jnp.iinfo(dtype).bits if integer else 999


def drops(traced: Trace, op: Operation) -> bool:
    """Whether a cast makes integers of numbers with a fraction."""
    before, after = (traced.avals[value].dtype for value in (op.inputs[0], op.outputs[0]))
    return jnp.issubdtype(before, jnp.floating) and jnp.issubdtype(after, jnp.integer)


def wrapped(traced: Trace, op: Operation, values: dict[int, Any]) -> list[Finding]:
    """An operation whose results do not fit their integers."""
    given = [np.asarray(values[value], np.int64) for value in op.inputs]
    told, exact = np.asarray(values[op.outputs[0]], np.int64), EXACT[op.name](*given)
    share = float(np.mean(told != exact))
    if not share:
        return []
    dtype = traced.avals[op.outputs[0]].dtype
    at = np.unravel_index(int(np.argmax(told != exact)), told.shape)
    return [
        Finding(
            "numerical_instability",
            "fault",
            op.where or "apply",
            f"{dtype} wraps around: what should be {exact[at]} is {told[at]}, and so for "
            f"{share:.0%} of the numbers of this line",
            measured=f"{op.name} of {dtype}",
            healthy="inputs in floating point",
            remedy="x = x.astype(jnp.float32) before anything is computed with it",
            confidence=0.9,
        )
    ]


def dropped(op: Operation, values: dict[int, Any]) -> list[Finding]:
    """A cast to integers of numbers that are none."""
    before, after = (np.asarray(values[v], np.float64) for v in (op.inputs[0], op.outputs[0]))
    if not np.isfinite(before).all() or not before.size:
        return []
    lost = float(np.mean((before - after) ** 2) / max(before.var(), 1e-30))
    if lost < bound("fractions") or not np.ptp(before):
        return []
    still = np.ptp(after) == 0
    return [
        Finding(
            "no_signal",
            "fault" if still else "note",
            op.where or "apply",
            "a cast to integers drops the fractions of numbers between "
            f"{before.min():.3g} and {before.max():.3g}"
            + (f": all of them become {after.flat[0]:g}" if still else ""),
            measured=f"{lost:.0%} of their variance",
            healthy="0",
            remedy="leave the numbers in floating point",
            confidence=0.9 if still else 0.5,
        )
    ]
