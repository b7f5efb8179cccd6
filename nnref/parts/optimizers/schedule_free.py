"""Schedule-free optimizers, which train at one point and are evaluated at an average."""

import jax.numpy as jnp
import optax

from nnref.bounds import Fraction, NonNegative, Positive
from nnref.parts.optimizers.rule import (
    Array,
    Optimizer,
    one_minus_power,
    transformation,
    zeros,
)


def schedule_free_sgd(*, learning_rate: Positive = 1.0, interpolation: Fraction = 0.9) -> Optimizer:
    """Schedule-free gradient descent: z -= alpha g(y); x averages z; y = (1 - beta) z + beta x.

    Defazio et al. 2024, equations 3 to 5. The network trains at y and is evaluated at x; see
    `schedule_free_step`. The rate wants to be larger than SGD's, and a warm-up, but no decay.

    Args:
        learning_rate: alpha.
        interpolation: beta, how far y lies towards the average; takes the place of momentum.
    """
    return Optimizer(learning_rate, optax.identity(), interpolation=interpolation)


def schedule_free_adamw(
    *,
    learning_rate: Positive = 2.5e-3,
    interpolation: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
) -> Optimizer:
    """Schedule-free AdamW: z -= alpha (g(y) / (sqrt(v_hat) + epsilon) + lambda y).

    v_hat as in Adam; x and y as in `schedule_free_step` (Defazio et al. 2024, algorithm 1). The
    paper folds sqrt(1 - beta2^t) into the rate, and so into the weights of the average; the
    authors' program has since corrected v instead, as optax and this do.

    Args:
        learning_rate: alpha.
        interpolation: beta1, how far y lies towards the average; takes the place of momentum.
        beta2: decay of the mean of the squared gradient.
        epsilon: keeps the quotient finite where the gradient is 0.
        weight_decay: lambda, decoupled, at y.
    """

    def rule(t: Array, g: Array, v: Array) -> tuple[Array, ...]:
        v = beta2 * v + (1 - beta2) * g**2
        return g / (jnp.sqrt(v / one_minus_power(beta2, t)) + epsilon), v

    return Optimizer(learning_rate, transformation(rule, zeros(1)), weight_decay, interpolation)
