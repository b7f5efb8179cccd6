"""Gradients that are cut on their way: parameters that change the loss, and get no gradient."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.diagnosis.program.effect import always_one
from nnref.diagnosis.program.layers import SHAPES, products
from nnref.diagnosis.program.terms import LINEAR, SUMS, line_of, split
from nnref.diagnosis.program.tracing import COMPARISONS, Operation, Trace, trace
from nnref.diagnosis.thresholds import bound

# Operations that a gradient does not pass.
STEPS = {"round", "floor", "ceil", "sign", "argmax", "argmin"}
# Operations by which rows of a table are taken as they are: behind these alone it may stay frozen.
LOOKUPS = SHAPES | {"gather", "slice", "dynamic_slice", "select_n", "pad", "concatenate"}
DRAWS = 3  # of the parameters: a unit that is dead for one of them is not for all


def blocked(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Parameters that change the loss, and whose gradient is 0 whatever they are.

    A fault where steps, comparisons or integers cut it, and where a stopped gradient leaves no
    layer that learns from the data themselves. Tables and networks that are frozen beside one that
    learns, as targets are, may be meant so: a note.
    """
    traced = start.training
    passes = differentiable(traced)
    needed = traced.needed([traced.outputs[0]])
    suspects = [value for value in traced.arguments[0] if value in needed]
    cut = [v for v in suspects if traced.outputs[0] not in traced.reached([v], passes)]
    loops = any(op.name in ("scan", "while") for op in traced.operations)
    inside = walls_in_loops(start, {traced.paths[value] for value in suspects}) if loops else []
    hidden = bool(traced.by_hand or inside)
    if not cut and not hidden:
        return
    stuck, moves = without_gradient(start, suspects if hidden else cut)
    stuck = [v for v in stuck if isinstance(start, AtStart) or traced.paths[v] not in start.moved]
    if not stuck:
        return
    if set(stuck) <= set(cut):
        walls = first_walls(traced, stuck, traced.outputs[0])
    else:  # inside of a loop, or a derivative that was given by hand
        walls = walls_in_loops(start, {traced.paths[value] for value in stuck}) if loops else []
        if not walls and not traced.by_hand:
            return  # units that are dead at every draw, and nothing that cuts
    yield behind_walls(start, stuck, walls, moves)


def behind_walls(
    start: AtStart | LossAtStart, stuck: list[int], walls: list[Operation], moves: float
) -> Finding:
    """That parameters get no gradient, and what cuts it; a note where that may be meant."""
    traced = start.training
    stopped = bool(walls) and all(op.name == "stop_gradient" for op in walls)
    codebook = chooses_itself(traced, stuck)
    meant = stopped and not codebook and frozen(traced, stuck)
    everything = set(stuck) == set(traced.arguments[0])
    names = ", ".join(traced.paths[value] for value in stuck[:6]) + (" ..." if stuck[6:] else "")
    by = " or ".join(sorted({op.name for op in walls})) or "a derivative given by hand"
    by = "integers" if by in ("convert_element_type", "iota") else by
    remedy = (
        f"something smooth instead of {by}, or a straight-through gradient: "
        "soft + jax.lax.stop_gradient(hard - soft)"
    )
    if codebook:
        remedy = (
            "a term that moves the chosen entries themselves, before any stop_gradient: "
            "jnp.mean((table[chosen] - jax.lax.stop_gradient(z)) ** 2)"
        )
    elif stopped:
        remedy = "leave out the stop_gradient if the layer is to learn"
    elif single := [op for op in walls if always_one(traced, op)]:
        walls = single  # beside it lead the whole numbers of what was chosen
        by = "a choice, and a softmax over the one that was chosen, which is always 1"
        remedy = (
            "the softmax over all entries first, then the share of the chosen one as its weight"
        )
    places = (op.where for op in walls if op.where)
    return (note if meant else fault)(
        "gradient_blocked",
        next(chain(places, filter(None, traced.by_hand)), start.loss_line),
        f"the only ways from {names} to the loss lead through {by}: the gradient is 0, and the "
        f"loss moves by {moves:.2g} of itself when they move",
        "gradient exactly 0",
        remedy=remedy,
        confidence=0.5 if meant else 0.95 if everything or not stopped else 0.6,
    )


def chooses_itself(traced: Trace, stuck: list[int]) -> bool:
    """Whether entries of a table are read that its own numbers choose, as those of a codebook.

    Such a table is no frozen one: what is nearest to it changes with the network.
    """
    reached = traced.reached(stuck, differentiable(traced))
    choices = [
        out
        for op in traced.operations
        if op.name in ("argmin", "argmax") and not reached.isdisjoint(op.inputs)
        for out in op.outputs
    ]
    chosen = traced.reached(choices)
    tables = traced.reached(stuck, lambda op: op.name in LOOKUPS)
    return any(
        op.name == "gather" and op.inputs[0] in tables and op.inputs[-1] in chosen
        for op in traced.operations
    )


