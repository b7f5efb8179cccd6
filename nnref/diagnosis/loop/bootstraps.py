"""Targets that a network's own answer to the next observation is part of, as in Q-learning.

A target r + γ V(s') goes on beyond the end of an episode unless something sets V(s') to 0 there.
"""

from collections.abc import Iterator
from itertools import permutations

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop, Theirs
from nnref.diagnosis.loop.stepping import Parted, parted
from nnref.diagnosis.program.blocked import differentiable
from nnref.diagnosis.program.tracing import PRODUCTS, Operation, Trace
from nnref.training.checkpoint import is_key

# Flags that say something else than that nothing comes after a row.
NO_END = ("trunc", "time", "limit", "first", "start", "success", "expert", "demo")
LIMITS = ("trunc", "timeout", "time_out", "time_limit", "timelimit")  # it went on, unseen
HIDING = {"mul", "div", "select_n", "min"}  # by which numbers of the batch set others to 0


def ends_ignored(loop: Loop) -> Iterator[Finding]:
    """Flags of rows that no step looks at, where targets are made of what comes after a row."""
    programs = [program for program in loop.programs if program]
    if len(programs) < len(loop.programs):
        return
    used: set[str] = set()
    for program in programs:
        needed = program.trace.needed([*program.new.values(), *program.metrics.values()])
        used |= {program.trace.paths[value] for value in program.batch if value in needed}
    paths = {program.trace.paths[value] for program in programs for value in program.batch}
    flags = [path for path in sorted(paths - used) if ends(loop, path)]
    for program in programs if flags else []:
        target = bootstrap(loop, program)
        if target is None:
            continue
        op, following = target
        yield fault(
            "inputs_ignored",
            f"batch, {flags[0]}; {op.where or program.line}",
            f"the target is made of what a network says of {following}, also for rows after which "
            f"nothing comes: no step looks at {flags[0]}, which is one of two values for each row, "
            "as the end of an episode is",
            "nothing depends on it",
            healthy="no value of what comes after the end",
            remedy="target = reward + gamma * (1 - done) * next_value",
            confidence=0.8,
        )
        return


def limits_taken_for_ends(loop: Loop) -> Iterator[Finding]:
    """A limit of time, at which an episode was cut, that is taken for its end.

    The step is made again with that flag set for all rows, and with other values of each part of
    the batch. One that matters without the flag alone is what comes next (Pardo et al. 2018, "Time
    limits in reinforcement learning", section 4: there the target goes on).
    """
    for place in range(len(loop.steps)):
        parts = parted(loop.calls[place][0].batch)
        flags = [path for path in parts.arrays if is_flag(loop, path)]
        limits = [path for path in flags if any(word in last_name(path) for word in LIMITS)]
        states = [path for path, leaf in parts.arrays.items() if np.ndim(leaf) > 1]
        for limit in limits:
            following = hidden_by(loop, place, parts, limit, flags, states)
            if following is None:
                continue
            yield fault(
                "loss_mismatch",
                f"batch, {limit}; {loop.loss_line(place)}",
                f"where {limit} is set the target leaves out what a network says of {following}, "
                "as at an end. But there the time was up, and the episode would have gone on: the "
                "values of all that lies before come out too low, or too high where rewards are "
                "negative",
                f"{following} changes nothing where {limit} is set",
                healthy="a target that goes on, but at true ends",
                remedy="target = reward + gamma * (1 - terminated) * next_value",
                confidence=0.8,
            )
            return


