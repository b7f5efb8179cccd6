"""Initializers: the first value of a weight array.

Positional are `key` (a JAX random key), `shape` and `dtype`. A kernel has shape
`(*window, fan_in_channels, fan_out_channels)`; its fan_in is the product of all but the last axis,
its fan_out the product of all but the second to last. What a layer knows and a shape does not tell,
a model supplies: `fan_in` for a bias, and for `gain=None` the gain of the activation in front.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from nnref.bounds import NonNegative
from nnref.errors import UserError

Array = jax.Array
Shape = Sequence[int]
Distribution = Literal["normal", "truncated_normal", "uniform"]


def fans(shape: Shape) -> tuple[int, int]:
    """The inputs of a unit and the units that an input reaches; a UserError for a bias."""
    if len(shape) < 2:
        raise UserError(
            f"this initializer needs a kernel, with two axes or more; a bias of shape "
            f"{tuple(shape)} can have zeros, constant, normal, uniform or torch_linear"
        )
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


# --- the same whatever the shape ----------------------------------------------------------------


def zeros(key: Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """Every weight 0. Right for biases; in a kernel, units of a layer start and stay identical."""
    return jnp.zeros(shape, dtype)


def ones(key: Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """Every weight 1. In a kernel, units stay identical, and signals grow by fan_in a layer."""
    return jnp.ones(shape, dtype)


def constant(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, value: float = 0.1
) -> Array:
    """Every weight the same. In a kernel, units of a layer start and stay identical.

    A bias of 0.1 makes most ReLUs active at first (Goodfellow et al. 2016, section 6.3.1); a
    forget gate starts open with 1 (Jozefowicz et al. 2015).

    Args:
        value: of every weight.
    """
    return jnp.full(shape, value, dtype)


def normal(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, scale: NonNegative = 0.01
) -> Array:
    """Gaussian of a given width, whatever the shape: w ~ N(0, scale^2).

    Signals change by scale sqrt(fan_in) at every layer, so a deep network dies out or explodes.

    Args:
        scale: standard deviation.
    """
    return draw("normal", key, shape, dtype, scale)


def uniform(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, scale: NonNegative = 1.0
) -> Array:
    """Uniform of a given width, whatever the shape: w ~ U[-scale, scale], variance scale^2 / 3.

    Args:
        scale: half the width of the interval.
    """
    return draw("uniform", key, shape, dtype, scale / math.sqrt(3))


# --- a variance from the fans -------------------------------------------------------------------


def draw(
    distribution: Distribution, key: Array, shape: Shape, dtype: DTypeLike, deviation: float | Array
) -> Array:
    """Random weights of mean 0 and this standard deviation.

    The truncated normal is cut at two sigma of the uncut one and widened by 1 / 0.8796, so that
    its deviation is what was asked for; PyTorch's `trunc_normal_` is not widened.
    """
    at_least_float32 = jnp.promote_types(dtype, jnp.float32)
    if distribution == "normal":
        w = jax.random.normal(key, shape, at_least_float32)
    elif distribution == "truncated_normal":
        w = jax.random.truncated_normal(key, -2, 2, shape, at_least_float32) / 0.87962566103423978
    else:
        w = math.sqrt(3) * jax.random.uniform(key, shape, at_least_float32, -1, 1)
    return (deviation * w).astype(dtype)


def variance_scaling(
    key: Array,
    shape: Shape,
    dtype: DTypeLike = jnp.float32,
    *,
    gain: NonNegative | None = 1.0,
    fan: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in",
    distribution: Distribution = "normal",
) -> Array:
    """Mean 0 and variance gain^2 / fan: LeCun, Glorot and He are settings of this one.

    fan_in keeps the size of the signal, fan_out that of the gradient, fan_avg, their mean, is the
    compromise. The `scale` of JAX and Keras is gain^2.

    Args:
        gain: factor on the standard deviation; null for 1 / sqrt(E a(z)^2) of the activation in
            front, which keeps the signal's mean square (1 for a first layer).
        fan: what the variance is divided by.
        distribution: the shape; a truncated normal keeps its variance.
    """
    fan_in, fan_out = fans(shape)
    n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[fan]
    return draw(distribution, key, shape, dtype, known(gain) * math.sqrt(1 / n))


def known(gain: NonNegative | None) -> NonNegative:
    """The gain, which must be a number by now."""
    if gain is None:
        raise UserError("gain null is that of the activation in front, which only a model knows")
    return gain


def lecun_normal(
    key: Array,
    shape: Shape,
    dtype: DTypeLike = jnp.float32,
    *,
    gain: NonNegative | None = 1.0,
    truncated: bool = False,
) -> Array:
    """Gaussian with variance gain^2 / fan_in (LeCun et al. 1998, section 4.6).

    Keeps the variance of the signal through linear layers, and through selu.

    Args:
        gain: factor on the standard deviation; null for that of the activation in front.
        truncated: cut at two sigma, same variance, as JAX and Keras do.
    """
    distribution = "truncated_normal" if truncated else "normal"
    return variance_scaling(key, shape, dtype, gain=gain, distribution=distribution)


def lecun_uniform(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, gain: NonNegative | None = 1.0
) -> Array:
    """Uniform with variance gain^2 / fan_in: U[-sqrt(3 / fan_in), sqrt(3 / fan_in)] for gain 1.

    Args:
        gain: factor on the standard deviation; null for that of the activation in front.
    """
    return variance_scaling(key, shape, dtype, gain=gain, distribution="uniform")


def glorot_normal(
    key: Array,
    shape: Shape,
    dtype: DTypeLike = jnp.float32,
    *,
    gain: NonNegative | None = 1.0,
    truncated: bool = False,
) -> Array:
    """Gaussian with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 12).

    Args:
        gain: factor on the standard deviation; null for that of the activation in front.
        truncated: cut at two sigma, same variance, as JAX and Keras do.
    """
    distribution = "truncated_normal" if truncated else "normal"
    return variance_scaling(key, shape, dtype, gain=gain, fan="fan_avg", distribution=distribution)


def glorot_uniform(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, gain: NonNegative | None = 1.0
) -> Array:
    """Uniform with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 16).

    Keeps the variance of signal and gradient, as a compromise, through layers that are linear
    near 0; behind ReLU the signal halves at every layer.

    Args:
        gain: factor on the standard deviation; null for that of the activation in front.
    """
    return variance_scaling(key, shape, dtype, gain=gain, fan="fan_avg", distribution="uniform")


def he_normal(
    key: Array,
    shape: Shape,
    dtype: DTypeLike = jnp.float32,
    *,
    gain: NonNegative = 1.0,
    slope: float = 0.0,
    fan: Literal["fan_in", "fan_out"] = "fan_in",
    truncated: bool = False,
) -> Array:
    """Gaussian with variance gain^2 * 2 / ((1 + slope^2) fan_in) (He et al. 2015, eq. 10 and 15).

    Keeps the mean square of the signal through layers with ReLU, which halves it; with fan_out
    that of the gradient (eq. 14).

    Args:
        gain: factor on top of He's standard deviation.
        slope: of the negative side, for leaky ReLU and PReLU.
        fan: fan_in for the signal, fan_out for the gradient.
        truncated: cut at two sigma, same variance, as JAX and Keras do.
    """
    distribution = "truncated_normal" if truncated else "normal"
    he = gain * (2 / (1 + slope**2)) ** 0.5
    return variance_scaling(key, shape, dtype, gain=he, fan=fan, distribution=distribution)


def he_uniform(
    key: Array,
    shape: Shape,
    dtype: DTypeLike = jnp.float32,
    *,
    gain: NonNegative = 1.0,
    slope: float = 0.0,
    fan: Literal["fan_in", "fan_out"] = "fan_in",
) -> Array:
    """Uniform with variance gain^2 * 2 / ((1 + slope^2) fan_in) (He et al. 2015).

    Args:
        gain: factor on top of He's standard deviation.
        slope: of the negative side, for leaky ReLU and PReLU.
        fan: fan_in for the signal, fan_out for the gradient.
    """
    he = gain * (2 / (1 + slope**2)) ** 0.5
    return variance_scaling(key, shape, dtype, gain=he, fan=fan, distribution="uniform")


def torch_linear(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, fan_in: int | None = None
) -> Array:
    """PyTorch's default for Linear and Conv: w, b ~ U[-1/sqrt(fan_in), 1/sqrt(fan_in)].

    Variance 1 / (3 fan_in), a third of LeCun's: signals shrink by 1.7 a layer. Written there as
    `kaiming_uniform_(a=sqrt(5))`. The bias is drawn with the fan_in of its kernel, which a model
    supplies.

    Raises:
        UserError: for a bias whose model does not supply fan_in.
    """
    if fan_in is None and len(shape) < 2:
        raise UserError(f"torch_linear: a bias of shape {tuple(shape)} needs its kernel's fan_in")
    deviation = math.sqrt(1 / (3 * (fan_in or fans(shape)[0])))
    return draw("uniform", key, shape, dtype, deviation)


# --- matrices that keep lengths -----------------------------------------------------------------


@jax.custom_batching.sequential_vmap
def qr(matrix: Array) -> tuple[Array, Array]:
    """The QR decomposition, one after another under vmap: Q and R.

    XLA's CPU backend shares a batched one out to its threads. Where the layers of many seeds are
    drawn in one program, each of these threads ends up waiting for the others, for ever.
    """
    q, r = jnp.linalg.qr(matrix)
    return q, r


def orthogonal(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, gain: NonNegative | None = 1.0
) -> Array:
    """Random orthogonal matrix times gain: Q of the QR of a Gaussian, signed by the diagonal of R.

    Without those signs Q is not uniformly distributed (Mezzadri 2007, section 5). As a matrix
    (fan_in, outputs) its columns, or if these are more than rows, its rows are orthonormal: a layer
    that does not narrow keeps every length, however deep the network (Saxe et al. 2014).
    For a convolution that holds of the flattened kernel, not of the map: see `delta_orthogonal`.

    Args:
        gain: length of the rows or columns; null for the gain of the activation in front.
    """
    fan_in, _ = fans(shape)
    tall = (max(fan_in, shape[-1]), min(fan_in, shape[-1]))
    q, r = qr(draw("normal", key, tall, jnp.promote_types(dtype, jnp.float32), 1.0))
    q *= jnp.where(jnp.diagonal(r) < 0, -1, 1)
    w = q if fan_in >= shape[-1] else q.T
    return (known(gain) * w.reshape(shape)).astype(dtype)


def delta_orthogonal(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, gain: NonNegative | None = 1.0
) -> Array:
    """Orthogonal at the centre of a convolution's kernel, zero elsewhere (Xiao et al. 2018).

    The convolution starts as the same orthogonal map at every pixel, so that it keeps the length of
    the image, if it has no fewer outputs than inputs, stride 1 and padding. Without a window it is
    `orthogonal`.

    Args:
        gain: length of the rows or columns; null for the gain of the activation in front.
    """
    fans(shape)
    centre = tuple((side - 1) // 2 for side in shape[:-2])
    w = orthogonal(key, shape[-2:], dtype, gain=gain)
    return jnp.zeros(shape, dtype).at[centre].set(w)


def identity(
    key: Array, shape: Shape, dtype: DTypeLike = jnp.float32, *, gain: NonNegative = 1.0
) -> Array:
    """Identity times gain, for the recurrent kernel of a ReLU network (Le et al. 2015).

    With gain 1 the state is carried along unchanged; a gain below 1 forgets. Fed by identical
    kernels, units stay identical.

    Args:
        gain: the diagonal.

    Raises:
        UserError: for a kernel that is not square.
    """
    if len(shape) != 2 or shape[0] != shape[1]:
        raise UserError(f"identity needs a square kernel, this one has shape {tuple(shape)}")
    return (gain * jnp.eye(shape[0])).astype(dtype)


def lsuv(key: Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """Layer-sequential unit variance: orthogonal, then each layer's z rescaled to variance 1.

    The data do the rescaling, layer after layer, once before training (Mishkin and Matas 2016, alg.
    1). This is the first half, `lsuv_pass` is the second. It serves activations for which no
    variance was derived, and it is exact for the batch it has seen alone.
    """
    return orthogonal(key, shape, dtype)


def unit_variance(kernel: nnx.Param[Array], z: Array) -> Array:
    """Rescale a kernel so that its sums z, without bias, get variance 1 over this batch.

    They are linear in the kernel, so that once is enough. Sums that do not vary stay. Gives the
    sums of the rescaled kernel.
    """
    deviation = jnp.std(z)
    deviation = jnp.where(deviation > 0, deviation, 1)
    kernel[...] /= deviation
    return z / deviation


def lsuv_pass(model: nnx.Module, x: Array) -> None:
    """One evaluation in which every layer that was drawn by `lsuv` first rescales itself.

    The layers behind see what the rescaled ones give, so that in the end the sums of each have
    variance 1 over the batch x, a few hundred training inputs of all classes (Mishkin and Matas
    2016, alg. 1, whose loop linearity makes a single step). The model is changed in place; one
    without such layers stays as it is.
    """
    model.eval(calibrating=True)
    model(x)
    model.eval(calibrating=False)


def by_gate(*initializers: Callable[..., Array]) -> Callable[..., Array]:
    """One initializer for gates that lie side by side on the last axis, each with its own.

    A matrix of four gates drawn as one would have the wrong fan_out and be orthogonal as a whole;
    and a forget gate's bias starts at 1: `by_gate(zeros, partial(constant, value=1.0), ...)`.
    """

    def side_by_side(key: Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        gate = (*shape[:-1], shape[-1] // len(initializers))
        keys = jax.random.split(key, len(initializers))
        parts = [each(k, gate, dtype) for each, k in zip(initializers, keys, strict=True)]
        return jnp.concatenate(parts, axis=-1)

    return side_by_side


INITIALIZERS = {
    "zeros": zeros,
    "ones": ones,
    "constant": constant,
    "normal": normal,
    "uniform": uniform,
    "variance_scaling": variance_scaling,
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "torch_linear": torch_linear,
    "orthogonal": orthogonal,
    "delta_orthogonal": delta_orthogonal,
    "identity": identity,
    "lsuv": lsuv,
}
