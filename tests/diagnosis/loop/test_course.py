"""The course of a state: how far its leaves move, and what they are."""

import jax
import numpy as np
import optax
from loops import BATCHES, begun, squares

from nnref.diagnosis.loop.course import distance, inexact
from nnref.diagnosis.loop.running import Loop


def test_distances():
    assert distance(np.ones(2), np.ones(2)) == 0
    assert distance(np.zeros(2), np.array([3.0, 4.0])) == 5
    assert distance(np.zeros(2), np.zeros(3)) == np.inf
    assert distance(np.array([np.nan]), np.array([np.nan])) == 0


def test_floating_point():
    assert inexact(np.ones(2, np.float16))
    assert not inexact(np.ones(2, np.int32))


def test_leaves_that_stand_and_the_updates_of_a_turn():
    optimizer = optax.sgd(optax.constant_schedule(0.1))

    @jax.jit
    def twice(params, opt_state, x, y):
        for _ in range(2):
            value, gradient = jax.value_and_grad(squares)(params, x, y)
            gradient["b1"] = 0 * gradient["b1"]
            updates, opt_state = optimizer.update(gradient, opt_state)
            params = optax.apply_updates(params, updates)
        return params, opt_state, value

    loop = Loop([twice], begun(optimizer), BATCHES, None, jax.random.key(0), {}, 4)
    loop.run()
    assert loop.updates == 2
    assert loop.stands("0.b1")
    assert not loop.stands("0.w1")
    assert loop.moves["0.w1"].shape == (4,)
    assert loop.optimizers == {"1.1.count"}
