"""Experiments with a claim, run again."""

import pytest
from logbooks import EXPERIMENT

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.studies.reproduction import reproduce, with_claim

CLAIM = {"metric": "train_loss", "at_most": 5.0, "in": 1, "of": 1}


@pytest.fixture
def write(tmp_path):
    """Writes an experiment file of this name."""

    def written(name, **changes):
        path = tmp_path / f"{name}.json"
        path.write_text(Experiment(**EXPERIMENT | {"seeds": [0]} | changes).to_json())
        return path

    return written


def test_each_is_judged_by_its_own_claim(write, tmp_path):
    right, wrong = write("right", claim=CLAIM), write("wrong", claim=CLAIM | {"at_most": 0.0})
    assert with_claim([right, write("without"), wrong]) == [right, wrong]
    held, broken = reproduce([right, wrong])
    assert (held.name, held.failed) == ("right", False)
    assert (broken.name, broken.failed) == ("wrong", True)
    assert str(held).startswith("held      ")
    assert str(broken).startswith("NOT HELD  ")
    assert held.verdict.sentence in str(held)
    assert not list(tmp_path.glob("logbook*"))


def test_each_comes_as_soon_as_it_is_judged(write):
    judged = reproduce([write("right", claim=CLAIM), write("unread", claim=CLAIM).with_name("no")])
    assert next(judged).name == "right"
    with pytest.raises(UserError):
        next(judged)


def test_where_data_are_missing_it_is_skipped(write, tmp_path):
    data = {"name": "tfds", "dataset": "mnist", "data_dir": str(tmp_path)}
    path = write("lost", data=data, loss="softmax_cross_entropy", claim=CLAIM)
    (skipped,) = reproduce([path])
    assert (skipped.verdict, skipped.failed) == (None, False)
    assert str(skipped).startswith("skipped   ")
    assert "mnist" in str(skipped)


def test_without_any_claim_there_is_nothing_to_do(write):
    with pytest.raises(UserError, match="none of these experiments has a claim"):
        with_claim([write("without")])
