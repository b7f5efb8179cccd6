"""Networks of Haiku: what `transform` and `transform_with_state` give."""

from typing import Any

import jax

from nnref.internals import haiku_function, parameters_of
from nnref.training.adapters.arguments import called, inputs_of, roles_of, words
from nnref.training.adapters.network import Network, Tree


def haiku_network(model: Any, x: Any) -> Network:
    """The network of a pair of functions; x are rows, for its shapes."""
    function = haiku_function(model)
    passed = roles_of(function, ("x",), "the transformed function", inputs_of(function, 0, x))
    roles = words(passed)
    stateful = type(model).__name__ == "TransformedWithState"
    taken = parameters_of(model.apply) or []
    keyed = "rng" in [one.name for one in taken[1:3]]  # else behind hk.without_apply_rng

    def values(x: Any, train: bool) -> dict[str, Any]:
        return {"x": x, "train": train, "evaluate": not train}

    def init(key: Any) -> tuple[Tree, Tree]:
        def method(*inputs: Any, **named: Any) -> Any:
            return model.init(key, *inputs, **named)

        few = jax.tree.map(lambda leaf: leaf[:2], x)
        made = called(method, passed, values(few, True))
        return made if stateful else (made, {})

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        drawn = jax.random.key(0) if key is None else key  # some functions want one in evaluation
        first = (params, state) if stateful else (params,)
        first = (*first, drawn) if keyed else first

        def method(*inputs: Any, **named: Any) -> Any:
            return model.apply(*first, *inputs, **named)

        made = called(method, passed, values(x, train))
        return made if stateful else (made, {})

    return Network(init, apply, random=keyed, modes=bool(roles & {"train", "evaluate"}))
