"""What the targets of each loss are, how they are encoded, and how outputs are read."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from nnref.errors import UserError
from nnref.parts.losses import LOSSES
from nnref.parts.target_kinds import TARGETS

rng = np.random.default_rng(0)
Z = rng.normal(0, 3, (6, 4))
LABELS = np.array([3, 0, 2, 2, 1, 3])


# --- refusals -----------------------------------------------------------------------------------


def refused(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "y", "classes", "text"),
    [
        (
            "sigmoid_cross_entropy",
            LABELS,
            4,
            "loss: sigmoid_cross_entropy answers yes or no, the data have 4 classes; use "
            "softmax_cross_entropy",
        ),
        (
            "hinge",
            LABELS,
            4,
            "loss: hinge tells two classes apart, the data have 4; use softmax_cross_entropy",
        ),
        (
            "poisson",
            LABELS,
            4,
            'loss: poisson takes counts, the targets are 4 classes; write "kind": "values" under '
            '"data" if they are counts, else use softmax_cross_entropy',
        ),
        (
            "softmax_cross_entropy",
            np.array([0.5, 1.5]),
            0,
            "loss: softmax_cross_entropy tells classes apart, the targets are real values; use "
            "squared_error",
        ),
        (
            "softmax_cross_entropy",
            np.array([[0.5], [1.5]]),
            0,
            "loss: softmax_cross_entropy tells classes apart, the targets are real values; use "
            "squared_error",
        ),
        (
            "squared_error",
            np.array([0, 9]),
            4,
            "loss: 4 classes have labels from 0 to 3, 1 of 2 lie beyond, like 9",
        ),
    ],
)
def test_targets_of_the_wrong_kind_are_refused(name, y, classes, text):
    assert refused(TARGETS[name].encode, y, classes) == text


# --- what targets mean --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "y", "classes", "targets"),
    [
        ("squared_error", np.array([1.5, -2]), 0, [[1.5], [-2]]),
        ("squared_error", np.array([1, 0]), 2, [[1], [0]]),
        ("huber", np.array([2, 0]), 3, [[0, 0, 1], [1, 0, 0]]),
        ("log_cosh", np.zeros((2, 3, 2)), 0, np.zeros((2, 6))),
        ("poisson", np.array([[1, 3]]), 0, [[1, 3]]),
        ("hinge", np.array([1, 0]), 2, [[1], [-1]]),
        ("hinge", np.array([1, -1]), 0, [[1], [-1]]),
        ("sigmoid_cross_entropy", np.array([1, 0]), 2, [[1], [0]]),
        ("sigmoid_cross_entropy", np.array([[0.2, 1]]), 0, [[0.2, 1]]),
        ("softmax_cross_entropy", np.array([[0.25, 0.75]]), 0, [[0.25, 0.75]]),
    ],
)
def test_targets_are_encoded_for_the_loss(name, y, classes, targets):
    encoded, width = TARGETS[name].encode(y, classes)
    np.testing.assert_array_equal(encoded, np.array(targets, np.float32))
    assert encoded.dtype == np.float32
    assert width == encoded.shape[1]


def test_classes_stay_labels_for_softmax():
    encoded, width = TARGETS["softmax_cross_entropy"].encode(LABELS, 5)
    np.testing.assert_array_equal(encoded, LABELS)
    assert (encoded.dtype, width) == (np.int32, 5)


@pytest.mark.parametrize(
    ("name", "outputs", "decided"),
    [
        ("squared_error", [[0.4], [0.6]], [0, 1]),
        ("squared_error", [[0.4, 0.6], [0.3, 0.2]], [1, 0]),
        ("sigmoid_cross_entropy", [[-0.1], [0.1]], [0, 1]),
        ("hinge", [[-0.1], [0.1]], [0, 1]),
        ("softmax_cross_entropy", [[-3, 5, 1], [0.5, 0, 0]], [1, 0]),
    ],
)
def test_outputs_decide_for_a_class(name, outputs, decided):
    answer = TARGETS[name].decide(jnp.asarray(outputs))
    np.testing.assert_array_equal(answer, decided)
    assert jnp.issubdtype(answer.dtype, jnp.integer)


def test_outputs_predict_a_value():
    z = jnp.asarray(Z, jnp.float32)
    expected = {
        "squared_error": Z,
        "poisson": np.exp(Z),
        "sigmoid_cross_entropy": scipy.special.expit(Z),
        "softmax_cross_entropy": scipy.special.softmax(Z, axis=-1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(TARGETS[name].predict(z), values, rtol=2e-6)  # exp in float32


def test_log_probabilities_are_those_that_the_loss_means():
    z = jnp.asarray(Z, jnp.float32)
    y = jnp.asarray(LABELS)
    log_p = TARGETS["softmax_cross_entropy"].log_probabilities(z)
    np.testing.assert_array_equal(LOSSES["softmax_cross_entropy"](z, y), -log_p[jnp.arange(6), y])
    z, yes = z[:, :1], y[:, None] > 1
    log_p = TARGETS["sigmoid_cross_entropy"].log_probabilities(z)
    np.testing.assert_array_equal(
        LOSSES["sigmoid_cross_entropy"](z, yes), -log_p[jnp.arange(6), yes[:, 0].astype(int)]
    )
    assert TARGETS["hinge"].log_probabilities is None
