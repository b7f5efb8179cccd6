"""Where a run begins: the user's first network, and one drawn otherwise to compare it with."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.program.layers import Layer
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run.snapshot import leaf_index
from nnref.training import train
from nnref.training.task import Functions

Tree = Any


def first_network(recipe: Recipe, seed: int | None = None) -> tuple[Tree, Tree]:
    """Parameters and state before the first step, the same that `nnref run` starts from."""
    plan = recipe.plan._replace(stop=None)
    # Only the parts of an experiment fit a start to the rows, and a user's network may not take as
    # many at once as an evaluation has.
    data = {} if recipe.setup is None else {"train": tuple(map(jnp.asarray, recipe.train))}

    def setup(hyperparameters: Any) -> tuple[Functions, Any]:
        return recipe.build(hyperparameters)[0], optax.identity()  # no optimizer is asked yet

    def start(seed: Any, hyperparameters: Any, data: Any) -> tuple[Tree, Tree]:
        state, _ = train.start(setup, plan, hyperparameters, seed, data)
        return state.params, state.model_state

    # XLA rounds a fit to a batch (LSUV) differently without the axis of the runs.
    program = jax.jit(jax.vmap(start, in_axes=(0, None, None)))
    runs = program(
        jnp.uint32([recipe.seed if seed is None else seed]), dict(recipe.hyperparameters), data
    )
    return jax.tree.map(lambda leaf: leaf[0], runs)


def he_start(products: Sequence[Layer], network: tuple[Tree, Tree], seed: int) -> tuple[Tree, Tree]:
    """Parameters with kernels drawn as He et al. 2015 do, everything else as the user's.

    Square kernels inside a loop are drawn orthogonal, as what is multiplied by them again and
    again must keep its length; the rows of tables get unit length.
    """
    params, state = network
    leaves, tree = jax.tree.flatten(params)
    at = leaf_index(params)
    layers = {at[name]: layer for layer in products for name in layer.parameters}
    random = np.random.default_rng(seed)
    drawn = []
    for i, leaf in enumerate(leaves):
        if leaf.ndim >= 2:
            layer = layers.get(i)
            values = random.normal(size=leaf.shape)
            if layer is not None and layer.kind == "gather":
                values /= np.sqrt(leaf.shape[-1])
            elif layer is not None and layer.looped and leaf.shape == leaf.shape[:1] * 2:
                values, _ = np.linalg.qr(values)
            else:
                fan_in = layer.fan_in if layer else int(np.prod(leaf.shape[:-1]))
                values *= np.sqrt(2 / max(fan_in, 1))
            leaf = jnp.asarray(values, leaf.dtype)
        drawn.append(leaf)
    return jax.tree.unflatten(tree, drawn), state
