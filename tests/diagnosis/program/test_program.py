import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.program import checks as program
from nnref.diagnosis.program import outputs as objective
from nnref.diagnosis.program import step, wiring
from nnref.diagnosis.program.at_start import Look
from nnref.diagnosis.program.layers import activations, layers
from nnref.diagnosis.program.tracing import trace
from nnref.diagnosis.recipe import Subject

HERE = Path(__file__).name


def line_of(text):
    """The line of this file that holds a text, and nothing else of it."""
    with open(__file__) as lines:
        return 1 + [line.split("#")[-1].strip() for line in lines].index(text)


def dense(key, *sizes):
    keys = jax.random.split(key, len(sizes))
    return {
        f"dense{i}": {
            "kernel": jax.random.normal(keys[i], (sizes[i], sizes[i + 1])) / sizes[i] ** 0.5,
            "bias": jnp.zeros(sizes[i + 1]),
        }
        for i in range(len(sizes) - 1)
    }


def affine(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def mean_squared_error(outputs, y):
    return jnp.mean((outputs - y) ** 2)


def subject(network, sizes=(3, 5, 2), *, y=None, loss=mean_squared_error, rows=12, **others):
    """A network of parameters and rows, without state, key or modes."""
    x = np.random.default_rng(0).normal(size=(rows, sizes[0])).astype(np.float32)
    if y is None:
        y = np.tanh(x @ np.ones((sizes[0], sizes[-1]), np.float32))
    return Subject(
        init=lambda key: (dense(key, *sizes), {}),
        apply=lambda params, state, x, key, train: (network(params, x), state),
        loss=loss,
        train=(x, y),
        **others,
    )


# The trace


def test_trace_computes_what_the_function_does():
    def function(params, x):
        def turn(carry, row):
            return jnp.tanh(carry @ params["kernel"] + row), carry.sum()

        last, sums = jax.lax.scan(turn, jnp.zeros(4), x)
        both = jax.lax.cond(last[0] > 0, jnp.sin, lambda z: 2 * z, last)
        return jax.nn.gelu(both), sums, jax.nn.logsumexp(x, -1)

    params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
    x = jax.random.normal(jax.random.key(1), (6, 4))
    traced = trace(function, params, x)
    leaves = jax.tree.leaves((params, x))
    given = jax.jit(lambda leaves: traced.evaluate(leaves, traced.outputs))(leaves)
    for value, expected in zip(given, function(params, x), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


# The layers


def test_layers_tell_parameters_line_and_activation():
    def network(params, x):
        x = jax.nn.relu(affine(params["dense0"], x))
        return jax.nn.softmax(affine(params["dense1"], x))

    first, second = layers(subject(network))
    assert (first.name, first.activation, first.shape) == ("dense0", "relu", (2, 5))
    assert (second.name, second.activation, second.shape) == ("dense1", "softmax", (2, 2))
    line = line_of('return x @ layer["kernel"] + layer["bias"]')
    assert first.where.endswith(f"{HERE}:{line}")


@pytest.mark.parametrize(
    "activation", [jax.nn.relu, jnp.tanh, jax.nn.silu, jax.nn.gelu, jax.nn.elu, jax.nn.softplus]
)
def test_activations_are_those_of_the_network(activation):
    def network(params, x):
        return affine(params["dense1"], activation(affine(params["dense0"], x)))

    asked = subject(network)
    params, state = asked.init(jax.random.key(1))
    x = asked.train[0][:7]
    (before, after), (logits, same) = activations(asked, params, state, x)
    expected = affine(params["dense0"], x)
    np.testing.assert_allclose(before, expected, rtol=1e-6)
    np.testing.assert_allclose(after, activation(expected), rtol=1e-6)
    np.testing.assert_allclose(logits, network(params, x), rtol=1e-6)
    np.testing.assert_array_equal(same, logits)


def test_layers_behind_a_normalization_a_loop_and_a_table():
    def network(params, x):
        x = params["dense2"]["kernel"][jnp.clip(x.astype(int), 0, 4)].mean(-2)
        x = affine(params["dense0"], x)
        x = (x - x.mean(-1, keepdims=True)) / (1e-3 + x.std(-1, keepdims=True))
        x = jax.nn.silu(x)

        def turn(carry, row):
            return jnp.tanh(affine(params["dense1"], carry) + row), None

        return jax.lax.scan(turn, jnp.zeros(5), x)[0]

    found = layers(subject(network, (5, 5, 5, 5), y=np.zeros((12, 5), np.float32)))
    assert [layer.name for layer in found] == ["dense2", "dense0", "dense1"]
    assert [layer.looped for layer in found] == [False, False, True]
    assert found[1].activation == "silu"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_over_stacked_parameters_is_a_stack_of_layers(reverse):
    def network(params, x):
        def turn(carry, layer):
            return jnp.tanh(affine(layer, carry)), None

        x = jax.nn.relu(affine(params["dense0"], x))
        return jax.lax.scan(turn, x, params["stack"], reverse=reverse)[0]

    kernels = np.random.default_rng(1).normal(size=(4, 5, 5)).astype(np.float32)
    stack = {"kernel": kernels, "bias": np.ones((4, 5), np.float32)}
    asked = dataclasses.replace(
        subject(network, (3, 5)), init=lambda key: (dense(key, 3, 5) | {"stack": stack}, {})
    )
    found = layers(asked)
    assert [layer.name for layer in found] == ["dense0", *["stack"] * 4]
    assert [layer.activation for layer in found] == ["relu", *["tanh"] * 4]
    assert [layer.fan_in for layer in found] == [3, 5, 5, 5, 5]
    params, state = asked.init(jax.random.key(1))
    x = asked.train[0][:7]
    seen = jax.jit(lambda params, x: activations(asked, params, state, x))(params, x)
    assert len(seen) == 5
    np.testing.assert_allclose(seen[-1][1], network(params, x), rtol=1e-5)
    start, _ = Interventions(Measurements(asked, 30.0)).he_start
    assert np.std(start["stack"]["kernel"]) == pytest.approx((2 / 5) ** 0.5, rel=0.3)


def test_what_is_multiplied_with_other_data_weighs_them():
    def attention(params, x):
        weights = jax.nn.softmax(affine(params["dense0"], x))
        return (weights * x) @ params["dense1"]["kernel"]

    def squashed(params, x):
        return affine(params["dense1"], jax.nn.softmax(affine(params["dense0"], x)))

    for network, expected in ((attention, [True, False]), (squashed, [False, False])):
        assert [layer.weighs for layer in layers(subject(network, (3, 3, 2)))] == expected


# The checks. A program that triggers each, and a near miss that must not


def causes(asked, severity="fault"):
    return [finding.cause for finding in program.check(asked) if finding.severity == severity]


def learns(params, x):
    return affine(params["dense1"], jax.nn.relu(affine(params["dense0"], x)))


def test_a_healthy_program_gives_nothing():
    impossible = []
    assert program.check(subject(learns), impossible=impossible) == []
    assert impossible == []


def softmax_cross_entropy(logits, y):
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), -1))


