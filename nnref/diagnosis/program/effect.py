"""Layers without effect: kernels that the loss is computed from, and that do not change it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.diagnosis.thresholds import bound
from nnref.internals import reduced_axes

DRAWS = (1, 2)  # seeds of parameters beside the first: a kernel of zeros hides what is before it
# What can make a constant of numbers that change: a value less itself, over itself, times 0. Units
# that a maximum or a mask has put out are looked for elsewhere.
CANCELS = ("sub", "div")
WEIGHS = ("mul",)
ON_THE_WAY = {"broadcast_in_dim", "reshape", "squeeze", "stop_gradient", "max", "mul", "div"}


def without_effect(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Kernels whose numbers cancel on the way to the loss, as in a softmax over one entry.

    What is the same for all of several entries, as the bias of the keys of an attention, moves no
    softmax, and is no fault. A product with 0, as of a term of the loss that is switched off, may
    be meant so: a note.
    """
    traced = start.training
    needed = traced.needed([traced.outputs[0]])
    kernels = [v for v in traced.arguments[0] if v in needed and len(traced.shape(v)) > 1]
    drawn = [beside(start.arguments[0], 1.0, seed) for seed in DRAWS]
    loss = values_of(traced, [traced.outputs[0]])
    dead = [value for value in kernels if not effect(start, value, drawn, loss)]
    if not dead:
        return
    killer = cancelled(start, dead[-1], drawn[0])
    if killer is None:
        return
    names = ", ".join(traced.paths[value] for value in dead[:6]) + (" ..." if dead[6:] else "")
    if killer.name in WEIGHS:
        yield note(
            "parameters_not_updated",
            killer.where or start.loss_line,
            f"the loss is the same whatever {names} are: what comes of them is multiplied by 0",
            "gradient exactly 0",
            remedy="leave the layer out, or give its term a weight above 0",
            confidence=0.7,
        )
        return
    if not over_one_entry(traced, killer):
        return
    softmax = "exp" in {op.name for op in after(traced, killer)}
    yield fault(
        "softmax_on_single_unit" if softmax else "parameters_not_updated",
        killer.where or start.loss_line,
        f"the loss is the same whatever {names} are: "
        + ("a softmax" if softmax else "what normalizes them")
        + " runs over an axis of one entry, and gives the same for every input",
        "gradient exactly 0",
        healthy="a softmax over several entries" if softmax else "",
        remedy="jax.nn.softmax(scores, axis=1), or whichever axis has the entries to choose from"
        if softmax
        else "normalize over an axis of several entries",
        confidence=0.95,
    )


def over_one_entry(traced: Trace, operation: Operation) -> bool:
    """Whether an operation takes a number less, or over, a reduction of it along one entry."""
    return any(of_one_entry(traced, value) is not None for value in operation.inputs)


def of_one_entry(traced: Trace, value: int) -> int | None:
    """What a value is a reduction of along an axis of one entry; None where it is none."""
    makers = traced.makers
    while value in makers and makers[value].name in ON_THE_WAY:
        value = max(makers[value].inputs, key=lambda v: v if v in makers else -1)
    maker = makers.get(value)
    if maker is None or not maker.name.startswith("reduce_"):
        return None
    shape = traced.shape(maker.inputs[0])
    one = all(shape[axis] == 1 for axis in reduced_axes(maker.equation))
    return maker.inputs[0] if one else None


def always_one(traced: Trace, operation: Operation) -> bool:
    """Whether an operation takes values over their own sum along one entry, as a softmax does."""
    values = operation.inputs
    if operation.name != "div" or len(values) != 2:
        return False
    return of_one_entry(traced, values[1]) == values[0]


def effect(
    start: AtStart | LossAtStart, value: int, drawn: list[Any], loss: Callable[[Any], list[Any]]
) -> bool:
    """Whether the loss moves when other numbers stand in a kernel, at any draw of the others."""
    for point in drawn:
        before, other = (float(loss(leaves)[0]) for leaves in changed(start, point, value))
        # Of a loss that is not finite nothing is known.
        if not abs(other - before) <= bound("felt") * max(abs(before), 1e-30):
            return True
    return False


def changed(start: AtStart | LossAtStart, params: Any, value: int) -> list[list[Any]]:
    """The leaves of the arguments with these parameters, and with another draw of one kernel."""
    _, *others = start.arguments
    place = start.training.arguments[0].index(value)
    leaves = jax.tree.leaves((params, *others, jax.random.key(0)))
    return [leaves, [*leaves[:place], beside(3 * leaves[place], 1.0, 7), *leaves[place + 1 :]]]


def values_of(traced: Trace, wanted: list[int]) -> Callable[[Any], list[Any]]:
    """Values of the traced program as a compiled function of the leaves of its arguments."""
    return jax.jit(lambda leaves: traced.evaluate(leaves, wanted))


def cancelled(start: AtStart | LossAtStart, value: int, drawn: Any) -> Operation | None:
    """The first operation whose result stays, though what goes into it moves with the kernel."""
    traced = start.training
    reached = traced.reached([value])
    on_the_way = reached & traced.needed([traced.outputs[0]])
    numbers = [v for v in on_the_way if getattr(traced.avals[v], "dtype", None) is not None]
    numbers = [v for v in numbers if traced.avals[v].dtype.kind == "f"]
    values = values_of(traced, numbers)
    before, moved = (values(leaves) for leaves in changed(start, drawn, value))
    moves = {
        number
        for number, one, other in zip(numbers, before, moved, strict=True)
        if not np.allclose(one, other, rtol=1e-5, atol=1e-6 * float(np.abs(one).max(initial=0)))
    }
    for operation in traced.operations:
        if operation.name in CANCELS and not reached.issuperset(operation.inputs):
            continue  # what is too small beside another number is lost in it, and cancels nothing
        stays = on_the_way.issuperset(operation.outputs) and moves.isdisjoint(operation.outputs)
        if operation.name in CANCELS + WEIGHS and stays and not moves.isdisjoint(operation.inputs):
            return operation
    return None


def after(traced: Trace, operation: Operation) -> list[Operation]:
    """The operations that take the result of one, or what is computed from that element by element.

    Their number is small: only the next few are looked at.
    """
    values, takers = set(operation.outputs), []
    for other in traced.operations:
        if not values.isdisjoint(other.inputs):
            takers.append(other)
            values.update(other.outputs)
        if len(takers) == 3:
            break
    return takers
