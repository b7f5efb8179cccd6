"""Faults of the training: steps, schedules, decay, and which parameters are moved."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from benchmarks.mutants.planting import PLAIN_STEPS, Fault, stepped

# Rates


def huge_rate(setup, draw):
    factor = draw.uniform(60, 400) if setup.steps.name in PLAIN_STEPS else draw.uniform(100, 400)
    return stepped(setup, rate=setup.steps.rate * factor)


def rate_without_clip(setup, draw):
    """A rate that was chosen for clipped gradients, without the clip."""
    if setup.steps.name not in PLAIN_STEPS:
        return None
    healthy = stepped(setup, clip=0.1, rate=setup.steps.rate * 8)
    return healthy, stepped(healthy, clip=None, rate=healthy.steps.rate * 5)


def growing_rate(setup, draw):
    """A decay with the wrong sign in its exponent."""

    def schedule(rate, total):
        return optax.exponential_decay(rate, max(1, total // 10), 2.5)

    return stepped(setup, schedule=schedule)


def tiny_rate(setup, draw):
    return stepped(setup, rate=setup.steps.rate * 10 ** draw.uniform(-4, -2.7))


def endless_warm_up(setup, draw):
    """A warm-up made for a run a thousand times as long."""

    def schedule(rate, total):
        return optax.linear_schedule(0.0, rate, total * 1000)

    return stepped(setup, schedule=schedule)


def decayed_at_once(setup, draw):
    """A decay per epoch that is counted in steps."""

    def schedule(rate, total):
        return optax.exponential_decay(rate, 1, 0.7)

    return stepped(setup, schedule=schedule)


def tiny_clip(setup, draw):
    if setup.steps.name not in PLAIN_STEPS:
        return None
    return stepped(setup, clip=10 ** draw.uniform(-5, -4))


def one_epoch(setup, draw):
    return replace(setup, epochs=1, batch_size=100)


def whole_batches(setup, draw):
    """Batches of all rows make a step of each epoch."""
    epochs = min(setup.epochs, 10)
    return replace(setup, epochs=epochs, batch_size=len(setup.data.train[0]))


# Signs


def climbing(setup, draw):
    return stepped(setup, rate=-setup.steps.rate)


def subtracted_updates(setup, draw):
    """params - updates, of updates that are negative already."""
    return stepped(setup, after=lambda made: optax.chain(made, optax.scale(-1.0)))


def raw_gradients(setup, draw):
    """optax.masked passes the gradients of the rest as they are: these climb."""
    return stepped(setup, after=lambda made: optax.masked(made, vectors))


def vectors(params):
    return jax.tree.map(lambda leaf: leaf.ndim == 1, params)


# Parameters that stay


def frozen_kernels(setup, draw):
    """Only biases are moved: the labels of the groups are swapped."""
    if setup.family == "factors":
        return None

    def after(made):
        labelled = {"moved": made, "kept": optax.set_to_zero()}
        return optax.multi_transform(
            labelled,
            lambda params: jax.tree.map(lambda w: "kept" if w.ndim > 1 else "moved", params),
        )

    return stepped(setup, after=after)


def frozen_everything(setup, draw):
    return stepped(setup, after=lambda made: optax.chain(made, optax.set_to_zero()))


def rate_of_zero(setup, draw):
    """An integer division: 1 // 1000."""
    return stepped(setup, schedule=lambda rate, total: 0.0)


def zero_gradient_mask(setup, draw):
    """A mask that was meant for biases alone multiplies kernels by 0 as well."""

    def after(made):
        mask = optax.stateless(
            lambda updates, params: jax.tree.map(
                lambda u: u * (jnp.arange(u.shape[-1]) < 1), updates
            )
        )
        return optax.chain(made, mask)

    return stepped(setup, after=after)


# Penalties


def squares(factor):
    def penalty(params):
        return factor * sum(jnp.sum(w**2) for w in jax.tree.leaves(params) if w.ndim > 1)

    return penalty


def strong_squares(setup, draw):
    return replace(setup, penalty=squares(1e-5)), replace(
        setup, penalty=squares(draw.uniform(0.3, 3))
    )


def strong_absolutes(setup, draw):
    factor = draw.uniform(0.05, 0.5)

    def penalty(params):
        return factor * sum(jnp.sum(jnp.abs(w)) for w in jax.tree.leaves(params) if w.ndim > 1)

    return replace(setup, penalty=penalty)


def strong_decay(setup, draw):
    if setup.steps.name != "adamw":
        return None
    return stepped(setup, decay=draw.uniform(3, 20))


