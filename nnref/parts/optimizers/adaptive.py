"""Optimizers that divide by the size of past gradients: AdaGrad, RMSProp, Adadelta."""

import jax.numpy as jnp
import optax

from nnref.bounds import Fraction, NonNegative, Positive
from nnref.parts.optimizers.rule import Array, Optimizer, quotient, transformation, zeros


def adagrad(
    *,
    learning_rate: Positive = 0.01,
    epsilon: NonNegative = 1e-10,
    epsilon_in_root: bool = False,
    initial: NonNegative = 0.0,
) -> Optimizer:
    """AdaGrad: s = s + g^2; theta -= alpha g / (sqrt(s) + epsilon).

    Duchi, Hazan and Singer 2011, figure 1, diagonal, with delta as epsilon. The rate of a weight
    only ever falls.

    PyTorch is as here. Keras and optax have alpha g / sqrt(s + epsilon), s starting at 0.1, which
    is `epsilon_in_root` and `initial`.

    Args:
        learning_rate: alpha, the size of the first step of each weight.
        epsilon: keeps the quotient finite; at 0 a weight that never had a gradient rests.
        epsilon_in_root: add epsilon to s instead of to its root.
        initial: s before the first step.
    """

    def rule(t: Array, g: Array, s: Array) -> tuple[Array, ...]:
        s = s + g**2
        root = jnp.sqrt(s + epsilon) if epsilon_in_root else jnp.sqrt(s) + epsilon
        return quotient(g, root), s

    return Optimizer(learning_rate, transformation(rule, lambda w: (jnp.full_like(w, initial),)))


def rmsprop(
    *,
    learning_rate: Positive = 1e-3,
    decay: Fraction = 0.9,
    epsilon: Positive = 1e-8,
    epsilon_in_root: bool = False,
    centred: bool = False,
    momentum: Fraction | None = None,
) -> Optimizer:
    """RMSProp: v = rho v + (1 - rho) g^2; theta -= alpha g / (sqrt(v) + epsilon).

    Hinton 2012, lecture 6e; centred and with momentum Graves 2013, equations 38 to 41, who divides
    by the standard deviation sqrt(v - m^2 + epsilon), m = rho m + (1 - rho) g.

    v starts at 0 and is not corrected, so the first step is alpha / sqrt(1 - rho). Epsilon stands
    outside the root in PyTorch, inside in Keras, and either way in optax; it matters where
    gradients are near epsilon, for 1e-8 and 1e-4. In float32 v - m^2 may come out below 0; it is
    taken as 0 here, where other libraries give NaN.

    Args:
        learning_rate: alpha.
        decay: rho, of the mean of the squares (PyTorch's default is 0.99).
        epsilon: keeps the quotient finite.
        epsilon_in_root: sqrt(v + epsilon) instead of sqrt(v) + epsilon.
        centred: divide by the standard deviation, not by the root mean square.
        momentum: of a velocity of the quotients, mu b + g/sqrt(v).
    """

    def rule(t: Array, g: Array, v: Array, *mean: Array) -> tuple[Array, ...]:
        v = decay * v + (1 - decay) * g**2
        square = v
        if centred:
            mean = (decay * mean[0] + (1 - decay) * g,)
            square = jnp.maximum(v - mean[0] ** 2, 0)
        root = jnp.sqrt(square + epsilon) if epsilon_in_root else jnp.sqrt(square) + epsilon
        return g / root, v, *mean

    direction = transformation(rule, zeros(2 if centred else 1))
    if momentum is not None:
        direction = optax.chain(direction, optax.trace(decay=momentum))
    return Optimizer(learning_rate, direction)


def adadelta(
    *, learning_rate: Positive = 1.0, decay: Fraction = 0.95, epsilon: Positive = 1e-6
) -> Optimizer:
    """Adadelta: d = g sqrt(x + epsilon) / sqrt(v + epsilon); theta -= alpha d.

    v = rho v + (1 - rho) g^2 before, x = rho x + (1 - rho) d^2 after the step (Zeiler 2012,
    algorithm 1). The paper has no rate: alpha is 1. With x = 0 the first steps are about
    sqrt(epsilon) long, so epsilon decides how fast it starts.

    Args:
        learning_rate: alpha.
        decay: rho, of both means of squares.
        epsilon: added to both, inside the root.
    """
    return Optimizer(learning_rate, optax.scale_by_adadelta(rho=decay, eps=epsilon))
