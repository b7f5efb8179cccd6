"""The chain: every part of a step, in one fixed order, as one optax transformation."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nnref.errors import UserError
from nnref.parts.optimizers.rule import Array, Number, Optimizer, Tree
from nnref.parts.optimizers.schedule_free import schedule_free_step
from nnref.parts.regularizers import is_kernel
from nnref.parts.schedules import Progress, RateState, Schedule, plateau


def chain(
    optimizer: Optimizer,
    schedule: Schedule,
    steps: int,
    steps_per_epoch: int,
    *before: optax.GradientTransformation,
    weight_decay: Number | None = None,
    decay_everything: bool = False,
    projection: optax.GradientTransformation | None = None,
    averaging: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """The whole step as one optax transformation; what is off is not in it.

    Args:
        optimizer: direction and rate.
        schedule: the unit schedule that multiplies the rate.
        steps: updates of the whole run.
        steps_per_epoch: updates of an epoch.
        *before: what happens to the gradient first: regularizers, then clipping.
        weight_decay: lambda of decoupled decay, theta -= rate x schedule x lambda theta.
        decay_everything: decay biases and normalisation's parameters, too.
        projection: turns the update into one that ends where it may: max-norm.
        averaging: leaves the update as it is and keeps an average, under the name `average`.

    Raises:
        UserError: where the optimizer brings its own decay or average and a second one is given,
            and for a schedule that cannot be called.
    """
    if optimizer.weight_decay is not None and weight_decay is not None:
        raise UserError(
            "optimizer.weight_decay and regularization.weight_decay are both given; keep one"
        )
    if optimizer.interpolation is not None and averaging is not None:
        raise UserError(
            "regularization.average given; this optimizer is evaluated at its own average: drop it"
        )
    decay = optimizer.weight_decay if weight_decay is None else weight_decay

    def factor(rate: RateState) -> Array:
        reductions = 0 if rate.plateau is None else rate.plateau.reductions
        return schedule(Progress(rate.step, steps, steps_per_epoch, reductions))

    start = RateState(jnp.int32(0), plateau(schedule))
    jax.eval_shape(factor, start)  # a schedule refuses its spans when it is called
    parts = [*before, optimizer.direction]
    if decay is not None:
        parts.append(decoupled_decay(decay, decay_everything))
    if optimizer.interpolation is None:
        parts.append(descend(optimizer.learning_rate, factor, start))
        parts += [] if projection is None else [projection]
    else:
        parts.append(schedule_free_step(optimizer, factor, start, projection))
    parts += [] if averaging is None else [averaging]
    return keeping_dtypes(optax.chain(*parts))


def decoupled_decay(coefficient: Number, everything: bool) -> optax.GradientTransformation:
    """Decoupled decay: d <- d + lambda theta, past clipping and optimizer, for kernels or all."""

    def decayed(d: Array, w: Array) -> Array:
        return d + coefficient * w if everything or is_kernel(w) else d

    return optax.stateless(lambda updates, params: jax.tree.map(decayed, updates, params))


def descend(
    learning_rate: Number, factor: Callable[[RateState], Array], start: RateState
) -> optax.GradientTransformation:
    """Downhill by rate alpha times schedule s: u = -alpha s(t) d."""

    def update(updates: Tree, state: Any, params: Tree = None) -> Any:
        rate = -learning_rate * factor(state)
        updates = jax.tree.map(lambda d: jnp.asarray(rate, d.dtype) * d, updates)
        return updates, state._replace(step=state.step + 1)

    def init(params: Tree) -> Any:
        return start

    return optax.GradientTransformation(init, update)


def keeping_dtypes(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same transformation with updates and state in the dtypes that they came in.

    A hyperparameter that arrives as a float32 array would otherwise widen a bfloat16 run.
    """

    def like(old: Tree, new: Tree) -> Tree:
        return jax.tree.map(lambda o, n: n.astype(o.dtype), old, new)

    def update(updates, state, params=None):
        new_updates, new_state = inner.update(updates, state, params)
        return like(updates, new_updates), like(state, new_state)

    return optax.GradientTransformation(inner.init, update)


def updated(
    optimizer: Any,
    gradient: Tree,
    opt_state: Tree,
    params: Tree,
    loss: Callable[[Tree], Array] | None = None,
    value: Array | None = None,
) -> tuple[Tree, Tree]:
    """The updates of an optimizer, which are added to the parameters, and its new state.

    Line searches and schedules that watch the loss get it, too, with its value at `params`, and the
    sharpness-aware ones its gradient elsewhere; without a loss all of them get the linear function
    that has this gradient.
    """

    def linear(params: Tree) -> Array:
        products = jax.tree.map(lambda g, p: jnp.sum(g * p), gradient, params)
        return sum(jax.tree.leaves(products), jnp.zeros(()))

    if not isinstance(optimizer, optax.GradientTransformationExtraArgs):
        return optimizer.update(gradient, opt_state, params)
    loss = linear if loss is None else loss
    value = loss(params) if value is None else value
    extra = {"value": value, "grad": gradient, "value_fn": loss}
    extra["grad_fn"] = lambda params, step: jax.grad(loss)(params)
    return updated_by(optimizer, gradient, opt_state, params, extra)


def updated_by(
    optimizer: Any, gradient: Tree, opt_state: Tree, params: Tree, extra: Mapping[str, Any]
) -> tuple[Tree, Tree]:
    """The updates of an optimizer, which is told as much of `extra` as it takes.

    `grad_fn` goes to those alone that name it: line searches refuse what they do not know.
    """
    takes = inspect.signature(optimizer.update).parameters
    whatever = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    taken = {*takes, *(extra if whatever else ())} - ({"grad_fn"} - {*takes})
    extra = {name: given for name, given in extra.items() if name in taken}
    return optimizer.update(gradient, opt_state, params, **extra)


def evaluation_params(opt_state: Tree, params: Tree) -> Tree:
    """Where the network is evaluated: at the `average` that the state keeps, or where it trains."""

    def keeps(state: Any) -> bool:
        return isinstance(state, tuple) and hasattr(state, "average")

    kept = [s.average for s in jax.tree.leaves(opt_state, is_leaf=keeps) if keeps(s)]
    return kept[-1] if kept else params
