"""A state that is carried from batch to batch, against the order in which the batches were cut."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import TX

import nnref

ROWS, SPAN, WIDTH = 6, 9, 4
IDS = np.random.default_rng(0).integers(0, 12, ROWS * SPAN * 8 + 1)


def in_order(ids):
    """Row i of a batch begins where row i of the batch before ended."""
    return ids.reshape(ROWS, -1, SPAN).swapaxes(0, 1)


def row_by_row(ids):
    """A batch is filled row by row."""
    return ids.reshape(-1, ROWS, SPAN)


def anywhere(ids):
    """Windows in an order of their own, in every row another one: they go on nowhere."""
    return np.random.default_rng(1).permutation(ids.reshape(-1, SPAN)).reshape(-1, ROWS, SPAN)


def shuffled(ids):
    """Batches in an order of their own."""
    return np.random.default_rng(1).permutation(in_order(ids))


def drawn():
    random = np.random.default_rng(0)
    shapes = {"embed": (12, WIDTH), "own": (WIDTH, WIDTH), "head": (WIDTH, 12)}
    return {name: jnp.asarray(random.normal(size=s) / 2, jnp.float32) for name, s in shapes.items()}


def unrolled(params, carry, x):
    def tick(carry, letter):
        carry = jnp.tanh(params["embed"][letter] + carry @ params["own"])
        return carry, carry @ params["head"]

    carry, logits = jax.lax.scan(tick, carry, x.T)
    return carry, logits.swapaxes(0, 1)


def step_of(carries):
    """A step of a recurrent network over windows; `carries` says whether its state goes on."""

    @jax.jit
    def step(state, batch):
        x, y = batch

        def loss(params):
            carry, logits = unrolled(params, state["carry"], x)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return each.mean(), carry

        (value, carry), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, opt_state = TX.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        carry = jax.lax.stop_gradient(carry) if carries else state["carry"]
        return {"params": params, "opt_state": opt_state, "carry": carry}, value

    params = drawn()
    carry = jnp.zeros((ROWS, WIDTH))
    return step, {"params": params, "opt_state": TX.init(params), "carry": carry}


@pytest.mark.parametrize(
    ("cut", "carries", "told"),
    [
        (row_by_row, True, ["state_not_carried"]),
        (shuffled, True, ["state_not_carried"]),
        (in_order, True, []),
        (anywhere, True, []),
        (row_by_row, False, []),
        (shuffled, False, []),
    ],
    ids=["row by row", "shuffled", "in order", "anywhere", "from 0, row by row", "from 0"],
)
def test_a_carried_state_belongs_to_the_row_that_goes_on(cut, carries, told):
    x, y = cut(IDS[:-1]), cut(IDS[1:])
    batches = [(jnp.asarray(a), jnp.asarray(b)) for a, b in zip(x, y, strict=True)]
    found = nnref.examine(*step_of(carries), batches, effort=0)
    of_streams = [f for f in found.faults if "belongs to another place" in f.evidence]
    assert [finding.cause for finding in of_streams] == told
    assert all(("next row" in f.evidence) == (cut is row_by_row) for f in of_streams)
    assert found.measures["roles"]["carry"] == "other"


def averaged(resets):
    """A step whose state is a running mean of each row; `resets` begins it anew in every batch."""

    @jax.jit
    def step(state, batch):
        carry = jnp.zeros((ROWS, 1)) * state["carry"] if resets else state["carry"]

        def loss(params):
            expected = params["w"] * batch[:, :-1] + carry * params["b"]
            return jnp.mean((expected - batch[:, 1:]) ** 2)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, opt_state = TX.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        carry = 0.5 * carry + 0.5 * batch.mean(1, keepdims=True)
        return {"params": params, "opt_state": opt_state, "carry": carry}, value

    params = {"w": jnp.ones(19), "b": 0.1 * jnp.ones(19)}
    return step, {"params": params, "opt_state": TX.init(params), "carry": jnp.zeros((ROWS, 1))}


WAVE = np.sin(np.arange(ROWS * 160) / 5).astype(np.float32)
IN_ORDER = WAVE.reshape(ROWS, -1, 20).swapaxes(0, 1)


@pytest.mark.parametrize(
    ("batches", "resets", "words"),
    [
        (WAVE.reshape(-1, ROWS, 20), False, "next row of its own"),
        (IN_ORDER[[3, 0, 6, 1, 7, 4, 2, 5]], False, "order of their own"),
        (IN_ORDER, False, ""),
        (IN_ORDER[[3, 0, 6, 1, 7, 4, 2, 5]], True, ""),
        (np.random.default_rng(0).normal(size=IN_ORDER.shape).astype(np.float32), False, ""),
    ],
    ids=["across", "shuffled", "in order", "shuffled, and begun anew", "noise"],
)
def test_a_series_without_targets_goes_on_where_it_is_near(batches, resets, words):
    found = nnref.examine(*averaged(resets), [jnp.asarray(rows) for rows in batches], effort=0)
    of_streams = [f for f in found.faults if "belongs to another place" in f.evidence]
    assert bool(of_streams) == bool(words)
    assert all(words in finding.evidence for finding in of_streams)
