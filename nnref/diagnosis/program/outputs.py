"""Answers, targets and loss: whether they fit each other."""

import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.program.at_start import Look
from nnref.diagnosis.program.expectation import goal_of
from nnref.diagnosis.program.tracing import COMPARISONS, Operation


def answers(look: Look) -> list[Finding]:
    """The answers against the targets and against what the loss expects."""
    given = look.answers
    width = given.shape[-1] if given.ndim > 1 else 1
    y = np.asarray(look.subject.train[1])
    for judge in (wrong_width, single_unit, over_batch, unread, wrong_loss):
        found = judge(look, width, y)
        if found:
            return found
    return wrong_activation(look, width, y)


def wrong_width(look: Look, width: int, y: np.ndarray) -> list[Finding]:
    """As many answers as classes or targets."""
    classes = int(y.max()) + 1 if look.kind == "classes" else 0
    told = look.subject.kind == "multiclass"
    if width == 1 and classes > 2 and told:
        unit = look.range
        if look.expectation.distance and (unit is None or unit.raw):
            severity, confidence = "note", 0.5
        else:
            severity, confidence = "fault", 0.95
        return [
            Finding(
                "output_width_mismatch",
                severity,
                look.last,
                f"one unit answers for {classes} classes numbered 0 to {classes - 1}",
                measured="width 1",
                healthy=f"width {classes}",
                remedy=f"a last layer of {classes} units, and one-hot targets: "
                f"jax.nn.one_hot(y, {classes})",
                confidence=confidence,
            )
        ]
    if classes > width > 1 and look.row_by_row:
        return [
            Finding(
                "output_width_mismatch",
                "fault",
                look.last,
                f"targets go up to class {classes - 1}, the network has {width} outputs: "
                "an index out of range is clipped or becomes NaN without a word",
                measured=f"width {width}",
                healthy=f"width {classes}",
                remedy=f"a last layer of {classes} units, or targets that start at 0",
            )
        ]
    columns = y.shape[-1] if y.ndim > 1 else 1
    if width == 1 < columns and look.kind != "classes" and y.ndim == look.answers.ndim:
        return [
            Finding(
                "output_width_mismatch",
                "fault",
                look.last,
                f"one unit answers for {columns} targets of a row",
                measured="width 1",
                healthy=f"width {columns}",
                remedy=f"a last layer of {columns} units",
                confidence=0.9,
            )
        ]
    return []


def single_unit(look: Look, width: int, y: np.ndarray) -> list[Finding]:
    """A softmax over one unit, in the network or in the loss."""
    unit = look.range
    constant = unit is not None and unit.constant
    flat = width == 1 and look.expectation.flat and np.any(y != y[:1])
    if not constant and not flat:
        return []
    where = look.last if constant else look.loss_line
    value = "1" if width == 1 else "a constant"
    return [
        Finding(
            "softmax_on_single_unit" if width == 1 else "output_activation_mismatch",
            "fault",
            where,
            f"the answer is {value} whatever the last layer gives: no gradient can reach it"
            if constant
            else "the loss normalizes one answer by itself and is the same for every answer",
            measured="constant",
            healthy="depends on the last layer",
            remedy="jax.nn.sigmoid instead of softmax for one unit; nothing for a real value"
            if look.kind != "values"
            else "leave out the softmax",
        )
    ]


def over_batch(look: Look, width: int, y: np.ndarray) -> list[Finding]:
    """A softmax over the rows of a batch; a sum over rows where one over classes is meant."""
    if look.range is not None and look.range.sums_over_batch:
        return [
            Finding(
                "loss_axis_error",
                "fault",
                look.last,
                "the outputs of the rows of a batch sum to 1: the softmax runs over the batch",
                measured="sum over the batch 1",
                healthy="sum over the classes 1",
                remedy="jax.nn.softmax(x, axis=-1)",
            )
        ]
    if look.expectation.softmax_over_batch:
        # A loss of differences between rows ranks them, and may be meant.
        severity, confidence = ("note", 0.5) if width == 1 else ("fault", 1.0)
        return [
            Finding(
                "loss_axis_error",
                severity,
                look.loss_line,
                "the loss does not change when a number is added to one output of all rows: its "
                "softmax runs over the batch",
                measured="invariant along the batch",
                healthy="invariant along the classes",
                remedy="jax.nn.log_softmax(logits, axis=-1)",
                confidence=confidence,
            )
        ]
    return []


