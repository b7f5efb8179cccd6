import inspect
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.errors import UserError
from nnref.parts.initializers import (
    INITIALIZERS,
    by_gate,
    constant,
    delta_orthogonal,
    fans,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    identity,
    lsuv,
    orthogonal,
    torch_linear,
    variance_scaling,
    zeros,
)

KEY = jax.random.key(0, impl="rbg")  # compiles in half the time of threefry
SQUARE = (12, 12)  # the one shape that all members can have
every_initializer = pytest.mark.parametrize("name", INITIALIZERS)


def numbers_of(name):
    """The keyword arguments that may be traced, with their defaults."""
    parameters = inspect.signature(INITIALIZERS[name]).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, float)}


def in_float64(initializer, key, shape, **arguments):
    with jax.enable_x64(True):
        return np.asarray(initializer(key, shape, jnp.float64, **arguments))


# --- every member -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
@every_initializer
def test_dtype_and_shape_are_as_asked(name, dtype):
    # As a sweep gives them: numbers of the program, float32 whatever the weights are.
    numbers = {n: jax.ShapeDtypeStruct((), jnp.float32) for n in numbers_of(name)}
    with jax.enable_x64(True):
        w = jax.eval_shape(lambda n: INITIALIZERS[name](KEY, SQUARE, dtype, **n), numbers)
    assert w.dtype == dtype
    assert w.shape == SQUARE
    assert jax.eval_shape(lambda: INITIALIZERS[name](KEY, SQUARE)).dtype == jnp.float32


@every_initializer
def test_other_keys_and_numbers_need_no_other_program(name):
    traced = []

    @jax.jit
    def program(seed, numbers):
        traced.append(name)
        key = jax.random.key(seed, impl="rbg")
        return INITIALIZERS[name](key, SQUARE, **numbers)

    def call(seed, factor):
        return program(seed, {n: np.float32(factor * v) for n, v in numbers_of(name).items()})

    first, same, other_key, other_numbers = call(0, 1.0), call(0, 1.0), call(1, 1.0), call(0, 1.5)
    assert len(traced) == 1
    np.testing.assert_array_equal(first, same)
    assert np.all(np.isfinite(first))
    deterministic = name in {"zeros", "ones", "constant", "identity"}
    assert np.array_equal(first, other_key) == deterministic
    assert np.array_equal(first, other_numbers) == (not numbers_of(name))


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if numbers_of(name)])
def test_many_numbers_at_once_equal_one_at_a_time(name):
    for number, default in numbers_of(name).items():
        values = default + jnp.array([0.0, 0.3, 1.1])

        def draw(value):
            return INITIALIZERS[name](KEY, SQUARE, **{number: value})  # noqa: B023

        one_by_one = np.stack([draw(float(v)) for v in values])
        np.testing.assert_allclose(jax.vmap(draw)(values), one_by_one, rtol=1e-6)


# --- moments ------------------------------------------------------------------------------------

NORMAL, UNIFORM = 3.0, 9 / 5  # E w^4 / (E w^2)^2
TRUNCATED = 2.3650  # of N(0, 1) cut at 2, by the recurrence of its moments
TRUNCATED_ABOVE = 2 / 0.8796
VARIANCES = [
    ("normal", {}, lambda i, o: 0.01**2, NORMAL),
    ("normal", {"scale": 2.0}, lambda i, o: 4, NORMAL),
    ("uniform", {}, lambda i, o: 1 / 3, UNIFORM),
    ("uniform", {"scale": 0.3}, lambda i, o: 0.03, UNIFORM),
    ("lecun_normal", {}, lambda i, o: 1 / i, NORMAL),
    ("lecun_normal", {"truncated": True}, lambda i, o: 1 / i, TRUNCATED),
    ("lecun_uniform", {"gain": 2.0}, lambda i, o: 4 / i, UNIFORM),
    ("glorot_normal", {}, lambda i, o: 2 / (i + o), NORMAL),
    ("glorot_normal", {"truncated": True}, lambda i, o: 2 / (i + o), TRUNCATED),
    ("glorot_uniform", {"gain": 0.5}, lambda i, o: 0.5 / (i + o), UNIFORM),
    ("he_normal", {}, lambda i, o: 2 / i, NORMAL),
    ("he_normal", {"slope": 0.5, "fan": "fan_out"}, lambda i, o: 2 / 1.25 / o, NORMAL),
    ("he_normal", {"truncated": True, "gain": 3.0}, lambda i, o: 18 / i, TRUNCATED),
    ("he_uniform", {}, lambda i, o: 2 / i, UNIFORM),
    ("he_uniform", {"slope": 0.5, "fan": "fan_out"}, lambda i, o: 2 / 1.25 / o, UNIFORM),
    ("variance_scaling", {}, lambda i, o: 1 / i, NORMAL),
    (
        "variance_scaling",
        {"gain": 3.0, "fan": "fan_out", "distribution": "truncated_normal"},
        lambda i, o: 9 / o,
        TRUNCATED,
    ),
    (
        "variance_scaling",
        {"fan": "fan_avg", "distribution": "uniform"},
        lambda i, o: 2 / (i + o),
        UNIFORM,
    ),
    ("torch_linear", {}, lambda i, o: 1 / (3 * i), UNIFORM),
    ("orthogonal", {"gain": 2.0}, lambda i, o: 4 / max(i, o), None),
]


