"""The layers of a traced network: parameters, lines, activations."""

import dataclasses

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from networks import affine, dense, line_of, recipe

from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.program.layers import activations, layers


def test_layers_tell_parameters_line_and_activation():
    def network(params, x):
        x = jax.nn.relu(affine(params["dense0"], x))
        return jax.nn.softmax(affine(params["dense1"], x))

    first, second = layers(recipe(network))
    assert (first.name, first.activation, first.shape) == ("dense0", "relu", (2, 5))
    assert (second.name, second.activation, second.shape) == ("dense1", "softmax", (2, 2))
    line = line_of(networks.__file__, 'return x @ layer["kernel"] + layer["bias"]')
    assert first.where.endswith(f"networks.py:{line}")


@pytest.mark.parametrize(
    "activation", [jax.nn.relu, jnp.tanh, jax.nn.silu, jax.nn.gelu, jax.nn.elu, jax.nn.softplus]
)
def test_activations_are_those_of_the_network(activation):
    def network(params, x):
        return affine(params["dense1"], activation(affine(params["dense0"], x)))

    asked = recipe(network)
    params, state = asked.init(jax.random.key(1))
    x = asked.train[0][:7]
    (before, after), (logits, same) = activations(asked, params, state, x)
    expected = affine(params["dense0"], x)
    np.testing.assert_allclose(before, expected, rtol=1e-6)
    np.testing.assert_allclose(after, activation(expected), rtol=1e-6)
    np.testing.assert_allclose(logits, network(params, x), rtol=1e-6)
    np.testing.assert_array_equal(same, logits)


def test_layers_behind_a_normalization_a_loop_and_a_table():
    def network(params, x):
        x = params["dense2"]["kernel"][jnp.clip(x.astype(int), 0, 4)].mean(-2)
        x = affine(params["dense0"], x)
        x = (x - x.mean(-1, keepdims=True)) / (1e-3 + x.std(-1, keepdims=True))
        x = jax.nn.silu(x)

        def turn(carry, row):
            return jnp.tanh(affine(params["dense1"], carry) + row), None

        return jax.lax.scan(turn, jnp.zeros(5), x)[0]

    found = layers(recipe(network, (5, 5, 5, 5), y=np.zeros((12, 5), np.float32)))
    assert [layer.name for layer in found] == ["dense2", "dense0", "dense1"]
    assert [layer.looped for layer in found] == [False, False, True]
    assert found[1].activation == "silu"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_over_stacked_parameters_is_a_stack_of_layers(reverse):
    def network(params, x):
        def turn(carry, layer):
            return jnp.tanh(affine(layer, carry)), None

        x = jax.nn.relu(affine(params["dense0"], x))
        return jax.lax.scan(turn, x, params["stack"], reverse=reverse)[0]

    kernels = np.random.default_rng(1).normal(size=(4, 5, 5)).astype(np.float32)
    stack = {"kernel": kernels, "bias": np.ones((4, 5), np.float32)}
    asked = dataclasses.replace(
        recipe(network, (3, 5)), init=lambda key: (dense(key, 3, 5) | {"stack": stack}, {})
    )
    found = layers(asked)
    assert [layer.name for layer in found] == ["dense0", *["stack"] * 4]
    assert [layer.activation for layer in found] == ["relu", *["tanh"] * 4]
    assert [layer.fan_in for layer in found] == [3, 5, 5, 5, 5]
    params, state = asked.init(jax.random.key(1))
    x = asked.train[0][:7]
    seen = jax.jit(lambda params, x: activations(asked, params, state, x))(params, x)
    assert len(seen) == 5
    np.testing.assert_allclose(seen[-1][1], network(params, x), rtol=1e-5)
    start, _ = Interventions(Measurements(asked, 30.0)).he_start
    assert np.std(start["stack"]["kernel"]) == pytest.approx((2 / 5) ** 0.5, rel=0.3)


def test_what_is_multiplied_with_other_data_weighs_them():
    def attention(params, x):
        weights = jax.nn.softmax(affine(params["dense0"], x))
        return (weights * x) @ params["dense1"]["kernel"]

    def squashed(params, x):
        return affine(params["dense1"], jax.nn.softmax(affine(params["dense0"], x)))

    for network, expected in ((attention, [True, False]), (squashed, [False, False])):
        assert [layer.weighs for layer in layers(recipe(network, (3, 3, 2)))] == expected
