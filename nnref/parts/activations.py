"""Activations: a(z), what a layer makes of its weighted sums z.

Positional `z` is an array of any shape and float dtype; the result has both, and so has the
derivative, finite everywhere. Keyword arguments are the schema of the experiment file and may be
traced. Where a derivative jumps, the docstring says which side a'(0) takes.

Two members need more than z, and models serve all of them by two questions: `pieces(activation)`,
how many sums a unit must be given, and `build_activation(activation, width)`, which makes the
module of a member that learns something, a class, and leaves a function as it is.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from nnref.bounds import Count, Positive
from nnref.errors import UserError

Array = jax.Array


def linear(z: Array) -> Array:
    """Nothing: a(z) = z. Stacked linear layers collapse into one."""
    return z


def sigmoid(z: Array) -> Array:
    """Logistic sigmoid: a(z) = 1 / (1 + exp(-z)), in (0, 1).

    Its derivative is at most 1/4 and its mean is 1/2, so signals shrink and drift in depth
    (Glorot and Bengio 2010, section 3).
    """
    return jax.nn.sigmoid(z)


def tanh(z: Array) -> Array:
    """Hyperbolic tangent: a(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z)), in (-1, 1).

    Zero-centred with derivative 1 at 0 (LeCun et al. 1998, "Efficient BackProp", section 4.4);
    saturates for |z| beyond about 2.
    """
    return jnp.tanh(z)


def scaled_tanh(z: Array) -> Array:
    """LeCun's tanh: a(z) = 1.7159 tanh(2z/3), so that a(1) = 1 and a(-1) = -1.

    Its second derivative is largest at the targets -1 and 1; z of variance 1 leaves with 0.75
    (LeCun et al. 1998, "Efficient BackProp", section 4.4).
    """
    return 1.7159 * jnp.tanh(2 / 3 * z)


def softsign(z: Array) -> Array:
    """Softsign: a(z) = z / (1 + |z|), in (-1, 1) (Bergstra et al. 2009).

    Saturates like 1/z, not exponentially, so that saturated units still move (Glorot and Bengio
    2010, section 3).
    """
    return z / (1 + jnp.abs(z))


def relu(z: Array) -> Array:
    """Rectified linear unit: a(z) = max(0, z), with a'(0) = 0 (Nair and Hinton 2010).

    A unit whose z is negative for every input gets no gradient and never comes back.
    """
    return jax.nn.relu(z)


def leaky_relu(z: Array, *, slope: float = 0.01) -> Array:
    """Leaky ReLU: a(z) = z for z > 0, else slope z, with a'(0) = slope (Maas et al. 2013).

    Cannot die. The usual slope is so small that it hardly differs from ReLU; in Keras and
    TensorFlow it is 0.3 and 0.2.

    Args:
        slope: of the negative side.
    """
    return jnp.where(z > 0, z, jnp.asarray(slope, z.dtype) * z)


class PReLU(nnx.Module):
    """Parametric ReLU: a(z) = z for z > 0, else s z, each unit learning its own s (He et al. 2015).

    The slopes are a vector, so that weight decay leaves them alone by default: decay would pull
    them to 0, that is to ReLU (section 2.1 there).

    Args:
        slope: first value of every s.
    """

    def __init__(self, width: int, *, slope: float = 0.25):
        self.slope = nnx.Param(jnp.full(width, slope, jnp.float32))

    def __call__(self, z: Array) -> Array:
        """a(z), (..., width)."""
        return jnp.where(z > 0, z, self.slope[...].astype(z.dtype) * z)


def elu(z: Array, *, alpha: Positive = 1.0) -> Array:
    """Exponential linear unit: a(z) = z for z > 0, else alpha (exp(z) - 1) (Clevert et al. 2016).

    Negative values push the mean towards 0. For alpha other than 1 the derivative jumps at 0,
    where it is alpha; `celu` is smooth.

    Args:
        alpha: the value it saturates to, negated.
    """
    return jnp.where(z > 0, z, jnp.asarray(alpha, z.dtype) * jnp.expm1(negative(z)))


def negative(z: Array) -> Array:
    """The z of the negative side, 0 on the other, with derivative 1 at 0.

    Without it exp would overflow on the side that is not used, and infinity times 0 in the gradient
    is not a number; `jnp.minimum(z, 0)` would halve the derivative at 0.
    """
    return jnp.where(z > 0, 0, z)


def selu(z: Array) -> Array:
    """Scaled ELU: a(z) = lambda elu(z, alpha), lambda = 1.0507, alpha = 1.6733.

    The two constants make mean 0 and variance 1 a stable fixed point of a layer (Klambauer et al.
    2017), if the weights are `lecun_normal`, the inputs standardized, and dropout off:
    plain dropout moves the fixed point.
    """
    return 1.0507009873554805 * elu(z, alpha=1.6732632423543772)


def celu(z: Array, *, alpha: Positive = 1.0) -> Array:
    """Smooth ELU: a(z) = z for z > 0, else alpha (exp(z / alpha) - 1) (Barron 2017).

    Args:
        alpha: the value it saturates to, negated.
    """
    scale = jnp.asarray(alpha, z.dtype)
    return jnp.where(z > 0, z, scale * jnp.expm1(negative(z) / scale))


def gelu(z: Array, *, form: Literal["exact", "tanh"] = "exact") -> Array:
    """Gaussian error linear unit: a(z) = z Phi(z), Phi the distribution function of N(0, 1).

    The tanh form, z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))), differs by up to 5e-4. JAX
    defaults to it, PyTorch and Keras to the exact one (Hendrycks and Gimpel 2016, section 2).

    Args:
        form: which of the two.
    """
    return jax.nn.gelu(z, approximate=form == "tanh")


def silu(z: Array) -> Array:
    """Sigmoid linear unit, or swish: a(z) = z / (1 + exp(-z)) (Elfwing et al. 2018).

    Not monotonic: lowest, -0.28, at z = -1.28.
    """
    return jax.nn.silu(z)


def mish(z: Array) -> Array:
    """Mish: a(z) = z tanh(log(1 + exp(z))) (Misra 2019). Not monotonic, like silu."""
    return z * jnp.tanh(jax.nn.softplus(z))


def softplus(z: Array) -> Array:
    """Smooth ReLU: a(z) = log(1 + exp(z)) (Dugas et al. 2001; Glorot et al. 2011, section 3).

    Never 0 and a(0) = 0.69, so its mean drifts upwards in depth.
    """
    return jax.nn.softplus(z)


def hard_tanh(z: Array) -> Array:
    """Piecewise linear tanh: a(z) = max(-1, min(1, z)) (Collobert 2004).

    a'(z) = 0 where a is -1 or 1: units that start there stay there.
    """
    return jnp.where(jnp.abs(z) < 1, z, jnp.sign(z))


def hard_sigmoid(z: Array, *, slope: Positive = 1 / 6) -> Array:
    """Piecewise linear sigmoid: a(z) = max(0, min(1, slope z + 1/2)) (Courbariaux et al. 2015).

    a'(z) = 0 where a is 0 or 1. The slope is a convention: 1/6 in PyTorch, JAX and Keras 3, 0.2
    in Theano and older Keras, 1/2 in the paper; the sigmoid itself has 1/4.

    Args:
        slope: of the middle piece.
    """
    half = 1 / 2
    y = jnp.asarray(slope, z.dtype) * z
    return jnp.where(jnp.abs(y) < half, y, half * jnp.sign(y)) + half


def maxout(z: Array, *, pieces: Count = 2) -> Array:
    """Maximum of several sums: a(z)_i = max_j z_ij, (..., width * pieces) -> (..., width).

    Learns a convex function of its own, at `pieces` times the weights (Goodfellow et al. 2013,
    section 3). The sums of one unit lie side by side. Where several are largest, they share the
    gradient; if the weights start equal, they stay equal. For initializers that look at fan_out,
    every piece counts as a unit.

    Args:
        pieces: sums for each unit.

    Raises:
        UserError: if the last axis of z is not a multiple of `pieces`.
    """
    if z.shape[-1] % pieces:
        raise UserError(f"maxout of {pieces} pieces cannot share out {z.shape[-1]} sums evenly")
    return jnp.max(z.reshape(*z.shape[:-1], -1, pieces), axis=-1)


def function_of(member: Callable[..., Any]) -> Callable[..., Any]:
    """The function or class behind a member whose keyword arguments may be bound."""
    return member.func if isinstance(member, partial) else member


def pieces(activation: Callable[..., Any]) -> int:
    """How many sums z an activation takes for each of its outputs: 1, except for maxout."""
    asked = inspect.signature(activation).parameters.get("pieces")
    return 1 if asked is None else asked.default


def build_activation(activation: Callable[..., Any], width: int) -> Callable[[Array], Array]:
    """What a layer of this many units calls: the function itself, or a new module of the class."""
    return activation(width) if isinstance(function_of(activation), type) else activation


def gain(activation: Callable[..., Any]) -> Array:
    """The factor on the next layer's weights that makes up for an activation: 1 / sqrt(E a(z)^2).

    With z ~ N(0, 1) and weights of mean 0 and variance gain^2 / fan_in, the next z has mean square
    1 again. This is He's argument (2015, section 2.2) for any activation: sqrt(2) for ReLU,
    sqrt(2 / (1 + slope^2)) for leaky ReLU, 1 for selu, 1.59 for tanh.

    PyTorch's `calculate_gain` has a table instead: the same for the ReLUs, but 5/3 for tanh, 1 for
    sigmoid (here 1.85) and 3/4 for selu. What keeps the forward signal does not keep the gradient:
    for that it would be 1 / sqrt(E a'(z)^2), which is the same for the ReLUs only.
    """
    # The largest of k sums has density k phi Phi^(k-1); fed to each piece, it is the maximum.
    k = pieces(activation)
    z, step = jnp.linspace(-10, 10, 2001, retstep=True)
    phi = jnp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    density = k * phi * jax.scipy.stats.norm.cdf(z) ** (k - 1)
    a = build_activation(activation, 1)(jnp.repeat(z[:, None], k, axis=1))[:, 0]
    return 1 / jnp.sqrt(jnp.sum(density * a**2) * step)


# Where both ends are finite: there the slope is 0, and no gradient comes through.
RANGES = {
    sigmoid: (0.0, 1.0),
    tanh: (-1.0, 1.0),
    scaled_tanh: (-1.7159, 1.7159),
    softsign: (-1.0, 1.0),
    hard_tanh: (-1.0, 1.0),
    hard_sigmoid: (0.0, 1.0),
}

ACTIVATIONS = {
    "linear": linear,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "scaled_tanh": scaled_tanh,
    "softsign": softsign,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "prelu": PReLU,
    "elu": elu,
    "selu": selu,
    "celu": celu,
    "gelu": gelu,
    "silu": silu,
    "mish": mish,
    "softplus": softplus,
    "hard_tanh": hard_tanh,
    "hard_sigmoid": hard_sigmoid,
    "maxout": maxout,
}
