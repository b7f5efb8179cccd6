"""Optimizers: the direction of a step, and the one chain that a step is.

    regularize -> clip -> direction -> decoupled decay -> x rate x schedule -> x -1

A member of the family gives the direction and the rate; `chain` puts the rest around it.
g is the gradient, m and v the moments, t counts from 1, alpha is the learning rate.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from nnref.bounds import Fraction, Positive
from nnref.schedules import Progress

Array = jax.Array


class Optimizer(NamedTuple):
    """The two factors of a step: theta <- theta - learning_rate * direction(g)."""

    learning_rate: float | Array
    direction: optax.GradientTransformation


def sgd(
    *, learning_rate: Positive = 0.1, momentum: Fraction = 0.0, nesterov: bool = False
) -> Optimizer:
    """Gradient descent with momentum: m = mu m + g; theta -= alpha m.

    Nesterov's form steps along g + mu m instead of m (Sutskever et al. 2013, as PyTorch writes
    it). The velocity is undamped: a momentum of 0.9 makes the long-run step ten times larger.

    Args:
        learning_rate: alpha.
        momentum: mu, the share of the velocity that is kept at each step.
        nesterov: look ahead along the velocity.
    """
    return Optimizer(learning_rate, optax.trace(decay=momentum, nesterov=nesterov))


def adam(
    *,
    learning_rate: Positive = 1e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: Positive = 1e-8,
) -> Optimizer:
    """Adam: theta -= alpha m_hat / (sqrt(v_hat) + epsilon) (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, m_hat = m / (1 - beta1^t),
    v_hat = v / (1 - beta2^t).

    Args:
        learning_rate: alpha, about the size of the step of each weight.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        epsilon: keeps the quotient finite where the gradient is 0.
    """
    return Optimizer(learning_rate, optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon))


def chain(
    optimizer: Optimizer,
    schedule: Callable[[Progress], Array],
    steps: int,
    steps_per_epoch: int,
    *before: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """The whole step as one optax transformation.

    Args:
        optimizer: direction and rate.
        schedule: the unit schedule that multiplies the rate.
        steps: updates of the whole run.
        steps_per_epoch: updates of an epoch.
        *before: what happens to the gradient first: regularizers, then clipping.
    """

    def minus_rate(step: Array) -> Array:
        return -optimizer.learning_rate * schedule(Progress(step, steps, steps_per_epoch))

    return optax.chain(*before, optimizer.direction, optax.scale_by_schedule(minus_rate))


OPTIMIZERS = {
    "sgd": sgd,
    "adam": adam,
}
