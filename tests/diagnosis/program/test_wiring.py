"""Dependence in the program: a program that triggers each check, and a near miss."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from networks import (
    affine,
    identity,
    learns,
    line_of,
    mean_squared_error,
    recipe,
    softmax_cross_entropy,
)

from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.wiring import between_layers, unused
from nnref.diagnosis.recipe import Recipe

# Unused results, with their lines


def overwritten(params, x):
    first = jax.nn.relu(affine(params["dense0"], x))  # overwritten
    first = jax.nn.relu(affine(params["dense1"], x))
    return affine(params["dense2"], first)


def reused(params, x):
    first = jax.nn.relu(affine(params["dense0"], x))
    second = jax.nn.relu(affine(params["dense1"], first))
    return affine(params["dense2"], second) + 0 * first.sum()


def unused_of(asked):
    return {finding.cause: finding for finding in unused(AtStart(asked))}


def test_an_overwritten_layer_is_found_with_its_line():
    found = unused_of(recipe(overwritten, (3, 3, 3, 2)))
    line = line_of(__file__, "overwritten")
    assert list(found) == ["parameters_not_updated"]
    assert found["parameters_not_updated"].severity == "fault"
    assert found["parameters_not_updated"].where.endswith(f"{Path(__file__).name}:{line}")
    assert "dense0.kernel" in found["parameters_not_updated"].evidence
    assert unused_of(recipe(reused, (3, 3, 3, 2))) == {}


def test_layers_before_the_dropped_one_are_told_with_it():
    """The line that drops the last of them, in the function that goes on without it."""

    def block(layer, x):
        return jax.nn.relu(affine(layer, x))

    def bypassed(params, x):
        h = block(params["dense0"], x)
        h = block(params["dense1"], h)  # dropped
        return affine(params["dense2"], x)

    (finding,) = unused(AtStart(recipe(bypassed, (3, 3, 3, 2))))
    assert finding.where.endswith(f"{Path(__file__).name}:{line_of(__file__, 'dropped')}")
    assert all(f"dense{k}.kernel" in finding.evidence for k in (0, 1))
    assert "dense2" not in finding.evidence


def test_an_activation_without_effect_is_noted_with_its_line():
    def forgotten(params, x):
        x = affine(params["dense0"], x)
        jax.nn.relu(x)
        return affine(params["dense1"], x)

    found = unused_of(recipe(forgotten))
    assert found["hidden_activation_missing"].severity == "note"
    assert found["hidden_activation_missing"].where.endswith(
        f":{line_of(__file__, 'jax.nn.relu(x)')}"
    )
    assert unused_of(recipe(learns)) == {}


def test_a_layer_that_is_never_called_is_noted():
    asked = recipe(lambda params, x: affine(params["dense0"], x), (3, 2, 2))
    assert unused_of(asked)["parameters_not_updated"].severity == "note"


def test_outputs_without_inputs():
    asked = recipe(lambda params, x: learns(params, jnp.ones_like(x)))
    assert "no_signal" in unused_of(asked)


CONVOLUTIONS = np.random.default_rng(2).normal(size=(6, 8, 8, 1)).astype(np.float32)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        first = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))  # linen
        first = nn.relu(nn.Conv(4, (3, 3), name="conv2")(x))
        return nn.Dense(3)(first.reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(256, 3, rngs=rngs)

    def __call__(self, x):
        first = nnx.relu(self.conv1(x))  # nnx
        first = nnx.relu(self.conv2(x))
        return self.dense(first.reshape(len(x), -1))


def plain(params, x):
    first = jax.nn.relu(convolved(x, params["conv1"]))  # plain
    first = jax.nn.relu(convolved(x, params["conv2"]))
    return first.reshape(len(x), -1) @ params["dense"]


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convnets():
    def of(init, apply):
        return Recipe(
            init=lambda key: (init(key), {}),
            apply=lambda params, state, x, key, train: (apply(params, x), state),
            loss=softmax_cross_entropy,
            train=(CONVOLUTIONS, np.eye(3, dtype=np.float32)[np.arange(6) % 3]),
        )

    def drawn(key):
        shapes = {"conv1": (3, 3, 1, 4), "conv2": (3, 3, 1, 4), "dense": (256, 3)}
        return {name: 0.1 * jax.random.normal(key, shape) for name, shape in shapes.items()}

    graph, state = nnx.split(Nnx(nnx.Rngs(0)))
    return {
        "plain": of(drawn, plain),
        "linen": of(
            lambda key: Linen().init(key, CONVOLUTIONS)["params"],
            lambda params, x: Linen().apply({"params": params}, x),
        ),
        "nnx": of(
            lambda key: nnx.to_pure_dict(state),
            lambda params, x: nnx.merge(graph, merged(state, params))(x),
        ),
    }


def merged(state, params):
    state = jax.tree.map(identity, state)
    nnx.replace_by_pure_dict(state, params)
    return state


@pytest.mark.parametrize("door", ["plain", "linen", "nnx"])
def test_the_classic_overwritten_convolution(door):
    with open(__file__) as file:
        line = 1 + next(i for i, text in enumerate(file) if text.endswith(f"  # {door}\n"))
    (finding,) = unused(AtStart(convnets()[door]))
    assert finding.cause == "parameters_not_updated"
    assert finding.severity == "fault"
    assert finding.where.endswith(f"{Path(__file__).name}:{line}")
    assert "conv1" in finding.evidence
    assert "conv2" not in finding.evidence


# Blocked gradients, layers without a nonlinearity


def linear(params, x):
    return affine(params["dense1"], affine(params["dense0"], x))


CURVE = np.linspace(-1, 1, 40, dtype=np.float32).reshape(-1, 1)


@pytest.mark.parametrize(("y", "severity"), [(CURVE**2, "fault"), (3 * CURVE, "note")])
def test_a_network_without_activations_is_a_fault_where_a_curve_is_asked(y, severity):
    asked = dataclasses.replace(recipe(linear, (1, 5, 1)), train=(CURVE, y))
    (finding,) = between_layers(AtStart(asked))
    assert (finding.cause, finding.severity) == ("hidden_activation_missing", severity)


def test_two_linear_layers_in_a_network_that_bends_are_a_note_unless_they_are_a_factor():
    def network(params, x):
        x = jax.nn.relu(affine(params["dense0"], x))
        return affine(params["dense2"], affine(params["dense1"], x))

    (finding,) = between_layers(AtStart(recipe(network, (3, 5, 5, 2))))
    assert (finding.severity, finding.where.split(",")[0]) == ("note", "dense1")
    factor = recipe(network, (3, 5, 1, 2))
    assert list(between_layers(AtStart(factor))) == []


def test_dropout_and_a_residual_do_not_hide_what_is_linear_nor_feign_it():
    def residual(params, x):
        x = affine(params["dense0"], x)
        x = x + jax.nn.relu(x)
        return affine(params["dense1"], x)

    assert list(between_layers(AtStart(recipe(residual)))) == []

    def skipped(params, x):
        x = affine(params["dense0"], x)
        return affine(params["dense1"], x + 2 * x)

    assert len(list(between_layers(AtStart(recipe(skipped))))) == 1


def test_four_rows_that_no_affine_map_fits():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    either, both = (x.sum(1, keepdims=True) == 1), (x.sum(1, keepdims=True) == 2)
    for y, severity in ((either, "fault"), (both, "note")):
        asked = dataclasses.replace(
            recipe(linear, (2, 3, 1)), train=(x, y.astype(np.float32)), loss=mean_squared_error
        )
        assert [f.severity for f in between_layers(AtStart(asked))] == [severity]


def test_a_residual_and_what_goes_on_beside_are_no_layer_too_many():
    def residual(params, x):
        x = jnp.tanh(affine(params["dense0"], x))
        x = x + affine(params["dense1"], x)
        return affine(params["dense2"], x)

    def beside(params, x):
        x = affine(params["dense0"], x)
        return jnp.tanh(affine(params["dense1"], x)) + affine(params["dense2"], jnp.sin(x))

    for network in (residual, beside):
        assert list(between_layers(AtStart(recipe(network, (3, 5, 5, 5))))) == []
