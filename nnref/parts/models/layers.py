"""What models are made of: dense layers, and what all layers of a network have in common."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from nnref.bounds import MemberOf
from nnref.parts.activations import ACTIVATIONS, build_activation, function_of, gain, linear, pieces
from nnref.parts.initializers import INITIALIZERS, lsuv, unit_variance
from nnref.parts.regularizers import Dropout, Regularization, normalization

Array = jax.Array
Activation = Annotated[Callable[..., Any], MemberOf("activation", ACTIVATIONS)]
Initializer = Annotated[Callable[..., Array], MemberOf("initializer", INITIALIZERS)]

UNREGULARIZED = Regularization()


def for_layer(
    initializer: Callable[..., Array], fan_in: int, in_front: Callable[..., Any] = linear
) -> Callable[..., Array]:
    """An initializer with what its layer knows and the shape of an array does not tell.

    That is `fan_in`, for a bias, and for a gain of None the activation `in_front` of the layer.
    """
    asked = inspect.signature(initializer).parameters
    if "fan_in" in asked:
        return partial(initializer, fan_in=fan_in)
    if "gain" in asked and asked["gain"].default is None:
        return partial(initializer, gain=gain(in_front))
    return initializer


class LayerSpec(NamedTuple):
    """What all layers of a network have in common; beside it each layer has its own sizes.

    `rngs` has a stream "params" and, for dropout, a stream "dropout". The initializers give the
    first values of every kernel W and every bias b. Activation, dropout and normalization are those
    of the hidden layers.
    """

    rngs: nnx.Rngs
    kernel_initializer: Initializer
    bias_initializer: Initializer
    activation: Activation = linear
    regularization: Regularization = UNREGULARIZED

    @property
    def hidden_bias(self) -> bool:
        """Whether hidden layers have a bias: batch normalization would subtract it."""
        return self.regularization.normalization != "batch"

    def dropout(self) -> Callable[[Array], Array]:
        """The dropout behind a hidden layer, which does nothing where it is off."""
        rate = self.regularization.dropout
        return linear if rate is None else Dropout(rate, self.rngs)

    def normalization(self, width: int, *, images: bool = False) -> Callable[[Array], Array]:
        """The normalization of sums of this width, which does nothing where it is off."""
        kind = self.regularization.normalization
        return normalization(kind, width, self.rngs, images=images)


class Affine(nnx.Module):
    """A product of h with a kernel W, plus a bias b: what dense layers and convolutions share.

    W has the `shape` (..., fan_in, width); all but its last axis is summed over. `in_front` is the
    activation that h comes from, linear for data.
    """

    def __init__(
        self, shape: tuple[int, ...], spec: LayerSpec, *, in_front: Activation, use_bias: bool
    ):
        def first(initializer: Initializer, shape_: tuple[int, ...]) -> nnx.Param[Array]:
            draw = for_layer(initializer, math.prod(shape[:-1]), in_front)
            return nnx.Param(draw(spec.rngs.params(), shape_, jnp.float32))

        self.kernel = first(spec.kernel_initializer, shape)
        self.bias = first(spec.bias_initializer, shape[-1:]) if use_bias else None
        if function_of(spec.kernel_initializer) is lsuv:
            self.calibrating = False  # there only for those that `lsuv_pass` must reach

    def product(self, h: Array, kernel: Array) -> Array:
        """The product of h and W."""
        raise NotImplementedError

    def __call__(self, h: Array) -> Array:
        """The sums z; in the pass of LSUV W is rescaled first."""
        z = self.product(h, self.kernel[...])
        if getattr(self, "calibrating", False):
            z = unit_variance(self.kernel, z)
        return z if self.bias is None else z + self.bias[...]


class Dense(Affine):
    """Dense layer: z = h W + b, (..., fan_in) -> (..., width)."""

    def __init__(
        self,
        fan_in: int,
        width: int,
        spec: LayerSpec,
        *,
        in_front: Activation = linear,
        use_bias: bool = True,
    ):
        super().__init__((fan_in, width), spec, in_front=in_front, use_bias=use_bias)

    def product(self, h: Array, kernel: Array) -> Array:
        """H W."""
        return product(h, kernel)


@partial(jax.jit, inline=True)
def product(h: Array, kernel: Array) -> Array:
    """H W, (..., fan_in) @ (fan_in, width), of rows written as (h^T)^T (W^T)^T.

    It is the same sum in the same order: XLA takes the transpositions back. But they are there when
    this is differentiated, so that both gradients come out as products of rows and columns, g W^T
    and h^T g. What differentiation makes of `h @ W` sums over other axes instead, and from jaxlib
    0.12 on such products keep the loop over a tiny network in pieces (`training/compilation.py`).
    Sequences keep `h @ W`: with a third axis the transpositions stay in the program, and a language
    model takes an eighth longer.
    """
    if h.ndim > 2:
        return h @ kernel
    return jnp.tensordot(jnp.moveaxis(h, -1, 0), kernel.T, axes=(0, 1))


class Hidden(nnx.Module):
    """Hidden layer: h' = dropout(a(normalize(h W + b))), (..., fan_in) -> (..., width).

    What is off is not in the program. A maxout has several sums for each unit of h'.
    """

    def __init__(self, fan_in: int, width: int, spec: LayerSpec, *, in_front: Activation):
        sums = width * pieces(spec.activation)
        self.dense = Dense(fan_in, sums, spec, in_front=in_front, use_bias=spec.hidden_bias)
        self.normalize = spec.normalization(sums)
        self.activation = build_activation(spec.activation, width)
        self.dropout = spec.dropout()

    def __call__(self, h: Array) -> Array:
        """What the next layer sees, (..., width)."""
        return self.dropout(self.activation(self.normalize(self.dense(h))))


def hidden_layers(
    fan_in: int, widths: Sequence[int], spec: LayerSpec, in_front: Activation = linear
) -> tuple[list[nnx.Module], int, Activation]:
    """Hidden layers one behind the other, the width of the last h', and its activation."""
    layers: list[nnx.Module] = []
    for width in widths:
        layers.append(Hidden(fan_in, width, spec, in_front=in_front))
        fan_in, in_front = width, spec.activation
    return layers, fan_in, in_front
