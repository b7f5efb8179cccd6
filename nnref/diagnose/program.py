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
from nnref.diagnose.findings import LINE, Finding, bound, in_a_line, upstream
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

    @property
    def answers(self) -> np.ndarray:
        """The outputs of the sample, where they are one array."""
        answers = self.sample.answers
        if answers is None:
            raise ValueError("outputs are not one array with the rows first")
        return answers

    @cached_property
    def kind(self) -> Kind:
        """What the targets are."""
        return kind_of(self.subject.train[1], self.answers, self.subject.kind)

    @cached_property
    def range(self) -> Range | None:
        """What the answers can be."""
        return range_of(*self.sample.tail) if self.sample.tail else None

    @cached_property
    def expectation(self) -> Expectation:
        """What the loss expects of them."""
        return expectation_of(self.subject.loss, self.sample.y, self.kind, self.answers.shape)

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

    @cached_property
    def step(self) -> Callable[[float], Any]:
        """The first update of the optimizer for a drawn gradient times a scale."""
        optimizer = self.subject.optimizer
        if optimizer is None:
            return lambda scale: jax.tree.map(jnp.zeros_like, self.params)

        def first(params: Any, scale: Any) -> Any:
            drawn = drawn_like(params)
            gradient = jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), drawn)
            return optimizer.update(gradient, optimizer.init(params), params)[0]

        jitted = jax.jit(first)
        return lambda scale: jitted(self.params, scale)

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
                impossible.append(f"{name}: {in_a_line(error)}"[:LINE])
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
    read = {value for op in dead for value in op.inputs}
    found = []
    lost: set[int] = set()
    for end in reversed(dead):
        if not read.isdisjoint(end.outputs):  # what reads it is told
            continue
        before = traced.needed(end.outputs)
        # Outermost first: a function that others call, too, is not the line that drops its result.
        line = next((line for line in reversed(end.frames) if line not in alive), "")
        parameters = set(traced.arguments[0]) & before - needed - lost
        cone = [op for op in dead if not before.isdisjoint(op.outputs)]
        bent = [op.name for op in cone if bends(op, data) and op.name not in COMPARISONS]
        if parameters:
            lost |= parameters
            names = ", ".join(sorted(traced.paths[p] for p in parameters))
            line = line or end.where
            found.append(
                Finding(
                    "parameters_not_updated",
                    "fault",
                    line,
                    f"what {line} computes is used nowhere, and with it {names}",
                    measured="result unused",
                    healthy="every layer's result is used",
                    remedy=f"feed the result of {line} to the next layer, or delete the layer",
                    confidence=0.9,
                )
            )
        elif line and bent:
            found.append(
                Finding(
                    "hidden_activation_missing",
                    "note",
                    line,
                    f"what {line} computes ({bent[0]}) is used nowhere",
                    measured="result unused",
                    healthy="every result is used",
                    remedy=f"assign the result of {line} to what is used below it",
                    confidence=0.7,
                )
            )
    never = set(traced.arguments[0]) - needed - lost
    if never:
        names = ", ".join(sorted(traced.paths[p] for p in never))
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
        "fault" if better > bound("curved") else "note",
        f"{pairs[0][0].name}, {pairs[0][0].where}",
        f"nothing nonlinear stands between {names}: the network is one affine map; on held-out "
        f"rows an affine fit explains {max(straight, 0):.0%} of the targets, a curved one "
        f"{max(curved, 0):.0%}",
        measured=f"{max(straight, 0):.2f} of the variance",
        healthy=f"{max(curved, 0):.2f}",
        remedy=f"x = jax.nn.relu(x) after {pairs[0][0].name}",
        confidence=0.8 if better > bound("curved") else 0.5,
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
    if len(x) < 20:  # too few to hold any out: whether an affine map can fit them at all
        design = np.c_[x, np.ones(len(x))]
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        fitted = 1 - float(residual.var() / max(y.var(), 1e-30))
        return fitted, 1.0 if fitted < 0.3 and len(np.unique(x, axis=0)) == len(x) else fitted
    half = 2 * len(x) // 3
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

    return share(affine_kernel), max(share(kernel + affine_kernel) for kernel in curved_kernels)


