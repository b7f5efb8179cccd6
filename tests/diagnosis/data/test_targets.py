"""Skill over targets of every kind; healthy networks raise no alarm, whatever their targets."""

import numpy as np
import optax
import pytest
from healthy import (
    CLASSES,
    COUNTS,
    EYE,
    HEALTHY,
    ROWS,
    X,
    against_each_column,
    bce,
    softmax_of_indices,
    squared,
    task,
)

import nnref
from nnref.diagnosis.data.targets import chance, score, skill, target_of

QUICK = [  # one for each way to judge a network; the others take two minutes
    "ages, int32, squared",
    "counts, int32, poisson",
    "counts, int32, 3 quantiles",
    "greys, uint8 (N, 2, 2, 1), squared",
    "yes or no, int8, squared",
    "signs, int8, hinge",
    "classes, float32 (N, 1), indices",
    "one-hot, bool, softmax",
    "masks, uint8 (N, 2, 2, 1), logits",
    "places, int32 (N, T)",
]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HEALTHY],
)
def test_a_healthy_network_raises_no_alarm(name):
    x, y, loss, _ = HEALTHY[name]
    found = nnref.diagnose(task(x, y, loss), optimizer=optax.adam(0.03), batch_size=30, epochs=60)
    # A squared error of two classes is noted as a weaker choice than a cross-entropy; it is one.
    weaker = name == "yes or no, int8, squared"
    assert [(f.cause, f.severity) for f in found] == [("loss_mismatch", "note")] * weaker


def reversed_sign(o, y):
    return -squared(o, y)


SHUFFLED = np.random.default_rng(1).permutation(ROWS)

STRANGERS = COUNTS[SHUFFLED].astype(np.int32), CLASSES[SHUFFLED].astype(np.int32)
WHOLE = COUNTS.astype(np.int32)
NUMBERS = CLASSES.astype(np.int32)

FAULTY = {  # targets, loss; what is wrong
    "counts of other rows": (STRANGERS[0], squared, "corrupted_labels"),
    "classes of other rows": (STRANGERS[1], softmax_of_indices, "corrupted_labels"),
    "counts, and an error of the wrong sign": (WHOLE, reversed_sign, "gradient_ascent"),
    "counts in a cross-entropy of logits": (WHOLE, bce, "loss_mismatch"),
    "more classes than outputs": (2 * NUMBERS, softmax_of_indices, "output_width_mismatch"),
    # Three outputs learn the number of the class, each by itself: the largest says nothing.
    "numbers against a column for each class": (
        NUMBERS[:, None],
        against_each_column,
        "loss_mismatch",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_found_whatever_the_targets(name):
    y, loss, cause = FAULTY[name]
    found = nnref.diagnose(task(X, y, loss), optimizer=optax.adam(0.03), batch_size=30, epochs=60)
    assert [f.cause for f in found.faults][:1] == [cause]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_one_output_for_numbered_classes_is_noted_where_the_user_says_classes(dtype):
    made = task(X, CLASSES[:, None].astype(dtype), squared)
    told = {"optimizer": optax.adam(0.03), "batch_size": 30, "epochs": 60}
    found = nnref.diagnose(made, **told, kind="multiclass")
    assert [f.cause for f in found] == ["output_width_mismatch"]


def test_masked_steps_ask_for_nothing():
    target = target_of(np.array([[2, 1, -1], [2, -1, -1]]), "places")
    assert chance(target) == pytest.approx(2 / 3)
    assert score(target, np.array([[2, 0, 7], [2, 7, 7]])) == pytest.approx(2 / 3)


def test_skill_is_0_for_a_constant_and_1_for_the_truth():
    for y, kind in ((EYE, "multiclass"), (X[:, :1], "regression"), (EYE[:, :1], "binary")):
        target = target_of(y, kind)
        constant = np.full(target.answers.shape, most(target), float)
        assert skill(score(target, constant), chance(target)) == pytest.approx(0, abs=1e-6)
        assert skill(score(target, target.answers), chance(target)) == 1
    assert skill(float("nan"), 0.5) == -1


def most(target):
    if target.kind == "regression":
        return target.answers.mean()
    return np.bincount(target.answers).argmax()
