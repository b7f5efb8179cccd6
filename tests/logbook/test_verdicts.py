"""Verdicts: what the records of the seeds say of a claim."""

from xml.etree import ElementTree

import numpy as np
from small import SPIRALS

from nnref.experiment.experiment import Experiment
from nnref.logbook.verdicts import Record, as_html, judge, losses_as_svg


def record(seed, loss, ending=""):
    history = {"valid_loss": np.array([0.7, loss], np.float32)}
    return Record(seed, history, ending)


def judged(records, **changes):
    return judge(Experiment(**SPIRALS | changes), records, twin=None)


CLAIM = {"metric": "valid_loss", "at_most": 0.1, "in": 2, "of": 3}


def test_a_claim_holds_in_enough_seeds():
    verdict = judged([record(0, 0.05), record(1, 0.05), record(2, 0.5)], claim=CLAIM)
    assert verdict.held is True
    assert verdict.exit_code == 0
    assert verdict.sentence == (
        "the claim held: valid_loss <= 0.1 in 2 of 3 seeds, claimed 2 or more"
    )


def test_a_claim_does_not_hold_in_too_few():
    verdict = judged([record(0, 0.05), record(1, 0.5), record(2, 0.5)], claim=CLAIM)
    assert verdict.held is False
    assert verdict.exit_code == 1


def test_a_seed_that_diverged_never_holds():
    gone = record(1, 0.05, "diverged at epoch 1, step 3: the training loss was not finite")
    verdict = judged([record(0, 0.05), gone, record(2, 0.5)], claim=CLAIM)
    assert verdict.held is False
    assert verdict.sentence.endswith("seed 1 diverged")


def test_several_claims_must_all_hold():
    other = {"metric": "valid_loss", "at_least": 0.2, "in": 1, "of": 1}
    verdict = judged([record(0, 0.05)], claim=[CLAIM | {"in": 1, "of": 1}, other])
    assert verdict.held is False


def test_a_claim_about_other_seeds_is_not_judged():
    verdict = judged([record(0, 0.05)], claim=CLAIM)
    assert verdict.held is None
    assert verdict.exit_code == 0
    assert "the claim, about 3 seeds, was not judged" in verdict.sentence


def test_divergence_without_a_claim_is_a_failure():
    gone = record(1, np.nan, "diverged at epoch 1, step 3: the training loss was not finite")
    assert judged([record(0, 0.05), gone]).exit_code == 1


def test_a_notebook_shows_the_verdict_each_seed_and_the_losses():
    records = [record(0, 0.05), record(1, np.nan, "diverged <at> epoch 1")]
    shown = as_html("a <b>", records, judged(records))
    tree = ElementTree.fromstring(f"<div>{shown}</div>")
    assert tree.find("p").text is None
    assert tree.find("p/b").text == "a <b>"
    assert [cell.text for cell in tree.findall("table/tr")[1]] == ["0", "0.05", "0.05", "1", None]
    assert tree.findall("table/tr")[2][4].text == "diverged <at> epoch 1"
    first, second = tree.iter("polyline")
    assert first.get("points") == "0.0,0.0 320.0,120.0"
    assert second.get("points") == "0.0,0.0"
    assert losses_as_svg([record(0, -1.0)], "valid_loss").count("logarithm") == 0
    gone = Record(0, {"valid_loss": np.full(2, np.nan)}, "diverged")
    assert losses_as_svg([gone], "valid_loss") == ""
