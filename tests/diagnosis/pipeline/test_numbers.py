"""What became of the numbers: each fault in a loader, and a near miss."""

import numpy as np
from loaders import DIGITS, LINE, NAMES, PICTURES, SIDES, TABLE, batches, said, scaled

WIDE = (100 * LINE).astype(np.int16)


def test_bytes_that_wrapped_round_beside_raw_rows():
    wrong = batches(DIGITS, NAMES, prepared=lambda x: (x - np.uint8(100)) / np.float32(255))
    assert said(wrong, (DIGITS, NAMES)) == ["integer_overflow"]
    assert said(batches(DIGITS, NAMES, prepared=scaled), (DIGITS, NAMES)) == []
    dark = batches(DIGITS, NAMES, prepared=lambda x: 255 - x)
    assert said(dark, (DIGITS, NAMES)) == []


def test_bytes_of_images_that_wrapped_round():
    assert said(batches(PICTURES, SIDES, prepared=lambda x: x + np.uint8(128))) == [
        "integer_overflow"
    ]
    assert said(batches(PICTURES, SIDES)) == []


def test_targets_that_wrapped_round():
    assert said(batches(TABLE, WIDE.astype(np.int8)), (TABLE, WIDE)) == ["integer_overflow"]
    assert said(batches(TABLE, WIDE), (TABLE, WIDE)) == []


def each_by_itself(x):
    return (x - x.mean(0)) / x.std(0)


def test_batches_scaled_each_by_itself():
    wrong = batches(TABLE, LINE, 64, prepared=each_by_itself)
    assert said(wrong, (TABLE, LINE)) == ["splits_differ"]
    assert said(batches(each_by_itself(TABLE), LINE, 64), (TABLE, LINE)) == []
