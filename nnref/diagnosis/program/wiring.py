"""Dependence in the traced program: unused results, layers that are one."""

from collections.abc import Iterator

import numpy as np

from nnref.diagnosis.data.leaks import squares
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.layers import Layer, affine, bends, products
from nnref.diagnosis.program.tracing import COMPARISONS, Operation, Trace
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.thresholds import bound

HELD_OUT = 20  # rows: with fewer, none are held out to compare fits


def unused(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Results that reach neither the loss nor the new state, and parameters that reach nothing."""
    traced = start.training
    needed = traced.needed(traced.outputs)
    dropped: set[int] = set()  # parameters of the results below
    for end, parameters, bent in unused_results(traced, needed):
        line = line_that_drops(traced, needed, end)
        parameters = parameters - dropped
        if parameters:
            dropped |= parameters
            names, line = named(traced, parameters), line or end.where
            yield fault(
                "parameters_not_updated",
                line,
                f"the result of {line} is used nowhere, and with it {names}",
                "result unused",
                healthy="every layer's result is used",
                remedy=f"feed the result of {line} to the next layer, or delete the layer",
                confidence=0.9,
            )
        elif line and bent:
            yield note(
                "hidden_activation_missing",
                line,
                f"the result of {line} ({bent}) is used nowhere",
                "result unused",
                healthy="every result is used",
                remedy=f"assign the result of {line} to what is used below it",
                confidence=0.7,
            )
    never = set(traced.arguments[0]) - needed - dropped
    if never:
        names = named(traced, never)
        yield note(
            "parameters_not_updated",
            names,
            f"{names}: no result that is used depends on it",
            healthy="every layer's result is used",
            remedy="call the layer, or delete it",
            confidence=0.6,
        )
    if traced.arguments[2] and not needed & set(traced.arguments[2]):
        yield fault(
            "no_signal",
            start.last,
            "the outputs do not depend on the inputs: no operation leads from one to the other",
            "no path",
            healthy="a path from the inputs to the loss",
            remedy="feed x to the first layer",
        )


def named(traced: Trace, parameters: set[int]) -> str:
    """The paths of some parameters."""
    return ", ".join(sorted(traced.paths[parameter] for parameter in parameters))


def unused_results(traced: Trace, needed: set[int]) -> Iterator[tuple[Operation, set[int], str]]:
    """Each last operation whose result is used nowhere.

    With it the parameters that lead to it alone, and the first nonlinear operation before it.
    """
    data = traced.reached(traced.arguments[2])
    dead = [
        op
        for op in traced.operations
        if not data.isdisjoint(op.outputs) and needed.isdisjoint(op.outputs)
    ]
    read = {value for op in dead for value in op.inputs}
    for end in reversed(dead):
        if read.isdisjoint(end.outputs):
            before = traced.needed(end.outputs)
            cone = [op for op in dead if not before.isdisjoint(op.outputs)]
            bent = [op.name for op in cone if bends(op, data) and op.name not in COMPARISONS]
            yield end, set(traced.arguments[0]) & before - needed, bent[0] if bent else ""


def line_that_drops(traced: Trace, needed: set[int], end: Operation) -> str:
    """The line that drops the result of an operation; "" where all lines have other results.

    The outermost first: a function that others call, too, does not drop its result itself.
    """
    data = traced.reached(traced.arguments[2])
    alive = {
        line
        for op in traced.operations
        if not data.isdisjoint(op.outputs) and not needed.isdisjoint(op.outputs)
        for line in op.frames
    }
    return next((line for line in reversed(end.frames) if line not in alive), "")


# What stands between layers


def between_layers(start: AtStart) -> Iterator[Finding]:
    """Layers with nothing nonlinear between them."""
    traced = start.sample.trace
    data = traced.reached(traced.arguments[2])
    layers = [each for each in start.sample.layers if not each.looped and each.kind != "gather"]
    entrance = {op.outputs[0]: entering for op, entering, *_ in products(traced)}
    pairs = affine_pairs(traced, layers, entrance, data)
    if not pairs:
        return
    needed = traced.needed(traced.outputs)
    flow = data & traced.needed([layers[-1].before])
    whole = all(
        affine(op, flow, set()) for op in traced.operations if flow & set(op.outputs) & needed
    )
    if whole:
        yield collapsed(start, pairs)
        return
    for upper, lower in [pair for pair in pairs if not squeezes(traced, entrance, *pair)][:1]:
        yield note(
            "hidden_activation_missing",
            upper.place,
            f"nothing nonlinear stands between {upper.name} and {lower.name}: together they are "
            "one affine layer",
            "affine",
            remedy=f"x = jax.nn.relu(x) between {upper.name} and {lower.name}",
            confidence=0.5,
        )


def affine_pairs(
    traced: Trace, layers: list[Layer], entrance: dict[int, int], data: set[int]
) -> list[tuple[Layer, Layer]]:
    """Layers that follow each other by affine operations alone.

    `entrance` is the value of the data that enters each product.
    """
    own = {layer.product for layer in layers}
    consumers, needed = traced.consumers(), traced.needed(traced.outputs)

    def together(upper: Layer, lower: Layer) -> bool:
        if upper.product >= lower.product:
            return False
        enters = entrance[lower.product]
        path = traced.reached([upper.product]) & traced.needed([enters])
        between = [
            op for op in traced.operations if path & set(op.outputs) and path & set(op.inputs)
        ]
        if enters not in path or any(own & set(op.outputs) for op in between):
            return False
        # What is added to, or goes on beside, is no layer too many: a residual, queries and keys.
        beside = any(value in data - path for op in between for value in op.inputs)
        apart = any(
            op.outputs[0] not in path and op.outputs[0] != lower.product and needed & {*op.outputs}
            for value in path
            for op in consumers.get(value, ())
        )
        if beside or apart:
            return False
        return all(affine(op, path, data) for op in between)

    return [(upper, lower) for upper in layers for lower in layers if together(upper, lower)]


def squeezes(traced: Trace, entrance: dict[int, int], upper: Layer, lower: Layer) -> bool:
    """Whether a layer is narrower than what it reads and what follows: a factor, and meant so."""

    def features(value: int) -> int:
        return traced.size(value) // max(traced.shape(value)[0], 1)

    middle = features(upper.product)
    return middle < min(features(entrance[upper.product]), features(lower.product))


def collapsed(start: AtStart, pairs: list[tuple[Layer, Layer]]) -> Finding:
    """A whole network that is affine in its inputs: a fault where a curved fit does better."""
    straight, curved = fits(start.recipe)
    misses = curved - straight > bound("curved")
    names = " -> ".join(dict.fromkeys(layer.name for pair in pairs for layer in pair))
    first = pairs[0][0]
    return (fault if misses else note)(
        "hidden_activation_missing",
        first.place,
        f"nothing nonlinear stands between {names}: the network is one affine map; on held-out "
        f"rows an affine fit explains {max(straight, 0):.0%} of the targets, a curved one "
        f"{max(curved, 0):.0%}",
        f"{max(straight, 0):.2f} of the variance",
        healthy=f"{max(curved, 0):.2f}",
        remedy=f"x = jax.nn.relu(x) after {first.name}",
        confidence=0.8 if misses else 0.5,
    )


def fits(recipe: Recipe, rows: int = 600) -> tuple[float, float]:
    """Share of the variance of held-out targets that an affine and a curved fit explain.

    Ridge regression, and kernel ridge regression with Gaussian kernels of three widths; the
    strength of the penalty is the one that does best.
    """
    x, y = (np.asarray(part, np.float64) for part in recipe.train)
    chosen = np.random.default_rng(0).permutation(len(x))[:rows]
    x = x.reshape(len(x), -1)[chosen]
    y = y.reshape(len(y), -1)[chosen, :16]
    if y.shape[1] == 1 and recipe.kind == "multiclass":
        y = (y == np.unique(y)).astype(float)
    if len(x) < HELD_OUT:  # none are held out: can an affine map fit the rows at all?
        design = np.c_[x, np.ones(len(x))]
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        fitted = 1 - float(residual.var() / max(y.var(), 1e-30))
        return fitted, 1.0 if fitted < bound("affine") and len(np.unique(x, axis=0)) == len(
            x
        ) else fitted
    half = 2 * len(x) // 3
    deviation = x[:half].std(0)
    x = (x - x[:half].mean(0)) / np.where(deviation > 0, deviation, 1)
    y = y - y[:half].mean(0)
    affine_kernel = x @ x.T / x.shape[1] + 1
    distances = ((x[:, None] - x[None]) ** 2).sum(-1) if x.shape[1] < 20 else squares(x, x)
    typical = max(float(np.median(distances)), 1e-12)
    curved_kernels = [np.exp(-distances / (typical * width)) for width in (0.03, 0.3, 3.0)]
    variance = max(float((y[half:] ** 2).mean()), 1e-30)

    def share(kernel: np.ndarray) -> float:
        best = -np.inf
        for penalty in (1e-6, 1e-3, 1e-1, 1.0):
            inner = kernel[:half, :half] + penalty * np.eye(half)
            residual = y[half:] - kernel[half:, :half] @ np.linalg.solve(inner, y[:half])
            best = max(best, 1 - float((residual**2).mean()) / variance)
        return best

    return share(affine_kernel), max(share(kernel + affine_kernel) for kernel in curved_kernels)
