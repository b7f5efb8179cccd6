"""The weights of an attention: they sum to 1 over the steps that are weighed."""

from collections.abc import Iterator

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.internals import contracted_axes

NEARLY = 1e-3  # off a sum of 1, for rounding
SHAPES = {"transpose", "reshape", "broadcast_in_dim", "squeeze", "convert_element_type", "copy"}


def other_axis(start: AtStart) -> Iterator[Finding]:
    """Weights of steps that sum to 1 over another axis than the one along which they weigh.

    Scores of queries and keys, (..., queries, keys), are normalized for each query, over the keys
    (Vaswani et al. 2017, section 3.2.1). Over the queries, what one step takes from another
    depends on all steps, those behind it too.
    """
    traced = start.sample.trace
    weights = [found for op in traced.operations for found in weights_of(traced, op)]
    if not weights:
        return
    leaves = jax.tree.leaves((*start.arguments[:3], jax.random.key(0)))
    values = jax.device_get(traced.evaluate(leaves, [value for value, _, _ in weights]))
    for (value, axis, op), numbers in zip(weights, values, strict=True):
        over = [np.asarray(numbers, np.float64).sum(a) for a in range(np.ndim(numbers))]
        ones = [np.abs(sums - 1).max() < NEARLY for sums in over]
        if np.min(numbers) < 0 or ones[axis] or not any(ones):
            continue
        softmax = maker(traced, value)
        yield fault(
            "loss_axis_error",
            (softmax.where if softmax is not None else "") or op.where,
            f"weights of shape {np.shape(numbers)} are summed along axis {axis} with what they "
            f"weigh, and sum to 1 along axis {ones.index(True)}: they are normalized over the "
            "queries, and not over the keys",
            f"sums along axis {axis} from {over[axis].min():.3g} to {over[axis].max():.3g}",
            healthy="1",
            remedy="jax.nn.softmax(scores, axis=-1) of scores (..., queries, keys)",
            confidence=0.95,
        )
        return


def weights_of(traced: Trace, op: Operation) -> Iterator[tuple[int, int, Operation]]:
    """What an operation weighs steps with, and along which axis: a product with a data product.

    Weights stand for pairs: they come of a product of data with data, through an exponential.
    """
    if op.name != "dot_general":
        return
    data = traced.reached(traced.arguments[2])
    for value, axes in zip(op.inputs, contracted_axes(op.equation), strict=True):
        other = op.inputs[1 - op.inputs.index(value)]
        if len(axes) != 1 or not {value, other} <= data:
            continue
        before = traced.needed([value])
        made = [each for each in traced.operations if before & set(each.outputs)]
        scores = [each for each in made if each.name == "dot_general" and data >= set(each.inputs)]
        sources = traced.reached(out for each in scores for out in each.outputs)
        if any(each.name == "exp" and sources & set(each.inputs) for each in made):
            yield value, axes[0], op


def maker(traced: Trace, value: int) -> Operation | None:
    """The operation that gave a value its numbers, before it changed its shape alone."""
    made = traced.makers
    op = made.get(value)
    while op is not None and op.name in SHAPES:
        op = made.get(op.inputs[0])
    return op
