"""Task: what is learned. Behind it an experiment file and a user's own functions are the same."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nnref.data import Split, Stored
from nnref.data.trees import Layout, layout_of, pair_of
from nnref.errors import UserError
from nnref.parts.metrics import Metric
from nnref.training.adapters.losses import calling_network, loss_of, of_params, with_params
from nnref.training.adapters.models import network_of
from nnref.training.adapters.network import Network
from nnref.training.adapters.plain import plain
from nnref.training.probes import LayerCall

Array = jax.Array
Tree = Any
INPUTS = ("x", "inputs", "input", "image", "images", "tokens", "input_ids")  # in a dict of rows


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
    layers: Callable[[Tree, Tree, Array], Mapping[str, LayerCall]] | None = None
    penalty: Callable[[Tree], Any] | None = None
    in_evaluation: tuple[
        str, ...
    ] = ()  # layers that stay in evaluation mode while they are trained


def in_bf16(functions: Functions) -> Functions:
    """The same network computed in bfloat16, with parameters, state and loss in float32.

    bfloat16 keeps the range of float32 and 8 of its 24 digits. What is summed over many steps stays
    in float32, as in Micikevicius et al. (2018), "Mixed precision training", section 3.1: the
    parameters, to which an update may add less than the last digit of bfloat16, their gradients,
    and the running averages of batch normalization. A loss scale is needed for float16 alone.
    """

    def halved(tree: Tree) -> Tree:
        return jax.tree.map(partial(as_float, dtype=jnp.bfloat16), tree)

    def apply(
        params: Tree, model_state: Tree, x: Array, key: Array | None, train: bool
    ) -> tuple[Array, Tree]:
        outputs, after = functions.apply(halved(params), model_state, halved(x), key, train)
        after = jax.tree.map(lambda leaf, old: as_float(leaf, old.dtype), after, model_state)
        return jax.tree.map(partial(as_float, dtype=jnp.float32), outputs), after

    return functions._replace(apply=apply)


def as_float(leaf: Array, dtype: DTypeLike) -> Array:
    """An array of floats as floats of this type; any other one, tokens or keys, as it is."""
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def warn_of_modes(functions: Functions) -> None:
    """Warn of layers that will be trained in evaluation mode, as they were handed over."""
    if functions.in_evaluation:
        warnings.warn(
            f"model: built in evaluation mode, and trained in it as they are: "
            f"{', '.join(functions.in_evaluation)}; if that is not meant, put the model into "
            "training mode first",
            stacklevel=2,
        )


class Task:
    """Functions and rows. `train`, `valid` and `test` are `(x, y)`, rows first, as arrays.

    Inputs and targets of a user may be trees, such as dicts: `inputs` and `targets` say how these
    lie in the arrays. With `stored`, `train` holds only some of the training rows: all of them come
    from there. `own_loss` says whether the loss calls the network itself; `training` holds
    arguments of `nnref.diagnose` that a compiled model brings.
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
        """A task of a user's own: `Task(model=..., loss=..., train=(x, y))`.

        Args:
            functions: all of them in their final form, instead of the last four.
            train: training rows `(x, y)`: arrays, or trees of arrays, such as a dict of tokens and
                their mask; `(x, None)` where there is nothing to predict.
            valid: rows to validate on.
            test: rows to test on.
            stored: where the training rows come from, if they are not all in `train`.
            init: `init(key)` or `init(key, x)`, giving parameters, or parameters and state.
            apply: `apply(params, x)`; it may take a state, a key and a training flag as well.
            model: instead of init and apply: a module of Flax (NNX or Linen) or Equinox, a
                keras.Model, what hk.transform gives, or a function of rngs or a key that builds
                one.
            loss: `loss(outputs, y)`, a scalar or one number a row; or `loss(params, batch, key)`,
                which calls the network itself. What it gives beside the scalar is left.

        Raises:
            UserError: for what is missing, or functions that nnref cannot call.
        """
        if train is None:
            raise UserError("Task: train is missing; give train=(x, y), arrays with rows first")
        self.stored = stored
        self.own_loss = functions is None and loss is not None and of_params(loss)
        splits = {"train": train, "valid": valid, "test": test}
        pairs = {
            name: pair_of(name, rows, self.own_loss)
            for name, rows in splits.items()
            if rows is not None
        }
        x, y = pairs["train"]
        self.inputs: Layout | None = layout_of(x, "x of train")
        self.targets: Layout | None = layout_of(y, "y of train")
        made = {name: self.split_of(name, *pair) for name, pair in pairs.items()}
        self.train: Split = made["train"]
        self.valid, self.test = made.get("valid"), made.get("test")
        self.training: Mapping[str, Any] = {}
        if functions is None:
            network = network_from(init, apply, model, loss, inputs_in(x) if self.own_loss else x)
            self.training = network.training
            if self.own_loss and loss is not None:
                network, loss = calling_network(network, loss, x)
            functions = functions_of_network(network, loss, self.inputs, self.targets)
        self.functions = functions

    def split_of(self, name: str, x: Tree, y: Tree) -> Split:
        """Rows as a split of arrays, which lie as those of `train`."""
        x = x if self.inputs is None else self.inputs.pack(x, f"x of {name}")
        y = y if self.targets is None else self.targets.pack(y, f"y of {name}")
        if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
            raise UserError(
                f"Task: {name} has x of shape {x.shape} and y of {y.shape}; rows come first"
            )
        return Split(x, y)

    @property
    def arrays(self) -> dict[str, tuple[Any, Any]]:
        """The arrays that training needs: those of `train`, and of `valid` where there is one."""
        splits = {"train": self.train, "valid": self.valid}
        return {name: tuple(split) for name, split in splits.items() if split is not None}


