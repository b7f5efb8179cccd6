"""A state that is carried from batch to batch, against the order in which the batches were cut."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import parted
from nnref.diagnosis.thresholds import bound

FEWEST = 3  # batches, and rows of each


class Ends(NamedTuple):
    """How far the end of a row is from where a row begins, on average."""

    next_batch: float  # from the same row of the batch that follows
    next_row: float  # from the next row of its own batch
    any_row: float  # from any row


def cut_across(loop: Loop) -> Iterator[Finding]:
    """Rows that go on in the next row of their batch, though a state goes on to the next batch.

    Row by row a carried state belongs to the text or series that was read so far: the row of the
    next batch has to begin where this one ends.
    """
    rows = [parted(batch).arrays for batch in loop.batches]
    if len(rows) < FEWEST:
        return
    for path, leaf in rows[0].items():
        whole = [np.asarray(each[path]) for each in rows if path in each]
        alike = len({part.shape for part in whole}) == 1 and len(whole) == len(rows)
        if leaf.ndim < 2 or not alike or len(leaf) < FEWEST or leaf.shape[1] < 2:
            continue
        carried = carries(loop, len(leaf))
        found = ends(whole, followers(rows, path)) if carried else None
        if found is None or found.any_row == 0:
            continue
        near, far = bound("goes on") * found.any_row, bound("elsewhere") * found.any_row
        if found.next_row < near and found.next_batch > far:
            span = leaf.shape[1]
            yield fault(
                "state_not_carried",
                f"batch, {path}; {loop.line()}",
                f"each row goes on in the next row of its own batch, and {carried} is carried to "
                "the same row of the next batch, which begins elsewhere: what is remembered "
                "belongs to another place",
                f"from the end of a row to the next row {found.next_row:.2g}, to the next batch "
                f"{found.next_batch:.2g}, to any row {found.any_row:.2g}",
                healthy="row i of a batch begins where row i of the last one ended",
                remedy=f"x = x[:n].reshape(rows, -1, {span}).swapaxes(0, 1), where "
                f"x[:n].reshape(-1, rows, {span}) stands",
                confidence=0.95,
            )
            return


def carries(loop: Loop, rows: int) -> str:
    """A leaf of the state, rows first, that is read and written and that no optimizer moves."""
    program = loop.programs[0]
    if program is None:
        return ""
    traced = program.trace
    for path, value in program.old.items():
        shape = traced.shape(value)
        other = path not in loop.of("parameter") and path not in loop.optimizers
        if other and len(shape) > 1 and shape[0] == rows and program.is_floating(value):
            read = traced.reached([value]) - {value}
            if not program.passed_on(path) and program.new[path] in read:
                return path
    return ""


def followers(rows: list[dict[str, Any]], path: str) -> list[np.ndarray] | None:
    """The part of a batch that is the same rows moved on by one step, such as the targets."""
    first = np.asarray(rows[0][path])
    for other, leaf in rows[0].items():
        moved = np.asarray(leaf)
        alike = other != path and (moved.shape, moved.dtype) == (first.shape, first.dtype)
        if alike and np.array_equal(moved[:, :-1], first[:, 1:]):
            return [np.asarray(each[other]) for each in rows]
    return None


def ends(rows: list[np.ndarray], moved: list[np.ndarray] | None) -> Ends:
    """How far what follows the end of each row is from the beginning of others.

    Of whole numbers, as of letters, that is how often they differ.
    """
    last = [part[:, -1] for part in (moved or rows)]
    begin = [part[:, 0] for part in rows]

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        if one.dtype.kind in "biu":
            return float(np.mean(one != other))
        return float(np.mean(np.abs(one.astype(float) - other)))

    batches = range(len(rows) - 1)
    random = np.random.default_rng(0)
    return Ends(
        float(np.mean([apart(last[i], begin[i + 1]) for i in batches])),
        float(np.mean([apart(last[i][:-1], begin[i][1:]) for i in batches])),
        float(np.mean([apart(random.permutation(last[i]), begin[i]) for i in batches])),
    )
