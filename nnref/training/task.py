"""Task: what is learned. Behind it an experiment file and a user's own functions are the same."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.data import Split, Stored
from nnref.errors import UserError
from nnref.parts.metrics import Metric
from nnref.training.adapters import loss_of, module, plain
from nnref.training.probes import Layer

Array = jax.Array
Tree = Any


class Functions(NamedTuple):
    """The functions of a task, all pure, all traced into the program.

    `init(key)` gives `(params, model_state)`; `apply(params, model_state, x, key, train)` gives
    `(outputs, model_state)`; `loss(outputs, targets)` a scalar, the mean over the batch.
    `training_loss` is what is descended where that is another one (label smoothing); `adapt(params,
    model_state, x)` fits the first parameters to a batch (LSUV); `restart(params, model_state)`
    gives the state before the first row of a split, where a model goes on from batch to batch;
    `layers(params, model_state, x)` tells what each layer gives, in evaluation mode;
    `penalty(params)` is added to the loss that is descended.
    """

    init: Callable[[Array], tuple[Tree, Tree]]
    apply: Callable[[Tree, Tree, Array, Array | None, bool], tuple[Array, Tree]]
    loss: Callable[[Array, Array], Array]
    metrics: Mapping[str, Metric] = {}
    training_loss: Callable[[Array, Array], Array] | None = None
    adapt: Callable[[Tree, Tree, Array], tuple[Tree, Tree]] | None = None
    restart: Callable[[Tree, Tree], Tree] | None = None
    random: bool = True  # whether `apply` draws random numbers at all
    modes: bool = True  # whether it knows training from evaluation
    layers: Callable[[Tree, Tree, Array], Mapping[str, Layer]] | None = None
    penalty: Callable[[Tree], Any] | None = None


class Task:
    """Functions and arrays. `train`, `valid` and `test` are `(x, y)`, rows first.

    With `stored`, `train` holds only some of the training rows: all of them come from there.
    """

    def __init__(
        self,
        functions: Functions | None = None,
        train: Any = None,
        valid: Any = None,
        test: Any = None,
        stored: Stored | None = None,
        *,
        init: Callable[..., Any] | None = None,
        apply: Callable[..., Any] | None = None,
        model: Any = None,
        loss: Callable[..., Any] | None = None,
    ) -> None:
        """A task of a user's own: `Task(init=..., apply=..., loss=..., train=(x, y))`.

        Args:
            functions: all of them in their final form, instead of the last four.
            train: training rows `(x, y)`.
            valid: rows to validate on.
            test: rows to test on.
            stored: where the training rows come from, if they are not all in `train`.
            init: `init(key)` or `init(key, x)`, giving parameters, or parameters and state.
            apply: `apply(params, x)`; it may take a state, a key and a training flag as well.
            model: instead of init and apply: a Flax module of NNX or Linen, or a function of rngs
                that builds one of NNX.
            loss: `loss(outputs, y)`, a scalar or one number a row.

        Raises:
            UserError: for what is missing, or functions that nnref cannot call.
        """
        rows = split_of("train", train)
        if rows is None:
            raise UserError("Task: train is missing; give train=(x, y), arrays with rows first")
        self.train: Split = rows
        self.valid = split_of("valid", valid)
        self.test = split_of("test", test)
        self.stored = stored
        self.functions = functions or functions_from(init, apply, model, loss, rows.x)

    @property
    def arrays(self) -> dict[str, tuple[Any, Any]]:
        """The arrays that training needs: those of `train`, and of `valid` where there is one."""
        splits = {"train": self.train, "valid": self.valid}
        return {name: tuple(split) for name, split in splits.items() if split is not None}


def split_of(name: str, rows: Any) -> Split | None:
    """The rows that a user passes as `(x, y)`, as a split of arrays; None stays None."""
    if rows is None or isinstance(rows, Split):
        return rows
    if not isinstance(rows, (tuple, list)) or len(rows) != 2:
        raise UserError(f"Task: {name} must be a pair (x, y), not {type(rows).__name__}")
    x, y = (part if hasattr(part, "shape") else np.asarray(part) for part in rows)
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise UserError(
            f"Task: {name} has x of shape {x.shape} and y of {y.shape}; rows come first"
        )
    return Split(x, y)


def functions_from(
    init: Callable[..., Any] | None,
    apply: Callable[..., Any] | None,
    model: Any,
    loss: Callable[..., Any] | None,
    x: Any,
) -> Functions:
    """The functions of a user's task; a UserError says what is missing."""
    if loss is None:
        raise UserError("Task: loss is missing; give loss=loss, called as loss(outputs, y)")
    if model is not None and (init is not None or apply is not None):
        raise UserError("Task: give model, or init and apply, not both")
    if model is not None:
        network = module(model, x)
    elif init is None or apply is None:
        name, call = ("init", "init(key)") if init is None else ("apply", "apply(params, x)")
        raise UserError(
            f"Task: {name}, called as {call}, is missing (or give model, a Flax module)"
        )
    else:
        network = plain(init, apply, x)
    init, apply, random, modes = network
    return Functions(init, apply, loss_of(loss), random=random, modes=modes)
