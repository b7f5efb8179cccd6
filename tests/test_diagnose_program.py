import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnose import program
from nnref.diagnose.subject import Subject
from nnref.diagnose.tracing import trace

HERE = "test_diagnose_program.py"


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

    first, second = program.layers(subject(network))
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
    (before, after), (logits, same) = program.activations(asked, params, state, x)
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

    found = program.layers(subject(network, (5, 5, 5, 5), y=np.zeros((12, 5), np.float32)))
    assert [layer.name for layer in found] == ["dense2", "dense0", "dense1"]
    assert [layer.looped for layer in found] == [False, False, True]
    assert found[1].activation == "silu"


# The checks. A program that triggers each, and a near miss that must not


def causes(asked, severity="fault"):
    return [finding.cause for finding in program.check(asked) if finding.severity == severity]


def learns(params, x):
    return affine(params["dense1"], jax.nn.relu(affine(params["dense0"], x)))


def test_a_healthy_program_gives_nothing():
    impossible = []
    assert program.check(subject(learns), impossible=impossible) == []
    assert impossible == []
