"""The network before its first step: units, gradients, and the places of a sequence."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import Y, linear

from nnref.diagnosis.judge.measurements import Measurements


@pytest.mark.parametrize(("size", "forgets"), [(0.01, True), (1.0, False)])
def test_what_the_loss_feels_of_early_tokens(size, forgets):
    """A recurrence over ten tokens, by an orthogonal matrix or a hundredth of one."""
    tokens = np.random.default_rng(1).integers(0, 6, (40, 10))

    def start(key):
        turned = jax.nn.initializers.orthogonal(size)(key, (4, 4))
        return {"table": jax.random.normal(key, (6, 4)), "turn": turned}, {}

    def network(params, state, x, key, train):
        turn = lambda h, e: (jnp.tanh(e + h @ params["turn"]), None)  # noqa: E731
        embedded = params["table"][x].swapaxes(0, 1)
        return jax.lax.scan(turn, jnp.zeros((len(x), 4)), embedded)[0][:, :1], state

    recipe = replace(linear(), init=start, apply=network, train=(tokens, Y[:40]))
    times = Measurements(recipe, 30.0).start.times
    assert len(times) == 10
    assert (times[0] < 1e-6 * times[-1]) == forgets
