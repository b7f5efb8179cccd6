"""A network of plain functions."""

from collections.abc import Callable
from typing import Any

import jax

from nnref.errors import UserError
from nnref.internals import parameters_of
from nnref.training.adapters.arguments import called, inputs_of, required, roles_of, words
from nnref.training.adapters.network import Network, Tree


def plain(init: Callable[..., Any], apply: Callable[..., Any], x: Any) -> Network:
    """A network of plain functions, as `Task` takes them; x are rows for an `init(key, x)`.

    Raises:
        UserError: for arguments that nnref cannot give.
    """
    begun = init_arguments(init, x)
    passed = roles_of(apply, ("params", "x"), "apply", inputs_of(apply, 1, x) | first(apply))
    roles = words(passed)
    stateful = "state" in roles

    def start(key: Any) -> tuple[Tree, Tree]:
        made = init(*begun(key))
        if not stateful:
            return made, {}
        if not isinstance(made, tuple) or len(made) != 2:
            raise UserError("init: apply takes a state, so init must give (params, state)")
        return made

    def forward(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        if key is None and "key" in roles:
            key = jax.random.key(0)  # evaluation draws nothing, and some functions want one still
        values = {"params": params, "state": state, "x": x, "key": key, "train": train}
        made = called(apply, passed, values | {"evaluate": not train})
        if not stateful:
            return made, {}
        if not isinstance(made, tuple) or len(made) != 2:
            raise UserError("apply takes a state, so it must give (outputs, state)")
        return made

    return Network(start, forward, "key" in roles, bool(roles & {"train", "evaluate"}))


def first(apply: Callable[..., Any]) -> dict[str, str]:
    """The role of the first argument, where Linen's word for the parameters stands for them."""
    names = [one.name for one in parameters_of(apply) or []]
    return {"variables": "params"} if names[:1] == ["variables"] else {}


def init_arguments(init: Callable[..., Any], x: Any) -> Callable[[Any], list[Any]]:
    """The arguments of an `init` for a key: nothing, the key, or the rows of each input as well.

    Raises:
        UserError: where it takes something else.
    """
    names, several = required(init), x if isinstance(x, tuple) else ()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters_of(init) or []):
        return lambda key: [key, *(several or [x])]
    if len(names) < 3:
        return lambda key: [key, x][: len(names)]
    if isinstance(x, dict) and set(names[1:]) <= set(x):
        return lambda key: [key, *(x[name] for name in names[1:])]
    if len(names) == 1 + len(several):
        return lambda key: [key, *several]
    raise UserError(
        f"init takes ({', '.join(names)}); nnref calls init(key) or init(key, x): "
        "bind the others with functools.partial"
    )
