"""What the user's evaluation does: to the state, twice, with random numbers, with statistics."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.loop.evaluated_labels import other_labels
from nnref.diagnosis.loop.program import line_of_function
from nnref.diagnosis.loop.roles import share
from nnref.diagnosis.loop.running import Loop, Theirs
from nnref.diagnosis.loop.slow_copies import left_behind
from nnref.diagnosis.loop.stepping import Parted, copied, is_array, numbers, on_host, parted
from nnref.diagnosis.program.keys import draws
from nnref.diagnosis.program.step import divides_by_one, root_of
from nnref.diagnosis.program.tracing import COMPARISONS, Operation, Trace, trace
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import is_key

EVAL = "model.eval(), train=False, deterministic=True or use_running_average=True in evaluation"

# What makes a uniform number of random bits, and what hands a choice on as it is.
TO_A_NUMBER = {
    "random_unwrap",
    "shift_right_logical",
    "and",
    "or",
    "xor",
    "bitcast_convert_type",
    "convert_element_type",
    "sub",
    "mul",
    "add",
    "max",
    "reshape",
    "broadcast_in_dim",
    "concatenate",
    "slice",
    "squeeze",
}
AS_IT_IS = {"broadcast_in_dim", "reshape", "convert_element_type", "not"}


class Evaluation:
    """The evaluation of the loop's last state, twice, and its program where it can be traced."""

    def __init__(self, loop: Loop, function: Callable[[Any], Any]) -> None:
        """Evaluate.

        Raises:
            Theirs: what the user's function raises.
        """
        self.loop, self.function = loop, function
        self.state = loop.calls[-1][-1].after
        whole = self.state.rebuild(copied(self.state.arrays))
        try:
            self.first = jax.tree.map(np.asarray, numeric(function(whole)))
            self.after = on_host(parted(whole).arrays)
            self.second = jax.tree.map(np.asarray, numeric(function(whole)))
        except Exception as error:
            raise Theirs(error) from error
        self.changed = [
            path
            for path, leaf in on_host(self.state.arrays).items()
            if not np.array_equal(
                leaf, self.after.get(path, leaf), equal_nan=leaf.dtype.kind == "f"
            )
        ]
        self.line = line_of_function(function)
        try:
            self.trace: Trace | None = trace(
                lambda arrays: numeric(function(self.state.rebuild(arrays))), self.state.arrays
            )
        except Exception:  # float(...) in an evaluation, say
            self.trace = None

    def of(self, state: Parted) -> list[Any]:
        """The numbers of the evaluation of another state.

        Raises:
            Theirs: what the user's function raises.
        """
        try:
            return numeric(self.function(state.rebuild(copied(state.arrays))))
        except Exception as error:
            raise Theirs(error) from error

    @property
    def differs(self) -> bool:
        """Whether the second call gave something else."""
        pairs = zip(jax.tree.leaves(self.first), jax.tree.leaves(self.second), strict=False)
        return any(
            a.shape != b.shape or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for a, b in pairs
        )

    def reads(self, *paths: str) -> bool:
        """Whether the result depends on any of these leaves.

        Where the evaluation cannot be traced it is run without them: an array that was deleted
        raises when it is read.
        """
        if self.trace is not None:
            old = {self.trace.paths[value]: value for value in self.trace.arguments[0]}
            return not self.needed.isdisjoint(old[path] for path in paths if path in old)
        gone = {path: jnp.array(self.state.arrays[path]) for path in paths}
        for leaf in gone.values():
            leaf.delete()
        try:
            self.function(self.state.rebuild({**copied(self.state.arrays), **gone}))
        except Exception:
            return True
        return False

    @cached_property
    def needed(self) -> set[int]:
        """The values of its program on which the result depends."""
        return self.trace.needed(self.trace.outputs) if self.trace else set()


def numeric(result: Any) -> list[Any]:
    """The numbers of a result."""
    leaves = [leaf for leaf in jax.tree.leaves(result) if is_array(leaf) or numbers(leaf)]
    return [
        jax.random.key_data(leaf) if is_array(leaf) and is_key(leaf) else leaf for leaf in leaves
    ]