def unread(look: Look, width: int, y: np.ndarray) -> list[Finding]:
    """Answers and targets that the loss does not bring together row by row."""
    asked = look.expectation
    if np.all(y == y[:1]):
        return []
    if asked.flat:
        return [
            Finding(
                "loss_mismatch",
                "fault",
                look.loss_line,
                "the loss is the same whatever the answers and the targets are: no gradient can "
                "come of it",
                measured="one value for all answers and targets",
                healthy="a loss that falls as answers come near the targets",
                remedy="look at the mask or the weights of the loss: are all of them 0?",
                confidence=0.95,
            )
        ]
    crossed = crossing(look)
    if not asked.pairs and crossed is not None:
        shapes = [look.loss.shape(value) for value in crossed.inputs]
        result = look.loss.shape(crossed.outputs[0])
        return [
            Finding(
                "loss_broadcast",
                "fault",
                crossed.where or look.loss_line,
                f"outputs {np.shape(look.sample.outputs)} and targets {look.sample.y.shape} meet "
                f"as {shapes[0]} and {shapes[1]} and give {result}: each row is held against the "
                "targets of all",
                measured=f"{result}",
                healthy=f"{np.shape(look.sample.outputs)}",
                remedy="outputs[:, 0] - y" if y.ndim == 1 else "y[:, 0]",
            )
        ]
    if not asked.reads_targets:
        return [
            Finding(
                "loss_mismatch",
                "note",
                look.loss_line,
                "the loss is the same for other targets",
                measured="no dependence on y",
                healthy="a loss of outputs and targets",
                remedy="use y in the loss, unless the task has no targets",
                confidence=0.5,
            )
        ]
    return []


def crossing(look: Look) -> Operation | None:
    """Where answers and targets of n rows give n times n numbers."""
    traced = look.loss
    outputs, targets = (traced.reached(argument) for argument in traced.arguments)
    rows = len(look.sample.x)
    for op in traced.operations:
        first, second = (set(op.inputs) & outputs, set(op.inputs) & targets)
        shape = traced.shape(op.outputs[0])
        if op.name in {"sub", "add", "mul", "div", "max", "min", *COMPARISONS} and (
            first and second and shape[-2:] == (rows, rows)
        ):
            return op
    return None


def wrong_loss(look: Look, width: int, y: np.ndarray) -> list[Finding]:
    """A loss that falls away from the targets, cannot tell them apart, or weighs them madly."""
    asked = look.expectation
    if asked.rises:
        return [
            Finding(
                "gradient_ascent",
                "fault",
                look.loss_line,
                "the loss rises as the outputs move towards the targets: its sign is wrong",
                measured="rises",
                healthy="falls",
                remedy="return the negative of the loss",
                confidence=0.95,
            )
        ]
    if asked.collapses > bound("told apart") and look.row_by_row:
        best = "a loss of a distance, such as jnp.mean((outputs - y) ** 2)"
        symptoms = tuple(out_of_range(look, y))
        return [
            Finding(
                "loss_mismatch",
                "fault",
                look.loss_line,
                f"over {asked.collapses:.0%} of the range of the targets ({np.min(y):.3g} to "
                f"{np.max(y):.3g}) the same answer is the best one for the loss",
                measured=f"{asked.collapses:.0%} of the range told apart by nothing",
                healthy="another best answer for each target",
                remedy=best,
                symptoms=symptoms,
                confidence=0.95,
            )
        ]
    if asked.blind is not None:
        return [
            Finding(
                "loss_mismatch",
                "fault",
                look.loss_line,
                f"a row whose target is {asked.blind:g} has the same loss whatever the answer: "
                "nothing speaks against answering the other class everywhere",
                measured="gradient 0 for one of two classes",
                healthy="both classes count",
                remedy="2 * y - 1 for a loss of margins; the term (1 - y) * log(1 - p) for a "
                "cross-entropy",
                confidence=0.95,
            )
        ]
    if asked.bottomless:
        return [
            Finding(
                "loss_mismatch",
                "fault",
                look.loss_line,
                "the loss falls without end as the outputs grow: of targets from "
                f"{np.min(y):.3g} to {np.max(y):.3g} it has no best answer",
                measured="unbounded below",
                healthy="0 or more",
                remedy="targets in [0, 1] for a cross-entropy: y / y.max(); a squared error for "
                "values",
                confidence=0.95,
            )
        ]
    if asked.weights > bound("target weights") and np.mean(y == 0) > 0.01:
        return [
            Finding(
                "loss_mismatch",
                "fault",
                look.loss_line,
                f"targets of 0 weigh {asked.weights:.0e} times as much as the others in the "
                "gradient: the loss divides by the target",
                measured=f"{asked.weights:.0e}",
                healthy=f"below {bound('target weights'):.0e}",
                remedy="binary cross-entropy for classes, a squared error for values",
                confidence=0.95,
            )
        ]
    return []


def out_of_range(look: Look, y: np.ndarray) -> list[Finding]:
    """Targets that the answers cannot be."""
    unit = look.range
    if unit is None or unit.raw or look.kind == "classes":
        return []
    y = np.asarray(y, np.float64)
    missing = y - np.clip(y, unit.low, unit.high)
    lost = float((missing**2).mean() / max(y.var(), 1e-30))
    share = float(np.mean(np.abs(missing) > 1e-3 * max(float(y.std()), 1e-6)))
    if not share:
        return []
    span = f"[{unit.low:.3g}, {'inf' if unit.high == np.inf else f'{unit.high:.3g}'}]"
    return [
        Finding(
            "relu_output" if unit.floor else "output_range_excludes_targets",
            "fault" if lost > bound("out of range") else "note",
            look.last,
            f"the outputs stay in {span}, and {share:.0%} of the targets, which go from "
            f"{y.min():.3g} to {y.max():.3g}, lie outside",
            measured=span,
            healthy=f"[{y.min():.3g}, {y.max():.3g}]",
            remedy="no activation after the last layer, and targets of unit scale",
            confidence=0.95,
        )
    ]


