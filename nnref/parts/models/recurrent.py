"""Recurrent network: sequence to label, sequence to sequence, and language model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from nnref.bounds import Count
from nnref.errors import UserError
from nnref.parts.activations import function_of
from nnref.parts.initializers import by_gate, constant, glorot_uniform, lsuv, orthogonal, zeros
from nnref.parts.models.cells import CELLS, State, fast_scan, opened, plain_scan
from nnref.parts.models.layers import UNREGULARIZED, Dense, Initializer, LayerSpec, for_layer
from nnref.parts.regularizers import Regularization

Array = jax.Array
CellName = Literal["rnn", "gru", "lstm"]


class Carried(nnx.Variable):
    """Part of the state with which one window ends and the next begins."""


class Direction(nnx.Module):
    """One cell along a sequence: (steps, batch, fan_in) -> (steps, batch, units), time first.

    With `streams`, so many sequences keep their state from call to call. W, U and b are drawn gate
    by gate; the last quarter of a GRU's b is its c, and that of an LSTM's forget gate starts at
    `forget_bias`.
    """

    def __init__(
        self,
        fan_in: int,
        units: int,
        spec: LayerSpec,
        *,
        cell: CellName,
        reverse: bool,
        streams: int | None,
        recurrent_initializer: Initializer,
        forget_bias: float,
    ):
        self.cell, self.units, self.reverse = CELLS[cell], units, reverse

        def first(shape: tuple[int, ...], *gates: Callable[..., Array]) -> nnx.Param[Array]:
            shape = (*shape, len(gates) * units)
            return nnx.Param(by_gate(*gates)(spec.rngs.params(), shape, jnp.float32))

        gates = self.cell.gates
        self.kernel = first((fan_in,), *[for_layer(spec.kernel_initializer, fan_in)] * gates)
        self.recurrent_kernel = first((units,), *[for_layer(recurrent_initializer, units)] * gates)
        biases: list[Any] = [for_layer(spec.bias_initializer, fan_in)] * self.cell.sums
        if cell == "lstm":
            biases[1] = partial(constant, value=forget_bias)
        self.bias = first((), *biases)
        kept = self.start(streams, jnp.float32) if streams is not None else ()
        self.carried = nnx.List([Carried(part) for part in kept])

    def start(self, batch: int, dtype: DTypeLike) -> State:
        """The state before a sequence: zeros."""
        return tuple(jnp.zeros((batch, self.units), dtype) for _ in range(self.cell.states))

    def restart(self) -> None:
        """Begin the next window as if it were the first."""
        for part in self.carried:
            part[...] = jnp.zeros_like(part[...])

    def __call__(self, from_input: Array, real: Array | None) -> tuple[Array, Array]:
        """The last h and that of every step, from x W + b, (steps, batch, sums * units).

        `real` is False at padded steps, (steps, batch); None without padding.
        """
        scan: Any = fast_scan if jax.default_backend() == "cpu" else plain_scan
        state = self.start(from_input.shape[1], from_input.dtype)
        if self.carried:
            state = tuple(part[...].astype(from_input.dtype) for part in self.carried)
        if self.reverse:
            from_input, real = from_input[::-1], None if real is None else real[::-1]
        kernel = opened(self.recurrent_kernel[...], self.cell.state_gap, self.units)
        state, h = scan(self.cell.step, from_input, real, kernel, state)
        for part, value in zip(self.carried, state, strict=False):
            part[...] = jax.lax.stop_gradient(value).astype(part[...].dtype)
        return state[0], h[::-1] if self.reverse else h

    def project(self, x: Array) -> Array:
        """From the input: x W + b."""
        z = opened(x @ self.kernel[...], self.cell.input_gap, self.units)
        return z + self.bias[...]

    def look_up(self, tokens: Array, vectors: Array) -> Array:
        """From tokens, (steps, batch): x W + b with the vectors x that stand for them."""
        if tokens.size > len(vectors):  # then it is less work to project all tokens there are
            return self.project(vectors)[tokens]
        return self.project(vectors[tokens])


class RecurrentLayer(nnx.Module):
    """One cell along a sequence, or one from each of its ends, their h side by side; dropout."""

    def __init__(self, directions: list[Direction], spec: LayerSpec):
        self.directions = nnx.List(directions)
        self.dropout = spec.dropout()

    def __call__(
        self, x: Array, real: Array | None, vectors: Array | None = None
    ) -> tuple[Array, Array]:
        """The last h, (batch, width), and that of every step, (steps, batch, width).

        x are inputs, or tokens for which `vectors`, (vocabulary, fan_in), stand.
        """
        ends = []
        for each in self.directions:
            from_input = each.project(x) if vectors is None else each.look_up(x, vectors)
            ends.append(each(from_input, real))
        last, h = (self.dropout(jnp.concatenate(part, axis=-1)) for part in zip(*ends, strict=True))
        return last, h


class Recurrent(nnx.Module):
    """Recurrent network: layers of a cell along a sequence, and a dense layer behind the last one.

    Takes `(batch, steps, channels)`, or with an embedding tokens, integers `(batch, steps)`. Gives
    `(batch, outputs)` from the last step, or `(batch, steps, outputs)`, an answer for each.
    Dropout comes behind every layer, and not on the way from step to step (Zaremba et al. 2014).

    Padded sequences have one more channel, which is 1 at real steps and 0 at padded ones. At these
    the state stays, so that nothing there changes anything.

    With streams, row k of a batch goes on where row k of the batch before ended, and no gradient
    passes from one to the other: truncated backpropagation through time.

    Args:
        cell: of the layers; `nnref.parts.models.cells` has its equations.
        units: width of h, in every layer and direction.
        layers: one above the other.
        bidirectional: a second cell in each layer, which reads the sequence from its end.
        answer: "last" for one answer a sequence, "each" for one a step.
        embedding: width of the vector that stands for a token; null for inputs that are numbers.
        vocabulary: number of different tokens; null for as many as outputs.
        tied: the kernel of the output is that of the embedding, transposed (Press and Wolf 2017).
        padded: the last channel of the inputs tells real steps from padded ones.
        streams: rows of every batch, where batches go on from one another; null where they do not.
        kernel_initializer: first value of W, gate by gate, and of the kernels of embedding, whose
            inputs are one-hot, and output.
        recurrent_initializer: first value of U, gate by gate.
        bias_initializer: first value of all biases but that of the forget gate.
        forget_bias: first value of that of an LSTM; null for 1, with which it starts to remember
            (Gers et al. 2000; Jozefowicz et al. 2015).
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        rngs: nnx.Rngs,
        regularization: Regularization = UNREGULARIZED,
        *,
        cell: CellName,
        units: Count,
        layers: Count = 1,
        bidirectional: bool = False,
        answer: Literal["last", "each"] = "last",
        embedding: Count | None = None,
        vocabulary: Count | None = None,
        tied: bool = False,
        padded: bool = False,
        streams: Count | None = None,
        kernel_initializer: Initializer = glorot_uniform,
        recurrent_initializer: Initializer = orthogonal,
        bias_initializer: Initializer = zeros,
        forget_bias: float | None = None,
    ):
        width = (1 + bidirectional) * units
        initializers = (kernel_initializer, recurrent_initializer)
        refuse_ways(bidirectional, streams, padded, answer)
        refuse_tokens(embedding, vocabulary, outputs, width if tied else None)
        refuse_parts(cell, forget_bias, initializers, regularization, padded)
        self.answer, self.padded, self.streams = answer, padded, streams
        spec = LayerSpec(rngs, kernel_initializer, bias_initializer, regularization=regularization)
        direction = partial(
            Direction,
            units=units,
            spec=spec,
            cell=cell,
            streams=streams,
            recurrent_initializer=recurrent_initializer,
            forget_bias=1.0 if forget_bias is None else forget_bias,
        )
        fan_in, stack = channels(inputs, embedding, padded), []
        for _ in range(layers):
            ways = [direction(fan_in, reverse=way) for way in (False, True)[: 1 + bidirectional]]
            stack.append(RecurrentLayer(ways, spec))
            fan_in = width
        self.layers = nnx.List(stack)
        if embedding is None:
            self.embedding = None
        else:
            shape = (vocabulary or outputs, embedding)
            draw = for_layer(kernel_initializer, shape[0])
            self.embedding = nnx.Param(draw(rngs.params(), shape, jnp.float32))
        if tied:
            self.head, draw = None, for_layer(bias_initializer, width)
            self.bias = nnx.Param(draw(rngs.params(), (outputs,), jnp.float32))
        else:
            self.head = Dense(width, outputs, spec)

    def restart(self) -> None:
        """Begin the next batch as if it were the first: with a state of zeros."""
        for layer in self.layers:
            for direction in layer.directions:
                direction.restart()

    def __call__(self, x: Array) -> Array:
        """Outputs, (batch, outputs) or (batch, steps, outputs): logits or predictions."""
        if self.streams not in (None, x.shape[0]):
            raise UserError(
                f"model.streams: {self.streams} rows go on from batch to batch, and this batch "
                f"has {x.shape[0]}; give batch_size that number, and every split a multiple of it"
            )
        h, real = jnp.swapaxes(x, 0, 1), None
        if self.padded:
            real = h[..., -1] > 0
            h = jnp.where(real[..., None], h[..., :-1], 0)
        vectors = None if self.embedding is None else self.embedding[...]
        if vectors is not None and self.padded:
            h = h[..., 0]
        last = h
        for depth, layer in enumerate(self.layers):
            last, h = layer(h, real, None if depth else vectors)
        h = last if self.answer == "last" else jnp.swapaxes(h, 0, 1)
        if self.head is not None:
            return self.head(h)
        assert vectors is not None, "an output without a head is tied to the embedding"
        return h @ vectors.T + self.bias[...]