def cross_entropy(probabilities, y):
    return -jnp.mean(jnp.sum(y * jnp.log(jnp.clip(probabilities, 1e-7, 1)), -1))


def binary_cross_entropy(p, y):
    p = jnp.clip(p, 1e-7, 1 - 1e-7)
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


def logistic_cross_entropy(logits, y):
    return jnp.mean(jax.nn.softplus(logits) - y * logits)


def cross_entropy_of_numbers(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def unguarded_cross_entropy(p, y):
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))  # unguarded


def contrastive(distance, same):
    """Near where two are the same, else beyond a margin (Hadsell, Chopra, LeCun 2006)."""
    apart = jnp.maximum(0, 1.5 - distance) ** 2
    return jnp.mean(same * distance**2 + (1 - same) * apart)


def poisson(rate, y):
    return jnp.mean(rate - y * jnp.log(rate))


def ranked(scores, y):
    """A logistic loss of all pairs of rows (RankNet, Burges et al. 2005)."""
    ahead = (y - y.T > 0) * jax.nn.softplus(scores.T - scores)
    return ahead.sum() / jnp.maximum((y - y.T > 0).sum(), 1)


def matched(outputs, y):
    """Each answer has to find its target among those of the batch (van den Oord et al. 2018)."""
    unit = [part / jnp.linalg.norm(part + 1e-6, axis=-1, keepdims=True) for part in (outputs, y)]
    return -jnp.mean(jnp.diag(jax.nn.log_softmax(10 * unit[0] @ unit[1].T)))


