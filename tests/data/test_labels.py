"""What is asked: classes or values, as targets and loss have it."""

import numpy as np
import pytest
from written import refused

from nnref.data.labels import balanced_weights, look_like_classes, scale_of_values, targets

RATINGS = np.array([1.0, 2, 3, 4, 5] * 8)


@pytest.mark.parametrize(
    ("y", "loss", "classes"),
    [
        (RATINGS, "", True),
        (RATINGS, "softmax_cross_entropy", True),
        (RATINGS, "squared_error", False),
        (RATINGS, "absolute_error", False),
        (RATINGS, "poisson", False),
        (RATINGS > 2, "squared_error", True),
        (RATINGS // 4, "squared_error", True),
        (np.arange(40.0), "softmax_cross_entropy", False),
        (np.arange(60.0) // 2, "softmax_cross_entropy", True),
        (np.arange(60.0) // 2, "", False),
        (RATINGS + 0.5, "softmax_cross_entropy", False),
        (np.array(["a", "b"]), "squared_error", True),
    ],
)
def test_the_loss_has_its_say(y, loss, classes):
    assert look_like_classes(y, loss) == classes
    assert bool(targets("t", y, "auto", loss)[1]) == classes


def test_values_are_scaled_by_the_training_rows_column_by_column():
    y = np.array([[1.0, 7], [3, 7]])
    mean, deviation = scale_of_values(y)
    assert mean.tolist() == [2, 7]
    assert deviation.tolist() == [1, 1]


def test_classes_count_alike_under_their_weights():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = balanced_weights(labels, 3)
    assert np.bincount(labels) * weights == pytest.approx([10 / 3] * 3)
    assert np.array(weights)[labels].mean() == pytest.approx(1)


def test_text_is_no_value():
    assert "needs numbers" in refused(targets, "t", np.array(["a", "b"]), "values")
