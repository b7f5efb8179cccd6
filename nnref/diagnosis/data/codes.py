"""Columns of categories that are numbered anew in another split: an encoder fitted to each of them.

Where a split lacks some categories, all later ones get smaller numbers, and mean others. Both
splits are numbered without a gap, and the mean targets of the numbers go along once the missing
ones are left open. Or they are numbered as they appear: then every split begins with 0, and each
number that is new is the next one, which no split does that is numbered by another one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnref.diagnosis.data.targets import Rows, target_of
from nnref.diagnosis.thresholds import bound

FEW_CODES = 6  # of a column: with fewer, one is missing in a split by chance too seldom to tell
APPEARING = 12  # numbers that appear in their order by chance once in 12!, half a billion times
ROWS_OF_A_CODE = 4  # in the mean, of the other split, so that their mean target says something


class Renumbered(NamedTuple):
    """A column of categories, numbered 0 to `known` - 1 in training and 0 to `here` - 1 elsewhere.

    `missing` are the numbers of training that, left open, make the others mean the same; `before`
    and `after` the share of the targets' variance that the training means of the numbers explain.
    """

    column: int
    known: int
    here: int
    missing: list[int]
    before: float
    after: float


def renumbered_columns(train: Rows, held: Rows, kind: str) -> Iterator[Renumbered]:
    """Columns whose categories were numbered in each split by itself."""
    (x, y), (xv, yv) = ((np.asarray(x), np.asarray(y)) for x, y in (train, held))
    if x.ndim != 2 or xv.ndim != 2 or x.shape[1] != xv.shape[1] or kind == "places":
        return
    wanted, other = values_of(y, kind), values_of(yv, kind)
    if wanted.shape[1] != other.shape[1] or not np.isfinite([wanted.sum(), other.sum()]).all():
        return
    for column in range(x.shape[1]):
        known, here = codes_in(x[:, column]), codes_in(xv[:, column])
        if not FEW_CODES <= here < known or len(xv) < ROWS_OF_A_CODE * here:
            continue
        codes, codes_here = x[:, column].astype(int), xv[:, column].astype(int)
        means, counts = means_of(codes, wanted, known)
        if (counts == 0).any():
            continue
        open_places = aligned(means, *means_of(codes_here, other, here))
        # Numbers that are found on one half of the rows are asked on the other half.
        halves = np.arange(len(xv)) % 2 == 0, np.arange(len(xv)) % 2 == 1
        left = np.zeros_like(other)
        for one, rest in (halves, halves[::-1]):
            order = aligned(means, *means_of(codes_here[one], other[one], here))
            left[rest] = other[rest] - means[order[codes_here[rest]]]
        before = explained(other, other - means[codes_here])
        after = explained(other, left)
        if after - max(before, 0.0) > bound("renumbered"):
            missing = sorted(set(range(known)) - set(open_places.tolist()))
            yield Renumbered(column, known, here, missing, before, after)


def as_they_appear(x: np.ndarray) -> list[int]:
    """Columns whose numbers appear in their order, 0 first, and come again in another one.

    A counter or an hour appears so, too, but steps on from row to row.
    """
    return [column for column in range(x.shape[1]) if appears_in_order(x[:, column])]


def appears_in_order(values: np.ndarray) -> bool:
    """Whether the numbers of a column were given as they came."""
    if codes_in(values) < APPEARING:
        return False
    codes = values.astype(int)
    known = np.maximum.accumulate(codes)
    new = np.r_[True, known[1:] > known[:-1]]
    steps = np.diff(codes)[~new[1:]]  # to a number that has been before
    on = np.isin(steps, (0, 1)) | (codes[1:][~new[1:]] == 0)
    in_order = bool((codes[new] == np.arange(new.sum())).all())
    return in_order and len(steps) >= len(codes) / 4 and on.mean() < bound("steps on")


def values_of(y: np.ndarray, kind: str) -> np.ndarray:
    """Targets as numbers, (rows, columns): classes as columns of 0 and 1."""
    target = target_of(y, kind)
    if kind in ("binary", "multiclass"):
        return (target.answers[:, None] == np.arange(target.classes)).astype(float)
    return target.answers.astype(float)


def codes_in(values: np.ndarray) -> int:
    """How many categories a column has that are numbered from 0 without a gap; else 0."""
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        return 0
    if values.min() < 0 or values.max() >= len(values):
        return 0
    whole = values.astype(int)
    return int(whole.max()) + 1 if (whole == values).all() and np.bincount(whole).all() else 0


def means_of(codes: np.ndarray, y: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean targets of the rows of each code, (codes, columns), and how many rows it has."""
    counts = np.bincount(codes, minlength=number)
    sums = [np.bincount(codes, column, minlength=number) for column in y.T]
    return np.stack(sums, 1) / np.maximum(counts, 1)[:, None], counts


def aligned(known: np.ndarray, here: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each code here the one of training, in the same order, whose mean targets are nearest.

    The least sum of squares over the rows, by dynamic programming: what is left open is skipped.
    """
    cost = counts[:, None] * ((here[:, None] - known[None]) ** 2).sum(-1)
    least = np.zeros(len(known))
    chosen = np.zeros(cost.shape, int)
    for code, row in enumerate(cost):
        to_here = np.full(len(known), np.inf)
        to_here[code:] = row[code:] + (least[code - 1 : -1] if code else 0.0)
        chosen[code] = best_so_far(to_here)
        least = to_here[chosen[code]]
    order, at = np.zeros(len(here), int), len(known) - 1
    for code in range(len(here) - 1, -1, -1):
        order[code] = chosen[code, at]
        at = order[code] - 1
    return order


def best_so_far(values: np.ndarray) -> np.ndarray:
    """At each place, where the least value up to there stands."""
    least = np.minimum.accumulate(values)
    new = np.r_[True, values[1:] < least[:-1]]
    return np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))


def explained(y: np.ndarray, left: np.ndarray) -> float:
    """The share of the variance of targets that is gone in what is left of them."""
    return float(1 - (left**2).sum() / max(((y - y.mean(0)) ** 2).sum(), 1e-30))
