"""Checks of the traced program: what the operations of a network and its loss do, never names.

Each check takes a `Look` at a subject and gives findings. What can be told by tracing is told by
tracing; the rest is asked of the functions with a few numbers.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnose.answers import (
    Expectation,
    Kind,
    Range,
    Sample,
    expectation_of,
    goal_of,
    kind_of,
    range_of,
    sample,
)
from nnref.diagnose.findings import Finding, upstream
from nnref.diagnose.layers import (
    Layer,
    activations,
    affine,
    bends,
    layers,
    products,
)
from nnref.diagnose.subject import Subject
from nnref.diagnose.tracing import Operation, Trace, trace

__all__ = ["CHECKS", "Layer", "Look", "activations", "check", "layers"]

# What a gradient does not pass.
STEPS = {"round", "floor", "ceil", "sign", "argmax", "argmin"}
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
DRAWS = {"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"}


class Look:
    """A subject at its start, with what several checks want to know of it."""

    def __init__(self, subject: Subject, params: Any = None, state: Any = None) -> None:
        """Start the subject, unless parameters and state are given."""
        self.subject = subject
        if params is None:
            params, state = jax.jit(subject.init)(jax.random.key(0))
        self.params, self.state = params, state

    @cached_property
    def sample(self) -> Sample:
        """A few rows, in evaluation mode."""
        return sample(self.subject, self.params, self.state)

    @cached_property
    def kind(self) -> Kind:
        """What the targets are."""
        answers = self.sample.answers
        shape = np.zeros(1) if answers is None else answers
        return kind_of(self.subject.train[1], shape, self.subject.kind)

    @cached_property
    def range(self) -> Range | None:
        """What the answers can be."""
        return range_of(*self.sample.tail) if self.sample.tail else None

    @cached_property
    def expectation(self) -> Expectation:
        """What the loss expects of them."""
        answers = self.sample.answers
        assert answers is not None, "asked of outputs that are one array"
        return expectation_of(self.subject.loss, self.sample.y, self.kind, answers.shape)

    @cached_property
    def training(self) -> Trace:
        """The program of a loss in training: arguments parameters, state, rows, targets, key.

        Its results are the loss, without penalty, then the outputs, then the new state.
        """

        def objective(params: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
            outputs, state = self.subject.apply(params, state, x, key, True)
            return jnp.asarray(self.subject.loss(outputs, y)).sum(), outputs, state

        s = self.sample
        return trace(objective, self.params, self.state, s.x, s.y, jax.random.key(0))

    @cached_property
    def loss(self) -> Trace:
        """The program of the loss alone: arguments outputs, targets."""
        return trace(self.subject.loss, self.sample.outputs, self.sample.y)

    @property
    def last(self) -> str:
        """Where the answers are made."""
        found = self.sample.layers
        return f"{found[-1].name}, {found[-1].where}" if found else "output"

    @property
    def loss_line(self) -> str:
        """Where the loss is made."""
        lines = [op.where for op in self.loss.operations if op.where]
        return lines[-1] if lines else "loss"


def check(
    subject: Subject,
    params: Any = None,
    state: Any = None,
    impossible: list[str] | None = None,
) -> list[Finding]:
    """Findings of all checks of the program, the most upstream first.

    Args:
        subject: what is diagnosed.
        params: to start from; by default those of `subject.init` with key 0.
        state: that goes with them.
        impossible: takes a line for each check that these functions do not allow.
    """
    look = Look(subject, params, state)
    found: list[Finding] = []
    for name, judge in CHECKS.items():
        try:
            found += judge(look)
        except Exception as error:  # a user's function may refuse what it is asked
            if impossible is not None:
                first = (str(error).splitlines() or [""])[0]
                impossible.append(f"{name}: {type(error).__name__}: {first}"[:200])
    return upstream(found)


# What is computed and not used


def unused(look: Look) -> list[Finding]:
    """Results that reach neither the loss nor the new state, and parameters that reach nothing."""
    traced = look.training
    needed = traced.needed(traced.outputs)
    data = traced.reached(traced.arguments[2])
    flowing = [op for op in traced.operations if not data.isdisjoint(op.outputs)]
    dead = [op for op in flowing if needed.isdisjoint(op.outputs)]
    alive = {line for op in flowing if not needed.isdisjoint(op.outputs) for line in op.frames}
    found = []
    lost: set[int] = set()
    owners = {op.outputs[0]: parameters for op, _, parameters in products(traced)}
    lines: dict[str, list[Operation]] = {}
    for op in dead:
        line = next((line for line in op.frames if line not in alive), "")
        if line or owners.keys() & set(op.outputs):
            lines.setdefault(line or op.where, []).append(op)
    for line, ops in lines.items():
        parameters = {p for op in ops for p in owners.get(op.outputs[0], ())} - needed
        if parameters:
            lost |= parameters
            names = ", ".join(sorted(traced.paths[p] for p in parameters))
            found.append(
                Finding(
                    "parameters_not_updated",
                    "fault",
                    line,
                    f"what {line} computes is used nowhere: {names} has no path to the loss",
                    measured="result unused",
                    healthy="every layer's result is used",
                    remedy=f"feed the result of {line} to the next layer, or delete the layer",
                    confidence=0.9,
                )
            )
        elif any(bends(op, data) and op.name not in COMPARISONS for op in ops):
            what = next(op.name for op in ops if bends(op, data))
            found.append(
                Finding(
                    "hidden_activation_missing",
                    "note",
                    line,
                    f"what {line} computes ({what}) is used nowhere",
                    measured="result unused",
                    healthy="every result is used",
                    remedy=f"assign the result of {line} to what is used below it",
                    confidence=0.7,
                )
            )
    never = set(traced.arguments[0]) - needed - lost
    biases = {p for p in never if any(shares_layer(traced, p, q) for q in lost)}
    if never - biases:
        names = ", ".join(sorted(traced.paths[p] for p in never - biases))
        found.append(
            Finding(
                "parameters_not_updated",
                "note",
                names,
                f"{names}: no result that is used depends on it",
                remedy="call the layer, or delete it",
                confidence=0.6,
            )
        )
    if traced.arguments[2] and not needed & set(traced.arguments[2]):
        found.append(
            Finding(
                "no_signal",
                "fault",
                look.last,
                "the outputs do not depend on the inputs: no operation leads from one to the other",
                measured="no path",
                healthy="a path from the inputs to the loss",
                remedy="feed x to the first layer",
            )
        )
    return found


def shares_layer(traced: Trace, first: int, second: int) -> bool:
    """Whether two parameters stand side by side in the tree."""
    parents = [traced.paths[value].rpartition(".")[0] for value in (first, second)]
    return parents[0] == parents[1] != ""


def blocked(look: Look) -> list[Finding]:
    """Parameters whose only ways to the loss are ways that a gradient does not pass."""
    traced = look.training
    loss = traced.outputs[0]
    needed = traced.needed([loss])
    stuck = []
    for parameter in traced.arguments[0]:
        if parameter in needed and loss not in traced.reached([parameter], differentiable(traced)):
            stuck.append(parameter)
    if not stuck:
        return []
    s = look.sample

    def objective(params: Any) -> Any:
        outputs, _ = look.subject.apply(params, look.state, s.x, jax.random.key(0), True)
        return jnp.asarray(look.subject.loss(outputs, s.y)).sum()

    slopes = jax.tree.leaves(jax.jit(jax.grad(objective))(look.params))
    still = {
        value for value, slope in zip(traced.arguments[0], slopes, strict=True) if not slope.any()
    }
    stuck = [value for value in stuck if value in still]  # a custom gradient may lead around
    if not stuck:
        return []
    passes = differentiable(traced)
    walls = [
        op
        for op in traced.operations
        if not passes(op)
        and not needed.isdisjoint(op.outputs)
        and not traced.reached(stuck, passes).isdisjoint(op.inputs)
    ]
    stopped = all(op.name == "stop_gradient" for op in walls)
    names = ", ".join(traced.paths[value] for value in stuck)
    trained = set(traced.arguments[0]) & needed - set(stuck)
    walls_named = " or ".join(sorted({op.name for op in walls})) or "integers"
    where = next((op.where for op in walls if op.where), look.loss_line)
    frozen = stopped and trained
    return [
        Finding(
            "parameters_not_updated" if stopped else "vanishing_gradients",
            "note" if frozen else "fault",
            where,
            f"the only ways from {names} to the loss lead through {walls_named}: the gradient is 0",
            measured="gradient exactly 0",
            healthy="a differentiable path to the loss",
            remedy="leave out the stop_gradient if the layer is to learn"
            if stopped
            else f"something smooth instead of {walls_named}, or a straight-through gradient",
            confidence=0.5 if frozen else 0.95,
        )
    ]


def differentiable(traced: Trace) -> Callable[[Operation], bool]:
    """Whether a gradient passes an operation."""

    def passes(op: Operation) -> bool:
        dtype = getattr(traced.avals[op.outputs[0]], "dtype", None)
        inexact = dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
        return op.name not in STEPS | COMPARISONS | {"stop_gradient"} and inexact

    return passes


# What stands between layers


def between_layers(look: Look) -> list[Finding]:
    """Layers with nothing nonlinear between them."""
    traced = look.sample.trace
    needed = traced.needed(traced.outputs)
    data = traced.reached(traced.arguments[2])
    found = [layer for layer in look.sample.layers if not layer.looped and layer.kind != "gather"]
    if len(found) < 2:
        return []
    entrance = {op.outputs[0]: entering for op, entering, _ in products(traced)}
    own = {layer.product for layer in found}
    pairs = []
    for upper in found:
        for lower in found:
            if upper.product >= lower.product:
                continue
            ahead = traced.reached([upper.product]) & traced.needed([entrance[lower.product]])
            between = [
                op for op in traced.operations if ahead & set(op.outputs) and ahead & set(op.inputs)
            ]
            if entrance[lower.product] not in ahead or any(own & set(op.outputs) for op in between):
                continue
            if all(affine(op, ahead, data) for op in between):
                pairs.append((upper, lower))
    if not pairs:
        return []
    flow = data & traced.needed([found[-1].before])
    whole = all(
        affine(op, flow, set()) for op in traced.operations if flow & set(op.outputs) & needed
    )
    if whole:
        return [collapsed(look, pairs)]
    wide = [pair for pair in pairs if not squeezes(traced, entrance, *pair)]
    return [
        Finding(
            "hidden_activation_missing",
            "note",
            f"{upper.name}, {upper.where}",
            f"nothing nonlinear stands between {upper.name} and {lower.name}: together they are "
            "one affine layer",
            measured="affine",
            healthy="an activation after each hidden layer",
            remedy=f"x = jax.nn.relu(x) between {upper.name} and {lower.name}",
            confidence=0.5,
        )
        for upper, lower in wide[:1]
    ]


def squeezes(traced: Trace, entrance: dict[int, int], upper: Layer, lower: Layer) -> bool:
    """Whether a layer is narrower than what it reads and what follows: a factor, and meant so."""

    def features(value: int) -> int:
        return traced.size(value) // max(traced.shape(value)[0], 1)

    middle = features(upper.product)
    return middle < min(features(entrance[upper.product]), features(lower.product))


def collapsed(look: Look, pairs: list[tuple[Layer, Layer]]) -> Finding:
    """A whole network that is affine in its inputs: a fault where a curved fit does better."""
    straight, curved = fits(look.subject)
    better = curved - straight
    names = " -> ".join(dict.fromkeys(layer.name for pair in pairs for layer in pair))
    return Finding(
        "hidden_activation_missing",
        "fault" if better > 0.1 else "note",
        f"{pairs[0][0].name}, {pairs[0][0].where}",
        f"nothing nonlinear stands between {names}: the network is one affine map; on held-out "
        f"rows an affine fit explains {max(straight, 0):.0%} of the targets, a curved one "
        f"{max(curved, 0):.0%}",
        measured=f"{max(straight, 0):.2f} of the variance",
        healthy=f"{max(curved, 0):.2f}",
        remedy=f"x = jax.nn.relu(x) after {pairs[0][0].name}",
        confidence=0.8 if better > 0.3 else 0.6,
    )


def fits(subject: Subject, rows: int = 600) -> tuple[float, float]:
    """Share of the variance of held-out targets that an affine and a curved fit explain.

    Ridge regression, and kernel ridge regression with Gaussian kernels of three widths; the
    strength of the penalty is the one that does best.
    """
    x, y = (np.asarray(part, np.float64) for part in subject.train)
    chosen = np.random.default_rng(0).permutation(len(x))[:rows]
    x = x.reshape(len(x), -1)[chosen]
    y = y.reshape(len(y), -1)[chosen, :16]
    if y.shape[1] == 1 and subject.kind == "multiclass":
        y = (y == np.unique(y)).astype(float)
    half = max(1, 2 * len(x) // 3)
    deviation = x[:half].std(0)
    x = (x - x[:half].mean(0)) / np.where(deviation > 0, deviation, 1)
    y = y - y[:half].mean(0)
    affine_kernel = x @ x.T / x.shape[1] + 1
    squares = np.maximum(((x[:, None] - x[None]) ** 2).sum(-1) if x.shape[1] < 20 else apart(x), 0)
    typical = max(float(np.median(squares)), 1e-12)
    curved_kernels = [np.exp(-squares / (typical * width)) for width in (0.03, 0.3, 3.0)]
    variance = max(float((y[half:] ** 2).mean()), 1e-30)

    def share(kernel: np.ndarray) -> float:
        best = -np.inf
        for penalty in (1e-6, 1e-3, 1e-1, 1.0):
            inner = kernel[:half, :half] + penalty * np.eye(half)
            residual = y[half:] - kernel[half:, :half] @ np.linalg.solve(inner, y[:half])
            best = max(best, 1 - float((residual**2).mean()) / variance)
        return best

    if half == len(x):
        return 0.0, 0.0
    return share(affine_kernel), max(share(kernel + affine_kernel) for kernel in curved_kernels)


def apart(x: np.ndarray) -> np.ndarray:
    """Squared distances between rows."""
    norms = (x**2).sum(1)
    return norms[:, None] + norms[None] - 2 * x @ x.T


# Answers, targets and loss


def answers(look: Look) -> list[Finding]:
    """The answers against the targets and against what the loss expects."""
    given = look.sample.answers
    if given is None or given.ndim == 0:
        return []
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
    if classes > width > 1:
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
    if width == 1 < columns and look.kind != "classes" and y.ndim == np.ndim(look.sample.answers):
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
    flat = width == 1 and look.expectation.flat and np.ptp(y) > 0
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
        return [
            Finding(
                "loss_axis_error",
                "fault",
                look.loss_line,
                "the loss does not change when a number is added to one output of all rows: its "
                "softmax runs over the batch",
                measured="invariant along the batch",
                healthy="invariant along the classes",
                remedy="jax.nn.log_softmax(logits, axis=-1)",
            )
        ]
    return []


def unread(look: Look, width: int, y: np.ndarray) -> list[Finding]:
    """Answers and targets that the loss does not bring together row by row."""
    asked = look.expectation
    if asked.flat or np.ptp(y) == 0:
        return []
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
    if asked.collapses > 0.3:
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
    if asked.weights > 1e4 and np.mean(y == 0) > 0.01:
        return [
            Finding(
                "loss_mismatch",
                "fault",
                look.loss_line,
                f"targets of 0 weigh {asked.weights:.0e} times as much as the others in the "
                "gradient: the loss divides by the target",
                measured=f"{asked.weights:.0e}",
                healthy="below 1e4",
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
            "fault" if lost > 0.01 else "note",
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

    exclusive = kind in ("one-hot", "classes") and width > 1
    narrow = unit.high - unit.low <= 4
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
    goal = goal_of(look.sample.y, kind, np.shape(look.sample.answers))
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


CHECKS: dict[str, Callable[[Look], list[Finding]]] = {
    "results that are used nowhere": unused,
    "ways that a gradient does not pass": blocked,
    "something nonlinear between layers": between_layers,
    "outputs, targets and loss": answers,
}
