"""What is measured before the first step, on networks whose answers are known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import affine, learns, line_of, mean_squared_error, recipe

from nnref.diagnosis.program.at_start import AtStart, LossAtStart, SeveralOutputs, drawn_like
from nnref.diagnosis.program.rows import uncounted


def test_the_first_update_of_plain_descent_is_its_rate_times_the_gradient():
    start = AtStart(recipe(learns, optimizer=optax.sgd(0.1)))
    drawn = jax.tree.leaves(drawn_like(start.params))
    for update, leaf in zip(jax.tree.leaves(start.step(3.0)), drawn, strict=True):
        np.testing.assert_allclose(update, -0.3 * leaf, rtol=1e-6)


def test_without_an_optimizer_the_first_update_is_0():
    start = AtStart(recipe(learns))
    assert not any(leaf.any() for leaf in jax.tree.leaves(start.step(3.0)))


def test_the_width_is_that_of_the_last_axis_and_several_outputs_have_none():
    assert AtStart(recipe(learns, (3, 5, 4))).width == 4
    flat = recipe(lambda params, x: learns(params, x)[:, 0], y=np.zeros(12, np.float32))
    assert AtStart(flat).width == 1

    def two(params, x):
        return {"a": learns(params, x), "b": learns(params, x)}

    def loss(outputs, y):
        return mean_squared_error(outputs["a"] + outputs["b"], y)

    with pytest.raises(SeveralOutputs):
        _ = AtStart(recipe(two, loss=loss)).width


def test_the_traced_step_gives_the_loss_and_the_outputs():
    start = AtStart(recipe(learns))
    traced, leaves = start.training, jax.tree.leaves((*start.arguments, jax.random.key(0)))
    loss, outputs = traced.evaluate(leaves, traced.outputs)
    x, y = start.sample.x, start.sample.y
    np.testing.assert_allclose(outputs, learns(start.params, x), rtol=1e-6)
    np.testing.assert_allclose(loss, np.mean((outputs - y) ** 2), rtol=1e-6)


def test_faults_name_the_last_layer_and_the_last_line_of_the_loss():
    def network(params, x):
        hidden = jnp.tanh(affine(params["dense0"], x))
        return affine(params["dense1"], hidden)

    def loss(outputs, y):
        error = outputs - y
        return jnp.mean(error**2)  # the last line of this loss

    start = AtStart(recipe(network, loss=loss))
    line = line_of(__file__, "the last line of this loss")
    assert start.loss_line.endswith(f"{Path(__file__).name}:{line}")
    assert "dense1" in start.last


@pytest.mark.parametrize("keyed", [False, True])
def test_a_bare_loss_is_averaged_and_gets_a_key_where_it_takes_one(keyed):
    def loss(params, batch, *key):
        assert len(key) == keyed
        return params["w"] * batch

    start = LossAtStart(loss, {"w": jnp.float32(3.0)}, jnp.array([1.0, 2.0, 6.0]), keyed)
    value, outputs, state = start.objective(*start.arguments, jax.random.key(0))
    assert (float(value), outputs, state) == (9.0, (), ())
    (traced,) = start.training.evaluate(
        jax.tree.leaves((*start.arguments, jax.random.key(0))), start.training.outputs
    )
    assert float(traced) == 9.0


def test_drawn_numbers_are_the_same_each_time_and_of_order_1():
    params = {"a": jnp.zeros((200, 3)), "b": jnp.zeros(4, jnp.bfloat16)}
    first, second = drawn_like(params), drawn_like(params)
    for name, leaf in params.items():
        assert (first[name].shape, first[name].dtype) == (leaf.shape, leaf.dtype)
        np.testing.assert_array_equal(first[name], second[name])
    assert float(first["a"].std()) == pytest.approx(1, abs=0.1)


def of_triplets(outputs, y):
    """The farthest row of the same class is to be nearer than the nearest of another."""
    apart = jnp.sum((outputs[:, None] - outputs[None]) ** 2, -1)
    same = y[:, None] == y[None]
    farthest = jnp.max(jnp.where(same, apart, 0), axis=1)
    nearest = jnp.min(jnp.where(same, jnp.inf, apart), axis=1)
    return jnp.mean(jnp.maximum(farthest - nearest + 0.2, 0))


@pytest.mark.parametrize(
    ("loss", "different"),
    [(of_triplets, 4), (lambda outputs, y: jnp.mean((outputs[:, 0] - y) ** 2), 8)],
    ids=["pairs", "rows"],
)
def test_a_loss_of_pairs_is_asked_of_rows_that_have_their_class_in_common(loss, different):
    y = np.repeat(np.arange(20), 5)[np.random.default_rng(0).permutation(100)]
    start = AtStart(recipe(learns, loss=loss, y=y, rows=100))
    assert len(start.sample.y) == 8
    assert len(np.unique(start.sample.y)) == different
    assert not list(uncounted(start))
