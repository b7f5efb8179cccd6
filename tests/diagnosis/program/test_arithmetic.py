"""Arithmetic in which a signal is lost: what triggers each check, and a near miss."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnref.diagnosis.program.arithmetic import gradients, integers, measured
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.recipe import Recipe

HERE = Path(__file__).name
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 3)).astype(np.float32)
PIXELS = RANDOM.integers(0, 256, (32, 3)).astype(np.uint8)


def init(key):
    first, second = jax.random.split(key)
    params = {"w": jax.random.normal(first, (3, 8)), "v": jax.random.normal(second, (8, 1))}
    return params, {}


def mean_squared_error(outputs, y):
    return jnp.mean((outputs - y) ** 2)


def started(activation=jnp.tanh, prepare=lambda x: x, x=X, dtype=jnp.float32, scale=1.0):
    def apply(params, state, x, key, train):
        return activation(prepare(x).astype(dtype) @ params["w"]) @ params["v"], state

    def start(key):
        return jax.tree.map(lambda leaf: leaf.astype(dtype), init(key)[0]), {}

    def loss(outputs, y):
        return mean_squared_error(outputs, y) * scale

    y = X[:, :1].astype(dtype)
    return AtStart(Recipe(start, apply, loss, train=(x, y), optimizer=optax.sgd(0.1)))


def found_by(check, start):
    return list(check(start))


def by_hand(derivative):
    """The hyperbolic tangent, with a derivative given by hand."""

    @jax.custom_jvp
    def tanh(z):
        return jnp.tanh(z)

    @tanh.defjvp
    def _(primals, tangents):
        (z,), (dz,) = primals, tangents
        return tanh(z), derivative(z) * dz

    return tanh


def straight_through(z):
    return z + jax.lax.stop_gradient(jnp.round(z) - z)


@pytest.mark.usefixtures("float64")
def test_slopes_are_the_derivatives_of_the_loss():
    """Of a cubic, whose derivative is known."""
    point = {"a": np.array([1.0, -2.0]), "n": np.array([3])}
    exact, slopes = measured(lambda p: jnp.sum(p["a"] ** 3 * p["n"]), 0.0, point)
    np.testing.assert_allclose(exact["a"], 9 * point["a"] ** 2)
    assert [slope.path for slope in slopes] == ["a"]
    # Central differences of a cubic are off by the square of the step.
    assert slopes[0].fine == pytest.approx(slopes[0].autodiff, rel=1e-6)


@pytest.mark.parametrize(
    ("activation", "found"),
    [
        (by_hand(lambda z: 1 - jnp.tanh(z) ** 2), []),
        (by_hand(lambda z: 1 - z**2), [("wrong_gradient", "fault")]),
        (by_hand(lambda z: 1.2 * (1 - jnp.tanh(z) ** 2)), [("wrong_gradient", "note")]),
        (by_hand(lambda z: jnp.tanh(z) ** 2 - 1), [("gradient_ascent", "fault")]),
        (straight_through, [("wrong_gradient", "note")]),
        (jax.nn.relu, []),
        (jax.nn.softmax, []),
    ],
)
def test_gradients_are_held_against_slopes(activation, found):
    told = found_by(gradients, started(activation))
    assert [(finding.cause, finding.severity) for finding in told] == found
    assert all(HERE in finding.where for finding in told)


def bare(activation, target):
    """A bare loss of temporal differences of states that lead to themselves.

    `target` hands on what the values are held against.
    """

    def loss(params, x):
        values = (activation(x @ params["w"]) @ params["v"])[:, 0]
        return jnp.mean((values - x[:, 0] - 0.9 * target(values)) ** 2)

    return LossAtStart(loss, init(jax.random.key(0))[0], X, False)


def test_a_target_of_a_bare_loss_is_stopped_on_purpose():
    """The gradient is ten times the slope of the loss, and that is no mistake."""
    assert found_by(gradients, bare(jnp.tanh, jax.lax.stop_gradient)) == []
    assert found_by(gradients, bare(jnp.tanh, lambda values: values)) == []
    (found,) = found_by(gradients, bare(by_hand(lambda z: 1 - z**2), jax.lax.stop_gradient))
    assert (found.cause, found.severity) == ("wrong_gradient", "fault")


def test_a_target_among_several_outputs_is_stopped_on_purpose():
    """The network gives values and what they are held against; one output alone is no target."""

    def apply(params, state, x, key, train):
        values = (jnp.tanh(x @ params["w"]) @ params["v"])[:, 0]
        return {"now": values, "then": jax.lax.stop_gradient(0.9 * values)}, state

    def both(outputs, y):
        return jnp.mean((outputs["now"] - y[:, 0] - outputs["then"]) ** 2)

    def alone(params, state, x, key, train):
        outputs, state = apply(params, state, x, key, train)
        return outputs["now"] - outputs["then"], state

    recipe = Recipe(init, apply, both, train=(X, X[:, :1]), optimizer=optax.sgd(0.1))
    assert found_by(gradients, AtStart(recipe)) == []
    one = replace(recipe, apply=alone, loss=lambda outputs, y: jnp.mean((outputs - y[:, 0]) ** 2))
    assert [found.cause for found in found_by(gradients, AtStart(one))] == ["wrong_gradient"]


def test_a_wrong_derivative_is_told_with_its_line_and_not_that_of_a_librarys():
    wrong = by_hand(lambda z: 1 - z**2)

    def activation(z):
        z = jax.nn.relu(z)  # right
        return wrong(z)  # wrong

    (found,) = found_by(gradients, started(activation))
    with open(__file__) as lines:
        line = 1 + [line.strip() for line in lines].index("return wrong(z)  # wrong")
    assert found.where.endswith(f"{HERE}:{line}")


def test_a_kink_is_no_wrong_gradient():
    """Rows of zeros stand on the kink of every ReLU, where central differences give the mean."""
    assert found_by(gradients, started(jax.nn.relu, x=np.zeros_like(X))) == []
    zeros = started(jax.nn.leaky_relu)
    zeros.params = zeros.params | {"w": jnp.zeros((3, 8))}
    assert found_by(gradients, zeros) == []


def test_functions_that_insist_on_single_precision_are_asked_nothing():
    def single(z):
        return jax.lax.add(z.astype(jnp.float32), z)

    assert found_by(gradients, started(single)) == []
    with pytest.raises(TypeError, match="float32"):
        found_by(gradients, started(lambda z: by_hand(lambda z: z)(single(z))))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_layers_that_round_whatever_they_are_given_have_no_wrong_gradient(dtype):
    def rounds(z):
        return jnp.tanh(z.astype(dtype)).astype(z.dtype)

    assert found_by(gradients, started(rounds)) == []


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_gradients_that_half_precision_rounds_to_0(dtype):
    scale = 1e-5 * float(jnp.finfo(dtype).tiny)
    (found,) = found_by(gradients, started(dtype=dtype, scale=scale))
    assert (found.cause, found.where) == ("vanishing_gradients", "v, w")
    assert found_by(gradients, started(dtype=dtype)) == []
    assert found_by(gradients, started(lambda z: 0 * z, dtype=dtype)) == []  # 0 before any rounding


def test_integers_that_wrap_around():
    (found,) = found_by(integers, started(prepare=lambda x: x - 128, x=PIXELS))
    assert (found.cause, found.severity) == ("numerical_instability", "fault")
    assert HERE in found.where
    should, become = map(int, re.findall(r"should be (-\d+) is (\d+)", found.evidence)[0])
    assert become == should + 256
    assert found_by(integers, started(prepare=lambda x: x.astype("float32") - 128, x=PIXELS)) == []
    assert found_by(integers, started(prepare=lambda x: x // 2 + 100, x=PIXELS)) == []


@pytest.mark.parametrize(
    ("divisor", "severity"), [(255.1, ["fault"]), (100, ["note"]), (1, []), (0.01, [])]
)
def test_fractions_that_a_cast_drops(divisor, severity):
    def prepare(x):
        return (x / divisor).astype(int)

    assert [f.severity for f in found_by(integers, started(prepare=prepare, x=PIXELS))] == severity