def dropout(traced: Trace, drawn: list[Operation]) -> Operation | None:
    """The draw that decides which units stay: it is compared with a rate, and selects."""
    for op in drawn:
        uniform = traced.reached(op.outputs, lambda o: o.name in TO_A_NUMBER)
        compared = {
            out
            for o in traced.operations
            if o.name in COMPARISONS and uniform & set(o.inputs)
            for out in o.outputs
        }
        kept = traced.reached(compared, lambda o: o.name in AS_IT_IS)
        for o in traced.operations:
            others = [v for v in o.inputs if v not in kept]
            if (
                o.name in ("select_n", "mul")
                and kept & set(o.inputs)
                and any(traced.size(v) == traced.size(o.outputs[0]) for v in others)
            ):
                return op
    return None


def evaluation(loop: Loop) -> Iterator[Finding]:
    """An evaluation in training mode."""
    if loop.evaluate is None:
        return
    seen = Evaluation(loop, loop.evaluate)
    changed = [path for path in seen.changed if loop.roles.get(path) != "counter"]
    traced = seen.trace
    drawn = draws(traced, traced.outputs) if traced else []
    mask = dropout(traced, drawn) if traced and drawn else None
    if changed:
        kinds = {loop.roles.get(path) for path in changed}
        yield fault(
            "evaluation_in_training_mode",
            f"{listed(changed)}; {seen.line}",
            f"evaluating changes the state: {listed(changed)}"
            + (
                "; statistics are measured on rows of evaluation"
                if kinds <= {"statistic", "other"}
                else ""
            ),
            f"{len(changed)} arrays changed by one evaluation",
            remedy=EVAL,
            confidence=0.9,
        )
    elif mask is not None:
        yield fault(
            "evaluation_in_training_mode",
            mask.where or seen.line,
            "dropout is on in evaluation: random numbers decide which units stay"
            + (", and two evaluations of one state differ" if seen.differs else ""),
            "the result depends on draws",
            remedy=EVAL,
            confidence=0.85,
        )
    elif seen.differs:
        yield note(
            "evaluation_in_training_mode",
            drawn[-1].where if drawn else seen.line,
            "two evaluations of one state give different results: noise, other rows, or dropout",
            "two results for one state",
            remedy=EVAL,
            confidence=0.5,
        )
    yield from unused_statistics(loop, seen)
    findings = list(other_labels(loop, traced, seen.line)) if traced is not None else []
    yield from findings or list(copies_behind(loop, seen)) or stands_still(loop, seen)
    yield from other_weights(loop, seen)
    if traced is not None:
        yield from other_inputs(loop, seen, traced)


def copies_behind(loop: Loop, seen: Evaluation) -> Iterator[Finding]:
    """An evaluation of an average that lacks a part of the network, or lags behind it."""
    moving = [path for path in loop.copies if not loop.stands(path) and seen.reads(path)]
    yield from (
        list(left_behind(loop, moving, seen.reads, "the evaluation")) or average_behind(loop, seen)
    )


def average_behind(loop: Loop, seen: Evaluation) -> Iterator[Finding]:
    """An evaluation of an average of the parameters that is clearly better of these themselves.

    It is a fault where the average remembers far more steps than the loop needs to learn: the loss
    has fallen to a tenth, or the evaluation stands still.
    """
    slow = [path for path in loop.floating() if path in loop.copies and seen.reads(path)]
    fall = loop.fall() if slow and one_number(seen) else None
    if fall is None:
        return
    (losses, first, last), end = fall, loop.further.state
    if not 0 < last < bound("falls here") * first:
        return
    exchanged = {path: end.arrays[loop.copies[path]] for path in slow}
    states = (loop.start, end, end._replace(arrays={**end.arrays, **exchanged}))
    before, after, better = (float(np.ravel(seen.of(state)[0])[0]) for state in states)
    way, went = better - before, after - before
    alike = bound("falls here") < before / losses[0] < 1 / bound("falls here")
    clear = abs(way) > bound("stands still") * max(abs(before), abs(way))
    if (alike and way > 0) or not clear or went / way > bound("half the way"):
        return  # what is as large as the loss is one, and not better where it rises
    shares = [share(b[p], a[p], a[loop.copies[p]])[0] for b, a in loop.pairs for p in slow]
    if np.median(shares) <= 0:
        return  # it stands, or runs away: others' questions
    memory, steps = 1 / float(np.median(shares)), len(losses)
    still = abs(went) < bound("stands still") * abs(before)
    far = memory > bound("long memory") * steps
    sure = far and (still or last < bound("learned by a loop") * first)
    yield (fault if sure else note)(
        "target_stands",
        f"{listed(slow)}; {loop.line_of(slow[0])}",
        f"the evaluation reads {listed(slow)}, averages of the parameters over the last "
        f"{memory:,.0f} steps. After {steps} steps, in which the loss fell from {first:.3g} to "
        f"{last:.3g}, it gives {after:.4g}, and {better:.4g} with the parameters themselves in "
        f"their place; before the first step it was {before:.4g}: the averages are still mostly "
        "those of the start",
        f"{after:.4g} against {better:.4g}",
        healthy="as good as the parameters, or better",
        remedy="evaluate the parameters; or a decay that fits the steps of the run, 1 - 10 / steps "
        f"({1 - 10 / steps:.3g} for {steps}); or one that begins low: "
        "min(decay, (1 + step) / (10 + step))",
        confidence=0.8 if sure else 0.5,
    )