def ends_in(activation):
    return lambda params, x: activation(learns(params, x))


def identity(z):
    return z


RANDOM = np.random.default_rng(1)
CLASSES = np.arange(12) % 3
ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES]
FLAGS = RANDOM.integers(0, 2, (12, 3)).astype(np.float32)
BITS = (np.arange(12) % 2).astype(np.float32).reshape(-1, 1)
VALUES = np.linspace(-2, 2, 12, dtype=np.float32).reshape(-1, 1)
COUNTS = (3 + np.arange(12) % 5).astype(np.float32).reshape(-1, 1)
PAIRS = RANDOM.normal(size=(12, 5)).astype(np.float32)
SHARES = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(-1, 1)
PARTS = RANDOM.uniform(0.2, 0.6, (12, 3)).astype(np.float32)
NUMBERS = CLASSES.astype(np.float32).reshape(-1, 1)


def ends(activation, y, loss, width=None, **others):
    width = width or (y.shape[-1] if y.ndim > 1 else 1)
    return subject(ends_in(activation), (3, 5, width), y=y, loss=loss, **others)


def judged(check, asked):
    """Causes of the faults and notes of one check."""
    found = check(Look(asked))
    return [(finding.severity, finding.cause) for finding in found]


ANSWERS = {
    "softmax over one unit": (
        ends(jax.nn.softmax, BITS, mean_squared_error),
        "softmax_on_single_unit",
        ends(jax.nn.sigmoid, BITS, mean_squared_error),
    ),
    "softmax over one unit in the loss": (
        ends(identity, BITS, softmax_cross_entropy),
        "softmax_on_single_unit",
        ends(identity, np.eye(2, dtype=np.float32)[CLASSES % 2], softmax_cross_entropy),
    ),
    "one unit for three classes": (
        ends(jax.nn.sigmoid, NUMBERS, binary_cross_entropy, kind="multiclass"),
        "output_width_mismatch",
        ends(jax.nn.softmax, ONE_HOT, cross_entropy, kind="multiclass"),
    ),
    "one unit for three targets": (
        ends(identity, FLAGS, mean_squared_error, width=1),
        "output_width_mismatch",
        ends(jax.nn.sigmoid, FLAGS, mean_squared_error),
    ),
    "a class beyond the last": (
        ends(
            identity,
            CLASSES + 1,
            cross_entropy_of_numbers,
            width=3,
        ),
        "output_width_mismatch",
        ends(
            identity,
            CLASSES,
            cross_entropy_of_numbers,
            width=3,
        ),
    ),
    "two softmaxes": (
        ends(jax.nn.softmax, ONE_HOT, softmax_cross_entropy),
        "double_softmax",
        ends(jax.nn.log_softmax, ONE_HOT, softmax_cross_entropy),
    ),
    "sigmoid on the logits": (
        ends(jax.nn.sigmoid, ONE_HOT, softmax_cross_entropy),
        "output_activation_mismatch",
        ends(lambda z: 30 * jnp.tanh(z / 30), ONE_HOT, softmax_cross_entropy),
    ),
    "no probabilities": (
        ends(identity, ONE_HOT, cross_entropy),
        "output_activation_missing",
        ends(jax.nn.softmax, ONE_HOT, cross_entropy),
    ),
    "no probability": (
        ends(identity, BITS, binary_cross_entropy),
        "output_activation_missing",
        ends(identity, BITS, lambda z, y: jnp.mean(jax.nn.softplus(z) - y * z)),
    ),
    "independent answers for one class": (
        ends(jax.nn.sigmoid, ONE_HOT, cross_entropy),
        "output_activation_mismatch",
        ends(jax.nn.sigmoid, ONE_HOT, binary_cross_entropy),
    ),
    "one class for independent labels": (
        ends(jax.nn.softmax, FLAGS, mean_squared_error),
        "output_activation_mismatch",
        ends(jax.nn.softmax, ONE_HOT, mean_squared_error),
    ),
    "a softmax for values of other sums": (
        ends(jax.nn.softmax, PARTS, mean_squared_error),
        "output_activation_mismatch",
        ends(jax.nn.softmax, PARTS / PARTS.sum(1, keepdims=True), mean_squared_error),
    ),
    "tanh into a logarithm": (
        ends(jnp.tanh, BITS, binary_cross_entropy),
        "output_activation_mismatch",
        ends(lambda z: (1 + jnp.tanh(z)) / 2, BITS, binary_cross_entropy),
    ),
    "relu on logits": (
        ends(jax.nn.relu, ONE_HOT, softmax_cross_entropy),
        "relu_output",
        ends(jax.nn.leaky_relu, ONE_HOT, softmax_cross_entropy),
    ),
    "relu for negative values": (
        ends(jax.nn.relu, VALUES, mean_squared_error),
        "relu_output",
        ends(jax.nn.relu, VALUES + 2, mean_squared_error),
    ),
    "sigmoid for values beyond it": (
        ends(jax.nn.sigmoid, VALUES, mean_squared_error),
        "output_range_excludes_targets",
        ends(jax.nn.sigmoid, SHARES, mean_squared_error),
    ),
    "a loss that rises": (
        ends(identity, VALUES, lambda outputs, y: -mean_squared_error(outputs, y)),
        "gradient_ascent",
        ends(identity, VALUES, lambda outputs, y: jnp.mean(jnp.abs(outputs - y))),
    ),
    "a distance that rises": (
        ends(identity, VALUES, lambda outputs, y: -jnp.mean(jnp.abs(outputs - y))),
        "gradient_ascent",
        ends(identity, VALUES, lambda outputs, y: jnp.mean(outputs * y)),  # a linear cost
    ),
    "a likelihood that rises": (
        ends(jax.nn.softmax, ONE_HOT, lambda p, y: -cross_entropy(p, y)),
        "gradient_ascent",
        ends(identity, ONE_HOT, softmax_cross_entropy),
    ),
    "cross-entropy for values": (
        ends(identity, VALUES, cross_entropy),
        "loss_mismatch",
        ends(identity, VALUES + 3, lambda z, y: jnp.mean(jnp.exp(z) - y * z)),
    ),
    "a relative error of zeros": (
        ends(
            jax.nn.sigmoid,
            BITS,
            lambda p, y: jnp.mean(jnp.abs(p - y) / jnp.maximum(jnp.abs(y), 1e-7)),
        ),
        "loss_mismatch",
        ends(
            identity,
            VALUES + 4,
            lambda z, y: jnp.mean(jnp.abs(z - y) / jnp.maximum(jnp.abs(y), 1e-7)),
        ),
    ),
    "one of two classes that does not count": (
        ends(identity, BITS, lambda z, y: jnp.mean(jnp.maximum(0, 1 - y * z))),
        "loss_mismatch",
        ends(identity, BITS, lambda z, y: jnp.mean(jnp.maximum(0, 1 - (2 * y - 1) * z))),
    ),
    "a cross-entropy of targets beyond 1": (
        ends(identity, 255 * FLAGS, logistic_cross_entropy),
        "loss_mismatch",
        ends(identity, FLAGS, logistic_cross_entropy),
    ),
    "a loss that is masked everywhere": (
        ends(identity, ONE_HOT, lambda z, y: jnp.mean((y > 1) * jax.nn.softplus(z))),
        "loss_mismatch",
        ends(identity, ONE_HOT, lambda z, y: jnp.mean((y < 1) * jax.nn.softplus(z))),
    ),
    "rows against columns": (
        ends(identity, VALUES[:, 0], mean_squared_error),
        "loss_broadcast",
        ends(lambda z: z[:, 0], VALUES[:, 0], mean_squared_error),
    ),
    "softmax over the batch": (
        ends(lambda z: jax.nn.softmax(z, 0), ONE_HOT, cross_entropy),
        "loss_axis_error",
        ends(lambda z: jax.nn.softmax(z, 1), ONE_HOT, cross_entropy),
    ),
    "softmax over the batch in the loss": (
        ends(identity, ONE_HOT, lambda z, y: -jnp.mean(jnp.sum(y * jax.nn.log_softmax(z, 0), -1))),
        "loss_axis_error",
        ends(identity, ONE_HOT, softmax_cross_entropy),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_trigger_and_near_miss(name):
    triggers, cause, misses = ANSWERS[name]
    assert judged(objective.answers, triggers) == [("fault", cause)]
    assert "fault" not in dict(judged(objective.answers, misses))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (ends(identity, VALUES, lambda z, y: jnp.mean(z**2)), [("note", "loss_mismatch")]),
        (ends(identity, VALUES, mean_squared_error), []),
        (ends(identity, BITS, mean_squared_error), [("note", "loss_mismatch")]),
        (ends(jax.nn.sigmoid, BITS, mean_squared_error), []),
        (ends(jax.nn.softplus, BITS, contrastive), []),
        (ends(identity, COUNTS, poisson), [("note", "output_activation_missing")]),
        (ends(jax.nn.softplus, COUNTS, poisson), []),
        (ends(identity, VALUES, ranked), [("note", "loss_axis_error")]),
        (ends(identity, PAIRS, matched, width=5), []),
    ],
    ids=[
        "no targets",
        "targets",
        "a distance of raw values",
        "a distance of probabilities",
        "a distance of two codes",
        "a rate below 0",
        "a rate",
        "a ranking",
        "pairs",
    ],
)
def test_losses_that_are_worth_a_note(asked, found):
    assert judged(objective.answers, asked) == found


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
    return {finding.cause: finding for finding in wiring.unused(Look(asked))}


