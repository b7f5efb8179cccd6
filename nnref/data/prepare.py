"""Prepare: split, standardize, check and fingerprint the arrays of a data set."""

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from nnref.data.trees import Layout
from nnref.errors import UserError

if TYPE_CHECKING:
    from nnref.data.columns import Use
    from nnref.data.encoding import Encoder

Unit = Literal["characters", "bytes"]
BLOCK = 2**18  # numbers that are scaled at once
DIFFERENT = 0.5  # share of different rows, up to which they are few that come back


class DataWarning(UserWarning):
    """Something about the data that may be intended, but that the user should know."""


class Split(NamedTuple):
    """One part of a data set: `x` (rows, ...) and `y` (rows, ...), rows in the same order."""

    x: np.ndarray
    y: np.ndarray


class Stored(NamedTuple):
    """Training rows that stay on disk, and are read when their turn comes."""

    rows: int
    read: Callable[[np.ndarray], Split]  # numbers of rows -> those rows, in that order
    digest: str  # of whatever decides what is read


class Parts(NamedTuple):
    """The three parts of a data set; those that do not exist are None."""

    train: Split
    valid: Split | None = None
    test: Split | None = None


@dataclass(frozen=True)
class Dataset:
    """The arrays of a task, and what their targets mean.

    Args:
        train: what is learned from.
        valid: what is watched while learning, or None.
        test: what is looked at once at the end, or None.
        classes: names of the classes, target k meaning `classes[k]`; empty for real targets.
        columns: names of the columns of `x`, for errors; empty where they have none.
        unit: what a step of a text is, whose classes are then its vocabulary; None for no text.
        streams: rows s, s + streams, s + 2 streams, ... go on from one another; None where rows
            stand for themselves.
        stored: all training rows, of which `train` holds only some then; None where it holds all.
        inputs: how inputs that are several arrays lie in one; None where they are one.
        targets: likewise.
        scaling: mean and deviation by which inputs were shifted and scaled; None where none were.
        target_scaling: likewise of targets that are values, (width,) each.
        weights: of the classes in the training loss; None where all rows count alike.
        encoder: what has made inputs of a table, and does so with new rows; None where none has.
        table: what each column of that table is used for.
        notes: what was decided about the data, in sentences.
        places: numbers of the rows of each split in their file, from 1; empty where there is none.
        files: the images of a folder, by these numbers; empty for other data.

    Raises:
        UserError: for data that no network should be given, see `check`.
    """

    train: Split
    valid: Split | None = None
    test: Split | None = None
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    unit: Unit | None = None
    streams: int | None = None
    stored: Stored | None = None
    inputs: Layout | None = None
    targets: Layout | None = None
    scaling: tuple[np.ndarray, np.ndarray] | None = None
    target_scaling: tuple[np.ndarray, np.ndarray] | None = None
    weights: tuple[float, ...] | None = None
    encoder: "Encoder | None" = None
    table: "tuple[Use, ...]" = ()
    notes: tuple[str, ...] = ()
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def __post_init__(self):
        check(self)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that exist, by name."""
        every = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    @property
    def rows(self) -> int:
        """How many rows an epoch has."""
        return len(self.train.x) if self.stored is None else self.stored.rows

    @property
    def fingerprint(self) -> str:
        """A short hash of names, shapes, dtypes and bytes of all arrays, and of a vocabulary.

        One changed bit changes it; the machine's byte order and the arrays' layout do not.
        """
        digest = hashlib.sha256()
        if self.unit is not None:
            digest.update(repr(self.classes).encode())
        if self.stored is not None:
            digest.update(self.stored.digest.encode())
        for name, split in self.splits.items():
            for array in split:
                array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()[:12]


# --- the door -----------------------------------------------------------------------------------


def check(dataset: Dataset) -> None:
    """Refuse data that no network should be given: a UserError says why, and what to do."""
    if len(set(dataset.classes)) < len(dataset.classes):
        raise UserError(f"data: two classes have the same name among {', '.join(dataset.classes)}")
    if len(dataset.classes) == 1:
        raise UserError(
            f"data: there is only the class {dataset.classes[0]}: nothing to tell apart"
        )
    for name, (x, y) in dataset.splits.items():
        if x.ndim == 0 or y.ndim == 0:
            raise UserError(f"data: {name} has no rows; inputs and targets need an axis of rows")
        if len(x) != len(y):
            raise UserError(f"data: {name} has {len(x)} rows of inputs and {len(y)} targets")
        if len(x) == 0:
            raise UserError(f"data: {name} is empty; give it a larger share or leave it out")
        for part, array in (("inputs", x), ("targets", y)):
            if array.dtype.kind not in "fiub":
                raise UserError(
                    f"data: the {part} of {name} have dtype {array.dtype}; only real numbers are "
                    "allowed"
                )
        train = dataset.train
        if x.shape[1:] != train.x.shape[1:] or y.shape[1:] != train.y.shape[1:]:
            raise UserError(
                f"data: examples of {name} have shapes {x.shape[1:]} and {y.shape[1:]}, those of "
                f"train {train.x.shape[1:]} and {train.y.shape[1:]}; they must be equal"
            )
        refuse_nonfinite(name, "inputs", x, dataset.columns)
        refuse_nonfinite(name, "targets", y, ())
        if dataset.classes:
            refuse_labels(name, y, dataset.classes)
    if not dataset.classes and (dataset.train.y == dataset.train.y[:1]).all():
        value = ", ".join(f"{v:g}" for v in np.ravel(dataset.train.y[0])[:5])
        raise UserError(
            f"data: all {len(dataset.train.y)} targets of train are {value}: nothing to learn"
        )
    warn_untrained_classes(dataset)
    warn_shared_rows(dataset)


def refuse_nonfinite(name: str, part: str, array: np.ndarray, columns: Sequence[str]) -> None:
    """Raise where an array holds NaN or infinity, naming the worst columns and their counts."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array.reshape(len(array), -1))
    rows = bad.any(axis=1)
    raise UserError(
        f"data: {part} of {name} hold {bad.sum()} values that are missing, NaN or infinite, in "
        f"{rows.sum()} of {len(array)} rows, the first in row {rows.argmax() + 1} "
        f"({worst(bad, array.shape[1:], columns)}); remove or fill them first"
    )


