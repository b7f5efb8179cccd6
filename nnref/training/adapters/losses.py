"""The loss of a user as training calls it: of outputs and targets, or of parameters and a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nnref.errors import UserError
from nnref.training.adapters.arguments import KNOWN, called, inputs_of, required, roles_of, words
from nnref.training.adapters.network import Network, Tree

TARGETS_FIRST = {"y", "y_true", "true", "labels", "label", "targets", "target"}
PARAMS = {"params", "parameters", "weights", "theta", "model", "net", "network", "module"}
BATCH = {"batch", "data", "batches", "examples"}
OUTPUTS = {"outputs", "output", "out", "logits", "pred", "preds", "predictions", "y_pred", "y_hat"}
OUTPUTS |= {"probs", "prediction", "yhat"}


def of_params(loss: Callable[..., Any]) -> bool:
    """Whether a loss takes the parameters, or the model, and calls the network itself.

    Before a batch stand the parameters, whatever they are called: `p` alone may be probabilities.
    """
    names = required(loss)
    if len(names) < 2 or not OUTPUTS.isdisjoint(names[:2]):
        return False
    strangers = [n for n in names if KNOWN.get(n) != "key"]
    return names[0] in PARAMS or names[1] in BATCH or len(strangers) > 2


def scalar(value: Any) -> Any:
    """A loss as one number: what comes with it is left, and one by row is averaged.

    Raises:
        UserError: for what is no number.
    """
    value = value[0] if isinstance(value, tuple) and value else value
    try:
        return jnp.mean(value)
    except TypeError:
        kind = type(value).__name__
        raise UserError(f"the loss gave a {kind}; it gives one number, or one a row") from None


def loss_of(loss: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """`loss(outputs, y)` as a scalar: targets may come first, or not at all.

    Raises:
        UserError: for a loss that takes other arguments.
    """
    names = required(loss)
    if len(names) > 2:
        raise UserError(f"loss takes ({', '.join(names)}); nnref.Task calls loss(outputs, y)")
    swapped = len(names) == 2 and names[0] in TARGETS_FIRST and names[1] not in TARGETS_FIRST
    if len(names) == 1:
        return lambda outputs, y: scalar(loss(outputs))
    return lambda outputs, y: scalar(loss(y, outputs) if swapped else loss(outputs, y))


def with_params(network: Network, loss: Callable[..., Any]) -> tuple[Network, Callable[..., Any]]:
    """A network and its loss; of a `loss(params, outputs, y)` the outputs bring the parameters."""
    if len(required(loss)) != 3:
        return network, loss

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        outputs, state = network.apply(params, state, x, key, train)
        return {"outputs": outputs, "params": params}, state

    def of_both(outputs: Any, y: Any) -> Any:
        return loss(outputs["params"], outputs["outputs"], y)

    return network._replace(apply=apply), of_both


def calling_network(
    network: Network, loss: Callable[..., Any], batch: Any
) -> tuple[Network, Callable[..., Any]]:
    """A network and its loss, of a `loss(params, batch, key)` that calls the network itself.

    The outputs are the loss.
    """
    asked, keyed = batch_loss(loss, batch)

    def apply(params: Tree, state: Tree, x: Any, key: Any, train: bool) -> tuple[Any, Tree]:
        drawn = jax.random.key(0) if key is None else key
        return asked(network.whole(params, state), x, drawn), state

    return network._replace(apply=apply, random=keyed, modes=False), lambda outputs, y: outputs


def batch_loss(loss: Callable[..., Any], batch: Any) -> tuple[Callable[..., Any], bool]:
    """`loss(params, batch, key)` as a scalar, and whether it draws from the key.

    A loss of `(params, x, y)` takes each part of the batch by itself, by place or by name.

    Raises:
        UserError: for a loss that takes other arguments.
    """
    names = required(loss)
    strangers = [name for name in names if name not in KNOWN]
    inputs = {} if {*names[1:2]} & BATCH else inputs_of(loss, 1, batch)
    third = ("key",) if len(strangers) == 3 and not inputs else ()  # whatever it is called
    places = (*("params", "x")[: len(names)], *third)
    passed = roles_of(loss, places, "loss", {**dict.fromkeys(names[:1], "params"), **inputs})

    def called_with(params: Any, batch: Any, key: Any) -> Any:
        values = {"params": params, "x": batch, "key": key, "train": True, "evaluate": False}
        return scalar(called(loss, passed, values))

    return called_with, "key" in words(passed)
