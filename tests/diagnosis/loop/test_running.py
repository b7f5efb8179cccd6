"""A loop as it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import BATCHES, TX, begun, plain, squares

import nnref
from nnref import UserError
from nnref.diagnosis.loop.running import Loop, batches_of, made


def test_where_batches_come_from():
    assert batches_of(lambda number: number, 3) == [0, 1, 2]
    assert batches_of(iter([1, 2, 3, 4]), 3) == [1, 2, 3]
    assert batches_of(None, 3) == []
    assert batches_of(made(lambda: iter([1, 2, 3, 4])), 3) == [1, 2, 3]
    assert batches_of(made(lambda number: number), 3) == [0, 1, 2]
    for refused in ([], {"x": 1}, jnp.ones(3)):
        with pytest.raises(UserError, match="examine: batches is"):
            batches_of(refused, 3)


def test_the_steps_are_those_that_the_user_would_make():
    loop = Loop([plain], begun(), BATCHES, None, jax.random.key(0), {}, 10)
    loop.run()
    params, opt_state = begun()
    losses = []
    for number in range(10):
        params, opt_state, value = plain(params, opt_state, *BATCHES[number % 8])
        losses.append(float(value))
    np.testing.assert_allclose(loop.loss(), losses, rtol=1e-6)
    np.testing.assert_array_equal(loop.states[-1]["0.w1"], params["w1"])
    assert loop.updates == 1


def one_by_one(state, batch):
    """A step whose operations run one by one, more of them than are worth to be run so."""
    params, opt_state = state
    value, gradient = jax.value_and_grad(squares)(params, *batch)
    updates, opt_state = TX.update(gradient, opt_state)
    return (optax.apply_updates(params, updates), opt_state), value


@pytest.mark.parametrize("outside", [False, True])
def test_a_step_that_is_not_compiled_makes_its_further_turns_as_one_program(outside):
    made = []

    def step(state, batch):
        made.append(len(made))
        state, value = one_by_one(state, batch)
        if outside:  # what a trace would keep from the first call
            state = jax.tree.map(lambda leaf: leaf * (1 + 0.001 * len(made)), state)
        return state, value

    loop = Loop([step], begun(), BATCHES, None, jax.random.key(0), {}, 6)
    loop.run()
    before, further = len(made), loop.further
    assert (len(made) - before < 5) == (not outside)
    if not outside:
        state = begun()
        for number in range(6 + len(further.lengths)):
            state, value = one_by_one(state, loop.batch(number))
        for leaf, other in zip(jax.tree.leaves(state), further.state.arrays.values(), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-5)
        assert further.losses[-1] == pytest.approx(float(value), rel=1e-4)


def test_an_update_that_rounding_would_hide_is_compared_by_itself():
    made = []

    def step(state, batch):
        made.append(len(made))
        params, value = state, squares(state, *batch)
        slopes = jax.grad(squares)(params, *batch)
        return jax.tree.map(lambda p, g: p - 1e-6 * len(made) * g, params, slopes), value

    loop = Loop([step], begun()[0], BATCHES, None, jax.random.key(0), {}, 6)
    loop.run()
    loop.programs[0].trace.calls = 100
    assert loop.compiled == [None]


def test_buffers_that_a_step_gives_away_are_copied_in_all_turns():
    loop = Loop(
        [jax.jit(one_by_one, donate_argnums=0)], begun(), BATCHES, None, jax.random.key(0), {}, 6
    )
    loop.run()
    assert isinstance(jnp.ones(1), loop.written)
    assert np.isfinite(loop.further.losses).all()
    for _ in range(2):
        assert loop.again(0).metrics == loop.calls[0][0].metrics
    kept = Loop([jax.jit(one_by_one)], begun(), BATCHES, None, jax.random.key(0), {}, 6)
    kept.run()
    assert not isinstance(jnp.ones(1), kept.written)
    np.testing.assert_array_equal(kept.further.losses, loop.further.losses)


def test_a_batch_that_a_step_writes_into_is_its_own_in_all_turns():
    rows = [(np.array(x), np.array(y)) for x, y in BATCHES]

    def step(state, batch):
        x, y = batch
        after = plain(*state, x, y)
        x *= 0
        return after[:2], after[2]

    loop = Loop([step], begun(), rows, None, jax.random.key(0), {}, 6)
    loop.run()
    assert loop.further.losses[-1] < loop.loss()[0]
    np.testing.assert_array_equal(rows[0][0], BATCHES[0][0])


def test_a_large_state_is_stepped_fewer_times():
    params, opt_state = begun()
    state = params | {"large": jnp.zeros(2**24)}
    loop = Loop([plain], (state, opt_state), BATCHES, None, jax.random.key(0), {}, 40)
    assert loop.count == 6


def test_steps_in_turn():
    def halves(names):
        @jax.jit
        def step(state, batch):
            value, gradient = jax.value_and_grad(squares)(state["params"], *batch)
            gradient = {n: g if n in names else 0 * g for n, g in gradient.items()}
            updates, opt_state = TX.update(gradient, state["opt_state"])
            params = jax.tree.map(jnp.add, state["params"], updates)
            return {"params": params, "opt_state": opt_state}, value

        return step

    params, opt_state = begun()
    found = nnref.examine(
        [halves({"w1", "b1"}), halves({"w2", "b2"})],
        {"params": params, "opt_state": opt_state},
        BATCHES,
        steps=6,
    )
    assert not found.faults
    assert found.measures["steps made"] == 6


def test_what_a_step_raises_is_told_as_the_users_with_its_line():
    def step(state, batch):
        return state["missing"]

    found = nnref.examine(step, {"w": jnp.ones(2)}, BATCHES)
    assert found.faults[0].cause == "broken_program"
    assert "test_running.py:" in found.faults[0].where
    assert not found.mistakes
