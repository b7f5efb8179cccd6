"""Targets that were filled in where a label is missing."""

import numpy as np
import pytest

from nnref.diagnosis.data.blanks import blank_rows, filled

RANDOM = np.random.default_rng(0)
MAPS = (RANDOM.random((500, 16)) < 0.3).astype(np.int32)
HALF = RANDOM.random(500) < 0.5
CUT = np.where(HALF[:, None], 0, MAPS)


def pictures(maps):
    return (RANDOM.normal(size=(*maps.shape, 1)) + 2 * maps[..., None]).astype(np.float32)


def test_rows_without_labels_look_like_the_others():
    blanks = filled([pictures(MAPS)], CUT)
    assert blanks is not None
    assert blanks.value == 0
    assert (blanks.rows == (CUT == 0).all(1)).all()
    assert filled([pictures(CUT)], CUT) is None  # there is nothing in them


def test_what_cannot_be_told_of_any_row_is_left_alone():
    assert filled([RANDOM.normal(size=(500, 16, 1))], CUT) is None


@pytest.mark.parametrize(
    "y",
    [
        MAPS,
        np.eye(5)[RANDOM.integers(0, 5, 500)],
        np.where(HALF[:, None], 0, np.eye(5)[RANDOM.integers(0, 5, 500)]),
        CUT[:, :3],
        np.where(RANDOM.random(500)[:, None] < 0.03, 0, RANDOM.normal(size=(500, 8))),
    ],
    ids=["full", "one-hot", "one-hot or none", "short", "few"],
)
def test_rows_that_are_none(y):
    assert blank_rows(y) is None
