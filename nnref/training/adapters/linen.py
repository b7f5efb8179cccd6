"""Modules of Flax Linen: `module.init` and `module.apply`, their collections being the state."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.errors import InvalidRngError

from nnref.training.adapters.arguments import called, inputs_of, roles_of, words
from nnref.training.adapters.network import Network, Tree


def linen_network(model: linen.Module, x: Any) -> Network:
    """The network of a module; x are rows, for its shapes."""
    passed = roles_of(model.__call__, ("x",), "the module's __call__", inputs_of(model, 0, x))
    roles = words(passed)

    def run(method: Any, x: Any, key: Any, train: bool) -> Any:
        drawn = jax.random.key(0) if key is None else key
        values = {"x": x, "key": drawn, "train": train, "evaluate": not train}
        return called(method, passed, values)

    def init(key: Any) -> tuple[Tree, Tree]:
        first, second = jax.random.split(key)
        few = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2]), x)

        def method(*inputs: Any, **named: Any) -> Any:
            return model.init({"params": first, "dropout": second}, *inputs, **named)

        made = dict(run(method, few, None, False))
        return made.pop("params", {}), made

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        variables = {"params": params, **state}

        def method(rngs: Any) -> Any:
            def apply(*inputs: Any, **named: Any) -> Any:
                return model.apply(variables, *inputs, rngs=rngs, mutable=list(state), **named)

            return run(apply, x, key, train)

        if key is not None:  # a stream that is not named here draws from "params"
            outputs, after = method({"dropout": key, "params": jax.random.fold_in(key, 1)})
        else:
            outputs, after = evaluated(method)
        return outputs, dict(after) if train else state

    return Network(init, apply, random=True, modes=bool(roles & {"train", "evaluate"}))


def evaluated(method: Any) -> Any:
    """A call without random numbers; a network that samples in evaluation too has one key for it.

    Dropout that nobody has turned off is not helped: it is a mistake in a user's own loop as well.
    """
    try:
        return method(None)
    except InvalidRngError as error:
        if '"dropout"' in str(error):
            raise
        return method({"params": jax.random.key(0)})
