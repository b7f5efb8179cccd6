"""Images: neighbouring pixels that are alike, and what random filters tell."""

import numpy as np

from nnref.diagnosis.data.images import is_image, likelier, likeness, of_filters
from nnref.diagnosis.data.targets import target_of

RANDOM = np.random.default_rng(0)


def patches(rows):
    """A coloured patch somewhere in noise; its colour is the class."""
    colors = np.array([[1, 0.2, 0.2], [0.2, 1, 0.2], [0.2, 0.2, 1]])
    y = RANDOM.integers(3, size=rows)
    x = RANDOM.normal(0, 0.3, (rows, 12, 12, 3))
    for i in range(rows):
        top, left = RANDOM.integers(0, 7, 2)
        x[i, top : top + 5, left : left + 5] += colors[y[i]]
    return x.astype(np.float32), y


X, Y = patches(300)


def test_what_an_image_is():
    assert is_image(X)
    assert is_image(X.transpose(0, 3, 1, 2))
    assert not is_image(X[..., 0])
    assert not is_image(X[:20])
    assert not is_image(np.ones((300, 12, 12, 9)))


def test_neighbours_are_alike_in_the_order_that_is_right():
    first = X.transpose(0, 3, 1, 2)
    wrong = X.reshape(first.shape)
    assert likeness(X) == likeness(first) > 0.2
    assert likelier(first, wrong)
    assert not likelier(wrong, first)
    assert not likelier(first, first)
    noise = RANDOM.normal(size=X.shape)
    assert abs(likeness(noise)) < 0.02


def test_random_filters_find_what_stands_anywhere():
    target = target_of(Y, "multiclass")
    assert of_filters(X, target) > 0.9
    assert of_filters(X.transpose(0, 3, 1, 2), target) == of_filters(X, target)
    assert of_filters(X.transpose(0, 3, 1, 2).reshape(X.shape), target) < 0.6
    assert of_filters(X, target_of(RANDOM.permutation(Y), "multiclass")) < 0.15
    masked = target_of(np.where(np.arange(300) % 5 == 0, -1, Y), "multiclass")
    assert of_filters(X, masked) > 0.9
    redness = X[..., 0].mean((1, 2))[:, None]
    assert of_filters(X, target_of(redness, "regression")) > 0.9
    two = X[..., :2].mean((1, 2))
    both = (two > np.median(two, axis=0)).astype(int)
    assert of_filters(X, target_of(both, "multilabel")) > 0.5
