"""Linear model and multilayer perceptron."""

import math
from collections.abc import Sequence

import jax
from flax import nnx

from nnref.bounds import Count
from nnref.parts.activations import build_activation, linear, pieces, tanh
from nnref.parts.initializers import glorot_uniform, zeros
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


class MLP(nnx.Module):
    """Multilayer perceptron: h_l = a(h_{l-1} W_l + b_l), and a last layer without activation.

    Takes `(batch, *inputs)`, flattens each example, gives `(batch, outputs)`. Regularization puts
    normalization before and dropout behind each activation, and neither behind the last layer.

    An output activation is for losses of values. Those of classes take logits, and apply their
    sigmoid or softmax themselves.

    Args:
        hidden: width of each hidden layer, first to last.
        activation: a, after every hidden layer.
        output_activation: after the last layer.
        kernel_initializer: first value of every W.
        bias_initializer: first value of every b.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        rngs: nnx.Rngs,
        regularization: Regularization = UNREGULARIZED,
        *,
        hidden: tuple[Count, ...],
        activation: Activation = tanh,
        output_activation: Activation = linear,
        kernel_initializer: Initializer = glorot_uniform,
        bias_initializer: Initializer = zeros,
    ):
        spec = LayerSpec(rngs, kernel_initializer, bias_initializer, activation, regularization)
        layers, fan_in, in_front = hidden_layers(math.prod(inputs), hidden, spec)
        sums = outputs * pieces(output_activation)
        layers.append(Dense(fan_in, sums, spec, in_front=in_front))
        self.layers = nnx.List(layers)
        self.output_activation = build_activation(output_activation, outputs)

    def __call__(self, x: Array) -> Array:
        """Outputs, (batch, outputs): logits or predictions."""
        h = x.reshape(x.shape[0], -1)
        for layer in self.layers:
            h = layer(h)
        return self.output_activation(h)


class Linear(nnx.Module):
    """Linear model: f(x) = x W + b. The first rung: what it can do, needs no network.

    Takes `(batch, *inputs)`, flattens each example, gives `(batch, outputs)`. Normalization and
    dropout are of hidden layers: here there are none.

    Args:
        kernel_initializer: first value of W.
        bias_initializer: first value of b.
        use_bias: without it, f(x) = x W.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        rngs: nnx.Rngs,
        regularization: Regularization = UNREGULARIZED,
        *,
        kernel_initializer: Initializer = glorot_uniform,
        bias_initializer: Initializer = zeros,
        use_bias: bool = True,
    ):
        spec = LayerSpec(rngs, kernel_initializer, bias_initializer)
        dense = Dense(math.prod(inputs), outputs, spec, use_bias=use_bias)
        self.layers = nnx.List([dense])  # named as in an MLP, of which this is the shortest

    def __call__(self, x: Array) -> Array:
        """Outputs, (batch, outputs): logits or predictions."""
        return self.layers[0](x.reshape(x.shape[0], -1))
