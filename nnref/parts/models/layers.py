"""What models are made of: a dense layer, normalization, dropout, and the pass of LSUV."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from nnref.bounds import MemberOf
from nnref.parts.activations import ACTIVATIONS, build_activation, function_of, gain, linear, pieces
from nnref.parts.initializers import INITIALIZERS, lsuv
from nnref.parts.regularizers import Regularization

Array = jax.Array
Activation = Annotated[Callable[..., Any], MemberOf("activation", ACTIVATIONS)]
Initializer = Annotated[Callable[..., Array], MemberOf("initializer", INITIALIZERS)]

UNREGULARIZED = Regularization()


def for_layer(
    initializer: Callable[..., Array], fan_in: int, in_front: Callable[..., Any] = linear
) -> Callable[..., Array]:
    """An initializer with what its layer knows and the shape of an array does not tell.

    Args:
        initializer: of a kernel or a bias.
        fan_in: inputs of a unit, for a bias that asks for them.
        in_front: the activation that the layer's inputs come from, for a gain of None.
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
    first values of every kernel W and every bias b. `activation` and `regularization`, of which
    `dropout` and `normalization` count here, are those of the hidden layers.
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

    Args:
        shape: of W, (..., fan_in, width); all but the last axis is summed over.
        spec: of which the stream "params" and the initializers count here.
        in_front: the activation that h comes from; linear for data.
        use_bias: without it, the product alone.
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
        """What comes of h and W."""
        raise NotImplementedError

    def __call__(self, h: Array) -> Array:
        """Sums z, in the pass of LSUV with a rescaled W."""
        z = self.product(h, self.kernel[...])
        if getattr(self, "calibrating", False):
            z = unit_variance(self.kernel, z)
        return z if self.bias is None else z + self.bias[...]


class Dense(Affine):
    """Dense layer: z = h W + b, (..., fan_in) -> (..., width).

    Args:
        fan_in: width of h.
        width: of z.
        spec: of which the stream "params" and the initializers count here.
        in_front: the activation that h comes from; linear for data.
        use_bias: without it, z = h W.
    """

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


def unit_variance(kernel: nnx.Param[Array], z: Array) -> Array:
    """Rescale a kernel so that its sums z, without bias, get variance 1 over this batch.

    They are linear in the kernel, so that once is enough. Sums that do not vary stay.

    Returns:
        The sums that the rescaled kernel gives.
    """
    deviation = jnp.std(z)
    deviation = jnp.where(deviation > 0, deviation, 1)
    kernel[...] /= deviation
    return z / deviation


def lsuv_pass(model: nnx.Module, x: Array) -> None:
    """One evaluation in which every layer that was drawn by `lsuv` first rescales itself.

    The layers behind see what the rescaled ones give, so that in the end the sums of each have
    variance 1 over the batch (Mishkin and Matas 2016, alg. 1, whose loop linearity makes a single
    step). A model without such layers stays as it is.

    Args:
        model: changed in place.
        x: a batch of training inputs; a few hundred, of all classes.
    """
    model.eval(calibrating=True)
    model(x)
    model.eval(calibrating=False)


def normalization(
    kind: Literal["batch", "layer"] | None, width: int, rngs: nnx.Rngs, *, images: bool = False
) -> Callable[[Array], Array]:
    """Sums of mean 0 and variance 1, times a learned scale, plus a learned bias.

    That is (z - mean) / sqrt(var + 1e-5). "batch" takes mean and variance of each unit over the
    batch (Ioffe and Szegedy 2015, alg. 1), in evaluation their running averages, which keep 0.9 of
    the old value at each step as in PyTorch (Keras: 0.99). "layer" takes them over the units of
    each example (Ba et al. 2016, eq. 3), in training and evaluation alike. The variance is the
    biased one, from differences to the mean: flax's default, E z^2 - (E z)^2, cancels for a large
    mean.

    Of images, (batch, rows, columns, channels), a unit is a channel: "batch" takes its statistics
    over batch and pixels, "layer" over channels and pixels; scale and bias are one a channel.
    """
    if kind == "batch":
        return nnx.BatchNorm(width, momentum=0.9, use_fast_variance=False, rngs=rngs)
    if kind == "layer":
        axes = (-3, -2, -1) if images else -1
        return nnx.LayerNorm(
            width, epsilon=1e-5, use_fast_variance=False, reduction_axes=axes, rngs=rngs
        )
    return linear


def dropout(h: Array, rate: float | Array, key: Array) -> Array:
    """Each element becomes 0 with probability `rate`, else is divided by 1 - rate.

    That keeps the mean, so that evaluation needs no factor (Srivastava et al. 2014, section 10).
    """
    kept = jax.random.bernoulli(key, 1 - rate, h.shape)
    return jnp.where(kept, h / (1 - rate), 0).astype(h.dtype)


class Dropout(nnx.Module):
    """Dropout in training, nothing in evaluation.

    `nnx.Dropout` asks in Python whether its rate is 0, which a traced one cannot answer.

    Args:
        rate: share of the elements that are dropped; may be traced.
        rngs: with a stream "dropout", which the trainer reseeds at every step.
    """

    def __init__(self, rate: float | Array, rngs: nnx.Rngs):
        # Inside a function the rate is no leaf of the module: it is a number of the experiment.
        self.drop = partial(dropout, rate=rate)
        self.stream = rngs.dropout
        self.deterministic = False

    def __call__(self, h: Array) -> Array:
        """Of h's shape, in training with some elements 0."""
        return h if self.deterministic else self.drop(h, key=self.stream())


class Hidden(nnx.Module):
    """Hidden layer: h' = dropout(a(normalize(h W + b))), (..., fan_in) -> (..., width).

    What is off is not in the program. Without bias where batch normalization would subtract it.

    Args:
        fan_in: width of h.
        width: of h'; a maxout has several sums for each.
        spec: with the activation a.
        in_front: the activation that h comes from; linear for data.
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
    """Hidden layers one behind the other, and what the layer behind them needs to know.

    Returns:
        The layers, the width of the last h', and the activation that it comes from.
    """
    layers: list[nnx.Module] = []
    for width in widths:
        layers.append(Hidden(fan_in, width, spec, in_front=in_front))
        fan_in, in_front = width, spec.activation
    return layers, fan_in, in_front
