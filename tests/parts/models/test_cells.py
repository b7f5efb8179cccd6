"""Recurrent cells: against the equations, and the fast loop against the plain one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nnref.parts.initializers import torch_linear
from nnref.parts.models.cells import CELLS, fast_scan, plain_scan
from nnref.parts.models.recurrent import Recurrent
from nnref.parts.regularizers import Regularization


def build(inputs, outputs, *, seed=0, regularization=None, **arguments):
    key = partial(jax.random.key, impl="rbg")  # compiles in half the time of threefry
    streams = nnx.Rngs(params=key(seed), dropout=key(seed + 1))
    arguments = {"units": 4} | arguments
    return Recurrent(inputs, outputs, streams, regularization or Regularization(), **arguments)


def pure(model):
    """The graph, the weights, and the rest as plain arrays."""
    graph, *parts = nnx.split(model, nnx.Param, ...)
    return graph, *(nnx.to_pure_dict(nnx.as_pure(part)) for part in parts)


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def close(given, expected, rtol=1e-6, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), given, expected)


# --- the cells ----------------------------------------------------------------------------------


def logistic(z):
    return 1 / (1 + np.exp(-z))


def by_hand(cell, x, w, u, b):
    """h of every step by the textbook, gate by gate, one example at a time."""
    units = u.shape[0]
    c = b[3 * units :]  # of a GRU

    def gate(k, h, x):
        part = slice(k * units, (k + 1) * units)
        return x @ w[:, part] + b[part], h @ u[:, part]

    outputs = []
    for sequence in x:
        h = memory = np.zeros(units)
        for step in sequence:
            if cell == "rnn":
                h = np.tanh(sum(gate(0, h, step)))
            elif cell == "gru":
                r, z = (logistic(sum(gate(k, h, step))) for k in (0, 1))
                from_input, from_state = gate(2, h, step)
                h = (1 - z) * np.tanh(from_input + r * (from_state + c)) + z * h
            else:
                i, f, o = (logistic(sum(gate(k, h, step))) for k in (0, 1, 3))
                memory = f * memory + i * np.tanh(sum(gate(2, h, step)))
                h = o * np.tanh(memory)
            outputs.append(h)
    return np.reshape(outputs, (*x.shape[:2], units))


@pytest.mark.parametrize("cell", CELLS)
def test_cells_equal_the_equations(cell, float64):
    model = build((6, 3), 2, cell=cell, answer="each", bias_initializer=torch_linear)
    graph, params, rest = pure(model)
    params = jax.tree.map(lambda w: 2 * jnp.asarray(w, jnp.float64), params)
    weights = params["layers"][0]["directions"][0]
    x = numbers(5, 6, 3)
    h = by_hand(cell, x, *(np.asarray(weights[n]) for n in ("kernel", "recurrent_kernel", "bias")))
    expected = h @ params["head"]["kernel"] + params["head"]["bias"]
    close(nnx.merge(graph, params, rest)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_fast_loop_equals_the_plain_one(cell, padded):
    cell = CELLS[cell]
    steps, batch, units, runs = 7, 5, 4, 3
    real = jnp.arange(steps)[:, None] < jnp.array([7, 1, 3, 6, 2]) if padded else None
    width = cell.sums * units
    states = tuple(numbers(runs, batch, units, seed=k) for k in range(cell.states))
    arguments = (numbers(runs, steps, batch, width), numbers(runs, units, width), states)
    arguments = jax.tree.map(lambda a: a.astype(jnp.float32), arguments)
    weigh = numbers(steps, batch, units, seed=7)

    def objective(scan, from_input, kernel, state):
        state, h = scan(cell.step, from_input, real, kernel, state)
        return sum(jnp.sum(part**3) for part in state) + jnp.sum(weigh * h**2)

    def both(*arguments):
        one, other = (
            jax.value_and_grad(partial(objective, scan), argnums=(0, 1, 2))(*arguments)
            for scan in (plain_scan, fast_scan)
        )
        return one, other

    for mapped in (jax.vmap(both), both):
        plain, fast = jax.jit(mapped)(*arguments)
        close(fast, plain, rtol=1e-5, atol=1e-5)  # float32, sums in another order
        arguments = jax.tree.map(lambda a: a[0], arguments)
