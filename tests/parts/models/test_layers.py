"""Layers: gain and LSUV, dropout and normalization, seen in an MLP and on their own."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nnref.parts.activations import ACTIVATIONS, relu
from nnref.parts.initializers import (
    constant,
    lecun_normal,
    lsuv,
    lsuv_pass,
    orthogonal,
)
from nnref.parts.models.layers import product
from nnref.parts.models.mlp import MLP
from nnref.parts.regularizers import Dropout, Regularization, normalization


def streams(seed=0):
    key = partial(jax.random.key, impl="rbg")  # compiles in half the time of threefry
    return nnx.Rngs(params=key(seed), dropout=key(seed + 1))


def batch(rows, *inputs, seed=0):
    return jax.random.normal(jax.random.key(seed), (rows, *inputs))


def weights(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


# --- signals at the start -----------------------------------------------------------------------


def sums_of(model, x):
    """The sums z of every layer, without dropout."""
    model.eval()
    found, h = [], x
    for layer in model.layers:
        found.append(getattr(layer, "dense", layer)(h))
        h = layer(h)
    return found


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_of_the_activation_keeps_the_mean_square_of_the_sums(name):
    width, rows = 256, 64
    model = MLP(
        (width,),
        width,
        streams(3),
        hidden=(width,) * 3,
        activation=ACTIVATIONS[name],
        kernel_initializer=partial(lecun_normal, gain=None),
    )
    for z in sums_of(model, batch(rows, width)):
        # Each layer's draw moves it by sqrt(5 / width) = 0.14 or less for all examples together.
        assert jnp.mean(z**2) == pytest.approx(1, abs=0.3)


def test_gain_is_that_of_the_activation_in_front():
    def build(gain):
        kernel = partial(orthogonal, gain=gain)
        return MLP((8,), 8, streams(), hidden=(8, 8), activation=relu, kernel_initializer=kernel)

    plain, scaled = build(1.0), build(None)
    for layer, factor in enumerate([1, math.sqrt(2), math.sqrt(2)]):
        one, other = (getattr(m.layers[layer], "dense", m.layers[layer]) for m in (plain, scaled))
        np.testing.assert_allclose(other.kernel[...], factor * one.kernel[...], rtol=1e-5)


@pytest.mark.parametrize("name", ["softplus", "maxout"])
def test_lsuv_gives_every_layer_unit_variance(name):
    model = MLP(
        (8,),
        8,
        streams(),
        Regularization(dropout=0.5),
        hidden=(8, 8),
        activation=ACTIVATIONS[name],
        kernel_initializer=lsuv,
        bias_initializer=partial(constant, value=0.5),
    )
    x = 7 * batch(200, 8) + 2
    assert jnp.std(sums_of(model, x)[0]) > 2
    lsuv_pass(model, x)
    for z in sums_of(model, x):
        assert jnp.std(z) == pytest.approx(1, rel=1e-5)  # float32
    assert np.all(model.layers[0].dense.bias[...] == 0.5)
    before = weights(model)
    model.train()
    model(x)
    for w, v in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(w, v)


def test_the_pass_of_lsuv_leaves_other_models_and_dead_layers_alone():
    model = MLP((5,), 3, streams(), hidden=(8,))
    before = weights(model)
    lsuv_pass(model, 5 * batch(6, 5))
    for w, v in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(w, v)
    dead = MLP((8,), 8, streams(), hidden=(8,), kernel_initializer=lsuv)
    lsuv_pass(dead, jnp.zeros((200, 8)))
    assert all(jnp.all(jnp.isfinite(w)) for w in weights(dead))


# --- dropout ------------------------------------------------------------------------------------


def test_dropout_is_off_in_evaluation():
    plain = MLP((5,), 3, streams(), hidden=(8, 8))
    model = MLP((5,), 3, streams(), Regularization(dropout=0.5), hidden=(8, 8))
    x = batch(6, 5)
    model.eval()
    np.testing.assert_array_equal(model(x), plain(x))
    model.train()
    assert not np.allclose(model(x), plain(x))
    assert not np.allclose(model(x), model(x))


def test_dropout_drops_a_share_and_keeps_the_mean():
    layer = Dropout(0.3, streams())
    h = jnp.ones((200, 500), jnp.bfloat16)
    dropped = np.asarray(layer(h), np.float64)
    assert layer(h).dtype == jnp.bfloat16
    assert set(np.unique(dropped)) == {0, float(jnp.bfloat16(1 / 0.7))}
    assert np.mean(dropped == 0) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 1e5))


def test_dropout_comes_behind_the_activation_and_not_behind_the_last_layer():
    # With softplus nothing but dropout makes a zero; its mask before softplus would give log 2.
    build = partial(MLP, activation=ACTIVATIONS["softplus"])
    model = build((5,), 400, streams(), Regularization(dropout=0.5), hidden=(400,))
    hidden = model.layers[0](batch(4, 5))
    assert np.mean(hidden == 0) == pytest.approx(0.5, abs=0.1)
    assert not np.any(model(batch(4, 5)) == 0)


def test_layers_of_one_width_drop_different_units_after_reseeding():
    model = MLP((6,), 2, streams(), Regularization(dropout=0.5), hidden=(64, 64))
    ones = jnp.ones((1, 64))

    def masks(seed):
        nnx.reseed(model, dropout=seed)
        return [np.asarray(layer.dropout(ones)) for layer in model.layers[:2]]

    first, second = masks(1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(masks(1), [first, second])
    assert not np.array_equal(masks(2)[0], first)


def test_the_rate_of_dropout_can_be_traced():
    def fraction(rate):
        regularization = Regularization(dropout=rate)
        model = MLP((6,), 2, streams(), regularization, hidden=(1000,), activation=relu)
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        layer = nnx.merge(graph, params, rest).layers[0]
        return jnp.mean(layer.dropout(jnp.ones((1, 1000))) == 0)

    rates = jnp.array([0.0, 0.2, 0.9])
    np.testing.assert_allclose(jax.jit(jax.vmap(fraction))(rates), rates, atol=0.05)


# --- normalization ------------------------------------------------------------------------------


def test_batch_normalization_stands_between_sums_and_activation():
    model = MLP((5,), 3, streams(), Regularization(normalization="batch"), hidden=(8,))
    layer, x = model.layers[0], 3 * batch(50, 5) + 1
    z = np.asarray(layer.dense(x), np.float64)
    normal = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
    np.testing.assert_allclose(layer(x), np.tanh(normal), atol=1e-5)  # float32
    assert layer.dense.bias is None


def test_evaluation_uses_the_running_statistics():
    model = MLP((5,), 3, streams(), Regularization(normalization="batch"), hidden=(8,))
    layer, mean, var = model.layers[0], np.zeros(8), np.ones(8)
    for seed in range(4):
        x = 3 * batch(20, 5, seed=seed) + 1
        z = np.asarray(layer.dense(x), np.float64)
        mean, var = 0.9 * mean + 0.1 * z.mean(axis=0), 0.9 * var + 0.1 * z.var(axis=0)
        model(x)
    model.eval()
    x = batch(6, 5, seed=9)
    z = np.asarray(layer.dense(x), np.float64)
    expected = np.tanh((z - mean) / np.sqrt(var + 1e-5))
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)  # float32
    # and so examples no longer see each other, nor do they change the statistics
    alone = jnp.concatenate([model(row[None]) for row in x])
    np.testing.assert_allclose(model(x), alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.normalize.mean[...], mean, rtol=1e-5)


def test_layer_normalization_is_of_each_example():
    model = MLP((5,), 3, streams(), Regularization(normalization="layer"), hidden=(8,))
    layer, x = model.layers[0], 3 * batch(6, 5) + 1
    z = np.asarray(layer.dense(x), np.float64)
    normal = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer(x), np.tanh(normal), atol=1e-5)  # float32


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_normalization_does_not_cancel_behind_a_large_mean(kind):
    layer = normalization(kind, 50, streams())
    z = 1000 + np.random.default_rng(0).normal(size=(50, 50))
    axis = 0 if kind == "batch" else 1
    expected = (z - z.mean(axis, keepdims=True)) / z.std(axis, keepdims=True)
    # z itself has seven digits: 1e-4 of its deviation, where E z^2 - (E z)^2 has none
    np.testing.assert_allclose(layer(jnp.asarray(z, jnp.float32)), expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(5,), (6, 5), (2, 3, 5)], ids=str)
def test_the_product_of_a_layer_is_that_of_matrices(shape):
    """So are its derivatives of both kinds, and it for several kernels at once."""
    draw = partial(jax.random.normal, dtype=jnp.float32)
    h, d_h, kernels = (draw(jax.random.key(n), s) for n, s in enumerate((shape, shape, (7, 5, 3))))
    kernel, d_kernel = kernels[:2]

    def seen(times):
        forward = jax.jvp(times, (h, kernel), (d_h, d_kernel))
        z, back = jax.vjp(times, h, kernel)
        return *forward, *back(jnp.cos(z)), jax.vmap(times, in_axes=(None, 0))(h, kernels)

    for ours, theirs in zip(seen(product), seen(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
