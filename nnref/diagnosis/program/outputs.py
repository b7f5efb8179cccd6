"""Outputs, targets and loss: whether they fit each other.

Each check is a function from a recipe at its start to findings; the first that finds something is
the answer, as it explains what the following ones would find.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.expectation import Range, goal_of
from nnref.diagnosis.program.one_answer import one_answer
from nnref.diagnosis.program.tracing import COMPARISONS, Operation
from nnref.diagnosis.thresholds import bound


def outputs(start: AtStart) -> Iterator[Finding]:
    """The outputs against the targets and against what the loss expects."""
    for check in CHECKS:
        findings = list(check(start))
        if findings:
            yield from findings
            return


def wrong_width(start: AtStart) -> Iterator[Finding]:
    """Not as many outputs as classes or targets."""
    y, width = start.targets, start.width
    classes = int(y.max()) + 1 if start.form == "classes" else 0
    columns = y.shape[-1] if y.ndim > 1 else 1
    if width == 1 and classes > 2 and start.recipe.kind == "multiclass":
        learns = start.expectation.distance and (start.range is None or start.range.raw)
        yield (note if learns else fault)(
            "output_width_mismatch",
            start.last,
            f"one unit answers for {classes} classes numbered 0 to {classes - 1}",
            "width 1",
            healthy=f"width {classes}",
            remedy=f"a last layer of {classes} units, and one-hot targets: "
            f"jax.nn.one_hot(y, {classes})",
            confidence=0.5 if learns else 0.95,
        )
    elif classes > width > 1 and start.row_by_row:
        yield fault(
            "output_width_mismatch",
            start.last,
            f"targets go up to class {classes - 1}, the network has {width} outputs: "
            "an index out of range is clipped or becomes NaN without a word",
            f"width {width}",
            healthy=f"width {classes}",
            remedy=f"a last layer of {classes} units, or targets that start at 0",
        )
    elif (
        width == 1 < columns
        and start.form != "classes"
        and y.ndim == start.outputs.ndim
        and start.row_by_row  # of a survival, say, the columns are no answers
    ):
        yield fault(
            "output_width_mismatch",
            start.last,
            f"one unit answers for {columns} targets of a row",
            "width 1",
            healthy=f"width {columns}",
            remedy=f"a last layer of {columns} units",
            confidence=0.9,
        )


def single_unit(start: AtStart) -> Iterator[Finding]:
    """A softmax over one unit, in the network or in the loss."""
    single, y = start.width == 1, start.targets
    loss = start.loss
    cause = "softmax_on_single_unit" if single else "output_activation_mismatch"
    specific = {"healthy": "depends on the last layer"}
    if start.form == "values":
        specific["remedy"] = "leave out the softmax"
    if start.range is not None and start.range.constant:
        yield fault(
            cause,
            start.last,
            f"the output is {'1' if single else 'a constant'} whatever the last layer gives: no "
            "gradient can reach it",
            "constant",
            **specific,
        )
    elif (
        single
        and start.expectation.flat
        and np.any(y != y[:1])
        and not loss.reached(loss.arguments[0]).isdisjoint(loss.outputs)
    ):
        yield fault(
            cause,
            start.loss_line,
            "the loss normalizes one output by itself and is the same for every output",
            "constant",
            **specific,
        )


def over_batch(start: AtStart) -> Iterator[Finding]:
    """A softmax over the rows of a batch where one over classes is meant."""
    if start.range is not None and start.range.sums_over_batch:
        yield fault(
            "loss_axis_error",
            start.last,
            "the outputs of the rows of a batch sum to 1: the softmax runs over the batch",
            "sum over the batch 1",
            healthy="sum over the classes 1",
            remedy="jax.nn.softmax(x, axis=-1)",
        )
    elif start.expectation.softmax_over_batch:
        # A loss of differences between rows ranks them, and may be meant.
        ranks = start.width == 1
        yield (note if ranks else fault)(
            "loss_axis_error",
            start.loss_line,
            "the loss does not change when a number is added to one output of all rows: its "
            "softmax runs over the batch",
            "invariant along the batch",
            healthy="invariant along the classes",
            remedy="jax.nn.log_softmax(logits, axis=-1)",
            confidence=0.4 if ranks else 1.0,
        )


def unread(start: AtStart) -> Iterator[Finding]:
    """Outputs and targets that the loss does not bring together row by row."""
    y, shape = start.targets, np.shape(start.sample.tree)
    if np.all(y == y[:1]):
        return
    if start.expectation.flat:
        yield fault(
            "loss_mismatch",
            start.loss_line,
            "the loss is the same whatever the outputs and the targets are: no gradient can "
            "come of it",
            "one value for all outputs and targets",
            remedy="look at the mask or the weights of the loss: are all of them 0?",
            confidence=0.95,
        )
        return
    crossed = crossing(start)
    # Where outputs are held against each other, their rows meet those of all by intent.
    if not start.expectation.pairs and crossed is not None and not start.expectation.among_rows:
        first, second = (start.loss.shape(value) for value in crossed.inputs)
        result = start.loss.shape(crossed.outputs[0])
        yield fault(
            "loss_broadcast",
            crossed.where or start.loss_line,
            f"outputs {shape} and targets {start.sample.y.shape} meet as {first} and {second} and "
            f"give {result}: each row is held against the targets of all",
            f"{result}",
            healthy=f"{shape}",
            remedy="outputs[:, 0] - y" if y.ndim == 1 else "y[:, 0]",
        )
    elif not start.expectation.reads_targets and not start.expectation.among_rows:
        yield note(
            "loss_mismatch",
            start.loss_line,
            "the loss is the same for other targets",
            "no dependence on y",
            healthy="a loss of outputs and targets",
            remedy="use y in the loss, unless the task has no targets",
            confidence=0.5,
        )


def crossing(start: AtStart) -> Operation | None:
    """The operation that makes n times n numbers of the outputs and the targets of n rows."""
    traced = start.loss
    outputs, targets = (traced.reached(argument) for argument in traced.arguments)
    rows = len(start.sample.x)
    for op in traced.operations:
        first, second = (set(op.inputs) & outputs, set(op.inputs) & targets)
        shape = traced.shape(op.outputs[0])
        if op.name in {"sub", "add", "mul", "div", "max", "min", *COMPARISONS} and (
            first and second and shape[-2:] == (rows, rows)
        ):
            return op
    return None


def reversed_sign(start: AtStart) -> Iterator[Finding]:
    """A loss that rises towards the targets."""
    if start.expectation.rises:
        yield fault(
            "gradient_ascent",
            start.loss_line,
            "the loss rises as the outputs move towards the targets: its sign is wrong",
            "rises",
            healthy="falls",
            remedy="return the negative of the loss",
            confidence=0.95,
        )


def one_best_output(start: AtStart) -> Iterator[Finding]:
    """A loss that has the same best output for different targets."""
    share, y = start.expectation.collapses, start.targets
    if share > bound("one best output") and start.row_by_row:
        yield fault(
            "loss_mismatch",
            start.loss_line,
            f"over {share:.0%} of the range of the targets ({np.min(y):.3g} to {np.max(y):.3g}) "
            "the same output is the best one for the loss",
            f"{share:.0%} of the range without a difference",
            healthy="another best output for each target",
            remedy="a loss of a distance, such as jnp.mean((outputs - y) ** 2)",
            symptoms=tuple(out_of_range(start)),
            confidence=0.95,
        )


def blind_to_a_class(start: AtStart) -> Iterator[Finding]:
    """A loss that one of two classes has no part in."""
    if start.expectation.blind is not None:
        yield fault(
            "loss_mismatch",
            start.loss_line,
            f"a row whose target is {start.expectation.blind:g} has the same loss whatever the "
            "output: nothing speaks against answering the other class everywhere",
            "gradient 0 for one of two classes",
            healthy="both classes count",
            remedy="2 * y - 1 for a loss of margins; the term (1 - y) * log(1 - p) for a "
            "cross-entropy",
            confidence=0.95,
        )


def bottomless(start: AtStart) -> Iterator[Finding]:
    """A loss that falls without end."""
    if start.expectation.bottomless:
        y = start.targets
        yield fault(
            "loss_mismatch",
            start.loss_line,
            f"the loss falls without end as the outputs grow: for targets from {np.min(y):.3g} to "
            f"{np.max(y):.3g} it has no best output",
            "unbounded below",
            healthy="0 or more",
            remedy="targets in [0, 1] for a cross-entropy: y / y.max(); a squared error for values",
            confidence=0.95,
        )


def unequal_weights(start: AtStart) -> Iterator[Finding]:
    """A loss that weighs targets of 0 far more than others."""
    weights, zeros = start.expectation.weights, np.mean(start.targets == 0)
    if weights > bound("target weights") and zeros > bound("zero targets"):
        yield fault(
            "loss_mismatch",
            start.loss_line,
            f"targets of 0 weigh {weights:.0e} times as much as the others in the "
            "gradient: the loss divides by the target",
            f"{weights:.0e}",
            healthy=f"below {bound('target weights'):.0e}",
            confidence=0.95,
        )


def out_of_range(start: AtStart) -> Iterator[Finding]:
    """Targets that the outputs cannot be."""
    unit = start.range
    if unit is None or unit.raw or start.form == "classes":
        return
    y = np.asarray(start.targets, np.float64)
    missing = y - np.clip(y, unit.low, unit.high)
    excluded = float((missing**2).mean() / max(y.var(), 1e-30))
    share = float(np.mean(np.abs(missing) > bound("outside") * max(float(y.std()), 1e-6)))
    if not share:
        return
    span = f"[{unit.low:.3g}, {'inf' if unit.high == np.inf else f'{unit.high:.3g}'}]"
    targets = f"from {y.min():.3g} to {y.max():.3g}"
    yield (fault if excluded > bound("out of range") else note)(
        "relu_output" if unit.floor else "output_range_excludes_targets",
        start.last,
        f"the outputs stay in {span}, and {share:.0%} of the targets, which go {targets}, lie "
        "outside",
        span,
        healthy=f"[{y.min():.3g}, {y.max():.3g}]",
        remedy="no activation after the last layer, and targets of unit scale",
        confidence=0.95,
    )


# The last activation against the loss. `start.range` is None where the outputs are not made from
# the last layer alone; then nothing is said.


def activation(start: AtStart, cause: str, evidence: str, **specific: Any) -> Finding:
    """A last activation that fits neither the loss nor the targets."""
    assert start.range is not None, "asked of outputs whose range is known"
    measured = f"outputs in [{start.range.low:.3g}, {start.range.high:.3g}]"
    return fault(cause, start.last, evidence, measured, **{"confidence": 0.9} | specific)


def exclusive(start: AtStart) -> bool:
    """Whether a row is of one class, and has an output for each."""
    return start.form in ("one-hot", "classes") and start.width > 1


def last_activation(start: AtStart) -> str:
    """The activation that turns raw outputs into probabilities."""
    return "jax.nn.softmax" if exclusive(start) else "jax.nn.sigmoid"


def narrow(unit: Range) -> bool:
    """Whether the outputs, taken for logits, are bounded to little."""
    return unit.high - unit.low <= bound("narrow")


def may_be_negative(start: AtStart) -> Iterator[Finding]:
    """Values under a logarithm or a root."""
    unit = start.range
    if unit and start.form == "values" and start.expectation.positive and unit.low < 0:
        yield note(
            "output_activation_missing",
            start.last,
            "the loss takes a logarithm or root of the outputs, and they may be negative",
            "not finite for negative outputs",
            healthy="outputs above 0",
            confidence=0.8,
        )


def softmax_twice(start: AtStart) -> Iterator[Finding]:
    """A softmax before a loss that applies one, or a sigmoid or softmax before one in the loss."""
    asked, ends = start.expectation, bool(start.range and start.range.sums_to_one)
    others = start.width - 1
    floor = f"it cannot fall below ln(1 + {others}/e) = {np.log1p(others / np.e):.3g}"
    if ends and asked.softmax:
        words = f"the network ends in a softmax, and the loss applies another: {floor}"
        yield activation(start, "double_softmax", words)
    elif asked.never_sure and not ends:
        first = "softmax" if asked.softmax else "sigmoid"
        yield fault(
            "double_softmax" if asked.softmax else "output_activation_mismatch",
            start.loss_line,
            f"the loss applies a {first} to the outputs, and then a softmax: {floor}",
            remedy=f"leave out the {first} in the loss",
        )


def relu(start: AtStart) -> Iterator[Finding]:
    """A ReLU on outputs that stand for classes."""
    asked = start.expectation
    if start.range and start.range.floor and start.form != "values":
        instead = (
            {} if asked.logits else {"remedy": f"{last_activation(start)} instead of the ReLU"}
        )
        yield activation(
            start,
            "relu_output",
            "a ReLU stands on the outputs: a unit that is 0 there gets no gradient, and no output "
            "can speak against a class",
            confidence=0.9 if asked.logits or asked.logarithm else 0.8,
            **instead,
        )


def bounded_logits(start: AtStart) -> Iterator[Finding]:
    """Raw values that are bounded."""
    if start.range and start.expectation.logits and narrow(start.range):
        yield activation(
            start,
            "output_activation_mismatch",
            "the loss takes raw values for classes, and the outputs are bounded: "
            "it cannot become sure",
            confidence=0.8,
        )


def no_probabilities(start: AtStart) -> Iterator[Finding]:
    """A logarithm of probabilities, or a measure of overlap, of outputs that are none."""
    unit, asked = start.range, start.expectation
    if unit and unit.raw and asked.of_shares:
        yield activation(
            start,
            "output_activation_missing",
            "the loss falls below that of a perfect answer where outputs leave 0 to 1",
            remedy=f"{last_activation(start)} as the last activation, or in the loss",
        )
    if not unit or start.form == "values" or not asked.logarithm or asked.beyond_one:
        return
    rounding = bound("probabilities")
    if unit.raw:
        yield activation(
            start,
            "output_activation_missing",
            "the loss takes the logarithm of probabilities and gets raw values, below 0 and "
            "above 1",
            remedy=f"{last_activation(start)} after the last layer, or a loss of logits",
            confidence=0.95,
        )
    elif unit.low < -1e-6 or (unit.high > 1 + rounding and not asked.renormalizes):
        yield activation(
            start,
            "output_activation_mismatch",
            "the loss takes the logarithm of probabilities, and the outputs leave [0, 1]",
            remedy=f"{last_activation(start)} as the last activation",
        )


def no_competition(start: AtStart) -> Iterator[Finding]:
    """Outputs for exclusive classes that do not compete."""
    unit, asked = start.range, start.expectation
    if not unit or not exclusive(start) or unit.sums_to_one or not asked.logarithm:
        return
    if asked.only_true:
        yield activation(
            start,
            "output_activation_mismatch",
            "only the output of the true class counts in the loss, and the outputs do not "
            "compete: answering 1 everywhere is perfect",
            remedy="jax.nn.softmax as the last activation",
        )
    elif asked.renormalizes and narrow(unit):
        yield activation(
            start,
            "output_activation_mismatch",
            "one of the classes is right, and each output is bounded by itself: the outputs "
            "do not compete",
            remedy="jax.nn.softmax as the last activation",
            confidence=0.5,
        )


def exclusive_labels(start: AtStart) -> Iterator[Finding]:
    """A softmax over labels that are independent of each other."""
    if start.range and start.range.sums_to_one and start.form == "flags":
        yield activation(
            start,
            "output_activation_mismatch",
            "labels are independent of each other, and the outputs of a row sum to 1",
            remedy="jax.nn.sigmoid as the last activation, with a binary cross-entropy",
        )


def unreachable(start: AtStart) -> Iterator[Finding]:
    """Targets out of range, and rows of targets that do not sum to 1 as the outputs do."""
    unit, form = start.range, start.form
    if not unit or start.expectation.logits:
        return
    excluded = list(out_of_range(start))
    if excluded:
        yield from excluded
        return
    goal = goal_of(start.sample.y, form, start.outputs.shape)
    sums = goal is None or np.abs(goal.sum(-1) - 1).max() < bound("sums to one")
    if unit.sums_to_one and form == "values" and not sums:
        yield activation(
            start,
            "output_activation_mismatch",
            "the outputs of a row sum to 1, and its targets do not",
            remedy="no softmax after the last layer",
        )


def distance_to_classes(start: AtStart) -> Iterator[Finding]:
    """A squared or absolute error of classes."""
    unit, asked = start.range, start.expectation
    classes = start.form in ("one-hot", "binary", "flags")
    if unit and unit.raw and asked.distance and classes and not asked.logits:
        loss = "softmax_cross_entropy" if exclusive(start) else "sigmoid_binary_cross_entropy"
        yield note(
            "loss_mismatch",
            start.loss_line,
            "a distance between raw outputs and classes: it learns, and a cross-entropy "
            "learns better",
            remedy=f"optax.{loss} for logits",
            confidence=0.3,
        )


CHECKS = (
    wrong_width,
    single_unit,
    over_batch,
    unread,
    reversed_sign,
    one_best_output,
    blind_to_a_class,
    bottomless,
    unequal_weights,
    may_be_negative,
    softmax_twice,
    relu,
    bounded_logits,
    no_probabilities,
    no_competition,
    exclusive_labels,
    unreachable,
    one_answer,
    distance_to_classes,
)
