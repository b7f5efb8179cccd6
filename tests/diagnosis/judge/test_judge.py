"""What is concluded from measurements: for each cause what speaks for it, and a near miss."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnosis.data.references import Reference
from nnref.diagnosis.data.targets import Target
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.judge.interventions import Trial
from nnref.diagnosis.judge.judge import decide, impossible
from nnref.diagnosis.judge.run_checks import nonfinite
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.judge.skill import Outcome
from nnref.diagnosis.program.layers import Layer
from nnref.diagnosis.run.snapshot import Level, Snapshot
from nnref.diagnosis.run.trials import Change, Run, Step

STEPS = 400
ROWS = 200
LEVEL = Level(8, 1.0, 0.7, 0.0, 0.0, 0.0, 3.0, 0.0)


def layer(name, activation):
    return Layer(
        (f"{name}.kernel",), "dot_general", "net.py:7", activation, (2, 8), 8, False, False, 0, 1, 2
    )


def kernel(seed, deviation=0.5):
    return np.random.default_rng(seed).normal(0, deviation, (8, 8))


def params(scale=0.5, constant=False):
    kernels = [np.full((8, 8), 0.1) if constant else kernel(i, scale) for i in range(3)]
    return {name: {"kernel": k} for name, k in zip("abc", kernels, strict=True)}


def history(loss, *, update=1e-3, along=-0.9, largest=1.0, finite=None, gradient=1.0, penalty=0.0):
    loss = np.asarray(loss, float)
    n = len(loss)
    return Step(
        loss=loss,
        penalty=np.full(n, penalty),
        largest_output=np.broadcast_to(largest, n).astype(float),
        gradient=np.full((n, 3), gradient),
        update=np.full((n, 3), update),
        weight=np.ones((n, 3)),
        along=np.full(n, along),
        finite=np.ones((n, 4), bool) if finite is None else finite,
    )


def look(levels=(LEVEL,) * 3, gradients=(1.0, 1.0, 1.0), kernels=(0.5, 0.5, 0.5)):
    return Snapshot(levels, gradients, kernels, 1.0, np.ones((8, 1)))


def trials(**skills):
    return {
        name: Trial(name, Change(rate=factor(name)), skill, skill)
        for name, skill in ((word.replace("_", " ", 1), s) for word, s in skills.items())
    }


def factor(name):
    return float(name.partition(" x")[2] or 1)


def mean_loss(outputs, y):
    return jnp.mean((outputs - y) ** 2)


def summed_loss(outputs, y):
    return jnp.sum((outputs - y) ** 2)


def case(
    *,
    reached=0.0,
    mode=None,
    valid=None,
    reference=0.9,
    steps=None,
    start=None,
    end=None,
    x=None,
    y=None,
    loss=mean_loss,
    batch=32,
    first=None,
    last=None,
    activation=("max",),
    quiet=None,
    kept=1.0,
    costs=False,
    fits=True,
    clipped=None,
    misjudged=None,
    constant_loss=1.0,
    **tried,
):
    """A run that reached so much, of a network of three layers, and what was tried beside it."""
    random = np.random.default_rng(0)
    y = random.normal(size=(ROWS, 1)) if y is None else y
    first = params() if first is None else first
    last = jax.tree.map(lambda leaf: 1.01 * leaf, first) if last is None else last
    measurements = SimpleNamespace(
        subject=SimpleNamespace(
            train=(
                random.normal(size=(ROWS, 4)) if x is None else x,
                y,
            ),
            loss=loss,
            valid=None,
            test=None,
            restart=None,
            shuffle=True,
            batch_size=batch,
        ),
        skill=SimpleNamespace(
            kind="regression",
            costs=costs,
            fits=fits,
            outputs=np.ones((8, 1)),
            wanted=y,
            target=Target("regression", np.zeros((ROWS, 1)), 0),
            constant_loss=constant_loss,
            metric_refused="",
        ),
        noise=0.9,
        clipped=clipped,
        recomputed=misjudged,
        shuffled=0.02,
        decay=(0.1, 0.1, 0.1),
        look=lambda params, state: look() if params is first else end or look(),
        layers=[layer("a", activation), layer("b", activation), layer("c", ())],
        initial=(first, {}),
        start=start or look(),
        end=end or look(),
        run=Run(
            history(np.linspace(1, 0.9, STEPS)) if steps is None else steps,
            [(0, first, {}), (STEPS, last, {})],
            None,
            STEPS if steps is None else len(steps.loss),
            1.0,
        ),
        trainer=SimpleNamespace(batch=batch),
        reference=Reference({"linear": reference}, {}, ROWS),
        trained=Outcome(1.0, reached),
        trained_in_mode=Outcome(1.0, reached if mode is None else mode),
        validated=None if valid is None else Outcome(1.0, valid),
    )
    interventions = SimpleNamespace(
        trials=trials(**({"rate_x0.1": 0.0} | dict(tried))),
        quiet=None if quiet is None else Trial("quiet", Change(), quiet, None),
        held_out=lambda trial: kept,
        overfit_one_batch={2: 1.0, 16: 0.9},
    )
    return Signals(measurements, interventions)


def blown(at, born, loss):
    finite = np.ones((len(loss), 4), bool)
    finite[at:, ("outputs", "loss", "gradient", "update").index(born) :] = False
    return finite


CLIMBS = np.concatenate([np.geomspace(1, 1e6, 50), np.full(350, np.nan)])
FALLS = np.concatenate([np.linspace(1, 0.2, 50), np.full(350, np.nan)])
RESTS = np.concatenate([np.linspace(1, 0.5, 100), np.full(300, 0.5)])
JUMPS = np.concatenate([[1.0, 40.0], np.full(398, 2.0)])
WEAK = (replace(LEVEL, size=1e-2), replace(LEVEL, size=1e-4), replace(LEVEL, size=1e-6))
GROWN = (LEVEL, replace(LEVEL, size=1e9), replace(LEVEL, size=np.inf))
BORN = (replace(LEVEL, size=np.nan),) * 3
STILL = replace(LEVEL, saturated=0.9)
FADING = (1e-4, 1e-2, 1.0)
TANH = {"activation": ("tanh",)}
DEAD = (LEVEL, replace(LEVEL, dead=1.0), LEVEL)
HUGE = np.random.default_rng(1).normal(500, 300, (ROWS, 4))
TINY = np.random.default_rng(1).normal(0, 0.001, (ROWS, 4))

FROM_ZERO = history(np.linspace(1, 0.99, 200), update=1e-3)
FROM_ZERO = FROM_ZERO._replace(weight=np.linspace(0, 0.2, 200)[:, None] * np.ones(3))

SPIKE = history(np.linspace(1, 0.9, STEPS))
SPIKE = SPIKE._replace(update=np.where(np.arange(STEPS)[:, None] == 200, 0.5, SPIKE.update))

ENDS = history(np.linspace(1, 0.9, STEPS))
ENDS = ENDS._replace(update=np.where(np.arange(STEPS)[:, None] < 150, ENDS.update, 0.0))

# What speaks for a cause, and the nearest measurement that does not: a network that learns all the
# same, or the same symptom with another history.
TABLE = {
    "learning_rate_too_high, by divergence": (
        "learning_rate_too_high",
        {"steps": history(CLIMBS, finite=blown(50, "loss", CLIMBS))},
        {"steps": history(FALLS, finite=blown(50, "loss", FALLS))},
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
    "learning_rate_too_high, by a jump": (
        "learning_rate_too_high",
        {"steps": history(JUMPS), "rate_x0.1": 0.9},
        {"steps": history(np.linspace(1, 0.9, STEPS)), "rate_x0.1": 0.9},
    ),
    "gradient_ascent": (
        "gradient_ascent",
        {"steps": history(np.linspace(1, 2, STEPS), along=0.9)},
        {"steps": history(np.linspace(1, 2, STEPS), along=-0.1)},
    ),
    "parameters_not_updated": (
        "parameters_not_updated",
        {"steps": history(np.ones(STEPS), update=0.0)},
        {"steps": history(np.ones(STEPS), update=0.0, gradient=0.0)},
    ),
    "batch_statistics_not_updated": (
        "batch_statistics_not_updated",
        {"reached": 0.1, "mode": 0.9},
        {"reached": 0.1, "mode": 0.2},
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
    "inputs_not_normalized": (
        "inputs_not_normalized",
        {"x": HUGE, "inputs": 0.9},
        {"x": HUGE, "inputs": 0.2},
    ),
    "inputs_not_normalized, of a network that learns": (
        "inputs_not_normalized",
        {"x": HUGE, "inputs": 0.9},
        {"x": HUGE, "inputs": 0.95, "reached": 0.88},
    ),
    "inputs_not_normalized, with a faster rate": (
        "inputs_not_normalized",
        {"x": HUGE, "inputs, rate_x10": 0.9},
        {"inputs, rate_x10": 0.9},
    ),
    "inputs_not_normalized, saturated": (
        "inputs_not_normalized",
        {"x": HUGE, "start": look((replace(LEVEL, saturated=0.9), LEVEL, LEVEL))},
        {"x": HUGE},
    ),
    "inputs_scaled_twice": (
        "inputs_scaled_twice",
        {"x": TINY, "inputs": 0.9},
        {"x": TINY, "inputs": 0.9, "reached": 0.88},
    ),
    "targets_not_scaled": (
        "targets_not_scaled",
        {"y": HUGE[:, :1] * 100, "targets": 0.9},
        {"y": HUGE[:, :1] * 100, "targets": 0.9, "reached": 0.88},
    ),
    "excessive_regularization": (
        "excessive_regularization",
        {"penalty": 0.9},
        {"penalty": 0.2},
    ),
    "excessive_regularization, of the wrong sign": (
        "excessive_regularization",
        {"penalty": 0.9, "steps": history(np.linspace(1, 0.9, STEPS), penalty=-5.0)},
        {"penalty": 0.2, "steps": history(np.linspace(1, 0.9, STEPS), penalty=-5.0)},
    ),
    "excessive_regularization, by the optimizer": (
        "excessive_regularization",
        {"decay": 0.9},
        {"decay": 0.2},
    ),
    "loss_summed_over_batch": (
        "loss_summed_over_batch",
        {"loss": summed_loss, "steps": history(JUMPS), "rate_x0.1": 0.9},
        {"loss": summed_loss, "steps": history(JUMPS), "rate_x0.1": 0.9, "batch": 4},
    ),
    "learning_rate_too_low, of a run cut short": (
        "learning_rate_too_low",
        {"steps": history(np.linspace(1, 0.99, 200), update=1e-5)},
        {"steps": history(np.linspace(1, 0.5, 200), update=1e-3)},
    ),
    "learning_rate_too_low, not of kernels that start at 0 and move": (
        "learning_rate_too_low",
        {"steps": FROM_ZERO._replace(update=np.full((200, 3), 1e-5))},
        {"steps": FROM_ZERO},
    ),
    "learning_rate_too_low": (
        "learning_rate_too_low",
        {"rate_x10": 0.9},
        {"rate_x10": 0.9, "reached": 0.7},
    ),
    "undertrained": (
        "undertrained",
        {"longer": 0.9},
        {"longer": 0.05},
    ),
    "undertrained, of a few steps that a faster rate helps as well": (
        "undertrained",
        {"longer": 0.7, "rate_x10": 0.9, "steps": history(np.linspace(1, 0.9, 15))},
        {"longer": 0.7, "rate_x10": 0.9},
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
    "exploding_gradients, of the signal": (
        "exploding_gradients",
        {"start": look(levels=(LEVEL, replace(LEVEL, size=1e3), LEVEL))},
        {"start": look(levels=(LEVEL, replace(LEVEL, size=50.0), LEVEL))},
    ),
    "vanishing_gradients": (
        "vanishing_gradients",
        {"start": look(gradients=(1e-4, 1e-2, 1.0)), "activation": ("logistic",)},
        {"start": look(gradients=(1e-4, 1e-2, 1.0)), "activation": ("max",)},
    ),
    "exploding_gradients, in depth": (
        "exploding_gradients",
        {"start": look(gradients=(1e3, 1.0, 1.0))},
        {"start": look(gradients=(50.0, 1.0, 1.0))},
    ),
    "exploding_gradients, in time": (
        "exploding_gradients",
        {"start": replace(look(), times=(1e5, 1e4, 1e2, 1.0)), "constant_loss": 0.01},
        {"start": replace(look(), times=(1e5, 1e4, 1e2, 1.0))},
    ),
    "vanishing_gradients, in time": (
        "vanishing_gradients",
        {"start": replace(look(), times=(1e-6, 1e-5, 1e-3, 1.0))},
        {"start": replace(look(), times=(1e-6, 1e-5, 1e-3, 1.0)), "rate_x0.1": 0.9},
    ),
    "initialization_too_small": (
        "initialization_too_small",
        {"start": look(levels=WEAK, kernels=(0.01, 0.01, 0.01)), "initialization": 0.9},
        {"start": look(kernels=(0.35, 0.35, 0.35)), "initialization": 0.9},
    ),
    "initialization_too_large": (
        "initialization_too_large",
        {"start": look(kernels=(5.0, 5.0, 5.0)), "initialization": 0.9},
        {"start": look(kernels=(0.5, 0.5, 0.5)), "initialization": 0.9},
    ),
    "initialization_too_large, of units that start without a slope": (
        "initialization_too_large",
        {"start": look((STILL, STILL, LEVEL), FADING), "initialization": 0.9, **TANH},
        {"start": look((LEVEL, LEVEL, LEVEL), FADING), "initialization": 0.9, **TANH},
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
    "excessive_dropout": (
        "excessive_dropout",
        {"quiet": 0.9},
        {"quiet": 0.2},
    ),
    "hidden_activation_mismatch": (
        "hidden_activation_mismatch",
        {"activation": ("exp", "div")},
        {"activation": ("exp", "div"), "reached": 0.9},
    ),
    "insufficient_capacity": (
        "insufficient_capacity",
        {"reached": 0.3},
        {"reached": 0.3, "longer": 0.9},
    ),
    "insufficient_capacity, not of a run hardly begun": (
        "insufficient_capacity",
        {"reached": 0.1},
        {"reached": 0.1, "steps": history(np.ones(10))},
    ),
    "numerical_instability, in evaluation": (
        "numerical_instability",
        {"end": replace(look(), outputs=np.array([[1.0], [np.nan]]))},
        {"end": look()},
    ),
    "insufficient_capacity, not of memory": (
        "insufficient_capacity",
        {"reached": 0.3, "valid": 0.0},
        {"reached": 0.9, "valid": 0.0},
    ),
    "undertrained, by a little": (
        "undertrained",
        {"reached": 0.1, "longer": 0.3},
        {"reached": 0.1, "longer": 0.15},
    ),
    "undertrained, by a little, while the loss still falls": (
        "undertrained",
        {"reached": 0.1, "longer": 0.3},
        {"reached": 0.1, "longer": 0.3, "steps": history(RESTS)},
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
}


def faults(measured):
    # Three hidden saturating layers are what "in depth" starts with.
    measured = dict(measured)
    made = case(**measured)
    if measured.get("activation") or "start" in measured:
        made.measurements.layers.insert(0, made.measurements.layers[0])
        made.measurements.start = replace(
            made.measurements.start,
            levels=(made.measurements.start.levels[0], *made.measurements.start.levels),
            gradients=(made.measurements.start.gradients[0], *made.measurements.start.gradients),
            kernels=(made.measurements.start.kernels[0], *made.measurements.start.kernels),
        )
        made.measurements.end = replace(
            made.measurements.end,
            levels=(made.measurements.end.levels[0], *made.measurements.end.levels),
        )
    found = decide(made, [])
    return [f.cause for f in found if f.severity == "fault"]


@pytest.mark.parametrize("name", TABLE)
def test_what_speaks_for_a_cause_names_it(name):
    cause, trigger, _ = TABLE[name]
    assert faults(trigger) == [cause]


@pytest.mark.parametrize("name", TABLE)
def test_a_near_miss_does_not(name):
    cause, _, near = TABLE[name]
    assert cause not in faults(near)


@pytest.mark.parametrize(
    ("tried", "cause"), [({}, "loss_axis_error"), ({"rate_x10": 0.9}, "learning_rate_too_low")]
)
def test_rows_that_look_at_each_other_are_a_fault_where_nothing_else_is(tried, cause):
    note = Finding("loss_axis_error", "note", "net.py:3", "rows of a batch mix")
    found = decide(case(reached=0.1, **tried), [note])
    assert [f.cause for f in found if f.severity == "fault"] == [cause]


def test_a_layer_that_dies_tells_between_which_steps():
    """Of the looks at steps 0, 100, 300 and 400, the first two see it alive."""
    made = case(end=look(levels=DEAD))
    alive, dead = look(), look(levels=DEAD)
    made.measurements.run.snapshots = [
        (0, "alive", {}),
        (100, "alive", {}),
        (300, "dead", {}),
        (400, "dead", {}),
    ]
    made.measurements.run.snapshots = [
        (s, {"state": p}, {}) for s, p, _ in made.measurements.run.snapshots
    ]
    made.measurements.look = lambda params, state: alive if params["state"] == "alive" else dead
    assert made.death_of(1) == (100, 300)


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


@pytest.mark.parametrize(("reached", "severities"), [(0.5, ["fault"]), (0.7, ["note"]), (0.86, [])])
def test_what_helps_a_network_that_learns_half_well_is_a_note(reached, severities):
    found = decide(case(reached=reached, x=HUGE, inputs=0.95), [])
    assert [f.severity for f in found if f.cause == "inputs_not_normalized"] == severities


@pytest.mark.parametrize(("deviation", "found"), [(5.0, ["initialization_too_large"]), (1.0, [])])
def test_one_hidden_layer_may_start_too_large(deviation, found):
    made = case(initialization=0.9, start=look((LEVEL,) * 2, (1.0,) * 2, (deviation,) * 2))
    made.measurements.layers = [layer("a", ("max",)), layer("b", ())]
    made.measurements.end = look((LEVEL,) * 2)
    causes = [f.cause for f in decide(made, []) if f.severity == "fault"]
    assert [cause for cause in causes if cause == "initialization_too_large"] == found


@pytest.mark.parametrize(("at", "severity"), [(50, "fault"), (400, "note")])
def test_outputs_that_may_be_negative_are_a_fault_where_the_loss_was_not_finite(at, severity):
    note = Finding("output_activation_missing", "note", "net.py:3", "may be negative")
    steps = history(FALLS, finite=blown(at, "loss", FALLS))
    first = decide(case(steps=steps), [note])[0 if severity == "fault" else -1]
    assert (first.cause, first.severity) == ("output_activation_missing", severity)


@pytest.mark.parametrize(
    ("tried", "cause"),
    [({}, "exploding_gradients"), ({"rate_x0.1": 0.9}, "learning_rate_too_high")],
)
def test_what_blows_up_from_a_huge_signal_is_the_rates_where_a_smaller_one_helps(tried, cause):
    steps = history(CLIMBS, finite=blown(50, "loss", CLIMBS))
    (found,) = nonfinite(case(steps=steps, start=look(GROWN), **tried))
    assert found.cause == cause


@pytest.mark.parametrize(
    ("clipped", "causes"), [(None, []), (0.5, []), (0.95, ["learning_rate_too_low"])]
)
def test_what_had_no_time_to_be_tried_is_not_said_not_to_help(clipped, causes):
    made = case(reached=0.1, clipped=clipped)
    made.interventions.trials = {}
    found = decide(made, [])
    assert [f.cause for f in found if f.severity == "fault"] == causes
    assert len([f for f in found if f.where == "clipping"]) == len(causes)
    assert any("no time was left" in line for line in impossible(made))


def test_a_cause_is_no_symptom_of_itself():
    climbs = history(CLIMBS, finite=blown(50, "loss", CLIMBS), along=0.9)
    told = [Finding("gradient_ascent", "fault", "net.py:3", "the first update", confidence=0.95)]
    (found,) = decide(case(steps=climbs), told)
    assert found.cause == "gradient_ascent"
    assert [symptom.cause for symptom in found.symptoms] == ["learning_rate_too_high"]


def test_a_softmax_that_weighs_other_data_is_attention():
    made = case(activation=("exp", "div"))
    made.measurements.layers = [each._replace(weighs=True) for each in made.measurements.layers]
    causes = [f.cause for f in decide(made, []) if f.severity == "fault"]
    assert causes == ["insufficient_capacity"]


def test_what_is_learned_by_heart_is_told_beside_too_small_a_network():
    (found,) = decide(case(reached=0.1), [])
    assert found.evidence.endswith("on one batch alone it learns 1.00 of 2 rows, 0.90 of 16 rows")


def test_a_leak_is_a_fault_of_a_network_that_learns():
    leak = Finding("leaked_targets", "fault", "net.py:3", "it reads ahead", confidence=0.95)
    column = replace(leak, severity="note")
    told = decide(case(reached=0.9), [leak])
    assert [(f.cause, f.severity) for f in told] == [("leaked_targets", "fault")]
    told = decide(case(reached=0.9), [column])
    assert [f.severity for f in told] == ["note"]


def test_a_loss_that_does_not_read_its_targets_is_a_fault_where_nothing_else_is():
    distance = Finding("loss_mismatch", "note", "net.py:3", "a distance", confidence=0.3)
    found = decide(case(reached=0.1), [distance])
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