def wrong_activation(look: Look, width: int, y: np.ndarray) -> list[Finding]:
    """An output activation that fits neither the loss nor the targets."""
    unit, asked, kind = look.range, look.expectation, look.kind
    if unit is None:
        return []

    def fault(cause: str, evidence: str, remedy: str, confidence: float = 0.9) -> list[Finding]:
        low, high = f"{unit.low:.3g}", f"{unit.high:.3g}"
        return [
            Finding(
                cause,
                "fault",
                look.last,
                evidence,
                measured=f"outputs in [{low}, {high}]",
                healthy="what the loss expects",
                remedy=remedy,
                confidence=confidence,
            )
        ]

    if kind == "values" and asked.positive and unit.low < 0:
        return [
            Finding(
                "output_activation_missing",
                "note",
                look.last,
                "the loss takes a logarithm or root of the outputs, and they may be negative",
                measured="not finite for negative outputs",
                healthy="outputs above 0",
                remedy="jax.nn.softplus as the last activation, or outputs that are logarithms",
                confidence=0.8,
            )
        ]
    exclusive = kind in ("one-hot", "classes") and width > 1
    narrow = unit.high - unit.low <= bound("narrow")
    last = "jax.nn.softmax" if exclusive else "jax.nn.sigmoid"
    if asked.softmax and unit.sums_to_one:
        return fault(
            "double_softmax",
            "the network ends in a softmax, and the loss applies another: it cannot fall below "
            f"ln(1 + {width - 1}/e) = {np.log1p((width - 1) / np.e):.3g}",
            "return the values before the softmax",
        )
    if kind != "values" and unit.floor:
        return fault(
            "relu_output",
            "a ReLU stands on the outputs: a unit that is 0 there gets no gradient, and no output "
            "can speak against a class",
            "no activation after the last layer" if asked.logits else f"{last} instead of the ReLU",
            0.9 if asked.logits or asked.logarithm else 0.8,
        )
    if asked.logits and narrow:
        return fault(
            "output_activation_mismatch",
            "the loss takes raw values for classes, and the outputs are bounded: "
            "it cannot become sure",
            "no activation after the last layer",
            0.8,
        )
    if kind != "values" and asked.logarithm and not asked.beyond_one:
        if unit.raw:
            return fault(
                "output_activation_missing",
                "the loss takes the logarithm of probabilities and gets raw values, below 0 and "
                "above 1",
                f"{last} after the last layer, or a loss of logits",
                0.95,
            )
        if unit.low < -1e-6 or (unit.high > 1 + 1e-3 and not asked.renormalizes):
            return fault(
                "output_activation_mismatch",
                "the loss takes the logarithm of probabilities, and the outputs leave [0, 1]",
                f"{last} as the last activation",
            )
    if exclusive and not unit.sums_to_one and asked.logarithm:
        if asked.only_true:
            return fault(
                "output_activation_mismatch",
                "only the output of the true class counts in the loss, and the outputs do not "
                "compete: answering 1 everywhere is perfect",
                "jax.nn.softmax as the last activation",
            )
        if asked.renormalizes and narrow:
            return fault(
                "output_activation_mismatch",
                "one of the classes is right, and each output is bounded by itself: the outputs "
                "do not compete",
                "jax.nn.softmax as the last activation",
                0.5,
            )
    if unit.sums_to_one and kind == "flags":
        return fault(
            "output_activation_mismatch",
            "labels are independent of each other, and the outputs of a row sum to 1",
            "jax.nn.sigmoid as the last activation, with a binary cross-entropy",
        )
    if asked.logits:
        return []
    found = out_of_range(look, y)
    goal = goal_of(look.sample.y, kind, look.answers.shape)
    simplex = goal is None or np.abs(goal.sum(-1) - 1).max() < 0.05
    if not found and unit.sums_to_one and kind == "values" and not simplex:
        return fault(
            "output_activation_mismatch",
            "the outputs of a row sum to 1, and its targets do not",
            "no softmax after the last layer",
        )
    if not found and asked.distance and kind in ("one-hot", "binary", "flags") and unit.raw:
        return [
            Finding(
                "loss_mismatch",
                "note",
                look.loss_line,
                "a distance between raw outputs and classes: it learns, and a cross-entropy "
                "learns better",
                remedy="optax.softmax_cross_entropy for logits"
                if exclusive
                else "optax.sigmoid_binary_cross_entropy for logits",
                confidence=0.3,
            )
        ]
    return found
