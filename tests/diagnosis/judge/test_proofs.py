"""Proofs: a cause is made to go away, from several seeds, and what fails then is less sure."""

import pytest
from invented_runs import case, trials

from nnref.diagnosis.findings import fault, note
from nnref.diagnosis.judge.judge import decide
from nnref.diagnosis.judge.proofs import with_proof
from nnref.diagnosis.run.changes import Change, Trial

RELU = fault("relu_output", "out, net.py:7", "never negative")
MATRIX = fault("loss_broadcast", "net.py:9", "a matrix")
RATE = fault("learning_rate_too_high", "optimizer", "it climbs")


@pytest.mark.parametrize(("with_it", "confidence"), [(0.9, 1.0), (0.1, 0.5)])
def test_what_holds_from_one_seed_alone_is_less_sure(with_it, confidence):
    again = [
        tuple(Trial("rate x10", Change(), skill, None) for skill in pair)
        for pair in ((0.05, with_it), (0.15, with_it))
    ]
    made = case(reached=0.1, rate_x10=0.9, again=again)
    (found,) = decide(made, [])
    assert found.cause == "learning_rate_too_low"
    assert found.confidence == confidence
    assert f"from three seeds, 0.05 to 0.15 without, {with_it:.2f} to 0.90 with it" in str(
        found.proof
    )
    assert found.proof.before == (0.1, 0.05, 0.15)
    assert found.proof.after == (0.9, with_it, with_it)
    _, low, high = found.proof.gain
    assert (low > 0) == (with_it > 0.5)
    assert high > low


@pytest.mark.parametrize(
    ("finding", "edit", "words"),
    [
        (RELU, "outputs", "with the raw outputs of the last layer"),
        (MATRIX, "loss", "with the loss that fits the targets"),
    ],
)
def test_what_was_certain_without_a_further_run_gets_its_proof(finding, edit, words):
    made = case(reached=0.1)
    made.exchanges.head = trials(**{edit: 0.9})
    shown = with_proof(made, finding)
    assert (shown.edit, shown.effect, shown.confidence) == (edit, 0.9, finding.confidence)
    assert words in str(shown.proof)


def test_a_run_that_was_made_proves_a_cause_of_the_run():
    assert with_proof(case(reached=0.1, **{"rate_x0.1": 0.8}), RATE).effect == 0.8


@pytest.mark.parametrize("finding", [RELU, RATE, note("relu_output", "", "")])
def test_what_no_run_takes_away_stays_as_it_is(finding):
    made = case(reached=0.1, **{"rate_x0.1": 0.1, "rate_x10": 0.9})
    made.exchanges.head = trials(outputs=0.12)
    assert with_proof(made, finding) is finding


def test_a_proof_that_other_seeds_refute_is_none():
    again = [tuple(Trial("outputs", Change(), skill, None) for skill in (0.1, 0.1))] * 2
    made = case(reached=0.1, again=again)
    made.exchanges.head = trials(outputs=0.9)
    assert with_proof(made, RELU) is RELU
