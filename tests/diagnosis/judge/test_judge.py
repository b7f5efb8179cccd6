"""Which findings are faults, which notes, and which are symptoms of others."""

from dataclasses import replace

import numpy as np
import pytest
from invented_runs import CLIMBS, FALLS, HUGE, STEPS, blown, case, faults, history, params

from nnref.diagnosis.data.references import COUNTS, SimpleModels
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.judge.judge import answers, decide, impossible, learned, measures, of_the_run
from nnref.diagnosis.program.at_start import SeveralOutputs
from nnref.diagnosis.program.lone_means import NORM_OF_A_ROW
from nnref.diagnosis.program.sequences import ANOTHER_ANSWER
from nnref.diagnosis.run.changes import Change, Trial


@pytest.mark.parametrize(
    ("tried", "cause"), [({}, "loss_axis_error"), ({"rate_x10": 0.9}, "learning_rate_too_low")]
)
def test_rows_that_look_at_each_other_are_a_fault_where_nothing_else_is(tried, cause):
    note = Finding("loss_axis_error", "note", "net.py:3", "rows of a batch mix")
    found = decide(case(reached=0.1, **tried), [note])
    assert [f.cause for f in found if f.severity == "fault"] == [cause]


@pytest.mark.parametrize(
    ("reached", "cause", "confidence", "severity"),
    [
        (0.5, "loss_axis_error", 0.9, "fault"),
        (0.5, "inputs_ignored", 0.9, "fault"),
        (0.5, "loss_axis_error", 0.8, "note"),  # not sure enough
        (0.5, "loss_mismatch", 0.95, "note"),  # another kind
        (0.7, "loss_axis_error", 0.9, "note"),  # little is missing
    ],
)
def test_what_simple_models_do_not_know_of_may_hold_back_a_network_that_is_as_good(
    reached, cause, confidence, severity
):
    found = Finding(cause, "fault", "net.py:3", "rows mix", confidence=confidence)
    (found,) = decide(case(reached=reached, reference=0.4), [found])
    assert found.severity == severity


@pytest.mark.parametrize(("best", "causes"), [(COUNTS, []), ("linear", ["inputs_ignored"])])
def test_no_order_of_steps_is_asked_for_where_counting_them_says_most(best, causes):
    note = Finding("inputs_ignored", "note", "out", "in any order", healthy=ANOTHER_ANSWER)
    signals = case(reached=0.9)
    signals.measurements.reference = SimpleModels({best: 0.9}, {}, 300)
    assert [finding.cause for finding in decide(signals, [note])] == causes


@pytest.mark.parametrize(
    ("measured", "near", "said"),
    [
        ({"clipped": 0.95}, {"clipped": 0.5}, "of the steps are clipped"),
        ({"constant_loss": 0.01}, {"constant_loss": 0.5}, "the best constant answer"),
    ],
)
def test_what_is_worth_a_note(measured, near, said):
    def notes(**measured):
        return [
            f.evidence for f in decide(case(reached=0.1, **measured), []) if f.severity == "note"
        ]

    assert [said in told for told in notes(**measured)] == [True]
    assert notes(**near) == []


@pytest.mark.parametrize(("reached", "severity"), [(0.78, "fault"), (0.83, "note")])
def test_for_the_scale_of_the_inputs_less_is_enough(reached, severity):
    (found, *_) = decide(case(reached=reached, x=HUGE, inputs=0.95), [])
    assert (found.cause, found.severity) == ("inputs_not_normalized", severity)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"rate_x10": 0.95}, "learning_rate_too_low"),
        ({"initialization": 0.95, "first": params(scale=5.0)}, "initialization_too_large"),
    ],
)
@pytest.mark.parametrize(
    ("reached", "severities"), [(0.5, ["fault"]), (0.65, ["fault"]), (0.74, ["note"]), (0.86, [])]
)
def test_what_helps_a_network_that_learns_in_part_is_a_note_unless_it_brings_the_rest(
    reached, severities, change, cause
):
    found = decide(case(reached=reached, **change), [])
    assert [f.severity for f in found if f.cause == cause] == severities


