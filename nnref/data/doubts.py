"""Doubts: what is told of a file at the door, because it makes figures look better or worse.

Only what costs next to nothing is asked here; `nnref data look` asks the rest.
"""

from collections.abc import Iterator

import numpy as np

from nnref.data.prepare import first_five
from nnref.data.reading import Column, Table
from nnref.data.splitting import Rows

ROWS = 2000  # that are looked at for copies of the target
SAME = 1e-6  # by which the correlation of a copy may miss 1
FEW = 20  # rows: of fewer nothing is said


def copies_of_the_target(table: Table, target: str, names: list[str]) -> Iterator[str]:
    """Inputs that are the target, a multiple of it, or another name for each of its classes."""
    wanted = table[target]
    for name in names if len(names) > 1 else ():
        cells = table[name].cells[:ROWS]
        if len(cells) < FEW:
            continue
        if same_number(cells, wanted.cells[:ROWS]):
            what = "is the target, or a multiple of it"
        elif same_groups(table[name], wanted):
            what = "is another name of the target"
        else:
            continue
        yield (
            f'data: "{name}" {what}, in each of {len(cells)} rows; if it is not known before the '
            f'target is, write "drop": ["{name}"]'
        )


def same_number(cells: np.ndarray, y: np.ndarray) -> bool:
    """Whether numbers are a y + b, to single precision."""
    if cells.dtype.kind != "f" or y.dtype.kind != "f":
        return False
    known = np.isfinite(cells) & np.isfinite(y)
    a, b = cells[known], y[known]
    if len(a) < FEW or len(np.unique(b[:50])) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return False
    return bool(abs(np.corrcoef(a, b)[0, 1]) > 1 - SAME)


def same_groups(column: Column, target: Column) -> bool:
    """Whether each of a few different cells goes along with one class, and each class with one."""
    cells = column.cells[:ROWS]
    if column.kind == "date" or target.kind == "date":
        return False
    different = len(set(cells[:200].tolist()))
    if not 1 < different <= 50:
        return False
    pairs = set(zip(cells.tolist(), target.cells[:ROWS].tolist(), strict=True))
    ours, theirs = ({pair[side] for pair in pairs} for side in (0, 1))
    return 1 < len(theirs) == len(ours) == len(pairs) < len(cells) / 2


def groups_in_two_splits(table: Table, names: list[str], rows: Rows) -> Iterator[str]:
    """Columns of ids whose rows stand in training and in another split."""
    for name in names:
        different, cells = np.unique(table[name].cells, return_inverse=True)
        trained = np.unique(cells[rows["train"]])
        if len(trained) < 3 or len(different) > 0.9 * len(cells):
            continue
        for split, numbers in rows.items():
            if split == "train":
                continue
            shared = int(np.isin(cells[numbers], trained).sum())
            if shared:
                yield (
                    f'data: {shared} of {len(numbers)} rows of {split} have a "{name}" that is '
                    "also in train; where new rows will have new ones, write "
                    f'"split": "group", "by": "{name}"'
                )


def time_order(table: Table, dates: list[str], rows: Rows) -> Iterator[str]:
    """Columns of dates whose rows are trained on from before and after those of validation."""
    for name in dates:
        cells = table[name].cells
        trained = cells[rows["train"]]
        trained = trained[~np.isnat(trained)]
        if len(rows) == 1 or len(np.unique(trained[:ROWS])) < FEW:
            continue
        split = "valid" if "valid" in rows else "test"
        earlier = int((cells[rows[split]] < trained.max()).sum())
        if earlier:
            yield (
                f'data: {earlier} of {len(rows[split])} rows of {split} are earlier, by "{name}", '
                "than rows of train; where later rows are to be predicted, write "
                f'"split": "time", "by": "{name}"'
            )


def imbalance(labels: np.ndarray, classes: tuple[str, ...], balanced: bool) -> Iterator[str]:
    """A class that is five times rarer than an equal share, where nothing weighs it."""
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    few = counts.sum() / 5 / len(classes)
    rare = [f"{classes[k]}: {counts[k]}" for k in np.argsort(counts) if 0 < counts[k] < few]
    if rare and not balanced and len(labels) >= 5 * FEW:
        yield (
            f"data: {len(rare)} of {len(classes)} classes are rare among {len(labels)} training "
            f'rows ({first_five(rare)}); to weigh all classes alike, write "balance": true'
        )


def odd_values(name: str, y: np.ndarray) -> Iterator[str]:
    """Values of which most are the same, or some lie very far out."""
    flat = y.reshape(len(y), -1).astype(np.float64)
    if flat.shape[1] > 1 or len(flat) < 5 * FEW:
        return
    values, counts = np.unique(flat[:, 0], return_counts=True)
    most = int(counts.argmax())
    if counts[most] > len(flat) / 2:
        yield (
            f'data: "{name}" is {values[most]:g} in {counts[most]} of {len(flat)} training rows; a '
            "network may do well by saying that of all"
        )
    deviation = flat[:, 0].std()
    skew = float((((flat[:, 0] - flat[:, 0].mean()) / (deviation or 1)) ** 3).mean())
    if abs(skew) > 3:
        yield (
            f'data: "{name}" is skewed ({skew:.1f}): a few of {len(flat)} training rows decide a '
            "squared error; absolute_error and huber heed them less, poisson is for counts"
        )


def scaled_by_their_own(splits: dict[str, np.ndarray]) -> Iterator[str]:
    """Splits of a file that each have mean 0 and deviation 1: of a scaler fitted to each.

    The mean of other rows of the same kind misses 0 by one over the root of their number.
    """
    own = [name for name, x in splits.items() if has_unit_statistics(x)]
    if "train" in own and len(own) > 1:
        rows = ", ".join(f"{len(splits[name])} of {name}" for name in own)
        yield (
            f"data: the rows of {' and of '.join(own)} each have mean 0 and deviation 1 ({rows}), "
            "scaled by their own statistics; scale all by those of train, or save the raw numbers"
        )


def has_unit_statistics(x: np.ndarray) -> bool:
    """Whether each column that varies has mean 0 and deviation 1, to four digits."""
    if x.dtype.kind != "f" or len(x) < FEW:
        return False
    flat = x.reshape(len(x), -1).astype(np.float64)
    mean, deviation = flat.mean(0), flat.std(0)
    moving = deviation > 1e-9
    unit = (np.abs(mean) < 1e-4) & (np.abs(deviation - 1) < 1e-3)
    return bool(moving.any() and unit[moving].all())
