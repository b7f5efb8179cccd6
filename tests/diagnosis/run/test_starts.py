"""Another start to compare the user's with: He's kernels, orthogonal loops, tables of unit rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnosis.program.layers import layers
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run.starts import first_network, he_start

TOKENS = np.random.default_rng(0).integers(0, 30, (12, 6))


def reader():
    """A table, a loop with a square kernel, and a layer behind it; all kernels start at 100."""

    def init(key):
        shapes = {"table": (30, 40), "enter": (40, 50), "again": (50, 50), "leave": (50, 3)}
        return {name: jnp.full(shape, 100.0) for name, shape in shapes.items()}, {"seen": 0.0}

    def apply(params, state, x, key, train):
        def step(h, row):
            return jnp.tanh(row @ params["enter"] + h @ params["again"]), None

        rows = jnp.moveaxis(params["table"][x], 1, 0)
        last, _ = jax.lax.scan(step, jnp.zeros((len(x), 50)), rows)
        return last @ params["leave"], state

    y = np.zeros((12, 3), np.float32)
    return Recipe(init, apply, lambda outputs, y: jnp.mean((outputs - y) ** 2), train=(TOKENS, y))


def test_another_start_has_the_sizes_that_keep_a_signal():
    recipe = reader()
    network = recipe.init(jax.random.key(0))
    params, state = he_start(layers(recipe), network, 17)
    assert state == network[1]
    assert np.std(params["leave"]) == pytest.approx(np.sqrt(2 / 50), rel=0.2)
    assert np.std(params["enter"]) == pytest.approx(np.sqrt(2 / 40), rel=0.1)
    np.testing.assert_allclose(params["again"].T @ params["again"], np.eye(50), atol=1e-5)
    lengths = np.linalg.norm(params["table"], axis=1)
    assert lengths.mean() == pytest.approx(1, rel=0.1)
    again, _ = he_start(layers(recipe), network, 17)
    other, _ = he_start(layers(recipe), network, 18)
    assert (again["enter"] == params["enter"]).all()
    assert (other["enter"] != params["enter"]).all()


def test_a_first_network_is_that_of_its_seed():
    def init(key):
        return {"w": jax.random.normal(key, (3, 1))}, {}

    recipe = Recipe(
        init,
        lambda params, state, x, key, train: (x @ params["w"], state),
        lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.float32)),
        seed=5,
    )
    own, same, other = (first_network(recipe, seed)[0]["w"] for seed in (None, 5, 6))
    assert (own == same).all()
    assert (own != other).all()


def test_a_network_that_takes_no_more_rows_than_a_batch_has_a_start():
    """It adds a position to each row of a batch, as some do by mistake."""

    def init(key):
        return {"w": jnp.ones((3, 1)), "places": jnp.zeros((64, 1))}, {}

    recipe = Recipe(
        init,
        lambda params, state, x, key, train: (
            x @ params["w"] + params["places"][: len(x)],
            state,
        ),
        lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(np.zeros((3000, 3), np.float32), np.zeros((3000, 1), np.float32)),
        batch_size=64,
    )
    assert first_network(recipe)[0]["places"].shape == (64, 1)
