"""The loss inside of a step: its random numbers, and what is asked of a loss that stands alone."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, as_note, fault
from nnref.diagnosis.loop.edited import has_not_learned, scale_for
from nnref.diagnosis.loop.own_targets import asked_for_its_input
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Call, Loop
from nnref.diagnosis.loop.stepping import is_array, parted
from nnref.diagnosis.program.at_start import LossAtStart
from nnref.diagnosis.program.blocked import (
    blocked,
    differentiable,
    silent_terms,
    terms_of_the_batch,
)
from nnref.diagnosis.program.broadcasts import broadcasts, promotions
from nnref.diagnosis.program.keys import draws, growing, of_one_key, one_row_less
from nnref.diagnosis.program.lone_means import means_of_one, norm_of_all
from nnref.diagnosis.program.partners import partners
from nnref.diagnosis.program.rows import order_of_rows
from nnref.diagnosis.program.step import tables
from nnref.diagnosis.program.terms import outweighed, terms
from nnref.diagnosis.program.tracing import Operation, Trace, trace
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import on_host

CHECKS = {
    "ways that a gradient does not pass": blocked,
    "terms that no gradient lowers": silent_terms,
    "terms without a parameter": terms_of_the_batch,
    "shapes that fill a matrix": broadcasts,
    "indices into tables": tables,
    "rows of a batch by themselves": order_of_rows,
    "pairs of rows that are alike": partners,
    "answers against their own inputs": asked_for_its_input,
}

PRODUCTS = {"dot_general", "conv_general_dilated"}


class LossOfStep(LossAtStart):
    """The loss of a step as a function of the parameters.

    It is the metric of this name, or what the traced step computes where it does not return it.
    """

    def __init__(self, loop: Loop, place: int, name: str | None) -> None:
        """Take the loss out of the step that a program was traced of."""
        program = loop.programs[place]
        assert program is not None, "asked where there is a program"
        state, batch, key = program.arguments
        own = [p for p in loop.of("parameter") if not program.passed_on(p)]  # not another step's
        weights = {path: state[path] for path in own}
        rest = {p: leaf for p, leaf in state.items() if p not in weights}
        self.program, self.name, self.given = program, name, key
        self.found = program.loss_of(loop)
        self.arguments = weights, rest, batch, ()
        drawn = [parted(each).arrays for each in loop.batches]
        self.batches = [each for each in drawn if shapes_of(each) == shapes_of(batch)]
        self.moved = moved_otherwise(loop.calls[place], own)

    def objective(self, params: Any, state: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any, Any]:
        """The loss; no outputs; the state beside the parameters as it was."""
        del y, key
        if self.name is not None:
            _, metrics = self.program.pure({**params, **state}, x, self.given)
            return metrics[self.name].reshape(()), (), state
        assert self.found is not None, "asked of a loss that was found"
        leaves = jax.tree.leaves(({**params, **state}, x, self.given))
        (loss,) = self.program.trace.evaluate(leaves, [self.found[0]])
        return loss.reshape(()), (), state


def moved_otherwise(calls: list[Call], paths: list[str]) -> set[str]:
    """The parameters that the calls move, and not by decay, which is a move along themselves.

    One of them may have its gradient from a rounded copy, which is taken for its own.
    """
    moved = set()
    for path in paths:
        for call in calls:
            before = np.asarray(call.before.arrays[path], float).ravel()
            change = call.change([path]).get(path, np.zeros(1)).ravel()
            length = np.linalg.norm(before) * np.linalg.norm(change)
            if length and abs(before @ change) < bound("decays") * length:
                moved.add(path)
                break
    return moved


def shapes_of(arrays: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of a batch."""
    return {path: np.shape(leaf) for path, leaf in arrays.items()}


