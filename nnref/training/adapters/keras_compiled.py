"""What a Keras model was compiled with, and how it was fitted: loss, optimizer, metric, epochs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax

from nnref.internals import keras_loss, keras_metrics
from nnref.training.adapters.network import Tree

# Metrics of which 1 is a perfect answer and 0 a useless one, as they are named in Keras.
PERFECT_AT_1 = ("accuracy", "acc", "r2_score", "r2score", "auc", "f1_score", "f1score")


def compiled_loss(model: Any) -> Callable[[Any, Any], Any] | None:
    """`loss(outputs, y)` as the model was compiled with it; None where it was not."""
    asked = keras_loss(model)
    if asked is None:
        return None

    def loss(outputs: Any, y: Any) -> Any:
        if not asked.built:  # its variables are no values of the program that is traced
            like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (y, outputs))
            with jax.ensure_compile_time_eval():
                asked.build(*like)
        with keras.StatelessScope():  # its running means are none of ours
            return asked(y, outputs)

    return loss


def compiled_metric(model: Any) -> Callable[[Any, Any], Any] | None:
    """`metric(outputs, y)`: the first metric of a model of one output of which 1 is perfect."""
    asked, named = keras_metrics(model)
    names = [one if isinstance(one, str) else type(one).__name__ for one in named]
    fits = [n for n, name in enumerate(names) if name.lower().endswith(PERFECT_AT_1)]
    if not fits or len(getattr(model, "outputs", ())) != 1:
        return None

    def metric(outputs: Any, y: Any) -> Any:
        if not asked.built:
            asked.build(y, outputs)
        one = asked.metrics[fits[0]]
        with keras.StatelessScope():  # what it has counted so far is none of ours
            one.reset_state()
            one.update_state(y, outputs)
            return one.result()

    return metric


def training_of(model: Any, x: Any) -> dict[str, Any]:
    """How a model is trained: optimizer and metric, and the epochs and batches of its last fit."""
    found: dict[str, Any] = {}
    if (metric := compiled_metric(model)) is not None:
        found["metric"] = metric
    if getattr(model, "optimizer", None) is not None:
        found["optimizer"] = keras_optimizer(model.optimizer)
    fitted = getattr(getattr(model, "history", None), "params", None) or {}
    if fitted.get("epochs"):
        found["epochs"] = fitted["epochs"]
    if fitted.get("steps"):
        found["batch_size"] = -(-len(jax.tree.leaves(x)[0]) // fitted["steps"])
    return found


def keras_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """An optimizer of Keras as one of optax; the user's own keeps its variables."""
    ours = type(optimizer).from_config(optimizer.get_config())

    def init(params: Tree) -> Tree:
        if not ours.built:
            shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(params)]
            with jax.ensure_compile_time_eval():
                ours.build([keras.Variable(jnp.zeros(*shape)) for shape in shapes])
        return [variable.value for variable in ours.variables]

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        before = jax.tree.leaves(params)
        after, state = ours.stateless_apply(state, jax.tree.leaves(updates), before)
        moved = [new - old for new, old in zip(after, before, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(params), moved), state

    return optax.GradientTransformation(init, update)
