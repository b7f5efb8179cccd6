"""What optimizers are made of: a direction with its rate, from the rule of a single array."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Array = jax.Array
Tree = Any
Number = float | Array


class Optimizer(NamedTuple):
    """The factors of a step: theta <- theta - learning_rate (direction(g) + weight_decay theta).

    With an `interpolation` beta, the step is that of schedule-free learning, see
    `schedule_free_step`.
    """

    learning_rate: Number
    direction: optax.GradientTransformation
    weight_decay: Number | None = None
    interpolation: Number | None = None


class RuleState(NamedTuple):
    """What a rule remembers: the steps made, and for each array of the parameters its slots."""

    step: Array
    slots: Tree


def zeros(count: int) -> Callable[[Array], tuple[Array, ...]]:
    """Slots that start at 0, each of the shape of its array."""
    return lambda w: (jnp.zeros_like(w),) * count


def transformation(
    rule: Callable[..., tuple[Array, ...]], start: Callable[[Array], tuple[Array, ...]]
) -> optax.GradientTransformation:
    """The optax transformation of `rule(t, g, *slots) -> (direction, *slots)` for one array.

    t is the number of the step, from 1; `start` gives the slots of an array before the first.
    """

    def init(params: Tree) -> RuleState:
        return RuleState(jnp.int32(0), jax.tree.map(start, params))

    def update(updates, state, params=None):
        t = state.step + 1
        gradients, tree = jax.tree.flatten(updates)
        slots = tree.flatten_up_to(state.slots)
        results = [rule(t, g, *slot) for g, slot in zip(gradients, slots, strict=True)]
        directions = tree.unflatten([direction for direction, *_ in results])
        return directions, RuleState(t, tree.unflatten([tuple(slot) for _, *slot in results]))

    return optax.GradientTransformation(init, update)


def one_minus_power(beta: Number, t: Array) -> Array:
    """1 - beta^t, which float32 would lose to cancellation where beta is close to 1."""
    return -jnp.expm1(t * jnp.log(beta))


def quotient(above: Array, below: Array) -> Array:
    """The quotient, and 0 where the denominator is 0: an array that never had a gradient rests."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)
