"""Modules of Equinox: arrays apart from the rest, and the call of one row mapped over many."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from nnref.errors import UserError
from nnref.training.adapters.arguments import called, inputs_of, roles_of, words
from nnref.training.adapters.network import Network, Tree


def equinox_network(build: Callable[[Any], Any], x: Any) -> Network:
    """The network of what `build(key)` gives: a module, or a module and its `eqx.nn.State`.

    Its arrays of fractions are the parameters; all other arrays, and those of its state, are the
    state. What is no array is the same for every key.
    """
    rest: list[Any] = []  # how the state is built, and what is no array

    def init(key: Any) -> tuple[Tree, Tree]:
        built = build(key)
        module, own = built if isinstance(built, tuple) else with_state(built)
        params, further = eqx.partition(module, eqx.is_inexact_array)
        arrays, others = eqx.partition((further, own), eqx.is_array)
        rest[:] = jax.tree.structure(arrays), others
        return params, tuple(jax.tree.leaves(arrays))

    def merge(params: Tree, state: Tree) -> tuple[Any, Any]:
        """The module, and its own state or None."""
        structure, others = rest
        further, own = eqx.combine(jax.tree.unflatten(structure, state), others)
        return eqx.combine(params, further), own

    shapes = jax.eval_shape(init, jax.random.key(0))
    module, own = merge(*shapes)
    left = () if jax.tree.leaves(own) else ("state",)  # of layers that have none
    passed = roles_of(module, ("x",), "the module's __call__", inputs_of(module, 0, x), left)
    roles = words(passed)
    names = [layer.axis_name for layer in layers_with(module, "axis_name")]
    axis = names[0] if names else "batch"

    def network(by_row: bool) -> Callable[..., tuple[Any, Tree]]:
        def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
            module, before = merge(params, state)
            module = module if train else eqx.nn.inference_mode(module)

            def call(x: Any, key: Any) -> tuple[Any, Tree]:
                values = {"x": x, "key": key, "train": train, "evaluate": not train}
                made = called(module, passed, values | {"state": before})
                return made if "state" in roles else (made, before)

            drawn = jax.random.key(0) if key is None else key
            if by_row:
                keys = jax.random.split(drawn, len(jax.tree.leaves(x)[0]))
                outputs, after = jax.vmap(call, out_axes=(0, None), axis_name=axis)(x, keys)
            else:
                outputs, after = call(x, drawn)
            leaves = jax.tree.leaves(after)
            return outputs, (*state[: len(state) - len(leaves)], *leaves)

        return apply

    by_row, whole = network(by_row=True), network(by_row=False)
    return Network(
        init,
        whole if not takes(by_row, shapes, x) and takes(whole, shapes, x) else by_row,
        random="key" in roles,
        modes=bool(layers_with(module, "inference") or roles & {"train", "evaluate"}),
        whole=lambda params, state: merge(params, state)[0],
        in_evaluation=layers_in_evaluation(module),
    )


def with_state(module: Any) -> tuple[Any, Any]:
    """A module as it was built, and the state of its layers, which `make_with_state` takes out.

    Raises:
        UserError: for a module whose state was taken out before.
    """
    try:
        return eqx.nn.make_with_state(lambda: module)()
    except ValueError:
        raise UserError(
            "model: its layers have a state that was taken out of it; give both, "
            "model=(model, state), as eqx.nn.make_with_state gives them"
        ) from None


def layers_in_evaluation(module: Any) -> tuple[str, ...]:
    """The layers that were built with `inference=True`, but for dropout that drops nothing."""
    layers = [each for each in layers_with(module, "inference") if each.inference is True]
    return tuple(type(layer).__name__ for layer in layers if getattr(layer, "p", 1))


def takes(apply: Callable[..., Any], network: Any, x: Any) -> bool:
    """Whether a network takes these rows; what it raises is told where it is trained."""
    few = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2]), x)
    try:
        jax.eval_shape(lambda p, s: apply(p, s, few, jax.random.key(0), True), *network)
    except Exception:  # whatever the user's module raises
        return False
    return True


def layers_with(module: Any, name: str) -> list[Any]:
    """The modules within a module that have an attribute of this name."""
    nodes = jax.tree.leaves(module, is_leaf=lambda node: hasattr(node, name))
    return [node for node in nodes if hasattr(node, name)]