def refuse(contradictions: dict[str, bool]) -> None:
    """Raise the first message whose condition holds."""
    for message, contradicts in contradictions.items():
        if contradicts:
            raise UserError(message)


def refuse_ways(bidirectional: bool, streams: int | None, padded: bool, answer: str) -> None:
    """Raise where the ways through a sequence do not go together."""
    refuse(
        {
            "model.bidirectional: streams go forward in time, and the way back begins at what is "
            "yet to come; leave out one of the two": bidirectional and streams is not None,
            "model.padded: with an answer for each step the loss would count padded ones; leave "
            "out one of the two": padded and answer == "each",
        }
    )


def refuse_tokens(
    embedding: int | None, vocabulary: int | None, outputs: int, tied: int | None
) -> None:
    """Raise where embedding and output do not fit; `tied` is the width in front of a tied one."""
    refuse(
        {
            "model.vocabulary: only tokens have one; give embedding, or leave it out": (
                vocabulary is not None and embedding is None
            ),
            f"model.tied: the output has {tied} units and {outputs} classes, the embedding width "
            f"{embedding} and {vocabulary or outputs} tokens; both must be equal": (
                tied is not None and (embedding != tied or vocabulary not in (None, outputs))
            ),
        }
    )


def refuse_parts(
    cell: str,
    forget_bias: float | None,
    initializers: Sequence[Initializer],
    regularization: Regularization,
    padded: bool,
) -> None:
    """Raise for parts that a recurrent network cannot use."""
    refuse(
        {
            f"model.forget_bias: {cell} has no forget gate; leave it out": (
                forget_bias is not None and cell != "lstm"
            ),
            "model: lsuv looks at one step of a layer, not at a sequence; take another "
            "initializer": lsuv in map(function_of, initializers),
            "regularization.normalization: recurrent layers have none; leave it out": (
                regularization.normalization is not None
            ),
            "regularization.input_noise: it would blur which steps are padded; leave out one of "
            "the two": padded and regularization.input_noise is not None,
        }
    )


def channels(inputs: Sequence[int], embedding: int | None, padded: bool) -> int:
    """The width of what the first layer sees; a UserError for examples that are no sequences."""
    shape = tuple(inputs)
    if embedding is not None:
        if shape[1:] != ((2,) if padded else ()):
            wanted = "(steps, 2), tokens beside 1 or 0" if padded else "(steps,)"
            raise UserError(
                f"model.embedding: examples have shape {shape}, tokens {wanted}; leave it out if "
                "the inputs are numbers"
            )
        return embedding
    if len(shape) != 2:
        remedy = "give tokens an embedding" if len(shape) == 1 else "reshape them"
        raise UserError(
            f"model: recurrent takes sequences of shape (steps, channels), the examples have "
            f"{shape}; {remedy}"
        )
    if shape[-1] - padded < 1:
        raise UserError(
            f"model.padded: examples of shape {shape} have one channel, which would be the one "
            "that tells padded steps; nothing is left to read"
        )
    return shape[-1] - padded
