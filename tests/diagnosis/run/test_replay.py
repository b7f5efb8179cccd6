"""The step that gives the first number which is not finite, taken again."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import X, Y, recipe_of, task

from nnref.diagnosis.run.replay import birth_in_run
from nnref.diagnosis.run.starts import first_network
from nnref.diagnosis.run.trials import Trainer


def followed(**changes):
    recipe = replace(recipe_of(task()), **changes)
    return birth_in_run(Trainer(recipe), first_network(recipe))


def far_roots(outputs, y):
    return jnp.mean((outputs - y) ** 2) + 0 * jnp.sqrt(0 * outputs).sum()


def test_a_gradient_is_followed_to_the_operation_and_the_first_step():
    cause = followed(loss=far_roots)
    assert cause is not None
    assert (cause.step, cause.schedule) == (1, False)
    assert cause.birth.name == "the derivative of a root of 0 or less"
    assert "test_replay.py" in cause.birth.where


def test_a_schedule_is_followed_in_the_optimizer_to_its_step():
    def rate(step):
        return 1e-2 * jnp.sqrt(2.0 - step)

    cause = followed(optimizer=optax.sgd(rate))
    assert cause is not None
    assert (cause.step, cause.schedule) == (4, True)
    assert cause.birth.name == "a root of 0 or less"


def test_a_step_has_its_own_batch():
    """The last row alone has a root of 0: it is met in the last batch, as nothing is shuffled."""
    y = np.where(np.arange(len(Y))[:, None] == len(Y) - 1, 0, Y**2 + 1).astype(np.float32)

    def loss(outputs, y):
        return jnp.mean(jnp.sqrt(y + 0 * outputs))

    cause = followed(loss=loss, train=(X, y), shuffle=False, batch_size=16)
    assert cause is not None
    assert cause.step == -(-len(X) // 16)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.01), optax.adam(1e-3)])
def test_a_run_without_such_a_number_has_no_cause(optimizer):
    assert followed(optimizer=optimizer) is None