def one_number(seen: Evaluation) -> bool:
    """Whether the evaluation is one number."""
    numbers = jax.tree.leaves(seen.first)
    return len(numbers) == 1 and np.size(numbers[0]) == 1


NOT_LEARNED = "what it measures is not what is learned"


def stands_still(loop: Loop, seen: Evaluation) -> Iterator[Finding]:
    """An evaluation that stays what it was before training, while the loss falls to a part."""
    if not one_number(seen) or loop.one_batch:
        return  # what learns one batch knows that
    fall = loop.fall()
    if fall is None:
        return
    losses, first, last = fall
    if not 0 < last < bound("falls here") * first:
        return
    ends = (loop.start, loop.further.state)
    before, after = (float(np.ravel(seen.of(state)[0])[0]) for state in ends)
    one, other = (float(np.ravel(each)[0]) for each in (seen.first[0], seen.second[0]))
    moved, still = abs(after - before), bound("stands still")
    share = 0 <= before <= 1
    perfect = share and moved > 2 * still * (1 - before)  # a share that was high before
    # Where the loss is all but gone, a share by chance of few rows may have moved by this much.
    least = (2 if share and last < bound("learned by a loop") * first else 1) * still * abs(before)
    if perfect or moved > max(least, 3 * abs(one - other)):
        return
    sentence = (
        f"the evaluation gives {before:.4g} before the first step and {after:.4g} after "
        f"{len(losses)} steps, in which the loss fell from {first:.3g} to {last:.3g}"
    )
    yield fault(
        "metric_mismatch",
        seen.line,
        f"{sentence}: {NOT_LEARNED}",
        f"{after:.4g}",
        healthy="better than before",
        remedy="predictions in the unit of the targets (the inverse of their scaling); rows and "
        "labels in one order, nothing shuffled between; inputs prepared as in training",
        confidence=0.7,
    )


def other_weights(loop: Loop, seen: Evaluation) -> Iterator[Finding]:
    """An evaluation that reads no parameter that moves, or only copies that are never written."""
    learn = [path for path in loop.of("parameter") if loop.moves[path].any()]
    weights = [p for p in loop.floating() if p in learn or loop.roles[p] != "statistic"]
    moving = [path for path in weights if loop.moves[path].any()]
    if not seen.first or not learn or seen.reads(*moving):
        return
    read = [path for path in loop.floating() if path not in moving and seen.reads(path)]
    if not set(weights) & set(read):
        changes = any(loop.moves[path].any() for path in read)
        yield fault(
            "metric_mismatch",
            seen.line,
            f"the evaluation reads {listed(read) if read else 'nothing'} of the state that it is "
            "given, and no parameter: it evaluates weights from elsewhere, such as those of the "
            "start"
            + (", and its result changes a little, as what it reads does" if changes else ""),
            "no way from the parameters to the result",
            healthy="the parameters that the last step gave",
            remedy="evaluate with the parameters of its argument: def evaluate(state): ... "
            "state.params",
            confidence=0.9,
        )
    programs = [program for program in loop.programs if program]
    chosen = [p for p in read if any(not program.passed_on(p) for program in programs)]
    if read and chosen == read and all(path in loop.copies for path in read):
        yield fault(
            "metric_mismatch",
            f"{listed(read)}; {loop.line_of(read[0])}",
            f"the evaluation reads {listed(read)}, copies of the parameters that the step may "
            f"overwrite, and in {loop.turns} steps it never did, while the parameters moved",
            f"moved by 0 in {loop.turns} steps",
            healthy="the best parameters so far",
            remedy="look at the comparison that decides: a loss is better when it is smaller",
            confidence=0.7,
        )


