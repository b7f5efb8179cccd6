"""The network, the loss and the rows, taken out of a step and diagnosed like those of a task.

A traced step holds the loss as a graph. Where the targets of a batch join the way from parameters
and inputs to the loss, it is cut: the last value before that this whole way passes is the outputs.
What comes before is the network, what follows is the loss.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.api import diagnose_recipe, recipe_from
from nnref.diagnosis.findings import Finding, as_note, fault, note
from nnref.diagnosis.judge import data_checks, missing_checks
from nnref.diagnosis.judge.judge import fault_even_if_it_learns
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.loop.movement import weight
from nnref.diagnosis.loop.program import Program, cosine
from nnref.diagnosis.loop.running import FURTHER, Loop
from nnref.diagnosis.loop.stepping import parted
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.checks import CHECKS, asked
from nnref.diagnosis.program.keys import draws
from nnref.diagnosis.program.rows import batch_dependence
from nnref.diagnosis.program.tracing import Trace, trace
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError
from nnref.training.checkpoint import is_key
from nnref.training.task import Task

ROWS = 4096  # at most, of all batches together
# What the functions alone do not show: modes, keys and statistics live in the state of the loop.
OF_THE_STATE = {
    "batch_statistics_not_updated",
    "dropout_in_evaluation",
    "evaluation_in_training_mode",
    "excessive_dropout",
    "random_key_reused",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "undertrained",
}


class Cut(NamedTuple):
    """Where a step is cut; all are numbers of values of its program.

    `inputs` and `targets` are parts of the batch, or first uses of them; `outputs` are of the
    network, `loss` is that of the data, and `penalties` are terms beside it that no row enters.
    `again` is the operation that takes a part of the batch, already used as input, as target.
    """

    inputs: int
    targets: tuple[int, ...]
    outputs: int
    loss: int
    penalties: tuple[int, ...]
    again: int | None = None


def used_again(traced: Trace, value: int, again: int) -> Trace:
    """A program in which an operation takes a new value, the last one, in the place of another."""
    operations, new = list(traced.operations), len(traced.avals)
    inputs = tuple(new if one == value else one for one in operations[again].inputs)
    operations[again] = operations[again]._replace(inputs=inputs)
    return replace(traced, operations=operations, avals=[*traced.avals, traced.avals[value]])


def cut_of(program: Program, loss: int, weights: list[str]) -> Cut | None:
    """Where the step can be cut, None where no value parts network and loss."""
    traced, needed = program.trace, program.trace.needed([loss])
    parameters = [program.old[path] for path in weights if program.old.get(path) in needed]
    leaves = [value for value in program.batch if value in needed and traced.shape(value)]
    uses = {
        leaf: [
            place
            for place, op in enumerate(traced.operations)
            if leaf in op.inputs and not needed.isdisjoint(op.outputs)
        ]
        for leaf in leaves
    }
    parts = []
    for leaf, places in uses.items():
        alone = [traced.operations[place] for place in places]
        views = len(alone) > 1 and all(len(op.inputs) == len(op.outputs) == 1 for op in alone)
        parts += [op.outputs[0] for op in alone] if views else [leaf]
    found = cut_between(program, traced, parts, parts, parameters, loss)
    for leaf, again in ((leaf, place) for leaf, places in uses.items() for place in places):
        if found is None and len(uses[leaf]) > 1:
            twice = used_again(traced, leaf, again)
            parts = [*leaves, seen(twice, again)]
            found = cut_between(program, twice, leaves, parts, parameters, loss)
            found = found and found._replace(again=again)
    return found


def seen(traced: Trace, again: int) -> int:
    """What an operation takes as target: its new value, or the part of it that it cuts out."""
    operation, new = traced.operations[again], len(traced.avals) - 1
    view = len(operation.inputs) == len(operation.outputs) == 1
    return operation.outputs[0] if view else new


def cut_between(
    program: Program,
    traced: Trace,
    inputs: list[int],
    parts: list[int],
    parameters: list[int],
    loss: int,
) -> Cut | None:
    """Where a program can be cut so that one of the inputs is that, and other parts are targets."""
    rows = {traced.shape(part)[:1] for part in parts}
    if len(parts) < 2 or len(rows) > 1 or not parameters:
        return None
    data, penalties = of_rows(traced, loss, set(parts))
    for one in inputs:
        targets = tuple(other for other in parts if other != one)
        ahead = traced.reached(parameters) & traced.reached([one]) & traced.needed([data])
        for value in sorted(ahead - traced.reached(targets), reverse=True):
            by_row = {traced.shape(value)[:1]} == rows and program.is_floating(value)
            if by_row and passes(traced, [*parameters, one], value, data):
                return Cut(one, targets, value, data, tuple(penalties))
    return None


def of_rows(traced: Trace, loss: int, rows: set[int]) -> tuple[int, list[int]]:
    """The term of a sum that rows enter, and the terms that none enters."""
    made = traced.makers
    reached, penalties = traced.reached(rows), []
    while loss in made and made[loss].name in ("add", "add_any"):
        with_rows = [value for value in made[loss].inputs if value in reached]
        if len(with_rows) != 1:
            break
        penalties += [value for value in made[loss].inputs if value not in reached]
        (loss,) = with_rows
    return loss, penalties


def passes(traced: Trace, sources: list[int], value: int, loss: int) -> bool:
    """Whether every way from the sources to the loss passes a value."""
    reached = set(sources)
    for operation in traced.operations:
        if not reached.isdisjoint(operation.inputs):
            reached.update(out for out in operation.outputs if out != value)
    return loss not in reached


class TakenOut:
    """The functions and the rows of a step."""

    def __init__(self, loop: Loop, program: Program, cut: Cut, weights: list[str]) -> None:
        """Take them out of the first step of a loop."""
        self.program, self.cut, self.weights = program, cut, weights
        self.state, batch, self.key = program.arguments
        self.batch = {p: leaf if is_key(leaf) else jnp.asarray(leaf) for p, leaf in batch.items()}
        self.keys = {path: leaf for path, leaf in self.state.items() if loop.roles[path] == "key"}
        count = len(loop.batches) + (0 if loop.drawn is None else FURTHER)
        self.batches = [loop.batch(number) for number in range(count)]
        self.traces = cache(self.traced)
        self.random = bool(draws(program.trace, [cut.outputs]))

    def traced(self, rows: int) -> Trace:
        """The step, traced for so many rows, with its inputs and targets apart.

        Raises:
            UserError: where that is another program.
        """
        batch = {
            path: jax.ShapeDtypeStruct((rows, *np.shape(leaf)[1:]), leaf.dtype)
            if np.ndim(leaf)
            else leaf
            for path, leaf in self.batch.items()
        }
        made, first = trace(self.program.pure, self.state, batch, self.key), self.program.trace
        if [op.name for op in made.operations] != [op.name for op in first.operations]:
            raise UserError(f"the step is another program for {rows} rows")
        again = self.cut.again
        return made if again is None else used_again(made, self.cut.inputs, again)

    def value(self, wanted: int, params: Any, given: dict[int, Any], key: Any = None) -> Any:
        """A value of the step, for parameters and given values, such as inputs and outputs."""
        rows = len(next(iter(given.values())))
        batch = {
            path: jnp.repeat(leaf[:1], rows, 0) if np.ndim(leaf) else leaf
            for path, leaf in self.batch.items()
        }
        keys = {path: as_this(leaf, key) for path, leaf in self.keys.items()}
        of_step = jax.tree.map(lambda leaf: as_this(leaf, key), self.key)
        leaves = jax.tree.leaves(({**self.state, **keys, **params}, batch, of_step))
        return self.traces(rows).evaluate(leaves, [wanted], given)[0]

    def rows(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Inputs and targets of all batches, each row once."""
        cut, known, whole = self.cut, len(self.program.trace.avals), []
        targets = [cut.inputs if target >= known else target for target in cut.targets]
        for batch in self.batches:
            leaves = jax.tree.leaves((self.state, parted(batch).arrays, self.key))
            values = self.program.trace.evaluate(leaves, [cut.inputs, *targets])
            whole.append([np.asarray(value) for value in values])
        parts = [np.concatenate(part)[:ROWS] for part in zip(*whole, strict=True)]
        first: dict[bytes, int] = {}
        for place in range(len(parts[0])):
            first.setdefault(b"".join(part[place].tobytes() for part in parts), place)
        x, *y = (part[list(first.values())] for part in parts)
        return x, y

    def recipe(self) -> Recipe:
        """What is diagnosed, trained by Adam."""
        cut, first = self.cut, {path: self.state[path] for path in self.weights}
        x, y = self.rows()
        size = self.program.trace.shape(cut.inputs)[0]

        def init(key: Any) -> Any:
            del key
            return first

        def apply(params: Any, x: Any) -> Any:
            return self.value(cut.outputs, params, {cut.inputs: x})

        def apply_with_key(params: Any, x: Any, key: Any) -> Any:
            return self.value(cut.outputs, params, {cut.inputs: x}, key)

        def loss(outputs: Any, y: Any) -> Any:
            parts = dict(zip(cut.targets, y if isinstance(y, tuple) else (y,), strict=True))
            return self.value(cut.loss, first, {**parts, cut.outputs: outputs}).reshape(())

        def penalty(params: Any) -> Any:
            given = {cut.inputs: jnp.asarray(x[:size])}
            return sum(self.value(term, params, given).reshape(()) for term in cut.penalties)

        called = apply_with_key if self.random else apply
        task = Task(init=init, apply=called, loss=loss, train=(x, tuple(y) if len(y) > 1 else y[0]))
        training = {"optimizer": optax.adam(1e-3), "batch_size": size}
        training |= {"penalty": penalty if cut.penalties else None}
        return replace(recipe_from(task, training), replayed=True)