def apart(x: np.ndarray) -> np.ndarray:
    """Squared distances between rows."""
    norms = (x**2).sum(1)
    return norms[:, None] + norms[None] - 2 * x @ x.T


# Answers, targets and loss


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
    if asked.flat or np.all(y == y[:1]):
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
    if asked.collapses > bound("told apart"):
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


# Modes, keys and the batch


def statistics(look: Look) -> list[Finding]:
    """Running statistics that evaluation reads and training never writes."""
    training, evaluation = look.training, look.sample.trace
    new = training.outputs[1 + len(jax.tree.leaves(look.sample.outputs)) :]
    results = len(jax.tree.leaves(look.sample.outputs))
    read = evaluation.needed(evaluation.outputs[:results])
    written = training.needed(training.outputs[: 1 + results])
    still = [
        training.paths[old]
        for old, result, place in zip(
            training.arguments[1], new, evaluation.arguments[1], strict=False
        )
        if old == result and place in read and old not in written
    ]
    if not still or len(new) != len(training.arguments[1]):
        return []
    return [
        Finding(
            "batch_statistics_not_updated",
            "fault",
            ", ".join(still),
            f"evaluation reads {', '.join(still)}; training uses the batch instead, and hands them "
            "back as they came",
            measured="unchanged by a training step",
            healthy="a running mean of the batches",
            remedy="return the new state from apply and carry it to the next step",
        )
    ]


def randomness(look: Look) -> list[Finding]:
    """Random numbers in evaluation; random numbers that are the same at every step."""
    training, evaluation = look.training, look.sample.trace
    results = len(jax.tree.leaves(look.sample.outputs))
    found = []
    reading = evaluation.needed(evaluation.outputs[:results])
    drawn = [op for op in evaluation.operations if op.name in DRAWS and reading & set(op.outputs)]
    if drawn and look.subject.modes:
        found.append(
            Finding(
                "excessive_dropout",
                "note",
                drawn[-1].where,
                "evaluation draws random numbers: dropout or noise acts there too",
                measured="outputs depend on a key",
                healthy="evaluation is the same each time",
                remedy="leave dropout out where train is False",
                confidence=0.7,
            )
        )
    reading = training.needed(training.outputs[:1])
    fresh = training.reached(training.arguments[4] + training.arguments[1])
    stale = [
        op
        for op in training.operations
        if op.name in DRAWS and reading & set(op.outputs) and not fresh & set(op.inputs)
    ]
    if stale:
        found.append(
            Finding(
                "excessive_dropout",
                "note",
                stale[-1].where,
                "the random numbers of training come from a key that never changes: the same units "
                "are dropped at every step",
                measured="no path from the step's key",
                healthy="another key at every step",
                remedy="use the key that apply is given",
                confidence=0.7,
            )
        )
    return found


def mates(look: Look) -> list[Finding]:
    """Rows whose answer depends on the other rows of their batch, in evaluation."""
    s = look.sample
    if len(s.x) < 3 or s.answers is None:
        return []
    others = np.array(s.x)
    others[1:] = np.roll(np.asarray(s.x), 1, 0)[1:] + others.std(0).astype(others.dtype)
    apply = jax.jit(look.subject.apply, static_argnums=4)
    key = jax.random.key(0)
    first, second = (
        np.asarray(apply(look.params, look.state, x, key, False)[0], np.float64)[0]
        for x in (s.x, others)
    )
    scale = max(float(np.abs(look.answers).max()), 1e-30)
    moved = float(np.abs(first - second).max()) / scale
    if not moved > bound("mates"):
        return []
    rows = len(s.x)
    over_rows = [
        op
        for op in s.trace.operations
        if op.name in ("reduce_sum", "reduce_max")
        and 0 in op.equation.params["axes"]
        and s.trace.shape(op.inputs[0])[:1] == (rows,)
        and any(
            before.name == "exp" and op.inputs[0] in before.outputs for before in s.trace.operations
        )
    ]
    return [
        Finding(
            "loss_axis_error",
            "fault" if over_rows else "note",
            over_rows[0].where if over_rows else look.last,
            "in evaluation the answer for a row changes with the other rows of its batch"
            + (": a softmax runs over the batch" if over_rows else ""),
            measured=f"by {moved:.2g} of the largest output",
            healthy="0",
            remedy="axis=-1 instead of axis=0"
            if over_rows
            else "use running statistics in evaluation",
            confidence=0.9 if over_rows else 0.5,
        )
    ]


