"""What a user calls with a loop of their own: `nnref.examine(step, state, batches)`."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.findings import (
    Finding,
    Findings,
    as_fault,
    as_note,
    in_a_line,
    is_mistake,
    mistake,
    upstream,
)
from nnref.diagnosis.loop import batches as of_batches
from nnref.diagnosis.loop import (
    bootstraps,
    carried,
    compiled_in,
    drawn_again,
    evaluation,
    filled_up,
    games,
    lookups,
    means_of_means,
    movement,
    of_the_loss,
    other_rows,
    own_targets,
    reference,
    slow_copies,
    streams,
    undescended,
    unlabelled,
    wearing,
)
from nnref.diagnosis.loop.edited import one_edit
from nnref.diagnosis.loop.movement import warm
from nnref.diagnosis.loop.roles import refuse
from nnref.diagnosis.loop.running import Loop, Theirs
from nnref.diagnosis.loop.taken_out import Judged, judged, taken_out
from nnref.diagnosis.program.broken import broken
from nnref.errors import UserError
from nnref.training.compilation import usual_settings

STEPS = 40

QUESTIONS: dict[str, Callable[[Loop], Iterator[Finding]]] = {
    "values that are compiled in": compiled_in.compiled_in,
    "whether what changes comes back": carried.nothing_comes_back,
    "numbers that are not finite": movement.nonfinite,
    "parameters that stand": carried.parameters_stand,
    "networks that are left out": carried.left_out,
    "losses that are never descended": undescended.never_descended,
    "the optimizer's own state": carried.optimizer_stands,
    "counters": carried.counters_stand,
    "an optimizer that begins again": carried.begins_again,
    "target networks": slow_copies.targets,
    "running statistics": evaluation.statistics,
    "the loss against what moves": of_the_loss.of_others,
    "random numbers": of_the_loss.noise,
    "keys of a batch": of_the_loss.one_key_for_all,
    "one change of inputs and targets": of_the_loss.changed_apart,
    "views that differ": of_the_loss.one_view_twice,
    "views that are used": of_the_loss.one_view_unused,
    "means of one number": of_the_loss.means,
    "memories that are written": carried.never_written,
    "targets that the network sees": own_targets.sees_itself,
    "shapes that meet": of_the_loss.shapes,
    "parameters that come back": carried.returned,
    "dtypes": carried.dtypes,
    "devices against each other": carried.devices,
    "updates against the gradient": movement.ascent,
    "parameters against each other's gradient": movement.crossed,
    "two networks against each other": games.on_one_side,
    "labels of what is made": games.other_condition,
    "updates of a batch that stands twice": movement.summed,
    "updates that fade": movement.fading,
    "gradients that pile up": wearing.piling,
    "rates that melt": wearing.melting,
    "updates that are lost in rounding": wearing.rounded_away,
    "sums that are lost in rounding": wearing.sums_rounded_away,
    "terms that outweigh the others": of_the_loss.outweighing,
    "a loss that climbs": movement.sizes,
    "the length of the updates": movement.too_short,
    "batches that make one update": of_batches.lost_batches,
    "the batches": of_batches.same_batch,
    "batches that are drawn again": drawn_again.drawn_again,
    "rows of the batches": of_batches.few_rows,
    "classes in an update": of_batches.one_class_a_batch,
    "means of the parts of a batch": means_of_means.of_parts,
    "rows without labels": unlabelled.blanks,
    "targets of other rows": other_rows.of_other_rows,
    "targets of places": other_rows.of_places,
    "ends of episodes": bootstraps.ends_ignored,
    "limits of episodes": bootstraps.limits_taken_for_ends,
    "parts of a batch that are not used": of_batches.unused_parts,
    "rows that are looked up": lookups.only_the_first,
    "rows that are filled up": filled_up.filled_up,
    "the order of a stream": streams.misplaced,
    "evaluation": evaluation.evaluation,
}


@usual_settings()
def examine(
    step: Any,
    state: Any,
    batches: Any = None,
    evaluate: Callable[[Any], Any] | None = None,
    *,
    key: Any = None,
    roles: dict[str, str] | None = None,
    steps: int = STEPS,
    effort: float = 1.0,
) -> Findings:
    """Say what is wrong with a training loop: its step is called on copies, traced, and asked.

    Args:
        step: `step(state, batch)` or `step(state, batch, key)`, which returns the new state, alone
            or beside metrics, or changes a module of NNX and its optimizer in place. A state or a
            batch that is a tuple may stand part by part: `step(params, opt_state, x, y)`. Several
            steps that are made in turn, as of a GAN, are a list.
        state: any tree: a TrainState, a module with its optimizer, parameters and moments in a
            tuple or a dict, copies of them on several devices. It is copied, and stays as it is.
        batches: an iterable of batches, a function without arguments that makes one, or a function
            of the number of the step; those of an iterable that is shorter than `steps` are used
            again. None for a step that takes none.
        evaluate: `evaluate(state)`, a number or outputs.
        key: to draw the keys of a step from that takes one.
        roles: of leaves of the state, where what is inferred is wrong: {"ema.w": "target"}; one of
            parameter, moment, statistic, counter, key, target, other.
        steps: how many are made; the loss, if it is to be judged, needs twenty.
        effort: where the loop does not learn its rows, of the runs that look for the reason: 1 is a
            minute of an idle core at most, 0 leaves them out.

    Returns:
        Findings; `measures["roles"]` says what the leaves of the state were taken for.

    Raises:
        UserError: for arguments that do not fit together.
    """
    if not isinstance(steps, int) or steps < 2:
        raise UserError(f"examine: steps is {steps!r}; it is a whole number from 2 up")
    functions = list(step) if isinstance(step, list | tuple) else [step]
    key = jax.random.key(0) if key is None else key
    loop = Loop(functions, state, batches, evaluate, key, {}, steps)
    loop.given = refuse(roles, loop.start.arrays)
    try:
        loop.run()
    except Theirs as error:
        return Findings((broken(error.error),), ("that the step runs",))
    with np.errstate(all="ignore"):  # of a loop that diverges, infinities are the subject
        return asked(loop, effort)


def asked(loop: Loop, effort: float) -> Findings:
    """All questions, and what they find."""
    found: list[Finding] = []
    impossible: list[str] = []
    mistakes: list[str] = []
    checked: list[str] = []
    questions = dict(QUESTIONS)
    if loop.evaluate is None:
        del questions["evaluation"]
        impossible.append("evaluation: give evaluate=")
    for place, program in enumerate(loop.programs):
        if program is None:
            impossible.append(
                f"the program of step {place + 1}: it cannot be traced as a whole; leave out "
                "float(...) and NumPy within it"
            )
        elif program.loss_of(loop) is None:
            impossible.append(
                f"the loss of step {place + 1}: none of its metrics has the gradient that the "
                "parameters follow; return it beside the state"
            )
    for name, question in (questions | questions_of_the_loss(loop)).items():
        try:
            found += list(question(loop))
            checked.append(name)
        except Theirs as error:
            found.append(broken(error.error))
        except Exception as error:
            if is_mistake(error):
                mistakes.append(f"{name}: {mistake(error)}")
            else:
                impossible.append(f"{name}: {in_a_line(error)}")
    if not any(finding.severity == "fault" for finding in found):
        found += list(reference.against_reference(loop))
        checked.append("the same loss in nnref's own loop")
    alone = Judged((), None, {})
    if effort and not any(finding.severity == "fault" for finding in found):
        try:
            alone = of_its_functions(loop, effort)
            checked.append("its network, loss and rows, taken out of the step")
        except Theirs as error:
            found.append(broken(error.error))
        except Exception as error:
            impossible.append(f"network, loss and rows by themselves: {in_a_line(error)}")
        found += alone.found
    found += edited(loop, effort, found, checked, impossible)
    found = with_reasons([finding for finding in found if not said(finding, found)])
    return Findings(
        tuple(upstream(found)),
        tuple(checked),
        tuple(impossible),
        measures(loop) | alone.measures,
        alone.learns,
        (*mistakes, *alone.mistakes),
    )


def edited(
    loop: Loop, effort: float, found: list[Finding], checked: list[str], impossible: list[str]
) -> list[Finding]:
    """What small edits show, where no fault is known but what others bring about.

    That is an evaluation that stands still, or a loss that climbs, for which no rate was tried.
    """
    faults = [finding for finding in found if finding.severity == "fault"]
    brought = [
        evaluation.NOT_LEARNED in f.evidence or f.cause == "learning_rate_too_high" for f in faults
    ]
    if not effort or not all(brought):
        return []
    try:
        cures = one_edit(loop, effort)
    except Exception as error:
        impossible.append(f"small edits of your lines: {in_a_line(error)}")
        return []
    checked.append("small edits of your lines, one at a time")
    return cures


def of_its_functions(loop: Loop, effort: float) -> Judged:
    """What the functions and the rows of a loop say that begins with this state.

    Raises:
        UserError: where they cannot be taken out of the step.
        Exception: what they raise by themselves.
    """
    taken = None if warm(loop) else taken_out(loop)
    if taken is None:
        raise UserError(
            "they cannot be told apart in the step: there is more than one step or update, an "
            "optimizer that has begun, or no place where inputs end and targets come in"
        )
    return judged(loop, taken, effort)


def questions_of_the_loss(loop: Loop) -> dict[str, Callable[[Loop], Iterator[Finding]]]:
    """What a loss that stands alone is asked, of each step whose loss is known."""
    questions = {}
    for place, program in enumerate(loop.programs):
        if program is None or program.loss_of(loop) is None:
            continue
        name = program.loss_name(loop)
        start = of_the_loss.LossOfStep(loop, place, name)
        for title, check in of_the_loss.CHECKS.items():
            of = f" of step {place + 1}" if len(loop.steps) > 1 else ""
            questions[title + of] = lambda _, check=check, start=start: check(start)
    return questions


def with_reasons(found: list[Finding]) -> list[Finding]:
    """An evaluation that stands still is what another fault brings about, where there is one.

    Where there is none, and a network stands that may be meant to, it is not meant to.
    """
    stands = [f for f in found if f.severity == "fault" and evaluation.NOT_LEARNED in f.evidence]
    if not stands:
        return found
    if any(f.severity == "fault" and f not in stands for f in found):
        return [as_note(f) if f in stands else f for f in found]
    still = [f for f in found if f.severity == "note" and f.cause == "parameters_not_updated"]
    if not still:
        return found
    return [as_fault(f) if f in still else as_note(f) if f in stands else f for f in found]


def said(finding: Finding, found: list[Finding]) -> bool:
    """Whether a note says what a fault of the same cause says, or an earlier finding does."""
    same = [other for other in found if other.cause == finding.cause]
    if finding.severity == "note":
        return any(other.severity == "fault" for other in same)
    return next(other for other in same if other.severity == "fault") is not finding


def measures(loop: Loop) -> dict[str, Any]:
    """What was measured: roles of the leaves, steps, losses."""
    losses = loop.loss()
    figures: dict[str, Any] = {"roles": dict(loop.roles), "steps made": len(loop.calls[0])}
    if losses is not None:
        figures["first loss of the loop"] = float(losses[0])
        figures["last loss of the loop"] = float(losses[-1])
    return figures | loop.measures
