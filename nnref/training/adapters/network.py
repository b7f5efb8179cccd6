"""A network as training calls it, whatever it was written with."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Tree = Any


class Network(NamedTuple):
    """Functions as training calls them.

    `init(key)` gives `(params, state)`; `apply(params, state, x, key, train)` gives `(outputs,
    state)`. `random` says whether `apply` takes a key at all, `modes` whether a training flag.
    `whole(params, state)` is what a user's own loss takes for the network: a module, or parameters.
    A compiled model brings its `loss(outputs, y)`, the `penalty(params)` of its regularizers, and
    how it is trained: `training` has arguments of `nnref.diagnose`. `in_evaluation`
    names the layers that were handed over in evaluation mode, and stay in it while they train.
    """

    init: Callable[[Any], tuple[Tree, Tree]]
    apply: Callable[[Tree, Tree, Any, Any, bool], tuple[Any, Tree]]
    random: bool
    modes: bool
    whole: Callable[[Tree, Tree], Any] = lambda params, state: params
    loss: Callable[[Any, Any], Any] | None = None
    penalty: Callable[[Tree], Any] | None = None
    training: Mapping[str, Any] = {}
    in_evaluation: tuple[str, ...] = ()
