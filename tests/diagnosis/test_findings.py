"""Findings: what a report says of them, on the terminal, as a page and as JSON."""

import json
from dataclasses import replace

import pytest

from nnref.diagnosis.findings import (
    LINE,
    Finding,
    Findings,
    fault,
    in_a_line,
    note,
    under_their_cause,
    upstream,
)
from nnref.diagnosis.proof import Proof

SYMPTOM = Finding("dying_relu", "fault", "hidden", "no row activates it")


CAUSE = Finding(
    "learning_rate_too_high",
    "fault",
    "optimizer",
    "with a tenth of the rate it learns <fine>, " + "and so on " * 12,
    measured="0.5",
    healthy="1e-3",
    remedy="divide the learning rate by 10",
    confidence=0.8,
    symptoms=(SYMPTOM,),
)


NOTE = Finding("class_imbalance", "note", "targets", "one class in 90 % of the rows")
HELPS = replace(NOTE, proof=Proof("with five times the epochs", "longer", (0.1,), (0.9,)))


def test_a_report_reads_at_80_columns_and_hangs_symptoms_under_their_cause():
    found = Findings((CAUSE, NOTE), ("data",), ("validation",), {"loss": float("nan")})
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for word in ("[learning_rate_too_high]", "80% sure", "divide the learning rate", "no row"):
        assert word in text
    assert text.index("steps overshoot") < text.index("no row activates") < text.index("one class")
    assert (found.faults, found.notes) == ((CAUSE,), (NOTE,))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["measures"] == {"loss": "nan"}


@pytest.mark.parametrize(
    ("found", "learns", "words", "code"),
    [
        ((), True, "It learns", 0),
        ((), None, "whether it learns was not measured", 0),
        ((), False, "does not learn as it could, and the cause was not found", 1),
        ((NOTE,), False, "the cause was not found", 1),
        (
            (replace(NOTE, proof=Proof("", "longer", (0.1,), (0.9,))),),
            False,
            "learns less than it could: what helps",
            1,
        ),
        ((CAUSE,), False, "does not learn as it could: steps overshoot", 1),
    ],
)
def test_there_are_three_answers(found, learns, words, code):
    diagnosis = Findings(found, learns=learns)
    assert words in diagnosis.headline
    assert diagnosis.exit_code == code
    assert diagnosis.to_json()["learns"] is learns


def test_further_runs_are_shown_the_best_first():
    trials = {"rate x10": 0.25, "longer": 0.75}
    diagnosis = Findings(measures=MEASURES | {"trials": trials}, learns=False)
    text = str(diagnosis)
    assert text.index("0.75  with five times the epochs") < text.index("0.25  with ten times")


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ({"rate x10": 0.5, "another task": 0.9}, ["ten times the learning rate it reaches 0.50"]),
        ({"another task": 0.9}, ["It learns a simple task of the same shapes (0.90)"]),
        ({"another task": 0.1}, ["does not learn a simple task of the same shapes either"]),
        ({"everything": 0.12, "everything x10": 0.05}, ["the layers themselves"]),
        ({"everything": 0.9}, ["exchanged it reaches 0.90"]),
    ],
)
def test_where_to_look_where_no_cause_was_found(trials, words):
    diagnosis = Findings(measures=MEASURES | {"skill on training rows": 0.1, "trials": trials})
    assert diagnosis.advice == []
    unexplained = replace(diagnosis, learns=False)
    for word in words:
        assert word in " ".join(unexplained.advice)
        assert word in " ".join(str(unexplained).split())
        assert word in unexplained.page()
    assert replace(unexplained, found=(CAUSE,)).advice == []


def test_a_cause_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocabulary"):
        Finding("bad_luck", "fault", "", "")


MEASURES = {
    "skill on training rows": 0.5,
    "skill on validation rows": 0.25,
    "skill of simple models": {"linear": 0.2, "boosted trees": 0.9},
    "skill of simple models on shuffled targets": None,
    "skill on one batch by its rows": {2: 1.0, 16: 0.75},
    "share of clipped steps": 0.125,
    "steps": 7,
    "loss of the best constant answer": 0.693,
    "first loss": 0.8,
    "last loss": 0.4,
    "trials": {},
}


@pytest.mark.parametrize(
    ("changed", "word", "told"),
    [
        ({}, "to be learned", "boosted trees first, and this network does not"),
        ({"skill on training rows": 0.88}, "to be learned", "it is learned"),
        ({"skill of simple models": {"linear": 0.05}}, "to be learned", "find nothing"),
        ({}, "this network", "0.50 on its training rows, 0.25 on the validation rows"),
        ({}, "one batch alone", "2 rows 1.00, 16 rows 0.75"),
        ({}, "loss", "0.8 at first, 0.4 after 7 steps; 0.693 of the best constant answer"),
        ({}, "clipped", "12%"),
    ],
)
def test_what_was_reached_is_told(changed, word, told):
    assert told in dict(Findings(measures=MEASURES | changed).figures)[word]


def test_what_was_not_measured_is_left_out():
    left = {"skill of simple models": {}, "skill on one batch by its rows": {}}
    found = Findings(measures=MEASURES | left | {"share of clipped steps": None})
    assert [word for word, _ in found.figures] == ["this network", "loss"]
    assert Findings().figures == []


def test_notes_of_other_rows_stand_apart(tmp_path):
    notes = (
        Finding("overfitting", "note", "validation rows", "half of them are training rows"),
        Finding("no_signal", "note", "column 3", "one value"),
    )
    found = Findings(notes, measures=MEASURES)
    titles = [(title, [note.cause for note in part]) for title, part in found.sections]
    assert titles == [
        ("Worth knowing, no fault:", ["no_signal"]),
        ("On rows it was not trained on:", ["overfitting"]),
    ]
    page = found.to_html(tmp_path / "why.html").read_text()
    for text in (str(found), page.partition("<main>")[2]):
        places = [text.index(word) for word in ("one value", "On rows", "half of")]
        assert places == sorted(places)


def test_faults_come_before_notes_and_causes_before_what_they_bring_about():
    late, early = fault("dying_relu", "", ""), fault("nonfinite_data", "", "")
    unsure = fault("dying_relu", "", "", confidence=0.2)
    remark = note("corrupted_labels", "", "")
    assert upstream([remark, unsure, late, early]) == [early, late, unsure, remark]


def test_the_most_upstream_fault_has_the_others_as_its_symptoms():
    rate, dead = fault("learning_rate_too_high", "", ""), fault("dying_relu", "", "")
    again = fault("learning_rate_too_high", "another place", "", confidence=0.5)
    (found,) = under_their_cause([dead, again, rate])
    assert found == replace(rate, symptoms=(dead,))
    assert under_their_cause([]) == []


@pytest.mark.parametrize(("confidence", "first"), [(0.5, "signal"), (0.95, "output")])
def test_an_output_that_can_be_learned_with_is_not_why_a_signal_dies(confidence, first):
    output = fault("output_activation_mismatch", "", "", confidence=confidence)
    signal = fault("initialization_too_small", "", "")
    (found,) = under_their_cause([output, signal])
    assert found.cause == {"signal": signal, "output": output}[first].cause


def test_an_exception_is_told_by_its_first_line_and_no_longer_than_a_line():
    assert in_a_line(ValueError("one\ntwo")) == "ValueError: one"
    assert in_a_line(KeyError()) == "KeyError: "
    assert len(in_a_line(ValueError("x" * 1000))) == LINE
