"""What the targets of each loss are, and how the outputs of a network are read under it.

Targets of a data set are integer classes or real values. `TARGETS` has a `TargetKind` for every
loss of `LOSSES`, which turns them into those of the loss and refuses what the loss cannot mean.
The checks of values are called by the losses, too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.errors import UserError
from nnref.internals import is_traced
from nnref.parts.activations import linear

Array = jax.Array


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
    predict: Callable[[Array], Array] = linear
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
            f"loss: poisson takes counts, the targets are {classes} classes; write "
            '"kind": "values" under "data" if they are counts, else use softmax_cross_entropy'
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


LARGEST_LOG_RATE = 40.0


def rate(z: Array) -> Array:
    """The expected count exp(z), as its tangent beyond `LARGEST_LOG_RATE`."""
    near = jnp.where(z > LARGEST_LOG_RATE, LARGEST_LOG_RATE, z)
    return jnp.exp(near) * (1 + (z - near))


# --- values that a loss cannot mean --------------------------------------------------------------


def check_known(refuse: Callable[..., None], targets: Any, *others: Any) -> None:
    """Call `refuse` on targets whose values can be read; in a traced program they cannot."""
    if not is_traced(targets):
        refuse(np.asarray(targets), *others)


def refuse_negative(counts: np.ndarray) -> None:
    """Raise for negative counts."""
    bad = counts < 0
    if bad.any():
        raise UserError(
            f"loss: poisson takes counts, {bad.sum()} of {bad.size} targets are negative, "
            f"down to {counts.min():g}; use squared_error for real values"
        )


def refuse_not_signs(targets: np.ndarray) -> None:
    """Raise for targets beside -1 and 1."""
    bad = (targets != 1) & (targets != -1)
    if bad.any():
        raise UserError(
            f"loss: hinge takes targets -1 and 1, {bad.sum()} of {bad.size} are others, "
            f"like {targets[bad][0]:g}; give two classes, or squared_error for real values"
        )


def refuse_no_probability(targets: np.ndarray) -> None:
    """Raise for targets below 0 or above 1."""
    bad = (targets < 0) | (targets > 1)
    if bad.any():
        raise UserError(
            f"loss: sigmoid_cross_entropy takes targets from 0 to 1, {bad.sum()} of {bad.size} "
            f"are not, from {targets.min():g} to {targets.max():g}; use squared_error for real "
            "values"
        )


def refuse_no_distribution(rows: np.ndarray) -> None:
    """Raise for rows that are no probabilities: below 0, or with a sum that is not 1."""
    if (rows < 0).any():
        raise UserError(
            f"loss: softmax_cross_entropy takes rows of probabilities, {(rows < 0).sum()} entries "
            f"are negative, down to {rows.min():g}"
        )
    sums = rows.sum(axis=-1, dtype=np.float64)
    bad = np.abs(sums - 1) > 1e-4  # float32 and files with five digits round their sums
    if bad.any():
        raise UserError(
            f"loss: softmax_cross_entropy takes one-hot rows that sum to 1, {bad.sum()} of "
            f"{bad.size} do not, like one with the sum {sums[bad][0]:g}; use sigmoid_cross_entropy "
            "where several classes may hold at once"
        )


def refuse_labels(labels: np.ndarray, classes: int) -> None:
    """Raise for labels beyond the width; inside a program they would be NaN, or wrap around."""
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        raise UserError(
            f"loss: {classes} classes have labels from 0 to {classes - 1}, {bad.sum()} of "
            f"{bad.size} lie beyond, like {labels[bad][0]}"
        )


# --- the kinds ------------------------------------------------------------------------------------

VALUES = TargetKind(encode_values, above(0.5))


def encode_as_they_are(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Targets as the loss of a user wants them: untouched."""
    return y, classes or int(np.prod(y.shape[1:]))


OWN = TargetKind(encode_as_they_are, above(0.0))  # of a loss of a user's own


def target_kind(loss: str) -> TargetKind:
    """What the targets of a loss are, by its name."""
    return TARGETS.get(loss, OWN)


TARGETS = {
    "squared_error": VALUES,
    "absolute_error": VALUES,
    "huber": VALUES,
    "log_cosh": VALUES,
    "linear": VALUES,
    "poisson": TargetKind(encode_counts, above(0.0), predict=rate),
    "hinge": TargetKind(encode_signs, above(0.0)),
    "sigmoid_cross_entropy": TargetKind(
        encode_yes_no, above(0.0), jax.nn.sigmoid, both_log_probabilities
    ),
    "softmax_cross_entropy": TargetKind(
        encode_classes, above(0.0), jax.nn.softmax, jax.nn.log_softmax
    ),
}