@pytest.mark.parametrize("shape", [(150, 400), (3, 5, 20, 200)], ids=["dense", "convolution"])
@pytest.mark.parametrize(
    ("name", "arguments", "variance", "kurtosis"),
    VARIANCES,
    ids=[f"{name}{arguments}" for name, arguments, *_ in VARIANCES],
)
def test_mean_and_variance(name, arguments, variance, kurtosis, shape):
    window = math.prod(shape[:-2])
    fan_in, fan_out = window * shape[-2], window * shape[-1]
    w = np.asarray(INITIALIZERS[name](KEY, shape, **arguments), np.float64)
    if name == "orthogonal":  # whose fan is that of the flattened matrix, and exact
        np.testing.assert_allclose(np.mean(w**2), variance(fan_in, shape[-1]), rtol=1e-5)
        return
    expected, n = variance(fan_in, fan_out), w.size
    # Five standard errors of mean, variance and fourth moment.
    assert abs(np.mean(w)) < 5 * math.sqrt(expected / n)
    assert np.mean(w**2) == pytest.approx(expected, rel=5 * math.sqrt((kurtosis - 1) / n))
    assert np.mean(w**4) / expected**2 == pytest.approx(kurtosis, rel=5 * math.sqrt(11 / n))
    highest = {UNIFORM: math.sqrt(3), TRUNCATED: TRUNCATED_ABOVE}.get(kurtosis, 9)
    assert np.max(np.abs(w)) <= highest * math.sqrt(expected) * (1 + 1e-4)


@pytest.mark.parametrize(("one", "other"), [((4, 7), (7, 4)), ((3, 2, 5, 1), (3, 2, 1, 5))])
def test_transposed_layouts_have_equal_draws_where_the_equation_says_so(one, other):
    assert fans(one) == fans(other)[::-1]
    equal = [
        (glorot_uniform, glorot_uniform),
        (he_uniform, partial(he_uniform, fan="fan_out")),
        (
            partial(variance_scaling, fan="fan_out", distribution="uniform"),
            partial(variance_scaling, distribution="uniform"),
        ),
    ]
    for forward, backward in equal:
        w, v = forward(KEY, one), backward(KEY, other)
        np.testing.assert_allclose(np.ravel(w), np.ravel(v), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [("zeros", {}, 0), ("ones", {}, 1), ("constant", {}, 0.1), ("constant", {"value": -2.5}, -2.5)],
)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_constants(name, arguments, value, shape):
    w = INITIALIZERS[name](KEY, shape, **arguments)
    np.testing.assert_array_equal(w, np.full(shape, value, np.float32))


# --- matrices that keep lengths -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 12), (3, 12), (12, 3), (2, 2, 3, 3)], ids=str)
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    w = in_float64(orthogonal, KEY, shape).reshape(-1, shape[-1])
    square = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(square, np.eye(len(square)), atol=1e-12)


@pytest.mark.parametrize("member", [orthogonal, lsuv])
def test_ten_orthogonal_layers_are_an_isometry(member):
    product = np.eye(12)
    for key in jax.random.split(KEY, 10):
        product = product @ in_float64(member, key, (12, 12))
    assert np.abs(np.linalg.svd(product, compute_uv=False) - 1).max() < 1e-12


def test_orthogonal_is_uniform_over_the_orthogonal_matrices():
    keys = jax.random.split(jax.random.key(0), 4000)
    for shape in [(3, 3), (2, 4), (4, 2)]:
        w = np.asarray(jax.vmap(lambda key: orthogonal(key, shape))(keys))  # noqa: B023
        # Every entry has mean 0 and variance 1 / longer side; without the signs of R it has not.
        bound = 5 * math.sqrt(1 / max(shape) / len(keys))
        assert np.abs(w.mean(axis=0)).max() < bound
        np.testing.assert_allclose(w.var(axis=0), 1 / max(shape), rtol=0.12)  # five sigma of 4000


@pytest.mark.parametrize("window", [(3,), (3, 3), (2, 4), (5, 1, 3)], ids=str)
def test_a_delta_orthogonal_convolution_keeps_every_length(window):
    rank = len(window)
    kernel = in_float64(delta_orthogonal, KEY, (*window, 3, 5))
    image = np.random.default_rng(0).normal(size=(2, *[6] * rank, 3))
    with jax.enable_x64(True):
        convolved = jax.lax.conv_general_dilated(
            jnp.array(image),
            jnp.array(kernel),
            [1] * rank,
            "SAME",
            dimension_numbers=(f"N{'DHW'[-rank:]}C", f"{'DHW'[-rank:]}IO", f"N{'DHW'[-rank:]}C"),
        )
        lengths = np.linalg.norm(np.asarray(convolved), axis=-1)
    np.testing.assert_allclose(lengths, np.linalg.norm(image, axis=-1), rtol=1e-12)
    assert np.count_nonzero(kernel) == 15


