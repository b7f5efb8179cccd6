"""Schedule-free optimizers, which train at one point and are evaluated at an average."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nnref.bounds import Fraction, NonNegative, Positive
from nnref.parts.optimizers.rule import (
    Array,
    Optimizer,
    Tree,
    one_minus_power,
    quotient,
    transformation,
    zeros,
)
from nnref.parts.schedules import RateState


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


# --- their step, in the place of rate and schedule ------------------------------------------------


class ScheduleFreeState(NamedTuple):
    """The sequences of schedule-free learning beside y, which are the parameters."""

    rate: RateState
    weight_sum: Array
    z: Tree
    average: Tree  # x, where the network is evaluated


def schedule_free_step(
    optimizer: Optimizer,
    factor: Callable[[RateState], Array],
    start: RateState,
    projection: optax.GradientTransformation | None,
) -> optax.GradientTransformation:
    """The schedule-free step: z <- z - gamma d; x <- (1 - c) x + c z; y <- (1 - beta) z + beta x.

    gamma_t = alpha s(t), c_t = gamma_t^2 / sum_{i<=t} gamma_i^2 (Defazio et al. 2024, equations 3
    to 5 and algorithm 1). The parameters are y, where d is taken; x is kept as `average`. alpha is
    the learning rate, beta the interpolation; s, the schedule `factor`, may be a warm-up, but a
    decay does not suit it. A projection applies to z: x and y are averages of projected points.

    Batch normalization's statistics belong to y and not to x, where the network is evaluated.
    """
    learning_rate, beta = optimizer.learning_rate, optimizer.interpolation
    assert beta is not None, "chain asks for this step where there is an interpolation"

    def init(params: Tree) -> Any:
        # Copies: three names of one buffer could not be given away to a jitted step.
        z, x = jax.tree.map(jnp.copy, params), jax.tree.map(jnp.copy, params)
        return ScheduleFreeState(start, jnp.zeros((), float), z, x)

    def update(updates: Tree, state: Any, params: Tree = None) -> Any:
        s = factor(state.rate)
        move = jax.tree.map(lambda d: -learning_rate * s * d, updates)
        if projection is not None:
            move, _ = projection.update(move, projection.init(state.z), state.z)
        z = jax.tree.map(jnp.add, state.z, move)
        # alpha is the same at every step, so it cancels in the weights.
        weight_sum = state.weight_sum + s**2
        c = quotient(s**2, weight_sum)
        x = jax.tree.map(lambda x, z: (1 - c) * x + c * z, state.average, z)
        step = jax.tree.map(lambda y, z, x: (1 - beta) * z + beta * x - y, params, z, x)
        rate = state.rate._replace(step=state.rate.step + 1)
        return step, ScheduleFreeState(rate, weight_sum, z, x)

    return optax.GradientTransformation(init, update)
