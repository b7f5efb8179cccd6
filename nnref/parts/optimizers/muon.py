"""Muon: kernels step along a velocity that is made orthogonal, all else by Adam."""

import jax.numpy as jnp

from nnref.bounds import Fraction, Positive
from nnref.parts.optimizers.rule import (
    Array,
    Number,
    Optimizer,
    one_minus_power,
    transformation,
    zeros,
)
from nnref.parts.regularizers import is_kernel


def muon(
    *,
    learning_rate: Positive = 0.02,
    momentum: Fraction = 0.95,
    nesterov: bool = True,
    epsilon: Positive = 1e-7,
    adam_learning_rate: Positive = 3e-4,
    adam_beta1: Fraction = 0.9,
    adam_beta2: Fraction = 0.95,
    adam_epsilon: Positive = 1e-10,
) -> Optimizer:
    """Muon, momentum made orthogonal: W -= alpha sqrt(max(1, out/in)) orthogonal(G + mu M).

    M = mu M + G; without Nesterov M instead of G + mu M (Jordan 2024, "Muon: an optimizer for
    hidden layers in neural networks"). Orthogonal sets the singular values near 1, see
    `orthogonal`. A kernel counts as a matrix of its last axis against all others. Biases and all
    other arrays below two axes are trained by Adam.

    Jordan gives the first and the last layer to Adam, too; here all kernels are alike. optax
    corrects the bias of Nesterov's two terms one by one, which turns the direction of the first
    steps; PyTorch and Jordan's program do not, and compute in bfloat16.

    Args:
        learning_rate: alpha of the kernels, the size of a step as a spectral norm.
        momentum: mu.
        nesterov: look ahead along the momentum.
        epsilon: what the momentum is divided by at least, at first; a guard against 0.
        adam_learning_rate: of the biases; it follows the same schedule.
        adam_beta1: of the biases.
        adam_beta2: of the biases.
        adam_epsilon: of the biases.
    """

    def rule(t: Array, g: Array, m: Array, v: Array | None = None) -> tuple[Array, ...]:
        if v is None:
            m = momentum * m + g
            matrix = (g + momentum * m if nesterov else m).reshape(-1, g.shape[-1])
            fan_in, fan_out = matrix.shape
            scale = max(1.0, fan_out / fan_in) ** 0.5
            return scale * orthogonal(matrix, epsilon).reshape(g.shape), m
        m = adam_beta1 * m + (1 - adam_beta1) * g
        v = adam_beta2 * v + (1 - adam_beta2) * g**2
        m_hat = m / one_minus_power(adam_beta1, t)
        v_hat = v / one_minus_power(adam_beta2, t)
        direction = m_hat / (jnp.sqrt(v_hat) + adam_epsilon)
        return adam_learning_rate / learning_rate * direction, m, v

    def start(w: Array) -> tuple[Array, ...]:
        return zeros(1 if is_kernel(w) else 2)(w)

    return Optimizer(learning_rate, transformation(rule, start))


def orthogonal(matrix: Array, epsilon: Number) -> Array:
    """U S V^T -> U S' V^T with S' near 1: five steps X <- a X + (b A + c A^2) X, A = X X^T.

    The coefficients (Jordan 2024) are chosen for speed: singular values above 0.003 of the norm
    come out between 0.68 and 1.21, not at 1.

    Args:
        matrix: (rows, columns).
        epsilon: the matrix is first divided by its Frobenius norm, or by this if it is more.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / jnp.maximum(jnp.sqrt(jnp.sum(x**2)), epsilon)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T
