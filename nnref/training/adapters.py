"""A user's own functions, or a Flax module, brought to the signatures that training calls."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from nnref.errors import UserError
from nnref.internals import plain_arrays
from nnref.parts.initializers import lsuv_pass
from nnref.training.probes import Layer, recorded_calls

Tree = Any
# The names under which people pass what an argument of theirs may mean.
ROLES = {
    "state": {"state", "model_state", "net_state", "batch_stats", "stats", "variables", "carry"},
    "key": {"key", "rng", "rngs", "prng", "prng_key", "rng_key", "dropout_key", "dropout_rng", "k"},
    "train": {"train", "training", "is_training", "is_train", "train_mode"},
    "evaluate": {"deterministic", "evaluate", "is_eval", "eval_mode", "use_running_average"},
}
TARGETS_FIRST = {"y", "y_true", "true", "labels", "label", "targets", "target"}


class Network(NamedTuple):
    """Functions as training calls them.

    `init(key)` gives `(params, state)`; `apply(params, state, x, key, train)` gives `(outputs,
    state)`. `random` says whether `apply` takes a key at all, `modes` whether a training flag.
    """

    init: Callable[[Any], tuple[Tree, Tree]]
    apply: Callable[[Tree, Tree, Any, Any, bool], tuple[Any, Tree]]
    random: bool
    modes: bool


def roles_of(function: Callable[..., Any], positional: tuple[str, ...], what: str) -> list[str]:
    """The role of every argument of a function, in order; "" for one that keeps its default.

    Raises:
        UserError: for an argument that has neither a known name nor a default.
    """
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return list(positional)
    waiting, roles = list(positional), []
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        role = next((role for role, names in ROLES.items() if argument.name in names), "")
        if not role and waiting and argument.kind != argument.KEYWORD_ONLY:
            role = waiting.pop(0)
        if not role and argument.default is argument.empty:
            known = "; ".join(
                f"{role}: {', '.join(sorted(names))}" for role, names in ROLES.items()
            )
            raise UserError(
                f"{what}: the argument {argument.name!r} has no default and no known name; beside "
                f"{' and '.join(positional)} nnref passes these ({known})"
            )
        roles.append(f"{role}={argument.name}" if argument.kind == argument.KEYWORD_ONLY else role)
    if waiting:
        raise UserError(f"{what} must take {' and '.join(positional)}; {waiting[-1]} is missing")
    return roles


def called(function: Callable[..., Any], roles: list[str], values: Mapping[str, Any]) -> Any:
    """Call a function with the values that its arguments stand for; an optional one is left out."""
    positional, named = [], {}
    for role in roles:
        role, _, name = role.partition("=")
        if name:
            if role:
                named[name] = values[role]
        elif role:
            positional.append(values[role])
        else:
            break  # what comes after keeps its default
    return function(*positional, **named)


def plain(init: Callable[..., Any], apply: Callable[..., Any], x: Any) -> Network:
    """A network of plain functions, as `Task` takes them; x are rows for an `init(key, x)`.

    Raises:
        UserError: for arguments that nnref cannot give.
    """
    init_roles = init_arguments(init)
    roles = roles_of(apply, ("params", "x"), "apply")
    words = {role.partition("=")[0] for role in roles}
    stateful = "state" in words

    def start(key: Any) -> tuple[Tree, Tree]:
        made = init(*[{"key": key, "x": x}[role] for role in init_roles])
        if not stateful:
            return made, {}
        if not isinstance(made, tuple) or len(made) != 2:
            raise UserError("init: apply takes a state, so init must give (params, state)")
        return made

    def forward(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        if key is None and "key" in words:
            key = jax.random.key(0)  # evaluation draws nothing, and some functions want one still
        values = {"params": params, "state": state, "x": x, "key": key, "train": train}
        made = called(apply, roles, values | {"evaluate": not train})
        if not stateful:
            return made, {}
        if not isinstance(made, tuple) or len(made) != 2:
            raise UserError("apply takes a state, so it must give (outputs, state)")
        return made

    return Network(start, forward, "key" in words, bool(words & {"train", "evaluate"}))


def init_arguments(init: Callable[..., Any]) -> list[str]:
    """Which of key and x an `init` takes, in order; a UserError where it takes more."""
    required = [a for a in inspect.signature(init).parameters.values() if a.default is a.empty]
    names = [a.name for a in required if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    if len(names) > 2:
        raise UserError(
            f"init takes ({', '.join(names)}); nnref calls init(key) or init(key, x): "
            "bind the others with functools.partial"
        )
    return ["key", "x"][: len(names)]


def loss_of(loss: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """`loss(outputs, y)` as a scalar: a loss by row is averaged, targets may come first.

    Raises:
        UserError: for a loss that does not take two arguments.
    """
    try:
        arguments = inspect.signature(loss).parameters.values()
        required = [a for a in arguments if a.default is a.empty]
        names = [a.name for a in required if a.kind == a.POSITIONAL_OR_KEYWORD]
    except (TypeError, ValueError):
        names = ["outputs", "y"]
    if len(names) > 2:
        raise UserError(
            f"loss takes ({', '.join(names)}); nnref.Task wants loss(outputs, y). For a "
            "loss(params, batch, key) call nnref.diagnose(loss=..., params=..., batch=...)"
        )
    swapped = len(names) == 2 and names[0] in TARGETS_FIRST and names[1] not in TARGETS_FIRST

    def scalar(outputs: Any, y: Any) -> Any:
        return jnp.mean(loss(y, outputs) if swapped else loss(outputs, y))

    return scalar


def module(model: Any, x: Any) -> Network:
    """The network of a Flax module: NNX (the module, or a function of rngs), or Linen."""
    from flax import linen

    if isinstance(model, linen.Module):
        return linen_network(model, x)
    if isinstance(model, nnx.Module):
        return nnx_network(lambda key: model)
    if callable(model):

        def build(key: Any) -> Any:
            built = model(nnx.Rngs(params=key, dropout=jax.random.fold_in(key, 1)))
            if not isinstance(built, nnx.Module):
                raise UserError(f"model(rngs) gave a {type(built).__name__}, not a flax.nnx.Module")
            return built

        return nnx_network(build)
    raise UserError(
        f"model: a {type(model).__name__} is no Flax module; give a flax.nnx.Module, a function of "
        "rngs that builds one, or a flax.linen.Module"
    )


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """The graph of a module, its parameters and the rest of its state, as trees of plain arrays.

    Plain, because differentiation through NNX's own variables loses updates of the state.
    """
    graph, params, state = nnx.split(module, nnx.Param, ...)
    return graph, plain_arrays(params), plain_arrays(state)


class SplitModule:
    """An NNX module as pure functions of its arrays: built once for its graph, then only merged.

    With `own_modes` its layers train in the modes that they were built in.
    """

    def __init__(self, build: Callable[[Any], nnx.Module], own_modes: bool = False):
        self.build, self.own_modes = build, own_modes
        self.graph: nnx.GraphDef | None = None  # known once a module has been built

    def init(self, key: Any) -> tuple[Tree, Tree]:
        """First parameters and state of a new module."""
        self.graph, params, state = split(self.build(key))
        return params, state

    def merge(self, params: Tree, state: Tree) -> Any:
        """A module with these arrays; nobody else holds it, so that it may be changed."""
        if self.graph is None:
            jax.eval_shape(self.init, jax.random.key(0))  # shapes alone, no weight is drawn
        assert self.graph is not None, "building a module gives its graph"
        return nnx.merge(self.graph, params, state)

    def apply(
        self, params: Tree, state: Tree, x: Any, train: bool, **keys: Any
    ) -> tuple[Any, Tree]:
        """Outputs and the state after them; `keys` are those of the streams of random numbers."""
        module = self.merge(params, state)
        if not train:
            module.eval()
        elif self.own_modes:
            undecided(module)
        else:
            module.train()
        if keys:
            nnx.reseed(module, **keys)
        outputs = module(x)
        return outputs, split(module)[2]

    def adapt(self, params: Tree, state: Tree, x: Any) -> tuple[Tree, Tree]:
        """Parameters and state after the pass of LSUV over a batch of inputs."""
        module = self.merge(params, state)
        lsuv_pass(module, x)
        return split(module)[1:]

    def restart(self, params: Tree, state: Tree) -> Tree:
        """The state before the first row of a split, where batches go on from one another."""
        module = self.merge(params, state)
        module.restart()
        return split(module)[2]

    def layers(self, params: Tree, state: Tree, x: Any) -> dict[str, Layer]:
        """The layers that the model calls in evaluation mode, by path, each with its outputs."""
        module, calls = self.merge(params, state), {}
        module.eval()
        with recorded_calls(module, calls):
            module(x)
        return calls


def undecided(module: nnx.Module) -> None:
    """Put those layers into training mode that say nothing; the others keep their own mode.

    So a module that was left in evaluation mode trains as it would in a user's own loop.
    """
    for _, layer in nnx.iter_modules(module):
        for flag in ("deterministic", "use_running_average"):
            if getattr(layer, flag, False) is None:
                setattr(layer, flag, False)


def nnx_network(build: Callable[[Any], Any]) -> Network:
    """Split once, train on plain trees; the user's module is never written to."""
    model = SplitModule(build, own_modes=True)

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        keys = {} if key is None else {"default": key, "dropout": key}
        return model.apply(params, state, x, train, **keys)

    return Network(model.init, apply, True, True)


def linen_network(model: Any, x: Any) -> Network:
    """`module.init` and `module.apply`, collections beside "params" being the state."""
    names = set(inspect.signature(model.__call__).parameters)
    on, off = names & ROLES["train"], names & ROLES["evaluate"]

    def mode(train: bool) -> dict[str, bool]:
        return dict.fromkeys(on, train) | dict.fromkeys(off, not train)

    def init(key: Any) -> tuple[Tree, Tree]:
        first, second = jax.random.split(key)
        made = dict(
            model.init({"params": first, "dropout": second}, jnp.asarray(x[:2]), **mode(False))
        )
        return made.pop("params", {}), made

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        variables = {"params": params, **state}
        rngs = None if key is None else {"dropout": key}
        outputs, after = model.apply(variables, x, rngs=rngs, mutable=list(state), **mode(train))
        return outputs, dict(after) if train else state

    return Network(init, apply, True, bool(on | off))
