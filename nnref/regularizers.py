"""Regularizers: what keeps a network from fitting too well, all of it in one record.

A term that is None is not in the program at all, so that everything can be switched off, verified,
and switched on again piece by piece.
"""

from typing import NamedTuple

import jax
import optax

from nnref.bounds import NonNegative

Array = jax.Array


class Regularization(NamedTuple):
    """Which terms are on, and how strong.

    Args:
        l2: coefficient lambda of coupled L2, lambda/2 ||w||^2 over kernels.
    """

    l2: NonNegative | None = None


def is_kernel(array: Array) -> bool:
    """Whether an array is pulled by default: biases and normalisation scales are exempt."""
    return array.ndim >= 2


def coupled_l2(coefficient: float | Array) -> optax.GradientTransformation:
    """Coupled L2: g <- g + lambda w, the gradient of lambda/2 ||w||^2, for kernels.

    Coupled means that clipping and optimizer see it: under Adam it is rescaled like any gradient
    and is not weight decay (Loshchilov and Hutter 2019, section 2).

    Args:
        coefficient: lambda.
    """

    def update(updates, state, params):
        def pulled(g: Array, w: Array) -> Array:
            return g + coefficient * w if is_kernel(w) else g

        return jax.tree.map(pulled, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def gradient_terms(regularization: Regularization) -> list[optax.GradientTransformation]:
    """The terms that enter the gradient, first in the chain of a step."""
    return [] if regularization.l2 is None else [coupled_l2(regularization.l2)]
