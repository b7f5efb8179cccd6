import inspect
import json
import math
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from nnref.errors import UserError
from nnref.parts.activations import ACTIVATIONS, build_activation, gain, maxout, pieces

ORACLE = json.loads(Path(__file__).with_name("oracles").joinpath("activations.json").read_text())
KINKS = {
    "relu": [0],
    "leaky_relu": [0],
    "prelu": [0],
    "elu": [0],
    "selu": [0],
    "hard_tanh": [-1, 1],
    "hard_sigmoid": [-3, 3],
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def apply(name, z, **numbers):
    """A member on sums of three units, its class built, where it is one, for them."""
    return build_activation(partial(ACTIVATIONS[name], **numbers), 3)(z)


def elementwise(name, **arguments):
    """A member as a function of one number, fed to every piece."""
    activation = partial(ACTIVATIONS[name], **arguments)
    built, k = build_activation(activation, 1), pieces(activation)
    return lambda z: built(jnp.repeat(jnp.asarray(z)[..., None], k, axis=-1))[..., 0]


def numbers_of(name):
    """The keyword arguments that may be traced, with their defaults."""
    parameters = inspect.signature(
        ACTIVATIONS[name].__init__ if name == "prelu" else ACTIVATIONS[name]
    ).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, float)}


def sums(name, key=0, rows=4, dtype=jnp.float32):
    width = 3 * pieces(ACTIVATIONS[name])
    return 3 * jax.random.normal(jax.random.key(key), (2, rows, width), dtype)


# --- every member -------------------------------------------------------------------------------


DTYPES = (jnp.float32, jnp.float64, jnp.bfloat16)


@cache
def values_and_gradients(name):
    """The program that computes them for every dtype, far out too, and how often it was traced."""
    far = np.array([0, 1e-30, 1, 3, 90, 1e4])
    rows = np.repeat([-far, far], 3 * pieces(ACTIVATIONS[name]), axis=1).reshape(2, 6, -1)
    traced = []

    @jax.jit
    def program(numbers):
        traced.append(name)

        def value_and_gradient(z):
            a, pull = jax.vjp(partial(apply, name, **numbers), z)
            return a, *pull(jnp.ones_like(a))

        return [value_and_gradient(jnp.array(rows, dtype)) for dtype in DTYPES]

    def call(factor):
        with jax.enable_x64(True):
            # As a sweep gives them: numbers of the program, float32 whatever z is.
            numbers = {n: np.float32(factor * v) for n, v in numbers_of(name).items()}
            return program(numbers)

    return call, traced


@every_activation
def test_values_and_gradients_are_finite_of_the_same_dtype_and_shape(name):
    call, _ = values_and_gradients(name)
    for dtype, (a, gradient) in zip(DTYPES, call(1.0), strict=True):
        assert a.dtype == gradient.dtype == dtype
        assert a.shape == (2, 6, 3)
        assert np.all(np.isfinite(np.asarray(a, np.float64)))
        assert np.all(np.isfinite(np.asarray(gradient, np.float64)))


@every_activation
def test_other_numbers_need_no_other_program(name):
    call, traced = values_and_gradients(name)
    before, after = call(1.0), call(1.5)
    assert len(traced) == 1
    changed = any(np.any(b[0] != a[0]) for b, a in zip(before, after, strict=True))
    assert changed == bool(numbers_of(name))


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if numbers_of(name)])
def test_many_numbers_at_once_equal_one_at_a_time(name):
    z = sums(name)
    for number, default in numbers_of(name).items():
        values = default * jnp.array([0.3, 1.0, 2.1])
        at_once = jax.vmap(lambda v: apply(name, z, **{number: v}))(values)  # noqa: B023
        one_by_one = jnp.stack([apply(name, z, **{number: float(v)}) for v in values])
        np.testing.assert_allclose(at_once, one_by_one, rtol=1e-6)
        assert not np.allclose(at_once[0], at_once[2]), "the number does nothing"


@every_activation
def test_derivative_equals_finite_differences(name):
    z = np.random.default_rng(0).uniform(-9, 9, 2000)
    for kink in KINKS.get(name, []):
        z[np.abs(z - kink) < 1e-3] += 0.01
    with jax.enable_x64(True):
        a, h = elementwise(name), 1e-5

        @jax.jit
        def program(z):
            _, derivative = jax.jvp(a, (z,), (jnp.ones(len(z)),))
            return derivative, (a(z + h) - a(z - h)) / (2 * h)

        derivative, differences = program(z)
    # h^2 times a third derivative, and rounding of a divided by h
    np.testing.assert_allclose(derivative, differences, atol=1e-9)


