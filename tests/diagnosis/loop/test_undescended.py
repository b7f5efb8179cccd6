"""Losses that are computed and never descended, and what is only reported."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import DRAWN, X, Y, faults, first
from networks import line_of

Z = (X @ np.array([[1.0], [2.0]]) + DRAWN.normal(size=(128, 1)) / 10).astype(np.float32)
BATCHES = [(X[i : i + 16], Y[i : i + 16], Z[i : i + 16]) for i in range(0, 128, 16)]


def two_heads(loss, optimizer, told=lambda one, other: {"one": one, "other": other}):
    """A body with two heads, whose errors make up a loss and what is told."""
    params = {
        "body": jax.random.normal(jax.random.key(0), (2, 16)),
        "one": jnp.full((16, 1), 0.1),
        "other": jnp.full((16, 1), 0.1),
    }

    def errors(params, x, y, z):
        hidden = jnp.tanh(x @ params["body"])
        one = jnp.mean((hidden @ params["one"] - y) ** 2)
        other = jnp.mean(jnp.abs(hidden @ params["other"] - z))  # the second error
        total = one + other  # their sum
        return loss(one, other, total), told(one, other)

    @jax.jit
    def step(params, opt_state, batch):
        (value, parts), gradient = jax.value_and_grad(errors, has_aux=True)(params, *batch)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, {"loss": value, **parts}

    return step, (params, optimizer.init(params)), BATCHES


@pytest.mark.parametrize("optimizer", [optax.adam(1e-2), optax.adamw(1e-2), optax.sgd(0.05)])
def test_a_sum_that_is_overwritten_by_one_of_its_terms(optimizer):
    found = first(*two_heads(lambda one, other, total: one, optimizer))
    assert found.cause == "parameters_not_updated"
    assert found.where.endswith(f"test_undescended.py:{line_of(__file__, 'their sum')}")
    assert "1 loss is computed and never descended (other)" in found.evidence


def test_a_term_that_is_told_by_nothing():
    loop = two_heads(lambda one, other, total: one, optax.adam(1e-2), lambda one, other: {})
    assert "never descended" in first(*loop).evidence


LEARN = {"body": True, "one": True, "other": False}


frozen = optax.chain(
    optax.masked(optax.adam(1e-2), LEARN),
    optax.masked(optax.set_to_zero(), {name: not learns for name, learns in LEARN.items()}),
)


@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [
        (lambda one, other, total: total, optax.adam(1e-2)),
        (lambda one, other, total: one + 0.1 * other, optax.sgd(0.05)),
        (lambda one, other, total: one, frozen),
    ],
    ids=["sum", "weighted", "frozen"],
)
def test_errors_that_are_only_told(loss, optimizer):
    assert faults(*two_heads(loss, optimizer)) == []


def test_a_second_error_of_outputs_that_learn_is_only_told():
    def told(one, other):
        return {"root": jnp.sqrt(one), "other": other}

    assert faults(*two_heads(lambda one, other, total: total, optax.adam(1e-2), told)) == []