def test_an_overwritten_layer_is_found_with_its_line():
    found = unused_of(subject(overwritten, (3, 3, 3, 2)))
    line = line_of("overwritten")
    assert list(found) == ["parameters_not_updated"]
    assert found["parameters_not_updated"].severity == "fault"
    assert found["parameters_not_updated"].where.endswith(f"{HERE}:{line}")
    assert "dense0.kernel" in found["parameters_not_updated"].evidence
    assert unused_of(subject(reused, (3, 3, 3, 2))) == {}


def test_layers_before_the_dropped_one_are_told_with_it():
    """The line that drops the last of them, in the function that goes on without it."""

    def block(layer, x):
        return jax.nn.relu(affine(layer, x))

    def bypassed(params, x):
        h = block(params["dense0"], x)
        h = block(params["dense1"], h)  # dropped
        return affine(params["dense2"], x)

    (finding,) = wiring.unused(Look(subject(bypassed, (3, 3, 3, 2))))
    assert finding.where.endswith(f"{HERE}:{line_of('dropped')}")
    assert all(f"dense{k}.kernel" in finding.evidence for k in (0, 1))
    assert "dense2" not in finding.evidence


def test_an_activation_without_effect_is_noted_with_its_line():
    def forgotten(params, x):
        x = affine(params["dense0"], x)
        jax.nn.relu(x)
        return affine(params["dense1"], x)

    found = unused_of(subject(forgotten))
    assert found["hidden_activation_missing"].severity == "note"
    assert found["hidden_activation_missing"].where.endswith(f":{line_of('jax.nn.relu(x)')}")
    assert unused_of(subject(learns)) == {}