def batch_scale(look: Look) -> list[Finding]:
    """A loss that grows with the batch."""
    s, loss = look.sample, look.subject.loss
    drawn = np.random.default_rng(0).uniform(0.2, 0.8, look.answers.shape).astype(np.float32)
    single = float(jnp.asarray(jax.jit(loss)(drawn, s.y)).sum())
    twice = jax.jit(loss)(np.concatenate([drawn, drawn]), np.concatenate([s.y, s.y]))
    ratio = float(jnp.asarray(twice).sum()) / single if single else 1.0
    if abs(ratio - 2) > 0.01:
        return []
    width = look.answers.shape[-1] if look.answers.ndim > 1 else 1
    wrong = axis_swapped(look, width)
    if wrong is not None:
        return [
            Finding(
                "loss_axis_error",
                "fault",
                wrong.where or look.loss_line,
                f"the loss sums over the rows of the batch and divides by the {width} outputs: the "
                "two axes are swapped",
                measured="repeating the batch doubles the loss",
                healthy="the same loss",
                remedy="jnp.mean(jnp.sum(..., axis=-1))",
                confidence=0.85,
            )
        ]
    rate, curvature = steepness(look)
    rows = min(look.subject.batch_size, len(look.subject.train[0]))
    unstable = rate * curvature > bound("curvature") and rows >= bound("summed rows")
    return [
        Finding(
            "loss_summed_over_batch",
            "fault" if unstable else "note",
            look.loss_line,
            f"repeating the batch doubles the loss: it is a sum over {rows} rows"
            + (
                f", and learning rate times curvature is {rate * curvature:.3g}; steps diverge "
                "above 2"
                if unstable
                else ""
            ),
            measured=f"{ratio:.3g} times the loss",
            healthy="the same loss",
            remedy="jnp.mean over the rows, not jnp.sum",
            confidence=0.9 if unstable else 0.4,
        )
    ]


def axis_swapped(look: Look, width: int) -> Operation | None:
    """A sum over the batch alone, the result of which is averaged over the outputs."""
    traced = look.loss
    outputs = traced.reached(traced.arguments[0])
    if width < 2:
        return None
    for op in traced.operations:
        inner = traced.shape(op.inputs[0]) if op.inputs else ()
        if (
            op.name == "reduce_sum"
            and op.inputs[0] in outputs
            and len(inner) > 1
            and op.equation.params["axes"] == (0,)
            and traced.shape(op.outputs[0])[-1:] == (width,)
        ):
            after = traced.reached(op.outputs)
            divided = [
                float(traced.constants[place.inputs[1]])
                for place in traced.operations
                if place.name == "div"
                and place.inputs[0] in after
                and np.size(traced.constants.get(place.inputs[1], ())) == 1
            ]
            if any(by == width for by in divided) and len(look.sample.x) != width:
                return op
    return None


