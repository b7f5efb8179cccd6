"""Prepare: split, standardize, check and fingerprint the arrays of a data set."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnref.errors import UserError


class Split(NamedTuple):
    """One part of a data set: `x` (rows, ...) and `y` (rows, ...), rows in the same order."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """The arrays of a task, and what their targets mean.

    Args:
        train: what is learned from.
        valid: what is watched while learning, or None.
        test: what is looked at once at the end, or None.
        classes: names of the classes, target k meaning `classes[k]`; empty for real targets.
        columns: names of the columns of `x`, for errors; empty where they have none.
    """

    train: Split
    valid: Split | None = None
    test: Split | None = None
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __post_init__(self):
        check(self)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that exist, by name."""
        every = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    @property
    def fingerprint(self) -> str:
        """A short hash of names, shapes, dtypes and bytes of all arrays."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            for array in split:
                digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:12]


def check(dataset: Dataset) -> None:
    """Refuse data that no network should be given.

    Raises:
        UserError: for rows and targets that differ in number, an empty split, a wrong dtype, NaN
            or infinity (with column and count), labels out of range, a split of one class.
    """
    for name, (x, y) in dataset.splits.items():
        if len(x) != len(y):
            raise UserError(f"data: {name} has {len(x)} rows of inputs and {len(y)} targets")
        if len(x) == 0:
            raise UserError(f"data: {name} is empty; give it a larger share or leave it out")
        if x.dtype.kind not in "fiub":
            raise UserError(
                f"data: the inputs of {name} have dtype {x.dtype}; only numbers are allowed"
            )
        refuse_nonfinite(name, "inputs", x, dataset.columns)
        refuse_nonfinite(name, "targets", y, ())
        if dataset.classes:
            refuse_labels(name, y, dataset.classes)
    warn_shared_rows(dataset)


def refuse_nonfinite(name: str, part: str, array: np.ndarray, columns: Sequence[str]) -> None:
    """Raise where an array holds NaN or infinity, naming the worst columns and their counts."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array.reshape(len(array), -1))
    counts = bad.sum(axis=0)
    worst = np.argsort(-counts, kind="stable")[:5]
    named = ", ".join(
        f"column {columns[c] if columns else c}: {counts[c]}" for c in worst if counts[c]
    )
    raise UserError(
        f"data: {part} of {name} hold {bad.sum()} values that are NaN or infinite, in "
        f"{bad.any(axis=1).sum()} of {len(array)} rows ({named}); remove or fill them first"
    )


def refuse_labels(name: str, y: np.ndarray, classes: Sequence[str]) -> None:
    """Raise where labels are no classes, lie out of range, or are all the same."""
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise UserError(
            f"data: the labels of {name} have dtype {y.dtype} and shape {y.shape}; "
            f"classes are integers of shape (rows,)"
        )
    outside = (y < 0) | (y >= len(classes))
    if outside.any():
        raise UserError(
            f"data: {outside.sum()} labels of {name} lie outside 0..{len(classes) - 1} "
            f"(from {y.min()} to {y.max()}), for {len(classes)} classes"
        )
    if len(np.unique(y)) == 1:
        raise UserError(
            f"data: all {len(y)} labels of {name} are class {classes[y[0]]}: nothing to tell "
            "apart; shuffle or stratify the split"
        )


def warn_shared_rows(dataset: Dataset) -> None:
    """Warn where validation or test holds inputs that are also trained on."""
    if len(dataset.splits) == 1:
        return
    trained = {row.tobytes() for row in dataset.train.x}
    for name, split in dataset.splits.items():
        shared = sum(row.tobytes() in trained for row in split.x)
        if name != "train" and shared:
            warnings.warn(
                f"data: {shared} of {len(split.x)} rows of {name} are also in train; "
                f"what {name} says is too good by that much",
                stacklevel=2,
            )


def split_rows(
    x: np.ndarray,
    y: np.ndarray,
    *,
    valid: float,
    test: float,
    seed: int,
    stratify: bool,
) -> tuple[Split, Split | None, Split | None]:
    """Shuffle rows and deal them out to train, valid and test.

    Args:
        x: inputs, (rows, ...).
        y: targets, (rows, ...).
        valid: share of the rows, 0 for none.
        test: share of the rows, 0 for none.
        seed: of the shuffling.
        stratify: keep the share of every class the same in each part, to within one row.
    """
    if valid + test >= 1:
        raise UserError(
            f"data: valid {valid} and test {test} leave nothing to train on; "
            "together they must stay below 1"
        )
    rng = np.random.default_rng(seed)
    place = rng.permutation(len(x))
    if stratify:
        # Dealing out each class on its own, at evenly spaced places of the deck, keeps its shares.
        position = np.empty(len(x))
        for label in np.unique(y):
            rows = place[y[place] == label]
            position[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
        place = np.argsort(position, kind="stable")
    n_valid, n_test = round(valid * len(x)), round(test * len(x))
    for name, share, rows in (("valid", valid, n_valid), ("test", test, n_test)):
        if share > 0 and rows == 0:
            raise UserError(
                f"data.{name}: {share} of {len(x)} rows is no row; give a larger share, or 0"
            )
    parts = np.split(place, [n_valid, n_valid + n_test])
    if stratify:
        parts = [rng.permutation(part) for part in parts]

    def part(rows: np.ndarray) -> Split | None:
        return Split(x[rows], y[rows]) if len(rows) else None

    train = Split(x[parts[2]], y[parts[2]])
    return train, part(parts[0]), part(parts[1])


def standardize(
    train: Split, *others: Split | None, axis: tuple[int, ...] | int = 0
) -> tuple[Split | None, ...]:
    """Shift and scale inputs to mean 0 and variance 1 by the statistics of `train` alone.

    A column that is constant in `train` is only shifted. Nothing about validation or test enters,
    or they would no longer stand for data not yet seen.

    Args:
        train: the split whose statistics are used.
        *others: splits that are scaled with them; None stays None.
        axis: axes averaged over: 0 for each column on its own.
    """
    mean = train.x.mean(axis=axis, keepdims=True, dtype=np.float64)
    deviation = train.x.std(axis=axis, keepdims=True, dtype=np.float64)
    # Rounding leaves a constant column a deviation of about 1e-17 of its size, not 0.
    deviation = np.where(deviation > 1e-12 * (1 + np.abs(mean)), deviation, 1.0)

    def scaled(split: Split | None) -> Split | None:
        if split is None:
            return None
        return Split(((split.x - mean) / deviation).astype(np.float32), split.y)

    return tuple(scaled(split) for split in (train, *others))