def lost_slope(start: LossAtStart, params: Any) -> tuple[str, float] | None:
    """Where a number of the whole batch meets a function that is flat there: the line, the number.

    A logistic function of a sum over the rows is as good as constant; of each row it is not.
    """
    traced, (_, *rest) = start.training, start.arguments
    loss, leaves = traced.outputs[0], jax.tree.leaves((params, *rest, jax.random.key(0)))
    moved = traced.reached(traced.arguments[0]) & traced.reached(traced.arguments[2])
    path = [
        value
        for value in sorted(moved & traced.needed([loss]))
        if traced.size(value) == 1 and jnp.issubdtype(traced.avals[value].dtype, jnp.inexact)
    ]

    def slope(value: int, at: Any) -> float:
        of_loss = jax.grad(lambda v: traced.evaluate(leaves, [loss], {value: v})[0].sum())
        return abs(float(jnp.sum(of_loss(at))))

    values = dict(zip(path, traced.evaluate(leaves, path), strict=True))
    slopes = {value: slope(value, at) for value, at in values.items()}
    for op in traced.operations:
        inputs, after = slopes.keys() & op.inputs, slopes.keys() & op.outputs
        if not inputs or not after or op.name in ("mul", "div") or not op.where:
            continue
        before, behind = (max(slopes[value] for value in each) for each in (inputs, after))
        if before <= bound("felt") * behind and behind > 0:
            return op.where, float(jnp.sum(values[max(inputs)]))
    return None


