"""Means of one number, and means of many."""

import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnosis.program.lone_means import means_of_one
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