@pytest.mark.parametrize(("at", "severity"), [(50, "fault"), (400, "note")])
def test_outputs_that_may_be_negative_are_a_fault_where_the_loss_was_not_finite(at, severity):
    note = Finding("output_activation_missing", "note", "net.py:3", "may be negative")
    steps = history(FALLS, finite=blown(at, "loss", FALLS))
    first = decide(case(steps=steps), [note])[0 if severity == "fault" else -1]
    assert (first.cause, first.severity) == ("output_activation_missing", severity)


@pytest.mark.parametrize(
    ("clipped", "causes"), [(None, []), (0.5, []), (0.95, ["learning_rate_too_low"])]
)
def test_what_was_not_tried_is_not_said_not_to_help(clipped, causes):
    made = case(reached=0.1, clipped=clipped)
    made.interventions.trials = {}
    found = decide(made, [])
    assert [f.cause for f in found if f.severity == "fault"] == causes
    assert len([f for f in found if f.where == "clipping"]) == len(causes)
    assert any("no work was left" in line for line in impossible(made))


def test_a_cause_is_no_symptom_of_itself():
    climbs = history(CLIMBS, finite=blown(50, "loss", CLIMBS), cosine=0.9)
    told = [Finding("gradient_ascent", "fault", "net.py:3", "the first update", confidence=0.95)]
    (found,) = decide(case(steps=climbs), told)
    assert found.cause == "gradient_ascent"
    assert [symptom.cause for symptom in found.symptoms] == ["learning_rate_too_high"]


def test_a_leak_is_a_fault_of_a_network_that_learns():
    leak = Finding("leaked_targets", "fault", "net.py:3", "it reads ahead", confidence=0.95)
    column = replace(leak, severity="note")
    told = decide(case(reached=0.9), [leak])
    assert [(f.cause, f.severity) for f in told] == [("leaked_targets", "fault")]
    told = decide(case(reached=0.9), [column])
    assert [f.severity for f in told] == ["note"]


@pytest.mark.parametrize(
    ("cause", "confidence", "healthy", "severity"),
    [
        ("rows_dropped", 0.9, "", "fault"),  # the loss of the other rows falls without them
        ("rows_dropped", 0.6, "", "note"),
        ("inputs_misread", 0.95, "", "fault"),  # by the numbers of nodes that come in any order
        ("inputs_misread", 0.9, "", "note"),
        ("loss_axis_error", 0.95, NORM_OF_A_ROW, "fault"),
        ("loss_axis_error", 0.95, "", "note"),
    ],
)
def test_what_is_a_mistake_though_the_network_learns(cause, confidence, healthy, severity):
    found = Finding(cause, "fault", "net.py:3", "is", healthy=healthy, confidence=confidence)
    told = decide(case(reached=0.9), [found])
    assert [(f.cause, f.severity) for f in told] == [(cause, severity)]


def test_a_loss_that_does_not_read_its_targets_is_a_fault_where_nothing_else_is():
    distance = Finding("loss_mismatch", "note", "net.py:3", "a distance", confidence=0.3)
    found = decide(case(reached=0.1, wider=0.9), [distance])
    assert [f.cause for f in found if f.severity == "fault"] == ["insufficient_capacity"]
    note = Finding("loss_mismatch", "note", "net.py:3", "the same for other targets")
    for tried, cause in (({}, "loss_mismatch"), ({"rate_x10": 0.9}, "learning_rate_too_low")):
        found = decide(case(reached=0.1, **tried), [note])
        assert [f.cause for f in found if f.severity == "fault"] == [cause]


def test_where_targets_are_costs_nothing_is_missed_by_a_low_skill():
    told = {"reached": 0.0, "valid": 0.0, "reference": 0.0}
    assert faults(told)
    assert not faults(told | {"costs": True})
    diverging = history(CLIMBS, finite=blown(50, "loss", CLIMBS))
    assert faults(told | {"costs": True, "steps": diverging})
    block = Finding("gradient_blocked", "fault", "net.py:3", "cut", confidence=0.6)
    for end in (50, 200):  # times the first loss
        rises = case(**told, costs=True, steps=history(np.linspace(1, end, STEPS)))
        causes = [f.cause for f in decide(rises, [block]) if f.severity == "fault"]
        assert bool(causes) == (end == 200)


