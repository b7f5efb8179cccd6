"""What a step changes, and what of it comes back: parameters, the optimizer's state, dtypes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.loop.course import Course
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.roles import but_for_one
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import has_modules
from nnref.diagnosis.program.blocked import differentiable
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.thresholds import bound

CARRY = (
    "state, loss = step(state, batch), with the new parameters, statistics and optimizer state "
    "among what the step returns"
)
IN_PLACE = "@nnx.jit in the place of @jax.jit, or return nnx.state(model) and nnx.update it outside"


def place(loop: Course, paths: list[str], step: int = 0) -> str:
    """The line whose result is lost for these leaves, else where the step begins."""
    program = loop.programs[step]
    return (program and (program.thrown_away(paths) or program.line)) or loop.line(step)


def standing(loop: Course, role: str) -> list[str]:
    """The leaves of a role that no step changes."""
    return [path for path in loop.of(role) if loop.stands(path)]


def nothing_comes_back(loop: Course) -> Iterator[Finding]:
    """Steps after which all of floating point is as it was."""
    if any(loop.moves[path].any() for path in loop.floating()):
        return
    turns, weights = loop.turns, loop.of("parameter") or loop.floating()
    program = loop.programs[0]
    lost = bool(program and program.thrown_away(weights))
    counted = any(loop.moves[path].any() for path in loop.of("counter") if path in loop.optimizers)
    if counted:
        yield times_nothing(program, turns) or zero_updates(loop, turns)
        return
    if has_modules(loop.state):
        evidence = (
            "the step changes its modules in place and nothing of it is seen outside: jax.jit "
            "changes copies and throws them away"
        )
    elif not loop.comes_back:
        evidence = "the step returns no state: nothing in its result has the form of the state"
    else:
        evidence = "the step returns the state that it was given"
    yield fault(
        "parameters_not_updated",
        place(loop, weights),
        f"{evidence}; after {turns} steps no number of it has changed"
        + (", and what this line computes is used nowhere" if lost else ""),
        f"0 of {len(loop.floating())} arrays moved",
        remedy=IN_PLACE if has_modules(loop.state) else CARRY,
        confidence=0.97 if lost or not loop.comes_back else 0.9,
    )


def times_nothing(program: Program | None, turns: int) -> Finding | None:
    """That the loss multiplies what is learned by an array of zeros, as by targets of nothing."""
    if program is None:
        return None
    traced = program.trace
    floats = [value for value in program.old.values() if program.is_floating(value)]
    learned = traced.reached(floats, differentiable(traced))
    needed = traced.needed(program.candidates)
    meetings = [
        (op, other)
        for op in traced.operations
        if op.name == "mul" and op.where and op.outputs[0] in needed & learned
        for other in set(op.inputs) - learned
        if traced.size(other) > 1
    ]
    factors = traced.evaluate(program.leaves, [other for _, other in meetings])
    for (op, other), factor in zip(meetings, factors, strict=True):
        if not np.any(np.asarray(factor)):
            return fault(
                "gradient_blocked",
                op.where,
                f"what is learned is multiplied here by {traced.shape(other)} numbers that are all "
                f"0: the loss says nothing, no parameter has a gradient, and {turns} updates are 0",
                "0 in every place",
                healthy="targets, weights or a mask that are not 0 everywhere",
                remedy="look at what makes them: shares of a distribution add up to 1 in each row, "
                "and a mask is 1 where something counts",
                confidence=0.9,
            )
    return None


def zero_updates(loop: Course, turns: int) -> Finding:
    """An optimizer that counts its steps, and moves nothing."""
    return fault(
        "parameters_not_updated",
        loop.line(),
        f"the optimizer counts {turns} steps, and all of its updates are 0",
        "moved by 0",
        remedy="a learning rate above 0: look at the schedule at its first steps, and at masks",
        confidence=0.8,
    )


def parameters_stand(loop: Course) -> Iterator[Finding]:
    """Parameters that stay where they are while the optimizer's state, or others, move."""
    stands = standing(loop, "parameter")
    if not stands or not any(loop.moves[path].any() for path in loop.floating()):
        return
    stepped = {of for m, of in loop.moments.items() if loop.moves[m].any()}
    lost = [
        path
        for path in stands
        if path in stepped
        and all(program is None or program.passed_on(path) for program in loop.programs)
    ]
    if lost:
        whole = len(stands) == len(loop.of("parameter"))
        yield fault(
            "parameters_not_updated",
            f"{listed(lost)}; {place(loop, lost)}",
            f"the optimizer takes steps for {listed(lost)}, and the step hands "
            f"{'them' if len(lost) > 1 else 'it'} back as they came: the updates are thrown away",
            f"moved by 0 in {loop.turns} steps",
            remedy="params = optax.apply_updates(params, updates), and return the new params",
            confidence=0.95 if whole else 0.85,
        )
        return
    if len(stands) == len(loop.of("parameter")) and stepped:
        yield zero_updates(loop, loop.turns)
        return
    sloped = [path for path in stands if path not in lost and has_slope(loop, path)]
    if sloped:
        yield note(
            "parameters_not_updated",
            listed(sloped),
            f"{listed(sloped)} stand{'s' * (len(sloped) == 1)} while others move, though the loss "
            "has a gradient there: a fault, unless they are frozen on purpose",
            "moved by 0",
            remedy="give the optimizer all parameters, and return all of them",
            confidence=0.4,
        )


