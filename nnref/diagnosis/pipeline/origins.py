"""Which raw row a row of a loader was made of, whatever was done to its numbers."""

from collections.abc import Callable

import numpy as np

from nnref.diagnosis.data.leaks import squares
from nnref.diagnosis.thresholds import bound

COLUMNS = 256  # numbers of a row that are compared
MANY = 8  # columns, from which on rows drawn at random are about equally far from each other
PART = 500  # rows that are compared at once
MEDIAN_OF = 300  # rows that say how far apart rows are

View = Callable[[np.ndarray], np.ndarray]


def origins(raw: np.ndarray, x: np.ndarray) -> np.ndarray:
    """For each row the place of the raw row that it was made of, and -1 where that is not sure.

    Rows are compared by the pattern of equal numbers in them, which no function of single numbers
    changes that tells them apart; as they are; each row in deviations from its own mean, which a
    scale of all numbers leaves alone; and each column so. The view counts that knows most rows.

    Args:
        raw: inputs, (rows, ...).
        x: other inputs, of as many numbers a row.
    """
    unknown = np.full(len(x), -1)
    if raw[:1].size != x[:1].size or len(raw) < 2:
        return unknown
    numbers = np.random.default_rng(0).permutation(raw[:1].size)[:COLUMNS]
    flat = [part.reshape(len(part), -1)[:, numbers] for part in (raw, x)]
    found = by_pattern(*flat)
    if (found >= 0).mean() > bound("known rows"):
        return found
    tried = [found, *(nearest(*map(view, flat)) for view in (as_it_is, by_row, by_column))]
    return max(tried, key=lambda places: float((places >= 0).mean()))


def as_it_is(x: np.ndarray) -> np.ndarray:
    """Numbers as they are."""
    return x.astype(float)


def by_row(x: np.ndarray) -> np.ndarray:
    """Each row in deviations from its own mean."""
    x = x.astype(float)
    return (x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-30)


def by_column(x: np.ndarray) -> np.ndarray:
    """Each column in deviations from its own mean."""
    x = x.astype(float)
    return (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)


def nearest(raw: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The nearest raw row, where it is far nearer than rows are to each other; else -1.

    In many columns it is enough to be nearer than the second one by a good part.
    """
    if not (np.isfinite(raw).all() and np.isfinite(x).all()):
        return np.full(len(x), -1)
    some = raw[np.linspace(0, len(raw) - 1, min(MEDIAN_OF, len(raw))).round().astype(int)]
    distances = squares(some, raw)
    usual = float(np.median(np.sort(distances, 1)[:, 1]))  # the nearest of all is the row itself
    if usual <= 1e-12 * float(distances.max()):
        return np.full(len(x), -1)  # most rows stand more than once, so no place is sure
    places = []
    for start in range(0, len(x), PART):
        apart = squares(x[start : start + PART], raw)
        place = apart.argmin(1)
        first, second = np.partition(apart, 1, axis=1)[:, :2].T
        sure = first < bound("same row") ** 2 * usual
        if raw.shape[1] >= MANY:
            sure |= first < bound("nearest row") ** 2 * second
        places.append(np.where(sure, place, -1))
    return np.concatenate(places)


def by_pattern(raw: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The raw row of the same pattern of equal numbers, where patterns tell raw rows apart."""
    known = {pattern(row): place for place, row in enumerate(raw)}
    if len(known) < bound("known rows") * len(raw):
        return np.full(len(x), -1)
    return np.array([known.get(pattern(row), -1) for row in x])


def pattern(row: np.ndarray) -> bytes:
    """The numbers of a row, each replaced by the place at which it stands first."""
    _, first, which = np.unique(row, return_index=True, return_inverse=True)
    return first[which.reshape(-1)].astype(np.int16).tobytes()
