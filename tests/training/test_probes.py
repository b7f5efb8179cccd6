"""Measures inside the network: what is measured of each layer, and the table of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from nnref.parts.activations import ACTIVATIONS, RANGES
from nnref.training import probes

# --- layers -------------------------------------------------------------------------------------


def test_arrays_belong_to_the_innermost_layer_that_is_called():
    assert probes.owner("layers.1.dense.kernel", ["layers", "layers.1"]) == "layers.1"
    assert probes.owner("layers.11.dense.kernel", ["layers.1"]) is None


def test_arrays_of_plain_functions_belong_to_their_branch():
    params = {"b": {"w": jnp.ones(3), "c": {"w": 2 * jnp.ones(4)}}, "a": jnp.ones(1)}
    assert probes.layer_names(params, []) == ["parameters", "b.c", "b"]
    np.testing.assert_allclose(probes.norms(params, []), [1, 4, np.sqrt(3)], rtol=1e-6)


def test_layers_come_in_the_order_of_their_calls():
    params = {"first": {"w": jnp.ones(1)}, "last": {"w": jnp.ones(1)}, "beside": jnp.ones(1)}
    assert probes.layer_names(params, ["last", "pool", "first"]) == ["last", "first", "parameters"]


# --- shares -------------------------------------------------------------------------------------


def test_a_unit_is_dead_that_gives_the_same_for_every_row():
    h = jnp.array([[[0.0, 1.0, 5.0, 1.0]], [[0.0, 2.0, 5.0, 1.0]], [[0.0, 1.0, 5.0, 2.0]]])
    assert probes.dead(h) == 0.5


def test_an_output_is_saturated_within_a_hundredth_of_the_range_from_an_end():
    h = jnp.array([-1.0, -0.985, -0.975, 0.0, 0.975, 0.985, 1.0, 0.5])
    assert probes.saturated(h, ACTIVATIONS["tanh"]) == 0.5
    assert probes.saturated(h / 2 + 0.5, ACTIVATIONS["sigmoid"]) == 0.5
    assert np.isnan(probes.saturated(h, ACTIVATIONS["relu"]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ranges_are_those_of_the_functions(name):
    activation = ACTIVATIONS[name]
    if isinstance(activation, type) or name == "maxout":
        assert activation not in RANGES
        return
    ends = activation(jnp.array([-1e6, 1e6]))
    bounded = bool(jnp.all(jnp.abs(ends) < 10))
    assert bounded == (activation in RANGES)
    if bounded:
        np.testing.assert_allclose(ends, RANGES[activation], atol=1e-5)


# --- how often, and the table ---------------------------------------------------------------------


def test_measurements_are_few_enough_to_be_cheap(monkeypatch):
    monkeypatch.setattr(probes, "FREE", 30)
    assert probes.stride(epochs=20, steps_per_epoch=30) == 1
    assert probes.stride(epochs=2000, steps_per_epoch=1) == 30
    assert probes.stride(epochs=100_000, steps_per_epoch=100) == 1000
    for steps in range(1, 40):
        assert steps * probes.stride(10, steps) >= 30


def test_a_table_of_steps_counts_those_taken_before():
    of_epochs, of_steps = np.full((1, 2, 1), 0.5), np.arange(18.0).reshape(2, 3, 3, 1)
    table = probes.table(["a"], 5, 3, np.array([6]), of_epochs, of_steps)
    assert table["step"].tolist() == [12, 13, 14, 15, 16, 17]
    np.testing.assert_allclose(table["epoch"], np.arange(12, 18) / 3)
    assert table["a"]["weight_norm"].tolist() == [1, 4, 7, 10, 13, 16]
    assert table["a"]["dead"][3] == 0.5
    assert np.isnan(table["a"]["dead"][[0, 1, 2, 4, 5]]).all()
