"""What an expression could be instead."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnref.diagnosis.one_edit import variants
from nnref.diagnosis.one_edit.rewriting import Site

A, B = jnp.arange(4.0).reshape(2, 2), jnp.ones((2, 2))
X = jnp.arange(12.0).reshape(3, 4)


class Pair(NamedTuple):
    old: jax.Array
    new: jax.Array


def site(text, *parts):
    return Site("made_up.py", 1, (0, len(text)), text, parts)


def texts(found):
    return [text for text, _ in found]


@pytest.mark.parametrize(
    ("symbol", "right", "expected"),
    [
        ("+", B, ["a - b"]),
        (
            "-",
            B,
            [
                "b - a",
                "a + b",
                "b",
                "jax.lax.stop_gradient(a) - b",
                "a - jax.lax.stop_gradient(b)",
            ],
        ),
        ("-", 1.0, ["b - a", "a + b", "b"]),
        ("/", B, ["b / a", "a * b", "-(a / b)"]),
        ("*", 0.5, ["a / b", "-(a * b)"]),  # a number is a setting
        (
            "*",
            B,
            [
                "a / b",
                "-(a * b)",
                "a",
                "b",
                "a * (1 - b)",
                "(1 - a) * b",
                "jax.lax.stop_gradient(a) * b",
                "a * jax.lax.stop_gradient(b)",
            ],
        ),
        ("@", B, ["b @ a", "a @ b.T", "a.T @ b"]),
    ],
)
def test_of_two_operands(symbol, right, expected):
    assert texts(variants.binary(site(f"a {symbol} b", "a", "b"), symbol, A, right)) == expected


def test_a_share_that_has_a_name_may_be_what_is_left_of_1():
    quantile = variants.binary(site("q - a", "q", "a"), "-", 0.9, A)
    found = dict(quantile)
    np.testing.assert_allclose(found["(1 - q) - a"](), 0.1 - A, rtol=1e-5)
    assert "a * (1 - q)" in texts(variants.binary(site("a * q", "a", "q"), "*", A, 0.9))
    for text, value in [("0.9", 0.9), ("q", 0.5), ("q", 3.0)]:  # a setting; a half; no share
        parts = texts(variants.binary(site(f"{text} - a", text, "a"), "-", value, A))
        assert not [part for part in parts if part.startswith("(1 - ")]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("x[::-1]", 0),
        ("x[:, ::-1]", 1),
        ("jnp.flip(x, 1)", 1),
        ("jnp.flip(x, axis=0)", 0),
        ("x[1:]", None),
        ("x[::-2]", None),
    ],
)
def test_the_axis_along_which_an_argument_is_turned(text, axis):
    assert variants.axis_turned(("params", text)) == axis


def test_what_was_given_turned_round_is_turned_back():
    ((text, value),) = variants.turned(site("run(p, x[::-1])"), X, 0)
    assert text == "jnp.flip(run(p, x[::-1]), 0)"
    np.testing.assert_array_equal(value(), X[::-1])
    ((_, value),) = variants.turned(site("scan(cell, h, x[::-1])"), (A, {"out": X}), 0)
    np.testing.assert_array_equal(value()[0], A)
    np.testing.assert_array_equal(value()[1]["out"], X[::-1])
    assert not list(variants.turned(site("f(x[:, ::-1])"), X[0], 1))  # there is no such axis


def test_values_are_those_of_the_texts():
    found = dict(variants.binary(site("a - b", "a", "b"), "-", A, B))
    np.testing.assert_array_equal(found["b - a"](), B - A)
    np.testing.assert_array_equal(found["a + b"](), A + B)
    found = dict(variants.binary(site("a @ b", "a", "b"), "@", A, B))
    np.testing.assert_array_equal(found["a.T @ b"](), A.T @ B)
    found = dict(variants.compared(site("a < b", "a", "b"), "<", A, B))
    assert list(found) == ["a <= b", "a > b", "a >= b"]
    np.testing.assert_array_equal(found["a >= b"](), A >= B)


def test_of_names_and_signs():
    mask = A > 1
    assert texts(variants.name(site("m"), mask, ("a", A), ("b", B))) == ["b", "a", "~m", "m.T"]
    assert texts(variants.name(site("a"), A, ("b", B))) == ["b", "a.T"]
    assert texts(variants.name(site("a"), A)) == ["a.T"]
    assert texts(variants.name(site("x"), X)) == []
    assert texts(variants.unary(site("-a", "a"), "-", A)) == ["a"]
    assert texts(variants.kept(site("_"), "h", A)) == ["h"]


@pytest.mark.parametrize(
    ("value", "index", "expected"),
    [
        ({"old": 1, "new": 2}, "old", ["v['new']"]),
        ((A, B, X), 1, ["v[0]", "v[2]"]),
        ((A, B), -1, ["v[0]"]),
        (X, 1, ["v", "v[0]", "v[2]"]),
        (X, (0, 0), ["v", "v[1, 0]", "v[2, 0]", "v[0, 1]", "v[0, 3]"]),
        (X, (slice(None), slice(1, None)), ["v", "v[:, :3]"]),
        (X, (slice(None), slice(None, -1)), ["v", "v[:, 1:]"]),
        (X, (slice(None), -1), ["v", "v[:, 0]", "v[:, 2]"]),
        (X, jnp.array([0, 1]), ["v"]),
        (X, (Ellipsis, 1), ["v"]),
        (X, slice(None, None, -1), ["v"]),
    ],
)
def test_of_what_is_picked(value, index, expected):
    assert texts(variants.item(site("v[i]", "v", "i"), value, index)) == expected


def test_of_fields():
    assert texts(variants.attribute(site("p.old", "p"), Pair(A, B), "old")) == ["p.new"]
    assert texts(variants.attribute(site("a.T", "a"), A, "T")) == ["a"]
    assert texts(variants.attribute(site("a.shape", "a"), A, "shape")) == []
    assert texts(variants.attribute(site("p.count", "p"), Pair(A, B), "count")) == []


def test_of_an_order():
    assert texts(variants.ordered(site("a, b, c", "a", "b", "c"), (A, B, X))) == [
        "b, a, c",
        "a, c, b",
    ]
    assert texts(variants.ordered(site("f(a, b)", "f", "a", "b"), (A, B), "f")) == ["f(b, a)"]
    assert texts(variants.ordered(site("3, 4", "3", "4"), (3, 4))) == []


def own(x):
    raise AssertionError("what a user's function does is done once")


@pytest.mark.parametrize(
    ("function", "arguments", "words", "expected"),
    [
        (jax.nn.standardize, (X,), {"axis": 0}, ["x", "f(x, axis=1)"]),
        (jnp.max, (X,), {"axis": 1}, ["x", "f(x, axis=0)", "jnp.min(x, axis=1)"]),
        (X.max, (), {"axis": 0}, ["x.max(axis=1)", "x.min(axis=0)"]),
        (jnp.max, (X, 1), {}, ["x", "f(x, 0)", "jnp.min(x, x)"]),
        (jnp.tile, (X[0], 2), {}, ["x", "jnp.repeat(x, x)"]),
        (jax.nn.softmax, (X,), {}, ["x", "f(x, axis=0)", "jnp.sigmoid(x)"]),
        (jnp.sort, (X[0],), {}, ["x", "f(-x)"]),
        (jnp.argsort, (X[0],), {"axis": 0}, ["x", "f(-x, axis=0)", "f(f(x, axis=0), axis=0)"]),
        (jnp.cumsum, (X[0],), {}, ["x", "jnp.flip(f(jnp.flip(x, 0)), 0)"]),
        (jax.random.bernoulli, (jax.random.key(0), 0.9), {}, ["x", "f(x, 1 - x)"]),
        (jnp.mean, (X, -1), {}, ["x", "f(x, 0)", "jnp.sum(x, x)"]),
        (jnp.mean, (X,), {}, ["x"]),  # a sum has another weight, which is a setting
        (jnp.concatenate, ([X, X],), {"axis": 1}, ["f(x, axis=0)"]),
        (jnp.maximum, (X, X), {}, ["jnp.minimum(x, x)"]),
        (jax.random.normal, (jax.random.key(0),), {}, ["x", "jnp.uniform(x)"]),
        (optax.global_norm, (X,), {}, []),
        (own, (X,), {}, []),
        (np.sum, (np.ones(3),), {}, []),
    ],
)
def test_of_calls(function, arguments, words, expected):
    method = getattr(function, "__self__", None) is not None
    f = "x.max" if method else "jnp.f" if any(t.startswith("jnp") for t in expected) else "f"
    found = variants.called(site("…", f, *"x" * len(arguments)), function, arguments, words)
    assert [text.replace("jnp.f(", "f(") for text in texts(found)] == expected


def test_of_axes_that_are_cut_anew():
    """Two rows of pairs that become three columns: as they lie in memory, or turned."""
    pairs = X.reshape(2, 6)
    for function, arguments in [(pairs.reshape, (3, 4)), (jnp.reshape, (pairs, (3, 4)))]:
        f = "a.reshape" if function == pairs.reshape else "f"
        names = ("3", "4") if f == "a.reshape" else ("a", "(3, 4)")
        found = dict(variants.called(site("…", f, *names), function, arguments, {}))
        turned = found["a.reshape(4, 3).swapaxes(0, 1)"]()
        np.testing.assert_array_equal(turned, pairs.reshape(4, 3).T)
        (before,) = [text for text in found if "a.swapaxes(0, 1)" in text]
        np.testing.assert_array_equal(found[before](), pairs.T.reshape(3, 4))
