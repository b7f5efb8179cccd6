"""Modules of Flax NNX: split into plain arrays, and merged for each call."""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import jax
from flax import nnx

from nnref.internals import parameters_of, plain_arrays
from nnref.parts.initializers import lsuv_pass
from nnref.training.adapters.arguments import MODES, called, inputs_of, roles_of
from nnref.training.adapters.network import Network, Tree
from nnref.training.probes import Layer, recorded_calls


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

    def __init__(self, build: Callable[[Any], nnx.Module], own_modes: bool = False) -> None:
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

    def moded(self, params: Tree, state: Tree, train: bool) -> Any:
        """A module with these arrays, its layers in training or in evaluation mode."""
        module = self.merge(params, state)
        if not train:
            module.eval()
        elif self.own_modes:
            undecided(module)
        else:
            module.train()
        return module

    def apply(
        self, params: Tree, state: Tree, x: Any, train: bool, **keys: Any
    ) -> tuple[Any, Tree]:
        """Outputs and the state after them; `keys` are those of the streams of random numbers."""
        module = self.moded(params, state, train)
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
        module = model.moded(params, state, train)
        if key is not None:
            nnx.reseed(module, **{name: key_of(name, key) for name in streams(module)})
        inputs = inputs_of(module, 0, x)
        passed = roles_of(module, ("x",), "the module's __call__", inputs)
        drawn = jax.random.key(0) if key is None else key
        values = {"x": x, "key": nnx.Rngs(drawn), "train": train, "evaluate": not train}
        outputs = called(module, passed, values)
        return outputs, split(module)[2]

    return Network(
        model.init,
        apply,
        random=True,
        modes=True,
        whole=lambda params, state: model.moded(params, state, True),
        in_evaluation=layers_in_evaluation(model),
    )


def layers_in_evaluation(model: SplitModule) -> tuple[str, ...]:
    """The layers that were built in evaluation mode: dropout that is off, a norm of old statistics.

    None, where the module is told the mode in each call.
    """
    module = model.merge(*jax.eval_shape(model.init, jax.random.key(0)))
    if MODES & {one.name for one in parameters_of(type(module).__call__) or []}:
        return ()
    return tuple(
        f"{'.'.join(map(str, path))} ({type(layer).__name__})".lstrip()
        for path, layer in nnx.iter_modules(module)
        if getattr(layer, "use_running_average", False) is True
        or (getattr(layer, "deterministic", False) is True and drops(layer))
    )


def drops(layer: Any) -> bool:
    """Whether a layer would silence units in training."""
    return bool(getattr(layer, "rate", 0) or getattr(layer, "dropout_rate", 0))


def streams(module: nnx.Module) -> list[str]:
    """The names of the streams of random numbers that a module holds."""
    nodes = (node for _, node in nnx.iter_graph(module))
    return sorted({node.tag for node in nodes if isinstance(node, nnx.RngStream)})


def key_of(stream: str, key: Any) -> Any:
    """The key of a stream; those of Flax's own layers take the key of the step itself."""
    return (
        key if stream in ("default", "dropout") else jax.random.fold_in(key, crc32(stream.encode()))
    )
