"""Models of Keras 3 on JAX: their variables by path, and what they were compiled with."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import optax

from nnref.errors import UserError
from nnref.internals import keras_loss
from nnref.training.adapters.network import Network, Tree

SEED = "seed_generator_state"


def keras_network(model: Any, x: Any) -> Network:
    """The network of a model, which keeps its weights: it starts as it was built.

    Raises:
        UserError: where Keras does not compute with JAX.
    """
    if keras.backend.backend() != "jax":
        raise UserError(
            f"model: Keras computes with {keras.backend.backend()} here; set the environment "
            "variable KERAS_BACKEND=jax before Keras is imported"
        )
    few = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2]), x)
    if not model.built:
        model(few)
    with keras.StatelessScope(collect_losses=True) as scope:
        model(few)
    if scope.losses:
        words = "losses that its layers add (add_loss, activity_regularizer) are left out"
        warnings.warn(f"model: {words}; they can be an output, and part of loss=", stacklevel=2)
    trained, others = model.trainable_variables, model.non_trainable_variables
    names = [variable.path for variable in trained]
    # A seed is no state: it comes from the key of a step, so that every seed of nnref has its own.
    seeds = [variable.path.endswith(SEED) for variable in others]

    def init(key: Any) -> tuple[Tree, Tree]:
        kept = [v.value for v, is_seed in zip(others, seeds, strict=True) if not is_seed]
        return dict(zip(names, (v.value for v in trained), strict=True)), kept

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        drawn = jax.random.key(0) if key is None else key
        kept = iter(state)
        rest = [
            jax.random.key_data(jax.random.fold_in(drawn, place)) if is_seed else next(kept)
            for place, is_seed in enumerate(seeds)
        ]
        values = [params[name] for name in names]
        outputs, after = model.stateless_call(values, rest, x, training=train)
        return outputs, [v for v, is_seed in zip(after, seeds, strict=True) if not is_seed]

    regularized = [(v.path, v.regularizer) for v in trained if v.regularizer is not None]

    def penalty(params: Tree) -> Any:
        return sum(regularizer(params[name]) for name, regularizer in regularized)

    return Network(
        init,
        apply,
        random=any(seeds),
        modes=bool(others),
        whole=lambda params, state: params,
        loss=compiled_loss(model),
        penalty=penalty if regularized else None,
        training=training_of(model, x),
    )


def compiled_loss(model: Any) -> Callable[[Any, Any], Any] | None:
    """`loss(outputs, y)` as the model was compiled with it; None where it was not."""
    asked = keras_loss(model)
    if asked is None:
        return None

    def loss(outputs: Any, y: Any) -> Any:
        with keras.StatelessScope():  # its running means are none of ours
            return asked(y, outputs)

    return loss


def training_of(model: Any, x: Any) -> dict[str, Any]:
    """How a model is trained: the optimizer it has, and the epochs and batches of its last fit."""
    found: dict[str, Any] = {}
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
