"""Deep network, plain or residual by one switch, for images and for vectors."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import MinLen
from flax import nnx
from jax import lax

from nnref.bounds import Count, Counts
from nnref.parts.activations import build_activation, linear, pieces, relu
from nnref.parts.initializers import he_normal, zeros
from nnref.parts.models.convnet import each_or_one, image_shape
from nnref.parts.models.convolution import Conv
from nnref.parts.models.layers import UNREGULARIZED, Activation, Dense, Initializer, LayerSpec
from nnref.parts.regularizers import Regularization

Array = jax.Array


class Activated(nnx.Module):
    """What stands in front of a layer: h = a(normalize(z)), z for a maxout wider than h."""

    def __init__(self, width: int, spec: LayerSpec, *, images: bool):
        self.normalize = spec.normalization(width * pieces(spec.activation), images=images)
        self.activation = build_activation(spec.activation, width)

    def __call__(self, z: Array) -> Array:
        """What the layer sees."""
        return self.activation(self.normalize(z))


class ResidualBlock(nnx.Module):
    """Two layers, F(z) = a(a(z) W_1) W_2, and if it is residual their input beside them: z + F(z).

    Dropout, if it is on, is in front of W_2 (Zagoruyko and Komodakis 2016, section 2.4). z is
    (batch, fan_in), of images (batch, rows, columns, fan_in), over which W_1 has the stride.
    `layer` makes a layer of sums from a fan_in and a width.
    """

    def __init__(
        self,
        fan_in: int,
        width: int,
        *,
        spec: LayerSpec,
        images: bool,
        stride: int,
        residual: bool,
        layer: Callable[..., nnx.Module],
    ):
        self.activated_1 = Activated(fan_in, spec, images=images)
        self.activated_2 = Activated(width, spec, images=images)
        self.layer_1, self.layer_2 = layer(fan_in, width, stride=stride), layer(width, width)
        self.dropout = spec.dropout()
        self.stride, self.residual = stride, residual

    def __call__(self, z: Array) -> Array:
        """Sums, not yet activated, for the next block."""
        f = self.layer_1(self.activated_1(z))
        f = self.layer_2(self.dropout(self.activated_2(f)))
        return f + carried(z, f.shape[-1], self.stride) if self.residual else f


def carried(z: Array, width: int, stride: int) -> Array:
    """The shortcut of a residual block: z with the pixels of F(z), zeros for its new units.

    This shortcut has no parameters, so that plain and residual networks have the same ones (He et
    al. 2016a, section 3.3, option A).
    """
    if stride > 1:
        z = z[:, ::stride, ::stride]
    new_units = (0, width - z.shape[-1], 0)  # if there are fewer, the last ones are left out
    return lax.pad(z, jnp.zeros((), z.dtype), [(0, 0, 0)] * (z.ndim - 1) + [new_units])


class ResNet(nnx.Module):
    """Deep network, plain or residual: a first layer, blocks of two layers each, a last layer.

    Takes images `(batch, rows, columns)` or `(batch, rows, columns, channels)`, whose blocks are
    convolutions, or vectors `(batch, width)`, for which they are dense; gives `(batch, outputs)`.
    Behind the blocks of images stands the mean of each channel over all pixels.

    A block computes z + F(z), with residual off F(z) and nothing else is different, not even a
    parameter. Activations and normalizations stand in front of the layers, so that between first
    and last layer there is a path on which nothing but sums are made (He et al. 2016b, eq. 5 and
    fig. 4e). It has 2 + 2 sum(blocks) layers with weights.

    Without normalization, what the blocks add up to grows: with an initializer that keeps the size
    of signals it doubles its variance at every block.

    Args:
        widths: of each stage, channels or units; from one stage to the next images halve.
        blocks: of each stage: a list with a number for each, or one for all.
        residual: whether blocks add their input.
        kernel: side of the kernels, for images.
        activation: a.
        kernel_initializer: first value of every W.
        bias_initializer: first value of every b.

    Raises:
        UserError: for examples that are neither images nor vectors, and a list of another length
            than `widths`.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        rngs: nnx.Rngs,
        regularization: Regularization = UNREGULARIZED,
        *,
        widths: Annotated[tuple[Count, ...], MinLen(1)],
        blocks: Counts = (2,),
        residual: bool = True,
        kernel: Count = 3,
        activation: Activation = relu,
        kernel_initializer: Initializer = he_normal,
        bias_initializer: Initializer = zeros,
    ):
        spec = LayerSpec(rngs, kernel_initializer, bias_initializer, activation, regularization)
        self.images = len(inputs) != 1
        fan_in = image_shape(inputs)[-1] if self.images else inputs[0]

        def layer(
            fan_in: int, width: int, in_front: Activation = activation, stride: int = 1
        ) -> nnx.Module:
            sums, use_bias = width * pieces(activation), spec.hidden_bias
            build = partial(Conv, kernel=kernel, stride=stride) if self.images else Dense
            return build(fan_in, sums, spec, in_front=in_front, use_bias=use_bias)

        block = partial(
            ResidualBlock, spec=spec, images=self.images, residual=residual, layer=layer
        )
        self.first = layer(fan_in, widths[0], linear)
        fan_in, stack = widths[0], []
        for stage, width in enumerate(widths):
            for number in range(each_or_one("blocks", blocks, stage, widths)):
                stride = 2 if self.images and stage and not number else 1
                stack.append(block(fan_in, width, stride=stride))
                fan_in = width
        self.blocks = nnx.List(stack)
        self.activated = Activated(fan_in, spec, images=self.images)
        self.last = Dense(fan_in, outputs, spec, in_front=activation)

    def __call__(self, x: Array) -> Array:
        """Outputs, (batch, outputs): logits or predictions."""
        z = self.first(x[..., None] if self.images and x.ndim == 3 else x)
        for block in self.blocks:
            z = block(z)
        h = self.activated(z)
        return self.last(jnp.mean(h, axis=(1, 2)) if self.images else h)