def of_others(loop: Loop) -> Iterator[Finding]:
    """A loss that is computed of other parameters than those that move."""
    for place, program in enumerate(loop.programs):
        if program is None or program.loss_of(loop) is not None or not program.metrics:
            continue
        named = [name for name in program.metrics if "loss" in name.lower()]
        if len(named or program.metrics) != 1 or loop.updates > len(loop.steps):
            continue
        loss = program.metrics[(named or list(program.metrics))[0]]
        own = {p: v for p, v in program.old.items() if program.is_floating(v)}
        own = {p: v for p, v in own.items() if p not in loop.optimizers}
        through = differentiable(program.trace)
        read = [p for p, value in own.items() if loss in program.trace.reached([value], through)]
        moving = [p for p in loop.of("parameter") if loop.moves[p].any()]
        if not moving or any(loop.moves[path].any() for path in read):
            continue
        if loss in program.trace.reached(own.values()) and not read:
            continue  # of the state, by a way that no gradient passes: another check's
        others = f"{listed(read)}, which stand" if read else "arrays that are none of the state"
        yield fault(
            "parameters_not_updated",
            f"{listed(read or moving)}; {loop.line(place)}",
            f"the loss that the step returns is computed of {others}, and what moves is "
            f"{listed(moving)}: the network that is judged is not the one that is trained",
            "no way from what moves to the loss",
            remedy="compute the loss, its gradient and the update of one and the same parameters, "
            "those that the step is given",
            confidence=0.9,
        )
        return


def outweighing(loop: Loop) -> Iterator[Finding]:
    """A term that the steps serve alone, while an evaluation says that nothing is learned.

    Where none says so it is a note: a code may be empty at first, and filled later.
    """
    for place, program in enumerate(loop.programs):
        if program is None or program.loss_of(loop) is None:
            continue
        start = LossOfStep(loop, place, program.loss_name(loop))
        weights, rest, *_ = start.arguments
        first = terms(start, weights, rest)
        if not any(not term.of_targets for term in first):
            continue
        end = loop.further.state.arrays
        last = terms(start, {p: end[p] for p in weights}, {p: end[p] for p in rest})
        found = outweighed(first, last)
        if found is not None:
            scale = scale_for(loop)
            wrong = scale is not None and has_not_learned(loop, scale)
            yield found if wrong else as_note(found)


def noise(loop: Loop) -> Iterator[Finding]:
    """Random numbers for the rows of a batch that are the same at every step."""
    for place, program in enumerate(loop.programs):
        if program is None:
            continue
        traced, found = program.trace, program.loss_of(loop)
        weights = [program.new[p] for p in loop.of("parameter") if p in program.new]
        results = [found[0]] if found else weights
        drawn = draws(traced, results)
        if not drawn:
            continue
        numbered = row_numbers(loop, program)
        fresh_by_row = traced.reached(numbered)
        fresh = traced.reached([*program.key, *set(changing(loop, program)).difference(numbered)])
        handed = loop.steps[place].way.keyed
        unread = handed and traced.needed(results).isdisjoint(program.key)
        stale = [op for op in drawn if not fresh & set(op.inputs)]
        # Where a key is handed in and not used, also what is the same for all rows was to change.
        stale = stale if unread else of_rows(loop, place, program, stale)
        if not stale:
            continue
        seeds = traced.needed(v for op in stale for v in op.inputs)
        keys = [p for p, value in program.old.items() if value in seeds]
        made = [
            op.where
            for op in traced.operations
            if op.name == "random_seed" and op.where and seeds & set(op.outputs)
        ]
        line = (made or [op.where for op in stale if op.where] or [loop.line(place)])[-1]
        yield fault(
            "random_key_reused",
            f"{', '.join(keys)}; {line}" if keys else line,
            "the random numbers of the step come from "
            + (f"{', '.join(keys)}, which never advances" if keys else "a key that never changes")
            + (": a row" if any(fresh_by_row & set(op.inputs) for op in stale) else ": each place")
            + " of a batch gets the same ones whenever it comes, and the network learns these",
            "no path from the step's key or a counter to the draw",
            remedy="key, one = jax.random.split(state.key), return the new key with the state; or "
            "jax.random.fold_in(key, state.step)",
            confidence=0.9,
        )
        return


def shapes(loop: Loop) -> Iterator[Finding]:
    """A number for each row against all the others, anywhere in a step, loops within it too."""
    for program in filter(None, loop.programs):
        rows = {
            np.shape(leaf)[0] for leaf in jax.tree.leaves(program.arguments[1]) if np.ndim(leaf)
        }
        yield from promotions(trace(program.pure, *program.arguments, loops=True), rows)


def means(loop: Loop) -> Iterator[Finding]:
    """Numbers that a step takes the mean of themselves from, or divides by the norm of all."""
    for program in filter(None, loop.programs):
        yield from means_of_one(program.trace)
        found = program.loss_of(loop)
        yield from norm_of_all(program.trace, program.batch, [found[0]]) if found else ()


