"""Columns: what each column of a table is, and what it is used for."""

import json
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from nnref.data.prepare import first_five, warn
from nnref.data.reading import Column, Table, as_numbers, refuse_unknown, refuse_unread
from nnref.errors import UserError

ID = re.compile(
    r"(?:^|[\s_.-])(?:ids?|uuid|guid|index|idx|row[\s_.-]?(?:names?|ids?|no|nr|num|number)?|no|nr|#)$",
    re.IGNORECASE,
)
CAMEL_ID = re.compile(r"[a-z]I[dD]$")
OF_GROUPS = re.compile(
    r"(?:^|[\s_.-])(?:patient|subject|participant|person|user|customer|client|household|student|"
    r"pupil|speaker|author|animal|session|device)[\s_.-]?(?:ids?|no|nr|num|number|code|key|name)?$",
    re.IGNORECASE,
)
UNNAMED = re.compile(r"column \d+|Unnamed: \d+|__index_level_\d+__")
FEW = 20  # different texts: of so many even a small table may have categories
WORDS = 6  # of a cell on average, beyond which it is prose
LOOKED_AT = 500  # rows in which different numbers are counted, before all are

ColumnKind = Literal["number", "date", "category"]
Inputs = dict[str, ColumnKind]
"""The columns to learn from, and as what."""


class Use(NamedTuple):
    """A line of the table that is told before training."""

    column: str
    type: str
    missing: int
    unique: str
    use: str


def uses_of(
    table: Table,
    target: str,
    by: str,
    *,
    inputs: Sequence[str] = (),
    drop: Sequence[str] = (),
    categories: Sequence[str] = (),
) -> tuple[Inputs, dict[str, str]]:
    """The columns to learn from, and why each other one is left out.

    Args:
        table: with the target.
        target: the column to predict.
        by: the column that the rows are split by; "" where there is none.
        inputs: the columns to learn from; none for all that can be used.
        drop: columns to leave out.
        categories: columns of numbers that name categories.

    Raises:
        UserError: for names that are no columns, prose, and numbers with a few words among them.
    """
    if not set(table) - {target}:
        raise UserError(f'data: there is no column beside the target "{target}"')
    for key, names in (("inputs", inputs), ("drop", drop), ("categories", categories)):
        refuse_unknown(key, names, table)
        refuse_unread(key, names if key != "drop" else (), table)
    both = [name for name in drop if name in (*inputs, *categories, target)]
    if both:
        raise UserError(f'data.drop: "{both[0]}" is to be used and to be left out')
    chosen: Inputs = {}
    left: dict[str, str] = {}
    for name, column in table.items():
        if name == target or (name == by and name not in inputs):
            continue
        reason = ""
        if name in drop:
            reason = '"drop" names it'
        elif inputs and name not in inputs:
            reason = '"inputs" does not name it'
        elif not inputs:
            reason = useless(name, column)
        text = column.kind == "text"
        if not reason and name not in (*inputs, *categories):
            if text:
                refuse_prose(name, column)
                refuse_mixed(name, column)
            reason = nameless(name, column)
        if reason:
            left[name] = reason
            continue
        chosen[name] = "category" if text or name in categories else column.kind  # type: ignore
    if not chosen:
        reasons = "; ".join(f"{name}: {why}" for name, why in left.items())
        unread = all(table[name].unread for name in left)
        raise UserError(
            f"data: no column is left to learn from ({reasons or 'the target is the only one'}); "
            + ("save their numbers in columns of their own" if unread else 'name some in "inputs"')
        )
    return chosen, left


# --- what a column is -----------------------------------------------------------------------------

NUMBERED = "numbers the rows"


def useless(name: str, column: Column) -> str:
    """Why nothing can be learned from a column, in words; "" where something may be."""
    if column.unread:
        return f"its cells are of the type {column.spelling}"
    cells = column.cells
    if cells[0] == cells[0] and len(cells) > 1 and (cells[1:2] != cells[0]).all():
        return ""  # as the first two cells tell of most columns
    missing = column.missing
    if missing.all():
        return "empty"
    if not missing.any() and (cells[:2] == cells[0]).all() and (cells == cells[0]).all():
        return "the same in every row"
    return ""


