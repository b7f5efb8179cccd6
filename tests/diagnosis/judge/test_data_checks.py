"""The data before any network: each check with data that trigger it, and a near miss."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref
from nnref.data.trees import layout_of
from nnref.diagnosis.data.references import SimpleModels
from nnref.diagnosis.data.splits import Splits
from nnref.diagnosis.data.targets import target_of
from nnref.diagnosis.judge.data_checks import (
    check,
    circular_targets,
    constant_targets,
    mirrored,
)
from nnref.diagnosis.judge.skill import Outcome

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 4)).astype(np.float32)
CLASSES = np.eye(3, dtype=np.float32)[RANDOM.integers(0, 3, 300)]
XV, YV = X[200:] + 0.01, CLASSES[200:]


def found(**given):
    return [(finding.cause, finding.severity) for finding in check(measured(**given))]


def measured(
    x=X,
    y=CLASSES,
    valid=None,
    test=None,
    kind="multiclass",
    trained=1.0,
    validated=0.9,
    shuffle=True,
    never=(),
    costs=False,
    metric=None,
    reference=0.9,
    reads_targets=False,
    inputs=None,
    goes_round=False,
    takes_sides=False,
):
    return SimpleNamespace(
        skill=SimpleNamespace(
            goes_round=goes_round,
            takes_sides=takes_sides,
            without_targets=False,
            reads_targets=reads_targets,
            outputs=np.ones((8, 3)),
            costs=costs,
            kind=kind,
            target=target_of(y, kind) if np.isfinite(y).all() else None,
            weighed_the_wrong_way=False,
        ),
        hardly_predicted=set(never),
        recipe=SimpleNamespace(
            train=(x, y),
            valid=valid,
            test=test,
            shuffle=shuffle,
            batch_size=32,
            metric=metric,
            inputs=inputs,
            column=str,
        ),
        slopes_at=lambda rows: (lambda: np.nan, ()),
        outcome_on=lambda rows: Outcome(0.1, validated),
        trained=Outcome(0.1, trained),
        validated=Outcome(0.1, validated) if valid is not None else None,
        reference=SimpleModels({"linear": reference}, {}, 300),
        beside=lambda rows: Splits((x, y), rows, kind),
        splits=None if valid is None else Splits((x, y), valid, kind),
    )


def with_nan(values):
    return np.where(np.arange(values.size).reshape(values.shape) == 7, np.nan, values)


def skewed(shares):
    labels = RANDOM.choice(len(shares), 300, p=shares)
    return np.eye(len(shares), dtype=np.float32)[labels]


# Images with a bright spot of one pixel in each, and the mask that shows where it is.
SPOTS = np.eye(100)[RANDOM.integers(0, 100, 300)].reshape(300, 10, 10)
SEEN = (RANDOM.normal(size=(300, 10, 10, 1)) + 3 * SPOTS[..., None]).astype(np.float32)
UNSEEN = RANDOM.normal(size=SEEN.shape).astype(np.float32)
UNCOUNTED = np.where(RANDOM.random(SPOTS.shape) < 0.3, -1, SPOTS).astype(np.int32)
# A series whose changes turn back after two steps, and one that walks at random.
CHANGES = RANDOM.normal(size=911)
BACK = CHANGES.copy()
for t in range(2, 911):
    BACK[t] -= 0.8 * BACK[t - 2]
TURNS, WALKS = (
    np.lib.stride_tricks.sliding_window_view(np.cumsum(part) + 0.1 * np.arange(911), 12)
    for part in (BACK, CHANGES)
)
# Pixels from 0 to 18 without a sign, one less, of which those at the border wrapped round.
BOXES = RANDOM.integers(0, 19, (300, 4)).astype(np.uint16) - np.uint16(1)
FORECAST = {"x": TURNS[:, :-1], "y": TURNS[:, -1:], "kind": "regression"}
LATER_ON = {
    "x": TURNS[:600, :-1],
    "y": TURNS[:600, -1:],
    "valid": (TURNS[600:, :-1], TURNS[600:, -1:]),
    "kind": "regression",
}
# Images with a coloured patch somewhere; the class is its colour.
PATCHES = RANDOM.normal(0, 0.3, (300, 12, 12, 3))
for image, color in zip(PATCHES, CLASSES.argmax(1), strict=True):
    top, left = RANDOM.integers(0, 7, 2)
    image[top : top + 5, left : left + 5, color] += 1
TRANSPOSED, RESHAPED = PATCHES.transpose(0, 3, 1, 2), PATCHES.reshape(300, 3, 12, 12)
# Two bright columns of an image, one in each half; their places are asked for, the left one first.
LEFT, RIGHT = RANDOM.integers(0, 6, 200), RANDOM.integers(6, 12, 200)
BARS = RANDOM.normal(0, 0.05, (200, 5, 12, 1))
BARS[np.arange(200), :, LEFT] += 1
BARS[np.arange(200), :, RIGHT] += 1
BOTH = np.concatenate([BARS, BARS[:, :, ::-1]])
PLACES = np.c_[LEFT, RIGHT] / 12
UNNAMED = np.r_[PLACES, 11 / 12 - PLACES]
RENAMED = np.r_[PLACES, 11 / 12 - PLACES[:, ::-1]]
BY_FIRST = X[np.argsort(X[:, 0])]
SORTED = CLASSES[np.argsort(CLASSES.argmax(1))]
RARELY = RANDOM.uniform(size=900)
NINE = RANDOM.normal(size=(900, 4)).astype(np.float32)
RARE = (NINE[:, 0] > 1.2) & (RARELY < 0.3)  # that row by row nothing else is likelier
TOKENS = RANDOM.integers(0, 10, (300, 8))
BEHIND = np.pad(TOKENS[:, :-1] == 3, ((0, 0), (1, 0))) & (RANDOM.uniform(size=(300, 8)) < 0.3)
BEHIND = BEHIND.astype(int)
AT_PLACES = {"trained": 0.0, "never": [1], "reference": 0.0}
BY_ACCURACY = {"x": NINE, "kind": "binary", "trained": 0.0, "never": [1], "reference": 0.0}
TABLE = {
    "a rare class that accuracy does not see": (
        {"y": RARE.astype(int)} | BY_ACCURACY,
        ("class_imbalance", "fault"),
        {"y": RARE[::-1].astype(int)} | BY_ACCURACY,
    ),
    "a rare class of two at the places of a sequence": (
        {"x": TOKENS, "y": BEHIND, "kind": "places"} | AT_PLACES,
        ("class_imbalance", "fault"),
        {"x": TOKENS, "y": BEHIND + 2 * (TOKENS == 4), "kind": "places"} | AT_PLACES,
    ),
    "NaN in the inputs": (
        {"x": with_nan(X)},
        ("nonfinite_data", "fault"),
        {"x": X * 1e30},
    ),
    "infinite targets": (
        {"y": with_nan(X[:, :1]), "kind": "regression"},
        ("nonfinite_data", "fault"),
        {"y": X[:, :1], "kind": "regression"},
    ),
    "a column of one value": (
        {"x": np.c_[X, np.ones(300)]},
        ("no_signal", "note"),
        {"x": np.c_[X, np.arange(300)]},
    ),
    "one target": (
        {"y": np.ones((300, 1)), "kind": "regression"},
        ("corrupted_labels", "note"),
        {"y": np.ones((300, 1)) + X[:, :1], "kind": "regression"},
    ),
    "one target, by a metric that compares": (
        {"y": np.ones((300, 1)), "kind": "regression", "metric": max, "trained": -1.0},
        ("corrupted_labels", "fault"),
        {"y": np.ones((300, 1)), "kind": "regression", "metric": max, "trained": 1.0},
    ),
    "one class": (
        {"y": np.repeat(CLASSES[:1], 300, 0), "trained": 0.0, "never": [1]},
        ("corrupted_labels", "fault"),
        {"y": np.repeat(CLASSES[:1], 300, 0), "trained": 0.0},
    ),
    "one target that nothing compares": (
        {"y": np.ones((300, 1)), "kind": "regression", "trained": 0.0},
        ("corrupted_labels", "note"),
        {"y": np.ones((300, 1)), "kind": "regression", "trained": 0.0, "metric": max},
    ),
    "one row, many times": (
        {"x": np.zeros((300, 4), np.uint8)},
        ("no_signal", "fault"),
        {"x": np.zeros((300, 4), np.uint8), "costs": True},
    ),
    "one row, many times, and one target": (
        {"x": np.zeros((300, 4))},
        ("no_signal", "fault"),
        {"x": np.zeros((300, 4)), "y": np.ones((300, 1)), "kind": "regression"},
    ),
    "equal rows, unequal targets": (
        {"x": np.repeat(X[:10], 30, 0)},
        ("corrupted_labels", "note"),
        {"x": np.repeat(X[:10], 30, 0), "y": np.repeat(CLASSES[:10], 30, 0)},
    ),
    "a rare class": (
        {"y": skewed([0.49, 0.49, 0.02])},
        ("class_imbalance", "note"),
        {"y": skewed([0.5, 0.35, 0.15])},
    ),
    "a rare class that validation asks for": (
        {"y": skewed([0.8, 0.18, 0.02]), "valid": (XV, YV), "validated": 0.3},
        ("class_imbalance", "fault"),
        {"y": skewed([0.8, 0.18, 0.02]), "valid": (XV, YV), "validated": 0.9},
    ),
    "a rare class that is never answered": (
        {"y": skewed([0.49, 0.49, 0.02]), "trained": 0.1, "never": [2]},
        ("class_imbalance", "fault"),
        {"y": skewed([0.49, 0.49, 0.02]), "trained": 0.1, "never": [1]},
    ),
    "a spot that drowns in its mask": (
        {"x": SEEN, "y": SPOTS[..., None], "kind": "binary", "trained": 0.0, "never": [1]},
        ("class_imbalance", "fault"),
        {"x": SEEN, "y": SPOTS[..., None], "kind": "binary", "trained": 0.0},
    ),
    "a spot that nothing tells": (
        {"x": SEEN, "y": SPOTS, "kind": "multilabel", "trained": 0.0, "never": [1]},
        ("class_imbalance", "fault"),
        {"x": UNSEEN, "y": SPOTS, "kind": "multilabel", "trained": 0.0, "never": [1]},
    ),
    "places that do not count": (
        {"x": SEEN, "y": UNCOUNTED, "kind": "places", "trained": 0.0, "never": [1]},
        ("class_imbalance", "fault"),
        {"x": SEEN, "y": np.abs(UNCOUNTED), "kind": "places", "trained": 0.0, "never": [1]},
    ),
    "images reshaped where a transpose was meant": (
        {"x": RESHAPED, "trained": 0.2},
        ("inputs_misread", "fault"),
        {"x": TRANSPOSED, "trained": 0.2},
    ),
    "the same, of a network that learns it": (
        {"x": RESHAPED, "trained": 0.2},
        ("inputs_misread", "fault"),
        {"x": RESHAPED, "trained": 0.9},
    ),
    "left and right not exchanged in mirror images": (
        {"x": BOTH, "y": UNNAMED, "kind": "regression", "trained": 0.3},
        ("corrupted_labels", "fault"),
        {"x": BOTH, "y": RENAMED, "kind": "regression", "trained": 0.3},
    ),
    "mirror images of one meaning": (
        {"x": BOTH, "y": UNNAMED, "kind": "regression", "trained": 0.3},
        ("corrupted_labels", "fault"),
        {"x": BOTH, "y": np.r_[LEFT, LEFT] % 3, "trained": 0.3},
    ),
    "a forecast that repeats the last value": (
        {**FORECAST, "trained": 0.99},
        ("last_value_repeated", "fault"),
        {**FORECAST, "trained": 0.9999},
    ),
    "a forecast that falls behind in a later stretch": (
        {**LATER_ON, "trained": 0.9999, "validated": 0.9},
        ("last_value_repeated", "note"),
        {**LATER_ON, "trained": 0.9999, "validated": 0.9999},
    ),
    "a forecast that falls behind everywhere": (
        {**LATER_ON, "trained": 0.98, "validated": 0.9},
        ("last_value_repeated", "fault"),
        {**LATER_ON, "trained": 0.9999, "validated": 0.9},
    ),
    "a forecast of what walks at random": (
        {"x": WALKS[:, :-1], "y": WALKS[:, -1:], "kind": "regression", "trained": 0.99},
        ("last_value_repeated", "note"),
        {**FORECAST, "trained": 0.99},
    ),
    "a forecast that has learned nothing at all": (
        {**FORECAST, "trained": 0.99},
        ("last_value_repeated", "fault"),
        {**FORECAST, "trained": 0.3},
    ),
    "validation rows that were trained": (
        {"valid": (X[:50], CLASSES[:50])},
        ("repeated_rows", "note"),
        {"valid": (XV, YV)},
    ),
    "validation rows behind sorted ones": (
        {"x": BY_FIRST[:200], "y": CLASSES[:200], "valid": (BY_FIRST[200:], YV), "validated": 0.0},
        ("unshuffled_split", "fault"),
        {"x": X[:200], "y": CLASSES[:200], "valid": (X[200:], YV), "validated": 0.0},
    ),
    "validation in another scale": (
        {"valid": (XV * 100, YV), "validated": 0.1},
        ("inputs_not_normalized", "fault"),
        {"valid": (XV * 1.5, YV), "validated": 0.1},
    ),
    "validation in another scale, of a network that knows nothing": (
        {"valid": (XV * 100, YV), "trained": 0.5, "validated": 0.0},
        ("inputs_not_normalized", "fault"),
        {"valid": (XV * 100, YV), "trained": 0.01, "validated": -0.1},
    ),
    "test rows that were trained": (
        {"test": (X[:50], CLASSES[:50])},
        ("repeated_rows", "note"),
        {"test": (XV, YV)},
    ),
    "test in another scale": (
        {"test": (XV * 100, YV), "validated": 0.1},
        ("inputs_not_normalized", "fault"),
        {"test": (XV * 1.5, YV), "validated": 0.1},
    ),
    "classes that only the test has": (
        {"x": X[:200], "y": SORTED[:200], "test": (XV, SORTED[200:]), "validated": 0.0},
        ("unshuffled_split", "fault"),
        {"test": (XV, YV), "validated": 0.0},
    ),
    "rows repeated": (
        {"x": np.repeat(X[:100], 3, 0), "y": np.repeat(CLASSES[:100], 3, 0)},
        ("repeated_rows", "note"),
        {"x": X[np.r_[0:200, 0:100]], "y": CLASSES[np.r_[0:200, 0:100]]},
    ),
    "the target among the inputs": (
        {"x": np.c_[X, CLASSES.argmax(1)]},
        ("leaked_targets", "note"),
        {"x": np.c_[X, np.roll(CLASSES.argmax(1), 1)]},
    ),
    "classes that only validation has": (
        {"x": X[:200], "y": SORTED[:200], "valid": (XV, SORTED[200:]), "validated": 0.0},
        ("unshuffled_split", "fault"),
        {"valid": (XV, YV), "validated": 0.0},
    ),
    "rows in the order of their class": (
        {"y": SORTED, "shuffle": False, "trained": 0.1},
        ("unshuffled_split", "fault"),
        {"y": CLASSES, "shuffle": False, "trained": 0.1},
    ),
    "the same, shuffled or learned": (
        {"y": SORTED, "shuffle": False, "trained": 0.9},
        ("unshuffled_split", "note"),
        {"y": SORTED, "trained": 0.9},
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_data_that_trigger_a_check(name):
    trigger, expected, _ = TABLE[name]
    assert expected in found(**trigger)


@pytest.mark.parametrize("name", TABLE)
def test_data_that_nearly_do(name):
    _, expected, near = TABLE[name]
    assert expected not in found(**near)


@pytest.mark.parametrize("shuffle", [True, False])
def test_classes_below_0_ask_for_nothing(shuffle):
    masked = np.where(np.arange(300) % 5 == 0, -1, CLASSES.argmax(1))
    assert found(y=masked, valid=(XV, masked[200:]), shuffle=shuffle) == []
    assert found(y=np.full(300, -1), valid=(XV, masked[200:]), shuffle=shuffle, trained=0.0)
    assert found(y=masked, valid=(XV, np.full(100, -1)), shuffle=shuffle)


@pytest.mark.parametrize(("validated", "count"), [(-0.5, 1), (0.9, 0)])
def test_mirror_images_that_contradict_are_found_though_they_are_learned_by_heart(validated, count):
    rows = {"x": BOTH, "y": UNNAMED, "valid": (BOTH + 0.01, UNNAMED), "kind": "regression"}
    findings = list(mirrored(measured(**rows, trained=0.95, validated=validated), BOTH, UNNAMED))
    assert ["[1, 0]" in finding.remedy for finding in findings] == [True] * count


def compass(centre, spread):
    """What six antennas hear of a signal, and the angle that it comes from, as part of a turn."""
    random = np.random.default_rng(0)
    angle = 2 * np.pi * (centre + spread * random.normal(size=800))
    heard = np.cos(angle[:, None] - np.arange(6)) + 0.1 * random.normal(size=(800, 6))
    return heard.astype(np.float32), (angle / 2 / np.pi % 1).astype(np.float32)[:, None]


def levels(noise):
    """Two levels with noise, one on either side of a threshold."""
    random = np.random.default_rng(0)
    x = random.normal(size=(800, 2)).astype(np.float32)
    return x, ((x[:, :1] > 0) + noise * random.normal(size=(800, 1))).astype(np.float32)


def line():
    x = np.random.default_rng(0).uniform(size=(800, 2)).astype(np.float32)
    return x, x[:, :1]


@pytest.mark.parametrize(
    ("rows", "causes"),
    [
        (compass(0.0, 0.1), ["loss_mismatch"]),
        (compass(0.0, 9.0), ["loss_mismatch"]),
        (compass(0.5, 0.1), []),
        (levels(0.05), []),
        (levels(0.001), []),
        (line(), []),
    ],
    ids=["north", "all around", "south", "two levels", "two exact levels", "a line"],
)
def test_targets_that_go_round(rows, causes):
    x, y = rows
    told = [
        finding.cause for finding in circular_targets(measured(x=x, y=y, kind="regression"), x, y)
    ]
    assert told == causes


def test_targets_may_go_round_where_the_loss_does():
    x, y = compass(0.0, 9.0)
    assert not list(circular_targets(measured(x=x, y=y, kind="regression", goes_round=True), x, y))


# One row in ten is of the second class, and half of it can be told from the others.
SHARE = 0.1
SECOND = (RANDOM.random(1200) < SHARE).astype(np.int32)
TOLD = (RANDOM.normal(size=(1200, 4)) + 1.2 * SECOND[:, None]).astype(np.float32)


def weighted(weights):
    """What is said of classes that weigh so in the loss."""

    def loss(outputs, y):
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
        return jnp.mean(each * jnp.asarray(weights)[y])

    task = nnref.Task(
        init=lambda key: {"w": 0.1 * jax.random.normal(key, (4, 2)), "b": jnp.zeros(2)},
        apply=lambda params, x: x @ params["w"] + params["b"],
        loss=loss,
        train=(TOLD, SECOND),
    )
    return nnref.diagnose(task, optimizer=optax.adam(1e-2), epochs=40)


def test_weights_that_stand_the_wrong_way_round_are_told_and_right_ones_let_it_learn():
    wrong = weighted([1 / SHARE, 1 / (1 - SHARE)])
    assert [finding.cause for finding in wrong.faults] == ["loss_mismatch"]
    assert "the wrong way round" in wrong.faults[0].evidence
    assert "test_data_checks.py" in wrong.faults[0].where
    right = weighted([1 / (1 - SHARE), 1 / SHARE])
    assert right.learns
    assert not right.faults
    assert not weighted([1.0, 1.0]).faults


def test_one_class_in_every_row_is_a_fault_to_a_loss_that_asks_for_it():
    """Where the loss does not read its targets, zeros may stand in their place."""
    one = {"y": np.zeros(300, np.int32), "kind": "multiclass"}
    assert ("corrupted_labels", "fault") in found(**one, reads_targets=True)
    assert ("corrupted_labels", "note") in found(**one, reads_targets=False)
    sides = measured(**one, reads_targets=True, takes_sides=True)
    assert not list(constant_targets(sides, one["y"]))


@pytest.mark.parametrize(
    ("second", "trained", "severities"),
    [
        (np.zeros((300, 3), np.float32), 0.1, ["fault"]),
        (np.zeros((300, 3), np.float32), 0.9, ["note"]),  # it learns without
        (np.zeros((300, 3), np.int32), 0.1, []),  # a token of each row, or a mask
        (X[:, :3], 0.1, []),
    ],
)
def test_an_array_of_inputs_that_was_never_filled(second, trained, severities):
    layout = layout_of({"source": X, "target": second}, "x")
    x = layout.pack({"source": X, "target": second}, "x")
    findings = list(check(measured(x=x, inputs=layout, trained=trained)))
    told = [f for f in findings if f.where == "inputs: target"]
    assert [f.severity for f in told] == severities


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"y": BOXES / 20, "kind": "regression"}, ["targets"]),
        ({"x": np.float32(BOXES)}, ["inputs"]),
        ({"y": (BOXES.astype(np.int16) / 20), "kind": "regression"}, []),
        ({"y": BOXES[:, 0].astype(np.int64), "kind": "multiclass"}, []),  # of no class
    ],
    ids=["targets", "inputs", "signed", "classes"],
)
def test_integers_that_wrapped_round(changes, named):
    findings = check(measured(**changes))
    assert [f.where for f in findings if f.cause == "integer_overflow"] == named
