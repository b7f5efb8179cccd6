"""The network before its first step: signal and gradient by layer, units, outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.program.layers import Layer, activations, forward
from nnref.diagnosis.program.tracing import name_of, trace
from nnref.diagnosis.recipe import Recipe

ROWS = 256  # that a measure of activations looks at
LARGEST = 2**22  # numbers of an array for which a loss holds rows against each other
STEEP = 3.0  # times as many of them for twice the rows: more than in proportion


@dataclass(frozen=True)
class Level:
    """What one layer gives, over rows (and places) and units."""

    units: int
    size: float  # root mean square
    dead: float  # share of units that no row activates: exactly 0 for each
    saturated: float  # share of units whose slope is lost: the activation is still, its input not


@dataclass(frozen=True)
class Snapshot:
    """What is seen of the network at some parameters, without a step."""

    levels: tuple[Level, ...]  # of each layer, the outputs' last
    gradients: tuple[float, ...]  # root mean square of each layer's kernel gradient
    kernels: tuple[float, ...]  # root mean square of each layer's kernel
    loss: float
    outputs: Any  # one array with the rows first, or a tree of arrays
    times: tuple[float, ...] = ()  # of sequences: the gradient of the loss in each place of a row


def level_of(before: np.ndarray, after: np.ndarray) -> Level:
    """Describe one level; axes before the last are rows and places.

    Where pre-activation and activation have different shapes, as behind a pooling, slopes are not
    known, and no unit counts as saturated.
    """
    before = before if before.size == after.size else after
    units = after.shape[-1] if after.ndim > 1 else 1
    flat, moved = (np.asarray(part, np.float64).reshape(-1, units) for part in (after, before))
    with np.errstate(all="ignore"):
        slopes = flat.std(0) / np.maximum(moved.std(0), 1e-30)
        size = np.sqrt(np.mean(flat**2))
        return Level(
            units, float(size), float((~flat.any(0)).mean()), float((slopes < 1e-2).mean())
        )


def leaf_index(params: Any) -> dict[str, int]:
    """The place of each leaf of the parameters, by its path as layers name it."""
    return {name_of(path): i for i, (path, _) in enumerate(jax.tree.leaves_with_path(params))}


def looked_at(recipe: Recipe) -> np.ndarray:
    """Which of the training rows a look at the network sees."""
    many = recipe.rows or rows_at_once(recipe)
    return np.random.default_rng(0).permutation(len(recipe.train[0]))[:many]


def rows_at_once(recipe: Recipe) -> int:
    """`ROWS`, or fewer, where a loss holds each row against all others, or against pairs of them.

    A loss of all triplets of a batch keeps the cube of its rows.
    """

    def largest(rows: int) -> int:
        x, y = (part[:rows] for part in recipe.train)

        def outputs(key: Any) -> Any:
            return recipe.apply(*recipe.init(key), x, key, True)[0]

        traced = trace(recipe.loss, jax.eval_shape(outputs, jax.random.key(0)), y)
        return max(map(traced.size, range(len(traced.avals))))

    rows = ROWS
    while rows > recipe.batch_size and (size := largest(rows)) > LARGEST:
        if size < STEEP * largest(rows // 2):
            break
        rows //= 2
    return rows


def at_tokens(
    recipe: Recipe, layers: Sequence[Layer], params: Any, state: Any, x: Any, y: Any
) -> list[Any]:
    """The gradient of the loss in each embedded token, (rows, steps, width), if there are any."""
    tables = [layer for layer in layers if layer.kind == "gather" and len(layer.shape) == 3]
    if not tables or x.ndim != 2:
        return []
    traced, embedded = forward(recipe, params, state, x), tables[0].product
    leaves = jax.tree.leaves((params, state, x, jax.random.key(0)))

    def loss(vectors: Any) -> Any:
        results = traced.evaluate(leaves, traced.outputs, {embedded: vectors})
        outputs, _ = jax.tree.unflatten(jax.tree.structure(traced.result), results)
        return jnp.asarray(recipe.loss(outputs, y), jnp.float32)

    return [jax.grad(loss)(*traced.evaluate(leaves, [embedded]))]


def watcher(recipe: Recipe, layers: Sequence[Layer]) -> Callable[[Any, Any], Snapshot]:
    """`look(params, state)`, compiled once: the network on rows of the training data."""
    chosen = looked_at(recipe)
    x, y = jnp.asarray(recipe.train[0][chosen]), jnp.asarray(recipe.train[1][chosen])

    def seen(params: Any, state: Any) -> Any:
        def objective(params: Any, x: Any) -> Any:
            outputs, _ = recipe.apply(params, state, x, jax.random.key(0), True)
            return jnp.asarray(recipe.loss(outputs, y), jnp.float32)

        # Of a table or an image the gradient of the inputs says nothing about depth.
        sequences = x.ndim == 3 and jnp.issubdtype(x.dtype, jnp.floating)
        at = (0, 1) if sequences else (0,)
        loss, (gradient, *rest) = jax.value_and_grad(objective, at)(params, x)
        rest += at_tokens(recipe, layers, params, state, x, y)
        places = [jnp.sqrt(jnp.mean(part**2, (0, *range(2, part.ndim)))) for part in rest]
        outputs, _ = recipe.apply(params, state, x, None, False)
        return activations(recipe, params, state, x), outputs, loss, gradient, places

    compiled = jax.jit(seen)

    def look(params: Any, state: Any) -> Snapshot:
        levels, outputs, loss, gradient, times = jax.device_get(compiled(params, state))
        at = leaf_index(params)
        places = [at[layer.parameters[0]] for layer in layers]
        leaves, kernels = jax.tree.leaves(gradient), jax.device_get(jax.tree.leaves(params))

        def size(leaf: Any) -> float:
            return float(np.sqrt(np.mean(np.asarray(leaf, np.float64) ** 2)))

        return Snapshot(
            tuple(level_of(np.asarray(before), np.asarray(after)) for before, after in levels),
            tuple(size(leaves[place]) for place in places),
            tuple(size(kernels[place]) for place in places),
            float(loss),
            jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), outputs),
            tuple(map(float, times[0])) if times else (),
        )

    return look