def as_this(leaf: Any, key: Any) -> Any:
    """A key in the form of another one, this itself where there is none."""
    if key is None or is_key(leaf):
        return leaf if key is None else key
    return jax.random.key_data(key)


def taken_out(loop: Loop) -> TakenOut | None:
    """The functions of the one step of a loop; None where it cannot be cut.

    A value that is climbed, as a reward is, or that draws random numbers behind the outputs, is no
    loss of outputs and targets.
    """
    if not loop.one_loss:
        return None
    program, loss, _ = loop.one_loss
    if program.trace.by_hand:
        return None
    weights = [path for path in loop.of("parameter") if path in program.old]
    moved = {path: loop.states[1][path] - loop.states[0][path] for path in weights}
    cut, at = cut_of(program, loss, weights), program.candidates.index(loss)
    if cut is None or cosine(moved, program.gradients(loop.calls[0][0])[at]) > 0:
        return None
    random = len(draws(program.trace, [cut.loss])) > len(draws(program.trace, [cut.outputs]))
    return None if random else TakenOut(loop, program, cut, weights)


class Judged(NamedTuple):
    """What the functions and the rows say, whether the loop learns them, and what was measured."""

    found: tuple[Finding, ...]
    learns: bool | None
    measures: dict[str, Any]
    mistakes: tuple[str, ...] = ()


