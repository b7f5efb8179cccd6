"""How a loss reads targets, found by asking it: as values that it is a distance to, or as classes.

The dtype of targets tells neither: ages are often integers, and labels are often floats.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.targets import Kind, LossFacts, is_whole, kind_of_targets
from nnref.diagnosis.program.sample import ROWS, target_order
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.thresholds import bound

ENDS = 9  # targets from end to end that a loss is asked about, and as many outputs


def kind_of(recipe: Recipe, outputs: Any, y: Any) -> Kind:
    """What the targets of a recipe are.

    Args:
        recipe: with its targets, its loss, and what the user says of the task.
        outputs: of the network for a few rows.
        y: targets of these rows.
    """
    targets = np.asarray(recipe.train[1])
    leaves = jax.tree.leaves(outputs)
    if len(leaves) != 1 or np.shape(leaves[0])[:1] != (len(y),):
        facts = LossFacts(indices=takes_indices(recipe.loss, outputs, y))
        return kind_of_targets(targets, (), facts, recipe.kind)
    order = np.argsort(target_order(y), kind="stable")
    few = order[np.linspace(0, len(order) - 1, min(ROWS, len(order))).round().astype(int)]
    shape = np.shape(leaves[0])[1:]
    facts = LossFacts(
        where_least(recipe.loss, (2, *shape), targets) == "target",
        takes_indices(recipe.loss, np.zeros((len(few), *shape), np.float32), np.asarray(y)[few]),
    )
    return kind_of_targets(targets, (len(targets), *shape), facts, recipe.kind)


def where_least(
    loss: Callable[[Any, Any], Any], shape: tuple[int, ...], y: np.ndarray
) -> Literal["target", "elsewhere", "nowhere"]:
    """Where a loss is least: at the target, at another output, or nowhere.

    It is asked with one number for all outputs and one for all targets; most of five targets
    decide. Squared and absolute error are least at the target and rise alike on both sides of it;
    so does a cross-entropy of probabilities, asked between 0 and 1. Of a Poisson loss of log rates
    the best output is the logarithm of the target; a quantile loss is steeper on one side. A loss
    that falls without end, such as a cross-entropy of logits asked about counts, is least nowhere,
    and so is one that has the same best output for several targets.

    Args:
        loss: of outputs and targets.
        shape: of the outputs for as many rows as it is to be asked with.
        y: all targets; what is asked lies in their range.
    """
    values = np.asarray(y, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return "nowhere"
    targets = np.unique(np.quantile(values, [0.15, 0.3, 0.5, 0.7, 0.85], method="nearest"))
    span = float(np.ptp(values)) or max(abs(float(values[0])), 1.0)
    wide = np.geomspace(8, 1e4, 30)
    wide = [-wide[::-1], np.linspace(-8, 8, 321), np.linspace(values.min(), values.max(), 61), wide]
    wide = np.unique(np.concatenate(wide))
    steps = span * np.array([0.0, 0.02, -0.02, 0.2, -0.2, 0.5, -0.5, 1.0, -1.0])
    near = targets[:, None] + steps
    far = np.broadcast_to(wide, (len(targets), len(wide)))

    def asked(output: Any, target: Any) -> Any:
        targets = jnp.full((shape[0], *y.shape[1:]), target)
        return jnp.asarray(loss(jnp.full(shape, output), targets)).sum()

    try:
        losses = jax.jit(jax.vmap(jax.vmap(asked, in_axes=(0, None))))(
            np.concatenate([near, far], 1).astype(np.float32), targets.astype(np.float32)
        )
    except Exception:  # whatever a loss raises that takes no fractions as targets
        return "nowhere"
    losses = np.asarray(losses, np.float64)
    losses = np.where(np.isnan(losses), np.inf, losses)
    near, far = losses[:, : len(steps)], losses[:, len(steps) :]
    asked_at = np.isfinite(near[:, 0])  # a relative error cannot be asked at 0
    if asked_at.any():
        rises = near[asked_at] - near[asked_at, :1]
        rounding = 1e-6 * np.abs(near[asked_at, 0])
        low, high = rises[:, 1:3].min(1), rises[:, 1:3].max(1)
        least = (rises[:, 3:] > rounding[:, None]).all(1) & (low >= -rounding)
        if np.mean(least & (high <= 1.5 * low + rounding)) > 0.5:
            return "target"
    place = far.argmin(1)
    inside = (place > 0) & (place < len(wide) - 1)
    apart = np.diff(place) != 0  # another target, another best output
    return "elsewhere" if np.mean(inside) > 0.5 and apart.size and apart.all() else "nowhere"


def goes_round(loss: Callable[[Any, Any], Any], shape: tuple[int, ...], y: np.ndarray) -> bool:
    """Whether the two ends of the targets are next to each other for a loss, as those of an angle.

    It is asked with outputs over the range of the targets and with drawn ones, for targets from end
    to end: no output tells the ends apart as it tells other targets apart.

    Args:
        loss: of outputs and targets.
        shape: of the outputs of a row.
        y: all targets, one number a row.
    """
    values = np.asarray(y, np.float64)
    targets = np.linspace(values.min(), values.max(), ENDS)
    drawn = np.random.default_rng(0).normal(size=(ENDS, *shape))
    along = np.broadcast_to(targets.reshape(-1, *(1 for _ in shape)), drawn.shape)
    outputs = np.concatenate([drawn, along]).astype(np.float32)

    def asked(output: Any, target: Any) -> Any:
        pair = jnp.broadcast_to(output, (2, *shape)), jnp.full((2, *y.shape[1:]), target)
        return jnp.asarray(loss(*pair)).sum()

    try:
        many = jax.jit(jax.vmap(jax.vmap(asked, in_axes=(None, 0)), in_axes=(0, None)))
        losses = np.asarray(many(outputs, targets.astype(y.dtype)), np.float64)
    except Exception:  # whatever a loss raises that takes other outputs
        return False
    between = float(np.ptp(losses, axis=1).max())
    return float(np.abs(losses[:, 0] - losses[:, -1]).max()) < bound("ends meet") * between


def takes_indices(loss: Callable[[Any, Any], Any], outputs: Any, y: np.ndarray) -> bool:
    """Whether a loss takes targets as numbers of classes.

    Beyond the last class all numbers are the same to it: they are clipped, or one-hot rows of
    zeros. A loss of values tells them apart.

    Args:
        loss: of outputs and targets.
        outputs: arrays of the shapes that the network gives for these rows.
        y: targets of a few rows.
    """
    y = np.asarray(y)
    if not is_whole(y):
        return False
    random = np.random.default_rng(0)
    outputs = jax.tree.map(  # probabilities or logits
        lambda leaf: random.uniform(0.05, 0.95, np.shape(leaf)).astype(np.float32), outputs
    )
    widths = [np.shape(leaf)[-1] for leaf in jax.tree.leaves(outputs) if np.ndim(leaf)]
    last = float(max([*widths, np.max(np.abs(y.astype(float)))]))
    dtype = np.float32 if y.dtype.kind == "f" else np.int32
    asked = [y.astype(dtype), np.roll(y.astype(dtype), 1, 0)]
    asked += [np.full(y.shape, beyond, dtype) for beyond in (last + 3, 2 * last + 9)]
    try:
        many = jax.jit(jax.vmap(lambda y: jnp.asarray(loss(outputs, y)).sum()))
        here, rolled, beyond, further = np.asarray(many(np.stack(asked)), np.float64)
    except Exception:  # whatever the user's loss raises is told where it is called
        return False
    return bool(here != rolled and np.isclose(beyond, further, rtol=1e-6, equal_nan=True))