def hidden_by(
    loop: Loop, place: int, parts: Parted, limit: str, flags: list[str], states: list[str]
) -> str | None:
    """The part of a batch that matters only where no row has this flag, though its like matters."""

    def made(flag: float, other: str | None = None) -> dict[str, np.ndarray]:
        changed = {path: np.zeros_like(parts.arrays[path]) for path in flags}
        changed[limit] = np.full_like(parts.arrays[limit], flag)
        if other is not None:
            changed[other] = np.asarray(parts.arrays[other])[::-1]
        batch = parts.rebuild({**parts.arrays, **changed})
        after = loop.again(place, batch=batch).after.arrays
        return {path: np.asarray(after[path]) for path in loop.of("parameter")}

    def matter(flag: float, paths: list[str]) -> list[str]:
        """Those parts of the batch whose rows, in another order, change what the step makes."""
        plain = made(flag)
        return [
            path
            for path in paths
            if any(not np.array_equal(plain[p], leaf) for p, leaf in made(flag, path).items())
        ]

    try:
        free = matter(0, states)
        limited = matter(1, states) if free else []
    except Theirs:  # a step may refuse such a batch
        return None
    shapes = {np.shape(parts.arrays[path]) for path in limited}
    hidden = [path for path in free if path not in limited]
    return next((path for path in hidden if np.shape(parts.arrays[path]) in shapes), None)


def ends(loop: Loop, path: str) -> bool:
    """Whether a part of the batches is a flag of rows, by name no other one than of an end."""
    return is_flag(loop, path) and not any(word in last_name(path) for word in NO_END)


def last_name(path: str) -> str:
    """The last part of a path, in small letters."""
    return path.rpartition(".")[2].lower()


def is_flag(loop: Loop, path: str) -> bool:
    """Whether a part of the batches holds one of two values for each row."""
    parts = [parted(batch).arrays.get(path) for batch in loop.batches]
    given = [part for part in parts if part is not None and np.ndim(part) and not is_key(part)]
    if len(given) < len(parts) or not given:
        return False
    rows = [max(np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)) for batch in loop.batches]
    alone = all((np.size(part),) == count for part, count in zip(given, rows, strict=True))
    values = np.unique(np.concatenate([np.ravel(np.asarray(part)) for part in given]))
    return alone and len(values) == 2


def bootstrap(loop: Loop, program: Program) -> tuple[Operation, str] | None:
    """The sum of a reward and a network's answer to what follows, and the part that follows.

    Two parts of the batch have one form: the network that learns answers to one of them, and the
    answer to the other is added to numbers of the batch and has no gradient, as it is that of other
    parameters or its gradient is stopped. None where something of the batch is multiplied with it
    or chosen in its place: this may tell the ends.
    """
    found = program.loss_of(loop)
    if found is None:
        return None
    traced, loss, passes = program.trace, found[0], differentiable(program.trace)
    networks = [path for path in (*loop.of("parameter"), *loop.of("target")) if path in program.old]
    learning = [program.old[path] for path in networks if loop.moves[path].any()]
    taught = traced.reached(
        [v for v in learning if loop.roles[traced.paths[v]] != "target"], passes
    )
    data, needed = traced.reached(program.batch), traced.needed([loss])
    answers = traced.reached(program.old[path] for path in networks) & data
    for op in traced.operations:
        added = [value for value in op.inputs if value in data - answers]
        answer = [value for value in op.inputs if value in answers]
        if op.name != "add" or len(added) != 1 or len(answer) != 1 or op.outputs[0] not in needed:
            continue
        (value,) = answer
        if value in taught and loss in traced.reached([value], passes):
            continue
        here, behind = traced.needed([value]), traced.reached([value])
        for one, other in permutations(program.batch, 2):
            forms = {(traced.shape(part), str(traced.avals[part].dtype)) for part in (one, other)}
            if len(forms) > 1 or other not in here or one in here or one not in needed:
                continue
            before = (here | behind) - traced.reached([one])
            if meets(traced, one, taught - data) and not is_hidden(traced, before, answers, data):
                return op, traced.paths[other]
    return None


def meets(traced: Trace, part: int, kernels: set[int]) -> bool:
    """Whether a layer of these kernels is given a part of the batch."""
    of_part = traced.reached([part])
    return any(
        op.name in PRODUCTS and of_part & set(op.inputs) and kernels & set(op.inputs)
        for op in traced.operations
    )


def is_hidden(traced: Trace, values: set[int], answers: set[int], data: set[int]) -> bool:
    """Whether numbers of the batch alone scale or replace an answer on its way."""
    return any(
        op.name in HIDING
        and values & set(op.outputs)
        and answers & set(op.inputs)
        and (data - answers) & set(op.inputs)
        for op in traced.operations
    )