def test_delta_orthogonal_without_a_window_is_orthogonal():
    np.testing.assert_array_equal(delta_orthogonal(KEY, (4, 3)), orthogonal(KEY, (4, 3)))


def test_identity_carries_a_state_along():
    np.testing.assert_array_equal(identity(KEY, (3, 3), gain=0.5), 0.5 * np.eye(3))


# --- signals ------------------------------------------------------------------------------------


def relu(z):
    return np.maximum(z, 0)


@pytest.mark.parametrize(
    ("initializer", "activation", "mean", "mean_square"),
    [
        (he_normal, relu, 1, (1 + 5 / 16) ** 5),
        (glorot_normal, relu, 2**-5, None),
        (glorot_normal, lambda z: z, 1, (1 + 2 / 16) ** 5),
        (torch_linear, lambda z: z, 3**-5, None),
    ],
    ids=["he, relu", "glorot, relu", "glorot, linear", "torch, linear"],
)
def test_signal_through_five_layers_of_16_units(initializer, activation, mean, mean_square):
    networks, depth, width = 4000, 5, 16
    draw = jax.vmap(lambda key: initializer(key, (width, width)))
    layers = np.asarray(draw(jax.random.split(jax.random.key(0), networks * depth)))
    h0 = h = np.random.default_rng(0).normal(size=(networks, 1, width))
    for w in layers.reshape(depth, networks, width, width):
        h = activation(h @ w)
    r = np.sum(h**2, axis=(1, 2)) / np.sum(h0**2, axis=(1, 2))

    def five_standard_errors(x):
        return 5 * np.std(x) / math.sqrt(len(x))

    assert abs(r.mean() - mean) < five_standard_errors(r) < 0.2 * mean
    if mean_square is not None:
        assert abs((r**2).mean() - mean_square) < five_standard_errors(r**2)


# --- what a model supplies ----------------------------------------------------------------------


def test_torch_linear_draws_a_bias_with_the_fan_in_of_its_kernel():
    b = np.asarray(torch_linear(KEY, (50_000,), fan_in=16))
    assert np.abs(b).max() == pytest.approx(1 / 4, rel=1e-3)
    assert b.var() == pytest.approx(1 / 48, rel=5 * math.sqrt(0.8 / 50_000))


def test_gates_are_drawn_one_by_one():
    w = in_float64(by_gate(*[orthogonal] * 4), KEY, (6, 24))
    gates = np.split(w, 4, axis=-1)
    for gate in gates:
        np.testing.assert_allclose(gate.T @ gate, np.eye(6), atol=1e-12)
    assert not np.allclose(gates[0], gates[1])


def test_a_forget_gate_starts_open():
    forget = partial(constant, value=1.0)
    b = by_gate(zeros, forget, zeros, zeros)(KEY, (8,))
    np.testing.assert_array_equal(b, [0, 0, 1, 1, 0, 0, 0, 0])


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "text"),
    [
        (
            lambda: he_normal(KEY, (7,)),
            "this initializer needs a kernel, with two axes or more; a bias of shape (7,) can have "
            "zeros, constant, normal, uniform or torch_linear",
        ),
        (
            lambda: torch_linear(KEY, (7,)),
            "torch_linear: a bias of shape (7,) needs its kernel's fan_in",
        ),
        (
            lambda: orthogonal(KEY, (2, 2), gain=None),
            "gain null is that of the activation in front, which only a model knows",
        ),
        (
            lambda: identity(KEY, (2, 3)),
            "identity needs a square kernel, this one has shape (2, 3)",
        ),
    ],
    ids=["bias", "torch bias", "gain", "identity"],
)
def test_mistakes_are_told_in_words(draw, text):
    with pytest.raises(UserError) as caught:
        draw()
    assert str(caught.value) == text


def test_orthogonal_factors_of_many_seeds_are_drawn_one_after_another():
    # In one batch, ten layers of 20 seeds never came back on a machine of two cores.
    keys = jax.random.split(jax.random.key(0), 20)
    draw = jax.vmap(lambda key: orthogonal(key, (5, 5)))
    program = jax.jit(draw).lower(keys).as_text()
    calls = [line for line in program.splitlines() if "geqrf" in line]
    assert calls
    assert all("tensor<5x5xf32>" in line and "20x5x5" not in line for line in calls)
    alone = jnp.stack([orthogonal(key, (5, 5)) for key in keys])
    np.testing.assert_allclose(draw(keys), alone, atol=1e-6)
