"""The range of a tail and what a loss expects, of functions whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import BITS, binary_cross_entropy, mean_squared_error, softmax_cross_entropy

from nnref.diagnosis.program.expectation import expectation_of, range_of, row_by_row

VALUES = np.linspace(-2, 2, 12).reshape(-1, 1)
ONE_HOT = np.eye(3)[np.arange(12) % 3]


@pytest.mark.parametrize(
    ("tail", "low", "high", "floor", "sums_to_one", "sums_over_batch"),
    [
        (lambda z: z, -np.inf, np.inf, False, False, False),
        (jax.nn.relu, 0, np.inf, True, False, False),
        (jax.nn.softplus, 0, np.inf, False, False, False),
        (jnp.tanh, -1, 1, False, False, False),
        (jax.nn.softmax, 0, 1, False, True, False),
        (lambda z: jax.nn.softmax(z, 0), 0, 1, False, False, True),
    ],
)
def test_the_range_of_a_tail(tail, low, high, floor, sums_to_one, sums_over_batch):
    unit = range_of(tail, (8, 3))
    assert (unit.low, unit.high) == pytest.approx((low, high), abs=1e-3)
    assert (unit.floor, unit.sums_to_one) == (floor, sums_to_one)
    assert unit.sums_over_batch == sums_over_batch
    assert unit.raw == (low == -np.inf and high == np.inf)
    assert not unit.constant


@pytest.mark.parametrize(
    ("loss", "y", "kind", "pairs", "fields"),
    [
        (mean_squared_error, VALUES, "values", True, {"distance"}),
        (lambda o, y: -mean_squared_error(o, y), VALUES, "values", True, {"rises", "bottomless"}),
        (lambda o, y: jnp.mean((o - y.T) ** 2), VALUES, "values", False, {"distance"}),
        (softmax_cross_entropy, ONE_HOT, "one-hot", True, {"softmax", "margin"}),
        (binary_cross_entropy, BITS, "binary", True, {"logarithm"}),
        (lambda o, y: jnp.mean(jax.nn.softplus(o) - y * o), BITS, "binary", True, {"margin"}),
    ],
    ids=["distance", "reversed", "crossed", "softmax", "probabilities", "logits"],
)
def test_what_a_loss_expects(loss, y, kind, pairs, fields):
    names = ("distance", "rises", "softmax", "logarithm", "margin", "flat", "bottomless")
    expectation = expectation_of(loss, y, kind, y.shape)
    assert {name for name in names if getattr(expectation, name)} == fields
    assert expectation.pairs == pairs


def test_losses_that_hold_rows_against_each_other():
    outputs, y = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)

    def contrastive(o, y):
        return optax.softmax_cross_entropy(o @ y.T, jnp.eye(len(y))).mean()

    assert row_by_row(mean_squared_error, outputs, y)
    assert row_by_row(lambda o, y: jnp.sum((o - y) ** 2), outputs, y)
    assert not row_by_row(contrastive, outputs, y)
