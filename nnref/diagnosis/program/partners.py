"""Rows that a loss calls alike, against those that are: the pairs of a contrastive loss.

Such a loss holds all rows of a batch against each other, in a square matrix, and pulls each row to
one partner. Which one that is stands in the derivative of the loss by the matrix.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.diagnosis.program.rows import numbers
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.diagnosis.thresholds import bound

LEAST = 8  # rows: of fewer, pairs are alike by chance
NEIGHBOURS = "0 and 1, 2 and 3, ..."


class Row(NamedTuple):
    """A row of the matrix: which part of the batch it was made of, and which row of that."""

    leaf: int
    place: int


def partners(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """A contrastive loss that pairs rows which are strangers, while others are alike.

    Two orders are usual for the two views of n samples: all first views before all second ones, or
    the two views of each sample side by side. A loss that counts in one, of rows that stand in the
    other, learns nothing that is true.
    """
    traced = start.training
    params, state, *batch = start.arguments
    leaves = jax.tree.leaves((beside(params, 1.0, 0), state, *batch, jax.random.key(0)))
    for operation in matrices(traced):
        meant = partners_of_loss(traced, operation.outputs[0], leaves)
        rows = None if meant is None else rows_of_the_batch(traced, operation.inputs[0], leaves)
        if meant is None or rows is None:
            continue
        n = len(rows)
        half = (np.arange(n) + n // 2) % n, f"0 and {n // 2}, 1 and {n // 2 + 1}, ..."
        alike = [likeness(values_of(rows, each)) for each in batches_of(start)]
        orders = [half, (np.arange(n) ^ 1, NEIGHBOURS)]
        by_loss, *others = (surplus(alike, order) for order in (meant, *(o for o, _ in orders)))
        most, words = max(others), orders[int(np.argmax(others))][1]
        if most > bound("partners") and by_loss < min(bound("strangers"), most / 2):
            yield fault(
                "loss_mismatch",
                operation.where or start.loss_line,
                f"the loss pulls rows {in_words(meant)} of {n} together, and alike are rows "
                f"{words}: the partners are counted in another order than the rows stand",
                f"the rows that the loss pairs are {by_loss:.1f} standard errors more alike than "
                f"any two, and the others {most:.1f}",
                healthy="the partner of a row is its other view",
                remedy="partner = (jnp.arange(2 * n) + n) % (2 * n) for all first views before all "
                "second ones, jnp.arange(2 * n) ^ 1 for views side by side",
                confidence=0.9,
            )
            return


def batch_places(traced: Trace) -> list[int]:
    """The places among all leaves of those of the batch."""
    return [traced.inputs.index(value) for value in traced.arguments[2]]


def batches_of(start: AtStart | LossAtStart) -> list[list[np.ndarray]]:
    """The leaves of the batches that are at hand."""
    several = start.batches if isinstance(start, LossAtStart) else ()
    return [
        [np.asarray(leaf) for leaf in jax.tree.leaves(b)] for b in several or [start.arguments[2]]
    ]


def values_of(rows: list[Row], batch: list[np.ndarray]) -> np.ndarray:
    """The numbers of which the rows of a matrix are made, (rows, numbers)."""
    return np.stack([np.asarray(batch[row.leaf][row.place], np.float64).ravel() for row in rows])


def matrices(traced: Trace) -> Iterator[Operation]:
    """The products that hold all rows of a batch against each other, on the way to the loss."""
    learned, data = (traced.reached(traced.arguments[place]) for place in (0, 2))
    needed = traced.needed(traced.outputs[:1])
    for op in traced.operations:
        shape = traced.shape(op.outputs[0])
        square = len(shape) == 2 and shape[0] == shape[1] >= LEAST and shape[0] % 2 == 0
        if op.name != "dot_general" or not square or op.outputs[0] not in needed:
            continue
        if all(value in learned and value in data for value in op.inputs):
            yield op


def partners_of_loss(traced: Trace, matrix: int, leaves: list[Any]) -> np.ndarray | None:
    """The one row to which the loss pulls each row, or from which it pushes it alone; None else."""
    loss = traced.outputs[0]

    def of_matrix(values: Any) -> Any:
        return traced.evaluate(leaves, [loss], {matrix: values})[0].astype(jnp.float32)

    (values,) = traced.evaluate(leaves, [matrix])
    if not np.allclose(values, values.T, rtol=1e-3, atol=1e-3 * np.abs(values).max()):
        return None
    slopes = np.asarray(jax.jit(jax.grad(of_matrix))(values), np.float64)
    slopes = slopes + slopes.T
    np.fill_diagonal(slopes, 0)
    if not np.isfinite(slopes).all():
        return None
    alone = [np.flatnonzero(sign * slopes[0] > 0).size == 1 for sign in (1, -1)]
    if alone[0] == alone[1]:
        return None
    odd = slopes > 0 if alone[0] else slopes < 0
    return odd.argmax(1) if (odd.sum(1) == 1).all() else None


def rows_of_the_batch(traced: Trace, value: int, leaves: list[Any]) -> list[Row] | None:
    """The row of the batch of which each row of a value is made; None where it is not of one.

    Rows are exchanged by the digits of their binary numbers: which rows of the value change with
    which digit says of which row each is made.
    """
    evaluate = jax.jit(lambda leaves: traced.evaluate(leaves, [value])[0])
    before = numbers(evaluate(leaves))
    if before.ndim != 2:
        return None
    found: dict[int, Row] = {}
    for leaf, place in enumerate(batch_places(traced)):
        whole = np.asarray(leaves[place])
        if whole.ndim < 2 or whole.dtype.kind != "f":
            continue

        def moved(chosen: np.ndarray, whole: np.ndarray = whole, place: int = place) -> np.ndarray:
            """Which rows of the value change where these rows of the batch do."""
            other = whole.copy()
            other[chosen] += whole.std()
            after = numbers(evaluate([*leaves[:place], other, *leaves[place + 1 :]]))
            return (before != after).any(1)

        rows = np.arange(len(whole))
        digits = range(max(int(np.ceil(np.log2(len(whole)))), 1))
        made = sum(moved(rows >> digit & 1 == 1).astype(int) << digit for digit in digits)
        for row in np.flatnonzero(moved(rows >= 0)):
            if row in found:
                return None
            found[int(row)] = Row(leaf, int(np.asarray(made)[row]))
    once = len(set(found.values())) == len(found) == len(before)
    return [found[row] for row in range(len(before))] if once else None


def likeness(rows: np.ndarray) -> np.ndarray:
    """The correlation of each row with each other one, of columns without their means."""
    centred = rows - rows.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30)
    return unit @ unit.T


def surplus(alike: list[np.ndarray], partner: np.ndarray) -> float:
    """By how many standard errors rows and their partners are more alike than any two rows."""
    n = len(partner)
    apart, scores = ~np.eye(n, dtype=bool), []
    for each in alike:
        error = each[apart].std() / np.sqrt(n / 2)  # each pair stands in the matrix twice
        gain = each[np.arange(n), partner].mean() - each[apart].mean()
        scores.append(float(gain / max(error, 1e-30)))
    return sum(scores) / np.sqrt(len(scores))


def in_words(partner: np.ndarray) -> str:
    """The first two pairs."""
    first, second = int(partner[0]), int(next(i for i in range(1, len(partner)) if i != partner[0]))
    return f"0 and {first}, {second} and {int(partner[second])}, ..."
