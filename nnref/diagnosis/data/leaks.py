"""What training rows give away: targets among the inputs, rows that other rows lie between."""

from typing import NamedTuple

import numpy as np

from nnref.diagnosis.data.references import FEW_ROWS, ROWS
from nnref.diagnosis.data.targets import Target

HELD = 300  # rows of a split that are looked at
NEAR = 10  # training rows around each of them
COLUMNS = 400  # of long rows, so many numbers
SAME = 1e-6  # by which a correlation or a cosine may miss 1: single precision
DUST = 1e-3  # of the usual distance to the nearest row: what is nearer is a copy


def copies_of_targets(x: np.ndarray, target: Target) -> list[int]:
    """Flat columns of the inputs that are a target, or a * target + b."""
    flat = x[:ROWS].reshape(len(x[:ROWS]), -1)
    if target.kind == "places" or not flat.shape[1] > 1:
        return []
    y = target.answers[:ROWS].reshape(len(flat), -1).astype(float)
    rows = []
    wanted = centered(y)
    for first in range(0, flat.shape[1], 4096):
        part = centered(flat[:, first : first + 4096].astype(float))
        same = np.abs(part.T @ wanted).max(1) > 1 - SAME
        rows += (first + np.flatnonzero(same)).tolist()
    return rows


def centered(columns: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; of length 0 where nothing differs."""
    apart = columns - columns.mean(0)
    length = np.sqrt((apart**2).sum(0))
    return apart / np.where(length > 1e-9 * (np.abs(columns).max(0) + 1e-30), length, np.inf)


class Neighbours(NamedTuple):
    """Rows of a split, and the training rows nearest to each, in deviations of the training rows.

    Attributes:
        held: places of the rows in the split.
        near: places of their nearest training rows, the nearest first, (rows, NEAR).
        between: which rows lie on the line between two of these.
        dust: which rows are hardly farther from a training row than a copy, and are none.
    """

    held: np.ndarray
    near: np.ndarray
    between: np.ndarray
    dust: np.ndarray


def neighbours(x: np.ndarray, held: np.ndarray) -> Neighbours | None:
    """The training rows around those of another split.

    None where rows are too few, or hold fewer than three columns of values that hardly repeat: on a
    grid, and in a plane, rows lie between others by chance.
    """
    if min(len(x), len(held)) < FEW_ROWS or x.shape[1:] != held.shape[1:]:
        return None
    random = np.random.default_rng(0)
    train = x.reshape(len(x), -1)[random.permutation(len(x))[: 4 * ROWS]]
    order = random.permutation(len(held))[:HELD]
    rows = held.reshape(len(held), -1)[order]
    some = random.permutation(train.shape[1])[:COLUMNS]
    fine = [c for c in some if len(np.unique(train[:, c])) > len(train) / 2]
    if len(fine) < 3:
        return None
    train, rows = train[:, fine].astype(float), rows[:, fine].astype(float)
    deviation = train.std(0)
    train, rows = train / deviation, rows / deviation
    near = np.argsort(squares(rows, train), 1)[:, :NEAR]
    apart = train[near] - rows[:, None]
    length = np.sqrt((apart**2).sum(-1))
    usual = np.sqrt(np.sort(squares(train[:HELD], train), 1)[:, 1])  # the nearest is the row itself
    dust = (length[:, 0] > 0) & (length[:, 0] < DUST * np.median(usual))
    unit = apart / np.maximum(length, 1e-30)[..., None]
    # Directions that rounding makes up: those to copies.
    sure = length > 1e-4 * np.median(usual)
    cosine = np.einsum("rik,rjk->rij", unit, unit)
    cosine = np.where(sure[:, :, None] & sure[:, None], cosine, 0)
    between = np.any(cosine < -1 + 10 * SAME, axis=(1, 2))
    return Neighbours(order, near, between, dust)


def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of all rows of one to all rows of the other."""
    both = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(both, 0)


def interleaved(x: np.ndarray, held: np.ndarray) -> float:
    """The share of windows of a series that stand between the training windows beside them.

    Such are one step on from one of them, and one step back from another: what is asked of them
    stands among the inputs of the training rows.
    """
    if x.ndim not in (2, 3) or x.shape[1] < 4 or x.shape[1:] != held.shape[1:]:
        return 0.0
    starts = {row.tobytes() for row in np.ascontiguousarray(x[:, :-1])}
    ends = {row.tobytes() for row in np.ascontiguousarray(x[:, 1:])}
    rows = held[np.linspace(0, len(held) - 1, min(HELD, len(held))).round().astype(int)]
    moving = np.ptp(rows.reshape(len(rows), -1), axis=1) > 0
    beside = [
        np.ascontiguousarray(row[1:]).tobytes() in starts
        and np.ascontiguousarray(row[:-1]).tobytes() in ends
        for row in rows.astype(x.dtype)
    ]
    return float(np.mean(np.array(beside) & moving))


class Groups(NamedTuple):
    """A column that names groups, and how well the nearest row answers with and without them."""

    column: int
    shared: float  # share of the other split's rows whose group stands in training
    nearest: float  # skill of the nearest training row
    nearest_of_others: float  # the same, of another group


def groups(x: np.ndarray, target: Target, held: np.ndarray) -> Groups | None:
    """The column of whole numbers by whose groups the nearest row answers far better than without.

    Of a table; None where there is none.
    """
    if x.ndim != 2 or held.shape[1:] != x.shape[1:] or not 2 < x.shape[1] <= COLUMNS:
        return None
    if target.kind not in ("binary", "multiclass", "regression") or len(x) < 2 * FEW_ROWS:
        return None
    order = np.random.default_rng(0).permutation(len(x))[:ROWS]
    rows, y = x[order].astype(float), target.answers[order].reshape(len(order), -1)
    best = None
    for column in range(x.shape[1]):
        _, name, counts = np.unique(rows[:, column], return_inverse=True, return_counts=True)
        whole = (rows[:, column] == np.rint(rows[:, column])).all()
        if not whole or len(counts) < NEAR or np.median(counts) < 2 or len(counts) > len(rows) / 2:
            continue
        shared = float(np.isin(held[:, column], x[:, column]).mean())
        rest = np.delete(rows, column, 1)
        distance = squares(*[rest / (rest.std(0) + 1e-30)] * 2)
        np.fill_diagonal(distance, np.inf)
        same = name.reshape(-1)[:, None] == name.reshape(-1)
        skills = [
            skill_of(y[np.argmin(each, 1)], y, target.kind == "regression")
            for each in (distance, np.where(same, np.inf, distance))
        ]
        if best is None or skills[0] - skills[1] > best.nearest - best.nearest_of_others:
            best = Groups(column, shared, *skills)
    return best


def skill_of(predicted: np.ndarray, y: np.ndarray, values: bool) -> float:
    """R² of values; of classes, the share that is right, 0 for the most frequent one."""
    if values:
        return 1 - float(((predicted - y) ** 2).sum() / max(((y - y.mean(0)) ** 2).sum(), 1e-30))
    most = np.unique(y, return_counts=True)[1].max() / len(y)
    return (float((predicted == y).mean()) - most) / max(1 - most, 1e-9)
