"""Two networks in turn, of which one answers to what the other makes: a game (Goodfellow 2014).

The critic moves its answers to true rows one way, to made ones the other way. The maker has to move
the answers to what it makes as the critic moves those to true rows.
"""

from collections.abc import Iterator
from itertools import permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program, cosine
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.program.keys import DRAWS
from nnref.diagnosis.thresholds import bound

AS_IT_IS = {"broadcast_in_dim", "reshape", "squeeze", "transpose", "convert_element_type", "copy"}


class Push(NamedTuple):
    """Which way a step moves the answers of the critic, 1 up and -1 down; 0 where neither."""

    made: float  # to what the maker makes
    true: float  # to the rows of the batch


def on_one_side(loop: Loop) -> Iterator[Finding]:
    """A maker that moves the answers to what it makes as the critic does, away from true ones."""
    moved = [moved_by(loop, place) for place in range(len(loop.steps))]
    for maker, critic in rivals(loop, moved):
        of_maker = push(loop, maker, moved[maker], moved[critic])
        of_critic = push(loop, critic, moved[maker], moved[critic])
        if of_maker is None or of_critic is None or of_critic.made * of_critic.true >= 0:
            continue
        if of_maker.made == of_critic.made:
            word = "up" if of_maker.made > 0 else "down"
            yield fault(
                "gradient_ascent",
                f"step {maker + 1}; {loop.loss_line(maker)}",
                f"this step moves the other network's answers to what it makes {word}, and so does "
                "the step of that network, which moves its answers to the rows of the batch the "
                "other way: both say that what is made is not true, and nothing asks it to be",
                f"answers to what is made go {word} in both steps",
                healthy="the answers to what is made go where those to true rows go",
                remedy="the other sign of the loss, or labels of true rows for what is made: "
                "-jnp.mean(critic(made)), softplus(-critic(made))",
                confidence=0.9,
            )
            return


def other_condition(loop: Loop) -> Iterator[Finding]:
    """What is made for some labels, and judged by other ones that have nothing to do with these."""
    for place, program, loss, maker, critic in games(loop):
        for judged in answers(program, loss, critic):
            made = answers(program, judged, maker)
            if not made:
                continue
            of_maker = labels(program, program.trace.needed(made))
            of_critic = labels(program, program.trace.needed([judged], made))
            if not of_maker or not of_critic or of_maker & of_critic:
                continue
            paths = {program.trace.paths.get(value) for value in of_critic}
            names = [f"{path} of the batch" if path else "random ones" for path in paths]
            yield fault(
                "loss_mismatch",
                f"step {place + 1}; {line_of(program, judged) or loop.loss_line(place)}",
                "what is made here is made for some labels, and the other network judges it by "
                f"others, {', '.join(sorted(names))}, which have nothing to do with them: it can "
                "only learn to look like anything at all",
                "no label in common",
                healthy="the labels that it was made for",
                remedy="the same labels for both: critic(maker(noise, labels), labels)",
                confidence=0.9,
            )
            return


def line_of(program: Program, value: int) -> str:
    """The user's line that computes a value, empty where it is not known."""
    found = (op.where for op in program.trace.operations if value in op.outputs)
    return next(filter(None, found), "")


def games(loop: Loop) -> Iterator[tuple[int, Program, int, list[str], list[str]]]:
    """A step, its program, a loss of it, and the parameters of who makes and of who judges that."""
    moved = [moved_by(loop, place) for place in range(len(loop.steps))]
    for maker, critic in rivals(loop, moved):
        program = loop.programs[maker]
        found = program and program.loss_of(loop)
        if program and found:
            yield maker, program, found[0], moved[maker], moved[critic]
    for place, program in enumerate(loop.programs):
        groups = descents(loop, program) if program else {}
        for (one, maker), (other, critic) in permutations(groups.items(), 2):
            if program:
                yield place, program, one, maker, critic
                yield place, program, other, maker, critic


def descents(loop: Loop, program: Program) -> dict[int, list[str]]:
    """The losses of one step, each with the parameters that descend it and no other one as well."""
    if len(program.candidates) < 2:
        return {}
    moves = program.call.change(loop.of("parameter"))
    slopes = program.gradients(program.call)
    found: dict[int, list[str]] = {}
    for path, move in moves.items():
        ways = [cosine({path: move}, slope) for slope in slopes]
        if min(ways) < -bound("climbs"):
            found.setdefault(program.candidates[int(np.argmin(ways))], []).append(path)
    return found


