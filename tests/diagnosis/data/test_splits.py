"""Three numbers that tell whether what is learned of one split is true of another."""

import numpy as np
import pytest

from nnref.diagnosis.data.splits import Splits, own_statistics, steadiness, told_apart

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(600, 6)).astype(np.float32)
CLASSES = (X @ RANDOM.normal(size=(6, 4))).argmax(1)
VALUES = np.sin(2 * X[:, :1]) + X[:, 1:2]
TOKENS = RANDOM.integers(0, 20, (600, 10))
OFTEN = (np.isin(TOKENS, range(7)).sum(1) > 3).astype(int)


def halves(x, y, kind="multiclass", held=None):
    return Splits((x[:400], y[:400]), (x[400:], y[400:]) if held is None else held, kind)


@pytest.mark.parametrize(
    ("x", "y", "kind"),
    [
        (X, CLASSES, "multiclass"),
        (X * [1, 10, 100, 0.1, 1, 0] + 5, np.eye(4)[CLASSES], "multiclass"),
        (X, VALUES, "regression"),
        (X, (X > 0.5).astype(int), "multilabel"),
        (TOKENS, OFTEN, "binary"),  # by how often a token stands anywhere in a row
        (TOKENS, (TOKENS + 1) % 20, "places"),
        (X, np.where(RANDOM.random(600) < 0.2, -1, CLASSES), "multiclass"),
    ],
)
def test_what_is_learned_of_one_half_is_true_of_the_other(x, y, kind):
    numbers = halves(x, y, kind).numbers
    assert min(numbers.inside, numbers.across, numbers.within) > 0.5
    assert numbers.carries
    assert not numbers.both


def test_classes_numbered_otherwise_are_learned_in_each_half_and_not_across():
    numbers = halves(X, CLASSES, held=(X[400:], (CLASSES[400:] + 1) % 4)).numbers
    assert min(numbers.inside, numbers.within) > 0.5 > 0 > numbers.across
    assert min(numbers.behind_inside, numbers.behind_within) > 8
    assert numbers.carries is False
    assert numbers.both


def test_noise_says_nothing_of_the_split():
    drawn = RANDOM.integers(0, 4, 600)
    assert halves(X, drawn).numbers.carries is None
    assert halves(X, RANDOM.normal(size=(600, 2)), "regression").numbers.carries is None


def test_other_shares_of_the_same_classes_are_the_same_task():
    two = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
    rare = np.flatnonzero((two == 1) | (RANDOM.random(600) < 0.1))[-220:]
    numbers = halves(X, two, held=(X[rare], two[rare])).numbers
    assert numbers.carries
    assert numbers.across > 0.8
    splits = halves(X, two, held=(X[rare], two[rare]))
    y = splits.wanted(splits.held_target)
    np.testing.assert_allclose(splits.weight(y) @ y, len(rare) / 2)  # both classes count alike


@pytest.mark.parametrize(
    "held",
    [
        (X[400:410], CLASSES[400:410]),  # too few
        (X[400:, :5], CLASSES[400:]),
        (X[400:] * np.inf, CLASSES[400:]),
        (X[400:], np.full(200, -1)),
        (X[400:], np.full(200, 9)),  # a class that was never trained
        (X[400:], np.full(200, 1)),
    ],
)
def test_what_cannot_be_compared_has_no_numbers(held):
    with np.errstate(all="ignore"):
        assert halves(X, CLASSES, held=held).numbers is None


def test_constant_inputs_and_long_rows():
    assert halves(np.ones_like(X), CLASSES).numbers is None
    images = RANDOM.normal(size=(200, 64, 64, 3)).astype(np.float32)
    dark = images[:, ..., 0].mean((1, 2)) > 0
    images[dark] += 0.5
    splits = Splits((images[:120], dark[:120]), (images[120:], dark[120:]), "binary")
    assert splits.numbers.across > 0.9
    assert len(splits.chosen) == 400


def test_inputs_of_another_kind_are_told_apart_by_their_column():
    moved = X[400:] + [0, 0, 0, 2, 0, 0]
    skill, columns = told_apart(halves(X, CLASSES, held=(moved, CLASSES[400:])))
    assert skill > 0.6
    assert columns[0] == 3
    assert abs(told_apart(halves(X, CLASSES))[0]) < 0.15


def test_rows_that_follow_each_other_are_alike():
    walk = np.cumsum(RANDOM.normal(size=600))
    windows = np.lib.stride_tricks.sliding_window_view(walk, 8)
    assert steadiness(windows) > 0.9
    assert abs(steadiness(RANDOM.permutation(windows))) < 0.15
    assert steadiness(np.ones((600, 3))) == 0


def test_a_split_scaled_by_its_own_statistics_is_known_by_them():
    own = (X - X.mean(0)) / X.std(0)
    assert own_statistics(own)
    assert not own_statistics((X - X[:400].mean(0)) / X[:400].std(0))
    images = RANDOM.uniform(0, 1, (50, 8, 8, 1)).astype(np.float32)
    assert own_statistics((images - images.mean()) / images.std())
    each = images - images.mean((1, 2, 3), keepdims=True)
    assert not own_statistics(each / each.std((1, 2, 3), keepdims=True))  # by row: no other split
    assert not own_statistics(own[:20])
    assert not own_statistics(np.ones((50, 2), np.float32))
