"""Labels: what is asked of the rows of a file, as classes or as values."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nnref.data.prepare import column_name, first_five, refuse_nonfinite, warn, worst
from nnref.data.targets import is_one_hot
from nnref.errors import UserError

Kind = Literal["auto", "classes", "values"]
DISTANCES = ("squared_error", "absolute_error", "huber", "log_cosh")
"""Losses of values, which are least where the output is the target."""
HEAD = 100  # rows in which most columns differ already
MANY = 1000  # classes at most, where the loss takes classes alone


def targets(
    name: str, y: np.ndarray, kind: Kind, loss: str = ""
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets as integer classes with their names, or as float32 values without; see `file`.

    They are (rows,), (rows, 1), one-hot (rows, classes), or values (rows, ...).

    Raises:
        UserError: for targets that are no numbers or text, are missing or infinite, or cannot be
            of that kind.
    """
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    text = y.dtype.kind == "U"
    if not text and y.dtype.kind not in "fiub":
        raise UserError(f"data.target: targets have dtype {y.dtype}; numbers or text are allowed")
    refuse_nonfinite(name, "targets", y, ())
    if not y.size:
        raise UserError(f"data.target: targets of {name} have no numbers; their shape is {y.shape}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if kind != "values" and y.ndim == 2 and is_one_hot(y):
        y = y.argmax(axis=1)
        kind = "classes"
    if kind == "auto":
        kind = "classes" if look_like_classes(y, loss) else "values"
    if kind == "values":
        if text:
            raise UserError('data.kind: targets are text; "values" needs numbers')
        refuse_large(name, "targets", y, ())
        return y, ()
    if y.ndim != 1:
        raise UserError(
            f"data.kind: targets of shape {y.shape} are no classes; classes have shape (rows,), or "
            "are one-hot rows"
        )
    names, labels = np.unique(y, return_inverse=True)
    if len(names) > 20 and len(names) == len(y):
        raise UserError(
            f"data.kind: all {len(y)} targets differ, so they are no classes; "
            + ("choose another target" if text else 'write "kind": "values"')
        )
    return labels.astype(np.int32), tuple(map(class_name, names))


def look_like_classes(y: np.ndarray, loss: str = "") -> bool:
    """Whether targets are text, truth values, or few whole numbers that repeat.

    The loss has its say: for one of distances or counts more than two numbers are values, such as
    ratings from 1 to 5, and one that takes classes alone may have many of them.
    """
    if y.dtype.kind in "Ub":
        return True
    if y.ndim != 1 or loss == "poisson" or (y != np.round(y)).any():
        return False
    different = len(np.unique(y))
    if loss in DISTANCES and different > 2:
        return False
    most = MANY if loss == "softmax_cross_entropy" else 20
    return different <= most and 2 * different <= len(y)


def scale_of_values(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of values over the training rows, by column; float64, (width,).

    Of values that are all the same the deviation is 1.
    """
    values = train.reshape(len(train), -1).astype(np.float64)
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(np.ptp(values, axis=0) > 0, deviation, 1.0)


def balanced_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """Weights under which all classes count alike: n / (K n_k), which are 1 on average."""
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return tuple(weights.tolist())


def class_name(value: np.generic) -> str:
    """The name of a class: text as it is, whole numbers without a point, others in full."""
    if isinstance(value, np.floating):
        return str(int(value)) if value == np.round(value) else repr(float(value))
    return str(value)


def refuse_large(name: str, part: str, array: np.ndarray, columns: Sequence[str]) -> None:
    """Raise for numbers that float32 turns into infinity."""
    if array.dtype.kind != "f" or max(array.max(), -array.min()) <= np.finfo(np.float32).max:
        return
    bad = np.abs(array.reshape(len(array), -1)) > np.finfo(np.float32).max
    if bad.any():
        raise UserError(
            f"data: {part} of {name} hold {bad.sum()} numbers beyond 3.4e38 "
            f"({worst(bad, array.shape[1:], columns)}); divide them by a unit first"
        )


def warn_coarse(name: str, part: str, array: np.ndarray, columns: Sequence[str]) -> None:
    """Warn where numbers differ so little for their size that float32 keeps few digits of it."""
    if array.dtype.kind not in "fiu":
        return
    flat = array.reshape(len(array), -1).astype(np.float64)
    spread, size = flat.std(axis=0), np.abs(flat).max(axis=0)
    coarse = np.flatnonzero((flat.max(axis=0) > flat.min(axis=0)) & (spread < 1e-4 * size))
    if len(coarse):
        names = [column_name(int(c), array.shape[1:], columns) for c in coarse]
        warn(
            f"data: {part} of {name} vary by less than 1/10000 of their size in column "
            f"{first_five(names)}; computed in float32, little of that is left: subtract an offset"
        )


def warn_constant(name: str, x: np.ndarray, columns: Sequence[str]) -> None:
    """Warn of the columns of a table that are the same in every training row."""
    if x.ndim != 2 or (x[:HEAD] != x[:1]).any(axis=0).all():
        return  # images have borders
    constant = np.flatnonzero((x == x[:1]).all(axis=0))
    if len(constant):
        names = [column_name(int(c), x.shape[1:], columns) for c in constant]
        warn(
            f"data: {len(constant)} columns of {name} are the same in every training row: "
            f"{first_five(names)}; nothing can be learned from them"
        )