def test_a_layer_that_is_never_called_is_noted():
    asked = subject(lambda params, x: affine(params["dense0"], x), (3, 2, 2))
    assert unused_of(asked)["parameters_not_updated"].severity == "note"


def test_outputs_without_inputs():
    asked = subject(lambda params, x: learns(params, jnp.ones_like(x)))
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
        return Subject(
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
    (finding,) = wiring.unused(Look(convnets()[door]))
    assert finding.cause == "parameters_not_updated"
    assert finding.severity == "fault"
    assert finding.where.endswith(f"{HERE}:{line}")
    assert "conv1" in finding.evidence
    assert "conv2" not in finding.evidence


# Blocked gradients, layers without a nonlinearity


def test_gradients_that_rounding_blocks():
    def rounded(params, x):
        return affine(params["dense1"], jnp.round(affine(params["dense0"], x)))

    (finding,) = wiring.blocked(Look(subject(rounded)))
    assert (finding.cause, finding.severity) == ("vanishing_gradients", "fault")
    assert "round" in finding.evidence
    assert "dense1" not in finding.evidence


def test_a_straight_through_gradient_is_not_blocked():
    @jax.custom_vjp
    def rounded(z):
        return jnp.round(z)

    rounded.defvjp(lambda z: (jnp.round(z), None), lambda _, slope: (slope,))

    def network(params, x):
        return affine(params["dense1"], rounded(affine(params["dense0"], x)))

    assert wiring.blocked(Look(subject(network))) == []


def test_a_frozen_layer_is_a_note_and_a_frozen_network_a_fault():
    def frozen(params, x):
        return affine(params["dense1"], jax.lax.stop_gradient(affine(params["dense0"], x)))

    (finding,) = wiring.blocked(Look(subject(frozen)))
    assert (finding.cause, finding.severity) == ("parameters_not_updated", "note")

    def stopped(params, x):
        return jax.lax.stop_gradient(learns(params, x))

    (finding,) = wiring.blocked(Look(subject(stopped)))
    assert (finding.cause, finding.severity) == ("parameters_not_updated", "fault")


def linear(params, x):
    return affine(params["dense1"], affine(params["dense0"], x))


CURVE = np.linspace(-1, 1, 40, dtype=np.float32).reshape(-1, 1)


@pytest.mark.parametrize(("y", "severity"), [(CURVE**2, "fault"), (3 * CURVE, "note")])
def test_a_network_without_activations_is_a_fault_where_a_curve_is_asked(y, severity):
    asked = dataclasses.replace(subject(linear, (1, 5, 1)), train=(CURVE, y))
    (finding,) = wiring.between_layers(Look(asked))
    assert (finding.cause, finding.severity) == ("hidden_activation_missing", severity)


def test_two_linear_layers_in_a_network_that_bends_are_a_note_unless_they_are_a_factor():
    def network(params, x):
        x = jax.nn.relu(affine(params["dense0"], x))
        return affine(params["dense2"], affine(params["dense1"], x))

    (finding,) = wiring.between_layers(Look(subject(network, (3, 5, 5, 2))))
    assert (finding.severity, finding.where.split(",")[0]) == ("note", "dense1")
    factor = subject(network, (3, 5, 1, 2))
    assert wiring.between_layers(Look(factor)) == []


def test_dropout_and_a_residual_do_not_hide_what_is_linear_nor_feign_it():
    def residual(params, x):
        x = affine(params["dense0"], x)
        x = x + jax.nn.relu(x)
        return affine(params["dense1"], x)

    assert wiring.between_layers(Look(subject(residual))) == []

    def skipped(params, x):
        x = affine(params["dense0"], x)
        return affine(params["dense1"], x + 2 * x)

    assert len(wiring.between_layers(Look(subject(skipped)))) == 1


def test_four_rows_that_no_affine_map_fits():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    either, both = (x.sum(1, keepdims=True) == 1), (x.sum(1, keepdims=True) == 2)
    for y, severity in ((either, "fault"), (both, "note")):
        asked = dataclasses.replace(
            subject(linear, (2, 3, 1)), train=(x, y.astype(np.float32)), loss=mean_squared_error
        )
        assert [f.severity for f in wiring.between_layers(Look(asked))] == [severity]


# State, keys, rows, the batch, the optimizer, guards, tables


def normalizing(written, frozen=False):
    """A network with batch statistics."""

    def init(key):
        return dense(key, 3, 2), {"mean": jnp.zeros(2)}

    def apply(params, state, x, key, train):
        z = affine(params["dense0"], x)
        if not train or frozen:
            return z - state["mean"], state
        new = {"mean": 0.9 * state["mean"] + 0.1 * z.mean(0)} if written else state
        return z - z.mean(0), new

    return dataclasses.replace(subject(learns, (3, 2)), init=init, apply=apply)


def test_running_statistics_that_are_not_written():
    (finding,) = step.statistics(Look(normalizing(written=False)))
    assert (finding.cause, finding.severity) == ("batch_statistics_not_updated", "fault")
    assert finding.where == "mean"
    assert step.statistics(Look(normalizing(written=True))) == []
    assert step.statistics(Look(normalizing(written=False, frozen=True))) == []


def dropping(fresh, trains_only):
    def apply(params, state, x, key, train):
        if train or not trains_only:
            key = key if fresh else jax.random.key(7)
            x = x * jax.random.bernoulli(key, 0.5, x.shape)
        return learns(params, x), state

    return dataclasses.replace(subject(learns), apply=apply)


@pytest.mark.parametrize(
    ("fresh", "trains_only", "said"),
    [(True, False, "evaluation draws"), (False, True, "never changes"), (True, True, None)],
)
def test_dropout_in_evaluation_and_with_one_key(fresh, trains_only, said):
    found = step.randomness(Look(dropping(fresh, trains_only)))
    assert [finding.severity for finding in found] == ["note"] * (said is not None)
    assert all(said in finding.evidence for finding in found)


@pytest.mark.parametrize(
    ("mix", "severities"),
    [
        (lambda z: jax.nn.softmax(z, 0), ["fault"]),
        (lambda z: z - z.mean(0), ["note"]),
        (lambda z: jax.nn.softmax(z, 1), []),
    ],
)
def test_rows_that_look_at_each_other(mix, severities):
    def network(params, x):
        return affine(params["dense1"], mix(affine(params["dense0"], x)))

    found = step.mates(Look(subject(network)))
    assert [finding.severity for finding in found] == severities
    assert {finding.cause for finding in found} <= {"loss_axis_error"}


@pytest.mark.parametrize(
    ("loss", "rate", "found"),
    [
        (lambda o, y: jnp.sum((o - y) ** 2), 1e-4, [("note", "loss_summed_over_batch")]),
        (lambda o, y: jnp.sum((o - y) ** 2), 1.0, [("fault", "loss_summed_over_batch")]),
        (lambda o, y: jnp.mean(jnp.sum((o - y) ** 2, 0)), 1e-4, [("fault", "loss_axis_error")]),
        (lambda o, y: jnp.mean(jnp.sum((o - y) ** 2, 1)), 1.0, []),
    ],
)
def test_a_loss_that_grows_with_the_batch(loss, rate, found):
    asked = subject(learns, rows=20, loss=loss, batch_size=20, optimizer=optax.sgd(rate))
    assert judged(step.batch_scale, asked) == found


@pytest.mark.parametrize(
    ("optimizer", "cause"),
    [
        (optax.sgd(0.1), None),
        (optax.adam(1e-3), None),
        (optax.sgd(-0.1), "gradient_ascent"),
        (optax.chain(optax.adam(1e-3), optax.scale(-1.0)), "gradient_ascent"),
        (optax.set_to_zero(), "parameters_not_updated"),
        (optax.adam(1e-3, eps=0.0), "numerical_instability"),
    ],
)
def test_the_direction_of_the_first_update(optimizer, cause):
    asked = subject(learns, optimizer=optimizer)
    expected = [] if cause is None else [("fault", cause)]
    assert judged(step.optimizer, asked) == expected


def test_an_epsilon_that_half_precision_rounds_away():
    asked = subject(learns, optimizer=optax.adam(1e-3, eps=1e-8))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), asked.init(jax.random.key(0))[0])
    (finding,) = step.optimizer(Look(asked, half, {}))
    assert finding.cause == "numerical_instability"
    assert "float16" in finding.evidence