def functions_of_network(
    network: Network, loss: Callable[..., Any] | None, inputs: Layout | None, targets: Layout | None
) -> Functions:
    """The functions of a network and a loss, of rows that lie in arrays as the layouts say."""
    if loss is not None:
        network, loss = with_params(network, loss)
    loss = loss or network.loss
    assert loss is not None, "a network without a loss is refused before"
    called = loss_of(loss)

    def apply(params: Tree, state: Tree, x: Array, key: Array | None, train: bool) -> Any:
        rows = x if inputs is None else inputs.unpack(x)
        return network.apply(params, state, rows, key, train)

    def scalar(outputs: Any, y: Array) -> Array:
        return called(outputs, y if targets is None else targets.unpack(y))

    same = {
        name: getattr(network, name) for name in ("random", "modes", "penalty", "in_evaluation")
    }
    return Functions(network.init, apply, scalar, **same)


def inputs_in(batch: Tree) -> Tree:
    """What of a batch the network takes, where a loss takes all of it: the first, or by name."""
    if isinstance(batch, tuple):
        return batch[0]
    names = [name for name in INPUTS if isinstance(batch, dict) and name in batch]
    return batch[names[0]] if names else batch


def network_from(
    init: Callable[..., Any] | None,
    apply: Callable[..., Any] | None,
    model: Any,
    loss: Callable[..., Any] | None,
    x: Tree,
) -> Network:
    """The network of a user's task; a UserError says what is missing."""
    if model is not None and (init is not None or apply is not None):
        raise UserError("Task: give model, or init and apply, not both")
    if loss is not None and of_params(loss) and init is not None and apply is None:
        return plain(init, lambda params, x: x, x)  # the loss calls the network itself
    if model is not None:
        network = network_of(model, x)
    elif init is None or apply is None:
        name, call = ("init", "init(key)") if init is None else ("apply", "apply(params, x)")
        raise UserError(f"Task: {name}, called as {call}, is missing (or give model, a module)")
    else:
        network = plain(init, apply, x)
    if loss is None and network.loss is None:
        raise UserError("Task: loss is missing; give loss=loss, called as loss(outputs, y)")
    return network
