"""What the run shows: measurements that name each cause, and the nearest that do not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from invented_runs import (
    BORN,
    CLIMBS,
    DEAD,
    ENDS,
    FALLS,
    GROWN,
    HUGE,
    LEVEL,
    SPIKE,
    STEPS,
    blown,
    case,
    faults,
    history,
    kernel,
    look,
    params,
)

from nnref.diagnosis.judge.judge import decide
from nnref.diagnosis.judge.run_checks import (
    adrift,
    ascent,
    nonfinite,
    silent_outputs,
    statistics,
)
from nnref.diagnosis.program.birth import Birth
from nnref.diagnosis.program.tracing import Operation
from nnref.diagnosis.run.replay import BirthInRun

ONE_CLIMBS, UPDATES = [-0.9, 0.9, -0.9], [1e-3, 1e-4, 1e-3]

BLOWN = {"steps": history(CLIMBS, finite=blown(50, "loss", CLIMBS))}

# What speaks for a cause, and the nearest measurement that does not: a network that learns all the
# same, or the same symptom with another history.
TABLE = {
    "learning_rate_too_high, by divergence": (
        "learning_rate_too_high",
        {"steps": history(CLIMBS, finite=blown(50, "loss", CLIMBS))},
        {"steps": history(FALLS, finite=blown(50, "loss", FALLS))},
    ),
    "inputs_not_normalized, of a run that blows up": (
        "inputs_not_normalized",
        {**BLOWN, "x": HUGE, "inputs": 0.9},
        {**BLOWN, "x": HUGE, "inputs": 0.9, "rate_x0.1": 0.9},
    ),
    "inputs_not_normalized, not of inputs of unit scale": (
        "inputs_not_normalized",
        {**BLOWN, "start": look(GROWN), "x": HUGE, "inputs": 0.9},
        {**BLOWN, "start": look(GROWN), "inputs": 0.9},
    ),
    "numerical_instability": (
        "numerical_instability",
        {"steps": history(FALLS, finite=blown(50, "gradient", FALLS))},
        {"steps": history(CLIMBS, finite=blown(50, "gradient", CLIMBS))},
    ),
    "exploding_gradients": (
        "exploding_gradients",
        {"steps": history(FALLS, finite=blown(0, "outputs", FALLS)), "start": look(GROWN)},
        {"steps": history(FALLS, finite=blown(0, "outputs", FALLS)), "start": look(BORN)},
    ),
    "numerical_instability, in the outputs": (
        "numerical_instability",
        {"steps": history(FALLS, finite=blown(0, "outputs", FALLS)), "start": look(BORN)},
        {"steps": history(FALLS, finite=blown(0, "outputs", FALLS)), "start": look(GROWN)},
    ),
    "gradient_ascent": (
        "gradient_ascent",
        {"steps": history(np.linspace(1, 2, STEPS), cosine=0.9)},
        {"steps": history(np.linspace(1, 2, STEPS), cosine=-0.1)},
    ),
    "gradient_ascent, of one leaf": (
        "gradient_ascent",
        {"steps": history(FALLS, cosine=ONE_CLIMBS, update=UPDATES), "takes": ()},
        {"steps": history(FALLS, cosine=ONE_CLIMBS, update=UPDATES)},  # it decays
    ),
    "gradient_ascent, by a decay of the wrong sign": ("gradient_ascent", {"growth": 0.01}, {}),
    "parameters_not_updated": (
        "parameters_not_updated",
        {"steps": history(np.ones(STEPS), update=0.0)},
        {"steps": history(np.ones(STEPS), update=0.0, gradient=0.0)},
    ),
    "batch_statistics_not_updated": (
        "batch_statistics_not_updated",
        {"reached": 0.1, "mode": 0.9, "states": ({"mean": 0.0}, {"mean": 0.0})},
        {"reached": 0.1, "mode": 0.2, "states": ({"mean": 0.0}, {"mean": 0.0})},
    ),
    "batch_statistics_not_updated, of a state that moves": (
        "batch_statistics_not_updated",
        {"reached": 0.1, "mode": 0.9, "states": ({"mean": 0.0}, {"mean": 1.0})},
        {"reached": 0.1, "mode": 0.9},  # without a state there are no statistics
    ),
    "constant_initialization": (
        "constant_initialization",
        {"first": params(constant=True)},
        {"first": params(constant=True), "last": params()},
    ),
    "constant_initialization, though it learns": (
        "constant_initialization",
        {"first": params(constant=True), "reached": 0.89},
        {"first": params(), "reached": 0.89},
    ),
    "exploding_gradients, of a run that blows up": (
        "exploding_gradients",
        {"steps": history(CLIMBS, finite=blown(50, "loss", CLIMBS)), "start": look(GROWN)},
        {
            "steps": history(CLIMBS, finite=blown(50, "loss", CLIMBS)),
            "start": look(GROWN),
            "rate_x0.1": 0.9,
        },
    ),
    "dying_relu": (
        "dying_relu",
        {"end": look(levels=DEAD)},
        {"end": look(levels=(LEVEL, replace(LEVEL, dead=0.9), LEVEL))},
    ),
    "dying_relu, of a network that learns": (
        "dying_relu",
        {"end": look(levels=DEAD)},
        {"end": look(levels=DEAD), "reached": 0.9},
    ),
    "learning_rate_too_high, by a step that kills": (
        "learning_rate_too_high",
        {"end": look(levels=DEAD), "steps": SPIKE},
        {"end": look(levels=DEAD)},
    ),
    "parameters_not_updated, rounded away": (
        "parameters_not_updated",
        {"last": params()},
        {"last": params() | {"a": {"kernel": 1.01 * kernel(0)}, "b": {"kernel": kernel(7)}}},
    ),
    "metric_mismatch": (
        "metric_mismatch",
        {"misjudged": 0.9},
        {"misjudged": 0.5},
    ),
    "learning_rate_too_low, of a schedule that ends": (
        "learning_rate_too_low",
        {"steps": ENDS},
        {"steps": ENDS._replace(gradient=np.where(ENDS.update > 0, 1.0, 1e-9))},
    ),
    "learning_rate_too_low, of a schedule that ends, where a larger rate helps": (
        "learning_rate_too_low",
        {"steps": ENDS, "rate_x10": 0.9},
        {"steps": ENDS, "rate_x10": 0.9, "reached": 0.9},
    ),
    "hidden_activation_mismatch": (
        "hidden_activation_mismatch",
        {"activation": ("exp", "div")},
        {"activation": ("exp", "div"), "reached": 0.9},
    ),
    "numerical_instability, in evaluation": (
        "numerical_instability",
        {"end": replace(look(), outputs=np.array([[1.0], [np.nan]]))},
        {"end": look()},
    ),
    "corrupted_labels, memorized": (
        "corrupted_labels",
        {"reference": 0.0, "reached": 0.9, "kept": 0.0},
        {"reference": 0.0, "reached": 0.9, "kept": 0.5},
    ),
    "corrupted_labels, half memorized": (
        "corrupted_labels",
        {"reference": 0.0, "reached": 0.6, "kept": 0.0},
        {"reference": 0.0, "reached": 0.6, "kept": 0.5},
    ),
    "corrupted_labels": (
        "corrupted_labels",
        {"reference": 0.0, "valid": 0.0},
        {"reference": 0.0, "valid": 0.9, "reached": 0.9},
    ),
    "corrupted_labels, not of a run that has become NaN": (
        "corrupted_labels",
        {"reference": 0.0, "valid": 0.0},
        {**BLOWN, "reference": 0.0, "valid": 0.0},
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_speaks_for_a_cause_names_it(name):
    cause, trigger, _ = TABLE[name]
    assert faults(trigger) == [cause]


@pytest.mark.parametrize("name", TABLE)
def test_a_near_miss_does_not(name):
    cause, _, near = TABLE[name]
    assert cause not in faults(near)


@pytest.mark.parametrize(
    ("tried", "cause"),
    [({}, "exploding_gradients"), ({"rate_x0.1": 0.9}, "learning_rate_too_high")],
)
def test_what_blows_up_from_a_huge_signal_is_the_rates_where_a_smaller_one_helps(tried, cause):
    steps = history(CLIMBS, finite=blown(50, "loss", CLIMBS))
    (found,) = nonfinite(case(steps=steps, start=look(GROWN), **tried))
    assert found.cause == cause


def test_leaves_that_climb_are_named():
    def found(*cosines):
        steps = history(FALLS, cosine=np.stack(cosines, axis=-1), update=UPDATES)
        return [f.where for f in ascent(case(steps=steps, takes=()))]

    down, up = np.full(STEPS, -0.9), np.full(STEPS, 0.9)
    assert found(down, up, down) == ["b.kernel"]
    assert found(down, np.where(np.arange(STEPS) % 2, up, down), down) == []


@pytest.mark.parametrize(("gradient", "names"), [([1, 0, 1], ["b.kernel"]), ([1, 1e-9, 1], [])])
def test_leaves_that_move_without_a_gradient_are_named(gradient, names):
    found = adrift(case(steps=history(FALLS, gradient=gradient)))
    assert [(f.where, f.severity) for f in found] == [(name, "note") for name in names]


def test_a_number_that_is_not_finite_has_the_line_and_the_name_of_its_operation():
    root = Operation("sqrt", (0,), (1,), None, ("model.py:7",))
    birth = Birth(root, "a root of 0 or less", "jnp.sqrt(x + 1e-12)", frozenset({0}))

    def said(*seen):
        steps = history(FALLS, finite=blown(50, "gradient", FALLS))
        (found,) = nonfinite(case(steps=steps, birth=seen[0] if seen else None))
        return found

    found = said(BirthInRun(51, birth, False))
    assert (found.where, found.remedy) == ("model.py:7", birth.remedy)
    assert found.evidence.endswith("by a root of 0 or less")
    assert "schedule" in said(BirthInRun(51, birth, True)).evidence
    assert said().where == "gradient"


def test_the_end_of_a_schedule_is_told_before_a_larger_rate():
    made = decide(case(steps=ENDS, rate_x10=0.9), [])
    assert "after step 150 of 400 the updates are 0" in made[0].evidence
    assert made[0].remedy.startswith("a schedule as long as the run")


@pytest.mark.parametrize(
    ("outputs", "targets", "found"),
    [
        ([1.0, 0.0], [1.0, 1.0], ["relu_output"]),
        ([1.0, 0.0], [1.0, 0.0], []),  # there is nothing to follow
        ([1.0, 1e-3], [1.0, 1.0], []),  # small for some rows, and not silent
    ],
)
def test_an_output_that_a_relu_has_silenced(outputs, targets, found):
    def columns(factors):
        return np.random.default_rng(0).uniform(0, 1, (50, 2)) * factors

    made = case(y=columns(targets))
    made.exchanges.at_start.range = SimpleNamespace(floor=True, low=0.0)
    made.measurements.skill.outputs_at = lambda params, state: (columns(outputs), columns(targets))
    assert [f.cause for f in silent_outputs(made)] == found
    made.exchanges.at_start.range.floor = False  # without a ReLU
    assert list(silent_outputs(made)) == []


def test_a_softmax_that_weighs_other_data_is_attention():
    made = case(activation=("exp", "div"), wider=0.9)
    made.measurements.layers = [each._replace(weighs=True) for each in made.measurements.layers]
    causes = [f.cause for f in decide(made, []) if f.severity == "fault"]
    assert causes == ["insufficient_capacity"]


def test_whether_the_statistics_have_moved_is_looked_at():
    for end, words in ((0.0, "is that of the start"), (1.0, "moves, and not to what")):
        states = ({"mean": 0.0}, {"mean": end})
        (found,) = statistics(case(reached=0.1, mode=0.9, states=states))
        assert f"its state {words}" in found.evidence
