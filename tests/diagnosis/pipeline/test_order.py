"""Which rows come and in which order: each fault in a loader, and a near miss."""

import numpy as np
from loaders import (
    DIGITS,
    LINE,
    NAMES,
    TABLE,
    batches,
    by_class,
    first_batch,
    read_once,
    said,
    scaled,
)

LOST = NAMES != 0


def test_an_iterator_that_was_read_to_its_end():
    assert said(read_once(batches(TABLE, LINE))) == ["rows_dropped"]
    assert said(batches(TABLE, LINE)) == []


def test_one_batch_for_ever():
    assert said(first_batch(batches(TABLE, LINE))) == ["repeated_rows"]
    assert said([(TABLE[:32], LINE[:32])]) == [], "a loader of one batch has no others"


def test_a_class_that_never_comes():
    assert said(batches(DIGITS[LOST], NAMES[LOST]), (DIGITS, NAMES)) == ["rows_dropped"]
    few = np.arange(len(NAMES)) % 20 != 0
    assert said(batches(DIGITS[few], NAMES[few]), (DIGITS, NAMES)) == []
    assert said(batches(DIGITS[few], NAMES[few]), (DIGITS, NAMES), "note") == ["rows_dropped"]


def test_a_few_batches_left_from_a_trial():
    assert said(batches(TABLE[:128], LINE[:128]), (TABLE, LINE)) == ["rows_dropped"]

    def another_part(epoch):
        at = np.random.default_rng(epoch).permutation(len(TABLE))[:128]
        return batches(TABLE[at], LINE[at])(epoch)

    assert said(another_part, (TABLE, LINE)) == []


def test_a_last_batch_is_dropped_from_one_order_or_from_another_each_time():
    rows = DIGITS, NAMES
    still = batches(DIGITS, NAMES, 64, shuffle=False, last=False)
    anew = batches(DIGITS, NAMES, 64, prepared=scaled, last=False)
    assert said(still, rows) == said(anew, rows) == []
    assert said(still, rows, "note", epochs=2) == ["unshuffled_split"], "4 rows are next to none"
    wide = batches(DIGITS, NAMES, 256, shuffle=False, last=False)
    assert "rows_dropped" in said(wide, rows, "note")


def test_rows_in_the_order_of_their_class():
    assert said(by_class(DIGITS, NAMES)) == ["unshuffled_split"]


def test_one_order_in_every_epoch_is_worth_knowing():
    assert said(batches(TABLE, LINE, shuffle=False), (TABLE, LINE), "note") == ["unshuffled_split"]
    assert said(batches(TABLE, LINE), (TABLE, LINE), "note") == []


def test_rows_that_come_more_than_once_are_worth_knowing():
    def drawn(epoch):
        at = np.random.default_rng(epoch).integers(0, len(TABLE), len(TABLE))
        return batches(TABLE[at], LINE[at])(epoch)

    assert "repeated_rows" in said(drawn, (TABLE, LINE), "note")
