"""Target networks and averages: whether they follow, how often, and whether they are copies."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.loop.roles import but_for_one, original_of, share
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import Parted, on_host
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.thresholds import bound

CHOICES = {"select_n", "cond"}


def targets(loop: Loop) -> Iterator[Finding]:
    """Slow copies: those that run away, and those that the loss reads: too slow, fast, standing."""
    yield from running_away(loop)
    itself = list(from_themselves(loop))
    if itself:
        yield from itself
        return
    read = [path for path in loop.copies if loop.roles[path] == "target" and is_read(loop, path)]
    if not read:
        return
    moving = [path for path in read if not loop.stands(path)]
    if not moving:
        yield from list(pulled_back(loop, read)) or standing(loop, read)
        return
    yield from left_behind(loop, moving, partial(is_read, loop))
    same = [path for path in moving if always_equal(loop, path)]
    if len(same) == len(moving) and loop.updates < bound("updates a call"):
        yield fault(
            "target_stands",
            f"{listed(same)}; {loop.line_of(same[0])}",
            f"after every step {listed(same)} equal{'s' * (len(same) == 1)} the network that "
            "learns: a target that moves with what chases it is none",
            "a distance of 0 after every step",
            remedy="optax.incremental_update(params, target, 0.005), or a copy every few hundred "
            "steps: optax.periodic_update",
            confidence=0.7,
        )
        return
    yield from once_a_call(loop, moving)


def left_behind(
    loop: Loop, moving: list[str], reads: Callable[[str], bool], who: str = "the loss"
) -> Iterator[Finding]:
    """Leaves of a network that follows, which stand, though what they are copies of moves.

    An average of parameters alone has the running statistics of its first day.
    """
    left = {}
    for path in moving:
        for other in loop.floating():
            twin = original_of(other, path, loop.copies[path])
            if twin not in loop.moves or not loop.stands(other) or loop.stands(twin):
                continue
            if loop.states[0][other].shape == loop.states[0][twin].shape and reads(other):
                left[other] = twin
    if left:
        stand, go = list(left), list(left.values())
        statistics = all(loop.roles[path] == "statistic" for path in go)
        yield fault(
            "batch_statistics_not_updated" if statistics else "target_stands",
            f"{listed(stand)}; {loop.line_of(stand[0])}",
            f"a copy follows the network that learns in part: {listed(moving)} go along, and not "
            f"{listed(stand)}, which {who} reads as well and whose originals move: {listed(go)}",
            f"moved by 0 in {loop.turns} steps",
            healthy="all that a network needs follows",
            remedy="the same average, or a copy, of these too: jax.tree.map(follow, teacher, "
            "student) of the whole network",
            confidence=0.9,
        )


def from_themselves(loop: Loop) -> Iterator[Finding]:
    """Arrays that the loss reads and the step writes, from nothing but themselves."""
    learning = [path for path in loop.of("parameter") if loop.moves[path].any()]
    shapes = {path: loop.states[0][path].shape for path in loop.floating()}

    def has_twin(path: str) -> bool:
        return any(shapes[path] == shapes[p] and but_for_one(path, p) for p in learning)

    for program in filter(None, loop.programs):
        written = [
            path
            for path in shapes
            if path in program.new and not program.passed_on(path) and loop.stands(path)
            if path not in loop.optimizers and has_twin(path) and is_read(loop, path)
        ]
        sources = program.trace.needed(program.new[path] for path in written)
        if written and sources.isdisjoint(program.old[p] for p in learning if p in program.old):
            yield fault(
                "target_stands",
                f"{listed(written)}; {program.line_of(written[0])}",
                f"the step writes {listed(written)}, which the loss reads, from these same values: "
                "nothing of the network that learns comes in",
                f"moved by 0 in {loop.turns} steps",
                healthy="a copy or a share of the parameters that learn",
                remedy="the parameters that learn as the source: jnp.where(due, online, target)",
                confidence=0.9,
            )
            return


def running_away(loop: Loop) -> Iterator[Finding]:
    """Averages of the parameters that move straight away from them, a little more at every step."""
    away = []
    for path, other in loop.copies.items():
        shares = [share(before[path], after[path], after[other]) for before, after in loop.pairs]
        turned = np.mean([part < 0 and left < bound("straight") for part, left in shares])
        away += [path] if turned > 1 - bound("failed") / 2 else []
    if away:
        yield fault(
            "target_stands",
            f"{listed(away)}; {loop.line_of(away[0])}",
            f"{listed(away)} should follow the parameters, and at every step "
            f"{'it moves' if len(away) == 1 else 'they move'} straight away from them: the sign of "
            "the step is turned",
            "the distance grows at every step",
            healthy="a share of the way towards them",
            remedy="average = average + (1 - decay) * (params - average)",
            confidence=0.9,
        )


def is_read(loop: Loop, path: str) -> bool:
    """Whether the loss of some step depends on a leaf, or else the new parameters do."""
    for program in loop.programs:
        if program is None or path not in program.old:
            continue
        found, old = program.loss_of(loop), program.old[path]
        weights = [program.new[p] for p in loop.of("parameter") if p in program.new]
        if old in program.trace.needed([found[0]] if found else weights):
            return True
    return False


def standing(loop: Loop, read: list[str]) -> Iterator[Finding]:
    """Copies that the loss reads and no step moves: a target, or a teacher that is meant so."""
    programs = [program for program in loop.programs if program]
    if any(not program.passed_on(p) for program in programs for p in read if p in program.old):
        yield from never_due(loop, read)  # moved once in a while
        return
    lost = next(filter(None, (program.thrown_away(read) for program in programs)), "")
    yield (fault if lost else note)(
        "target_stands",
        f"{listed(read)}; {lost or loop.line()}",
        f"the loss reads {listed(read)}, a copy of the network that learns, and "
        + (
            "what this line makes of it is thrown away"
            if lost
            else "no step moves it: fine for a teacher, or where your loop moves it between the "
            "steps; hand that in as well: step=[step, move_target]"
        ),
        f"moved by 0 in {loop.turns} steps",
        confidence=0.9 if lost else 0.4,
    )


def never_due(loop: Loop, read: list[str]) -> Iterator[Finding]:
    """Copies that wait for a condition of the state which no longer changes, and is not met."""
    for place, program in enumerate(loop.programs):
        waiting = [p for p in read if program and p in program.new and not program.passed_on(p)]
        if program is None or not waiting:
            continue
        traced, new = program.trace, program.new[waiting[0]]
        chosen = [op for op in traced.operations if op.name in CHOICES and new in op.outputs]
        asked = traced.needed([op.inputs[0] for op in chosen])
        looked_at = [path for path, value in program.old.items() if value in asked]
        if not looked_at or asked & {*program.batch, *program.key}:
            continue
        last = loop.further.state
        number = loop.count + len(loop.further.lengths)
        again = loop.call(loop.steps[place], last, loop.batch(number), loop.calls[place][-1].key)
        first, end, beyond = loop.start.arrays, last.arrays, again.after.arrays
        still = [p for p in looked_at if np.array_equal(end[p], beyond[p])]
        stood = all(np.array_equal(first[p], beyond[p]) for p in waiting)
        if still == looked_at and stood:
            numbers = ", ".join(f"{p} = {np.asarray(last.arrays[p])}" for p in still)
            yield fault(
                "target_stands",
                f"{listed(waiting)}; {chosen[0].where or program.line_of(waiting[0])}",
                f"{listed(waiting)} are copied only when {listed(still)} says so; after "
                f"{number} steps that is {numbers}, and no longer changes: no copy is made again",
                f"moved by 0 in {number} steps",
                healthy="a copy every so many steps",
                remedy="count the steps of learning, and ask that number: step % every == 0",
                confidence=0.9,
            )
            return


def pulled_back(loop: Loop, read: list[str]) -> Iterator[Finding]:
    """Copies that stand and that the new parameters are a blend with: written the wrong way.

    Where small random numbers are added to a copy, a blend moves by the same share of each of them,
    which no gradient does, but for that of a penalty on the distance from the copy.
    """
    for place, program in enumerate(loop.programs):
        own = [p for p in read if program and p in program.old and program.passed_on(p)]
        if program is None or not own or not program.loss_of(loop):
            continue
        call, random = loop.calls[place][-1], np.random.default_rng(0)
        added = {}
        for path in own:
            leaf = loop.states[-1][path]
            size = bound("small change") * (float(leaf.std()) or 1.0)
            added[path] = (size * random.normal(size=leaf.shape)).astype(leaf.dtype)
        other = {path: call.before.arrays[path] + more for path, more in added.items()}
        state = call.before._replace(arrays={**call.before.arrays, **other})
        one, two = (
            on_host(loop.call(loop.steps[place], start, call.batch, call.key).after.arrays)
            for start in (call.before, state)
        )
        learning = [loop.copies[path] for path in own]
        moved = [two[path] - one[path] for path in learning]
        kept = float(np.median([part_of(added[p], m) for p, m in zip(own, moved, strict=True)]))
        if kept < bound("pulled") or of_a_penalty(loop, place, state, added):
            continue
        yield fault(
            "target_stands",
            f"{listed(learning)}; {program.line_of(learning[0])}",
            f"the new {listed(learning)} hold {kept:.3g} of {listed(own)}, the copy that "
            "never moves: the blend that should move the copy is written over the network that "
            "learns, which is pulled back to its start at every step",
            f"{kept:.3g} of a copy that moved by 0 in {loop.turns} steps",
            healthy="0 of it, and the copy moves",
            remedy="the updated parameters stay as they are, and the blend goes into the copy: "
            "target = optax.incremental_update(params, target, 0.005)",
            confidence=0.95,
        )
        return


def part_of(added: np.ndarray, moved: np.ndarray) -> float:
    """The share of what was added by which an array moved, element by element; else 0."""
    part, left = share(np.zeros_like(added), moved, added)
    return part if added.size > 1 and left < bound("towards") else 0.0


def of_a_penalty(loop: Loop, place: int, state: Parted, added: dict[str, np.ndarray]) -> bool:
    """Whether the gradient itself moves by a share of what was added to the copies."""
    program, call = loop.programs[place], loop.calls[place][-1]
    found = program and program.loss_of(loop)
    if program is None or not found:
        return False
    at = program.candidates.index(found[0])
    one, two = (
        program.gradients(call._replace(before=start))[at] for start in (call.before, state)
    )
    pulls = [part_of(-more, two[q] - one[q]) for p, more in added.items() for q in [loop.copies[p]]]
    return float(np.median(pulls)) > 0


def always_equal(loop: Loop, path: str) -> bool:
    """Whether a copy equals what it follows after every turn, and that moves."""
    other = loop.copies[path]
    return not loop.stands(other) and all(
        np.array_equal(after[path], after[other]) for after in loop.states[1:]
    )


def once_a_call(loop: Loop, moving: list[str]) -> Iterator[Finding]:
    """Copies that move once in a call which makes many updates, by a share that is meant for each.

    What moves once goes straight towards the network of the call's end.
    """
    updates = loop.updates
    if updates < bound("updates a call"):
        return
    parts = []
    for path in moving:
        for before, after in list(loop.pairs)[1:4]:
            part, left = share(before[path], after[path], after[loop.copies[path]])
            if left > bound("straight") or not 0 < part < bound("slow share"):
                return
            parts.append(part)
    if parts:
        part = float(np.median(parts))
        yield fault(
            "target_stands",
            f"{listed(moving)}; {loop.line_of(moving[0])}",
            f"each call makes {updates} updates of the network and moves {listed(moving)} once, "
            f"by {part:.3g} of the way: for {updates - 1} of {updates} updates a part of the state "
            "stands still while the rest moves",
            f"once a call, {updates} updates a call",
            confidence=0.85,
        )