def judged(loop: Loop, taken: TakenOut, effort: float) -> Judged:
    """The user's loop goes on for some steps; where it does not learn, its functions are diagnosed.

    Raises:
        Exception: where the functions do not stand alone; see `TakenOut.traced`.
    """
    recipe = taken.recipe()
    measured, x = Measurements(recipe), recipe.train[0]
    if len(x) < bound("few steps") or measured.noise > bound("always noisy"):
        return Judged((), None, {})
    missing = list(missing_checks.nonfinite(measured, *map(np.asarray, recipe.train)))
    if missing:  # and the loop goes on all the same: neither score nor simple model is known
        return Judged(tuple(of_functions(map(as_note, missing))), None, {})
    arrays, lengths = loop.further.state.arrays, loop.further.lengths
    theirs = measured.skill.outcome({path: arrays[path] for path in taken.weights}, {}).skill
    simple, best = measured.reference.best
    measures = {"skill of the loop": theirs, f"skill of a simple model ({simple})": best}
    mistakes: list[str] = []
    start, by_row = AtStart(recipe, *measured.initial), {"rows": batch_dependence}
    if any(finding.cause == "loss_axis_error" for finding in asked(start, by_row, [], mistakes)):
        return Judged((), None, measures)  # the rows stand elsewhere, as behind the steps in time
    if best > bound("signal") and theirs >= bound("learned") * best:
        structural = asked(start, CHECKS, [], mistakes)
        of_data = data_checks.check(measured)
        findings = [f if fault_even_if_it_learns(f) else as_note(f) for f in structural]
        return Judged(tuple(of_functions([*of_data, *findings])), True, measures, tuple(mistakes))
    found = diagnose_recipe(recipe, effort)
    findings = of_functions(found)
    faults = any(finding.severity == "fault" for finding in findings)
    reached = max(
        [found.measures.get("skill on training rows") or 0.0]
        + [finding.effect or 0.0 for finding in found if finding.cause in OF_THE_STATE]
    )
    measures["skill of the same functions under Adam"] = reached
    # Targets that another network makes move with it: how far a loop gets is then no measure.
    moving = bool(loop.of("target"))
    behind_it = theirs < bound("failed") * reached and not moving
    if not faults and reached > bound("learnable") and behind_it:
        findings.append(behind(loop, theirs, reached, lengths))
    unknown = faults or not found.learns or moving
    learns = None if unknown else theirs >= bound("failed") * reached
    return Judged(tuple(findings), False if faults else learns, measures, found.mistakes)


