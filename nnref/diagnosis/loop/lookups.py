"""Numbers of rows in a batch, such as the ends of the edges of a graph, and the rows they reach."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import parted
from nnref.diagnosis.thresholds import bound
from nnref.internals import last_rows

FEWEST = 16  # rows that are looked up in


def only_the_first(loop: Loop) -> Iterator[Finding]:
    """Rows of a batch that no number looks up in any batch, though they hold something.

    So it is where graphs are joined, and the numbers of their nodes still count from 0 in each.
    """
    for program in filter(None, loop.programs):
        for path, line, count in lookups(program):
            batches = [parted(batch).arrays for batch in loop.batches]
            numbers = [np.asarray(batch[path]) for batch in batches if path in batch]
            used = np.unique(np.concatenate([each.ravel() for each in numbers]))
            used = used[(used >= 0) & (used < count - 1)]  # the last row may be a filling
            reach = int(used.max(initial=-1)) + 1
            rows = {p: leaf for p, leaf in batches[0].items() if np.shape(leaf)[:1] == (count,)}
            left = [p for p, leaf in rows.items() if p != path and differ(leaf, reach)]
            if left and 0 < reach < bound("looked up") * count:
                yield fault(
                    "inputs_ignored",
                    f"batch, {path}; {line}",
                    f"of the {count} rows of {', '.join(left)}, no number of {path} looks up one "
                    f"from {reach} on, in {len(numbers)} batches, and these rows hold something: "
                    "the numbers of each graph still count from 0",
                    f"rows 0 to {reach - 1} of {count}",
                    healthy="rows all over the batch",
                    remedy="add the number of nodes that stand before: senders + offset, where "
                    "offset is the sum of the nodes of the graphs before",
                    confidence=0.9,
                )
                return


def differ(leaf: Any, reach: int) -> bool:
    """Whether most rows behind the reach differ from the last one: what fills a batch does not."""
    rest = np.asarray(leaf)[reach:]
    if not len(rest):
        return False
    others = np.any(rest != rest[-1:], axis=tuple(range(1, rest.ndim)))
    return float(np.mean(others)) > bound("looked up")


def lookups(program: Program) -> Iterator[tuple[str, str, int]]:
    """The parts of a batch that are numbers of other rows of it, the line, and how many these are.

    They are most of the numbers that there are rows: a few, such as the steps that queries are
    about, may well come from the beginning.
    """
    traced, batch = program.trace, program.batch
    own = set(batch)
    rows = {traced.shape(value)[0] for value in batch if traced.shape(value)}
    reached = traced.reached(batch)
    for op in traced.operations:
        if op.name != "gather" or not op.where or op.inputs[0] not in reached:
            continue
        shape, of = traced.shape(op.inputs[0]), traced.needed([op.inputs[1]]) & own
        alone = len(of) == 1 and len(last_rows(op.equation)) == 1
        if not alone or shape[0] not in rows or last_rows(op.equation) != (shape[0] - 1,):
            continue
        (value,) = of
        dtype = np.dtype(traced.avals[value].dtype)
        many = traced.size(value) >= bound("looked up") * shape[0] and shape[0] >= FEWEST
        if many and dtype.kind in "iu":
            yield traced.paths[value], op.where, shape[0]
