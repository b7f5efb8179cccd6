"""A simple task of the same shapes: what it keeps of the user's targets, and that it is simple."""

import numpy as np
import pytest

from nnref.diagnosis.data.references import references
from nnref.diagnosis.data.targets import target_of
from nnref.diagnosis.data.tasks import simple_targets

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(5, 3, (300, 4)).astype(np.float32)
RARE = (RANDOM.uniform(size=300) < 0.2).astype(np.float32)
CLASSES = RANDOM.integers(0, 3, 300)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (RANDOM.normal(1e5, 20, (300, 2)).astype(np.float32), "regression"),
        (RANDOM.integers(0, 90, 300), "regression"),
        (RARE, "binary"),
        (2 * RARE[:, None] - 1, "binary"),
        (CLASSES, "multiclass"),
        (np.eye(3, dtype=np.float32)[CLASSES], "multiclass"),
        ((RANDOM.uniform(size=(300, 5)) < 0.5).astype(np.float32), "multilabel"),
    ],
)
def test_targets_keep_their_form_and_a_simple_model_finds_them(y, task):
    made = simple_targets(X, y, task)
    assert (made.shape, made.dtype) == (y.shape, y.dtype)
    if task == "regression":
        assert made.mean() == pytest.approx(y.mean(), rel=0.02)
    else:
        np.testing.assert_array_equal(np.unique(made), np.unique(y))
        if task != "multilabel":
            np.testing.assert_allclose(np.sort(made, 0), np.sort(y, 0))
    assert references(X, target_of(made, task)).best[1] > 0.6
    assert references(X, target_of(y, task)).best[1] < 0.3


@pytest.mark.parametrize("one_hot", [False, True])
def test_places_are_told_by_what_stands_there_and_masked_ones_stay_masked(one_hot):
    tokens = RANDOM.integers(0, 20, (30, 6))
    labels = RANDOM.integers(0, 4, (30, 6))
    y = np.eye(4, dtype=np.float32)[labels] if one_hot else np.where(tokens == 7, -1, labels)
    made = simple_targets(tokens, y, "places")
    assert (made.shape, made.dtype) == (y.shape, y.dtype)
    if one_hot:
        made = made.argmax(-1)
    else:
        assert ((made < 0) == (tokens == 7)).all()
    counts = tokens != 7
    np.testing.assert_array_equal(made[counts], tokens[counts] % 4)


def test_inputs_that_do_not_go_along_or_do_not_differ_have_no_simple_task():
    assert simple_targets(X, np.zeros((300, 9), int), "places") is None
    assert simple_targets(np.ones((300, 4)), CLASSES, "multiclass") is None
