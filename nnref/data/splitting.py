"""Splitting: which rows of a table are trained on, by chance, time, group, or as it says itself."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from nnref.data.encoding import text_cells
from nnref.data.prepare import first_five, split_rows
from nnref.data.reading import Column
from nnref.errors import UserError

Way = Literal["random", "time", "group", "given"]
Rows = dict[str, np.ndarray]
"""The numbers of the rows of each split that there is."""
NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing", "eval"),
}


def dealt_by_chance(y: np.ndarray, *, valid: float, test: float, seed: int, stratify: bool) -> Rows:
    """Rows in random order; see `split_rows`."""
    shares = {"valid": valid, "test": test, "seed": seed}
    parts = split_rows(np.arange(len(y)), y, stratify=stratify, **shares)
    return {name: split.x for name, split in parts._asdict().items() if split is not None}


def dealt(way: Way, name: str, by: Column, *, valid: float, test: float, seed: int) -> Rows:
    """Rows split by a column.

    Args:
        way: "time": what is later is validated and tested on, and what is of one time stays
            together; "group": a group is in one split alone; "given": the column names the split.
        name: of the column.
        by: its cells.
        valid: share of the rows.
        test: share of the rows.
        seed: of the order of groups.

    Raises:
        UserError: for cells that are missing, or that name no split; for a split without rows.
    """
    missing = by.missing
    if missing.any():
        row = int(missing.argmax()) + 1
        raise UserError(
            f'data.by: {missing.sum()} cells of "{name}" are missing, the first in row {row}; fill '
            "them in the file, or split by another column"
        )
    if way == "given":
        return as_given(name, text_cells(by))
    if way == "time":
        if by.kind == "text":
            raise UserError(
                f'data.by: "{name}" holds text like "{by.texts()[0]}", no dates and no numbers; '
                "write dates as 2024-12-31"
            )
        rows = by_time(by.cells, valid, test)
    else:
        rows = by_group(text_cells(by), valid, test, seed)
    wanted = {"train": 1 - valid - test, "valid": valid, "test": test}
    empty = [split for split, share in wanted.items() if share > 0 and not len(rows[split])]
    if empty:
        raise UserError(
            f'data.by: "{name}" has {len(np.unique(by.cells))} different cells, which leave no row '
            f"for {' and '.join(empty)}; give other shares, or split by another column"
        )
    return {split: numbers for split, numbers in rows.items() if len(numbers)}


def by_time(cells: np.ndarray, valid: float, test: float) -> Rows:
    """The earliest rows for training, the latest for the test."""
    order = np.argsort(cells, kind="stable")
    times = cells[order]
    cuts = []
    for share in (1 - valid - test, 1 - test):
        at = round(share * len(order))
        cuts.append(int(np.searchsorted(times, times[at])) if at < len(order) else len(order))
    return dict(zip(NAMES, np.split(order, cuts), strict=True))


def by_group(cells: np.ndarray, valid: float, test: float, seed: int) -> Rows:
    """Whole groups in random order, for the test until it has its share, then for validation."""
    groups, number = np.unique(cells.astype(str), return_inverse=True)
    counts = np.bincount(number)
    order = np.random.default_rng(seed).permutation(len(groups))
    before = np.concatenate([[0], np.cumsum(counts[order])[:-1]]) / len(cells)
    # A group goes where its middle row falls.
    middle = before + counts[order] / 2 / len(cells)
    splits = np.array(["test", "valid", "train"])[np.searchsorted([test, test + valid], middle)]
    of_row = np.empty(len(groups), splits.dtype)
    of_row[order] = splits
    return {split: np.flatnonzero(of_row[number] == split) for split in NAMES}


def as_given(name: str, cells: np.ndarray) -> Rows:
    """Rows by the names of splits in a column."""
    words = np.array([str(cell).strip().lower() for cell in cells])
    known = {word: split for split, words in NAMES.items() for word in words}
    others = sorted(set(words) - set(known))
    if others:
        raise UserError(
            f'data.by: "{name}" holds {first_five(others)}; a column of splits holds train, valid '
            'and test; for groups or times write "split": "group" or "time"'
        )
    rows = {split: np.flatnonzero(np.isin(words, spellings)) for split, spellings in NAMES.items()}
    if not len(rows["train"]):
        raise UserError(f'data.by: no cell of "{name}" is "train"')
    return {split: numbers for split, numbers in rows.items() if len(numbers)}


def names_splits(different: Iterable[str]) -> bool:
    """Whether the different cells of a column name splits, and nothing else."""
    words = {cell.lower() for cell in different}
    every = {word for words in NAMES.values() for word in words}
    return len(words) > 1 and words <= every and bool(words & set(NAMES["train"]))


def lacking(rows: Rows, y: np.ndarray, *, valid: float, seed: int, stratify: bool) -> Rows:
    """Validation rows out of the training rows, where the file gives none."""
    if "valid" in rows or not valid:
        return rows
    own = rows["train"]
    made = dealt_by_chance(y[own], valid=valid, test=0.0, seed=seed, stratify=stratify)
    return rows | {split: own[numbers] for split, numbers in made.items()}


def shares_in_words(rows: Rows) -> str:
    """How many rows each split has."""
    return ", ".join(f"{name} {len(rows[name]):,}" for name in NAMES if name in rows)