def of_functions(found: Iterable[Finding]) -> list[Finding]:
    """The findings that functions and rows alone can show, as those of the loop."""
    basis = "asked of the network, the loss and the rows that the step was cut into"
    return [
        replace(finding, evidence=f"{finding.evidence} ({basis})")
        for finding in found
        if finding.cause not in OF_THE_STATE
    ]


def behind(loop: Loop, theirs: float, reached: float, lengths: np.ndarray) -> Finding:
    """A loop that does not get as far as the same functions in nnref's own."""
    loss, first = loop.loss(), float(np.max(loop.moved(), initial=0.0))
    falls = loss is not None and np.median(loss[-5:]) < (1 - bound("fallen")) * np.median(loss[:5])
    end = float(np.median(lengths[-5:])) if len(lengths) else first
    faded = 0 <= end < bound("faded away") * first
    # It goes the right way, or another question had said so: what is left is how far.
    short = end < 10 * bound("slow step") * max(weight(loop, loop.states[-1]), 1e-30)
    sentence = (
        f"after {loop.count + len(lengths)} steps the network explains {theirs:.2f} of the rows; "
        f"the same network and loss under Adam at 1e-3 reach {reached:.2f} of them"
    )
    place, figures = f"the loop; {loop.line()}", f"{theirs:.2f} against {reached:.2f}"
    if faded or short:
        return fault(
            "learning_rate_too_low",
            place,
            f"{sentence}. The last steps are {end:.2g} long"
            + (f", and the longest {first:.2g}: a schedule is at its end" if faded else ""),
            f"{end:.2g}",
            remedy="the decay_steps of the schedule in steps: epochs * batches an epoch"
            if faded
            else "a larger learning rate; a clip behind the unscaling of gradients, not before it",
            confidence=0.7,
        )
    return (note if falls else fault)(
        "undertrained" if falls else "wrong_gradient",
        place,
        sentence,
        figures,
        healthy="as good as the run that is made here",
        remedy="more steps, or optax.adam(1e-3)",
        confidence=0.5,
    )