def steepness(look: Look) -> tuple[float, float]:
    """The rate of plain gradient steps, 0 where the optimizer takes others, and the curvature.

    The curvature is the largest of the loss of a batch, by power iteration on its Hessian, at the
    first parameters or at a tenth of them: what starts saturated is flat only where it starts.
    """
    subject = look.subject
    first, second = (-ratio_of(look.step(scale), drawn_like(look.params)) for scale in (1.0, 2.0))
    if first <= 0 or not np.isclose(second, 2 * first, rtol=1e-3):
        return 0.0, 0.0
    x, y = (np.asarray(part)[: subject.batch_size] for part in subject.train)
    key = jax.random.key(0)

    def loss(params: Any) -> Any:
        outputs, _ = subject.apply(params, look.state, x, key, True)
        return jnp.asarray(subject.loss(outputs, y)).sum()

    def curvature(params: Any) -> Any:
        def turn(_: Any, direction: Any) -> Any:
            unit = jax.tree.map(lambda leaf: leaf / length(direction), direction)
            return jax.jvp(jax.grad(loss), (params,), (unit,))[1]

        return length(jax.lax.fori_loop(0, 12, turn, drawn_like(params)))

    smaller = jax.tree.map(lambda leaf: leaf / 10, look.params)
    found = [float(jax.jit(curvature)(params)) for params in (look.params, smaller)]
    return first, max((c for c in found if np.isfinite(c)), default=0.0)


def length(tree: Any) -> Any:
    """The Euclidean norm of a tree."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def drawn_like(params: Any) -> Any:
    """A tree of drawn numbers of order 1, the same each time."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=np.shape(leaf)), leaf.dtype), params
    )


def ratio_of(update: Any, gradient: Any) -> float:
    """The part of an update along a gradient, in units of the gradient."""
    pairs = list(zip(jax.tree.leaves(update), jax.tree.leaves(gradient), strict=True))
    along = sum(float(np.vdot(np.asarray(u, float), np.asarray(g, float))) for u, g in pairs)
    return along / max(sum(float((np.asarray(g, float) ** 2).sum()) for _, g in pairs), 1e-30)


def optimizer(look: Look) -> list[Finding]:
    """An optimizer that climbs, stands still, or makes NaN of a gradient of zero."""
    if look.subject.optimizer is None:
        return []
    along = ratio_of(look.step(1.0), drawn_like(look.params))
    found = []
    if along >= 0:
        found.append(
            Finding(
                "gradient_ascent" if along > 0 else "parameters_not_updated",
                "fault",
                "optimizer",
                "the first update points along the gradient: the loss is climbed"
                if along > 0
                else "the first update is 0 for a gradient that is not",
                measured=f"{along:+.3g} of the gradient",
                healthy="negative",
                remedy="a positive learning rate, and one sign change: optax.scale(-rate)"
                if along > 0
                else "check the learning rate, its schedule at step 0 and masks",
                confidence=0.95 if along > 0 else 0.4,
            )
        )
    for scale, said in ((0.0, "0"), (1e-6, "1e-6")):
        update = look.step(scale)
        if not all(np.isfinite(np.asarray(u, float)).all() for u in jax.tree.leaves(update)):
            dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(look.params)})
            found.append(
                Finding(
                    "numerical_instability",
                    "fault",
                    "optimizer",
                    f"for gradients of {said} in {', '.join(dtypes)} the first update is not "
                    "finite: the epsilon in its denominator is rounded to 0",
                    measured="NaN or infinity",
                    healthy="finite",
                    remedy="parameters in float32, or a larger eps: optax.adam(rate, eps=1e-4)",
                )
            )
            break
    return found


