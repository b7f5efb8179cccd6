"""Modules of Flax NNX."""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import jax
from flax import nnx

from nnref.internals import parameters_of
from nnref.training.adapters.arguments import MODES, called, inputs_of, roles_of
from nnref.training.adapters.network import Network, Tree
from nnref.training.split_module import SplitModule, split


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
