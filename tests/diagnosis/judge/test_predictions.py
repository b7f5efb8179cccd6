"""Predictions in the unit of the targets, and in another."""

import numpy as np
import pytest

from nnref.diagnosis.judge.predictions import check

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(200, 3))
PRICES = 300 + 40 * X[:, :1]
SCALED = (PRICES - 300) / 40
NAMES = RANDOM.integers(0, 4, 200)


def noisy(y):
    return y + 0.1 * y.std() * RANDOM.normal(size=y.shape)


def back(y):
    return 40 * y + 300


def found(predictions, y, unscale=None, kind="regression"):
    return [finding.remedy for finding in check(lambda x: predictions, unscale, (X, y), kind)]


def test_predictions_that_were_never_unscaled():
    assert found(noisy(SCALED), SCALED, back) == ["unscale(predict(x))"]
    assert found(noisy(PRICES), SCALED, back) == []
    (remedy,) = found(noisy(SCALED), PRICES)
    assert "* predict(x) +" in remedy


def test_predictions_of_logarithms():
    assert found(noisy(np.log(PRICES)), PRICES) == ["np.exp(predict(x))"]


@pytest.mark.parametrize("poor", [PRICES.mean() + 0 * PRICES, 300 + 16 * X[:, :1], 40 * X[:, 1:2]])
def test_predictions_that_are_poor_are_of_the_same_unit(poor):
    assert found(poor, PRICES) == []


def test_classes_named_otherwise():
    assert found(NAMES + 1, NAMES, kind="multiclass") == ["np.array([4, 0, 1, 2, 3])[predict(x)]"]
    assert found(NAMES, NAMES, kind="multiclass") == []
    assert found(np.eye(4)[NAMES], NAMES, kind="multiclass") == []
    assert found(RANDOM.permutation(NAMES), NAMES, kind="multiclass") == []