def one_view_unused(loop: Loop) -> Iterator[Finding]:
    """Rows that are drawn or given for a network, and whose outputs lead nowhere.

    The same network learns of other rows: what it makes of these was meant to be compared.
    """
    for program in filter(None, loop.programs):
        traced = program.trace
        learned = traced.reached(program.old[p] for p in loop.of("parameter") if p in program.old)
        drawn = [out for op in draws(traced, range(len(traced.avals))) for out in op.outputs]
        rows = traced.reached([*program.batch, *drawn])
        needed, dead = traced.needed(traced.outputs), {op.outputs for op in program.dead}
        calls: dict[int, list[tuple[Operation, int]]] = {}
        for op in traced.operations:
            kernels = [value for value in op.inputs if value in learned - rows]
            data = [value for value in op.inputs if value in rows - learned]
            if op.name in PRODUCTS and kernels and data:
                calls.setdefault(kernels[0], []).append((op, data[0]))
        for made in calls.values():
            lost = [
                op
                for op, data in made
                if op.outputs in dead
                and not traced.needed([data]) & {*program.batch, *drawn} <= needed
            ]
            if lost and len(lost) < len(made):
                yield fault(
                    "inputs_ignored",
                    " from ".join(lost[0].frames[:3]),
                    "the network is called on other rows as well, drawn or given for this alone, "
                    "and what it makes of them is used nowhere",
                    f"{len(lost)} of {len(made)} calls lead nowhere",
                    healthy="each call is part of the loss",
                    remedy="look at the loss for a name that stands twice where two were meant",
                    confidence=0.85,
                )
                return


def changed_apart(loop: Loop) -> Iterator[Finding]:
    """Inputs and targets that are changed by random numbers of their own, and by as many of them.

    What a draw changes is an input where it meets parameters, and a target where it meets what
    the network makes of the batch. Noise that is taken off again counts as a target too. What a
    slow copy of the network is given, as a teacher's view of the same rows, is an input.
    """
    for place, program, loss, _ in loop.losses_of_steps():
        networks = loop.of("parameter") + loop.of("target")
        weights = [program.old[p] for p in networks if p in program.old]
        of_inputs, of_targets = drawn_for(program, loss, weights)
        numbers = program.trace.evaluate(
            program.leaves, [op.outputs[0] for op in (*of_inputs, *of_targets)]
        )
        values = [on_host(number) for number in numbers]
        for draw, own in zip(of_targets, values[len(of_inputs) :], strict=True):
            alike = [other for other in values[: len(of_inputs)] if other.shape == own.shape]
            if alike and not any(np.array_equal(own, other) for other in alike):
                yield fault(
                    "corrupted_labels",
                    " from ".join(draw.frames[:2]) or loop.loss_line(place),
                    f"the {own.size} random numbers of this line change what the outputs are held "
                    "against, and as many others change the inputs: what belongs together is "
                    "changed apart, as where a picture and its mask are mirrored by keys of their "
                    "own",
                    "other numbers for the targets than for the inputs",
                    healthy="the same numbers for both",
                    remedy="draw once, and change inputs and targets by that; or one key for both",
                    confidence=0.85,
                )
                return


def drawn_for(
    program: Program, loss: int, weights: list[int]
) -> tuple[list[Operation], list[Operation]]:
    """The draws that change inputs, and those of the others that change targets."""
    traced = program.trace
    learned, data = traced.reached(weights), traced.reached(program.batch)
    needed = traced.needed([loss])
    meetings = [
        op
        for op in traced.operations
        if needed & set(op.outputs) and learned & set(op.inputs) and not learned >= set(op.inputs)
    ]
    of_inputs, of_targets = [], []
    for draw in draws(traced, [loss]):
        alone = traced.reached(draw.outputs, lambda op: learned.isdisjoint(op.outputs))
        met = [op for op in meetings if alone & set(op.inputs)]
        changed = [op for op in met if alone & data & set(op.inputs) or op.name == "sub"]
        if any(not learned & data & set(op.inputs) for op in changed):
            of_inputs.append(draw)
        elif changed:
            of_targets.append(draw)
    return of_inputs, of_targets


