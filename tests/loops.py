"""Small training loops, as people write them, that the tests of nnref.examine share."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

import nnref

DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(128, 2)).astype(np.float32)
Y = np.tanh(X @ np.array([[1.0], [-1.0]], np.float32)) * X[:, :1]
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 128, 16)]
TX = optax.adam(1e-2)
EFFORT = float(os.environ.get("NNREF_EFFORT", "0"))  # of runs that look for the reason: none here


def drawn(seed=0):
    """The parameters of a 2-16-1 network."""
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "w1": jax.random.normal(first, (2, 16)),
        "b1": jnp.zeros(16),
        "w2": 0.3 * jax.random.normal(second, (16, 1)),
        "b2": jnp.zeros(1),
    }


def network(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def squares(params, x, y):
    return jnp.mean((network(params, x) - y) ** 2)


@jax.jit
def plain(params, opt_state, x, y):
    """A healthy step of plain JAX."""
    value, gradient = jax.value_and_grad(squares)(params, x, y)
    updates, opt_state = TX.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


def begun(optimizer=TX):
    """Parameters and the optimizer's state."""
    params = drawn()
    return params, optimizer.init(params)


def faults(step, state, batches=BATCHES, evaluate=None, **others):
    """The causes of the faults that are found in a loop; nnref makes no mistake on the way."""
    found = nnref.examine(step, state, batches, evaluate, **({"effort": EFFORT} | others))
    assert not found.mistakes, found.mistakes
    return [finding.cause for finding in found.faults]


def first(step, state, batches=BATCHES, evaluate=None, **others):
    """The first fault that is found in a loop."""
    found = nnref.examine(step, state, batches, evaluate, **({"effort": EFFORT} | others))
    assert not found.mistakes, found.mistakes
    assert found.faults, found
    return found.faults[0]
