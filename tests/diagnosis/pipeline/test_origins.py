"""Raw rows that are known again, whatever became of their numbers."""

import numpy as np
import pytest

from nnref.diagnosis.pipeline.origins import origins

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(200, 9))
BYTES = RANDOM.integers(0, 40, (200, 6, 6)).astype(np.uint8)
ORDER = RANDOM.permutation(200)

MADE = {
    "as they are": (TABLE, TABLE),
    "a scale of all": (TABLE, 3 * TABLE - 7),
    "a scale of each column": (TABLE, TABLE * RANDOM.uniform(0.1, 9, 9) + RANDOM.normal(size=9)),
    "each row by itself": (TABLE, TABLE - TABLE.mean(1, keepdims=True)),
    "a little noise": (TABLE, TABLE + RANDOM.normal(0, 0.1, TABLE.shape)),
    "bytes that wrapped round": (BYTES, BYTES + np.uint8(240)),
    "a logarithm": (BYTES, np.log1p(BYTES)),
    "another shape": (BYTES, BYTES.reshape(200, -1) / 255),
}


@pytest.mark.parametrize("name", MADE)
def test_rows_are_known_again(name):
    raw, made = MADE[name]
    np.testing.assert_array_equal(origins(raw, made[ORDER]), ORDER)


@pytest.mark.parametrize("other", [RANDOM.normal(size=(200, 9)), RANDOM.normal(size=(200, 5))])
def test_other_rows_are_not(other):
    assert (origins(TABLE, other) < 0).mean() > 0.97  # some are near by chance


def test_rows_that_stand_more_than_once_have_no_place():
    assert (origins(np.repeat(TABLE[:20], 10, 0), TABLE[:20]) < 0).all()
