"""What the targets of each loss are, and how the outputs of a network are read under it.

Targets of a data set are integer classes or real values. `TARGETS` has a `TargetKind` for every
loss of `LOSSES`, which turns them into those of the loss and refuses what the loss cannot mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.errors import UserError
from nnref.parts.losses import (
    rate,
    refuse_labels,
    refuse_negative,
    refuse_no_distribution,
    refuse_no_probability,
    refuse_not_signs,
)

Array = jax.Array


def as_they_are(outputs: Array) -> Array:
    """Outputs that are the values themselves."""
    return outputs


class TargetKind(NamedTuple):
    """What the targets of a loss are, and how its outputs are read.

    `encode(y, classes)` turns the targets of a data set, integer classes or real values
    (`classes` 0), into those of the loss and says how wide the output must be; it refuses what
    the loss cannot mean. `decide(outputs)` is the class that outputs stand for, an integer for
    each example. `predict(outputs)` is the value that they stand for, of their own shape.
    `log_probabilities(outputs)` are those of all classes, or None where the loss has none.
    """

    encode: Callable[[np.ndarray, int], tuple[np.ndarray, int]]
    decide: Callable[[Array], Array]
    predict: Callable[[Array], Array] = as_they_are
    log_probabilities: Callable[[Array], Array] | None = None


def encode_values(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Real values as they are; two classes as 0 and 1; more as one-hot rows."""
    if classes:
        refuse_labels(y, classes)
    if classes > 2:
        return np.eye(classes, dtype=np.float32)[y], classes
    values = y.reshape(len(y), -1).astype(np.float32)
    return values, values.shape[1]


def encode_counts(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Counts, 0 or more."""
    if classes:
        raise UserError(
            f"loss: poisson takes counts, the targets are {classes} classes; give the data "
            'kind="values" if they are counts, else use softmax_cross_entropy'
        )
    counts, width = encode_values(y, 0)
    refuse_negative(counts)
    return counts, width


def encode_signs(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Two classes as -1 and 1; values that are already -1 or 1."""
    if classes > 2:
        raise UserError(
            f"loss: hinge tells two classes apart, the data have {classes}; "
            "use softmax_cross_entropy"
        )
    signs, width = encode_values(y, classes)
    signs = 2 * signs - 1 if classes else signs
    refuse_not_signs(signs)
    return signs, width


def encode_yes_no(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Two classes as 0 and 1; values from 0 to 1, one output each."""
    if classes > 2:
        raise UserError(
            f"loss: sigmoid_cross_entropy answers yes or no, the data have {classes} classes; "
            "use softmax_cross_entropy"
        )
    values, width = encode_values(y, classes)
    refuse_no_probability(values)
    return values, width


def encode_classes(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Integer classes, one output for each; or rows of probabilities, (rows, classes)."""
    if classes:
        refuse_labels(y, classes)
        return y.astype(np.int32), classes
    if y.ndim < 2 or y.shape[-1] < 2:
        raise UserError(
            "loss: softmax_cross_entropy tells classes apart, the targets are real values; "
            "use squared_error"
        )
    refuse_no_distribution(y)
    return y.astype(np.float32), y.shape[-1]


def above(threshold: float) -> Callable[[Array], Array]:
    """Class 1 above a threshold where there is one output, else the class of the largest."""

    def decide(outputs: Array) -> Array:
        if outputs.shape[-1] == 1:
            return (outputs[..., 0] > threshold).astype(jnp.int32)
        return jnp.argmax(outputs, axis=-1)

    return decide


def both_log_probabilities(z: Array) -> Array:
    """Log-probabilities of no and yes, (..., 2), from one logit, (..., 1)."""
    return jax.nn.log_sigmoid(jnp.concatenate([-z, z], axis=-1))


VALUES = TargetKind(encode_values, above(0.5))

TARGETS = {
    "squared_error": VALUES,
    "absolute_error": VALUES,
    "huber": VALUES,
    "log_cosh": VALUES,
    "linear": VALUES,
    "poisson": TargetKind(encode_counts, above(0.0), predict=rate),
    "hinge": TargetKind(encode_signs, above(0.0)),
    "sigmoid_cross_entropy": TargetKind(
        encode_yes_no,
        above(0.0),
        predict=jax.nn.sigmoid,
        log_probabilities=both_log_probabilities,
    ),
    "softmax_cross_entropy": TargetKind(
        encode_classes,
        above(0.0),
        predict=jax.nn.softmax,
        log_probabilities=jax.nn.log_softmax,
    ),
}
