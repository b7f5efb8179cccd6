"""Whether rows mean what their targets say: each fault in a loader, and a near miss."""

import pytest
from loaders import (
    DIGITS,
    LINE,
    NAMES,
    PICTURES,
    RANDOM,
    SIDES,
    TABLE,
    apart,
    batches,
    said,
    scaled,
    slipping,
    turned_by_chance,
)

SLIPPED = {
    "by one, raw rows known": (slipping(DIGITS, NAMES, 1), (DIGITS, NAMES)),
    "by one": (slipping(TABLE, LINE, 1), None),
    "by a batch": (slipping(DIGITS, NAMES, -32), None),
    "apart": (apart(DIGITS, NAMES), (DIGITS, NAMES)),
    "apart, of a table": (apart(TABLE, LINE), (TABLE, LINE)),
}


@pytest.mark.parametrize("name", SLIPPED)
def test_targets_of_other_rows(name):
    assert said(*SLIPPED[name]) == ["corrupted_labels"]


def test_targets_drawn_for_no_row_are_no_slip():
    assert said(apart(TABLE, LINE)) == []


@pytest.mark.parametrize("name", ["counted from 1", "one-hot", "of another scale"])
def test_targets_written_otherwise_belong_to_their_rows(name):
    x, y = (TABLE, LINE / 3 - 1) if name == "of another scale" else (DIGITS, NAMES + 1)
    y = (NAMES[:, None] == range(10)).astype(float) if name == "one-hot" else y
    assert said(batches(x, y), (x, LINE if x is TABLE else NAMES)) == []


def turned_loader(axis):
    return batches(PICTURES, SIDES, prepared=lambda x: scaled(turned_by_chance(x, axis)))


def test_a_mirror_that_changes_the_answer():
    assert said(turned_loader(2), (PICTURES, SIDES)) == ["augmentation_changes_answer"]
    assert said(turned_loader(1), (PICTURES, SIDES)) == []


@pytest.mark.parametrize(("size", "causes"), [(30, ["augmentation_changes_answer"]), (0.2, [])])
def test_noise(size, causes):
    noisy = batches(TABLE, LINE, prepared=lambda x: x + RANDOM.normal(0, size, x.shape))
    assert said(noisy, (TABLE, LINE)) == causes
    assert said(noisy, (TABLE, LINE), "note") == []


def test_channels_in_the_wrong_place():
    wrong = batches(PICTURES, SIDES, prepared=lambda x: scaled(x).reshape(-1, 3, 12, 12))
    right = batches(PICTURES, SIDES, prepared=lambda x: scaled(x).transpose(0, 3, 1, 2))
    assert said(wrong, (PICTURES, SIDES)) == ["inputs_misread"]
    assert said(right, (PICTURES, SIDES)) == []
