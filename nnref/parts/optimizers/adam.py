"""Adam and its relatives: a mean of gradients over the root of a mean of their squares."""

from typing import Annotated, Literal

import jax.numpy as jnp
import optax
from annotated_types import Interval

from nnref.bounds import Fraction, NonNegative, Positive
from nnref.parts.optimizers.rule import (
    Array,
    Number,
    Optimizer,
    one_minus_power,
    quotient,
    transformation,
    zeros,
)


def adam(
    *,
    learning_rate: Positive = 1e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: Positive = 1e-8,
    bias_correction: bool = True,
) -> Optimizer:
    """Adam: theta -= alpha m_hat / (sqrt(v_hat) + epsilon) (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, m_hat = m / (1 - beta1^t),
    v_hat = v / (1 - beta2^t).

    Without bias correction m_hat = m and v_hat = v, as in the proofs of regret bounds; the first
    step is then (1 - beta1) / sqrt(1 - beta2) alpha, by default 3.2 times as long.

    Keras adds epsilon before the correction of v, as the paper's section 2 proposes for speed; it
    counts 1 / sqrt(1 - beta2^t) times as much there. With L2 in the gradient this is not AdamW.

    Args:
        learning_rate: alpha, about the size of the step of each weight.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        epsilon: keeps the quotient finite where the gradient is 0.
        bias_correction: divide m and v by what their weights add up to.
    """

    def rule(t: Array, g: Array, m: Array, v: Array) -> tuple[Array, ...]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        # A factor for all elements: divided one by one, a step of a small network takes 5 % longer.
        c1, c2 = (1 / (1 - beta1**t), 1 / (1 - beta2**t)) if bias_correction else (1.0, 1.0)
        return c1 * m / (jnp.sqrt(c2 * v) + epsilon), m, v

    return Optimizer(learning_rate, transformation(rule, zeros(2)))


def adamw(
    *,
    learning_rate: Positive = 1e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> Optimizer:
    """AdamW: theta -= alpha (m_hat / (sqrt(v_hat) + epsilon) + lambda theta).

    Loshchilov and Hutter 2019, algorithm 2, with the rate on both terms, as PyTorch, Keras and
    optax have it; the paper multiplies lambda by the schedule only. Defaults differ: lambda is 0.01
    in PyTorch, 0.004 in Keras, 0.0001 in optax. Here kernels are decayed and biases are not.

    It is Adam with `regularization.weight_decay`, under its own name; `--set regularization=off`
    leaves this decay on.

    Args:
        learning_rate: alpha.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        epsilon: keeps the quotient finite where the gradient is 0.
        weight_decay: lambda, decoupled: neither clipped nor divided by sqrt(v).
    """
    return Optimizer(
        learning_rate, optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon), weight_decay
    )


def adamax(
    *,
    learning_rate: Positive = 2e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: Positive = 1e-8,
) -> Optimizer:
    """Adamax: u = max(beta2 u, |g| + epsilon); theta -= alpha m_hat / u.

    m_hat as in Adam; u needs no correction (Kingma and Ba 2015, algorithm 2, which has no epsilon).
    PyTorch and optax are as here, Keras adds epsilon to u afterwards.

    Args:
        learning_rate: alpha, the largest step of a weight under a constant gradient.
        beta1: decay of the mean of the gradient.
        beta2: decay of the largest gradient.
        epsilon: keeps the quotient finite where the gradient is 0.
    """
    return Optimizer(learning_rate, optax.scale_by_adamax(b1=beta1, b2=beta2, eps=epsilon))


