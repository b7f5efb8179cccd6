"""What is diagnosed: a user's functions, data and optimizer, brought to one form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def no_penalty(params: Any) -> float:
    """Of a loss that has no penalty."""
    return 0.0


@dataclass(frozen=True)
class Subject:
    """The user's functions in one form; nothing of the user's is changed in place.

    `init(key)` gives `(params, state)`; `apply(params, state, x, key, train)` gives `(outputs,
    state)`; `loss(outputs, y)` and `penalty(params)` are scalars, whose sum is descended. `train`,
    `valid` and `test` are `(x, y)`, rows first. `random` says whether `apply` draws random numbers
    at all, `modes` whether it knows training from evaluation. `restart(params, state)` gives the
    state before the first batch, where one goes on from batch to batch. `rows` is the number of
    rows that `apply` was written for, where it takes no other: see `for_any_rows`.
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
    kind: str | None = None
    metric: Callable[[Any, Any], Any] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    random: bool = True
    modes: bool = True
    restart: Callable[[Any, Any], Any] | None = None
    rows: int | None = None

    def begun(self, params: Any, state: Any) -> Any:
        """The state before the first batch of a split."""
        return state if self.restart is None else self.restart(params, state)


def updated(
    optimizer: Any, gradient: Any, opt_state: Any, params: Any, loss: Any = None, value: Any = None
) -> tuple[Any, Any]:
    """What an optimizer adds to the parameters, and its new state.

    Line searches and schedules that watch the loss are given it: a function of the parameters, and
    its value. Without one it is the linear function that has this gradient.
    """

    def linear(params: Any) -> Any:
        products = jax.tree.map(lambda g, p: jnp.sum(g * p), gradient, params)
        return sum(jax.tree.leaves(products))

    loss = linear if loss is None else loss
    value = loss(params) if value is None else value
    told = {"value": value, "grad": gradient, "value_fn": loss}
    return optax.with_extra_args_support(optimizer).update(gradient, opt_state, params, **told)


def for_any_rows(subject: Subject) -> Subject:
    """The same subject; an `apply` that takes whole batches alone then takes any number of rows.

    Such are a first state of a batch's shape, or a reshape to it. Rows are filled up with copies of
    the first one, whose answers are cut off again; many go batch by batch, the state with them.
    """
    x = subject.train[0]
    batch = min(subject.batch_size, len(x))
    other = batch - 1 if batch > 1 else 2
    params, state = jax.eval_shape(subject.init, jax.random.key(0))

    def takes(rows: int) -> bool:
        def trained(params: Any, state: Any, x: Any) -> Any:
            return subject.apply(params, state, x, jax.random.key(0), True)

        try:
            jax.eval_shape(trained, params, state, x[:rows])
        except Exception:  # whatever the user's function raises is told where it is called
            return False
        return True

    if takes(other) or not takes(batch):
        return subject

    def apply(params: Any, state: Any, x: Any, key: Any, train: bool) -> tuple[Any, Any]:
        if len(x) == batch:
            return subject.apply(params, state, x, key, train)
        count = -(-len(x) // batch)
        filled = jnp.concatenate([x, jnp.repeat(x[:1], count * batch - len(x), 0)])

        def one(state: Any, part: Any) -> tuple[Any, Any]:
            outputs, state = subject.apply(params, state, part, key, train)
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

    return replace(subject, apply=apply, rows=batch)
