"""What reaches what: results that are not used, gradients that stop, layers that are one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.program.at_start import Look, LossLook
from nnref.diagnosis.program.layers import Layer, affine, bends, products
from nnref.diagnosis.program.tracing import COMPARISONS, Operation, Trace
from nnref.diagnosis.recipe import Subject

# What a gradient does not pass.
STEPS = {"round", "floor", "ceil", "sign", "argmax", "argmin"}


def unused(look: Look | LossLook) -> list[Finding]:
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


def blocked(look: Look | LossLook) -> list[Finding]:
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
    params, state, x, y = look.given

    def objective(params: Any) -> Any:
        return look.objective(params, state, x, y, jax.random.key(0))[0]

    slopes = jax.tree.leaves(jax.jit(jax.grad(objective))(params))
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
    entrance = {op.outputs[0]: entering for op, entering, *_ in products(traced)}
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
