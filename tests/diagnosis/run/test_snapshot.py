"""The network before its first step: units, gradients, and the places of a sequence."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import X, Y, linear

from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.run.snapshot import ROWS, leaf_index, level_of, looked_at


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


def test_a_level_counts_units_that_no_row_activates_and_units_without_slope():
    """The first unit is dead and so still, the second still at 1, three move as what goes in."""
    before = np.array([[-1.0, 8.0, 2.0, 0.5, 0.0], [-2.0, 9.0, 1.0, 2.0, 3.0]])
    after = np.array([[0.0, 1.0, 2.0, 0.5, 0.0], [0.0, 1.0, 1.0, 2.0, 3.0]])
    level = level_of(before, after)
    assert (level.units, level.dead, level.saturated) == (5, 0.2, 0.4)
    assert level.size == pytest.approx(np.sqrt((1 + 4 + 0.25 + 1 + 1 + 4 + 9) / 10))


def test_places_of_a_row_count_as_rows_and_one_axis_is_one_unit():
    images = np.arange(24.0).reshape(2, 3, 4)
    images[:, 0, 1] = 0  # a unit that is 0 in one place is not dead
    level = level_of(images, images)
    assert level == level_of(images.reshape(6, 4), images.reshape(6, 4))
    assert level.dead == 0
    assert level_of(np.ones(5), np.zeros(5)).units == 1


def test_a_look_at_a_linear_map_has_its_loss_gradient_and_kernel():
    measured = Measurements(linear(), 30.0)
    w = np.asarray(measured.initial[0]["w"], float)
    error = X @ w - Y
    assert measured.start.loss == pytest.approx(np.mean(error**2), rel=1e-5)
    gradient = 2 * X.T @ error / len(X)
    assert measured.start.gradients == pytest.approx([np.sqrt(np.mean(gradient**2))], rel=1e-5)
    assert measured.start.kernels == pytest.approx([np.sqrt(np.mean(w**2))], rel=1e-6)
    assert measured.start.times == ()  # rows are no sequences


def test_a_look_sees_rows_of_the_whole_data_each_once():
    x = np.zeros((ROWS + 300, 3), np.float32)
    rows = looked_at(replace(linear(), train=(x, x)))
    assert len(rows) == len(set(rows.tolist())) == ROWS
    assert rows.max() > ROWS
    assert len(looked_at(linear())) == len(X)
    assert len(looked_at(replace(linear(), rows=8))) == 8


def of_triplets(outputs, y):
    apart = jnp.abs(outputs - outputs.T)
    return jnp.mean(jnp.maximum(apart[:, :, None] - apart[:, None] + 0.1, 0) * (y[:, None] > 0))


def of_pairs(outputs, y):
    return jnp.mean(jnp.abs(jnp.abs(outputs - outputs.T) - jnp.abs(y - y.T)))


def of_many_places(outputs, y):
    return jnp.mean((jnp.tile(outputs, (1, 40_000)) - y) ** 2)


@pytest.mark.parametrize(
    ("loss", "rows"), [(of_triplets, ROWS // 2), (of_pairs, ROWS), (of_many_places, ROWS)]
)
def test_a_loss_that_keeps_a_cube_of_rows_is_asked_of_fewer(loss, rows):
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    assert len(looked_at(replace(linear(), train=(x, x[:, :1]), loss=loss))) == rows


def test_leaves_have_the_place_that_jax_flattens_them_to():
    params = {"b": {"w": 2, "a": 1}, "a": [0]}
    places = leaf_index(params)
    assert {name: jax.tree.leaves(params)[place] for name, place in places.items()} == {
        "a.0": 0,
        "b.a": 1,
        "b.w": 2,
    }


def test_tokens_looked_up_one_by_one_under_two_vmaps_have_places_too():
    def network(params, state, x, key, train):
        def read(row):
            vectors = jax.vmap(lambda token: params["table"][token])(row)
            return jnp.tanh(vectors @ vectors.T @ vectors)[0] @ params["w"]

        return jax.vmap(read)(x), state

    def start(key):
        return {"table": jax.random.normal(key, (6, 4)), "w": jnp.ones((4, 1))}, {}

    tokens = np.random.default_rng(1).integers(0, 6, (40, 10))
    recipe = replace(linear(), init=start, apply=network, train=(tokens, Y[:40]))
    times = Measurements(recipe).start.times
    assert len(times) in (0, 10)
    assert all(isinstance(size, float) for size in times)


def test_a_level_whose_shape_changes_behind_its_product_has_no_slopes():
    pooled = level_of(np.ones((4, 10, 3)), np.arange(8.0).reshape(4, 2))
    assert (pooled.units, pooled.saturated) == (2, 0.0)
