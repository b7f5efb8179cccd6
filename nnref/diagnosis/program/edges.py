"""Edges of a user's own loss: outputs of exactly 0, where a smooth loss may have a wrong gradient.

max(z, 0) - z y + log(1 + exp(-|z|)) is smooth, and made of two functions that are not: what JAX
takes for the slopes of these at z = 0 need not add up.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, beside
from nnref.diagnosis.thresholds import bound

STEP = 1e-5
ENTRIES = 4  # outputs of exactly 0 that are moved
KINKS = {"max", "min", "abs", "sign", "clamp", "select_n"}


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
    yield (fault if often else note)(
        "wrong_gradient",
        next(iter(kinks), start.loss_line),
        f"where an output is exactly 0 the loss is smooth, and its gradient there is not its "
        f"slope; {np.mean(first == 0):.0%} of the first outputs are 0",
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
            slope, unit = (left + right) / 2, max(abs(left), abs(right), abs(gradient[place]))
            smooth = abs(left - right) < bound("slope") * unit
            if smooth and abs(gradient[place] - slope) > bound("slope") * unit:
                return float(gradient[place]), slope
    return None