def nadam(
    *,
    learning_rate: Positive = 2e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: Positive = 1e-8,
    momentum_decay: NonNegative | None = None,
) -> Optimizer:
    """NAdam, Adam with Nesterov's momentum: theta -= alpha m_bar / (sqrt(v_hat) + epsilon).

    m_bar = mu_{t+1} m / (1 - prod_{i<=t+1} mu_i) + (1 - mu_t) g / (1 - prod_{i<=t} mu_i), m and
    v_hat as in Adam; mu_t = beta1, or with a momentum decay psi mu_t = beta1 (1 - 0.96^(t psi) / 2)
    (Dozat 2016, algorithm 2, without its factor beta2 on v_hat, which every library leaves out).

    optax has mu_t = beta1; psi is 0.004 by default in PyTorch, always 1 in Keras.

    Args:
        learning_rate: alpha.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        epsilon: keeps the quotient finite where the gradient is 0.
        momentum_decay: psi, how fast mu_t rises from beta1/2 to beta1.
    """

    def mu(t: Array) -> Number:
        if momentum_decay is None:
            return beta1
        return beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def rule(t: Array, g: Array, m: Array, v: Array, product: Array) -> tuple[Array, ...]:
        product = product * mu(t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_bar = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        v_hat = v / one_minus_power(beta2, t)
        return m_bar / (jnp.sqrt(v_hat) + epsilon), m, v, product

    def start(w: Array) -> tuple[Array, ...]:
        return *zeros(2)(w), jnp.ones((), w.dtype)

    return Optimizer(learning_rate, transformation(rule, start))


def radam(
    *,
    learning_rate: Positive = 1e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: Positive = 1e-8,
    threshold: Annotated[float, Interval(ge=4)] = 5.0,
) -> Optimizer:
    """RAdam, Adam with its variance rectified: theta -= alpha r_t m_hat / (sqrt(v_hat) + epsilon).

    rho_inf = 2 / (1 - beta2) - 1, rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t),
    r_t = sqrt((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t)); while
    rho_t <= threshold the step is alpha m_hat, momentum without a denominator (Liu et al. 2020,
    algorithm 2).

    The paper's threshold is 4 and it has no epsilon; the authors' code, PyTorch and optax have 5.
    PyTorch adds epsilon before the correction of v. The first five steps (beta2 = 0.999) are plain
    momentum with alpha as the rate: large gradients make large steps there.

    Args:
        learning_rate: alpha.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square; up to 0.6 nothing is ever rectified.
        epsilon: keeps the quotient finite where the gradient is 0.
        threshold: rho_t above which the variance counts as tractable.
    """

    def rule(t: Array, g: Array, m: Array, v: Array) -> tuple[Array, ...]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / one_minus_power(beta1, t)
        rest = one_minus_power(beta2, t)
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * (1 - rest) / rest
        tractable = rho > threshold
        r_squared = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
        r = jnp.sqrt(jnp.where(tractable, r_squared, 1))
        rectified = r * m_hat / (jnp.sqrt(v / rest) + epsilon)
        return jnp.where(tractable, rectified, m_hat), m, v

    return Optimizer(learning_rate, transformation(rule, zeros(2)))


def amsgrad(
    *,
    convention: Literal["paper", "torch", "optax"],
    learning_rate: Positive = 1e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    epsilon: NonNegative = 1e-8,
) -> Optimizer:
    """AMSGrad, Adam whose denominator never shrinks: theta -= alpha m / (sqrt(v_hat) + epsilon).

    m and v as in Adam; v_hat is the largest v so far (Reddi, Kale and Kumar 2018, algorithm 2). The
    order of maximum and bias correction is a matter of convention, and so must be named:

    - paper: v_hat = max(v_hat, v), no correction of m or v. The paper has no epsilon: 0 is allowed.
    - torch: v_hat = max(v_hat, v), divided by 1 - beta2^t afterwards; m by 1 - beta1^t.
    - optax: v_hat = max(v_hat, v / (1 - beta2^t)); m by 1 - beta1^t. A spike in the first steps is
      magnified by the correction, and kept for ever.

    Keras has the paper's maximum and the rate alpha sqrt(1 - beta2^t) / (1 - beta1^t), which is
    padam(convention="authors", p=0.5).

    Args:
        convention: order of maximum and correction.
        learning_rate: alpha.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        epsilon: keeps the quotient finite; at 0 a weight that never had a gradient rests.
    """

    def rule(t: Array, g: Array, m: Array, v: Array, v_hat: Array) -> tuple[Array, ...]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        rest1, rest2 = one_minus_power(beta1, t), one_minus_power(beta2, t)
        if convention == "paper":
            v_hat = jnp.maximum(v_hat, v)
            direction = quotient(m, jnp.sqrt(v_hat) + epsilon)
        elif convention == "torch":
            v_hat = jnp.maximum(v_hat, v)
            direction = quotient(m / rest1, jnp.sqrt(v_hat / rest2) + epsilon)
        else:
            v_hat = jnp.maximum(v_hat, v / rest2)
            direction = quotient(m / rest1, jnp.sqrt(v_hat) + epsilon)
        return direction, m, v, v_hat

    return Optimizer(learning_rate, transformation(rule, zeros(3)))


def padam(
    *,
    convention: Literal["paper", "authors"],
    learning_rate: Positive = 0.1,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    p: Annotated[float, Interval(ge=0, le=0.5)] = 0.125,
    epsilon: NonNegative = 1e-8,
) -> Optimizer:
    """Padam, partially adaptive: theta -= alpha m / v_hat^p, between momentum and AMSGrad.

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, v_hat = max(v_hat, v) (Chen and Gu
    2018, algorithm 1). The authors' program differs from their paper, so the convention must be
    named:

    - paper: alpha m / v_hat^p, no bias correction and no epsilon. p = 1/2 is the paper's AMSGrad;
      p = 0 is momentum with an average: SGD with momentum beta1, dampening beta1.
    - authors: alpha sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v_hat) + epsilon)^(2p); its
      argument `partial` is p. p = 1/2 is Keras's AMSGrad; p = 0 is not momentum, because of the
      first factor.

    The first step is c alpha sign(g) |g|^(1 - 2p); for p = 1/8 and the default betas c is 0.237 in
    the paper's form, 0.075 in the authors'. So a rate means something else in each, and at p = 0 a
    rate of 0.1 is a tenth of the same rate under undamped momentum.

    Args:
        convention: of the paper or of the authors' program.
        learning_rate: alpha.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        p: 1/2 is fully adaptive, 0 not at all.
        epsilon: of the authors' form; the paper's has none.
    """

    def rule(t: Array, g: Array, m: Array, v: Array, v_hat: Array) -> tuple[Array, ...]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_hat = jnp.maximum(v_hat, v)
        if convention == "paper":
            direction = quotient(m, v_hat**p)
        else:
            correction = jnp.sqrt(one_minus_power(beta2, t)) / one_minus_power(beta1, t)
            direction = correction * quotient(m, (jnp.sqrt(v_hat) + epsilon) ** (2 * p))
        return direction, m, v, v_hat

    return Optimizer(learning_rate, transformation(rule, zeros(3)))
