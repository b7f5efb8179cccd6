"""Splits that do not mean the same: each check with data that trigger it, and a near miss."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nnref.diagnosis.data.references import references
from nnref.diagnosis.data.splits import Splits
from nnref.diagnosis.data.targets import target_of
from nnref.diagnosis.judge.skill import Outcome
from nnref.diagnosis.judge.split_checks import check

RANDOM = np.random.default_rng(0)
DIGITS, NAMES = load_digits(return_X_y=True)
DIGITS = (DIGITS / 16).astype(np.float32)
TRAIN, VALID = (DIGITS[:900], NAMES[:900]), (DIGITS[900:], NAMES[900:])
X = RANDOM.normal(size=(600, 5)).astype(np.float32)
LINE = X @ np.array([[1.0], [2], [0], [-1], [0.5]]) + RANDOM.normal(size=(600, 1))
CURVE = np.abs(3 * X[:, :1]) + 0.1 * LINE
TWO = (LINE[:, 0] > 0).astype(int)
DRAWN = RANDOM.permutation(TWO)


def findings(train, valid, kind="multiclass", trained=1.0, validated=0.0, costs=False):
    measurements = SimpleNamespace(
        skill=SimpleNamespace(costs=costs, kind=kind, target=target_of(train[1], kind)),
        recipe=SimpleNamespace(train=train, valid=valid, test=None),
        trained=Outcome(0.1, trained),
        validated=Outcome(0.1, validated),
        splits=None if costs else Splits(train, valid, kind),
        reference=None if costs else references(train[0], target_of(train[1], kind)),
    )
    return list(check(measurements))


def said(*args, **kwargs):
    return [(finding.cause, finding.severity) for finding in findings(*args, **kwargs)]


def at(x, y, first=slice(400), last=slice(400, None)):
    return (x[first], y[first]), (x[last], y[last])


def own(x):
    return (x - x.mean(0)) / x.std(0)


def clinics(prepared, other=lambda x: x):
    """Two places, of which the second sees far more of one class."""
    where = np.array([1, -1, 0.8, 0, 0])
    classes = RANDOM.random(1300) < np.repeat([0.5, 0.95], [900, 400])
    x = RANDOM.normal(size=(1300, 5)) + 1.1 * (2 * classes[:, None] - 1) * where
    mean, deviation = x[:900].mean(0), x[:900].std(0)
    x = (x - mean) / deviation
    y = classes.astype(int)
    return (own(x[:900]).astype(np.float32), y[:900]), (
        prepared(x[900:]).astype(np.float32),
        y[900:],
    )


def series(trend):
    """A slow wave whose level climbs: the next value from the last ten."""
    t = np.arange(900)
    level = np.sin(t / 5) + trend * t + RANDOM.normal(0, 0.1, 900)
    windows = np.lib.stride_tricks.sliding_window_view(level.astype(np.float32), 11)
    bent = np.sin(3 * windows[:, -1:])  # what is learned at one level is not true of another
    return at(windows[:, :-1], bent, slice(600), slice(600, None))


LATER, NOW = series(0.01), series(0.0)
MIXED = RANDOM.permutation(600)
TABLE = {
    "classes in another order": (
        (TRAIN, (VALID[0], (VALID[1] + 3) % 10)),
        ("splits_differ", "fault"),
        (TRAIN, VALID),
    ),
    "classes in another order, in noise": (
        (*at(X, TWO)[:1], (X[400:], 1 - TWO[400:])),
        ("splits_differ", "fault"),
        (*at(X, DRAWN)[:1], (X[400:], 1 - DRAWN[400:])),
    ),
    "targets of another scale": (
        ((X[:400], LINE[:400]), (X[400:], 77 * LINE[400:] + 152), "regression"),
        ("splits_differ", "fault"),
        (*at(X, LINE), "regression"),
    ),
    "an axis turned": (
        (TRAIN, (VALID[0].reshape(-1, 8, 8).swapaxes(1, 2).reshape(-1, 64), VALID[1])),
        ("splits_differ", "fault"),
        (TRAIN, (VALID[0] + RANDOM.normal(0, 0.1, VALID[0].shape), VALID[1])),
    ),
    "inputs of another scale": (
        (TRAIN, (1 - VALID[0], VALID[1])),
        ("inputs_not_normalized", "fault"),
        (TRAIN, (0.9 * VALID[0], VALID[1])),
    ),
    "own statistics that harm": (
        clinics(own),
        ("splits_differ", "fault"),
        clinics(lambda x: x),
    ),
    "own statistics that do no harm": (
        ((own(X[:400]), TWO[:400]), (own(X[400:]), TWO[400:])),
        ("splits_differ", "note"),
        ((own(X[:400]), TWO[:400]), (X[400:], TWO[400:])),
    ),
    "the same rows asked for something else": (
        ((X[:400], LINE[:400]), (X[400:], CURVE[400:]), "regression"),
        ("splits_differ", "fault"),
        (*at(X, CURVE), "regression"),
    ),
    "targets of other rows in validation": (
        ((X[:400], TWO[:400]), (X[400:], DRAWN[400:])),
        ("corrupted_labels", "fault"),
        ((X[:400], TWO[:400]), (X[400:480], DRAWN[400:480])),
    ),
    "targets of other rows in training": (
        ((X[:400], DRAWN[:400]), (X[400:], TWO[400:])),
        ("corrupted_labels", "fault"),
        ((X[:400], DRAWN[:400]), (X[400:], DRAWN[400:])),
    ),
    "a level that climbs in time": (
        (*LATER, "regression"),
        ("inputs_not_normalized", "note"),
        (*NOW, "regression"),
    ),
    "targets that stretch in time": (
        (NOW[0], (NOW[1][0], 5 * NOW[1][1] + 3), "regression"),
        ("splits_differ", "note"),
        (*NOW, "regression"),
    ),
    "targets that are stretched, and no order in time": (
        (
            (NOW[0][0][MIXED[:590]], NOW[0][1][MIXED[:590]]),
            (NOW[1][0], 5 * NOW[1][1] + 3),
            "regression",
        ),
        ("splits_differ", "fault"),
        (NOW[0], (NOW[1][0], 5 * NOW[1][1] + 3), "regression"),
    ),
    "other levels, and no order in time": (
        ((LATER[0][0][MIXED[:590]], LATER[0][1][MIXED[:590]]), LATER[1], "regression"),
        ("inputs_not_normalized", "fault"),
        (*LATER, "regression"),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_splits_that_trigger_a_check(name):
    trigger, expected, _ = TABLE[name]
    assert expected in said(*trigger)


@pytest.mark.parametrize("name", TABLE)
def test_splits_that_nearly_do(name):
    _, expected, near = TABLE[name]
    assert expected not in said(*near)


def test_it_is_said_whatever_the_network_learned_and_not_where_it_carries_over():
    faulty = TRAIN, (VALID[0], (VALID[1] + 3) % 10)
    assert said(*faulty, trained=0.0) == [("splits_differ", "fault")]
    assert said(*faulty, validated=0.9) == []
    assert said(*faulty, costs=True) == []


def test_the_remedy_when_typed_mends_it():
    (first,) = findings(TRAIN, (VALID[0], (VALID[1] + 3) % 10))
    yv = {"yv": (VALID[1] + 3) % 10, "np": np}
    exec(first.remedy, yv)
    np.testing.assert_array_equal(yv["yv"], VALID[1])
    assert "from -0." in str(first.proof)
    assert "inside the validation rows" in first.measured


def test_two_edits_that_mend_it_alike_are_both_said():
    (first,) = findings((X[:400], TWO[:400]), (-X[400:], TWO[400:]))
    assert "numbered otherwise: 1 means 0, 0 means 1" in first.evidence
    assert "other sign" in first.evidence


def test_other_shares_of_classes_are_no_fault_where_models_carry_over():
    rare = np.flatnonzero((TWO[400:] == 1) | (np.arange(200) % 20 == 0))
    assert said((X[:400], TWO[:400]), (X[400:][rare], TWO[400:][rare])) in (
        [],
        [("unshuffled_split", "note")],
    )


def test_the_split_whose_targets_are_of_other_rows_is_named():
    (training,) = findings((X[:400], DRAWN[:400]), (X[400:], TWO[400:]))
    (other,) = findings((X[:400], TWO[:400]), (X[400:], DRAWN[400:]))
    assert (training.where, other.where) == ("training targets", "validation targets")


def masked(count, turned, seed, noise=0.1):
    """Images of a bright square, and its mask; each turned by some quarters of a circle."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, 12, 12), np.float32)
    for mask in masks:
        top, left = random.integers(0, 8, 2)
        mask[top : top + 4, left : left + 4] = 1
    images = 0.4 * masks + noise * random.normal(size=masks.shape)
    turns = random.integers(4, size=count) * turned
    masks = np.stack([np.rot90(mask, turn) for mask, turn in zip(masks, turns, strict=True)])
    return images.astype(np.float32), masks


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (masked(300, True, 0), ["corrupted_labels"]),
        (masked(300, False, 0), []),
        (masked(300, False, 0, noise=0.4), []),  # harder than the other rows, and theirs
    ],
)
def test_masks_that_are_turned_without_their_images(train, expected):
    found = findings(train, masked(60, False, 1), "multilabel", trained=0.1, validated=0.1)
    assert [f.cause for f in found if f.severity == "fault"] == expected
    if expected:
        assert found[0].where == "training targets"
        assert "by one draw" in found[0].remedy


