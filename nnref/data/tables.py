"""Tables: from the columns of a file to targets, the rows of each split, and inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnref.data.columns import (
    Inputs,
    Use,
    names_groups,
    unique_in_words,
    uses_of,
    warn_left_out,
)
from nnref.data.doubts import copies_of_the_target, groups_in_two_splits, time_order
from nnref.data.encoding import Dates, Encoder, Fill
from nnref.data.folders import Colors
from nnref.data.labels import Kind
from nnref.data.prepare import first_five, warn
from nnref.data.reading import Column, Table, as_numbers, read_table, refuse_unread
from nnref.data.splitting import Rows, Way, dealt, names_splits
from nnref.errors import UserError, nearest


class Keys(NamedTuple):
    """What an experiment file says about a file of data; see `file`."""

    path: str
    target: str = ""
    kind: Kind = "auto"
    valid: float = 0.15
    test: float = 0.15
    standardized: bool = True
    standardized_targets: bool | None = None
    seed: int = 0
    inputs: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    embedding: int | None = None
    dates: Dates = "cyclic"
    fill: Fill = "median"
    missing: tuple[str, ...] = ()
    split: Way = "random"
    by: str = ""
    balance: bool = False
    resize: tuple[int, ...] = ()
    colors: Colors = "auto"


OF_TABLES = (
    *("inputs", "drop", "categories", "embedding"),
    *("dates", "fill", "missing", "split", "by"),
)
"""The keys that only a table has a use for."""
OF_IMAGES = ("resize", "colors")
"""Likewise a folder of images."""


class Made(NamedTuple):
    """Inputs of a file, (rows, ...), one split after the other, and what made them."""

    x: np.ndarray
    columns: tuple[str, ...] = ()
    encoder: Encoder | None = None
    table: tuple[Use, ...] = ()
    files: tuple[str, ...] = ()
    note: str = ""


class FileContents(NamedTuple):
    """The targets of a file, and what makes its inputs once it is known what is trained on.

    Attributes:
        y: targets as they stand in the file, (rows, ...).
        rows: of the splits, where the file or a column decides them; None for chance.
        inputs: called with the rows of the splits, gives them one split after the other.
        places: numbers of the rows in the file, from 1, (rows,).
    """

    y: np.ndarray
    rows: Rows | None
    inputs: Callable[[Rows], Made]
    places: np.ndarray


def table_contents(where: Path, keys: Keys) -> FileContents:
    """What a table holds.

    Raises:
        UserError: for a target or a column that is not there, and what cannot be learned from.
    """
    table = read_table(where, keys.missing)
    if keys.target not in table:
        names = list(table)
        problem = f'{where} has no column "{keys.target}"; its columns are'
        if not keys.target:
            problem = f"name what is to be predicted; the columns of {where} are"
        numbers = as_numbers(names, ",") is not None
        hint = "; these are numbers: is there a line of names above the rows?" if numbers else ""
        raise UserError(
            f"data.target: {problem} {', '.join(names)}{nearest(keys.target, names)}{hint}"
        )
    refuse_unread("target", [keys.target], table)
    if (keys.split == "random") == bool(keys.by):
        raise UserError(
            f'data.split: "{keys.split}" given, and data.by "{keys.by}"; a split by time, by group '
            'or as given names a column: "split": "time", "by": "date"'
        )
    if keys.by and keys.by not in table:
        raise UserError(
            f'data.by: {where} has no column "{keys.by}"; its columns are {", ".join(table)}'
            f"{nearest(keys.by, list(table))}"
        )
    places = 1 + np.flatnonzero(~table[keys.target].missing)
    table = with_targets(table, keys.target)
    how = {"inputs": keys.inputs, "drop": keys.drop, "categories": keys.categories}
    chosen, left = uses_of(table, keys.target, keys.by, **how)
    warn_left_out(table, chosen, left)
    shares = {"valid": keys.valid, "test": keys.test, "seed": keys.seed}
    rows = dealt(keys.split, keys.by, table[keys.by], **shares) if keys.by else None

    def inputs(rows_dealt: Rows) -> Made:
        encoder = Encoder(chosen, keys.fill, keys.dates, keys.missing, keys.embedding)
        encoder.fit(table, rows_dealt["train"])
        x = encoder(table, np.concatenate(list(rows_dealt.values())))
        warn_gaps(table, chosen, keys.fill)
        warn_doubts(table, keys, chosen, left, rows_dealt)
        uses = uses_in_words(table, keys, chosen, left, encoder)
        return Made(x, tuple(encoder.names), encoder, uses)

    return FileContents(target_cells(keys.target, table[keys.target]), rows, inputs, places)


def with_targets(table: Table, target: str) -> Table:
    """The rows of a table that have a target; a warning says how many have none.

    Raises:
        UserError: where none has.
    """
    missing = table[target].missing
    if not missing.any():
        return table
    if missing.all():
        raise UserError(f'data.target: all {len(missing)} cells of "{target}" are missing')
    warn(
        f'data: {missing.sum()} of {len(missing)} rows have no "{target}", the first is row '
        f"{missing.argmax() + 1}; they are left out"
    )
    return {name: column.at(~missing) for name, column in table.items()}


def target_cells(name: str, column: Column) -> np.ndarray:
    """Targets as numbers or as text, (rows,)."""
    if column.kind == "date":
        raise UserError(f'data.target: "{name}" holds dates; numbers and text can be predicted')
    return column.cells if column.kind == "number" else column.texts().astype(str)


def warn_gaps(table: Table, chosen: Inputs, fill: Fill) -> None:
    """Warn of gaps among the inputs, and say what stands in them."""
    numbers, texts = [], []
    for name, kind in chosen.items():
        if count := table[name].gaps:
            (texts if kind == "category" else numbers).append(f"{name}: {count}")
    if numbers:
        warn(
            f"data: numbers are missing in {len(numbers)} columns ({first_five(numbers)}); the "
            f"{fill} of the training rows stands there, and a further column says where"
        )
    if texts:
        warn(
            f"data: text is missing in {len(texts)} columns ({first_five(texts)}); "
            '"missing" is a category of its own'
        )


def warn_doubts(table: Table, keys: Keys, chosen: Inputs, left: dict[str, str], rows: Rows) -> None:
    """Warn of what makes the figures of a table too good."""
    for warning in copies_of_the_target(table, keys.target, list(chosen)):
        warn(warning)
    if keys.split == "random":
        ids = [name for name, why in left.items() if why.startswith("an id")]
        ids += [name for name in chosen if names_groups(name, table[name])]
        dates = [name for name, kind in chosen.items() if kind == "date"]
        for warning in (*groups_in_two_splits(table, ids, rows), *time_order(table, dates, rows)):
            warn(warning)
        for name in [each for each in chosen if each not in keys.inputs]:
            if chosen[name] == "category" and names_splits(table[name].counts):
                warn(
                    f'data: "{name}" holds the names of splits, and is an input like others; to '
                    f'split by it, write "split": "given", "by": "{name}"'
                )


def uses_in_words(
    table: Table, keys: Keys, chosen: Inputs, left: dict[str, str], encoder: Encoder
) -> tuple[Use, ...]:
    """A line for each column: its type, its gaps, its different cells, and its use."""
    uses = []
    for name, column in table.items():
        if name == keys.target:
            use = "target"
        elif name in left:
            use = f"left out: {left[name]}"
        elif name not in chosen:
            use = f"split: {keys.split}"
        else:
            made = [each for each in encoder.names if each.startswith((f"{name}=", f"{name}: "))]
            use = f"input, {len(made)} columns" if made[1:] else "input"
            if name in encoder.numbered:
                use = "input, {} vectors of {} numbers".format(*encoder.vectors[name])
            use += f", gaps filled: {keys.fill}" if f"{name} missing" in encoder.names else ""
        spelled = f", {column.spelling}" if column.spelling else ""
        kind = "category" if chosen.get(name) == "category" else column.kind
        uses.append(Use(name, kind + spelled, column.gaps, unique_in_words(column), use))
    return tuple(uses)
