"""Means of one number: what is left of a number without the mean of itself is 0."""

import math
from collections.abc import Iterator

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.internals import reduced_axes

ON_THE_WAY = {"div", "mul", "broadcast_in_dim", "reshape", "squeeze", "convert_element_type"}
FEWEST = 2  # numbers that become 0


def lone_means(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Of a network and its loss in training, at the size of its batches."""
    yield from means_of_one(start.training)


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