def silent_terms(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Terms of a loss that change with the parameters, and have no gradient for any of them."""
    traced = start.training
    if traced.by_hand:
        return
    parameters, loss = traced.arguments[0], traced.outputs[0]
    parts = split(traced, loss, [*parameters, *traced.arguments[2]], whole=True)
    served = traced.reached(parameters, differentiable(traced))
    for part in parts if len(parts) > 1 else []:
        walls = first_walls(traced, parameters, part)
        written_again = any(not set(parts).isdisjoint(op.inputs) for op in walls)
        if part in served or written_again or not walls:
            continue
        changes = [adds(start, part, seed) for seed in range(1, 1 + DRAWS)]
        if float(np.ptp(changes)) > bound("felt"):
            by = " or ".join(sorted({op.name for op in walls}))
            yield fault(
                "gradient_blocked",
                next((op.where for op in walls if op.where), start.loss_line),
                f"a term of the loss changes with the parameters, and the only ways from them to "
                f"it lead through {by}: it has no gradient for any of them, and training never "
                "lowers it",
                f"gradient exactly 0, of a term that is {max(map(abs, changes)):.0%} of the loss",
                remedy="leave out the stop_gradient in the step that this term is to teach"
                if by == "stop_gradient"
                else f"something smooth instead of {by}, or leave the term out of the loss",
                confidence=0.85,
            )
            return


def terms_of_the_batch(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Terms of a loss in which no parameter has a part, and which are 0: a thing against itself.

    A term that is a number, as the entropy of soft targets, is no mistake.
    """
    traced = start.training
    makers = traced.makers
    learned = traced.reached(traced.arguments[0])
    data = traced.reached([*traced.arguments[2], *traced.arguments[3]])
    waiting, alone = [traced.outputs[0]], []
    while waiting:
        op = makers.get(waiting.pop())
        if op is None or op.name not in (*LINEAR, *SUMS, "mul", "div"):
            continue
        single = [value for value in op.inputs if traced.size(value) == 1]
        waiting += [value for value in single if value in learned]
        if op.name in SUMS:
            alone += [value for value in single if value in data and value not in learned]
    if not alone:
        return
    leaves = jax.tree.leaves((*start.arguments, jax.random.key(0)))
    loss, *values = traced.evaluate(leaves, [traced.outputs[0], *alone])
    for term, value in zip(alone, values, strict=True):
        if abs(float(value)) <= bound("nothing") * abs(float(loss)):
            yield fault(
                "gradient_blocked",
                line_of(traced, unscaled(traced, makers, term)) or start.loss_line,
                "a term of the loss is computed of the batch alone, and it is 0: something is held "
                "against itself where outputs of the network were to stand",
                f"{float(value):.2g}, whatever the parameters are",
                healthy="a term that falls as the network learns",
                remedy="the network's outputs on one side of this term, the targets on the other",
                confidence=0.85,
            )
            return


def unscaled(traced: Trace, makers: dict[int, Operation], term: int) -> int:
    """The number of which a term is a multiple."""
    while term in makers and makers[term].name in (*LINEAR, "mul", "div"):
        made = [v for v in makers[term].inputs if v in makers and traced.size(v) == 1]
        if len(made) != 1:
            break
        term = made[0]
    return term


def adds(start: AtStart | LossAtStart, part: int, seed: int) -> float:
    """What a term adds to the loss beside the given parameters, as a share of the whole."""
    traced = start.training
    params, *rest = start.arguments
    leaves = jax.tree.leaves((beside(params, 1.0, seed), *rest, jax.random.key(0)))
    none = jnp.zeros(traced.shape(part), traced.avals[part].dtype)
    whole, without = (
        float(traced.evaluate(leaves, traced.outputs[:1], given)[0]) for given in ({}, {part: none})
    )
    return (whole - without) / max(abs(whole), 1e-30)


def without_gradient(start: AtStart | LossAtStart, suspects: list[int]) -> tuple[list[int], float]:
    """Those parameters whose gradient is 0 at every draw, though the loss moves with them.

    With it the largest share of the loss by which it moves.
    """
    traced = start.training
    params, state, x, y = start.arguments
    leaves, tree = jax.tree.flatten(params)
    place = {value: i for i, value in enumerate(traced.arguments[0])}

    def objective(params: Any) -> Any:
        return start.objective(params, state, x, y, jax.random.key(0))[0]

    both = jax.jit(jax.value_and_grad(objective, allow_int=True))
    silent, moves = set(suspects), 0.0
    points = [params, *(beside(params, 1.0, seed) for seed in range(1, DRAWS))]
    for point in points:
        slopes = jax.tree.leaves(both(point)[1])
        silent -= {v for v in silent if np.any(np.asarray(slopes[place[v]]) != 0)}
    if not silent:
        return [], 0.0
    stuck = []
    for value in sorted(silent):
        changes = []
        for point in points[1:]:
            moved = jax.tree.leaves(point)
            for seed in (7, 8):  # a step moves when it is crossed, which a small change may not do
                moved[place[value]] = beside(3 * leaves[place[value]], 1.0, seed)
                before = float(both(point)[0])
                after = float(both(jax.tree.unflatten(tree, moved))[0])
                changes.append(abs(after - before) / max(abs(before), 1e-30))
        if max(changes) > bound("felt"):
            stuck.append(value)
            moves = max(moves, *changes)
    return stuck, moves


def differentiable(traced: Trace) -> Callable[[Operation], bool]:
    """Whether a gradient passes an operation."""

    def passes(op: Operation) -> bool:
        dtype = getattr(traced.avals[op.outputs[0]], "dtype", None)
        inexact = dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
        smooth = inexact and not always_one(traced, op)
        return op.name not in STEPS | COMPARISONS | {"stop_gradient"} and smooth

    return passes


def first_walls(traced: Trace, stuck: list[int], goal: int) -> list[Operation]:
    """The first operations that a gradient does not pass, on the ways from parameters to a value.

    Where it would come through without stopped gradients, these alone.
    """
    passes, needed = differentiable(traced), traced.needed([goal])
    reached = traced.reached(stuck, passes)
    walls = [
        op
        for op in traced.operations
        if not passes(op)
        and not needed.isdisjoint(op.outputs)
        and not reached.isdisjoint(op.inputs)
    ]
    stops = [op for op in walls if op.name == "stop_gradient"]
    freely = traced.reached(stuck, lambda op: op.name == "stop_gradient" or passes(op))
    return stops if stops and goal in freely else walls


def walls_in_loops(start: AtStart | LossAtStart, names: set[str]) -> list[Operation]:
    """The same within the bodies of loops; those of a softmax are none."""
    opened = trace(start.objective, *start.arguments, jax.random.key(0), loops=True)
    passes = differentiable(opened)
    stuck = [v for v in opened.arguments[0] if opened.paths[v] in names]
    reached = opened.reached(stuck, passes)
    largest = {out for op in opened.operations if op.name == "reduce_max" for out in op.outputs}
    return [
        op
        for op in opened.operations
        if op.name in STEPS | {"stop_gradient"}
        and not reached.isdisjoint(op.inputs)
        and largest.isdisjoint(op.inputs)
    ]


def frozen(traced: Trace, stuck: list[int]) -> bool:
    """Whether what gets no gradient may be meant so: a table, a leaf, a network beside another.

    Some layer with a gradient must still meet the data on a way that no gradient is stopped on.
    """
    passes = differentiable(traced)
    lookups = traced.reached(stuck, lambda op: op.name in LOOKUPS)
    walls = first_walls(traced, stuck, traced.outputs[0])
    if all(lookups & set(op.inputs) for op in walls):
        return set(stuck) != set(traced.arguments[0])
    clean = traced.reached(traced.arguments[2], passes)
    return any(
        data in clean and not parameters <= set(stuck)
        for _, data, _, parameters in products(traced)
    )
