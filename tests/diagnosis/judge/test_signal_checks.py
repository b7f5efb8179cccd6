"""Signal and gradient before a step: measurements that name each cause, and near misses."""

from dataclasses import replace

import pytest
from invented_runs import FADING, LEVEL, STILL, TANH, WEAK, case, faults, layer, look

from nnref.diagnosis.judge.judge import decide

# What speaks for a cause, and the nearest measurement that does not: a network that learns all the
# same, or the same symptom with another history.
TABLE = {
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
    "inputs_ignored, in time": (
        "inputs_ignored",
        {"start": replace(look(), times=(0.0, 0.0, 0.3, 1.0))},
        {"start": replace(look(), times=(0.0, 1e-30, 1e-3, 1.0))},
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
}


@pytest.mark.parametrize("name", TABLE)
def test_what_speaks_for_a_cause_names_it(name):
    cause, trigger, _ = TABLE[name]
    assert faults(trigger) == [cause]


@pytest.mark.parametrize("name", TABLE)
def test_a_near_miss_does_not(name):
    cause, _, near = TABLE[name]
    assert cause not in faults(near)


@pytest.mark.parametrize(("deviation", "found"), [(5.0, ["initialization_too_large"]), (1.0, [])])
def test_one_hidden_layer_may_start_too_large(deviation, found):
    made = case(initialization=0.9, start=look((LEVEL,) * 2, (1.0,) * 2, (deviation,) * 2))
    made.measurements.layers = [layer("a", ("max",)), layer("b", ())]
    made.measurements.end = look((LEVEL,) * 2)
    causes = [f.cause for f in decide(made, []) if f.severity == "fault"]
    assert [cause for cause in causes if cause == "initialization_too_large"] == found
