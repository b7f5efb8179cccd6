"""The door: what is said of a healthy loader, of one that raises, and beside validation."""

import numpy as np
import pytest
from loaders import DIGITS, LINE, NAMES, TABLE, batches, first_batch, said, scaled

import nnref
from nnref.errors import UserError

WEIGHTS = np.array([1.0, -2, 0.5, 0, 1, 3])[:, None]


def test_a_healthy_loader():
    found = nnref.examine_data(batches(DIGITS, NAMES, prepared=scaled), (DIGITS, NAMES))
    assert list(found) == []
    assert str(found).startswith("Nothing was found that is wrong with these data.")
    assert found.exit_code == 0
    assert found.measures["share of known rows"] == 1
    assert found.impossible == ("validation beside training: give valid=, its loader",)


def test_a_loader_with_a_fault():
    found = nnref.examine_data(first_batch(batches(TABLE, LINE)))
    assert str(found).startswith("These data are not what they should be: every batch")
    assert found.exit_code == 1
    assert found.impossible[0].startswith("rows dropped")


def test_validation_scaled_by_its_own_statistics():
    shifted = TABLE[400:] * 3 + 5
    mean, deviation = TABLE[:400].mean(0), TABLE[:400].std(0)
    train = batches((TABLE[:400] - mean) / deviation, TABLE[:400] @ WEIGHTS, 64)
    own = batches((shifted - shifted.mean(0)) / shifted.std(0), shifted @ WEIGHTS, 64)
    alike = batches((shifted - mean) / deviation, shifted @ WEIGHTS, 64)
    assert "splits_differ" in said(train, valid=own)
    assert "splits_differ" not in said(train, valid=alike)


def test_an_exception_of_the_loader_is_what_was_found():
    def load():
        yield TABLE[:4], LINE[:4]
        raise ValueError("no such file")

    (finding,) = nnref.examine_data(load)
    assert finding.cause == "broken_program"
    assert "no such file" in finding.evidence
    assert __file__ in finding.where


def test_what_is_no_loader_is_refused():
    with pytest.raises(UserError, match="no rows at all"):
        nnref.examine_data([])
    with pytest.raises(UserError, match="epochs is 0"):
        nnref.examine_data([(TABLE, LINE)], epochs=0)
    with pytest.raises(UserError, match="640 inputs, 3 targets"):
        nnref.examine_data([(TABLE, LINE)], (TABLE, LINE[:3]))
