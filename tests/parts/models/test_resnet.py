"""Deep networks, plain and residual, for images and vectors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.parts.activations import ACTIVATIONS, pieces
from nnref.parts.initializers import constant, lecun_normal
from nnref.parts.models.convolution import plain_convolution
from nnref.parts.models.resnet import ResNet, carried
from nnref.parts.regularizers import Regularization
from nnref.training.setup import bind


def streams(seed=0):
    key = partial(jax.random.key, impl="rbg")  # compiles in half the time of threefry
    return nnx.Rngs(params=key(seed), dropout=key(seed + 1))


def batch(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def weights(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


# --- the forward pass ---------------------------------------------------------------------------


@given(
    inputs=st.sampled_from([(5,), (9, 6), (7, 8, 3)]),
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    blocks=st.integers(1, 2),
    residual=st.booleans(),
    kernel=st.integers(1, 3),
    name=st.sampled_from(["relu", "prelu", "maxout"]),
    kind=st.sampled_from([None, "batch", "layer"]),
)
@settings(max_examples=25, deadline=None)
def test_shape_of_the_outputs_and_number_of_parameters(
    inputs, widths, blocks, residual, kernel, name, kind
):
    activation = ACTIVATIONS[name]

    def build_and_call(x):
        model = ResNet(
            inputs,
            7,
            streams(),
            Regularization(dropout=0.5, normalization=kind),
            widths=tuple(widths),
            blocks=(blocks,),
            residual=residual,
            kernel=kernel,
            activation=activation,
        )
        return model(x), weights(model)

    y, params = jax.eval_shape(build_and_call, jnp.zeros((5, *inputs)))
    assert y.shape == (5, 7)
    window = 1 if len(inputs) == 1 else kernel**2
    k, own = pieces(activation), int(name == "prelu")
    bias, scale = int(kind != "batch"), 0 if kind is None else 2
    fan_in = {(5,): 5, (9, 6): 1, (7, 8, 3): 3}[inputs]
    expected, layer_in = (window * fan_in + bias) * widths[0] * k, widths[0]
    for width in widths:
        for _ in range(blocks):
            for one in (layer_in, width):  # what stands in front of each of the two layers, and it
                expected += (scale * k + own) * one + (window * one + bias) * width * k
            layer_in = width
    expected += (scale * k + own) * layer_in + (layer_in + 1) * 7
    assert sum(p.size for p in params) == expected


def test_residual_off_is_the_plain_network_of_vectors():
    build = partial(ResNet, (5,), 3, widths=(6,), blocks=(2,))
    model = build(streams(), residual=False, bias_initializer=partial(constant, value=0.1))
    h = x = batch(4, 5)
    layers = [model.first]
    for block in model.blocks:
        layers += [block.layer_1, block.layer_2]
    assert len(layers) + 1 == 2 + 2 * 2
    for layer in (*layers, model.last):
        z = h @ layer.kernel[...] + 0.1
        h = np.maximum(z, 0)
    np.testing.assert_allclose(model(x), z, rtol=1e-5, atol=1e-6)  # float32


def test_residual_off_is_the_plain_network_of_images():
    model = ResNet((8, 6), 3, streams(), widths=(4, 5), blocks=(1,), residual=False)
    pads = {1: ((1, 1), (1, 1)), 2: ((0, 1), (0, 1))}
    (one, two), x = model.blocks, batch(4, 8, 6)
    h = x[..., None]
    for layer, stride in (
        (model.first, 1),
        (one.layer_1, 1),
        (one.layer_2, 1),
        (two.layer_1, 2),
        (two.layer_2, 1),
    ):
        h = np.maximum(plain_convolution(h, layer.kernel[...], stride, pads[stride]), 0)
    y = h.mean(axis=(1, 2)) @ model.last.kernel[...]
    np.testing.assert_allclose(model(x), y, rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("inputs", [(5,), (8, 8)])
def test_the_switch_changes_the_sums_and_nothing_else(inputs):
    build = partial(ResNet, inputs, 3, widths=(4, 6), blocks=(2,))
    plain, residual = (build(streams(), residual=switch) for switch in (False, True))
    for one, other in zip(weights(plain), weights(residual), strict=True):
        np.testing.assert_array_equal(one, other)
    z = plain.first(batch(2, *inputs, 1) if len(inputs) > 1 else batch(2, *inputs))
    for one, other in zip(plain.blocks, residual.blocks, strict=True):
        f = one(z)
        added = np.asarray(other(z) - f)
        stride = z.shape[1] // f.shape[1] if z.ndim == 4 else 1
        expected = np.zeros(f.shape, np.float32)
        expected[..., : z.shape[-1]] = z if z.ndim == 2 else z[:, ::stride, ::stride]
        np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-5)  # float32
        z = other(z)


def test_images_halve_from_one_stage_to_the_next():
    model = ResNet((8, 7), 3, streams(), widths=(2, 3, 4), blocks=(2,))
    z, shapes = model.first(batch(5, 8, 7, 1)), []
    for block in model.blocks:
        z = block(z)
        shapes.append(z.shape[1:])
    assert shapes == [(8, 7, 2)] * 2 + [(4, 4, 3)] * 2 + [(2, 2, 4)] * 2


def test_layer_normalization_of_images_is_over_pixels_and_channels():
    regularization = Regularization(normalization="layer")
    model = ResNet((8, 8), 3, streams(), regularization, widths=(4,), blocks=(1,))
    z = model.first(batch(5, 8, 8, 1))
    normal = np.asarray(model.blocks[0].activated_1.normalize(z), np.float64)
    np.testing.assert_allclose(normal.mean(axis=(1, 2, 3)), 0, atol=1e-5)  # float32
    np.testing.assert_allclose(normal.std(axis=(1, 2, 3)), 1, atol=1e-4)
    assert np.ptp(normal.mean(axis=-1)) > 0.1, "not over the channels alone"


def test_a_narrower_block_carries_the_first_units():
    z = batch(3, 5)
    np.testing.assert_array_equal(carried(z, 2, 1), z[:, :2])
    np.testing.assert_array_equal(carried(z, 7, 1)[:, 5:], 0)


def test_a_residual_network_whose_blocks_are_zero_is_shallow():
    model = ResNet((5,), 3, streams(), widths=(6,), blocks=(20,))
    for block in model.blocks:
        block.layer_2.kernel[...] = jnp.zeros((6, 6))
    x = batch(4, 5)
    y = np.maximum(x @ model.first.kernel[...], 0) @ model.last.kernel[...]
    np.testing.assert_allclose(model(x), y, rtol=1e-5, atol=1e-6)  # float32


def test_normalization_and_activation_stand_in_front_of_each_layer():
    regularization = Regularization(normalization="batch")
    model = ResNet((5,), 3, streams(), regularization, widths=(6,), blocks=(1,))
    x = 3 * batch(50, 5) + 1
    z = np.asarray(model.first(x), np.float64)

    def a(z):
        return np.maximum((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5), 0)

    one, two = (layer.kernel[...] for layer in (model.blocks[0].layer_1, model.blocks[0].layer_2))
    z = z + a(a(z) @ one) @ two
    np.testing.assert_allclose(model(x), a(z) @ model.last.kernel[...], atol=1e-4)  # float32
    assert model.first.bias is model.blocks[0].layer_1.bias is model.blocks[0].layer_2.bias is None
    assert model.last.bias is not None


def test_evaluation_uses_running_statistics_and_no_dropout():
    regularization = Regularization(normalization="batch", dropout=0.5)
    model = ResNet((8, 8), 3, streams(), regularization, widths=(4,), blocks=(1,))
    x = batch(6, 8, 8)
    before = model.blocks[0].activated_1.normalize.mean[...]
    assert not np.allclose(model(x), model(x))
    assert not np.allclose(model.blocks[0].activated_1.normalize.mean[...], before)
    model.eval()
    together, alone = model(x), jnp.concatenate([model(row[None]) for row in x])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)  # sums in another order


@pytest.mark.parametrize("inputs", [(5,), (8, 8)])
@pytest.mark.parametrize("kind", [None, "layer"])
def test_examples_of_a_batch_do_not_see_each_other(inputs, kind):
    regularization = Regularization(normalization=kind)
    model = ResNet(inputs, 3, streams(), regularization, widths=(4, 5), blocks=(1,))
    x = batch(6, *inputs)
    together, alone = model(x), jnp.concatenate([model(row[None]) for row in x])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)  # sums in another order


def test_dropout_stands_in_front_of_the_second_layer_of_a_block():
    regularization = Regularization(dropout=0.5)
    build = partial(ResNet, (5,), 3, widths=(400,), activation=ACTIVATIONS["softplus"])
    block = build(streams(), regularization, blocks=(1,)).blocks[0]
    seen = []
    block.layer_1 = lambda h: seen.append(h) or h
    block.layer_2 = lambda h: seen.append(h) or h
    block(batch(4, 400))
    assert not (np.asarray(seen[0]) == 0).any()
    assert np.mean(np.asarray(seen[1]) == 0) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("inputs", [(5,), (6, 6)])
def test_gradient_equals_finite_differences(inputs):
    model = ResNet(inputs, 3, streams(), widths=(3, 4), blocks=(1,), activation=ACTIVATIONS["tanh"])
    graph, params = nnx.split(model)
    params = nnx.to_pure_dict(nnx.as_pure(params))
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(4, *inputs)))

        def objective(params):
            return jnp.sum(nnx.merge(graph, params)(x) ** 3)

        gradient, rng, h = jax.jit(jax.grad(objective))(params), np.random.default_rng(1), 1e-5
        value = jax.jit(objective)
        for _ in range(5):
            direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
            slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
            ahead, behind = (
                value(jax.tree.map(lambda p, d, s=s: p + s * h * d, params, direction))
                for s in (1, -1)
            )
            np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-6)


def test_the_activation_in_front_is_linear_for_the_data_and_then_the_activation():
    def build(gain):
        return ResNet(
            (5,), 3, streams(), widths=(4,), kernel_initializer=partial(lecun_normal, gain=gain)
        )

    one, other = build(1.0), build(None)
    np.testing.assert_allclose(other.first.kernel[...], one.first.kernel[...], rtol=1e-5)
    for layers in zip((*one.blocks, one), (*other.blocks, other), strict=True):
        for name in ("layer_1", "layer_2", "last"):
            if hasattr(layers[0], name):
                w, v = (getattr(layer, name).kernel[...] for layer in layers)
                np.testing.assert_allclose(v, 2**0.5 * w, rtol=1e-5)


# --- by words in an experiment file -------------------------------------------------------------


def from_file(**model):
    experiment = Experiment(
        data="digits",
        loss="softmax_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.1},
        batch_size=32,
        epochs=1,
        model={"name": "resnet", "widths": [4, 6]} | model,
    )
    return bind(experiment, "model", {})


def test_blocks_are_given_for_each_stage_or_for_all():
    def blocks(**model):
        return len(from_file(**model)((8, 8), 3, streams()).blocks)

    assert [blocks(), blocks(blocks=3), blocks(blocks=[1, 3])] == [4, 6, 4]


@pytest.mark.parametrize(
    ("inputs", "model", "text"),
    [
        (
            (2, 8, 8, 1),
            {},
            "model: examples of shape (2, 8, 8, 1) are no images (rows, columns) or (rows, "
            "columns, channels); give the data as images, or use mlp",
        ),
        (
            (8,),
            {"blocks": [1, 2, 3]},
            "model.blocks: 3 numbers given where there are 2; give a number for each, or a single "
            "one for all",
        ),
        ((8,), {"widths": []}, "model.widths: [] given; allowed are at least 1 entries"),
    ],
    ids=["axes", "length", "no stage"],
)
def test_mistakes_are_told_in_words(inputs, model, text):
    with pytest.raises(UserError) as caught:
        from_file(**model)(inputs, 3, streams())
    assert str(caught.value) == text
