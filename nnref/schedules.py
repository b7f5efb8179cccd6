"""Schedules: what share of the learning rate holds at a step.

A schedule gives a factor in [0, 1] that multiplies the rate, so that shape and size of the rate
are two separate tumblers. Positional is `progress`, where the run stands.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nnref.bounds import Probability

Array = jax.Array


class Progress(NamedTuple):
    """Where a run stands."""

    step: Array  # updates made before this one, a traced integer
    steps: int  # updates of the whole run
    steps_per_epoch: int


def constant(progress: Progress) -> Array:
    """The same rate throughout: 1."""
    return jnp.ones_like(progress.step, dtype=jnp.float32)


def cosine(progress: Progress, *, final: Probability = 0.0) -> Array:
    """Half a cosine from 1 down to `final`: final + (1 - final) (1 + cos(pi t/T)) / 2.

    t/T is the share of the run that is done (Loshchilov and Hutter 2017, eq. 5, one cycle).

    Args:
        final: factor at the end of the run.
    """
    share = jnp.minimum(progress.step / progress.steps, 1.0)
    return final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * share))


SCHEDULES = {
    "constant": constant,
    "cosine": cosine,
}