# --- against other sources ----------------------------------------------------------------------


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda c: c["name"] + str(c["arguments"]))
def test_values_and_derivatives_equal_those_of_torch(case):
    with jax.enable_x64(True):
        z = jnp.array(ORACLE["z"])
        a = elementwise(case["name"], **case["arguments"])
        values, derivatives = jax.jit(lambda z: jax.jvp(a, (z,), (jnp.ones_like(z),)))(z)
    # 1 + tanh(-10) cancels; torch keeps the 1/6 of its hard sigmoid in float32
    near = {"rtol": 1e-7 if case["name"] == "hard_sigmoid" else 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(values, case["values"], **near)
    np.testing.assert_allclose(derivatives, case["derivatives"], **near)


MEAN_SQUARES = {
    "linear": 1,
    "sigmoid": 0.293379,
    "tanh": 0.394294,
    "softsign": 0.183014,
    "relu": 0.5,
    "leaky_relu": (1 + 0.01**2) / 2,
    "prelu": (1 + 0.25**2) / 2,
    "elu": 0.644945,
    "selu": 1,
    "celu": 0.644945,  # is elu for alpha 1
    "gelu": 0.425221,
    "silu": 0.355776,
    "mish": 0.452342,
    "softplus": 0.921246,
    # 1 - 2 phi(1) outside (-1, 1) counted as 1: 1 - sqrt(2 / (pi e))
    "hard_tanh": 1 - math.sqrt(2 / (math.pi * math.e)),
    "maxout": 1,  # the larger and the smaller of two have equal mean squares, which sum to 2
}


def mean_square(a, largest_of=1):
    """E a(z)^2 for z the largest of some N(0, 1), by Gauss and Legendre between the kinks."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    total = 0.0
    edges = [-13, -6, -3, -1, 0, 1, 3, 6, 13]
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        z = (low + high) / 2 + (high - low) / 2 * nodes
        phi = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        cdf = np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in z])
        density = largest_of * phi * cdf ** (largest_of - 1)
        total += (high - low) / 2 * np.sum(weights * density * np.asarray(a(z)) ** 2)
    return total


@cache
def mean_square_of(name):
    with jax.enable_x64(True):
        return mean_square(jax.jit(elementwise(name)), pieces(ACTIVATIONS[name]))


@pytest.mark.parametrize("name", MEAN_SQUARES)
def test_mean_square_behind_a_standard_normal(name):
    assert mean_square_of(name) == pytest.approx(
        MEAN_SQUARES[name], abs=6e-7
    )  # six digits are tabulated


@pytest.mark.parametrize("form", ["exact", "tanh"])
def test_the_forms_of_gelu_differ_by_less_than_said(form):
    with jax.enable_x64(True):
        z = jnp.linspace(-8, 8, 20001)
        exact = z * jax.scipy.stats.norm.cdf(z)
        gap = float(jnp.max(jnp.abs(ACTIVATIONS["gelu"](z, form=form) - exact)))
    assert gap < 1e-15 if form == "exact" else 4e-4 < gap < 5e-4


def test_selu_keeps_mean_0_and_variance_1():
    with jax.enable_x64(True):
        selu = elementwise("selu")
        # E a from E (a + 1)^2 = E a^2 + 2 E a + 1
        mean = (mean_square(lambda z: selu(z) + 1) - mean_square(selu) - 1) / 2
    assert mean == pytest.approx(0, abs=1e-7)


def test_scaled_tanh_leaves_the_targets_where_they_are():
    a = ACTIVATIONS["scaled_tanh"]
    # five digits of 1.7159 are given
    np.testing.assert_allclose(a(jnp.array([-1.0, 0.0, 1.0])), [-1, 0, 1], rtol=1e-4)
    assert a(jnp.float32(100)) == pytest.approx(1.7159)


# --- those that need more than z ----------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 4), max_size=2),
    width=st.integers(1, 4),
    k=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=8, deadline=None)
def test_maxout_is_the_largest_of_neighbouring_sums(shape, width, k, seed):
    z = np.random.default_rng(seed).normal(size=(*shape, width * k)).astype(np.float32)
    expected = np.empty((*shape, width), np.float32)
    for unit in range(width):
        expected[..., unit] = np.max(z[..., unit * k : (unit + 1) * k], axis=-1)
    np.testing.assert_array_equal(maxout(jnp.array(z), pieces=k), expected)


def test_maxout_says_that_sums_cannot_be_shared_out():
    with pytest.raises(UserError, match="^maxout of 3 pieces cannot share out 7 sums evenly$"):
        maxout(jnp.zeros((2, 7)), pieces=3)


def test_maxout_alone_takes_several_sums_a_unit():
    several = {name for name, member in ACTIVATIONS.items() if pieces(member) > 1}
    assert several == {"maxout"}
    assert pieces(maxout) == 2
    assert pieces(partial(maxout, pieces=5)) == 5


def test_prelu_learns_a_slope_for_each_unit():
    prelu = build_activation(partial(ACTIVATIONS["prelu"], slope=0.1), 3)
    np.testing.assert_array_equal(prelu.slope[...], np.full(3, 0.1, np.float32))
    z = jnp.array([[-2.0, 3.0, -1.0], [-5.0, -4.0, 6.0]])
    gradient = nnx.grad(lambda module: jnp.sum(module(z)))(prelu)
    np.testing.assert_array_equal(gradient.slope[...], [-7, -4, -1])


def test_every_built_module_has_parameters_of_its_own():
    prelu = partial(ACTIVATIONS["prelu"], slope=0.1)
    first, second = build_activation(prelu, 2), build_activation(prelu, 2)
    first.slope[...] = jnp.ones(2)
    assert second.slope[0] == pytest.approx(0.1)


# --- the gain of the next layer -----------------------------------------------------------------


@every_activation
def test_gain_makes_up_for_the_activation(name):
    # float32, and steps of 0.01 over the kinks of the hard ones
    assert gain(ACTIVATIONS[name]) == pytest.approx(mean_square_of(name) ** -0.5, rel=1e-5)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_gain_is_that_of_he(slope):
    expected = math.sqrt(2 / (1 + slope**2))
    for name in ("leaky_relu", "prelu"):
        figure = jax.jit(lambda s: gain(partial(ACTIVATIONS[name], slope=s)))(slope)  # noqa: B023
        assert figure == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_gain_of_maxout_counts_its_pieces(k):
    z = np.random.default_rng(k).standard_normal((400_000, k))
    sampled = np.mean(np.max(z, axis=1) ** 2) ** -0.5
    # five standard errors of the mean of a square whose deviation is at most 2.1 times it
    assert gain(partial(maxout, pieces=k)) == pytest.approx(sampled, rel=5 * 2.1 / 2 / 400_000**0.5)
