"""The same training with a piece of the program exchanged for one that is known to work.

What is exchanged says what was wrong: a network that learns with another loss had no wrong layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.data.targets import is_one_hot
from nnref.diagnosis.program.layers import Layer, forward, layers_of
from nnref.diagnosis.recipe import Recipe

Tree = Any
RATE = 1e-3  # of the optimizer that is known to work; ten times as much is tried beside it
BATCH = 32  # rows of a usual batch
WIDE = 64  # units that a layer of a network that is made wider has at least
PROBES = 4  # drawn outputs that two losses are compared on


def trusted_optimizer() -> Any:
    """Adam at 1e-3 behind a clip of the global norm at 1: what seldom fails."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE))


def with_trusted_optimizer(recipe: Recipe) -> Recipe:
    """The recipe under an optimizer that is known to work."""
    return replace(recipe, optimizer=trusted_optimizer(), setup=None, stop=None)


def trusted_loss(
    task: str, width: int, y: np.ndarray, weights: np.ndarray | None = None
) -> Callable[[Any, Any], Any] | None:
    """The loss of raw outputs that fits a task: a cross-entropy of classes, a squared error.

    Args:
        task: see `nnref.data.targets`.
        width: units of the last axis of the outputs, 1 where there is none.
        y: the training targets, (rows, ...).
        weights: of the classes, None where all weigh the same.

    Returns:
        The mean over rows, a function of outputs and targets; None where the outputs cannot say
        what is asked.
    """
    y = np.asarray(y)
    many = y.ndim > 1 and y.shape[-1] > 1
    middle = (float(y.min()) + float(y.max())) / 2
    if task == "places":
        one_hot = y.ndim > 2 and is_one_hot(y)

        def by_place(outputs: Any, y: Any) -> Any:
            labels = y.argmax(-1) if one_hot else y
            labels = labels.reshape(outputs.shape[:-1]).astype(int)
            each = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.maximum(labels, 0))
            counts = labels >= 0
            return jnp.sum(each * counts) / jnp.maximum(counts.sum(), 1)

        return by_place
    if task == "multiclass" or (task == "binary" and width == 2):
        classes = y.shape[-1] if many else int(y.max()) + 1
        if width < classes:
            return None

        def by_class(outputs: Any, y: Any) -> Any:
            labels = y.reshape(len(y), -1)
            labels = labels.argmax(-1) if many else labels[:, 0].astype(int)
            outputs = outputs.reshape(len(y), -1)
            each = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
            return jnp.mean(each if weights is None else each * jnp.asarray(weights)[labels])

        return by_class
    if task in ("binary", "multilabel"):

        def by_label(outputs: Any, y: Any) -> Any:
            above = y.reshape(outputs.shape) > middle
            each = optax.sigmoid_binary_cross_entropy(outputs, above.astype(outputs.dtype))
            weighs = weights is not None and task == "binary"
            return jnp.mean(each * jnp.asarray(weights)[above.astype(int)] if weighs else each)

        return by_label
    return lambda outputs, y: jnp.mean((outputs.reshape(y.shape) - y) ** 2)


def same_losses(one: Any, other: Any, outputs: np.ndarray, y: np.ndarray) -> bool:
    """Whether two losses have the same slopes on drawn outputs, up to one factor."""
    random = np.random.default_rng(0)
    drawn = random.uniform(0.1, 0.9, (PROBES, *outputs.shape)).astype(np.float32)
    slopes = []
    for loss in (one, other):
        gradient = jax.jit(jax.vmap(jax.grad(lambda o, f=loss: jnp.asarray(f(o, y)).sum())))
        slopes.append(np.asarray(gradient(drawn), np.float64).ravel())
    size = np.linalg.norm(slopes[0]) * np.linalg.norm(slopes[1])
    return bool(np.isfinite(size) and slopes[0] @ slopes[1] > (1 - 1e-4) * size > 0)


def with_raw_outputs(recipe: Recipe) -> Recipe:
    """The recipe whose outputs are the pre-activations of its last layer."""

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        traced = forward(recipe, params, state, x, train)
        cut = last_layer(traced).before
        leaves = jax.tree.leaves((params, state, x, jax.random.key(0) if key is None else key))
        values = traced.evaluate(leaves, [*traced.outputs, cut])
        _, state = jax.tree.unflatten(jax.tree.structure(traced.result), values[:-1])
        return values[-1], state

    return replace(recipe, apply=apply, setup=None, stop=None, metric=None)


# What a hidden activation that works is made of; silu is a logistic function times what it is of.
TRUSTED = {"max", "tanh", "erf", "erfc", "expm1", "log1p"}
SILU = ("logistic", "mul")


def untrusted(layers: Sequence[Layer]) -> list[Layer]:
    """The hidden layers whose activation is none of those that are known to work."""
    hidden = [layer for layer in layers if not layer.looped][:-1]
    return [
        layer
        for layer in hidden
        if layer.kind != "gather" and not layer.weighs and layer.primitives != SILU
        if TRUSTED.isdisjoint(layer.primitives)
    ]


def with_relu(recipe: Recipe) -> Recipe:
    """The recipe with ReLU for the hidden activations that are not known to work."""

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        traced = forward(recipe, params, state, x, train)
        leaves = jax.tree.leaves((params, state, x, jax.random.key(0) if key is None else key))
        exchanged: dict[int, Any] = {}
        for layer in untrusted(layers_of(traced)):
            (before,) = traced.evaluate(leaves, [layer.before], exchanged)
            exchanged[layer.after] = jax.nn.relu(before)
        values = traced.evaluate(leaves, traced.outputs, exchanged)
        return jax.tree.unflatten(jax.tree.structure(traced.result), values)

    return replace(recipe, apply=apply, setup=None, stop=None)


def with_usual_batches(recipe: Recipe) -> Recipe:
    """The recipe with as many rows in a batch as is usual."""
    return replace(recipe, batch_size=BATCH, setup=None, stop=None)


def last_layer(traced: Any) -> Layer:
    """The last layer of a traced network that has one value."""
    return [layer for layer in layers_of(traced) if not layer.looped][-1]


def plain_network(widths: list[int], factor: int, outputs: tuple[int, ...]) -> dict[str, Any]:
    """`init` and `apply` of ReLU layers of these widths times a factor, drawn as He et al. 2015 do.

    Args:
        widths: of the inputs, flat, and of the hidden layers.
        factor: that the hidden layers are wider by, and `WIDE` units at least if it is above 1.
        outputs: shape of the outputs of a row.
    """
    hidden = [factor * width for width in widths[1:]]
    hidden = [max(width, WIDE) for width in hidden] if factor > 1 else hidden
    sizes = [widths[0], *hidden, int(np.prod(outputs))]

    def init(key: Any) -> tuple[Tree, Tree]:
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        kernels = [jnp.sqrt(2 / a) * jax.random.normal(k, (a, b)) for k, a, b in pairs]
        return [(kernel, jnp.zeros(kernel.shape[1])) for kernel in kernels], {}

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        h = x.reshape(len(x), -1).astype(jnp.float32)
        for kernel, bias in params[:-1]:
            h = jax.nn.relu(h @ kernel + bias)
        kernel, bias = params[-1]
        return (h @ kernel + bias).reshape(len(x), *outputs), state

    return {"init": init, "apply": apply, "setup": None, "stop": None, "metric": None}
