"""Probes: what happens inside a network while it trains, measured within the program.

A row of measures has one figure for each layer. Layers are the modules that a model itself calls;
arrays of plain functions are grouped by where they lie in `params`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nnref.parts.activations import RANGES, function_of

Array = jax.Array
Tree = Any

OF_STEP = {
    "gradient_norm": "norm of the gradient of the loss",
    "weight_norm": "norm of the parameters",
    "update_ratio": "norm of the update over that of the parameters; about 1e-3 is usual",
}
OF_OUTPUTS = {
    "dead": "share of units that give the same for every row",
    "saturated": "share of outputs within 1 % of the end of their activation's range",
}
MEASURES = OF_STEP | OF_OUTPUTS
NEAR_THE_END = 0.01  # of the range of an activation
MOST = 100  # epochs that are measured, evenly spread over a run
FREE = 100  # steps for each measurement, which costs as much as 2 to 4 of them: below 5 %


class LayerCall(NamedTuple):
    """A call of a layer."""

    module: nnx.Module
    outputs: Tree


@contextmanager
def recorded_calls(model: nnx.Module, calls: dict[str, LayerCall]) -> Iterator[None]:
    """While this is open, each call of a layer of `model` is recorded in `calls`, by its path.

    The operations of a layer also carry its path as their name scope. A layer within another one
    counts as part of it. `nnx.tabulate` records calls in the same way, but compiles each layer and
    leaves out what loops call: until the context closes, `__call__` of every module class of the
    model, and of its base classes, is replaced by one that records. Classes belong to the whole
    process, so that two threads must not trace models at the same time.
    """
    paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(model)}
    kinds = {kind for _, module in nnx.iter_modules(model) for kind in type(module).__mro__}
    own = {kind: vars(kind)["__call__"] for kind in kinds if "__call__" in vars(kind)}
    open_calls: list[str] = []

    def noting(call: Any) -> Any:
        def noted(module: nnx.Module, *arguments: Any, **named: Any) -> Any:
            path = paths.get(id(module))
            if not path or open_calls:  # not a layer, the model itself, or within a layer
                return call(module, *arguments, **named)
            open_calls.append(path)
            try:
                with jax.named_scope(path):
                    outputs = call(module, *arguments, **named)
            finally:
                open_calls.pop()
            calls[path] = LayerCall(module, outputs)
            return outputs

        return noted

    for kind, call in own.items():
        setattr(kind, "__call__", noting(call))  # noqa: B010
    try:
        yield
    finally:
        for kind, call in own.items():
            setattr(kind, "__call__", call)  # noqa: B010


def called_layers(
    layers: Callable[[Tree, Tree, Array], Mapping[str, LayerCall]] | None,
    params: Tree,
    model_state: Tree,
    x: Any,
) -> list[str]:
    """The names of the layers that a model calls, of `Functions.layers`; nothing is computed."""
    names: list[str] = []
    if layers is not None:
        jax.eval_shape(lambda *arrays: names.extend(layers(*arrays)), params, model_state, x)
    return names


def owner(path: str, layers: Iterable[str]) -> str | None:
    """The innermost of the layers whose path is a prefix of an array's path; None without one."""
    parts = path.split(".")
    heads = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((head for head in heads if head in layers), None)


def owners(params: Tree, layers: Sequence[str]) -> list[str]:
    """The layer of each array of `params`; without one, the branch of the tree that it lies on."""
    names = []
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        names.append(owner(name, layers) or name.rpartition(".")[0] or "parameters")
    return names


def layer_names(params: Tree, layers: Sequence[str]) -> list[str]:
    """The layers that have parameters, in the order of the calls, then all other branches."""
    owning = owners(params, layers)
    return list(dict.fromkeys([*(name for name in layers if name in owning), *owning]))


class StepParts(NamedTuple):
    """One step of training, as it is measured before its updates are applied."""

    params: Tree  # before the step
    outputs: Tree
    loss: Array  # without the penalty
    penalty: Any
    gradient: Tree  # of loss and penalty together
    updates: Tree  # what is added to `params`


def squares(tree: Tree) -> list[Array]:
    """The squared Euclidean norm of each array."""
    return [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)]


def norms(tree: Tree, layers: Sequence[str]) -> Array:
    """The Euclidean norm of the arrays of each layer, (layers,)."""
    names = layer_names(tree, layers)
    of_layers: dict[str, Any] = dict.fromkeys(names, 0.0)
    for name, square in zip(owners(tree, layers), squares(tree), strict=True):
        of_layers[name] += square
    return jnp.sqrt(jnp.stack(list(of_layers.values())))


def leaf_norms(tree: Tree) -> Array:
    """The Euclidean norm of each array in single precision, (arrays,)."""
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
    return jnp.sqrt(jnp.stack(squares(single)))


def inner_products(step: StepParts) -> Array:
    """The inner product of update and gradient of each array, in single precision, (arrays,)."""
    products = jax.tree.map(
        lambda u, g: jnp.vdot(u.astype(jnp.float32), g.astype(jnp.float32)),
        step.updates,
        step.gradient,
    )
    return jnp.stack(jax.tree.leaves(products))


