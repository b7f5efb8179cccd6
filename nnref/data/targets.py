"""Targets: what is asked of a network, by their values, by its outputs and by its loss.

The same whole numbers are classes for a cross-entropy that takes them as indices, and values for a
squared error. Their dtype says nothing: ages are often stored as integers, labels as floats.
"""

from typing import Literal, NamedTuple

import numpy as np

Task = Literal["binary", "multiclass", "multilabel", "places", "regression"]
Form = Literal["one-hot", "classes", "binary", "flags", "values"]


class Kind(NamedTuple):
    """What targets are.

    Attributes:
        task: what is asked: one of two classes, one of many, several labels that do not exclude
            each other, a class for each place of a sequence or an image, or values.
        form: how the targets say it: rows that are distributions over classes, integers that
            number the classes, one column of 0 and 1, several columns of them, or values.
    """

    task: Task
    form: Form


class LossFacts(NamedTuple):
    """How a loss reads targets, as measured by whoever can call it.

    Attributes:
        distance: it is least where the output is the target, and rises alike on both sides of it,
            as the squared and the absolute error do.
        indices: it takes targets as numbers of classes.
    """

    distance: bool = False
    indices: bool = False


def kind_of_targets(
    y: np.ndarray, shape: tuple[int, ...], loss: LossFacts, task: str | None = None
) -> Kind:
    """What targets are.

    Args:
        y: targets, (rows, ...).
        shape: of the outputs for these rows; () where they are not one array.
        loss: how the loss reads targets.
        task: what the user says of it; None where it is to be inferred.
    """
    inferred = inferred_task(y, shape, loss)
    # Two classes in several columns are one-hot or labels; the classes of a sequence have places.
    refined = (task == "binary" and y.size > len(y)) or (
        task == "multiclass" and inferred == "places"
    )
    return Kind(
        inferred if task is None or refined else task,  # pyright: ignore[reportArgumentType]
        form_of(y, shape, loss, task),
    )


def inferred_task(y: np.ndarray, shape: tuple[int, ...], loss: LossFacts) -> Task:
    """The task, inferred from targets, outputs and loss."""
    width = shape[-1] if len(shape) > 1 else 1
    numbered = are_indices(y, shape, loss)
    if len(shape) > 2 and width > 1 and (numbered or (y.shape == shape and is_one_hot(y))):
        return "places"
    values = set(np.unique(y[np.isfinite(y)] if y.dtype.kind == "f" else y))
    if y.ndim > 1 and y.shape[-1] > 1:
        if values <= {0, 1}:
            return "multiclass" if y.ndim == 2 and is_one_hot(y) else "multilabel"
        classes = y.ndim == 2 and is_distribution(y) and (is_sharp(y) or not loss.distance)
        return "multiclass" if classes else "regression"
    if values <= {0, 1} or values <= {-1, 1}:
        if width > 1:
            return "multiclass" if numbered or not loss.distance else "regression"
        return "binary" if y.size == len(y) else "multilabel"
    return "multiclass" if numbered else "regression"


def form_of(y: np.ndarray, shape: tuple[int, ...], loss: LossFacts, task: str | None) -> Form:
    """The form of targets, see `Kind`."""
    width = shape[-1] if len(shape) > 1 else 1
    if task == "regression" or not np.isfinite(np.asarray(y, np.float64)).all():
        return "values"
    if width > 1 and are_indices(y, shape, loss):
        return "classes"
    if is_distribution(y) and (is_sharp(y) or not loss.distance):
        return "one-hot"
    if not is_whole(y) or y.min() < 0:
        return "values"
    if y.max() <= 1:
        return "flags" if y.ndim > 1 and y.shape[-1] > 1 else "binary"
    return "classes" if task == "multiclass" or are_indices(y, shape, loss) else "values"


def are_indices(y: np.ndarray, shape: tuple[int, ...], loss: LossFacts) -> bool:
    """Whether targets are one number for each row of outputs, and this number is a class.

    The loss says so; or the targets themselves do, as integers of which each numbers an output.
    """
    width = shape[-1] if len(shape) > 1 else 1
    if not is_whole(y):
        return False
    if width < 2:  # a distance that levels off far away takes no indices
        return loss.indices and not loss.distance and y.size == len(y)
    if y.shape[1:] not in (shape[1:-1], (*shape[1:-1], 1)):
        return False
    return loss.indices or (y.dtype.kind in "iu" and y.min() >= 0 and bool(y.max() < width))


def is_whole(y: np.ndarray) -> bool:
    """Whether all targets are whole numbers, of whatever dtype."""
    return bool((np.rint(np.asarray(y, np.float64)) == y).all())


def is_one_hot(y: np.ndarray) -> bool:
    """Whether each row, over the last axis, is a single 1 among zeros."""
    if y.ndim < 2 or y.shape[-1] < 2 or y.dtype.kind in "SU":
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all())


def is_distribution(y: np.ndarray) -> bool:
    """Whether each row is a distribution over its last axis: no number below 0, and a sum of 1."""
    y = np.asarray(y, np.float64)
    if y.ndim < 2 or y.shape[-1] < 2 or not np.isfinite(y).all():
        return False
    return bool(y.min() >= 0 and np.abs(y.sum(-1) - 1).max() < 1e-3)


def is_sharp(y: np.ndarray) -> bool:
    """Whether nearly all distributions give one class more than half, as smoothed labels do."""
    return bool(np.mean(np.max(y, -1) > 0.5) > 0.9)