def other_inputs(loop: Loop, seen: Evaluation, traced: Trace) -> Iterator[Finding]:
    """Rows of evaluation that reach the first layer on another scale than those of training."""
    program = loop.programs[0]
    if program is None:
        return
    call = program.call
    arguments = call.before.arrays, parted(call.batch).arrays, call.key
    here = first_inputs(program.trace, jax.tree.leaves(arguments))
    there = first_inputs(traced, jax.tree.leaves(seen.state.arrays))
    for path in here.keys() & there.keys():
        (mean, deviation), (other, spread) = (
            (float(values.mean()), float(values.std())) for values in (here[path], there[path])
        )
        far = abs(other - mean) > bound("another place") * deviation
        if deviation > 0 and (
            far or not 1 / bound("another scale") < spread / deviation < bound("another scale")
        ):
            yield fault(
                "splits_differ",
                f"the inputs of {path}; {seen.line}",
                f"what {path} is multiplied by has mean {mean:.3g} and deviation {deviation:.3g} "
                f"in training, and {other:.3g} and {spread:.3g} in evaluation: its rows are not "
                "prepared as those of training are",
                f"deviation {spread / deviation:.3g} times that of training",
                confidence=0.85,
            )
            return


def first_inputs(traced: Trace, leaves: list[Any]) -> dict[str, np.ndarray]:
    """What the kernels are multiplied by that meet data first, by the path of the kernel."""
    state = traced.arguments[0]
    moved = traced.reached(state)
    found = {}
    for op in traced.operations:
        if op.name not in ("dot_general", "conv_general_dilated"):
            continue
        data = [value for value in op.inputs if value not in moved]
        kernels = [v for v in state if any(one in traced.reached([v]) for one in op.inputs)]
        if len(data) == 1 and len(kernels) == 1:
            found.setdefault(traced.paths[kernels[0]], data[0])
    values = traced.evaluate(leaves, list(found.values()))
    return {p: np.asarray(v, float) for p, v in zip(found, values, strict=True) if np.size(v) > 1}


def unused_statistics(loop: Loop, seen: Evaluation) -> Iterator[Finding]:
    """Statistics that the steps measure and that the evaluation does not look at."""
    if seen.changed:
        return
    measured = [path for path in loop.of("statistic") if not loop.stands(path)]
    weights = [path for path in loop.of("parameter") if seen.reads(path)]
    if measured and weights and not seen.reads(*measured):
        yield fault(
            "evaluation_in_training_mode",
            f"{listed(measured)}; {seen.line}",
            f"the steps measure {listed(measured)}, and the evaluation does not look at "
            f"{'them' if len(measured) > 1 else 'it'}: it takes the statistics of its own rows",
            "statistics that nothing reads",
            remedy=EVAL,
            confidence=0.85,
        )


def statistics(loop: Loop) -> Iterator[Finding]:
    """Statistics that training normalizes by and never measures, or measures and throws away."""
    for place, program, loss, slopes in loop.losses_of_steps():
        read = program.trace.needed([loss])
        still = [
            p
            for p in loop.floating()
            if p not in loop.optimizers
            and p not in loop.copies
            and loop.stands(p)
            and p in program.old
            and loop.states[0][p].ndim
        ]
        used = [p for p in still if program.old[p] in read]
        for path in used:
            root = root_of(program.trace, program.old[path])
            ones = bool((loop.states[0][path] == 1).all())
            shape = loop.states[0][path].shape
            zeros = any(
                not loop.states[0][p].any() and loop.states[0][p].shape == shape for p in used
            )
            if root is not None and ones and zeros:
                yield divides_by_one(path, root.where or loop.line(place), 0.95)
                return
        # Beside a scan the loss may seem to read what only its next value is made of.
        unread = [p for p in still if program.old[p] not in read or not np.any(slopes.get(p, 1))]
        lost = [p for p in unread if program.passed_on(p)]
        yield from thrown_away(loop, place, lost)
        return


def thrown_away(loop: Loop, place: int, lost: list[str]) -> Iterator[Finding]:
    """Statistics for which a step computes new values that lead nowhere."""
    program = loop.programs[place]
    if program is None:
        return
    for path in lost:
        line = program.thrown_away([path])
        if line:
            names = [p for p in lost if program.thrown_away([p]) == line]
            yield fault(
                "batch_statistics_not_updated",
                f"{listed(names)}; {line}",
                f"the step measures {listed(names)} and throws the result away: evaluation will "
                "normalize by what the network was made with",
                "unchanged by every step",
                remedy="outputs, new = net.apply(..., mutable=['batch_stats']), and "
                "state.replace(batch_stats=new['batch_stats'])",
                confidence=0.95,
            )
            return
