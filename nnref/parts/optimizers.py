"""Optimizers: the direction of a step, and the one chain that a step is.

    regularize -> clip -> direction -> decoupled decay -> x rate x schedule -> x -1

A member of the family gives the direction and the rate; `chain` puts the rest around it.
Where optax has the direction as the paper writes it, it is used; the others are written here, each
as the rule of one array, in the paper's symbols.

theta are the parameters, g is the gradient (of the loss with its coupled terms), m and v are the
moments, alpha is the learning rate, t counts from 1. Squares, roots, quotients and powers are
elementwise.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from annotated_types import Interval

from nnref.bounds import Fraction, NonNegative, Positive
from nnref.errors import UserError
from nnref.parts.regularizers import is_kernel

Array = jax.Array
Tree = Any
Number = float | Array


class Optimizer(NamedTuple):
    """The factors of a step: theta <- theta - learning_rate (direction(g) + weight_decay theta).

    With an `interpolation` beta, the step is that of schedule-free learning, see
    `schedule_free_step`.
    """

    learning_rate: Number
    direction: optax.GradientTransformation
    weight_decay: Number | None = None
    interpolation: Number | None = None


# --- the rule of one array, lifted to all ---------------------------------------------------------


class RuleState(NamedTuple):
    """What a rule remembers: the steps made, and for each array of the parameters its slots."""

    step: Array
    slots: Tree


def zeros(count: int) -> Callable[[Array], tuple[Array, ...]]:
    """Slots that start at 0, each of the shape of its array."""
    return lambda w: (jnp.zeros_like(w),) * count


def transformation(
    rule: Callable[..., tuple[Array, ...]], start: Callable[[Array], tuple[Array, ...]]
) -> optax.GradientTransformation:
    """The optax transformation of `rule(t, g, *slots) -> (direction, *slots)`.

    Args:
        rule: for one array; t is the number of the step, from 1.
        start: the slots of an array before the first step.
    """

    def init(params: Tree) -> RuleState:
        return RuleState(jnp.int32(0), jax.tree.map(start, params))

    def update(updates, state, params=None):
        t = state.step + 1
        gradients, tree = jax.tree.flatten(updates)
        slots = tree.flatten_up_to(state.slots)
        results = [rule(t, g, *slot) for g, slot in zip(gradients, slots, strict=True)]
        directions = tree.unflatten([direction for direction, *_ in results])
        return directions, RuleState(t, tree.unflatten([tuple(slot) for _, *slot in results]))

    return optax.GradientTransformation(init, update)


def one_minus_power(beta: Number, t: Array) -> Array:
    """1 - beta^t, which float32 would lose to cancellation where beta is close to 1."""
    return -jnp.expm1(t * jnp.log(beta))


def quotient(above: Array, below: Array) -> Array:
    """The quotient, and 0 where the denominator is 0: an array that never had a gradient rests."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)


# --- the family -----------------------------------------------------------------------------------


def sgd(
    *,
    learning_rate: Positive = 0.1,
    momentum: Fraction = 0.0,
    dampening: Fraction | None = None,
    nesterov: bool = False,
) -> Optimizer:
    """Gradient descent with momentum: m = mu m + (1 - dampening) g; theta -= alpha m.

    Polyak 1964, as Sutskever et al. 2013 write it (equations 1 and 2). Nesterov's form steps along
    g + mu m instead of m (equations 3 and 4, with theta at the point looked ahead to, as PyTorch,
    Keras and optax have it).

    Undamped, a momentum of 0.9 makes the long-run step ten times larger; a dampening equal to the
    momentum makes m an average. PyTorch leaves the very first gradient undamped, here all are
    damped. At a change of rate Keras, which keeps alpha inside its velocity, goes another way.

    Args:
        learning_rate: alpha.
        momentum: mu, the share of the velocity that is kept at each step.
        dampening: share of each gradient that does not enter the velocity.
        nesterov: look ahead along the velocity.
    """
    direction = optax.trace(decay=momentum, nesterov=nesterov)
    if dampening is not None:
        if nesterov:
            raise UserError("optimizer sgd: nesterov has no dampening; drop one of the two")
        direction = optax.chain(optax.scale(1.0 - dampening), direction)
    return Optimizer(learning_rate, direction)


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


def lion(
    *, learning_rate: Positive = 1e-4, beta1: Fraction = 0.9, beta2: Fraction = 0.99
) -> Optimizer:
    """Lion: theta -= alpha sign(beta1 m + (1 - beta1) g); then m = beta2 m + (1 - beta2) g.

    Chen et al. 2023, algorithm 2. Its decoupled decay is `regularization.weight_decay`. Every
    weight moves by alpha at every step, so the authors advise a rate 3 to 10 times lower than
    AdamW's, and a decay as many times higher. A gradient of 0 from the start moves nothing.

    Args:
        learning_rate: alpha, the size of every step of every weight.
        beta1: share of the velocity in the sign.
        beta2: decay of the velocity.
    """
    return Optimizer(learning_rate, optax.scale_by_lion(b1=beta1, b2=beta2))


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


# --- the chain ------------------------------------------------------------------------------------


OPTIMIZERS = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "adam": adam,
    "adamw": adamw,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "amsgrad": amsgrad,
    "padam": padam,
    "lion": lion,
    "muon": muon,
    "schedule_free_sgd": schedule_free_sgd,
    "schedule_free_adamw": schedule_free_adamw,
}