def drawn(program: Program) -> set[int]:
    """The values that are random numbers."""
    return {out for op in program.trace.operations if op.name in DRAWS for out in op.outputs}


def labels(program: Program, needed: set[int]) -> set[int]:
    """Where the whole numbers come from, one a row, among these values: a batch, or a draw."""
    traced = program.trace
    rows, draws = {traced.shape(value)[:1] for value in program.batch}, drawn(program)
    found: set[int] = set()
    for value in needed:
        dtype, shape = getattr(traced.avals[value], "dtype", None), traced.shape(value)
        whole = dtype is not None and jnp.issubdtype(dtype, jnp.signedinteger)
        if whole and shape[:1] in rows and traced.size(value) == shape[0]:
            found |= traced.needed([value]) & {*program.batch, *draws}
    return found


def rivals(loop: Loop, moved: list[list[str]]) -> list[tuple[int, int]]:
    """The ordered pairs of steps that move parameters, and none in common."""
    if not all(loop.programs):
        return []
    pairs = permutations(range(len(loop.steps)), 2)
    return [(m, c) for m, c in pairs if moved[m] and moved[c] and not set(moved[m]) & set(moved[c])]


def moved_by(loop: Loop, place: int) -> list[str]:
    """The parameters that a step moves in its first calls."""
    calls = loop.calls[place][:3]
    return [
        path
        for path in loop.of("parameter")
        if any(
            not np.array_equal(call.before.arrays[path], call.after.arrays[path]) for call in calls
        )
    ]


def push(loop: Loop, place: int, maker: list[str], critic: list[str]) -> Push | None:
    """Which way a step moves the answers of the critic; None where these are not found."""
    program = loop.programs[place]
    found = program and program.loss_of(loop)
    if program is None or not found:
        return None
    # A first step follows its own gradient, which later ones mix with moments.
    loss, call = found[0], loop.calls[place][0]
    gradient = program.gradients(call)[program.candidates.index(loss)]
    descends = cosine(call.change(p for p in gradient if np.any(gradient[p])), gradient)
    along = np.sign(descends) if abs(descends) > bound("climbs") else 0.0  # -1 where it descends
    ways: dict[str, list[float]] = {"made": [], "true": []}
    for value in answers(program, loss, critic):
        slopes, made = slopes_at(program, loss, value, maker)
        for name, rows in (("made", made), ("true", ~made)):
            if rows.any():
                ways[name].append(float(along * one_sign(slopes[rows])))
    signs = [set(each) for each in ways.values()]
    if not along or any(len(each) > 1 for each in signs) or not ways["made"]:
        return None
    return Push(ways["made"][0], ways["true"][0] if ways["true"] else 0.0)


def one_sign(slopes: np.ndarray) -> float:
    """The sign that nearly all slopes which are not 0 share, 0 where they share none."""
    signs = np.sign(slopes[slopes != 0])
    return (
        float(np.sign(signs.mean())) if signs.size and abs(signs.mean()) > bound("mostly") else 0.0
    )


def answers(program: Program, loss: int, network: list[str]) -> list[int]:
    """The values that the last layer of a network gives on the way to a loss, or another value."""
    traced, needed = program.trace, program.trace.needed([loss])
    leaves = {path: program.old[path] for path in network if path in program.old}
    data = traced.reached([*program.batch, *program.key, *drawn(program)])
    found: list[int] = []
    for value in leaves.values():
        alone = traced.reached([value], lambda op: op.name in AS_IT_IS)
        used = [
            op.outputs[0]
            for op in traced.operations
            if not alone.isdisjoint(op.inputs)
            and not data.isdisjoint(set(op.inputs) - alone)
            and op.outputs[0] in needed
        ]
        found = max(found, used, key=lambda each: max(each, default=-1))
    return found


def slopes_at(
    program: Program, loss: int, value: int, maker: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The slopes of a loss by a value, (rows, ...), and which of its rows the maker has made."""
    traced, leaves = program.trace, program.leaves
    state, batch, key = program.arguments
    other = {path: leaf * 1.5 + 0.1 if path in maker else leaf for path, leaf in state.items()}
    (one,) = traced.evaluate(leaves, [value])
    (two,) = traced.evaluate(jax.tree.leaves((other, batch, key)), [value])
    made = np.any(np.asarray(one != two).reshape(len(one), -1), axis=1)

    def of_value(values: Any) -> Any:
        return jnp.ravel(traced.evaluate(leaves, [loss], {value: values})[0])[0]

    return np.asarray(jax.grad(of_value)(one)), made