def test_classes_that_training_never_sees_are_a_fault_though_the_rows_are_in_order():
    """Rows sorted by their class look like rows that follow each other in time."""
    rows = np.sort(RANDOM.uniform(0, 3, 600))
    x = np.stack([rows, rows**2], 1).astype(np.float32)
    y = rows.astype(int)
    told = said((x[:370], y[:370]), (x[430:], y[430:]), kind="multiclass", validated=-0.9)
    assert ("unshuffled_split", "fault") in told
    # Where the network is good there, they were not needed.
    told = said((x[:370], y[:370]), (x[430:], y[430:]), kind="multiclass", validated=0.95)
    assert ("unshuffled_split", "fault") not in told


def test_targets_in_the_order_of_their_classes_beside_inputs_in_none_were_not_shuffled_along():
    random, y = np.random.default_rng(1), np.repeat(np.arange(3), 200)
    x = (random.normal(size=(600, 2)) + np.stack([y, -y], 1)).astype(np.float32)
    lost = x[random.permutation(600)]
    parts = slice(390), slice(410, None)
    (found,) = findings(*at(lost, y, *parts), validated=-0.9)
    assert (found.cause, found.severity) == ("corrupted_labels", "fault")
    # Rows that were not shuffled at all belong to their targets.
    told = [cause for cause, _ in said(*at(x, y, *parts), validated=-0.9)]
    assert "unshuffled_split" in told
    assert "corrupted_labels" not in told


def test_categories_that_each_split_numbers_by_itself():
    """A network that looks its towns up has learned them, and finds others in the other split."""
    random = np.random.default_rng(1)
    worth = random.normal(size=60)
    towns, numbers = random.integers(0, 60, 2400), random.normal(size=(2400, 1))
    towns[2000:] = random.choice(np.setdiff1d(np.arange(60), range(3, 60, 9)), 400)
    y = worth[towns] + 0.2 * numbers[:, 0]
    x = np.column_stack([towns, numbers]).astype(np.float32)
    train, valid = at(x, y, slice(2000), slice(2000, None))
    assert said(train, valid, "regression", validated=0.9) == []
    anew = valid[0].copy()
    anew[:, 0] = np.unique(anew[:, 0], return_inverse=True)[1]
    (found,) = findings(train, (anew, valid[1]), "regression")
    assert (found.cause, found.severity) == ("splits_differ", "fault")
    assert "column 0 are numbered anew: 0 to 59" in found.evidence
    assert "0 to 52" in found.evidence
    (found,) = findings(train, (anew, valid[1]), "regression", validated=0.9)
    assert found.severity == "note"