@pytest.mark.parametrize(("least", "told"), [(1.5, 1.5), (-3e38, None)])
def test_a_loss_without_a_least_value_has_no_best_constant_answer(least, told):
    run = case(constant_loss=least)
    run.measurements.run.losses, run.measurements.recipe.seed = [1.0], 0
    assert measures(run)["loss of the best constant answer"] == told


@pytest.mark.parametrize(("start", "causes"), [(0.9, ["initialization_too_large"]), (0.5, None)])
def test_a_gradient_that_learned_all_from_another_start_is_not_wrong(start, causes):
    doubt = Finding("wrong_gradient", "fault", "net.py:3", "no slope", confidence=0.85)
    rare = Finding("class_imbalance", "fault", "targets", "a factor of 60")
    made = case(reached=0.1, initialization=start, first=params(scale=5.0))
    said = [f.cause for f in of_the_run(made, [], [rare]) if f.severity == "fault"]
    assert said == (causes or ["class_imbalance"])
    found = decide(case(reached=0.1, initialization=start, first=params(scale=5.0)), [doubt])
    said = [f.cause for f in found if f.severity == "fault"]
    assert said == (causes or ["wrong_gradient"])


@pytest.mark.parametrize(("raw", "first"), [(0.9, "relu_output"), (0.1, "class_imbalance")])
def test_rare_classes_are_no_cause_where_other_outputs_cure(raw, first):
    rare = Finding("class_imbalance", "fault", "targets", "a factor of 60")
    relu = Finding("relu_output", "fault", "net.py:3", "a ReLU on the output", confidence=0.9)
    made = case(reached=0.0)
    made.exchanges.head = {"outputs": Trial("outputs", Change(), raw, raw)}
    found = of_the_run(made, [relu], [rare])
    assert next(f.cause for f in found if f.severity == "fault") == first


@pytest.mark.parametrize(
    ("run", "learns"),
    [
        ({"reached": 0.9}, True),
        ({"reached": 0.5, "rate_x10": 0.9}, False),
        ({"reached": 0.2, "reference": 0.0, "valid": 0.3, "longer": 0.2}, True),
        ({"reached": 0.2, "reference": 0.0, "valid": 0.3, "longer": 0.9}, False),
        ({"reached": 0.1, "reference": 0.0, "fits": False, "longer": 0.12}, True),
        ({"reached": 0.1, "reference": 0.0, "fits": False, "longer": 0.5}, False),
        ({"reached": 0.0, "reference": 0.0, "fits": False}, False),
    ],
)
def test_what_learns_is_told_by_simple_models_and_by_its_own_trials(run, learns):
    assert learned(case(**run)) == learns


def test_a_check_that_wants_one_array_finds_nothing_of_several():
    """It is no mistake of nnref's own."""

    def wants_one(signals):
        raise SeveralOutputs("the targets are several arrays")
        yield signals

    invented = case(reached=0.1)
    assert answers(wants_one, invented) == []
    assert not invented.mistakes


@pytest.mark.parametrize(
    ("reached", "valid", "reference", "better", "causes"),
    [
        (0.6, 0.55, 0.18, 0.95, ["learning_rate_too_low"]),
        (0.6, 0.55, 0.5, 0.95, []),  # simple models say what can be learned
        (0.85, 0.6, 0.18, 0.95, []),  # it knows most of its rows: another question
        (0.6, 0.55, 0.18, 0.7, []),  # no run gets much farther
    ],
)
def test_beyond_simple_models_its_own_runs_say_what_a_network_could_learn(
    reached, valid, reference, better, causes
):
    made = case(reached=reached, valid=valid, reference=reference, rate_x10=better)
    assert [f.cause for f in decide(made, []) if f.severity == "fault"] == causes


def test_what_is_better_on_the_training_rows_alone_is_no_more_learning():
    made = case(reached=0.6, valid=0.55, reference=0.18, rate_x10=0.95)
    made.interventions.trials["rate x10"] = Trial("rate x10", Change(rate=10.0), 0.95, 0.6)
    assert not [f for f in decide(made, []) if f.severity == "fault"]