def decay_of_raw_weights(setup, draw):
    """Decay added behind the rate: every step takes a share of the weights, gradient or not."""
    share = draw.uniform(0.03, 0.2)
    after = optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, p: u - share * p, updates, params)
    )
    return stepped(setup, after=lambda made: optax.chain(made, after))


def collapsed_code(setup, draw):
    """The error is a mean over values, the divergence a sum over the code."""
    if setup.family != "vae":
        return None

    def loss(outputs, x):
        made, mean, log_var = outputs
        error = jnp.mean((made - x) ** 2, -1)
        divergence = 0.5 * jnp.sum(jnp.exp(log_var) + mean**2 - 1 - log_var, -1)
        return jnp.mean(error + divergence)

    return replace(setup, loss=loss)


# Schedules that end in NaN


def root_behind_the_end(setup, draw):
    """(1 - step / length)^0.9 with a length that the run passes."""

    def schedule(share):
        return lambda rate, total: lambda step: rate * (1 - step / (total * share + 1)) ** 0.9

    return stepped(setup, schedule=schedule(1.0)), stepped(setup, schedule=schedule(0.5))


def divided_by_step(setup, draw):
    """1 / sqrt(step), counted from 0."""

    def schedule(rate, total):
        return lambda step: rate * jnp.sqrt(10.0) / jnp.sqrt(1.0 * step)

    def healthy(rate, total):
        return lambda step: rate * jnp.sqrt(10.0) / jnp.sqrt(step + 10.0)

    return stepped(setup, schedule=healthy), stepped(setup, schedule=schedule)


def half_precision_root(setup, draw):
    """Squares of gradients vanish in half precision, and 0 / 0 is their ratio."""
    if setup.steps.name not in ("adam", "rmsprop"):
        return None

    def after(made):
        def ratio(updates, params):
            def one(u):
                half = (u * 1e-3).astype(jnp.float16)
                return (u * (half / jnp.sqrt(half**2))).astype(u.dtype)

            return jax.tree.map(lambda u: one(u) if u.ndim > 1 else u, updates)

        return optax.chain(made, optax.stateless(ratio))

    return stepped(setup, after=after)


SLOW = ("undertrained",)
TRAINING_FAULTS = [
    Fault("learning_rate_too_high", "factor", huge_rate, where="rate"),
    Fault(
        "learning_rate_too_high",
        "no_clip",
        rate_without_clip,
        ("exploding_gradients",),
        where="clip",
    ),
    Fault("learning_rate_too_high", "growing", growing_rate, where="schedule"),
    Fault("learning_rate_too_low", "factor", tiny_rate, SLOW, where="rate"),
    Fault("learning_rate_too_low", "warm_up", endless_warm_up, SLOW, where="schedule"),
    Fault("learning_rate_too_low", "decay", decayed_at_once, SLOW, where="schedule"),
    Fault("learning_rate_too_low", "clip", tiny_clip, SLOW, where="clip"),
    Fault("undertrained", "one_epoch", one_epoch, ("learning_rate_too_low",), where="epochs"),
    Fault(
        "undertrained",
        "whole_batches",
        whole_batches,
        ("learning_rate_too_low",),
        where="batch size",
    ),
    Fault("gradient_ascent", "rate", climbing, where="rate"),
    Fault("gradient_ascent", "updates", subtracted_updates, where="updates"),
    Fault("gradient_ascent", "masked", raw_gradients, ("learning_rate_too_high",), where="updates"),
    Fault("parameters_not_updated", "kernels", frozen_kernels, where="updates"),
    Fault("parameters_not_updated", "everything", frozen_everything, where="updates"),
    Fault("parameters_not_updated", "rate", rate_of_zero, ("learning_rate_too_low",), where="rate"),
    Fault("parameters_not_updated", "columns", zero_gradient_mask, where="updates"),
    Fault("excessive_regularization", "squares", strong_squares, where="penalty"),
    Fault("excessive_regularization", "absolutes", strong_absolutes, where="penalty"),
    Fault("excessive_regularization", "adamw", strong_decay, where="decay"),
    Fault("excessive_regularization", "raw_decay", decay_of_raw_weights, where="decay"),
    Fault(
        "excessive_regularization", "collapsed", collapsed_code, ("loss_mismatch",), where="loss"
    ),
    Fault("numerical_instability", "root_schedule", root_behind_the_end, where="schedule"),
    Fault("numerical_instability", "first_step", divided_by_step, where="schedule"),
    Fault("numerical_instability", "half_precision", half_precision_root, where="updates"),
]
