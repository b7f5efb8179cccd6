"""Convolutional networks as an experiment file gives them."""

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
from nnref.parts.initializers import constant, lecun_normal, lsuv, lsuv_pass
from nnref.parts.models.convnet import ConvNet
from nnref.parts.models.convolution import max_pool, plain_convolution
from nnref.parts.regularizers import Regularization
from nnref.training.setup import bind


def streams(seed=0):
    key = partial(jax.random.key, impl="rbg")  # compiles in half the time of threefry
    return nnx.Rngs(params=key(seed), dropout=key(seed + 1))


def batch(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def weights(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


def experiment(**model):
    return Experiment(
        data={"name": "digits", "images": True},
        loss="softmax_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.1},
        batch_size=32,
        epochs=1,
        model={"name": "convnet", "channels": [4, 6]} | model,
    )


def from_file(**model):
    """Builds the model of an experiment file, as the trainer does."""
    return bind(experiment(**model), "model", {})


# --- the forward pass ---------------------------------------------------------------------------


@given(
    sides=st.tuples(st.integers(26, 29), st.integers(26, 29)),
    colours=st.sampled_from([None, 1, 3]),
    blocks=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
        min_size=1,
        max_size=2,
    ),
    padding=st.sampled_from(["same", "valid"]),
    head=st.sampled_from(["flatten", "global"]),
    hidden=st.lists(st.integers(1, 4), max_size=2),
    name=st.sampled_from(["relu", "prelu", "maxout"]),
    kind=st.sampled_from([None, "batch", "layer"]),
)
@settings(max_examples=25, deadline=None)
def test_shape_of_the_outputs_and_number_of_parameters(
    sides, colours, blocks, padding, head, hidden, name, kind
):
    inputs = sides if colours is None else (*sides, colours)
    channels, kernel, stride, pool = zip(*blocks, strict=True)

    def build_and_call(x):
        model = ConvNet(
            inputs,
            7,
            streams(),
            Regularization(dropout=0.5, normalization=kind),
            channels=channels,
            kernel=kernel,
            stride=stride,
            pool=pool,
            padding=padding,
            head=head,
            hidden=tuple(hidden),
            activation=ACTIVATIONS[name],
        )
        return model(x), weights(model)

    y, params = jax.eval_shape(build_and_call, jnp.zeros((5, *inputs)))
    assert y.shape == (5, 7)
    k = pieces(ACTIVATIONS[name])
    beside = {None: 1, "batch": 2, "layer": 3}[kind]  # batch norm's own takes the place of b
    expected, fan_in, (rows, columns) = 0, colours or 1, sides
    for width, side, step, window in blocks:
        expected += (side**2 * fan_in + beside) * width * k + width * (name == "prelu")
        if padding == "valid":
            rows, columns = rows - side + 1, columns - side + 1
        rows, columns = (math.ceil(size / step) // window for size in (rows, columns))
        fan_in = width
    fan_in *= rows * columns if head == "flatten" else 1
    for width in hidden:
        expected += (fan_in + beside) * width * k + width * (name == "prelu")
        fan_in = width
    assert sum(p.size for p in params) == expected + (fan_in + 1) * 7


@pytest.mark.parametrize("head", ["flatten", "global"])
def test_outputs_equal_the_equations(head):
    model = ConvNet(
        (8, 6, 2),
        3,
        streams(),
        channels=(4, 5),
        kernel=(3, 1),
        stride=(1, 2),
        pool=(2, 1),
        head=head,
        hidden=(6,),
        bias_initializer=partial(constant, value=0.1),
    )
    x = batch(4, 8, 6, 2)
    first, second = (block.conv.kernel[...] for block in model.blocks)
    h = plain_convolution(x, first, 1, ((1, 1), (1, 1))) + 0.1
    h = np.maximum(h, 0).reshape(4, 4, 2, 3, 2, 4).max(axis=(2, 4))
    h = np.maximum(h[:, ::2, ::2] @ second[0, 0] + 0.1, 0)
    h = h.reshape(4, -1) if head == "flatten" else h.mean(axis=(1, 2))
    h = np.maximum(h @ model.layers[0].dense.kernel[...] + 0.1, 0)
    np.testing.assert_allclose(model(x), h @ model.layers[1].kernel[...] + 0.1, atol=1e-5)


def test_images_without_an_axis_of_channels_have_one():
    one, other = (ConvNet(s, 3, streams(), channels=(4,)) for s in ((8, 6), (8, 6, 1)))
    x = batch(4, 8, 6)
    np.testing.assert_array_equal(one(x), other(x[..., None]))


@pytest.mark.parametrize("kind", [None, "layer"])
def test_examples_of_a_batch_do_not_see_each_other(kind):
    regularization = Regularization(normalization=kind)
    model = ConvNet((8, 8), 3, streams(), regularization, channels=(4, 5), pool=(2,), hidden=(6,))
    x = batch(6, 8, 8)
    together, alone = model(x), jnp.concatenate([model(row[None]) for row in x])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)  # sums in another order


@pytest.mark.parametrize("kind", [None, "batch", "layer"])
def test_gradient_equals_finite_differences(kind):
    model = ConvNet(
        (6, 5, 2),
        3,
        streams(),
        Regularization(normalization=kind),
        channels=(4, 3),
        stride=(1, 2),
        pool=(2, 1),
        activation=ACTIVATIONS["tanh"],
        hidden=(4,),
    )
    slopes, differences = slopes_and_differences(model, (4, 6, 5, 2), 1e-6, 8)
    np.testing.assert_allclose(slopes, differences, rtol=1e-6)


def test_the_activation_in_front_is_linear_for_the_image_and_then_the_activation():
    def build(gain):
        kernel = partial(lecun_normal, gain=gain)
        arguments = {"channels": (3, 4), "hidden": (5,), "kernel_initializer": kernel}
        return weights(ConvNet((8, 8), 3, streams(), **arguments))

    for one, other in zip(build(1.0), build(None), strict=True):
        factor = 1 if one.shape[:-1] == (3, 3, 1) else 2**0.5
        np.testing.assert_allclose(other, one * factor, rtol=1e-5)


def test_lsuv_reaches_every_layer():
    build = partial(ConvNet, channels=(4, 5), pool=(2,), hidden=(6,), kernel_initializer=lsuv)
    model = build((8, 8), 3, streams())
    x = 5 * batch(64, 8, 8) + 1
    lsuv_pass(model, x)
    h = x[..., None]
    for layer in (*model.blocks, *model.layers):
        if h.ndim == 4 and layer is model.layers[0]:
            h = h.reshape(64, -1)
        sums = getattr(layer, "conv", getattr(layer, "dense", layer))
        assert jnp.std(sums(h)) == pytest.approx(1, rel=1e-4)  # float32
        h = layer(h)


def test_dropout_is_behind_every_block_and_hidden_layer_and_off_in_evaluation():
    build = partial(ConvNet, channels=(4, 5), hidden=(6,))
    model = build((8, 8), 3, streams(), Regularization(dropout=0.5))
    x = batch(4, 8, 8)
    assert not np.allclose(model(x), model(x))
    model.eval()
    np.testing.assert_array_equal(model(x), build((8, 8), 3, streams())(x))
    rates = [hasattr(layer.dropout, "drop") for layer in (*model.blocks, model.layers[0])]
    assert rates == [True] * 3


# --- by words in an experiment file -------------------------------------------------------------


def test_a_number_for_all_blocks_and_a_list_for_each_say_the_same():
    one, other = (experiment(kernel=k, pool=p) for k, p in ((5, 2), ([5], [2])))
    assert one.identity == other.identity
    assert experiment(kernel=3).identity == experiment().identity
    assert one.identity != experiment(kernel=[5, 3], pool=2).identity
    assert '"kernel": 5' in one.to_json()
    assert '"kernel": [5, 3]' in experiment(kernel=[5, 3]).to_json()
    shapes = [w.shape for w in weights(from_file(kernel=[5, 3])((8, 8), 3, streams()))]
    assert {(5, 5, 1, 4), (3, 3, 4, 6)} <= set(shapes)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"kernel": 0}, "model.kernel.0: 0 given; allowed is a number from 1 up"),
        ({"pool": [2, 2.5]}, "model.pool.1: 2.5 given; allowed is a whole number"),
        ({"channels": []}, "model.channels: [] given; allowed are at least 1 entries"),
        ({"head": "mean"}, "model.head: \"mean\" given; allowed: 'flatten' or 'global'"),
    ],
    ids=["bound", "whole number", "no blocks", "word"],
)
def test_mistakes_in_the_file_are_told_in_words(model, text):
    with pytest.raises(UserError) as caught:
        from_file(**model)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("inputs", "model", "text"),
    [
        (
            (64,),
            {},
            "model: examples of shape (64,) are no images (rows, columns) or (rows, columns, "
            "channels); give the data as images, or use mlp",
        ),
        (
            (2, 8, 8, 1),
            {},
            "model: examples of shape (2, 8, 8, 1) are no images (rows, columns) or (rows, "
            "columns, channels); give the data as images, or use mlp",
        ),
        (
            (8, 8),
            {"kernel": [3, 3, 3]},
            "model.kernel: 3 numbers given where there are 2; give a number for each, or a single "
            "one for all",
        ),
        (
            (8, 8),
            {"stride": []},
            "model.stride: 0 numbers given where there are 2; give a number for each, or a single "
            "one for all",
        ),
        (
            (8, 7),
            {"pool": [2, 4]},
            "model.pool: in block 2 windows of 4 x 4 leave nothing of an image of 4 x 3; give "
            "smaller ones, or fewer blocks",
        ),
        (
            (8, 8),
            {"kernel": [5, 5], "padding": "valid"},
            "model.kernel: in block 2 a kernel of 5 x 5 has no place in an image of 4 x 4; take a "
            'smaller one, or padding "same"',
        ),
    ],
    ids=["vectors", "too many axes", "length", "empty", "pool", "kernel"],
)
def test_what_does_not_fit_the_images_is_told_in_words(inputs, model, text):
    with pytest.raises(UserError) as caught:
        from_file(**model)(inputs, 3, streams())
    assert str(caught.value) == text


def test_the_smallest_pool_and_kernel_that_leave_something_are_allowed():
    model = from_file(kernel=[5, 4], padding="valid")((8, 8), 3, streams())
    assert model(batch(2, 8, 8)).shape == (2, 3)
    model = from_file(pool=[2, 4])((8, 8), 3, streams())
    assert model(batch(2, 8, 8)).shape == (2, 3)
    assert model.blocks[1](model.blocks[0](batch(2, 8, 8, 1))).shape == (2, 1, 1, 6)


def test_max_pool_is_used():
    model = from_file(channels=[4], pool=2)((8, 8), 3, streams())
    plain = from_file(channels=[4])((8, 8), 3, streams())
    x = batch(2, 8, 8, 1)
    np.testing.assert_array_equal(model.blocks[0](x), max_pool(plain.blocks[0](x), 2))
