"""Integers that wrapped round."""

import numpy as np
import pytest

from nnref.diagnosis.data.wraps import wrapped_round

RANDOM = np.random.default_rng(0)
SMALL = RANDOM.integers(0, 20, (200, 3))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (SMALL.astype(np.uint8) - np.uint8(2), (8, -1)),
        ((SMALL.astype(np.uint16) - np.uint16(2)) / 20, (16, -0.1)),
        (np.float32(SMALL.astype(np.uint32) - np.uint32(1)), None),  # rounded away in float32
        ((SMALL.astype(np.uint32) - np.uint32(1)).astype(float), (32, -1)),
    ],
)
def test_what_lies_just_below_the_end_came_from_below_zero(values, found):
    wrapped = wrapped_round(values)
    if found is None:
        assert wrapped is None or wrapped.bits == 32
    else:
        assert wrapped is not None
        assert wrapped.bits == found[0]
        assert wrapped.should_be <= found[1] + 1e-6
        assert 0 < wrapped.share < 0.3


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.integers(0, 256, (200, 9)).astype(np.uint8),  # all of a byte
        RANDOM.normal(size=(200, 3)),
        np.where(SMALL == 3, 999, SMALL),  # far off, and no end of a range
        SMALL - 2,
        np.zeros(50),
    ],
    ids=["bytes", "measured", "another number", "signed", "one number"],
)
def test_what_only_looks_like_it_is_none(values):
    assert wrapped_round(values) is None
