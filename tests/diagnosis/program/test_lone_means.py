"""Means of one number and means of many, norms of a row and norms of all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnosis.program.lone_means import means_of_one, norm_of_all
from nnref.diagnosis.program.tracing import trace

ROW = np.random.default_rng(0).normal(size=(1, 32)).astype(np.float32)


def standardized(x, axis):
    return (x - x.mean(axis, keepdims=True)) / (x.std(axis, keepdims=True) + 1e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "found"),
    [
        ((1, 32), 0, True),
        ((1, 32), 1, False),
        ((1, 32), (0, 1), False),
        ((32, 1), -1, True),
        ((32, 4), -1, False),
        ((1, 1), 0, False),  # a single number may well be 0
    ],
)
def test_what_is_left_without_a_mean(shape, axis, found):
    x = np.resize(ROW, shape)
    told = [*means_of_one(trace(lambda x: jnp.sum(x * standardized(x, axis)), x))]
    assert [finding.cause for finding in told] == ["loss_axis_error"] * found


def test_a_sum_of_one_part_may_be_taken_off_another():
    told = means_of_one(trace(lambda x, y: jnp.sum((x - y.mean(0)) ** 2), ROW, 2 * ROW))
    assert [*told] == []


@pytest.mark.parametrize(
    ("normalized", "found"),
    [
        (lambda z: z / jnp.linalg.norm(z), True),
        (lambda z: z / (jnp.linalg.norm(z) + 1e-6), True),
        (lambda z: z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z**2), 1e-12)), True),
        (lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True), False),
        (lambda z: jax.vmap(lambda row: row / jnp.linalg.norm(row))(z), False),
        (lambda z: z / jnp.sqrt(jnp.mean(z**2)), False),  # a scale of the batch, whatever its size
        (lambda z: z[:1] / jnp.linalg.norm(z[:1]), False),
    ],
)
def test_rows_that_are_divided_by_the_norm_of_all(normalized, found):
    x = np.resize(ROW, (16, 4))

    def loss(w, x):
        z = normalized(x @ w)
        return jnp.mean((z @ z.T) ** 2)

    traced = trace(loss, np.eye(4, dtype=np.float32) + 1, x)
    told = [*norm_of_all(traced, traced.arguments[1], traced.outputs)]
    assert [finding.cause for finding in told] == ["loss_axis_error"] * found


def test_a_gradient_that_is_divided_by_its_norm_is_no_row():
    x = np.resize(ROW, (16, 4))

    def step(w, x):
        value, gradient = jax.value_and_grad(lambda w: jnp.mean((x @ w) ** 2))(w)
        return value, w - 0.1 * gradient / jnp.linalg.norm(gradient)

    traced = trace(step, np.eye(4, dtype=np.float32), x)
    assert not [*norm_of_all(traced, traced.arguments[1], traced.outputs[:1])]