def never_written(loop: Course) -> Iterator[Finding]:
    """A part of the state that begins at 0, is read beside the parameters, and stays at 0.

    A step computes its next value, of itself and the batch alone: what the network makes of the
    rows does not enter it, as where the carried state of a recurrent network is not handed on.
    """
    for program in filter(None, loop.programs):
        traced = program.trace
        weights = [program.old[path] for path in loop.of("parameter") if path in program.old]
        learned = traced.reached(weights)
        for path in loop.floating():
            first, old, new = loop.states[0][path], program.old.get(path), program.new.get(path)
            if path in loop.optimizers or loop.roles[path] == "parameter" or first.ndim < 2:
                continue
            if old is None or new is None or old == new or first.any() or not loop.stands(path):
                continue
            reached = traced.reached([old])
            # What is set to 0 on purpose, as sums that were spent, is not made of what it was.
            kept, read = new in reached - learned, reached & set(traced.outputs) - {new}
            if kept and read:
                yield fault(
                    "inputs_ignored",
                    f"{path}; {program.line_of(path)}",
                    f"{path} is read in each of {loop.turns} steps, and stays 0: its new value is "
                    "made of the old one, and nothing that the network computes enters it",
                    "0 after all steps",
                    healthy="another value after each step",
                    remedy="return the state that the network gives, and not the one it was given",
                    confidence=0.9,
                )
                return


def left_out(loop: Course) -> Iterator[Finding]:
    """Networks that stand beside one that is built alike and learns, and that a step computes with.

    A teacher may be meant to stand: only a note.
    """
    learning = [path for path in loop.of("parameter") if not loop.stands(path)]
    first = loop.states[0]

    def built_alike(path: str) -> str:
        """The leaf that learns at the same place of a network of the same shapes; "" for none."""
        own = first[path]
        return next(
            (
                other
                for other in learning
                if first[other].shape == own.shape
                and but_for_one(path, other)
                and not differ_by_number(path, other)
                and not np.array_equal(first[other], own)
            ),
            "",
        )

    for program in filter(None, loop.programs):
        needed = program.trace.needed(program.trace.outputs)
        still = {
            path: built_alike(path)
            for path in loop.floating()
            if loop.roles[path] in ("parameter", "other")
            and loop.stands(path)
            and path not in loop.optimizers
            and first[path].ndim > 1
            and program.old.get(path) in needed
        }
        others = sorted({other for other in still.values() if other})
        paths = [path for path, other in still.items() if other]
        if paths:
            yield note(
                "parameters_not_updated",
                f"{listed(paths)}; {program.line}",
                f"{listed(paths)} stand{'s' * (len(paths) == 1)}, and {listed(others)}, of a "
                "network that is built alike, learn: a fault, unless it is frozen on purpose, as "
                "a teacher is",
                "moved by 0",
                remedy="name both where the optimizer begins and where it is updated",
                confidence=0.5,
            )
            return


def differ_by_number(one: str, other: str) -> bool:
    """Whether two paths differ by a number, as those of two layers of one network do."""
    pairs = zip(one.split("."), other.split("."), strict=True)
    return all(a.isdigit() and b.isdigit() for a, b in pairs if a != b)


