"""What targets are, by their values, by the outputs and by the loss."""

import numpy as np
import pytest

from nnref.data.targets import LossFacts, kind_of_targets

RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(-1, 1, (300, 4)).astype(np.float32)
CLASSES = np.eye(3, dtype=np.float32)[np.arange(300) % 3]


@pytest.mark.parametrize(
    ("y", "width", "kind"),
    [
        (CLASSES[:, :2].astype(int), (2, 5), "places"),
        (CLASSES.reshape(100, 3, 3), (3, 3), "places"),
        (CLASSES[:, :2].astype(int), (2, 1), "multilabel"),
        (CLASSES, 3, "multiclass"),
        (0.9 * CLASSES + 0.1 / 3, 3, "multiclass"),
        (np.array([[1, 1], [0, 0], [1, 0]]), 2, "multilabel"),
        (X, 4, "regression"),
        (X[:, :1], 1, "regression"),
        (CLASSES[:, :1], 1, "binary"),
        (2 * CLASSES[:, 0] - 1, 1, "binary"),
        (CLASSES.argmax(1), 3, "multiclass"),
        (CLASSES.argmax(1).astype(np.float32), 1, "regression"),
    ],
)
def test_the_kind_of_task_is_read_from_targets_and_outputs(y, width, kind):
    assert kind_of_targets(y, (len(y), *np.atleast_1d(width)), LossFacts()).task == kind


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.float32, np.float64])
def test_the_same_numbers_are_classes_for_one_loss_and_values_for_another(dtype):
    y = (np.arange(300) % 7).astype(dtype)
    takes_indices, distance = LossFacts(indices=True), LossFacts(distance=True)
    assert kind_of_targets(y, (300, 7), takes_indices) == ("multiclass", "classes")
    assert kind_of_targets(y, (300, 9), takes_indices) == ("multiclass", "classes")
    assert kind_of_targets(y, (300, 1), distance) == ("regression", "values")
    assert kind_of_targets(y, (300,), distance) == ("regression", "values")
    assert kind_of_targets(y[:, None], (300, 3), distance) == ("regression", "values")
    # One distance that levels off far from the target is none the less a distance.
    both = LossFacts(distance=True, indices=True)
    assert kind_of_targets(y, (300, 1), both) == ("regression", "values")
    assert kind_of_targets(y, (300, 1), takes_indices) == ("multiclass", "classes")
    # What the user says goes before all of it.
    assert kind_of_targets(y, (300, 1), distance, "multiclass") == ("multiclass", "classes")
    assert kind_of_targets(y, (300, 7), takes_indices, "regression") == ("regression", "values")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int32, np.float32])
def test_two_values_and_rows_of_them_are_classes_for_any_loss(dtype):
    for loss in (LossFacts(), LossFacts(distance=True)):
        flags = (X > 0).astype(dtype)
        assert kind_of_targets(flags[:, :1], (300, 1), loss) == ("binary", "binary")
        assert kind_of_targets(flags, (300, 4), loss) == ("multilabel", "flags")
        assert kind_of_targets(CLASSES.astype(dtype), (300, 3), loss) == ("multiclass", "one-hot")
        masks = flags.reshape(300, 2, 2, 1)
        assert kind_of_targets(masks, masks.shape, loss) == ("multilabel", "binary")
        assert kind_of_targets(masks, masks.shape, loss, "binary") == ("multilabel", "binary")


def test_distributions_are_classes_unless_they_are_soft_and_the_loss_a_distance():
    smoothed = 0.9 * CLASSES + 0.1 / 3
    soft = RANDOM.dirichlet([1, 1, 1, 1], 300)
    distance = LossFacts(distance=True)
    for loss in (LossFacts(), distance):
        assert kind_of_targets(smoothed, (300, 3), loss) == ("multiclass", "one-hot")
    assert kind_of_targets(soft, (300, 4), LossFacts()) == ("multiclass", "one-hot")
    assert kind_of_targets(soft, (300, 4), distance) == ("regression", "values")