def nameless(name: str, column: Column) -> str:
    """Why a column only tells rows, or groups of them, apart; "" where it says more."""
    called = bool(ID.search(name) or CAMEL_ID.search(name) or UNNAMED.fullmatch(name))
    if column.kind == "date" or (column.kind == "number" and not called):
        return ""
    if called and numbers_the_rows(column):
        return NUMBERED
    present = column.cells[~column.missing]
    if column.kind == "number" and (present != np.rint(present)).any():
        return ""
    different = len(np.unique(present))
    if different == len(present) > 2:
        return "every row has its own"
    if called:
        return f"an id: {different} for {len(present)} rows"
    if different > max(FEW, len(present) / 2):
        return f"nearly every row has its own: {different} in {len(present)}"
    return ""


def names_groups(name: str, column: Column) -> bool:
    """Whether a column is called as what has several rows, and tells as many of them apart."""
    numbers = column.kind == "number"
    if column.kind == "date" or not OF_GROUPS.search(name):
        return False
    cells = column.cells[~column.missing]
    return len(np.unique(cells)) > FEW and not (numbers and (cells != np.rint(cells)).any())


def numbers_the_rows(column: Column) -> bool:
    """Whether a column counts from 0 or 1 in the order of the rows."""
    first, rows = column.cells[0], len(column.cells)
    counts = column.kind == "number" and first in (0, 1) and column.cells[-1] == first + rows - 1
    return bool(counts and np.array_equal(column.cells, np.arange(first, first + rows)))


def refuse_prose(name: str, column: Column) -> None:
    """Raise for text that is no category: it takes a network of another kind."""
    different = column.counts
    words = sum(len(cell.split()) for cell in different) / max(len(different), 1)
    if len(different) > FEW and words > WORDS:
        raise UserError(
            f'data: "{name}" holds prose, {words:.0f} words a cell, and no network here reads it '
            f'in a table; write "drop": ["{name}"]{or_categories(name, column)}'
        )


def refuse_mixed(name: str, column: Column) -> None:
    """Raise for numbers with a few words among them."""
    counts = column.counts
    words = [cell for cell in counts if as_numbers([cell], "") is None]
    bad, rows = sum(counts[cell] for cell in words), sum(counts.values())
    if len(counts) - len(words) > FEW and bad < rows / 10:
        row = int(np.isin(column.cells, [column.words.index(word) for word in words]).argmax())
        every = f'"missing": {json.dumps(words, ensure_ascii=False)}, ' if len(words) <= FEW else ""
        raise UserError(
            f'data: "{name}" holds {rows - bad} numbers and {bad} cells that are none, the first '
            f'in row {row + 1}: "{column.words[column.cells[row]]}"; correct them in the file, or '
            f'write {every}"drop": ["{name}"]{or_categories(name, column)}'
        )


def or_categories(name: str, column: Column) -> str:
    """What else may be written of a column of text whose cells come back; "" of others."""
    counts = column.counts
    return f' or "categories": ["{name}"]' if 2 * len(counts) <= sum(counts.values()) else ""


def unique_in_words(column: Column) -> str:
    """How many different cells there are, counted in the first rows where these are many."""
    cells = column.cells
    if column.kind == "text":
        return str(len(column.counts))
    some = np.unique(cells[:LOOKED_AT])
    if len(some) > LOOKED_AT / 4 and len(cells) > LOOKED_AT:
        return f">{len(some)}"
    every = np.unique(cells)
    return str(len(every) - int(len(every) and every[-1] != every[-1]))


def warn_left_out(table: Table, chosen: Inputs, left: dict[str, str]) -> None:
    """Warn of the columns that are left out though nobody asked for it, and of row numbers."""
    sentences = {name: f"{name} ({why})" for name, why in left.items() if '"' not in why}
    own = [words for name, words in sentences.items() if not table[name].unread]
    unread = [words for words in sentences.values() if words not in own]
    if unread:
        warn(
            f"data: {len(unread)} columns are left out: {first_five(unread)}; to learn from them, "
            "save each of their numbers in a column of its own"
        )
    if own:
        warn(
            f"data: {len(own)} columns are left out: {first_five(own)}; to learn from them all the "
            'same, name the columns in "inputs"'
        )
    for name in chosen if len(chosen) > 1 else ():
        if len(table[name].cells) > FEW and numbers_the_rows(table[name]):
            warn(
                f'data: "{name}" only counts the rows; if that is all that it does, write '
                f'"drop": ["{name}"]'
            )
