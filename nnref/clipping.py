"""Clipping: gradients made smaller where they are too large, before the optimizer sees them."""

import jax
import jax.numpy as jnp
import optax

from nnref.bounds import Positive

Array = jax.Array


def global_norm(*, threshold: Positive = 1.0) -> optax.GradientTransformation:
    """Clip by global norm: g <- g * min(1, c / ||g||), the norm over all arrays together.

    Keeps the direction (Pascanu, Mikolov and Bengio 2013, algorithm 1).

    Args:
        threshold: the largest norm c that passes unchanged.
    """

    def update(updates, state, params=None):
        norm = optax.tree.norm(updates)
        # Divide by max(c, ||g||), not by ||g||: the norm may be 0.
        factor = threshold / jnp.maximum(threshold, norm)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


CLIPPING = {
    "global_norm": global_norm,
}
