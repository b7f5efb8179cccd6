"""What a further run changes, and how it ends."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from nnref.parts.chain import updated_by
from nnref.training.task import Functions

Tree = Any


class Change(NamedTuple):
    """What a run does differently: factors on updates and penalty, and which of the data sets.

    The penalty is the one in the loss, and the decay of the weights in the optimizer. An
    experiment's rule to stop holds for the first data set, to which the validation rows belong.
    """

    rate: Any = 1.0
    penalty: Any = 1.0
    inputs: Any = 0
    targets: Any = 0
    stops: Any = True


class End(NamedTuple):
    """The network that a training leaves, and the losses of its epochs."""

    network: tuple[Tree, Tree]
    losses: np.ndarray


class Trial(NamedTuple):
    """A run with something changed: its skill at the end on training and on validation rows."""

    name: str
    change: Change
    skill: float
    valid: float | None
    losses: Any = ()  # of its epochs


def scaled(hyperparameters: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """The hyperparameters of an experiment with factors on its rates and its penalties."""
    factors = {"learning_rate": change.rate, "adam_learning_rate": change.rate}
    factors |= dict.fromkeys(("weight_decay", "l1", "l2"), change.penalty)
    return {
        path: number * factors.get(path.rpartition(".")[2], 1)
        for path, number in hyperparameters.items()
    }


def changed(
    functions: Functions, optimizer: Any, change: Change, decays: bool
) -> tuple[Functions, Any]:
    """A user's functions and optimizer with factors on what it adds to the weights and to the loss.

    Args:
        functions: of the run.
        optimizer: of the run.
        change: what is different, as numbers or traced.
        decays: whether all that the optimizer does with the parameters is to add multiples of
            them: then these are scaled as it is shown other parameters.
    """
    penalty = functions.penalty
    if penalty is not None:
        functions = functions._replace(penalty=lambda params: change.penalty * penalty(params))

    def update(
        updates: Tree, state: Tree, params: Tree = None, *, grad_fn: Any = None, **extra: Any
    ) -> Any:
        extra["grad_fn"] = grad_fn
        if decays:
            params = jax.tree.map(lambda p: (change.penalty * p).astype(p.dtype), params)
        updates, state = updated_by(optimizer, updates, state, params, extra)
        return jax.tree.map(lambda u: (u * change.rate).astype(u.dtype), updates), state

    return functions, optax.GradientTransformationExtraArgs(optimizer.init, update)