def has_slope(loop: Course, path: str) -> bool:
    """Whether the loss of some step has a gradient at a leaf."""
    return any(np.any(gradient.get(path, 0)) for *_, gradient in loop.losses_of_steps())


def begins_again(loop: Loop) -> Iterator[Finding]:
    """An optimizer whose count falls back within the run, as where a checkpoint lacks its state.

    Of several counters, as of accumulated gradients, one may go round; here all of them fall.
    """
    counters = [path for path in loop.of("counter") if path in loop.optimizers]
    early = {p: [float(np.max(state[p])) for state in loop.states] for p in counters}
    if not counters or not all(max(values) > values[0] + 1 for values in early.values()):
        return  # they stand, or are made anew in every step: another check's
    late = {p: float(np.max(loop.further.state.arrays[p])) for p in counters}
    further = len(loop.further.lengths)
    ahead = further / (2 * loop.turns)  # at half of the pace of the first turns at least
    least = {p: max(early[p]) + ahead * (max(early[p]) - early[p][0]) for p in counters}
    falls = [p for p in counters if late[p] < least[p] or np.any(np.diff(early[p]) < 0)]
    if falls == counters:
        turns = loop.turns + further
        yield fault(
            "state_not_carried",
            f"{listed(counters)}; {loop.line_of(counters[0])}",
            f"after {turns} steps the optimizer counts {late[counters[0]]:.0f}: its state is begun "
            "anew on the way, and moments, warm-up and schedule with it, as where what is saved "
            "and loaded lacks it",
            f"a count of {late[counters[0]]:.0f} after {turns} steps",
            healthy=f"{early[counters[0]][0] + turns:.0f}",
            remedy="save and load the optimizer's state beside the parameters",
            confidence=0.9,
        )


def optimizer_stands(loop: Course) -> Iterator[Finding]:
    """The optimizer's state, which is as it was before, or made anew in every step.

    Its count tells: it is at least as large after each step, and larger at last.
    """
    if not any(loop.moves[path].any() for path in loop.of("parameter")):
        return
    own = [path for path in loop.moves if path in loop.optimizers]
    late = {path: loop.moves[path][1:] for path in own}
    counters = [path for path in own if loop.roles[path] == "counter"]
    moments = list(loop.moments)
    if loop.turns < 3 or not (counters or moments):
        return
    stuck = bool(counters) and not any(late[path].any() for path in counters)
    whole = bool(own) and not any(loop.moves[path].any() for path in own)
    program = loop.programs[0]
    anew = (
        bool(moments)
        and not counters
        and program is not None
        and len(loop.programs) == 1
        and all(
            loop.moves[path].any()
            and path in program.new
            and program.new[path] not in program.trace.reached([program.old[path]])
            for path in moments
        )
    )
    if not (stuck or whole or anew):
        return
    count = f"its count stays at {int(loop.states[-1][counters[0]].ravel()[0])}" if counters else ""
    yield fault(
        "state_not_carried",
        f"{listed(own)}; {place(loop, moments or counters)}",
        "the parameters move, and the optimizer's state "
        + ("is as it was before" if whole else "is made anew in every step")
        + f": {count or 'its moments forget the steps before'}, so that moments, bias "
        "correction and schedule are those of the first step for ever",
        count or "moments of one gradient alone",
        remedy="optimizer.init(params) once before the loop; updates, opt_state = "
        "optimizer.update(gradients, opt_state, params) in the step, and return opt_state",
        confidence=0.95,
    )


def counters_stand(loop: Course) -> Iterator[Finding]:
    """A number of the state that the program looks at, and that never counts on."""
    if not any(loop.moves[path].any() for path in loop.of("parameter")):
        return
    for path in standing(loop, "counter"):
        if path in loop.optimizers:
            continue
        for number, program in enumerate(loop.programs):
            if program is None or path not in program.old:
                continue
            new = {program.new[p] for p in loop.of("parameter") if p in program.new}
            looked_at = not program.trace.reached([program.old[path]]).isdisjoint(new)
            if looked_at and not (isinstance(loop, Loop) and counts_up_to(loop, number, path)):
                yield fault(
                    "state_not_carried",
                    f"{path}; {program.line}",
                    f"the update depends on the counter {path}, and it stays at "
                    f"{loop.states[0][path].ravel()[0]}: a schedule of it stands still",
                    f"moved by 0 in {loop.turns} steps",
                    remedy="return the counter plus 1 with the new state, or let optax count: "
                    "optax.adam(schedule)",
                    confidence=0.7,
                )
                return