def update_gradient_cosine(step: StepParts) -> Array:
    """The cosine of the angle between all updates and the whole gradient: -1 descends straight."""
    lengths = (jnp.linalg.norm(leaf_norms(tree)) for tree in (step.updates, step.gradient))
    return inner_products(step).sum() / jnp.maximum(math.prod(lengths), 1e-30)


def leaf_cosines(step: StepParts) -> Array:
    """The same of each array alone, (arrays,); 0 where its update or its gradient is 0."""
    lengths = leaf_norms(step.updates) * leaf_norms(step.gradient)
    return inner_products(step) / jnp.maximum(lengths, 1e-30)


def update_ratio(update: Any, weight: Any, least: float = 0.0) -> Any:
    """The norm of an update over the norm of the parameters, which counts as `least` at least.

    Biases start at 0, and so may a layer: then any update is infinitely large.
    """
    return update / weight.clip(least)


def all_finite(*trees: Tree) -> Array:
    """Of each tree, whether all of its numbers are finite, (trees,)."""

    def finite(tree: Tree) -> Array:
        return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))

    return jnp.stack([finite(tree) for tree in trees])


def of_step(step: StepParts, layers: Sequence[str]) -> Array:
    """The measures of one step, (OF_STEP, layers), of the layers that the model calls."""
    gradient, weight, update = (
        norms(tree, layers) for tree in (step.gradient, step.params, step.updates)
    )
    return jnp.stack([gradient, weight, update_ratio(update, weight)])


def of_outputs(params: Tree, calls: Mapping[str, LayerCall]) -> Array:
    """The measures of what layers give for a batch, (OF_OUTPUTS, layers).

    NaN where a layer is not called as one, or its activation has no two ends.
    """
    shares = []
    for name in layer_names(params, list(calls)):
        if name not in calls:
            shares.append(jnp.full(len(OF_OUTPUTS), jnp.nan))
            continue
        module, outputs = calls[name]
        h = max(jax.tree.leaves(outputs), key=lambda leaf: leaf.size)
        shares.append(jnp.stack([dead(h), saturated(h, getattr(module, "activation", None))]))
    return jnp.stack(shares, axis=1)


def dead(h: Array) -> Array:
    """Share of units, the last axis, that give the same for every row, pixel and step."""
    h = h.reshape(-1, h.shape[-1])
    return jnp.mean(jnp.max(h, axis=0) == jnp.min(h, axis=0))


def saturated(h: Array, activation: Any) -> Array:
    """Share of outputs near an end of the range of their activation, NaN where it has not two."""
    ends = RANGES.get(function_of(activation))
    if ends is None:
        return jnp.float32(jnp.nan)
    low, high = ends
    margin = NEAR_THE_END * (high - low)
    return jnp.mean((h <= low + margin) | (h >= high - margin))


def stride(epochs: int, steps_per_epoch: int) -> int:
    """Epochs from one measurement to the next, so that they cost little and are not too many."""
    return max(-(-epochs // MOST), -(-FREE // steps_per_epoch))


def table(
    layers: Sequence[str],
    first: int,
    steps_per_epoch: int,
    at: np.ndarray,
    of_epochs: np.ndarray,
    of_steps: np.ndarray | None = None,
) -> np.ndarray:
    """The measures of some epochs of one run as a table, a row for each step that was measured.

    Args:
        layers: their names.
        first: number of the first epoch, from 1.
        steps_per_epoch: of the run.
        at: numbers of the epochs before which layers were measured, (n,).
        of_epochs: what was measured then, (n, OF_OUTPUTS or MEASURES, layers).
        of_steps: measures of each step, (epochs, steps, OF_STEP, layers).

    Returns:
        A structured array with "step", the steps taken before, "epoch", the same in epochs, and a
        field for each layer, in which there is one for each of MEASURES, NaN where unknown.
    """
    steps = (at - 1) * steps_per_epoch
    figures = of_epochs
    if of_steps is not None:
        epochs = len(of_steps)
        steps = (first - 1) * steps_per_epoch + np.arange(epochs * steps_per_epoch)
        figures = np.full((epochs, steps_per_epoch, len(MEASURES), len(layers)), np.nan)
        figures[:, :, : len(OF_STEP)] = of_steps
        figures[at - first, 0, len(OF_STEP) :] = of_epochs
        figures = figures.reshape(len(steps), len(MEASURES), len(layers))
    of_layer = [(measure, "<f4") for measure in MEASURES]
    kind: Any = [("step", "<i8"), ("epoch", "<f8"), *((layer, of_layer) for layer in layers)]
    rows: Any = np.empty(len(steps), kind)
    rows["step"], rows["epoch"] = steps, steps / steps_per_epoch
    # All further fields at once: they are float32 without a gap, the measures of the first layer
    # before those of the second.
    numbers = rows.view("<f4").reshape(len(steps), rows.itemsize // 4)
    numbers[:, 4:] = figures.swapaxes(1, 2).reshape(len(steps), len(MEASURES) * len(layers))
    return rows


def spread_rows(rows: int, count: int) -> np.ndarray:
    """`count` row numbers, evenly apart, because rows may be sorted by class."""
    return np.arange(count) * rows // count
