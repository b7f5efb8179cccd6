"""What goes wrong little by little, and what only looks so: optax's own sums, slow decays."""

import jax
import jax.numpy as jnp
import optax
import pytest
from loops import BATCHES, begun, drawn, faults, first, network, plain, squares
from networks import line_of

import nnref

EVERY = 4


def accumulating(cleared):
    """Updates from the gradients of four batches."""
    tx = optax.sgd(0.05)
    params = drawn()
    zeros = jax.tree.map(jnp.zeros_like, params)

    def step(params, sums, count, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        sums = jax.tree.map(lambda a, b: a + b / EVERY, sums, gradient)
        count += 1
        if count % EVERY == 0:
            params = optax.apply_updates(params, tx.update(sums, tx.init(params))[0])
            sums = zeros if cleared else sums
        return (params, sums, count), value

    return lambda state, batch: step(*state, *batch), (params, zeros, 0)


def test_gradients_that_are_never_cleared_pile_up():
    found = first(*accumulating(cleared=False))
    assert found.cause == "wrong_gradient"
    assert "never set back" in found.evidence
    assert "wrong_gradient" not in faults(*accumulating(cleared=True))


@pytest.mark.parametrize(
    ("gathered", "moved", "piles"),
    [
        (lambda total, g: total + g, lambda p, total, g: p - 0.01 * total, True),
        (lambda total, g: g / 4 + total, lambda p, total, g: 0.999 * p - 0.01 * total, True),
        (lambda total, g: 0.9 * total + g, lambda p, total, g: p - 0.01 * total, False),  # momentum
        (lambda total, g: total + g**2, lambda p, total, g: p - 0.05 * g / (total + 1), False),
    ],
)
def test_a_sum_that_every_step_adds_to_and_updates_by(gathered, moved, piles):
    @jax.jit
    def step(params, optimizer, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        sums = jax.tree.map(gathered, optimizer["sums"], gradient)
        return jax.tree.map(moved, params, sums, gradient), {"sums": sums}, value

    params, sums = with_zeros(drawn())
    found = nnref.examine(step, (params, {"sums": sums}), BATCHES, effort=0)
    assert any("never set back" in finding.evidence for finding in found.faults) == piles


@pytest.mark.parametrize("cleared", [True, False])
def test_a_sum_that_adam_is_given(cleared):
    tx = optax.adam(3e-3)

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(state["params"], *batch)
        sums = jax.tree.map(jnp.add, state["sums"], gradient)
        updates, opt_state = tx.update(sums, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        sums = jax.tree.map(jnp.zeros_like, sums) if cleared else sums
        return {"params": params, "opt": opt_state, "sums": sums}, value

    params, sums = with_zeros(drawn())
    found = faults(step, {"params": params, "opt": tx.init(params), "sums": sums})
    assert found == ([] if cleared else ["wrong_gradient"])


def test_dual_averaging_sums_gradients_on_purpose():
    begin = drawn()

    @jax.jit
    def step(params, sums, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        sums = jax.tree.map(jnp.add, sums, gradient)
        return jax.tree.map(lambda p, total: p - 0.05 * total, begin, sums), sums, value

    assert faults(step, with_zeros(begin)) == []


def with_zeros(params):
    return params, jax.tree.map(jnp.zeros_like, params)


def test_the_sums_and_moments_of_optax_are_its_own():
    tx = optax.MultiSteps(optax.adam(1e-2), EVERY)

    @jax.jit
    def step(params, opt_state, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    assert faults(step, begun(tx)) == []


def shrinking(factor):
    """A rate that is changed in every step."""
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.05)

    def step(state, batch):
        params, opt_state = state
        value, gradient = jax.value_and_grad(squares)(params, *batch)
        updates, opt_state = tx.update(gradient, opt_state, params)
        opt_state.hyperparams["learning_rate"] *= factor
        return (optax.apply_updates(params, updates), opt_state), value

    return step, (drawn(), tx.init(drawn()))


@pytest.mark.parametrize(("factor", "melts"), [(0.9, True), (0.999, False), (1.0, False)])
def test_a_rate_that_melts(factor, melts):
    causes = faults(*shrinking(factor))
    assert ("learning_rate_too_low" in causes) == melts


def in_half(rate):
    """Parameters in bfloat16, and moments in float32."""
    tx = optax.sgd(rate)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), drawn())

    @jax.jit
    def step(params, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates = tx.update(gradient, tx.init(params))[0]
        return optax.apply_updates(params, updates), value

    return lambda state, batch: step(state, *batch), params


def test_updates_that_half_precision_cannot_tell():
    assert "numerical_instability" in faults(*in_half(1e-4))
    assert "numerical_instability" not in faults(*in_half(1.0))


def test_a_loss_that_no_loop_gets_down_is_worth_a_note():
    import nnref
    from nnref.diagnosis.loop.examine import examine

    key = jax.random.key(3)

    @jax.jit
    def step(params, opt_state, x, y, key):
        def loss(params):  # what is asked for is drawn anew, and nothing in x tells it
            noise = jax.random.normal(key, (4096,))
            return jnp.mean((0.01 * network(params, x).mean() - noise) ** 2)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = optax.adam(1e-3).update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    found = examine(step, begun(optax.adam(1e-3)), BATCHES, key=key)
    assert "no_signal" in [note.cause for note in found.notes]
    assert "no_signal" not in [note.cause for note in nnref.examine(plain, begun(), BATCHES).notes]


def with_an_average(dtype, averaged):
    """A step that keeps an average of the parameters; `averaged` gives the new one."""

    @jax.jit
    def step(state, batch, key):
        *learning, mean, count = state
        *learning, value = plain(*learning, *batch)
        mean = jax.tree.map(lambda m, p: averaged(m, p, count, key), mean, learning[0])
        return (*learning, mean, count + 1), value

    mean = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn())
    return step, (*begun(), mean, jnp.int32(0))


def by_a_hundredth(m, p, count, key):
    return m + 0.01 * (p.astype(m.dtype) - m)  # by_a_hundredth


def cast_behind(m, p, count, key):
    return (0.99 * m.astype(jnp.float32) + 0.01 * p).astype(jnp.bfloat16)  # cast_behind


def by_half(m, p, count, key):
    return m + 0.5 * (p.astype(m.dtype) - m)


def now_and_then(m, p, count, key):
    return jnp.where(count % 10 == 0, p.astype(m.dtype), m)


def rounded_at_random(m, p, count, key):
    wide = m.astype(jnp.float32) + 0.01 * (p - m)
    bits = jax.lax.bitcast_convert_type(wide, jnp.uint32)
    bits = (bits + (jax.random.bits(key, m.shape) >> 16)) & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.bfloat16)


@pytest.mark.parametrize("averaged", [by_a_hundredth, cast_behind])
def test_an_average_whose_steps_half_precision_cannot_tell(averaged):
    found = first(*with_an_average(jnp.bfloat16, averaged))
    assert found.cause == "numerical_instability"
    assert "of the way" in found.evidence
    assert f"test_wearing.py:{line_of(__file__, averaged.__name__)}" in found.where


@pytest.mark.parametrize(
    ("dtype", "averaged"),
    [
        (jnp.float32, by_a_hundredth),
        (jnp.bfloat16, by_half),
        (jnp.bfloat16, now_and_then),
        (jnp.bfloat16, rounded_at_random),
    ],
)
def test_averages_that_get_where_they_should(dtype, averaged):
    assert "numerical_instability" not in faults(*with_an_average(dtype, averaged))
