"""The learning rate over a run, computed again from its schedule."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nnref.experiment.experiment import Experiment
from nnref.parts.schedules import PlateauState, Progress, observe, plateau
from nnref.training.setup import Setup, bind

POINTS = 600


def learning_rates(
    experiment: Experiment, setup: Setup, steps: np.ndarray, reductions: np.ndarray
) -> np.ndarray:
    """The rates (n,) of some updates, by optimizer and schedule of an experiment.

    Args:
        experiment: of the run.
        setup: knows the length of the run and of an epoch.
        steps: numbers of the updates, from 0, (n,).
        reductions: how often a plateau has been seen before each, (n,).
    """
    schedule = bind(experiment, "schedule", {})

    def factor(step: jax.Array, reduced: jax.Array) -> jax.Array:
        return schedule(Progress(step, setup.steps, setup.steps_per_epoch, reduced))

    factors = jax.jit(jax.vmap(factor))(steps.astype(np.int32), reductions.astype(np.int32))
    return np.asarray(experiment.optimizer.learning_rate * factors)


def rate_of_run(
    experiment: Experiment, setup: Setup, valid_loss: np.ndarray, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rate of a run over its first epochs; a schedule may have listened to `valid_loss`.

    Returns:
        Epochs, in which an update stands at the share of its epoch that is done, and rates.
    """
    steps = max(1, epochs * setup.steps_per_epoch)
    some = np.unique(np.linspace(0, steps - 1, POINTS).astype(np.int64))
    seen = reductions_by_epoch(experiment, valid_loss)
    epoch = some // setup.steps_per_epoch
    reduced = seen[np.minimum(epoch, len(seen) - 1)] if len(seen) else np.zeros_like(epoch)
    return some / setup.steps_per_epoch, learning_rates(experiment, setup, some, reduced)


def reductions_by_epoch(experiment: Experiment, valid_loss: np.ndarray) -> np.ndarray:
    """How often a plateau had been seen after each epoch from 0; empty where none is looked for."""
    memory = plateau(bind(experiment, "schedule", {}))
    if memory is None or not len(valid_loss):
        return np.zeros(0, int)

    def heard(state: PlateauState, loss: jax.Array) -> tuple[PlateauState, jax.Array]:
        state = observe(state, loss)
        return state, state.reductions

    # What was measured before the first step, no schedule has heard.
    start = (jax.tree.map(jnp.asarray, memory), jnp.asarray(valid_loss[1:]))
    _, after = jax.jit(partial(jax.lax.scan, heard))(*start)
    return np.concatenate([[0], np.asarray(after)])
