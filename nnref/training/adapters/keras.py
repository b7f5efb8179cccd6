"""Models of Keras 3 on JAX: their variables by path."""

import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import keras

from nnref.errors import UserError
from nnref.training.adapters.keras_compiled import compiled_loss, training_of
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
    moded = "training" in inspect.signature(model.call).parameters

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
        mode = {"training": train} if moded else {}  # as `fit` does
        outputs, after = model.stateless_call(values, rest, x, **mode)
        return outputs, [v for v, is_seed in zip(after, seeds, strict=True) if not is_seed]

    regularized = [(v.path, v.regularizer) for v in trained if v.regularizer is not None]

    def penalty(params: Tree) -> Any:
        return sum(regularizer(params[name]) for name, regularizer in regularized)

    return Network(
        init,
        apply,
        random=any(seeds),
        modes=moded and bool(others),
        whole=lambda params, state: params,
        loss=compiled_loss(model),
        penalty=penalty if regularized else None,
        training=training_of(model, x),
    )
