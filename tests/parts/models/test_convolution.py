"""Convolution and pooling: both forms against direct sums, and against each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nnref.parts.activations import ACTIVATIONS
from nnref.parts.initializers import (
    constant,
    he_normal,
    lecun_normal,
    lsuv,
    lsuv_pass,
    torch_linear,
    zeros,
)
from nnref.parts.models.convolution import (
    Conv,
    ConvHidden,
    canonical_convolution,
    convolution,
    max_pool,
    plain_convolution,
    plain_max_pool,
    sliced_max_pool,
)
from nnref.parts.models.layers import UNREGULARIZED, LayerSpec
from nnref.parts.regularizers import Regularization

CONVOLUTIONS = [plain_convolution, canonical_convolution]
POOLS = [plain_max_pool, sliced_max_pool]

# rows, columns, kernel, stride, pads: odd and even, nothing left over and something left over
SETTINGS = [
    (6, 5, 3, 1, ((1, 1), (1, 1))),
    (6, 5, 3, 1, ((0, 0), (0, 0))),
    (5, 6, 4, 1, ((1, 2), (1, 2))),
    (8, 7, 3, 2, ((0, 1), (1, 1))),
    (9, 8, 2, 3, ((0, 0), (0, 0))),
    (8, 8, 1, 2, ((0, 0), (0, 0))),
]


def streams(seed=0):
    return nnx.Rngs(params=seed, dropout=seed + 1)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def direct_sum(x, kernel, stride, pads):
    """z[r, c] = sum over i, j and channels, in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *pads, (0, 0)))
    kernel = np.asarray(kernel, np.float64)
    k = len(kernel)
    rows, columns = ((size - k) // stride + 1 for size in x.shape[1:3])
    z = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for r in range(rows):
        for c in range(columns):
            window = x[:, stride * r : stride * r + k, stride * c : stride * c + k]
            z[:, r, c] = np.einsum("bijc,ijcd->bd", window, kernel)
    return z


# --- convolution --------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_convolution_is_the_direct_sum(form, setting):
    rows, columns, k, stride, pads = setting
    x, kernel = numbers(0, 4, rows, columns, 3), numbers(1, k, k, 3, 5)
    expected = direct_sum(x, kernel, stride, pads)
    z = form(x, kernel, stride, pads)
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)  # float32 sums of 48


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_gradients_of_convolution_are_those_of_the_direct_sum(form, setting):
    # z is linear in x and in the kernel: of <z, dz>, differences are the derivative itself.
    rows, columns, k, stride, pads = setting
    x, kernel = numbers(0, 2, rows, columns, 2), numbers(1, k, k, 2, 3)
    z, pull_back = jax.vjp(lambda *both: form(*both, stride, pads), x, kernel)
    dz = numbers(2, *z.shape)
    for gradient, place in zip(pull_back(dz), (0, 1), strict=True):
        for seed in range(5):
            direction = numbers(seed + 3, *(x, kernel)[place].shape)
            moved = [x, kernel]
            moved[place] = direction
            slope = np.vdot(direct_sum(*moved, stride, pads), dz)
            assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("where", ["alone", "vmap", "kernels alone", "scan", "while", "doubled"])
