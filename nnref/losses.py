"""Losses: how wrong each example of a batch is.

Positional are `outputs`, the network's predictions or logits with the batch as leading axis, and
`targets`. The result has shape `(batch,)`: the trainer takes its mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.errors import UserError

Array = jax.Array


def squared_error(outputs: Array, targets: Array) -> Array:
    """Squared error: l = mean over outputs of (f(x) - y)^2. No factor 1/2.

    `outputs` and `targets` have the same shape `(batch, ...)`.
    """
    error = jnp.square(outputs - targets)
    return jnp.mean(error, axis=tuple(range(1, error.ndim)))


def sigmoid_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Cross entropy of independent yes-or-no answers, from logits, in nats, summed over outputs.

    l = -y log s(z) - (1 - y) log(1 - s(z)) with s the logistic sigmoid, computed so that no
    logarithm sees 0. `outputs` and `targets` have shape `(batch, outputs)`, targets in [0, 1].
    """
    error = optax.losses.sigmoid_binary_cross_entropy(outputs, targets)
    return jnp.sum(error, axis=tuple(range(1, error.ndim)))


def softmax_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Cross entropy of one class among several, from logits, in nats.

    l = -log softmax(z)[y] = log(sum_k exp(z_k)) - z_y. `outputs` has shape `(batch, classes)`,
    `targets` holds integer classes, shape `(batch,)`.
    """
    return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)


class TargetKind(NamedTuple):
    """What the targets of a loss are, and what its outputs answer.

    `encode(y, classes)` turns the targets of a data set, integer classes or real values, into
    those of the loss and says how wide the output must be; it refuses what the loss cannot mean.
    `decide(outputs)` is the answer that the outputs stand for: a class, or a value.
    """

    encode: Callable[[np.ndarray, int], tuple[np.ndarray, int]]
    decide: Callable[[Array], Array]


def encode_values(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Real values as they are; two classes as 0 and 1; more as one-hot rows."""
    if classes > 2:
        return np.eye(classes, dtype=np.float32)[y], classes
    values = y.reshape(len(y), -1).astype(np.float32)
    return values, values.shape[1]


def encode_yes_no(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Two classes, or values in [0, 1], one output each."""
    if classes > 2:
        raise UserError(
            f"loss: sigmoid_cross_entropy answers yes or no, the data have {classes} classes; "
            "use softmax_cross_entropy"
        )
    values = y.reshape(len(y), -1).astype(np.float32)
    if values.min() < 0 or values.max() > 1:
        raise UserError(
            f"loss: sigmoid_cross_entropy takes targets from 0 to 1, these go from "
            f"{values.min():g} to {values.max():g}; use squared_error for real values"
        )
    return values, values.shape[1]


def encode_classes(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Integer classes, one output for each."""
    if not classes:
        raise UserError(
            "loss: softmax_cross_entropy tells classes apart, the targets are real values; "
            "use squared_error"
        )
    return y, classes


def above(threshold: float) -> Callable[[Array], Array]:
    """Decide by comparing with a threshold where there is one output, else by the largest."""

    def decide(outputs: Array) -> Array:
        if outputs.shape[-1] == 1:
            return outputs > threshold
        return jnp.argmax(outputs, axis=-1)

    return decide


LOSSES = {
    "squared_error": squared_error,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}

TARGETS = {
    "squared_error": TargetKind(encode_values, above(0.5)),
    "sigmoid_cross_entropy": TargetKind(encode_yes_no, above(0.0)),
    "softmax_cross_entropy": TargetKind(encode_classes, above(0.0)),
}
