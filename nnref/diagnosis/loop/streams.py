"""A state that is carried from batch to batch, against the order in which the batches were cut.

Row by row a carried state belongs to the text or series that was read so far: the row of the next
batch has to begin where this one ends.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import Parted, on_host, parted
from nnref.diagnosis.thresholds import bound

FEWEST = 3  # batches, and rows of each


class Stream(NamedTuple):
    """A part of the batches that goes on, and the leaf of the state that is carried with it.

    `rows` are (batches, rows, steps, ...), `last` what follows the end of each row, without steps.
    """

    path: str
    carried: str
    rows: np.ndarray
    last: np.ndarray

    @property
    def begin(self) -> np.ndarray:
        """What each row begins with."""
        return self.rows[:, :, 0]

    def apart(self, batch: int, other: int) -> float:
        """How far what follows a batch is from the beginning of another one.

        Of whole numbers, as of letters, that is how often they differ.
        """
        return distance(self.last[batch], self.begin[other])


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of numbers, or of whole numbers the share of those that differ."""
    if one.dtype.kind in "biu":
        return float(np.mean(one != other))
    return float(np.mean(np.abs(one.astype(float) - other)))


def misplaced(loop: Loop) -> Iterator[Finding]:
    """A state that is carried to rows that do not go on where it comes from."""
    for stream in streams(loop):
        found = list(cut_across(loop, stream)) or list(in_another_order(loop, stream))
        if found:
            yield from found
            return


def cut_across(loop: Loop, stream: Stream) -> Iterator[Finding]:
    """Rows that go on in the next row of their batch, though a state goes on to the next batch."""
    batches, span = range(len(stream.last) - 1), stream.rows.shape[2]
    random = np.random.default_rng(0)
    next_batch = np.mean([stream.apart(i, i + 1) for i in batches])
    next_row = np.mean([distance(stream.last[i][:-1], stream.begin[i][1:]) for i in batches])
    any_row = np.mean(
        [distance(random.permutation(stream.last[i]), stream.begin[i]) for i in batches]
    )
    if next_row < bound("goes on") * any_row and next_batch > bound("elsewhere") * any_row:
        yield fault(
            "state_not_carried",
            f"batch, {stream.path}; {loop.line()}",
            f"each row goes on in the next row of its own batch, and {stream.carried} is carried "
            "to the same row of the next batch, which begins elsewhere: what is remembered belongs "
            "to another place",
            f"from the end of a row to the next row {next_row:.2g}, to the next batch "
            f"{next_batch:.2g}, to any row {any_row:.2g}",
            healthy="row i of a batch begins where row i of the last one ended",
            remedy=f"x = x[:n].reshape(rows, -1, {span}).swapaxes(0, 1), where "
            f"x[:n].reshape(-1, rows, {span}) stands",
            confidence=0.95,
        )


def in_another_order(loop: Loop, stream: Stream) -> Iterator[Finding]:
    """Batches that do not go on in the next one, though a state is carried to it.

    Whole numbers go on exactly, and the batch that follows is looked for among the others. Of
    fractions, a column that moves by little from step to step moves by as little to the next batch.
    """
    within, between = jumps(stream)
    if within < bound("goes on") and between > bound("elsewhere"):
        yield fault(
            "state_not_carried",
            f"batch, {stream.path}; {loop.line()}",
            f"{stream.carried} is carried from batch to batch, and the next batch begins anywhere: "
            "the batches come in an order of their own, and what is remembered belongs to another "
            "place",
            f"of how far any two rows are apart, {within:.2g} from step to step and {between:.2g} "
            "to the next batch",
            healthy="each batch begins where the last one ended",
            remedy="batches in the order of the series, shuffle=False; or a state of zeros for "
            "each batch",
            confidence=0.9,
        )


