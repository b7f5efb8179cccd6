"""Targets among the inputs, and rows of a split that training rows give away."""

import numpy as np
import pytest

from nnref.diagnosis.data.leaks import copies_of_targets, groups, interleaved, neighbours
from nnref.diagnosis.data.targets import target_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(400, 6)).astype(np.float32)
Y = X[:, :1] + RANDOM.normal(size=(400, 1)).astype(np.float32)


def test_a_column_that_is_a_multiple_of_the_target_is_found():
    target = target_of(Y, "regression")
    assert copies_of_targets(np.c_[X, 3 - 7 * Y], target) == [6]
    assert copies_of_targets(np.c_[X, 3 - 7 * Y].reshape(400, 7, 1), target) == [6]
    assert copies_of_targets(np.c_[X, Y + 0.01 * X[:, :1]], target) == []
    assert copies_of_targets(np.c_[X, np.roll(Y, 1)], target) == []
    assert (
        copies_of_targets(np.c_[X, np.ones(400)], target_of(np.ones((400, 1)), "regression")) == []
    )
    assert copies_of_targets(Y, target) == []  # one column: a line to be learned
    classes = RANDOM.integers(0, 3, 400)
    assert copies_of_targets(np.c_[classes, X], target_of(classes, "multiclass")) == [0]


def test_rows_between_two_training_rows_are_found():
    pairs = RANDOM.integers(0, 300, (100, 2))
    near = np.array([np.argsort(((X[:300] - X[a]) ** 2).sum(1))[3] for a, _ in pairs])
    share = RANDOM.random((100, 1)).astype(np.float32)
    between = share * X[pairs[:, 0]] + (1 - share) * X[near]
    assert neighbours(X[:300], between).between.mean() > 0.8
    assert neighbours(X[:300], X[300:]).between.mean() == 0
    assert neighbours(X[:300], X[:300]).between.mean() == 0  # copies lie on no line
    # On a grid, and in a plane, rows lie between others by chance.
    assert neighbours(np.rint(X[:300] * 3), np.rint(X[300:] * 3)) is None
    assert neighbours(X[:300, :2], X[300:, :2]) is None
    assert neighbours(X[:300], X[300:310]) is None


def test_copies_with_a_trace_of_noise_are_found():
    dusty = X[:100] + RANDOM.normal(0, 1e-5, (100, 6))
    assert neighbours(X[:300], dusty).dust.mean() > 0.95
    assert neighbours(X[:300], X[:100]).dust.mean() == 0  # copies are what another check finds
    assert neighbours(X[:300], X[:100] + RANDOM.normal(0, 0.1, (100, 6))).dust.mean() == 0


@pytest.mark.parametrize("shape", [(10,), (10, 1)])
def test_windows_dealt_at_random_stand_between_training_windows(shape):
    series = np.cumsum(RANDOM.normal(size=600)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, 10).reshape(-1, *shape)
    dealt = RANDOM.permutation(windows)
    assert interleaved(dealt[:400], dealt[400:]) > 0.3
    assert interleaved(windows[:400], windows[400:]) < 0.02
    # One training window beside them says less than what they hold themselves.
    assert interleaved(windows[0::3], windows[1::3]) == 0
    assert interleaved(windows[0::3], windows[2::3]) == 0
    assert interleaved(X[:300], X[300:]) == 0
    assert interleaved(np.zeros_like(dealt[:400]), np.zeros_like(dealt[400:])) == 0


def test_groups_whose_rows_are_alike_are_found_by_their_name():
    name = np.repeat(np.arange(40), 10)
    person = RANDOM.normal(size=(40, 5))[name]  # how a person is tells who, not what is asked
    answer = RANDOM.integers(0, 2, 40)[name]
    rows = np.c_[person + 0.1 * RANDOM.normal(size=(400, 5)), name]
    order = RANDOM.permutation(400)
    x, target = rows[order], target_of(answer[order], "binary")
    found = groups(x[:300], target._replace(answers=target.answers[:300]), x[300:])
    assert (found.column, found.shared) == (5, 1.0)
    assert found.nearest > 0.9
    assert found.nearest_of_others < 0.3
    parted = groups(rows[:300], target_of(answer[:300], "binary"), rows[300:])
    assert parted.shared == 0
    # A column of whole numbers that is a quantity: rows with others of it answer as well.
    ages = np.c_[X, RANDOM.integers(0, 40, 400)]
    honest = groups(ages[:300], target_of(Y[:300], "regression"), ages[300:])
    assert abs(honest.nearest - honest.nearest_of_others) < 0.1
    assert groups(X[:300], target_of(Y[:300], "regression"), X[300:]) is None
