"""An NNX module as pure functions of its arrays: split into plain arrays, merged for each call."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from nnref.internals import plain_arrays
from nnref.parts.initializers import lsuv_pass
from nnref.training.probes import LayerCall, recorded_calls

Tree = Any


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

    def layers(self, params: Tree, state: Tree, x: Any) -> dict[str, LayerCall]:
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