def one_key_for_all(loop: Loop) -> Iterator[Finding]:
    """Keys of the members of a batch that are all the same."""
    for place, program in enumerate(loop.programs):
        same = [] if program is None else of_one_key(program.trace, program.leaves)
        if same:
            yield fault(
                "random_key_reused",
                same[0].where or loop.line(place),
                "several keys are drawn from at once, and they are all the same: each member gets "
                "the same random numbers",
                "equal keys",
                healthy="a key for each",
                remedy="keys = jax.random.split(key, count)",
                confidence=0.85,
            )
            return


def one_view_twice(loop: Loop) -> Iterator[Finding]:
    """Rows that are changed at random twice by the same numbers: a network sees one view twice.

    What is compared is what meets the kernels first. Layers of two networks have one shape.
    """
    for place, program, loss, _ in loop.losses_of_steps():
        traced = program.trace
        needed, drawn = traced.needed([loss]), draws(traced, [loss])
        networks = loop.of("parameter") + loop.of("target")
        learned = traced.reached(program.old[p] for p in networks if p in program.old)
        changed = traced.reached(program.batch) & traced.reached(
            o for d in drawn for o in d.outputs
        )
        given: dict[tuple[int, ...], set[int]] = {}
        for op in traced.operations:
            if op.name not in PRODUCTS or needed.isdisjoint(op.outputs):
                continue
            kernels = [value for value in op.inputs if value in learned - changed]
            for value in set(op.inputs) & changed - learned if kernels else ():
                given.setdefault(traced.shape(kernels[0]), set()).add(value)
        for one, other in (pair for views in given.values() for pair in combinations(views, 2)):
            own, others = ({op.outputs for op in draws(traced, [view])} for view in (one, other))
            last = [op for op in draws(traced, [other]) if op.outputs not in own]
            if own >= others or others >= own:
                continue
            a, b = traced.evaluate(program.leaves, [one, other])
            if np.array_equal(a, b):
                yield fault(
                    "random_key_reused",
                    " from ".join(last[-1].frames[:2]) or loop.loss_line(place),
                    "the rows are changed at random twice, and both times by the same numbers: the "
                    "network is given one view twice, and what is to be the same in two views is "
                    "so whatever it does",
                    "two views that are equal to the last bit",
                    healthy="two draws",
                    remedy="one, other = jax.random.split(key), and a view by each",
                    confidence=0.9,
                )
                return


def changing(loop: Loop, program: Program) -> list[int]:
    """The values that are others at every step: rows, and leaves of the state that move."""
    first, others = loop.batches[:1], loop.batches[1:]
    state = [
        value
        for path, value in program.old.items()
        if not program.passed_on(path) and loop.moves[path].any()
    ]
    if not others:
        return state + program.batch
    rows = [parted(batch).arrays for batch in (*first, *others)]
    moving = [
        value
        for value in program.batch
        if any(not same(rows[0], other, program.trace.paths[value]) for other in rows[1:])
    ]
    return state + moving


def row_numbers(loop: Loop, program: Program) -> list[int]:
    """The values of a batch that number its rows, and come again with them."""
    batches = [parted(batch).arrays for batch in loop.batches]
    numbers = []
    for value in program.batch:
        path = program.trace.paths[value]
        given = [batch[path] for batch in batches if path in batch]
        whole = all(g.ndim == 1 and jnp.issubdtype(g.dtype, np.integer) for g in given)
        if not given or not whole or any(len(np.unique(g)) < max(len(g), 2) for g in given):
            continue
        if len(np.unique(np.concatenate(given))) < bound("come again") * sum(map(len, given)):
            numbers.append(value)
    return numbers


def same(one: dict[str, Any], other: dict[str, Any], path: str) -> bool:
    """Whether two batches hold the same array at a path."""
    a, b = one.get(path), other.get(path)
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return np.array_equal(on_host(a), on_host(b))


def of_rows(loop: Loop, place: int, program: Program, stale: list[Operation]) -> list[Operation]:
    """Those draws that grow with the batch: numbers that belong to rows."""
    if not stale:
        return []
    call = loop.calls[place][min(1, len(loop.calls[place]) - 1)]
    leaves = [leaf for leaf in jax.tree.leaves(call.batch) if is_array(leaf) and leaf.ndim]
    rows = max((leaf.shape[0] for leaf in leaves), default=0)

    def with_fewer() -> Trace:
        less = one_row_less(call.batch, rows)
        return Program(loop.steps[place], call._replace(batch=less)).trace

    return growing(program.trace, stale, rows, with_fewer)