def test_a_logarithm_without_a_guard_is_noted_with_its_line():
    asked = ends(jax.nn.sigmoid, BITS, unguarded_cross_entropy)
    (finding,) = step.guards(Look(asked))
    assert (finding.cause, finding.severity) == ("numerical_instability", "note")
    assert finding.where.endswith(f"{HERE}:{line_of('unguarded')}")
    assert step.guards(Look(ends(jax.nn.sigmoid, BITS, binary_cross_entropy))) == []


@pytest.mark.parametrize(("rows", "causes"), [(5, ["insufficient_capacity"]), (12, [])])
def test_indices_beyond_a_table(rows, causes):
    asked = Subject(
        init=lambda key: ({"table": jnp.ones((rows, 2))}, {}),
        apply=lambda params, state, x, key, train: (params["table"][x].sum(1), state),
        loss=mean_squared_error,
        train=(np.arange(24).reshape(12, 2) // 2, np.ones((12, 2), np.float32)),
    )
    found = step.tables(Look(asked))
    assert [finding.cause for finding in found] == causes


def test_a_check_that_is_impossible_is_said():
    def only_this_batch(outputs, y):
        return jnp.mean((outputs.reshape(8, 2) - y) ** 2)

    impossible = []
    program.check(subject(learns, loss=only_this_batch), impossible=impossible)
    assert any("grow with the batch" in line for line in impossible)


# Sequences


def reader(ahead):
    """The mean of what stands before; where it reads ahead, of all. Tokens are one-hot."""

    def apply(params, state, x, key, train):
        one_hot = jax.nn.one_hot(x, 5)
        steps = x.shape[1]
        sees = jnp.ones((steps, steps)) if ahead else jnp.tril(jnp.ones((steps, steps)))
        seen = jnp.einsum("ts,nsv->ntv", sees / sees.sum(1, keepdims=True), one_hot)
        return seen @ params["w"], state

    return apply


def of_text(apply, shift=1):
    text = np.random.default_rng(0).integers(0, 5, (16, 13))
    x, y = text[:, :-1], text[:, 1:]
    return Subject(
        lambda key: ({"w": jax.random.normal(key, (5, 5))}, {}),
        apply,
        lambda outputs, y: optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(),
        train=(x, y if shift else x % 3),
        optimizer=optax.sgd(0.1),
    )


@pytest.mark.parametrize(
    ("ahead", "shift", "causes"),
    [(True, 1, ["leaked_targets"]), (False, 1, []), (True, 0, [])],
)
def test_answers_that_read_their_targets(ahead, shift, causes):
    found = step.ahead(Look(of_text(reader(ahead), shift)))
    assert [f.cause for f in found] == causes


def test_a_leak_is_seen_where_targets_are_one_hot():
    subject = of_text(reader(True))
    x, y = subject.train

    def loss(outputs, y):
        return optax.softmax_cross_entropy(outputs, y).mean()

    made = dataclasses.replace(subject, train=(x, np.eye(5, dtype=np.float32)[y]), loss=loss)
    assert [f.cause for f in step.ahead(Look(made))] == ["leaked_targets"]


def test_checks_that_want_one_array_say_so_once():
    def apply(params, state, x, key, train):
        return {"a": x @ params["dense0"]["kernel"], "b": x}, state

    made = subject(lambda p, x: x, (3, 1))
    made = dataclasses.replace(made, apply=apply, loss=lambda o, y: jnp.mean((o["a"] - y) ** 2))
    said = []
    program.check(made, impossible=said)
    assert [line for line in said if "not one array" in line] == said
    assert len(said) == 1
