"""Regularizers: what keeps a network from fitting too well, all of it in one record.

A term that is None is not in the program at all, so that everything can be switched off, verified,
and switched on again piece by piece.
"""

from typing import Literal, NamedTuple

import jax
import optax

from nnref.bounds import Count, Fraction, NonNegative, Positive

Array = jax.Array


class Regularization(NamedTuple):
    """Which terms are on, and how strong. None, or false, means: not in the program.

    Args:
        l1: coefficient lambda of lambda ||w||_1 in the loss, coupled.
        l2: coefficient lambda of lambda/2 ||w||^2 in the loss, coupled.
        weight_decay: coefficient lambda of decoupled decay: w <- w - rate lambda w, past clipping
            and optimizer.
        dropout: share of the hidden units that are silenced at each training step.
        normalization: of the hidden layers, over the "batch" or over the "layer" of an example.
        input_noise: standard deviation of Gaussian noise added to the training inputs.
        label_smoothing: share of the target that is spread over all classes, in training only.
        max_norm: largest norm of the weights that enter a unit; projected after each step.
        shift: training images are moved by up to this many pixels each way.
        flip: training images are mirrored left to right, every other one by chance.
        average: decay of an exponential average of the weights, which is what is evaluated.
        decay_everything: l1, l2 and weight_decay also pull biases and normalisation's parameters.
    """

    l1: NonNegative | None = None
    l2: NonNegative | None = None
    weight_decay: NonNegative | None = None
    dropout: Fraction | None = None
    normalization: Literal["batch", "layer"] | None = None
    input_noise: NonNegative | None = None
    label_smoothing: Fraction | None = None
    max_norm: Positive | None = None
    shift: Count | None = None
    flip: bool = False
    average: Fraction | None = None
    decay_everything: bool = False


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