def jumps(stream: Stream) -> tuple[float, float]:
    """How far steps are apart within the batches and from batch to batch, over any two of them.

    Whole numbers that go on are 0 apart within; fractions are those of their smoothest column.
    """
    whole, count = stream.rows, len(stream.rows)
    if whole.dtype.kind in "biu":
        apart = np.array([[stream.apart(i, j) for j in range(count)] for i in range(count)])
        own = np.eye(count, dtype=bool)
        near = apart < bound("goes on") * np.median(apart[~own])
        known = np.any(near & ~own, axis=1).mean() > bound("goes on somewhere")
        return (0.0 if known else 1.0), 1.0 - float(np.diagonal(near, 1).mean())
    flat = whole.reshape(*whole.shape[:3], -1).astype(float)  # batches, rows, steps, columns
    last, begin = (part.reshape(*part.shape[:2], -1) for part in (stream.last, stream.begin))
    within = np.abs(np.diff(flat, axis=2)).mean((0, 1, 2))
    between = np.abs(begin[1:].astype(float) - last[:-1]).mean((0, 1))
    order = np.random.default_rng(0).permutation(flat.shape[0] * flat.shape[1] * flat.shape[2])
    each = flat.reshape(len(order), -1)
    any_two = np.abs(each - each[order]).mean(0)
    any_two = np.where(any_two > 0, any_two, np.inf)  # a column that stands says nothing
    smooth = int(np.argmin(np.where(np.isinf(any_two), np.inf, within / any_two)))
    return float(within[smooth] / any_two[smooth]), float(between[smooth] / any_two[smooth])


def streams(loop: Loop) -> Iterator[Stream]:
    """The parts of the batches beside which a state is carried, rows first or steps first."""
    rows = [parted(batch).arrays for batch in loop.batches]
    if len(rows) < FEWEST or loop.one_batch:
        return
    for path, leaf in rows[0].items():
        shapes = {np.shape(each[path]) if path in each else () for each in rows}
        if len(shapes) > 1 or np.ndim(leaf) < 2 or min(np.shape(leaf)[:2]) < 2:
            continue
        for axis in (0, 1):
            many = np.shape(leaf)[axis]
            carried = carries(loop, many) if many >= FEWEST else ""
            if carried:
                moved = followers(rows, path)
                whole, after = (
                    np.stack([np.moveaxis(np.asarray(each[p]), axis, 0) for each in rows])
                    for p in (path, moved or path)
                )
                yield Stream(path, carried, whole, after[:, :, -1])
                break


def carries(loop: Loop, rows: int) -> str:
    """A leaf of the state, rows first, that makes a difference and that no optimizer moves."""
    program = loop.programs[0]
    if program is None or len(loop.steps) > 1:
        return ""
    traced = program.trace
    for path, value in program.old.items():
        shape = traced.shape(value)
        other = path not in loop.of("parameter") and path not in loop.optimizers
        if other and len(shape) > 1 and shape[0] == rows and program.is_floating(value):
            read = traced.reached([value]) - {value}
            written = not program.passed_on(path) and program.new[path] in read
            if written and makes_a_difference(loop, path):
                return path
    return ""


def makes_a_difference(loop: Loop, path: str) -> bool:
    """Whether the parameters move otherwise where a leaf is another one, in a later step."""
    call = loop.calls[0][-1]
    other = {**call.before.arrays, path: call.before.arrays[path] + 1}
    again = loop.call(loop.steps[0], Parted(other, call.before.rebuild), call.batch, call.key)
    one, two = on_host(call.after.arrays), on_host(again.after.arrays)
    return any(not np.array_equal(one[p], two[p]) for p in loop.of("parameter"))


def followers(rows: list[dict[str, Any]], path: str) -> str:
    """The part of a batch that is the same rows moved on by one step, such as targets; or ""."""
    first = np.asarray(rows[0][path])
    for other, leaf in rows[0].items():
        moved = np.asarray(leaf)
        alike = other != path and (moved.shape, moved.dtype) == (first.shape, first.dtype)
        if alike and np.array_equal(moved[:, :-1], first[:, 1:]):
            return other
    return ""
