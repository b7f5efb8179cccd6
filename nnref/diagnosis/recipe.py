"""What is diagnosed: the functions of a task, its data, and how it is trained, in one form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.trees import Layout
from nnref.experiment.claims import Stop
from nnref.training.task import Functions
from nnref.training.train import Plan


def no_penalty(params: Any) -> float:
    """The penalty of a loss without one."""
    return 0.0


@dataclass(frozen=True)
class Recipe:
    """A task and how it is trained; nothing of the user's is changed in place.

    `init(key)` gives `(params, state)`; `apply(params, state, x, key, train)` gives `(outputs,
    state)`; `loss(outputs, y)` and `penalty(params)` are scalars, whose sum is descended. `train`,
    `valid` and `test` are `(x, y)`, rows first. `random` says whether `apply` draws random numbers
    at all, `modes` whether it knows training from evaluation. `restart(params, state)` gives the
    state before the first batch, where one goes on from batch to batch. `rows` is the number of
    rows that `apply` was written for, where it takes no other: see `for_any_rows`. Where a user's
    inputs or targets are trees, `inputs` and `targets` say how these lie in the arrays.
    `in_evaluation` names layers that were handed over in evaluation mode.

    An experiment brings the `setup` that builds its functions and optimizer from `hyperparameters`:
    it is trained with these, as arguments of the program, so that its losses are those of
    `nnref run`. Where one of the functions or the optimizer is replaced, `setup` must be None.
    """

    init: Callable[[Any], tuple[Any, Any]]
    apply: Callable[[Any, Any, Any, Any, bool], tuple[Any, Any]]
    loss: Callable[[Any, Any], Any]
    penalty: Callable[[Any], Any] = no_penalty
    train: tuple[np.ndarray, np.ndarray] = field(kw_only=True)
    valid: tuple[np.ndarray, np.ndarray] | None = None
    test: tuple[np.ndarray, np.ndarray] | None = None
    optimizer: Any = None
    batch_size: int = 32
    epochs: int = 20
    shuffle: bool = True
    evaluate_every: int = 1
    stop: Stop | None = None
    seed: int = 0
    kind: str | None = None
    metric: Callable[[Any, Any], Any] | None = None
    random: bool = True
    modes: bool = True
    restart: Callable[[Any, Any], Any] | None = None
    rows: int | None = None
    inputs: Layout | None = None
    targets: Layout | None = None
    in_evaluation: tuple[str, ...] = ()
    replayed: bool = False
    setup: Callable[[Mapping[str, Any]], tuple[Functions, Any]] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def begun(self, params: Any, state: Any) -> Any:
        """The state before the first batch of a split."""
        return state if self.restart is None else self.restart(params, state)

    def column(self, number: int) -> str:
        """What a column of the inputs is called: its number; of several arrays, which one, too."""
        if self.inputs is None or len(self.inputs.shapes) == 1:
            return str(number)
        return self.inputs.columns[number]

    def build(self, hyperparameters: Mapping[str, Any]) -> tuple[Functions, Any]:
        """Functions and optimizer as training calls them."""
        if self.setup is not None:
            return self.setup(hyperparameters)
        penalty = None if self.penalty is no_penalty else self.penalty
        functions = Functions(
            self.init, self.apply, self.loss, restart=self.restart, penalty=penalty
        )
        return functions, self.optimizer

    @property
    def plan(self) -> Plan:
        """The structure of its training."""
        return Plan(self.batch_size, self.epochs, self.evaluate_every, self.stop, self.shuffle)


def one_array(recipe: Recipe) -> Recipe:
    """The same recipe; outputs that are a tree of one array, such as a dict, are that array."""
    x = recipe.train[0][: recipe.batch_size]

    def outputs_at(key: Any) -> Any:
        return recipe.apply(*recipe.init(key), x, key, True)[0]

    outputs = jax.eval_shape(outputs_at, jax.random.key(0))
    leaves, tree = jax.tree.flatten(outputs)
    if len(leaves) != 1 or outputs is leaves[0]:
        return recipe

    def apply(params: Any, state: Any, x: Any, key: Any, train: bool) -> tuple[Any, Any]:
        outputs, state = recipe.apply(params, state, x, key, train)
        return jax.tree.leaves(outputs)[0], state

    def of_the_tree(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda outputs, y: function(jax.tree.unflatten(tree, [outputs]), y)

    metric = None if recipe.metric is None else of_the_tree(recipe.metric)
    return replace(recipe, apply=apply, loss=of_the_tree(recipe.loss), metric=metric, setup=None)


def for_any_rows(recipe: Recipe) -> Recipe:
    """The same recipe; an `apply` that takes whole batches alone then takes any number of rows.

    Such are a first state of a batch's shape, or a reshape to it. Rows are filled up with copies of
    the first one, whose answers are cut off again; many go batch by batch, the state with them.
    """
    x = recipe.train[0]
    batch = min(recipe.batch_size, len(x))
    other = batch - 1 if batch > 1 else 2
    params, state = jax.eval_shape(recipe.init, jax.random.key(0))

    def takes(rows: int) -> bool:
        def trained(params: Any, state: Any, x: Any) -> Any:
            return recipe.apply(params, state, x, jax.random.key(0), True)

        try:
            jax.eval_shape(trained, params, state, x[:rows])
        except Exception:  # whatever the user's function raises is told where it is called
            return False
        return True

    if takes(other) or not takes(batch):
        return recipe

    def apply(params: Any, state: Any, x: Any, key: Any, train: bool) -> tuple[Any, Any]:
        if len(x) == batch:
            return recipe.apply(params, state, x, key, train)
        count = -(-len(x) // batch)
        filled = jnp.concatenate([x, jnp.repeat(x[:1], count * batch - len(x), 0)])

        def one(state: Any, part: Any) -> tuple[Any, Any]:
            outputs, state = recipe.apply(params, state, part, key, train)
            return state, outputs

        if count == 1:
            state, outputs = one(state, filled)
            outputs = jax.tree.map(lambda leaf: leaf[None], outputs)
        else:
            parts = filled.reshape(count, batch, *x.shape[1:])
            state, outputs = jax.lax.scan(one, state, parts)

        def joined(leaf: Any) -> Any:
            by_row = leaf.shape[1:2] == (batch,)
            return leaf.reshape(-1, *leaf.shape[2:])[: len(x)] if by_row else leaf[-1]

        return jax.tree.map(joined, outputs), state

    return replace(recipe, apply=apply, rows=batch)
