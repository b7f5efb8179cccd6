"""The terms of which a loss is the sum, each with its line, its value and its gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.diagnosis.thresholds import bound

# What a sum of terms passes through unchanged, but for a factor.
LINEAR = {"neg", "convert_element_type", "reshape", "squeeze", "broadcast_in_dim", "reduce_sum"}
SUMS = ("add", "add_any", "sub")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "dot_general")


class Term(NamedTuple):
    """A part of the loss: what it adds to it, and the length of what it adds to the gradient."""

    where: str  # the line that computes it
    value: float
    gradient: float
    of_targets: bool  # whether targets have a part in it, or constants do: a penalty has none


def terms(start: AtStart | LossAtStart, params: Any, state: Any) -> list[Term]:
    """The terms of the loss in training at some parameters, fewer than two where it is no sum.

    A sum counts where each side was reduced before, over units or rows: what is added number by
    number, as within a cross-entropy, is one term.
    """
    traced = start.training
    if isinstance(start, LossAtStart):
        sources, targets = traced.arguments[0], meetings(traced)
    else:
        results = len(jax.tree.leaves(start.sample.tree))
        sources, targets = traced.outputs[1 : 1 + results], traced.reached(traced.arguments[3])
    parts = split(traced, traced.outputs[0], sources, whole=True)
    _, _, x, y = start.arguments
    key = jax.random.key(0)
    zeros = {part: jnp.zeros(traced.shape(part), traced.avals[part].dtype) for part in parts}

    def alone(part: int) -> Any:
        others = {other: zero for other, zero in zeros.items() if other != part}

        def loss(params: Any) -> Any:
            leaves = jax.tree.leaves((params, state, x, y, key))
            return traced.evaluate(leaves, [traced.outputs[0]], others)[0].astype(jnp.float32)

        return jax.jit(jax.value_and_grad(loss))

    nothing = jax.tree.map(jnp.zeros_like, params)
    summands = []
    for part in parts if len(parts) > 1 else []:
        term = alone(part)
        value, gradient = term(params)
        squares = [float((np.asarray(g, float) ** 2).sum()) for g in jax.tree.leaves(gradient)]
        where = line_of(traced, part)
        # What is not least where all parameters are 0, as a boundary value is not, is no penalty.
        wants = part in targets or float(term(nothing)[0]) > float(value)
        summands.append(Term(where, float(value), float(np.sqrt(sum(squares))), wants))
    return summands


def meetings(traced: Trace) -> set[int]:
    """All that comes of operations where the batch meets what the network has made of it."""
    learned, data = traced.reached(traced.arguments[0]), traced.reached(traced.arguments[2])
    met = [
        op
        for op in traced.operations
        if learned & data & set(op.inputs) and (data - learned) & set(op.inputs)
    ]
    return traced.reached(out for op in met for out in op.outputs)


def outweighed(first: list[Term], last: list[Term]) -> Finding | None:
    """A term without targets that the training served alone, in a network that learned nothing.

    Its gradient is not far shorter than theirs at the start, and it falls to nearly nothing while
    the terms of the targets stay. To be asked where a network does no better than a constant.

    Args:
        first: the terms at the first parameters.
        last: at the last ones.
    """
    data = [term for term in last if term.of_targets]
    pull = sum(term.gradient for term in first if term.of_targets)
    for before, after in zip(first, last, strict=True):
        served = abs(after.value) < bound("served") * abs(before.value)
        pulls = before.gradient > bound("pulls") * pull
        if before.of_targets or after.of_targets or not (data and served and pulls):
            continue
        return fault(
            "excessive_regularization",
            before.where,
            f"the term of this line has no targets, and {before.gradient / max(pull, 1e-30):.3g} "
            f"times the gradient of those that have ({data[0].where}) at the start: training "
            f"takes it from {before.value:.3g} to {after.value:.3g}, and they stay at "
            f"{sum(term.value for term in data):.3g}",
            f"{before.gradient / max(pull, 1e-30):.3g} times the gradient",
            healthy="below that of the terms with targets",
            remedy="sum both over the units, or take the mean of both; or a factor before this one",
            confidence=0.8,
        )
    return None


def split(traced: Trace, value: int, outputs: list[int], *, whole: bool) -> list[int]:
    """The values that add up to a value; `whole` as long as it was not split yet."""
    makers = traced.makers
    moved = traced.reached(traced.arguments[0])
    of_outputs = traced.reached(outputs)
    reduced = traced.reached(
        out
        for op in traced.operations
        if op.name in REDUCTIONS and op.inputs[0] in of_outputs
        for out in op.outputs
        if traced.size(out) < traced.size(op.inputs[0])
    )
    at = value
    while at in makers:
        op = makers[at]
        alive = [v for v in op.inputs if v in moved]
        if op.name in SUMS and len(alive) == 2 and reduced.issuperset(alive):
            return [part for v in alive for part in split(traced, v, outputs, whole=False)]
        scales = op.name == "mul" or (op.name == "div" and op.inputs[0] in moved)
        passes = op.name in LINEAR and (whole or op.name != "reduce_sum") or scales
        if len(alive) != 1 or not (passes or op.name in SUMS):
            break
        at = alive[0]
    return [value]


def line_of(traced: Trace, value: int) -> str:
    """The line of the operation that gives a value, "" where it is no user's."""
    made: list[Operation] = [op for op in traced.operations if value in op.outputs]
    return made[0].where if made else ""
