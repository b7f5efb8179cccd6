"""Targets that a network's own answer to the next observation is part of, as in Q-learning.

A target r + γ V(s') goes on beyond the end of an episode unless something sets V(s') to 0 there.
"""

from collections.abc import Iterator
from itertools import permutations

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import parted
from nnref.diagnosis.program.blocked import differentiable
from nnref.diagnosis.program.tracing import PRODUCTS, Operation, Trace
from nnref.training.checkpoint import is_key

# Flags that say something else than that nothing comes after a row.
NO_END = ("trunc", "time", "limit", "first", "start", "success", "expert", "demo")
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


def ends(loop: Loop, path: str) -> bool:
    """Whether a part of the batches holds one of two values for each row, by name no other flag."""
    name = path.rpartition(".")[2].lower()
    parts = [parted(batch).arrays.get(path) for batch in loop.batches]
    given = [part for part in parts if part is not None and np.ndim(part) and not is_key(part)]
    if len(given) < len(parts) or not given:
        return False
    rows = [max(np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)) for batch in loop.batches]
    alone = all((np.size(part),) == count for part, count in zip(given, rows, strict=True))
    values = np.unique(np.concatenate([np.ravel(np.asarray(part)) for part in given]))
    return alone and len(values) == 2 and not any(word in name for word in NO_END)


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
