"""Edges of a user's own loss: values of exactly 0, where a smooth loss may have a wrong gradient.

max(z, 0) - z y + log(1 + exp(-|z|)) is smooth, and made of two functions that are not: what JAX
takes for the slopes of these at z = 0 need not add up.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.arithmetic import inexact, rounding, widened
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.diagnosis.program.tracing import Operation
from nnref.diagnosis.thresholds import bound

STEP = 1e-5
ENTRIES = 4  # outputs of exactly 0, or parameters, that are moved
KINKS = {"max", "min", "abs", "sign", "clamp", "select_n"}
EDGES = {"max", "min", "abs"}  # whose place is where an operand is 0, or both are equal


def edges(start: AtStart) -> Iterator[Finding]:
    """A gradient of the loss that is no slope where rows of the data give exactly 0.

    A fault where most outputs are 0, or where they stay so whatever the parameters are.
    """
    if start.sample.outputs is None or start.outputs.ndim > 2:
        return
    x = np.array(start.sample.x)
    data = np.asarray(start.recipe.train[0])
    empty = np.flatnonzero(~data.reshape(len(data), -1).any(1))
    if len(empty) and x.any(tuple(range(1, x.ndim))).all():
        x[0] = data[empty[0]]  # a row of zeros, which the sample left out
    key = jax.random.key(0)
    first, other = (
        np.asarray(start.network(params, start.state, x, key, False)[0], np.float64)
        for params in (start.params, beside(start.params, 1.0, 0))
    )
    places = np.argwhere(first == 0)
    if not len(places):
        return
    wrong = wrong_slopes(start, first, places[:ENTRIES])
    if wrong is None:
        return
    often = np.mean(first == 0) > 0.5 or bool((other[tuple(places.T)] == 0).any())
    kinks = [op.where for op in start.loss.operations if op.name in KINKS and op.where]
    gradient, slope = wrong
    share = f"{np.mean(first == 0):.0%} of the first outputs are 0"
    yield on_an_edge(next(iter(kinks), start.loss_line), share, gradient, slope, often)


def on_an_edge(where: str, share: str, gradient: float, slope: float, often: bool) -> Finding:
    """A gradient that is no slope; `often` where most values stand there, or stay there."""
    return (fault if often else note)(
        "wrong_gradient",
        where,
        f"where a value is exactly 0 the loss is smooth, and its gradient there is not its slope; "
        f"{share}",
        f"gradient {gradient:.4g}, slope {slope:.4g}",
        remedy="jax.nn.softplus(z) - z * y, or optax.sigmoid_binary_cross_entropy(z, y)",
        confidence=0.8 if often else 0.5,
    )


def wrong_slopes(
    start: AtStart, outputs: np.ndarray, places: np.ndarray
) -> tuple[float, float] | None:
    """A gradient and a slope that differ though the loss has no kink, at one of some outputs."""
    with jax.enable_x64(True):
        y = start.sample.y
        y = np.asarray(y, np.float64) if np.asarray(y).dtype.kind == "f" else y
        loss = jax.jit(lambda o: jnp.asarray(start.recipe.loss(o, y)).sum())
        gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(outputs)))
        here = float(loss(jnp.asarray(outputs)))
        for place in map(tuple, places):
            moved = [outputs.copy(), outputs.copy()]
            moved[0][place] -= STEP
            moved[1][place] += STEP
            before, after = (float(loss(jnp.asarray(each))) for each in moved)
            left, right = (here - before) / STEP, (after - here) / STEP
            if is_wrong(left, right, float(gradient[place])):
                return float(gradient[place]), (left + right) / 2
    return None


def edges_of_loss(start: LossAtStart) -> Iterator[Finding]:
    """The same of a bare loss: its parameters are moved, as its outputs are not known.

    A real kink, as that of a ReLU, has another slope on its other side, and is left out.
    """
    traced, moving = start.training, start.training.reached(start.training.arguments[0])
    kinks = [
        op for op in traced.operations if op.name in EDGES and not moving.isdisjoint(op.inputs)
    ]
    here = start.arguments[0]
    places, later = (at_edges(start, kinks, each) for each in (here, beside(here, 1.0, 0)))
    met = [i for i, place in enumerate(places) if place.any()]
    wrong = wrong_along(start) if met else None
    if wrong is None:
        return
    often = any(places[i].mean() > 0.5 or (places[i] & later[i]).any() for i in met)
    line = next((kinks[i].where for i in met if kinks[i].where), start.loss_line)
    share = f"{places[met[0]].mean():.0%} of the values are 0 there at first"
    yield on_an_edge(line, share, *wrong, often)


def at_edges(start: LossAtStart, kinks: list[Operation], params: Any) -> list[np.ndarray]:
    """Of each of these operations, which of its results stand on an edge."""
    _, state, batch, targets = start.arguments
    leaves = jax.tree.leaves((params, state, batch, targets, jax.random.key(0)))
    wanted = [value for op in kinks for value in op.inputs]
    values = dict(zip(wanted, start.training.evaluate(leaves, wanted), strict=True))
    sides = ([np.asarray(values[value]) for value in op.inputs] for op in kinks)
    return [each[0] == (each[1] if len(each) > 1 else 0) for each in sides]


def wrong_along(start: LossAtStart) -> tuple[float, float] | None:
    """The gradient and the slope along a drawn direction of a parameter, where they differ."""

    def loss(params: Any, state: Any, x: Any, y: Any) -> Any:
        return start.objective(params, state, x, y, jax.random.key(0))[0]

    with jax.enable_x64(True):
        params, *rest = jax.tree.map(widened, start.arguments)
        if rounding(loss, params, *rest) > np.finfo(np.float64).eps:
            return None  # slopes drown in the rounding of single precision
        both = jax.jit(jax.value_and_grad(loss, allow_int=True))
        here, gradients = both(params, *rest)
        leaves, tree = jax.tree.flatten(params)
        random = np.random.default_rng(0)
        for i in [i for i, leaf in enumerate(leaves) if inexact(leaf) and leaf.size][-ENTRIES:]:
            direction = random.normal(size=leaves[i].shape)

            def value(step: float, i: int = i, direction: Any = direction) -> float:
                moved = [*leaves[:i], leaves[i] + step * direction, *leaves[i + 1 :]]
                return float(both(jax.tree.unflatten(tree, moved), *rest)[0])

            left, right = (float(here) - value(-STEP)) / STEP, (value(STEP) - float(here)) / STEP
            gradient = float(np.vdot(jax.tree.leaves(gradients)[i], direction))
            if is_wrong(left, right, gradient):
                return gradient, (left + right) / 2
    return None


def is_wrong(left: float, right: float, gradient: float) -> bool:
    """Whether the slopes on both sides agree, and the gradient does not."""
    tolerance = bound("slope") * max(abs(left), abs(right), abs(gradient))
    return abs(left - right) < tolerance < abs(gradient - (left + right) / 2)