def counts_up_to(loop: Loop, number: int, path: str) -> bool:
    """Whether a counter that stands would move if it were less: how full a memory is, say."""
    call = loop.calls[number][-1]
    less = {path: call.before.arrays[path] // 2}
    start = call.before._replace(arrays={**call.before.arrays, **less})
    after = loop.call(loop.steps[number], start, call.batch, call.key).after.arrays
    return not np.array_equal(after[path], less[path])


def dtypes(loop: Course) -> Iterator[Finding]:
    """Leaves that come back in fewer bits, or as integers."""
    before, after = loop.states[0], loop.states[-1]
    lost = [
        path
        for path in loop.floating()
        if path in after
        and (
            after[path].dtype.itemsize < before[path].dtype.itemsize
            or after[path].dtype.kind in "iub"
        )
    ]
    if lost:
        was, now = before[lost[0]].dtype, after[lost[0]].dtype
        weights = [path for path in lost if loop.roles[path] == "parameter"]
        yield (fault if weights else note)(
            "precision_lost",
            f"{listed(weights or lost)}; {loop.line_of((weights or lost)[0])}",
            f"{listed(weights or lost)} come in as {was} and come back as {now}: an update below "
            "half of a last digit is rounded away, and the step is compiled anew",
            f"{was} before, {now} after a step",
            confidence=0.85,
        )


def devices(loop: Course) -> Iterator[Finding]:
    """Parameters that begin alike on all devices, and do not stay so."""
    worst: dict[str, float] = {}
    for path in loop.of("parameter"):
        begun, ended = loop.start.arrays[path], loop.last[path]
        apart = spread(ended)
        if (
            apart is not None
            and apart > bound("devices apart")
            and not spread(
                begun, len(getattr(ended, "sharding", None) and ended.sharding.device_set or ())
            )
        ):
            worst[path] = apart
    if worst:
        path = max(worst, key=worst.__getitem__)
        yield fault(
            "devices_disagree",
            f"{listed(list(worst))}; {loop.line_of(path)}",
            "the parameters are the same on all devices at first and differ after "
            f"{loop.turns} steps: each device follows the gradient of its own rows, and "
            "one of these networks is kept in the end",
            f"{path} differs by {worst[path]:.2g} of itself",
            confidence=0.95,
        )


def spread(leaf: Any, copies: int = 0) -> float | None:
    """By how much the copies of an array on several devices differ, over its size.

    An array whose first axis is that of the devices, as `pmap` has it, is as many copies. None
    where there is one device.
    """
    shards = getattr(leaf, "addressable_shards", [])
    replicated = getattr(leaf, "is_fully_replicated", False)
    if len(shards) > 1 and replicated:
        parts = np.stack([np.asarray(shard.data, np.float64) for shard in shards])
    elif np.ndim(leaf) and np.shape(leaf)[0] == max(len(shards), copies) > 1:
        parts = np.asarray(leaf, np.float64)
    else:
        return None
    size = float(np.abs(parts).max(initial=0))
    return float(np.abs(parts - parts[:1]).max(initial=0)) / max(size, 1e-30)


def returned(loop: Course) -> Iterator[Finding]:
    """Parameters that have moved, and are then what they were some turns before."""
    weights = [path for path in loop.of("parameter") if loop.moves[path].any()]
    seen: dict[bytes, int] = {}
    for number, state in enumerate(loop.states):
        key = b"".join(np.asarray(state[path]).tobytes() for path in weights)
        before = seen.get(key, number)
        seen[key] = number
        if weights and before < number - 1:
            yield fault(
                "state_not_carried",
                f"{listed(weights)}; {loop.line_of(weights[0])}",
                f"after step {number} all parameters are what they were after step {before}: what "
                "was learned between is thrown away, as where a copy that never follows, or a "
                "checkpoint, is loaded over them",
                f"equal to the last bit after {number - before} steps",
                healthy="parameters that no step has had before",
                remedy="update the copy at every step before it is put back: ema = decay * ema + "
                "(1 - decay) * params",
                confidence=0.95,
            )
            return