def test_both_forms_are_equal_wherever_they_are_used(where, setting):
    rows, columns, k, stride, pads = setting
    x, kernel = numbers(0, 3, 4, rows, columns, 2), numbers(1, 3, k, k, 2, 3)

    def gradients(form, x, kernel):
        def objective(x, kernel):
            return jnp.sum(jnp.sin(form(x, kernel, stride, pads)))

        return jax.value_and_grad(objective, (0, 1))(x, kernel)

    def used(form):
        of = partial(gradients, form)
        if where == "alone":
            return of(x[0], kernel[0])
        if where == "vmap":
            return jax.vmap(of)(x, kernel)
        if where == "kernels alone":
            return jax.vmap(of, in_axes=(None, 0))(x[0], kernel)
        if where == "scan":
            return jax.lax.scan(lambda _, both: (None, of(*both)), None, (x, kernel))[1]
        if where == "while":

            def body(carry):
                step, kernel = carry
                return step + 1, kernel - 0.1 * of(x[0], kernel)[1][1]

            return jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, kernel[0]))[1]
        return jax.jvp(lambda kernel: of(x[0], kernel)[1], (kernel[0],), (kernel[1],))

    plain, canonical = (jax.tree.leaves(jax.jit(partial(used, f))()) for f in CONVOLUTIONS)
    for one, other in zip(plain, canonical, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def operations(program):
    """All operations of a jaxpr and of those within it."""
    for equation in program.eqns:
        yield equation
        for leaf in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(leaf, "eqns"):
                yield from operations(leaf)


def test_the_backend_chooses_the_form(monkeypatch):
    x, kernel, pads = numbers(0, 2, 6, 6, 2), numbers(1, 3, 3, 2, 4), ((1, 1), (1, 1))

    def loss(x, kernel):
        return jnp.sum(max_pool(convolution(x, kernel, 1, pads), 2) ** 2)

    def found():
        jax.clear_caches()
        program = jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, kernel)
        names = [operation.primitive.name for operation in operations(program)]
        return names.count("custom_vmap_call"), any("reduce_window" in name for name in names)

    assert found() == (3, False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert found() == (0, True)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(
    ("form", "fast"), [(canonical_convolution, True), (plain_convolution, False)]
)
def test_in_a_loop_every_convolution_has_the_layout_of_the_fast_path(form, fast, runs):
    # Another layout, or groups, which runs with kernels of their own make of one convolution, is
    # computed some fifteen times slower by XLA's CPU backend.
    x, kernel = numbers(0, runs, 5, 2, 6, 6, 2), numbers(1, runs, 3, 3, 2, 4)

    def trained(x, kernel):
        def step(kernel, x):
            def loss(x, kernel):
                return jnp.sum(form(x, kernel, 1, ((1, 1), (1, 1))) ** 2)

            dx, slope = jax.grad(loss, (0, 1))(x, kernel)
            return kernel - slope, dx

        return jax.lax.scan(step, kernel, x)

    program = jax.make_jaxpr(jax.vmap(trained) if runs > 1 else trained)(
        *((x, kernel) if runs > 1 else (x[0], kernel[0]))
    )
    found = [
        operation.params
        for operation in operations(program)
        if operation.primitive.name == "conv_general_dilated"
    ]
    canonical = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    assert len(found) == 3
    assert fast == all(
        tuple(each["dimension_numbers"]) == canonical
        and each["feature_group_count"] == each["batch_group_count"] == 1
        for each in found
    )


# --- pooling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", POOLS)
@pytest.mark.parametrize(
    ("rows", "columns", "window"), [(6, 4, 2), (7, 5, 2), (8, 7, 3), (3, 3, 1)]
)
def test_max_pool_is_the_maximum_of_each_window(form, rows, columns, window):
    x = numbers(0, 2, rows, columns, 3)
    y = form(x, window)
    assert y.shape == (2, rows // window, columns // window, 3)
    for r in range(rows // window):
        for c in range(columns // window):
            part = x[:, window * r : window * (r + 1), window * c : window * (c + 1)]
            np.testing.assert_array_equal(y[:, r, c], part.max(axis=(1, 2)))


@pytest.mark.parametrize("window", [2, 3])
def test_of_equal_pixels_the_first_takes_the_gradient_in_both_forms(window):
    x = np.random.default_rng(0).integers(0, 3, (4, 8, 7, 3)).astype(np.float32)
    gradients = []
    for form in POOLS:
        y, pull_back = jax.vjp(partial(form, window=window), x)
        (gradient,) = pull_back(numbers(1, *y.shape))
        gradients.append(gradient)
    np.testing.assert_array_equal(*gradients)
    first = jax.grad(lambda x: jnp.sum(sliced_max_pool(x, 2)))(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(first[0, ..., 0], [[1, 0], [0, 0]])


@pytest.mark.parametrize("form", POOLS)
@pytest.mark.parametrize("place", range(4))
def test_what_is_no_number_is_passed_on(form, place):
    x = jnp.zeros(4).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
    assert jnp.isnan(form(x, 2)).all()


# --- the layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding", "kernel", "stride", "sides"),
    [
        ("same", 3, 1, (7, 6)),
        ("same", 2, 1, (7, 6)),
        ("same", 3, 2, (4, 3)),
        ("valid", 3, 1, (5, 4)),
        ("valid", 3, 2, (3, 2)),
    ],
)
def test_a_layer_is_its_convolution_and_its_bias(padding, kernel, stride, sides):
    layer = Conv(
        2,
        5,
        LayerSpec(streams(), he_normal, partial(constant, value=0.3)),
        kernel=kernel,
        stride=stride,
        padding=padding,
    )
    x = numbers(0, 4, 7, 6, 2)
    z = layer(x)
    assert z.shape == (4, *sides, 5)
    total = [stride * (side - 1) + kernel - size for side, size in zip(sides, (7, 6), strict=True)]
    lost = [max(0, -t) for t in total]
    pads = [(max(0, t) // 2, max(0, t) - max(0, t) // 2) for t in total]
    assert padding == "same" or pads == [(0, 0), (0, 0)]
    expected = direct_sum(x[:, : 7 - lost[0], : 6 - lost[1]], layer.kernel[...], stride, pads)
    np.testing.assert_allclose(z, expected + 0.3, rtol=1e-5, atol=1e-5)  # float32


def test_first_weights_know_the_inputs_of_a_unit():
    layer = Conv(8, 400, LayerSpec(streams(), torch_linear, torch_linear), kernel=5)
    for w in (layer.kernel[...], layer.bias[...]):
        assert np.abs(w).max() == pytest.approx((25 * 8) ** -0.5, rel=1e-2)
    build = partial(Conv, 8, 400, kernel=5)
    one = build(LayerSpec(streams(), lecun_normal, zeros))
    other = build(
        LayerSpec(streams(), partial(lecun_normal, gain=None), zeros),
        in_front=ACTIVATIONS["relu"],
    )
    np.testing.assert_allclose(other.kernel[...], 2**0.5 * one.kernel[...], rtol=1e-5)


def hidden(regularization=UNREGULARIZED, **changes):
    of_spec = {
        "kernel_initializer": he_normal,
        "bias_initializer": zeros,
        "activation": ACTIVATIONS["relu"],
    }
    of_spec |= {name: changes.pop(name) for name in list(changes) if name in of_spec}
    spec = LayerSpec(streams(), **of_spec, regularization=regularization)
    sizes = {"kernel": 3, "stride": 1, "pool": 1, "padding": "same"}
    return ConvHidden(2, 6, spec, in_front=ACTIVATIONS["linear"], **(sizes | changes))


def test_lsuv_gives_a_convolution_unit_variance():
    layer = hidden(kernel_initializer=lsuv, bias_initializer=partial(constant, value=0.5))
    x = 7 * numbers(0, 50, 6, 6, 2) + 2
    assert jnp.std(layer.conv(x)) > 2
    lsuv_pass(layer, x)
    assert jnp.std(layer.conv(x)) == pytest.approx(1, rel=1e-5)
    assert (layer.conv.bias[...] == 0.5).all()


def test_normalization_and_pooling_stand_around_the_activation():
    layer = hidden(Regularization(normalization="batch"), pool=2)
    x = 3 * numbers(0, 20, 6, 4, 2) + 1
    z = np.asarray(layer.conv(x), np.float64)
    normal = (z - z.mean(axis=(0, 1, 2))) / np.sqrt(z.var(axis=(0, 1, 2)) + 1e-5)
    expected = np.maximum(normal, 0).reshape(20, 3, 2, 2, 2, 6).max(axis=(2, 4))
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)  # float32
    assert layer.conv.bias is None


def test_evaluation_uses_the_running_statistics_of_channels():
    layer = hidden(Regularization(normalization="batch"))
    mean, var = np.zeros(6), np.ones(6)
    for seed in range(4):
        x = 3 * numbers(seed, 20, 6, 4, 2) + 1
        z = np.asarray(layer.conv(x), np.float64)
        mean = 0.9 * mean + 0.1 * z.mean(axis=(0, 1, 2))
        var = 0.9 * var + 0.1 * z.var(axis=(0, 1, 2))
        layer(x)
    layer.eval()
    x = numbers(9, 3, 6, 4, 2)
    z = np.asarray(layer.conv(x), np.float64)
    expected = np.maximum((z - mean) / np.sqrt(var + 1e-5), 0)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)  # float32


def test_layer_normalization_is_over_pixels_and_channels_of_each_example():
    layer = hidden(Regularization(normalization="layer"))
    x = 3 * numbers(0, 5, 6, 4, 2) + 1
    z = np.asarray(layer.conv(x), np.float64)
    axes = {"axis": (1, 2, 3), "keepdims": True}
    normal = (z - z.mean(**axes)) / np.sqrt(z.var(**axes) + 1e-5)
    np.testing.assert_allclose(layer(x), np.maximum(normal, 0), atol=1e-5)  # float32
    assert sum(w.size for w in jax.tree.leaves(nnx.state(layer.normalize, nnx.Param))) == 2 * 6


def test_dropout_comes_behind_the_pool():
    layer = hidden(Regularization(dropout=0.5), pool=2, activation=ACTIVATIONS["softplus"])
    x = numbers(0, 8, 8, 8, 2)
    assert np.mean(np.asarray(layer(x)) == 0) == pytest.approx(0.5, abs=0.1)
    layer.eval()
    assert not (np.asarray(layer(x)) == 0).any()