def worst(bad: np.ndarray, shape: tuple[int, ...], columns: Sequence[str]) -> str:
    """The columns with the most bad values, (rows, columns), and their counts."""
    counts = bad.sum(axis=0)
    order = [c for c in np.argsort(-counts, kind="stable") if counts[c]]
    named = [f"column {column_name(c, shape, columns)}: {counts[c]}" for c in order[:5]]
    more = [f"and {len(order) - 5} columns more"] if len(order) > 5 else []
    return ", ".join(named + more)


def column_name(place: int, shape: tuple[int, ...], columns: Sequence[str]) -> str:
    """A column by its name, by its number from 0, or by its place in an example with axes."""
    if columns:
        return columns[place]
    if len(shape) < 2:
        return str(place)
    return str(tuple(int(i) for i in np.unravel_index(place, shape)))


def refuse_labels(name: str, y: np.ndarray, classes: Sequence[str]) -> None:
    """Raise where labels are no classes, lie out of range, or are all the same."""
    if y.dtype.kind not in "iu":
        raise UserError(
            f"data: the labels of {name} have dtype {y.dtype} and shape {y.shape}; classes are "
            f"integers from 0 to {len(classes) - 1}"
        )
    outside = (y < 0) | (y >= len(classes))
    if outside.any():
        raise UserError(
            f"data: {outside.sum()} labels of {name} lie outside 0..{len(classes) - 1} "
            f"(from {y.min()} to {y.max()}), for {len(classes)} classes"
        )
    if (y == y.flat[0]).all():
        raise UserError(
            f"data: all {y.size} labels of {name} are class {classes[y.flat[0]]}: nothing to tell "
            "apart; give it a larger share, or split at random, which keeps the shares of classes"
        )


def warn_untrained_classes(dataset: Dataset) -> None:
    """Warn where validation or test asks for a class that is never trained on."""
    if not dataset.classes or dataset.stored is not None:
        return
    trained = np.zeros(len(dataset.classes), bool)
    trained[dataset.train.y] = True
    for name, split in dataset.splits.items():
        unknown = ~trained[split.y]
        if unknown.any():
            names = [dataset.classes[k] for k in np.unique(split.y[unknown])]
            warn(
                f"data: {unknown.sum()} of {split.y.size} labels of {name} are of classes that "
                f"train has no example of: {first_five(names)}; they cannot be learned"
            )


