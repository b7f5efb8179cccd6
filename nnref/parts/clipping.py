"""Clipping: gradients made smaller where they are too large, before the optimizer sees them.

Clipping stands after the gradient terms of regularization and before the optimizer, so it bounds
what enters the moments, not the step. Rate and threshold belong together: a loss times k is the
same run as rate / k and threshold * k under plain SGD. Under Adam, which divides every gradient by
its usual size, a clip that is active at every step nearly cancels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nnref.bounds import Positive

Array = jax.Array
Tree = Any


class ClippingState(NamedTuple):
    """What clipping remembers of the last step, to be recorded."""

    clipped: Array  # share in [0, 1] of what was too large


def transformation(
    clip: Callable[[Tree, Tree], tuple[Tree, Array]],
) -> optax.GradientTransformation:
    """The optax transformation of `clip(gradients, params) -> (gradients, share clipped)`."""

    def init(params: Tree) -> ClippingState:
        return ClippingState(jnp.float32(0.0))

    def update(updates, state, params=None):
        updates, share = clip(updates, params)
        return updates, ClippingState(jnp.asarray(share, jnp.float32))

    return optax.GradientTransformation(init, update)


def clipped_share(opt_state: Tree) -> Array | None:
    """The share that the last step clipped, found anywhere in an optimizer state; None without.

    For `value` it is a share of all numbers, for `array_norm` of the arrays, for `adaptive` of the
    units; `global_norm` clips all or nothing.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda s: isinstance(s, ClippingState))
    return next((s.clipped for s in leaves if isinstance(s, ClippingState)), None)


def shrunk(g: Array, norm: Array, threshold: float | Array) -> Array:
    """Gives g * min(1, c / ||g||), written so that a norm of 0 divides nothing."""
    return g * (threshold / jnp.maximum(threshold, norm)).astype(g.dtype)


def share_above(threshold: Any, sizes: list[Array]) -> Array:
    """What share of all sizes is above its threshold: one for all, or one for each array."""
    thresholds = threshold if isinstance(threshold, list) else [threshold] * len(sizes)
    above = sum(jnp.sum(size > c) for size, c in zip(sizes, thresholds, strict=True))
    return jnp.asarray(above) / sum(size.size for size in sizes)


def value(*, threshold: Positive = 1.0) -> optax.GradientTransformation:
    """Clip every number: g <- max(-c, min(c, g)).

    Turns the gradient towards a diagonal: unlike the norms below it does not keep its direction.

    Args:
        threshold: the largest absolute value c that passes unchanged.
    """

    def clip(updates: Tree, params: Tree) -> tuple[Tree, Array]:
        share = share_above(threshold, [jnp.abs(g) for g in jax.tree.leaves(updates)])
        kept = jax.tree.map(lambda g: jnp.clip(g, -threshold, threshold).astype(g.dtype), updates)
        return kept, share

    return transformation(clip)


def array_norm(*, threshold: Positive = 1.0) -> optax.GradientTransformation:
    """Clip by the norm of each array: g_k <- g_k * min(1, c / ||g_k||), for every kernel and bias.

    Keeps the direction within an array, not between arrays.

    Args:
        threshold: the largest norm c of an array that passes unchanged.
    """

    def clip(updates: Tree, params: Tree) -> tuple[Tree, Array]:
        norms = jax.tree.map(optax.tree.norm, updates)
        share = share_above(threshold, jax.tree.leaves(norms))
        return jax.tree.map(lambda g, n: shrunk(g, n, threshold), updates, norms), share

    return transformation(clip)


def global_norm(*, threshold: Positive = 1.0) -> optax.GradientTransformation:
    """Clip by global norm: g <- g * min(1, c / ||g||), the norm over all arrays together.

    Keeps the direction (Pascanu, Mikolov and Bengio 2013, algorithm 1). In float32 a norm above
    1.8e19 overflows; the step is then 0, which is safer than any direction it could take.

    Args:
        threshold: the largest norm c that passes unchanged.
    """

    def clip(updates: Tree, params: Tree) -> tuple[Tree, Array]:
        norm = optax.tree.norm(updates)
        return jax.tree.map(lambda g: shrunk(g, norm, threshold), updates), norm > threshold

    return transformation(clip)


def adaptive(*, threshold: Positive = 0.01, floor: Positive = 1e-3) -> optax.GradientTransformation:
    """Adaptive clipping, AGC: a unit's gradient is bounded by a share of the norm of its weights.

    G_i <- G_i * min(1, lambda max(||W_i||, epsilon) / ||G_i||), where i is a unit, the weights that
    enter one output: all axes of a kernel but the last. A bias counts as one unit (Brock, De, Smith
    and Simonyan 2021, equation 3).

    The paper leaves the last linear layer unclipped; here every array is clipped.

    Args:
        threshold: lambda, the largest ratio of gradient to weights that passes unchanged.
        floor: epsilon, what counts at least as the norm of a unit, so that zeros can grow.
    """

    def unit_norm(array: Array) -> Array:
        axes = tuple(range(max(array.ndim - 1, 1))) if array.ndim else None
        return jnp.sqrt(jnp.sum(array**2, axis=axes, keepdims=True))

    def clip(updates: Tree, params: Tree) -> tuple[Tree, Array]:
        norms = jax.tree.map(unit_norm, updates)
        allowed = jax.tree.map(lambda w: threshold * jnp.maximum(unit_norm(w), floor), params)
        share = share_above(jax.tree.leaves(allowed), jax.tree.leaves(norms))
        return jax.tree.map(shrunk, updates, norms, allowed), share

    return transformation(clip)


CLIPPING = {
    "value": value,
    "array_norm": array_norm,
    "global_norm": global_norm,
    "adaptive": adaptive,
}
