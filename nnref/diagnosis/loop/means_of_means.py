"""A mean of the means of parts that hold different numbers of targets: small parts count too much.

Parts are what a step goes through one after the other, adding up gradients, before it updates.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnref import internals
from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import parted
from nnref.diagnosis.thresholds import bound


def of_parts(loop: Loop) -> Iterator[Finding]:
    """A step that stays the same, however much the mask of each part is of its parts.

    A mean of a part does not change where its mask is half as much, and the mean of all targets
    does. Where that holds of each row already, a row is what counts, as it may be meant.
    """
    if len(loop.steps) > 1 or not loop.batches:
        return
    last = len(loop.calls[0]) - 1
    batch = loop.calls[0][last].batch
    for path, mask in masks(batch):
        if not adds_up(loop, path):
            continue
        counts = mask.reshape(len(mask), -1).sum(1)
        if counts.min() <= 0 or counts.max() < bound("unlike parts") * counts.min():
            continue
        rows = mask.shape[:2]
        by_part = np.where(np.arange(rows[0]) % 2, 0.5, 1.0)[:, None] * np.ones(rows)
        by_row = np.where(np.add.outer(range(rows[0]), range(rows[1])) % 2, 0.5, 1.0)
        one = loop.again(0, last)
        parts, each = (loop.again(0, last, scaled(batch, path, s)) for s in (by_part, by_row))
        same = loop.apart(one, parts) < bound("compiled in")
        if same and loop.apart(one, each) > bound("compiled in"):
            yield fault(
                "loss_mismatch",
                f"batch, {path}; {loop.line()}",
                f"the loss is a mean of {len(mask)} means, of parts with {counts.min():.0f} to "
                f"{counts.max():.0f} targets each: the update is the same where the mask of a part "
                "is half as much. A target of a small part counts up to "
                f"{counts.max() / counts.min():.3g} times as much as one of a large part",
                f"{counts.max() / counts.min():.3g} times as many targets in the largest part",
                healthy="a mean over all targets of the batch",
                remedy="divide the sum of each part by the number of targets of the whole batch, "
                "mask.sum() over all parts, and add the parts up",
                confidence=0.85,
            )
            return


def adds_up(loop: Loop, path: str) -> bool:
    """Whether a step scans the parts of a leaf, and carries sums of the shapes of the parameters.

    So it does that adds up gradients; a step that scans time, or rows, carries something else.
    """
    program = loop.programs[0]
    if program is None:
        return False
    traced = program.trace
    leaf = traced.reached(value for value in program.batch if traced.paths[value] == path)
    wanted = Counter(traced.shape(program.old[p]) for p in loop.of("parameter"))
    for op in traced.operations:
        if op.name == "scan":
            scan = internals.scan_of(op.equation)
            scanned = leaf.intersection(op.inputs[scan.consts + scan.carry :])
            carried = Counter(traced.shape(value) for value in op.outputs[: scan.carry])
            if scanned and wanted <= carried:
                return True
    return False


def masks(batch: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The leaves of a batch that say what counts, (parts, rows, ...), where all leaves have parts.

    They are of zeros and ones, as fractions, so that they are multiplied by.
    """
    arrays = parted(batch).arrays
    if len({np.shape(leaf)[:1] for leaf in arrays.values()}) > 1:
        return
    for path, leaf in arrays.items():
        values = np.asarray(leaf)
        if values.ndim > 2 and values.dtype.kind == "f" and set(np.unique(values)) == {0.0, 1.0}:
            yield path, values


def scaled(batch: Any, path: str, factors: np.ndarray) -> Any:
    """A batch whose mask is multiplied, by part and row."""
    whole = parted(batch)
    leaf = whole.arrays[path]
    factors = factors.reshape(*factors.shape, *[1] * (np.ndim(leaf) - 2))
    return whole.rebuild({**whole.arrays, path: jnp.asarray(leaf * factors, leaf.dtype)})
