"""Weights of an attention along the axis that they weigh, and along another."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import line_of

from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.attention import other_axis
from nnref.diagnosis.program.sequences import future_leakage
from nnref.diagnosis.recipe import Recipe

X = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)
KERNELS = ("queries", "keys", "values")


def init(key):
    keys = jax.random.split(key, 3)
    return {name: jax.random.normal(k, (4, 4)) for name, k in zip(KERNELS, keys, strict=True)}, {}


def of_weights(weigh):
    """A network whose outputs are values, weighed by what becomes of scores (rows, q, k)."""

    def apply(params, state, x, key, train):
        queries, keys, values = (x @ params[name] for name in KERNELS)
        return weigh(queries @ keys.swapaxes(1, 2) / 2, values), state

    loss = lambda outputs, y: jnp.mean((outputs - y) ** 2)  # noqa: E731
    return AtStart(Recipe(init, apply, loss, train=(X, X)))


def over_queries(scores, values):
    scores = jnp.where(jnp.tril(jnp.ones((6, 6), bool)), scores, -1e9)
    return jax.nn.softmax(scores, axis=1) @ values  # over the queries


def over_keys(scores, values):
    return jax.nn.softmax(scores, axis=2) @ values


def turned(scores, values):
    return jnp.einsum("bkq,bkd->bqd", jax.nn.softmax(scores.swapaxes(1, 2), axis=1), values)


def over_queries_then_keys(scores, values):
    """Of slots, which share the steps among them (Locatello et al. 2020, algorithm 1)."""
    weights = jax.nn.softmax(scores, axis=1) + 1e-8
    return (weights / weights.sum(2, keepdims=True)) @ values


def pooled(scores, values):
    """Steps in three groups, which parameters tell (Ying et al. 2018, equation 3)."""
    groups = jax.nn.softmax(values[..., :3], axis=2)
    return groups @ (groups.swapaxes(1, 2) @ values)


def test_weights_that_are_normalized_over_the_queries():
    (finding,) = other_axis(of_weights(over_queries))
    assert (finding.cause, finding.severity) == ("loss_axis_error", "fault")
    line = line_of(__file__, "over the queries")
    assert finding.where.endswith(f"{Path(__file__).name}:{line}")


@pytest.mark.parametrize("weigh", [over_keys, turned, over_queries_then_keys, pooled])
def test_weights_of_which_each_query_has_1_in_all(weigh):
    assert [*other_axis(of_weights(weigh))] == []


def test_a_leak_through_such_weights_is_told_where_they_are_normalized():
    """Each target is the next step; the mask is there, and does not help."""
    steps = np.random.default_rng(1).integers(0, 9, (64, 7))
    x, y = steps[:, :-1], steps[:, 1:]

    def started(weigh):
        def start(key):
            params, _ = init(key)
            return params | {"table": jax.random.normal(key, (9, 4))}, {}

        def apply(params, state, x, key, train):
            queries, keys, values = (params["table"][x] @ params[name] for name in KERNELS)
            return weigh(queries @ keys.swapaxes(1, 2), values) @ params["table"].T, state

        def loss(outputs, y):
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), y[..., None], -1))

        return AtStart(Recipe(start, apply, loss, train=(x, y)))

    def masked(scores, values):
        return over_keys(jnp.where(jnp.tril(jnp.ones((6, 6), bool)), scores, -1e9), values)

    (finding,) = future_leakage(started(over_queries))
    assert finding.where.endswith(str(line_of(__file__, "over the queries")))
    assert "axis=-1" in finding.remedy
    (finding,) = future_leakage(started(over_keys))
    assert "causal mask" in finding.remedy
    assert [*future_leakage(started(masked))] == []
