"""Numbers of rows, as the ends of edges, that are filled up with a number which is that of a row.

Where edges of a graph are padded to a set shape with zeros, each of these leads from node 0 to
node 0: its messages arrive as often as there is padding.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop, key_of
from nnref.diagnosis.loop.stepping import Parted, copied, parted
from nnref.diagnosis.thresholds import bound

OUTSIDE = 2**30  # a number that no row has: what is added there is dropped


def filled_up(loop: Loop) -> Iterator[Finding]:
    """Numbers of rows whose padding counts: without it the same steps end at a smaller loss."""
    name, first, (program, *others) = loop.loss_name(), loop.loss(), loop.programs
    if name is None or first is None or program is None or others or not loop.batches:
        return
    for path, line in added_to(program, loop):
        batches = [loop.batch(n) for n in range(loop.count + len(loop.further.losses))]
        if not all(path in parted(batch).arrays for batch in batches):
            continue
        share = float(np.mean([padding(batch, path).mean() for batch in loop.batches]))
        lengths = np.concatenate([padding(batch, path).sum(1) for batch in loop.batches])
        if not bound("of a filler") < share < 1 or not np.ptp(lengths):
            continue
        usual = at_the_end([*first, *loop.further.losses])
        without = at_the_end(losses(loop, emptied(batches, path), name))
        if np.isfinite(without) and without < bound("cured") * usual:
            yield fault(
                "padding_counts",
                f"batch, {path}; {line}",
                f"{share:.0%} of {path or 'its numbers'} are zeros behind the last one of a row, "
                f"and 0 is the number of a row, to which all of them add: with these left out the "
                f"loss after {len(batches)} steps is {without:.3g}, and {usual:.3g} with them",
                f"loss {usual:.3g}, without the filling {without:.3g}",
                remedy=f"fill {path or 'it'} with the number of rows, which no row has: "
                "np.full(shape, rows), or multiply what is added by a mask",
                confidence=0.9,
            )
            return


def padding(batch: Any, path: str) -> np.ndarray:
    """Where the rows of a part hold nothing but zeros up to their end, (rows, places)."""
    numbers = np.asarray(parted(batch).arrays[path])
    return np.flip(np.cumprod(np.flip(numbers == 0, 1), 1), 1).astype(bool)


def emptied(batches: list[Any], path: str) -> list[Any]:
    """The same batches with numbers in the place of the padding that lead nowhere."""
    new = []
    for batch in batches:
        whole = parted(batch)
        numbers = np.where(padding(batch, path), OUTSIDE, np.asarray(whole.arrays[path]))
        new.append(whole.rebuild({**whole.arrays, path: numbers.astype(whole.arrays[path].dtype)}))
    return new


def at_the_end(losses: list[float]) -> float:
    """The median of the last tenth of some losses."""
    return float(np.median(losses[-max(len(losses) // 10, 1) :]))


def losses(loop: Loop, batches: list[Any], name: str) -> list[float]:
    """The loss of each step from the start on these batches."""
    state, values = Parted(copied(loop.start.arrays), loop.start.rebuild), []
    for number, batch in enumerate(batches):
        call = loop.call(loop.steps[0], state, batch, key_of(loop.key, number))
        state = call.after
        values.append(call.metrics.get(name, np.nan))
    return values


def added_to(program: Program, loop: Loop) -> Iterator[tuple[str, str]]:
    """The parts of a batch, (rows, places), that say where the loss adds up, and the line."""
    traced, batch, seen = program.trace, set(program.batch), set[str]()
    loss = program.loss_of(loop)
    needed = traced.needed([loss[0]]) if loss else set()
    for op in traced.operations:
        if not op.name.startswith("scatter") or "add" not in op.name or not op.where:
            continue
        if needed.isdisjoint(op.outputs):
            continue  # of a gradient: behind it rows were looked up
        for value in traced.needed([op.inputs[1]]) & batch:
            path, whole = traced.paths[value], np.dtype(traced.avals[value].dtype).kind in "iu"
            if whole and len(traced.shape(value)) == 2 and path not in seen:
                seen.add(path)
                yield path, op.where
