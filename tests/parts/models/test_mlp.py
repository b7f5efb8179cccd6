import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from slopes import slopes_and_differences

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.parts.activations import ACTIVATIONS, pieces, relu
from nnref.parts.initializers import (
    INITIALIZERS,
    constant,
    lecun_normal,
    lsuv,
    orthogonal,
    torch_linear,
)
from nnref.parts.models.layers import Dropout, lsuv_pass, normalization, product
from nnref.parts.models.mlp import MLP, Linear
from nnref.parts.regularizers import Regularization
from nnref.training.setup import bind


def streams(seed=0):
    key = partial(jax.random.key, impl="rbg")  # compiles in half the time of threefry
    return nnx.Rngs(params=key(seed), dropout=key(seed + 1))


def batch(rows, *inputs, seed=0):
    return jax.random.normal(jax.random.key(seed), (rows, *inputs))


def weights(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


def from_file(**model):
    """Builds the model of an experiment file, as the trainer does."""
    experiment = Experiment(
        data="xor",
        loss="sigmoid_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.1},
        batch_size=4,
        epochs=1,
        model={"name": "mlp", "hidden": [4, 4]} | model,
    )
    return bind(experiment, "model", experiment.hyperparameters)


# --- the forward pass ---------------------------------------------------------------------------


@given(
    inputs=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    hidden=st.lists(st.integers(1, 7), max_size=3),
    outputs=st.integers(1, 5),
    name=st.sampled_from(sorted(ACTIVATIONS)),
    kind=st.sampled_from([None, "batch", "layer"]),
)
@settings(max_examples=20, deadline=None)
def test_shape_of_the_outputs_and_number_of_parameters(inputs, hidden, outputs, name, kind):
    activation = ACTIVATIONS[name]

    def build_and_call(x):
        regularization = Regularization(dropout=0.5, normalization=kind)
        model = MLP(
            inputs, outputs, streams(), regularization, hidden=hidden, activation=activation
        )
        return model(x), weights(model)

    y, params = jax.eval_shape(build_and_call, jnp.zeros((6, *inputs)))
    assert y.shape == (6, outputs)
    k = pieces(activation)
    biases = {None: 1, "batch": 2, "layer": 3}[kind]  # batch norm's own takes the place of b
    expected, fan_in = 0, math.prod(inputs)
    for width in hidden:
        expected += (fan_in + biases) * width * k + width * (name == "prelu")
        fan_in = width
    assert sum(p.size for p in params) == expected + (fan_in + 1) * outputs


def test_outputs_equal_the_equation():
    bias = partial(constant, value=0.3)
    model = MLP((5, 1), 3, streams(), hidden=(8, 8), bias_initializer=bias)
    x = batch(6, 5, 1)
    h = np.asarray(x, np.float64).reshape(6, 5)
    first, second, last = (
        np.asarray(layer.kernel[...], np.float64)
        for layer in (model.layers[0].dense, model.layers[1].dense, model.layers[2])
    )
    y = np.tanh(np.tanh(h @ first + 0.3) @ second + 0.3) @ last + 0.3
    np.testing.assert_allclose(model(x), y, rtol=1e-5, atol=1e-6)  # float32


def test_linear_is_a_matrix_and_a_bias():
    model = Linear((2, 4), 3, streams(), Regularization(dropout=0.5, normalization="batch"))
    kernel, x = model.layers[0].kernel[...], batch(6, 2, 4)
    np.testing.assert_allclose(model(x), x.reshape(6, 8) @ kernel, rtol=1e-6)
    assert len(weights(model)) == 2


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


@pytest.mark.parametrize("kind", [None, "layer"])
def test_examples_of_a_batch_do_not_see_each_other(kind):
    model = MLP((5,), 3, streams(), Regularization(normalization=kind), hidden=(8, 8))
    x = batch(6, 5)
    together, alone = model(x), jnp.concatenate([model(row[None]) for row in x])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)  # sums in another order


