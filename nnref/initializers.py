"""Initializers: the first value of a weight array.

Positional are `key` (a JAX random key), `shape` and `dtype`. A kernel has shape
`(*window, fan_in_channels, fan_out_channels)`; its fan_in is the product of all but the last axis,
its fan_out the product of all but the second to last.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nnref.bounds import NonNegative

Array = jax.Array


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """The number of inputs of a unit and of units an input reaches: `(fan_in, fan_out)`."""
    if len(shape) < 2:
        raise ValueError(f"a kernel has at least two axes, this one has shape {tuple(shape)}")
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def zeros(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Every weight 0. Right for biases; in a kernel, units of a layer start and stay identical."""
    return jnp.zeros(shape, dtype)


def normal(
    key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, *, scale: NonNegative = 0.01
) -> Array:
    """Gaussian of a given width, whatever the shape: w ~ N(0, scale^2).

    Args:
        scale: standard deviation.
    """
    return scale * jax.random.normal(key, shape, dtype)


def uniform(
    key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, *, scale: NonNegative = 1.0
) -> Array:
    """Uniform of a given width, whatever the shape: w ~ U[-scale, scale].

    Args:
        scale: half the width of the interval.
    """
    return scale * jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def glorot_uniform(
    key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, *, gain: NonNegative = 1.0
) -> Array:
    """Uniform with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 16).

    Keeps the variance of signal and gradient, as a compromise, through layers that are linear
    near 0.

    Args:
        gain: factor on the standard deviation, 1 for linear and tanh layers.
    """
    fan_in, fan_out = fans(shape)
    limit = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return limit * jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def he_normal(
    key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, *, gain: NonNegative = 1.0
) -> Array:
    """Gaussian with variance gain^2 * 2 / fan_in (He et al. 2015, eq. 10).

    Keeps the mean square of the signal through layers with ReLU, which halves it.

    Args:
        gain: factor on the standard deviation, 1 for ReLU.
    """
    fan_in, _ = fans(shape)
    return gain * math.sqrt(2.0 / fan_in) * jax.random.normal(key, shape, dtype)


INITIALIZERS = {
    "zeros": zeros,
    "normal": normal,
    "uniform": uniform,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
}
