"""Linear model and multilayer perceptron: shapes, outputs, gradients, mistakes in words."""

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
from nnref.parts.activations import ACTIVATIONS, pieces
from nnref.parts.initializers import (
    INITIALIZERS,
    constant,
    ones,
    torch_linear,
)
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


def test_linear_without_bias_has_its_matrix_alone():
    model = Linear((3,), 1, streams(), kernel_initializer=ones, use_bias=False)
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 1
    np.testing.assert_allclose(model(jnp.array([[1.0, 2.0, 4.0]])), [[7.0]])


@pytest.mark.parametrize("name", ["linear", "sigmoid", "maxout"])
def test_output_activation_follows_the_last_layer(name):
    made = partial(
        MLP, (2,), 3, hidden=(4,), bias_initializer=partial(constant, value=0.5), activation=jnp.abs
    )
    x = jax.random.normal(jax.random.key(1), (5, 2))
    with_it = made(rngs=streams(), output_activation=ACTIVATIONS[name])
    h = with_it.layers[0](x)
    z = h @ with_it.layers[1].kernel[...] + 0.5
    np.testing.assert_allclose(with_it(x), ACTIVATIONS[name](z), rtol=1e-6)
    assert with_it(x).shape == (5, 3)