@pytest.mark.parametrize(
    ("name", "kind"), [("tanh", None), ("prelu", "batch"), ("maxout", "layer")]
)
def test_gradient_equals_finite_differences(name, kind):
    regularization = Regularization(normalization=kind)
    model = MLP(
        (5,),
        3,
        streams(),
        regularization,
        hidden=(8, 8),
        activation=ACTIVATIONS[name],
        bias_initializer=partial(constant, value=0.2),
    )
    slopes, differences = slopes_and_differences(model, (6, 5), 1e-5, 20)
    np.testing.assert_allclose(slopes, differences, rtol=1e-6)


# --- by one word in an experiment file ----------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_one_word(name):
    def build_and_call(x):
        model = from_file(activation=name)((2,), 1, streams())
        return model(x), model.layers[1].dense.kernel[...]

    y, kernel = jax.eval_shape(build_and_call, jnp.zeros((3, 2)))
    assert y.shape == (3, 1)
    assert kernel.shape == (4, 4 * pieces(ACTIVATIONS[name]))


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_is_one_word(name):
    build = from_file(hidden=[2, 2], kernel_initializer=name)
    y = jax.eval_shape(lambda x: build((2,), 2, streams())(x), jnp.zeros((3, 2)))
    assert y.shape == (3, 2)


@pytest.mark.parametrize("name", ["zeros", "ones", "constant", "normal", "uniform", "torch_linear"])
def test_initializers_of_a_bias_are_one_word(name):
    model = from_file(bias_initializer=name)((2,), 1, streams())
    expected = INITIALIZERS[name]
    if name == "torch_linear":
        assert np.abs(model.layers[2].bias[...]) <= 1 / 2
    elif name in {"zeros", "ones", "constant"}:
        key = jax.random.key(0)
        np.testing.assert_array_equal(model.layers[1].dense.bias[...], expected(key, (4,)))


def test_torch_linear_gives_a_bias_the_fan_in_of_its_kernel():
    build = partial(MLP, kernel_initializer=torch_linear, bias_initializer=torch_linear)
    model = build((100,), 4000, streams(), hidden=(25,))
    for layer, fan_in in ((model.layers[0].dense, 100), (model.layers[1], 25)):
        for w in (layer.kernel[...], layer.bias[...]):
            assert np.abs(w).max() <= 1 / math.sqrt(fan_in)
    assert np.abs(model.layers[1].bias[...]).max() == pytest.approx(1 / 5, rel=1e-2)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            {"activation": {"name": "leaky_relu", "slop": 0.1}},
            'model.activation.slop: unknown key; allowed: slope; did you mean "slope"?',
        ),
        (
            {"activation": {"name": "celu", "alpha": 0.0}},
            "model.activation.alpha: 0.0 given; allowed is a number above 0",
        ),
        (
            {"activation": {"name": "gelu", "form": "erf"}},
            "model.activation.form: \"erf\" given; allowed: 'exact' or 'tanh'",
        ),
        (
            {"activation": {"name": "maxout", "pieces": 2.5}},
            "model.activation.pieces: 2.5 given; allowed is a whole number",
        ),
        (
            {"kernel_initializer": {"name": "lecun_normal", "gain": "relu"}},
            'model.kernel_initializer.gain: "relu" given; allowed is a number',
        ),
        (
            {"kernel_initializer": {"name": "normal", "scale": -1.0}},
            "model.kernel_initializer.scale: -1.0 given; allowed is a number from 0 up",
        ),
    ],
    ids=["unknown key", "bound", "word", "whole number", "number", "sign"],
)
def test_mistakes_in_the_file_are_told_in_words(model, text):
    with pytest.raises(UserError) as caught:
        from_file(**model)
    assert str(caught.value) == text


def test_a_kernel_initializer_for_a_bias_is_told_in_words():
    build = from_file(bias_initializer="he_normal")
    with pytest.raises(UserError, match="needs a kernel, .* a bias of shape .4,. can have zeros, "):
        build((2,), 1, streams())


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
