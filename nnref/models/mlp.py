"""Linear model and multilayer perceptron."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import jax
from flax import nnx

from nnref.activations import ACTIVATIONS, tanh
from nnref.bounds import Count, MemberOf
from nnref.initializers import INITIALIZERS, glorot_uniform, zeros

Array = jax.Array
Activation = Annotated[Callable[..., Array], MemberOf("activation", ACTIVATIONS)]
Initializer = Annotated[Callable[..., Array], MemberOf("initializer", INITIALIZERS)]


class MLP(nnx.Module):
    """Multilayer perceptron: h_l = a(h_{l-1} W_l + b_l), and a last layer without activation.

    Takes `(batch, *inputs)`, flattens each example, gives `(batch, outputs)`.

    Args:
        hidden: width of each hidden layer, first to last.
        activation: a, after every hidden layer.
        kernel_initializer: first value of every W.
        bias_initializer: first value of every b.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        rngs: nnx.Rngs,
        *,
        hidden: tuple[Count, ...],
        activation: Activation = tanh,
        kernel_initializer: Initializer = glorot_uniform,
        bias_initializer: Initializer = zeros,
    ):
        self.activation = activation
        widths = (math.prod(inputs), *hidden, outputs)
        self.layers = nnx.List(
            nnx.Linear(
                fan_in,
                fan_out,
                kernel_init=kernel_initializer,
                bias_init=bias_initializer,
                rngs=rngs,
            )
            for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
        )

    def __call__(self, x: Array) -> Array:
        h = x.reshape(len(x), -1)
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
        return self.layers[-1](h)


class Linear(MLP):
    """Linear model: f(x) = x W + b. The first rung: what it can do, needs no network.

    Takes `(batch, *inputs)`, flattens each example, gives `(batch, outputs)`.

    Args:
        kernel_initializer: first value of W.
        bias_initializer: first value of b.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        rngs: nnx.Rngs,
        *,
        kernel_initializer: Initializer = glorot_uniform,
        bias_initializer: Initializer = zeros,
    ):
        super().__init__(
            inputs,
            outputs,
            rngs,
            hidden=(),
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
        )
