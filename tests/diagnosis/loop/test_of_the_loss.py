"""The loss inside of a step: its random numbers, and what a loss that stands alone is asked."""

import jax
import jax.numpy as jnp
import optax
import pytest
from loops import BATCHES, TX, X, Y, begun, faults, first, network, squares
from networks import line_of


def noisy(params, x, y, key):
    return squares(params, x + 0.3 * jax.random.normal(key, x.shape), y)


def step_of(key_of):
    """A step that draws noise with a key of its state; `key_of` gives that key and the next."""

    @jax.jit
    def step(state, batch):
        one, key = key_of(state["key"], state["opt_state"][0].count)
        value, gradient = jax.value_and_grad(noisy)(state["params"], *batch, one)
        updates, opt_state = TX.update(gradient, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state, "key": key}, value

    params, opt_state = begun()
    return step, {"params": params, "opt_state": opt_state, "key": jax.random.key(1)}


def test_a_key_that_the_step_gives_back_as_it_came():
    found = first(*step_of(lambda key, count: (jax.random.split(key)[0], key)))
    assert found.cause == "random_key_reused"
    assert found.where.startswith("key; ")


def test_a_key_that_is_made_of_one_number_is_named_at_its_line():
    def same(key, count):
        return jax.random.PRNGKey(0), key  # the same

    found = first(*step_of(same))
    assert found.cause == "random_key_reused"
    assert found.where.endswith(f"test_of_the_loss.py:{line_of(__file__, 'the same')}")


@pytest.mark.parametrize(
    "key_of",
    [
        lambda key, count: tuple(jax.random.split(key)),
        lambda key, count: (jax.random.fold_in(key, count), key),
    ],
)
def test_keys_that_advance_or_count_are_healthy(key_of):
    assert faults(*step_of(key_of)) == []


def test_a_step_that_takes_a_key_and_draws_from_another():
    def step_with(fresh):
        @jax.jit
        def step(params, opt_state, x, y, key):
            one = key if fresh else jax.random.key(3)
            value, gradient = jax.value_and_grad(noisy)(params, x, y, one)
            updates, opt_state = TX.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, value

        return step

    assert faults(step_with(fresh=False), begun()) == ["random_key_reused"]
    assert faults(step_with(fresh=True), begun()) == []


def test_random_features_are_meant_to_stay():
    @jax.jit
    def step(params, opt_state, x, y):
        directions = jax.random.normal(jax.random.key(0), (2, 2))
        value, gradient = jax.value_and_grad(squares)(params, jnp.sin(x @ directions), y)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    assert faults(step, begun()) == []


def test_outputs_against_targets_of_another_shape():
    def step_for(loss):
        @jax.jit
        def step(params, opt_state, x, y):
            value, gradient = jax.value_and_grad(loss)(params, x, y)
            updates, opt_state = TX.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, value

        return step

    def matrix(params, x, y):
        return jnp.mean((network(params, x) - y) ** 2)

    flat = [(x, y[:, 0]) for x, y in BATCHES]
    assert faults(step_for(matrix), begun(), flat) == ["loss_broadcast"]
    assert faults(step_for(matrix), begun(), [(X[:16], Y[:16]), (X[16:32], Y[16:32])]) == []


OTHERS = begun()[0]


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (lambda state: OTHERS, ["parameters_not_updated"]),
        (lambda state: state["judged"], ["parameters_not_updated"]),
        (lambda state: state["params"], []),
        (lambda state: jax.tree.map(jnp.add, state["judged"], state["params"]), []),
    ],
    ids=["captured", "another network", "its own", "its own beside a frozen one"],
)
def test_a_loss_of_other_parameters_than_those_that_move(weights, found):
    """The gradient is taken of one network, and the update made of another."""

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(weights(state), *batch)
        updates, opt_state = TX.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        return state | {"params": params, "opt_state": opt_state}, {"loss": value}

    params, opt_state = begun()
    state = {"params": params, "opt_state": opt_state, "judged": jax.tree.map(jnp.copy, params)}
    assert faults(step, state) == found
