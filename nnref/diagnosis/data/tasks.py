"""A simple task of the same shapes: what a network that trains at all learns of the same inputs."""

import numpy as np

from nnref.data.targets import is_one_hot


def simple_targets(x: np.ndarray, y: np.ndarray, task: str) -> np.ndarray | None:
    """Targets that the inputs give away, with the shape, the dtype and the values of the user's.

    Values are a line through the columns; classes are its quantiles, as frequent as the user's;
    labels are its signs; and the class of a place is told by what stands there.

    Args:
        x: inputs, (rows, ...).
        y: the user's targets, (rows, ...).
        task: see `nnref.data.targets`.

    Returns:
        None where the shapes allow none: the inputs do not go along with the places.
    """
    random = np.random.default_rng(3)
    flat = x.reshape(len(x), -1).astype(float)
    if task == "places":
        return of_places(x, y)
    deviation = flat.std(0)
    columns = (flat - flat.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    if not columns.shape[1]:
        return None
    width = int(np.prod(y.shape[1:]))
    lines = columns @ random.normal(size=(columns.shape[1], width))
    lines = (lines - lines.mean(0)) / np.maximum(lines.std(0), 1e-30)
    if task == "regression":
        wanted = y.reshape(len(y), -1)
        made = wanted.mean(0) + wanted.std(0) * lines
    elif task == "multilabel":
        low, high = y.min(), y.max()
        made = np.where(lines > 0, high, low)
    else:
        one_hot = y.ndim > 1 and y.shape[-1] > 1
        classes = np.sort(y.argmax(-1) if one_hot else y.reshape(len(y)))
        ranks = lines[:, 0].argsort().argsort()
        made = np.eye(y.shape[-1])[classes[ranks]] if one_hot else classes[ranks]
    return made.reshape(y.shape).astype(y.dtype)


def of_places(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """A class for each place, told by the token or by the size of the features that stand there."""
    one_hot = y.ndim > 2 and is_one_hot(y)
    labels = y.argmax(-1) if one_hot else y
    places = labels.shape
    if x.shape[: len(places)] != places:
        return None
    classes = int(labels.max()) + 1
    size = x.reshape(*places, -1).sum(-1)
    if x.dtype.kind in "iu":
        made = size.astype(int) % classes
    else:
        made = np.digitize(size, np.quantile(size, np.linspace(0, 1, classes + 1)[1:-1]))
    made = np.where(labels < 0, labels, made)
    return (np.eye(y.shape[-1])[made] if one_hot else made).astype(y.dtype)