def warn_shared_rows(dataset: Dataset) -> None:
    """Warn where validation or test holds inputs that are also trained on.

    Where a few different rows come back over and over, as in a table of truth, all are told at
    once. Texts are left out: they repeat their phrases, and where a window begins is chance.
    Whether a model of language has learned them by heart is measured on its samples.
    """
    if len(dataset.splits) == 1 or dataset.unit is not None:
        return

    trained, shared = np.sort(row_hashes(dataset.train.x)), {}
    for name, split in dataset.splits.items():
        if name != "train":
            ours = row_hashes(split.x.astype(dataset.train.x.dtype, copy=False))
            found = trained[np.searchsorted(trained, ours) % len(trained)] == ours
            shared[name] = np.flatnonzero(found)
    also = {n: f"{len(r)} of {len(dataset.splits[n].x)} rows of {n}" for n, r in shared.items()}
    also = {name: words for name, words in also.items() if len(shared[name])}
    different = 1 + int((trained[1:] != trained[:-1]).sum())
    if also and different <= DIFFERENT * len(trained):
        warn(
            f"data: train has {different} different rows among {len(trained)}, and "
            f"{' and '.join(also.values())} are also in train: figures there are of rows that were "
            "seen, and say little of others; where equal rows have equal targets, keep each once"
        )
        return
    for name, words in also.items():
        warn(
            f"data: {words} are also in train{in_file(dataset, name, shared[name])}; "
            f"what {name} says is too good by that much"
        )


def in_file(dataset: Dataset, split: str, rows: np.ndarray) -> str:
    """The numbers of some rows of a split in their file, in brackets; "" where there is none."""
    if split not in dataset.places:
        return ""
    places = dataset.places[split][rows]
    if dataset.files:
        return f" ({first_five([dataset.files[place - 1] for place in places])})"
    word = "rows" if places[1:].size else "row"
    return f" ({word} {first_five([str(place) for place in np.sort(places)])})"


