"""Convolutional network for images."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from annotated_types import MinLen
from flax import nnx

from nnref.bounds import Count, Counts
from nnref.errors import UserError
from nnref.parts.activations import linear, relu
from nnref.parts.initializers import he_normal, zeros
from nnref.parts.models.convolution import ConvHidden
from nnref.parts.models.layers import (
    UNREGULARIZED,
    Activation,
    Dense,
    Initializer,
    LayerSpec,
    hidden_layers,
)
from nnref.parts.regularizers import Regularization

Array = jax.Array


class ConvNet(nnx.Module):
    """Convolutional network: blocks of h' = pool(a(h * W + b)), a head, a last layer.

    Takes images `(batch, rows, columns)` or `(batch, rows, columns, channels)`, gives
    `(batch, outputs)`. It knows two things that an MLP has to learn: what is near, and that the
    same may be anywhere (LeCun et al. 1998, "Gradient-based learning", section II A).

    Of what differs from block to block, give a list with a number for each, or one for all.
    Regularization puts normalization before each activation and dropout behind each block and
    hidden layer, and neither behind the last layer.

    Args:
        channels: of each block, first to last.
        kernel: side of the square kernel of a block, in pixels.
        stride: pixels from one place of a kernel to the next.
        pool: side of the windows of which a block keeps the maximum; 1 for none.
        padding: "same" puts zeros around an image, "valid" keeps the kernel inside.
        head: what follows the blocks: all pixels side by side, or the mean of each channel.
        hidden: widths of dense layers behind the head.
        activation: a, after every convolution and hidden layer.
        kernel_initializer: first value of every W.
        bias_initializer: first value of every b.

    Raises:
        UserError: for examples that are no images, lists of another length than `channels`, and
            kernels or pools that leave nothing of an image.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        rngs: nnx.Rngs,
        regularization: Regularization = UNREGULARIZED,
        *,
        channels: Annotated[tuple[Count, ...], MinLen(1)],
        kernel: Counts = (3,),
        stride: Counts = (1,),
        pool: Counts = (1,),
        padding: Literal["same", "valid"] = "same",
        head: Literal["flatten", "global"] = "flatten",
        hidden: tuple[Count, ...] = (),
        activation: Activation = relu,
        kernel_initializer: Initializer = he_normal,
        bias_initializer: Initializer = zeros,
    ):
        spec = LayerSpec(rngs, kernel_initializer, bias_initializer, activation, regularization)
        *sides, fan_in = image_shape(inputs)
        in_front, blocks = linear, []
        for number, width in enumerate(channels):
            sizes = {
                name: each_or_one(name, counts, number, channels)
                for name, counts in (("kernel", kernel), ("stride", stride), ("pool", pool))
            }
            sides = sides_behind(number, sides, **sizes, padding=padding)
            block = ConvHidden(fan_in, width, spec, **sizes, padding=padding, in_front=in_front)
            blocks.append(block)
            fan_in, in_front = width, activation
        self.blocks = nnx.List(blocks)
        self.averages = head == "global"
        if not self.averages:
            fan_in *= sides[0] * sides[1]
        layers, fan_in, in_front = hidden_layers(fan_in, hidden, spec, in_front)
        layers.append(Dense(fan_in, outputs, spec, in_front=in_front))
        self.layers = nnx.List(layers)

    def __call__(self, x: Array) -> Array:
        """Outputs, (batch, outputs): logits or predictions."""
        h = x if x.ndim == 4 else x[..., None]
        for block in self.blocks:
            h = block(h)
        h = jnp.mean(h, axis=(1, 2)) if self.averages else h.reshape(h.shape[0], -1)
        for layer in self.layers:
            h = layer(h)
        return h


def image_shape(inputs: Sequence[int]) -> tuple[int, int, int]:
    """Rows, columns and channels of examples of this shape; without an axis of channels, one."""
    if len(inputs) not in (2, 3):
        raise UserError(
            f"model: examples of shape {tuple(inputs)} are no images (rows, columns) or (rows, "
            "columns, channels); give the data as images, or use mlp"
        )
    rows, columns, channels = (*inputs, 1)[:3]
    return rows, columns, channels


def each_or_one(name: str, counts: tuple[int, ...], number: int, of: Sequence[Any]) -> int:
    """What a list with a number for each of several things, or one for all, has for this one."""
    if len(counts) not in (1, len(of)):
        raise UserError(
            f"model.{name}: {len(counts)} numbers given where there are {len(of)}; give a number "
            "for each, or a single one for all"
        )
    return counts[number if len(counts) > 1 else 0]


def sides_behind(
    number: int, sides: Sequence[int], kernel: int, stride: int, pool: int, padding: str
) -> list[int]:
    """Rows and columns behind a block; a UserError where nothing is left of them."""
    before = " x ".join(map(str, sides))
    reach = [side if padding == "same" else side - kernel + 1 for side in sides]
    if min(reach) < 1:
        raise UserError(
            f"model.kernel: in block {number + 1} a kernel of {kernel} x {kernel} has no place in "
            f'an image of {before}; take a smaller one, or padding "same"'
        )
    sums = [-(-size // stride) for size in reach]
    left = [size // pool for size in sums]
    if min(left) < 1:
        raise UserError(
            f"model.pool: in block {number + 1} windows of {pool} x {pool} leave nothing of an "
            f"image of {' x '.join(map(str, sums))}; give smaller ones, or fewer blocks"
        )
    return left
