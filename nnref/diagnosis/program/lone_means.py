"""Means of one number, and norms of all rows: along which axes a batch is summed.

What is left of a number without the mean of itself is 0, and a row that is divided by the norm of
its whole batch has no length of its own.
"""

import math
from collections.abc import Iterable, Iterator

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.internals import reduced_axes

RESHAPED = {"broadcast_in_dim", "reshape", "squeeze", "convert_element_type"}
ON_THE_WAY = RESHAPED | {"div", "mul"}
FEWEST = 2  # numbers that become 0
TO_A_NORM = RESHAPED | {"add", "max", "sqrt", "rsqrt"}  # from a sum of squares
SQUARES = {"mul", "integer_pow", "square"}
NORM_OF_A_ROW = "a norm for each row"


def lone_means(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Of a network and its loss in training, at the size of its batches."""
    traced = start.training
    yield from means_of_one(traced)
    batch = [value for argument in traced.arguments[2:-1] for value in argument]
    yield from norm_of_all(traced, batch, traced.outputs[:1])


def means_of_one(traced: Trace) -> Iterator[Finding]:
    """Numbers from which a mean is taken along an axis of length 1: nothing but 0 is left.

    So is an advantage that is normalized over the episodes of a batch, where that holds one.
    """
    made = traced.makers
    needed, given = traced.needed(traced.outputs), traced.reached(traced.inputs)
    for op in traced.operations:
        if op.name != "sub" or needed.isdisjoint(op.outputs) or given.isdisjoint(op.inputs):
            continue
        value, mean = op.inputs
        total = behind(made, mean)
        if total is None or total.name != "reduce_sum" or traced.size(value) < FEWEST:
            continue
        shape, axes = traced.shape(total.inputs[0]), reduced_axes(total.equation)
        if total.inputs[0] == value and axes and math.prod(shape[axis] for axis in axes) == 1:
            along = ", ".join(map(str, axes))
            yield fault(
                "loss_axis_error",
                op.where,
                f"numbers of shape {shape} lose their mean along axis {along}, which has length 1: "
                "each is its own mean, and nothing but 0 is left",
                "0 everywhere",
                healthy="a mean of many numbers",
                remedy="the mean along the axis of the rows or steps, or over all axes",
                confidence=0.9,
            )
            return


def behind(made: dict[int, Operation], value: int) -> Operation | None:
    """The operation that gave a value, before it was scaled, or changed its shape."""
    op = made.get(value)
    while op is not None and op.name in ON_THE_WAY:
        op = made.get(op.inputs[0])
    return op


def norm_of_all(traced: Trace, batch: Iterable[int], loss: Iterable[int]) -> Iterator[Finding]:
    """Rows that are divided by the norm of all of them, as without an axis a norm is that of all.

    A loss that compares rows then sees numbers that get the smaller the larger the batch is.
    """
    given, needed = traced.reached(batch), traced.needed(loss)
    for op in traced.operations:
        if op.name not in ("div", "mul") or needed.isdisjoint(op.outputs):
            continue
        for value, scale in (op.inputs, op.inputs[::-1])[: 1 + (op.name == "mul")]:
            shape = traced.shape(value)
            if len(shape) < 2 or shape[0] < FEWEST or value not in given:
                continue
            if not is_norm_of(traced, scale, value, given, "sqrt" if op.name == "div" else "rsqrt"):
                continue
            yield fault(
                "loss_axis_error",
                op.where,
                f"the rows of {shape} are divided by one norm, that of all {math.prod(shape)} "
                f"numbers of the batch: a row is left with about 1 / sqrt({shape[0]}) of the "
                "length that is meant, and with less in a larger batch",
                f"one norm for {shape[0]} rows",
                healthy=NORM_OF_A_ROW,
                remedy="jnp.linalg.norm(z, axis=-1, keepdims=True)",
                confidence=0.95,
            )
            return


def is_norm_of(traced: Trace, scale: int, value: int, given: set[int], root: str) -> bool:
    """Whether a value is the root, or one over it, of the sum of all squares of another one."""
    op, roots = traced.makers.get(scale), set[str]()
    while op is not None and op.name in TO_A_NORM:
        roots.add(op.name)
        op = traced.makers.get(next((v for v in op.inputs if v in given), -1))
    if op is None or op.name != "reduce_sum" or traced.size(op.outputs[0]) > 1:
        return False
    squares = traced.makers.get(op.inputs[0])
    if root not in roots or squares is None or squares.name not in SQUARES:
        return False
    if len({*squares.inputs}) > 1:
        return False
    same, maker = squares.inputs[0], traced.makers.get(squares.inputs[0])
    return same == value or (
        maker is not None and maker.name == "reshape" and maker.inputs[0] == value
    )