def row_hashes(x: np.ndarray) -> np.ndarray:
    """A number of 64 bits for each row, the same for equal rows: sum_i r_i w_i over its words w.

    Different rows share one by chance alone, which for random odd r is about one in 2^63.
    """
    rows = np.ascontiguousarray(x.reshape(len(x), -1))
    rows = rows.view(np.uint8) if rows.dtype == bool else rows
    word = np.uint32 if rows.itemsize % 4 == 0 else np.uint8
    width = rows[:1].nbytes // np.dtype(word).itemsize
    factors = np.random.default_rng(0).integers(0, 2**63, width, np.uint64) | np.uint64(1)
    hashes = np.zeros(len(rows), np.uint64)
    block = max(1, 2**20 // max(width, 1))  # rows at once: each word takes eight bytes
    for first in range(0, len(rows), block):
        part = rows[first : first + block] + 0  # adding 0 makes -0 the same as 0
        hashes[first : first + block] = part.view(word).astype(np.uint64) @ factors
    return hashes


def warn(message: str) -> None:
    """Give a `DataWarning`."""
    warnings.warn(message, DataWarning, stacklevel=2)


def host_memory() -> int:
    """Bytes of memory of the host; the largest integer where the system does not say."""
    known = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= getattr(os, "sysconf_names", {}).keys()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else sys.maxsize


def first_five(names: Sequence[str]) -> str:
    """Up to five names, and how many there are more."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


# --- split --------------------------------------------------------------------------------------


def split_rows(
    x: np.ndarray, y: np.ndarray, *, valid: float, test: float, seed: int, stratify: bool
) -> Parts:
    """Shuffle rows and deal them out to train, valid and test.

    Args:
        x: inputs, (rows, ...).
        y: targets, (rows, ...).
        valid: share of the rows, 0 for none.
        test: share of the rows, 0 for none.
        seed: of the shuffling.
        stratify: keep the share of every class the same in each part, to within one row; `y` are
            labels then, (rows,).

    Raises:
        UserError: for shares that leave a part without a row.
    """
    rows = len(x)
    sizes = {"valid": round(valid * rows), "test": round(test * rows)}
    for name, share in (("valid", valid), ("test", test)):
        if share > 0 and not sizes[name]:
            raise UserError(
                f"data.{name}: {share:g} of {rows} rows is no row; give a larger share, or 0"
            )
    left = rows - sum(sizes.values())
    if left < 1:
        raise UserError(
            f"data: valid {valid:g} and test {test:g} of {rows} rows leave nothing to train on; "
            "give smaller shares"
        )
    rng = np.random.default_rng(seed)
    place = rng.permutation(rows)
    cuts = np.array([left, *sizes.values()])
    if not stratify:
        dealt = np.split(place, np.cumsum(cuts)[:-1])
    else:
        labels, numbers = np.unique(y, return_counts=True)
        hands = [
            np.split(place[y[place] == label], np.cumsum(shares)[:-1])
            for label, shares in zip(labels, stratified(numbers, cuts), strict=True)
        ]
        dealt = [rng.permutation(np.concatenate(part)) for part in zip(*hands, strict=True)]
    train, *others = (Split(x[part], y[part]) for part in dealt)
    valid_part, test_part = (part if len(part.x) else None for part in others)
    return Parts(train, valid_part, test_part)


def stratified(numbers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many rows of each class each part gets: n_c s_p / n, rounded so that all sums are right.

    Every entry is the exact share rounded down or up, which is the best that whole rows can do;
    that such a table exists follows from the integrality of flows. Rounding alone, or dealing out
    the classes one after another, misses the sizes of the parts.

    Args:
        numbers: n_c, rows of each class, (classes,).
        sizes: s_p, rows of each part, (parts,), with the same sum n.
    """
    counts, rest = np.divmod(np.outer(numbers, sizes), sizes.sum())
    up = np.zeros(rest.shape, bool)
    for c, missing in enumerate(numbers - counts.sum(axis=1)):
        up[c, np.argsort(-rest[c], kind="stable")[:missing]] = True
    # Rounded class by class, the classes are right and the parts may be off: hand single rows on
    # from a part that has too many to one that has too few, if need be through a third part.
    paths = [p for length in (2, 3) for p in permutations(range(len(sizes)), length)]
    while (surplus := (counts + up).sum(axis=0) - sizes).any():
        for path in paths:
            hops = list(zip(path[:-1], path[1:], strict=True))
            able = [up[:, p] & ~up[:, q] & (rest[:, q] > 0) for p, q in hops]
            if surplus[path[0]] > 0 > surplus[path[-1]] and all(a.any() for a in able):
                for (p, q), a in zip(hops, able, strict=True):
                    c = np.argmax(np.where(a, rest[:, q] - rest[:, p], -np.inf))
                    up[c, p], up[c, q] = False, True
                break
        else:
            raise AssertionError("no way to hand on a row, though theory says that there is one")
    return counts + up


# --- standardize --------------------------------------------------------------------------------


def standardize(
    train: Split,
    valid: Split | None = None,
    test: Split | None = None,
    *,
    axis: tuple[int, ...] | int = 0,
) -> Parts:
    """Shift and scale inputs to mean 0 and variance 1 by the statistics of `train` alone.

    x' = (x - mean)/deviation, in float64, given back in float32; the mean is over `axis`, 0 for
    each column on its own. A column that is constant in `train` is only shifted. Nothing about
    validation or test enters, or they would no longer stand for data not yet seen.
    """
    return scaled_by(Parts(train, valid, test), *mean_and_deviation(train.x, axis))


def scaled_by(parts: Parts, mean: np.ndarray, deviation: np.ndarray) -> Parts:
    """Inputs shifted by a mean and divided by a deviation in float64, given back in float32."""

    def scaled(split: Split) -> Split:
        x = np.empty(split.x.shape, np.float32)
        block = max(1, BLOCK // max(split.x[:1].size, 1))  # rows: there is no room for many copies
        for first in range(0, len(x), block):
            x[first : first + block] = (split.x[first : first + block] - mean) / deviation
        return Split(x, split.y)

    return Parts(*(None if part is None else scaled(part) for part in parts))  # type: ignore


def mean_and_deviation(x: np.ndarray, axis: tuple[int, ...] | int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over some axes, which are kept; of a constant column, itself and 1."""
    x = x.astype(np.float64, copy=False)
    mean = x.mean(axis=axis, keepdims=True)
    if x.ndim == 2 and (x[:100] != x[:1]).any(axis=0).all():  # the first rows tell it of most
        return mean, x.std(axis=axis, keepdims=True)
    high = x.max(axis=axis, keepdims=True)
    # Compared as numbers: rounding leaves a constant column a deviation of 1e-17 of its size.
    constant = high == x.min(axis=axis, keepdims=True)
    mean = np.where(constant, high, mean)
    return mean, np.where(constant, 1.0, x.std(axis=axis, keepdims=True))


def averaged(x: np.ndarray) -> tuple[int, ...] | int:
    """The axes over which statistics are taken, by what the inputs look like."""
    if x.ndim == 2:
        return 0
    if x.ndim == 3 and x.dtype == np.uint8:
        return (0, 1, 2)
    return tuple(range(x.ndim - 1))


def scale_of(sample: np.ndarray, standardized: bool) -> Callable[[np.ndarray], np.ndarray]:
    """What scales the inputs of a data set to float32, from some of its training examples."""
    shift, divisor = 0, 255 if sample.dtype == np.uint8 else 1
    if standardized:
        shift, divisor = mean_and_deviation(sample, averaged(sample))

    def scale(x: np.ndarray) -> np.ndarray:
        # Bytes lose nothing in float32; the numbers of a clock would.
        exact = np.float32 if x.dtype == np.uint8 else np.float64
        shifted = x.astype(exact) - np.asarray(shift, exact)
        return (shifted / np.asarray(divisor, exact)).astype(np.float32)

    return scale
