"""What networks for images are made of: convolution and max-pooling, each in two forms.

The plain form is what accelerators have kernels for. XLA's CPU backend is fast only where it meets
`NHWC_HWIO->NHWC`, and the gradients that differentiation makes of a convolution are not of that
kind: inside a loop they are some fifteen times slower. The other form serves it. Both compute the
same; `convolution` and `max_pool` choose by backend.
"""

from functools import partial
from itertools import product
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from nnref.parts.activations import build_activation, linear, pieces
from nnref.parts.models.layers import Activation, Affine, LayerSpec

Array = jax.Array
Pads = tuple[tuple[int, int], tuple[int, int]]  # before and behind, of rows and of columns

LAYOUT = ("NHWC", "HWIO", "NHWC")


# --- convolution --------------------------------------------------------------------------------


def convolution(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """z[r, c] = sum_ij x[s r + i, s c + j] W[i, j], by the form that suits the backend.

    x is (batch, rows, columns, channels) and has zeros around it, where r and c begin; W is (kernel
    rows, kernel columns, channels, new channels), s the stride. As everywhere in this field it is a
    correlation: the kernel is not turned round.
    """
    form = canonical_convolution if jax.default_backend() == "cpu" else plain_convolution
    return form(x, kernel, stride, pads)


def plain_convolution(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """`convolution` as one operation of XLA, whose gradients XLA may lay out as it likes."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=LAYOUT)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def canonical_convolution(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """`convolution` whose two gradients are written as convolutions of the same layout.

    Of the first derivative only: what is differentiated twice, is so forward over reverse.
    """
    return correlate(x, kernel, pads, stride=stride)


def canonical_forward(
    x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return correlate(x, kernel, pads, stride=stride), (x, kernel)


def canonical_backward(
    stride: int, pads: Pads, saved: tuple[Array, Array], dz: Array
) -> tuple[Array, Array]:
    """The gradients by x and by the kernel, from dz, the gradient by z.

    A pixel of x enters z through the kernel turned round, its channels exchanged; a weight meets
    in x, slid over it, the places of z. Where the stride left places out, zeros stand between them.
    The pads are those that give the gradients the sizes of x and kernel.
    """
    x, kernel = saved
    sides = list(zip(x.shape[1:3], kernel.shape[:2], dz.shape[1:3], pads, strict=True))
    spread = [stride * (places - 1) + 1 for _, _, places, _ in sides]
    x_pads = [
        (k - 1 - before, size + before - d)
        for (size, k, _, (before, _)), d in zip(sides, spread, strict=True)
    ]
    kernel_pads = [
        (before, k - 1 - size - before + d)
        for (size, k, _, (before, _)), d in zip(sides, spread, strict=True)
    ]
    turned = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    dx = correlate(dz, turned, x_pads, x_spread=stride)
    # The channels of x play the batch, and the batch is what is summed over.
    dkernel = correlate(
        x.transpose(3, 1, 2, 0), dz.transpose(1, 2, 0, 3), kernel_pads, kernel_spread=stride
    )
    return dx, dkernel.transpose(1, 2, 0, 3)


canonical_convolution.defvjp(canonical_forward, canonical_backward)


def correlate(
    x: Array,
    kernel: Array,
    pads: Pads | list[tuple[int, int]],
    *,
    stride: int = 1,
    x_spread: int = 1,
    kernel_spread: int = 1,
) -> Array:
    """A convolution in the layout that XLA's CPU backend is fast in, under vmap one by one.

    Runs that differ in their seed have kernels of their own. As one operation they would make a
    convolution in groups, which has no fast path.
    """

    @jax.custom_batching.sequential_vmap
    def one(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            pads,
            lhs_dilation=(x_spread, x_spread),
            rhs_dilation=(kernel_spread, kernel_spread),
            dimension_numbers=LAYOUT,
        )

    return one(x, kernel)


# --- pooling ------------------------------------------------------------------------------------


def max_pool(x: Array, window: int) -> Array:
    """The maximum of each window of window x window pixels, side by side, for each channel.

    (batch, rows, columns, channels) -> (batch, rows // window, columns // window, channels). Where
    several pixels are the largest, the first one, row by row, takes the gradient.
    """
    return (sliced_max_pool if jax.default_backend() == "cpu" else plain_max_pool)(x, window)


def plain_max_pool(x: Array, window: int) -> Array:
    """`max_pool` as one operation of XLA, whose gradient on a CPU is a slow scatter."""
    sides = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, sides, "VALID")


def sliced_max_pool(x: Array, window: int) -> Array:
    """`max_pool` as the maximum of slices, one for each place in a window."""
    rows, columns = (size // window * window for size in x.shape[1:3])
    x = x[:, :rows, :columns]
    first, *others = (x[:, i::window, j::window] for i, j in product(range(window), repeat=2))
    largest = first
    for other in others:
        # Not jnp.maximum, which shares the gradient out among equals. NaN is passed on.
        largest = jnp.where((other > largest) | (other != other), other, largest)
    return largest


# --- layers -------------------------------------------------------------------------------------


class Conv(Affine):
    """Convolution: z = h * W + b, (batch, rows, columns, fan_in) -> (..., width) channels.

    `kernel` is the side of the kernel, `stride` the pixels from one of its places to the next.
    Padding "same" surrounds the image with zeros, so that without stride it keeps its size; with
    "valid" the kernel stays inside.
    """

    def __init__(
        self,
        fan_in: int,
        width: int,
        spec: LayerSpec,
        *,
        kernel: int,
        stride: int = 1,
        padding: Literal["same", "valid"] = "same",
        in_front: Activation = linear,
        use_bias: bool = True,
    ):
        shape = (kernel, kernel, fan_in, width)
        super().__init__(shape, spec, in_front=in_front, use_bias=use_bias)
        self.stride, self.padding = stride, padding

    def product(self, h: Array, kernel: Array) -> Array:
        """H * W."""
        strides = (self.stride, self.stride)
        down, right = lax.padtype_to_pads(
            h.shape[1:3], kernel.shape[:2], strides, self.padding.upper()
        )
        return convolution(h, kernel, self.stride, (down, right))


class ConvHidden(nnx.Module):
    """Hidden layer of images: h' = dropout(pool(a(normalize(h * W + b)))).

    What is off is not in the program, and a pool of 1 is off. A maxout has several sums for each
    channel of h'. Statistics of normalization are over all pixels alike.
    """

    def __init__(
        self,
        fan_in: int,
        width: int,
        spec: LayerSpec,
        *,
        kernel: int,
        stride: int,
        pool: int,
        padding: Literal["same", "valid"],
        in_front: Activation,
    ):
        sums = width * pieces(spec.activation)
        self.conv = Conv(
            fan_in,
            sums,
            spec,
            kernel=kernel,
            stride=stride,
            padding=padding,
            in_front=in_front,
            use_bias=spec.hidden_bias,
        )
        self.normalize = spec.normalization(sums, images=True)
        self.activation = build_activation(spec.activation, width)
        self.pool = linear if pool == 1 else partial(max_pool, window=pool)
        self.dropout = spec.dropout()

    def __call__(self, h: Array) -> Array:
        """What the next layer sees, (batch, rows, columns, width)."""
        return self.dropout(self.pool(self.activation(self.normalize(self.conv(h)))))