def guards(look: Look) -> list[Finding]:
    """Logarithms, roots and divisions that answers within reach carry to the edge."""
    tail = look.sample.tail
    answers = look.answers
    goal = goal_of(look.sample.y, look.kind, answers.shape)
    if tail is None or goal is None or look.kind == "values" and not binary(look.sample.y):
        return []
    make, shape = tail
    if shape != answers.shape:
        return []
    sizes = np.array([2.0, 10.0, 20.0, 50.0, 120.0, 500.0])
    stack = sizes.reshape(-1, *[1] * answers.ndim) * (2 * goal - 1)
    stack = np.concatenate([stack, -stack]).astype(np.float32)

    def loss(z: Any) -> Any:
        return jnp.asarray(look.subject.loss(make(z), look.sample.y)).sum().astype(jnp.float32)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(stack)
    fine = np.isfinite(values) & np.isfinite(slopes).reshape(len(stack), -1).all(1)
    fine = fine.reshape(2, -1).all(0)
    if fine.all() or not fine[0]:
        return []
    first = sizes[~fine][0]
    line, name = edge(look, make, stack[np.flatnonzero(~fine)[0]])
    return [
        Finding(
            "numerical_instability",
            "note",
            line or look.loss_line,
            f"where the last layer gives {first:g} the loss or its gradient is not finite"
            + (f": {name} meets the edge of its domain" if name else ""),
            measured=f"finite up to {sizes[fine][-1]:g}",
            healthy="finite at 500",
            remedy="a loss of logits (optax.softmax_cross_entropy, "
            "optax.sigmoid_binary_cross_entropy), or jnp.clip(p, 1e-7, 1 - 1e-7)",
            confidence=0.6 if first <= 50 else 0.3,
        )
    ]


def binary(y: np.ndarray) -> bool:
    """Whether targets are zeros and ones alone."""
    return bool(np.isin(y, (0, 1)).all())


def edge(look: Look, make: Callable[[Any], Any], z: np.ndarray) -> tuple[str, str]:
    """Line and name of the first operation of the loss that gives something not finite."""
    traced = look.loss
    leaves = [make(z), *jax.tree.leaves(look.sample.y)]
    wanted = [op.outputs[0] for op in traced.operations]
    for op, value in zip(traced.operations, traced.evaluate(leaves, wanted), strict=True):
        if jnp.issubdtype(value.dtype, jnp.inexact) and not np.isfinite(value).all():
            return op.where, op.name
    return "", ""


def tables(look: Look) -> list[Finding]:
    """Rows of a table that are asked for and are not there."""
    subject = look.subject
    traced = look.sample.trace
    owners = [op for op, _, _ in products(traced) if op.name == "gather"]
    found = []
    for op in owners:
        numbers = op.equation.params["dimension_numbers"]
        sizes = op.equation.params["slice_sizes"]
        table = traced.shape(op.inputs[0])
        kept = [traced.paths[v] for v in traced.arguments[0] if op.inputs[0] in traced.reached([v])]
        limits = np.array([table[axis] - sizes[axis] for axis in numbers.start_index_map])
        apply = jax.jit(
            lambda x, place=op.inputs[1]: traced.evaluate(
                jax.tree.leaves((look.params, look.state, x, jax.random.key(0))), [place]
            )[0]
        )
        rows = len(look.sample.x)
        x = np.asarray(subject.train[0])
        asked = np.concatenate(
            [
                np.asarray(apply(x[i : i + rows])).reshape(-1, len(limits))
                for i in range(0, min(len(x), 256 * rows) - rows + 1, rows)
            ]
        )
        outside = float(((asked < 0) | (asked > limits)).any(1).mean())
        if outside:
            found.append(
                Finding(
                    "insufficient_capacity",
                    "fault",
                    op.where,
                    f"{outside:.1%} of the indices into {', '.join(kept)} lie outside its "
                    f"{table[0]} rows: they are clipped or become NaN without a word",
                    measured=f"indices {asked.min()} to {asked.max()}",
                    healthy=f"0 to {limits[0]}",
                    remedy=f"a table of {int(asked.max()) + 1} rows",
                    confidence=0.9,
                )
            )
    return found


CHECKS: dict[str, Callable[[Look], list[Finding]]] = {
    "results that are used nowhere": unused,
    "ways that a gradient does not pass": blocked,
    "something nonlinear between layers": between_layers,
    "outputs, targets and loss": answers,
    "running statistics": statistics,
    "random numbers": randomness,
    "rows of a batch by themselves": mates,
    "a loss that does not grow with the batch": batch_scale,
    "the direction of the updates": optimizer,
    "guards of logarithms, roots and divisions": guards,
    "indices into tables": tables,
}
