"""Outputs and targets of unequal shapes that fill a matrix, in a bare loss or a tree of outputs."""

from collections.abc import Iterator

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.diagnosis.program.tracing import COMPARISONS, PRODUCTS, Operation, Trace
from nnref.internals import place_of, reduced_axes

MEETINGS = {"add", "sub", "mul", "div", "max", "min", "pow", "atan2", *COMPARISONS}
SPREADS = {"broadcast_in_dim", "reshape"}


def broadcasts(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Operations that hold what the network gives for each row against the data of every row.

    Of n rows they make n times n numbers: number (i, j) is of output i and of target j alone.
    """
    if isinstance(start, AtStart) and start.sample.outputs is not None:
        yield from column_of_classes(start)
        return  # one array of outputs: the loss is asked itself
    traced = start.training
    network = traced.reached(traced.arguments[0])
    data = traced.reached(traced.arguments[2] + traced.arguments[3])
    needed = traced.needed(traced.outputs[:1])
    rows = {np.shape(leaf)[0] for leaf in jax.tree.leaves(start.arguments[2:]) if np.ndim(leaf)}
    for op in traced.operations:
        crossed = axes_of(traced.shape(op.outputs[0]), rows)
        if op.name not in MEETINGS or not needed & set(op.outputs) or crossed is None:
            continue
        sides = [value for value in op.inputs if value in network]
        others = [value for value in op.inputs if value in data and value not in network]
        if len(sides) == len(others) == 1 and crosses(start, op, sides[0], others[0], crossed):
            first, second = (shape_before(traced, value) for value in (sides[0], others[0]))
            result = traced.shape(op.outputs[0])
            yield fault(
                "loss_broadcast",
                op.where or start.loss_line,
                f"what the network gives, {first}, and data of the batch, {second}, meet in "
                f"{op.name} and give {result}: each row is held against the data of all",
                f"{result}",
                healthy=f"{first} and {first}",
                remedy=f"both of one shape: y.reshape({first}), or outputs[:, 0] where y has one "
                "axis",
                confidence=0.95,
            )
            return
    yield from promotions(traced, rows)


def column_of_classes(start: AtStart) -> Iterator[Finding]:
    """Classes as a column, of which a loss makes something else than of the same in one axis.

    So does a mask of equal classes: labels (n, 1) give one more axis than labels (n,).
    """
    y, outputs = start.sample.y, start.outputs
    column = np.issubdtype(y.dtype, np.integer) and y.shape == (len(y), 1)
    if not column or outputs.ndim != 2 or outputs.shape[1] < 2 or start.row_by_row:
        return
    drawn = np.random.default_rng(0).normal(size=outputs.shape).astype(np.float32)
    try:
        as_given, flat = (
            float(np.sum(start.recipe.loss(drawn, labels))) for labels in (y, y[:, 0])
        )
    except (TypeError, ValueError):
        return  # it takes no other shape
    if np.isfinite([as_given, flat]).all() and not np.isclose(as_given, flat, rtol=1e-3):
        yield fault(
            "loss_broadcast",
            start.loss_line,
            f"targets of shape {y.shape} give another loss than the same ones of shape "
            f"{y[:, 0].shape}: a comparison of all rows has one axis more than it was written for",
            f"{as_given:.4g} and {flat:.4g} for the same outputs",
            healthy="the same loss",
            remedy="y = y[:, 0], or y.reshape(-1), before the loss",
            confidence=0.9,
        )


def promotions(traced: Trace, rows: set[int]) -> Iterator[Finding]:
    """A number for each row that meets a column of them, and is spread over it without a word.

    Who means it writes an axis: x[:, None] - x[None, :], or x[:, None] - x. Here one side, (n,),
    became (1, n) in the very expression in which it meets the other, (n, 1), and that was a column
    before. Where n is not the length of the batch, as behind a reshape, more is asked for: both
    depend on what the program is given, no axis was written, and all of the square is summed.
    """
    made = traced.makers
    given = traced.reached(traced.inputs)
    for op in traced.operations:
        shape = traced.shape(op.outputs[0])
        of_rows = axes_of(shape, rows)
        crossed = of_rows or axes_of(shape, set(shape))
        if op.name not in MEETINGS or crossed is None or len(op.inputs) != 2:
            continue
        for row, column in (op.inputs, op.inputs[::-1]):
            spread, shape = made.get(row), traced.shape(column)
            if (
                spread is not None
                and spread.name == "broadcast_in_dim"
                and traced.shape(spread.inputs[0]) == traced.shape(op.outputs[0])[crossed[1] :]
                and len(shape) > crossed[1]
                and shape[crossed[1]] == 1
                and place_of(spread.equation) == place_of(op.equation) is not None
                and not is_written(made, op, spread.inputs[0], column)
                and (of_rows or (given >= {row, column} and not has_new_axis(made, column)))
                and is_unmeant(traced, op, crossed, bool(of_rows))
            ):
                first, second = shape, traced.shape(spread.inputs[0])
                yield fault(
                    "loss_broadcast",
                    op.where,
                    f"{first} and {second} meet in {op.name} and give "
                    f"{traced.shape(op.outputs[0])}: each row is held against all the others",
                    f"{traced.shape(op.outputs[0])}",
                    healthy=f"{second} and {second}",
                    remedy=f"both of one shape: one.reshape(other.shape), or one[:, 0] of {first}",
                    confidence=0.9,
                )
                return


def is_written(made: dict[int, Operation], op: Operation, row: int, column: int) -> bool:
    """Whether a column was made of the row that it meets, or of another one on the same line."""
    maker = made.get(column)
    if maker is None or maker.name not in SPREADS:
        return False
    (_, line, *_), (_, other, *_) = (place_of(each.equation) or ("", 0) for each in (maker, op))
    return line == other or before(made, column) == before(made, row)


def has_new_axis(made: dict[int, Operation], column: int) -> bool:
    """Whether a column is a row of numbers that was given one more axis, as a[:, None] does."""
    maker = made.get(column)
    return maker is not None and maker.name == "broadcast_in_dim"


def is_unmeant(traced: Trace, op: Operation, axes: tuple[int, int], unsummed: bool) -> bool:
    """Whether a square is nothing but columns and rows until all of it is summed.

    Where pairs are meant, it meets what was made for pairs, such as a product of matrices or a
    mask: |x|² + |y|² - 2 x·y of a kernel. `unsummed` is what is said where it is never summed.
    """
    alone, square, summed = (
        squares_alone(traced, traced.shape(op.outputs[0])),
        set(op.outputs),
        False,
    )
    for other in traced.operations:
        if square.isdisjoint(other.inputs):
            continue
        if other.name == "reduce_sum":
            summed |= set(axes) <= set(reduced_axes(other.equation))
        elif traced.shape(other.outputs[0]) == traced.shape(op.outputs[0]):
            if alone.isdisjoint(other.outputs):
                return False
            square.update(other.outputs)
    return summed or unsummed


def squares_alone(traced: Trace, shape: tuple[int, ...]) -> set[int]:
    """The values of a shape that are computed, number by number, of smaller ones alone."""
    found: set[int] = set()
    for op in traced.operations:
        parts = [traced.shape(value) for value in op.inputs]
        whole = {value for value, part in zip(op.inputs, parts, strict=True) if part == shape}
        fits = all(
            len(part) in (0, len(shape))
            and all(a in (1, b) for a, b in zip(part, shape, strict=False))
            for part in parts
        )
        spread = op.name == "broadcast_in_dim" or (op.name not in PRODUCTS and parts and fits)
        if traced.shape(op.outputs[0]) == shape and spread and whole <= found:
            found.update(op.outputs)
    return found


def axes_of(shape: tuple[int, ...], rows: set[int]) -> tuple[int, int] | None:
    """The two axes of a shape that are both as long as the batch."""
    for size in rows:
        axes = [axis for axis, length in enumerate(shape) if length == size > 2]
        if len(axes) == 2:
            return axes[0], axes[1]
    return None


def crosses(
    start: AtStart | LossAtStart, op: Operation, side: int, other: int, axes: tuple[int, int]
) -> bool:
    """Whether one side differs along one of two axes alone, and the other along the other."""
    traced = start.training
    params, *rest = start.arguments
    leaves = jax.tree.leaves((beside(params, 1.0, 0), *rest, jax.random.key(0)))
    evaluated = jax.jit(lambda leaves: traced.evaluate(leaves, [side, other]))(leaves)
    shape = traced.shape(op.outputs[0])
    differs = []
    for value in evaluated:
        whole = np.broadcast_to(np.asarray(value, np.float64), shape)
        differs.append([bool(np.any(whole != whole.take([0], axis))) for axis in axes])
    return sorted(differs) == [[False, True], [True, False]]


def shape_before(traced: Trace, value: int) -> tuple[int, ...]:
    """The shape of a value before it was spread or given further axes."""
    made = traced.makers
    return traced.shape(before(made, value))


def before(made: dict[int, Operation], value: int) -> int:
    """A value before it was spread or given further axes."""
    while value in made and made[value].name in SPREADS:
        value = made[value].inputs[0]
    return value
