"""What trials show: measurements that name each cause, and the nearest that do not."""

from dataclasses import replace

import numpy as np
import pytest
from invented_runs import (
    FROM_ZERO,
    HUGE,
    JUMPS,
    LEVEL,
    RESTS,
    STEPS,
    TINY,
    case,
    faults,
    history,
    look,
    summed_loss,
)

from nnref.diagnosis.judge.judge import decide

# What speaks for a cause, and the nearest measurement that does not: a network that learns all the
# same, or the same symptom with another history.
TABLE = {
    "learning_rate_too_high, by a jump": (
        "learning_rate_too_high",
        {"steps": history(JUMPS), "rate_x0.1": 0.9},
        {"steps": history(np.linspace(1, 0.9, STEPS)), "rate_x0.1": 0.9},
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
    "excessive_dropout": (
        "excessive_dropout",
        {"quiet": 0.9},
        {"quiet": 0.2},
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
}


@pytest.mark.parametrize("name", TABLE)
def test_what_speaks_for_a_cause_names_it(name):
    cause, trigger, _ = TABLE[name]
    assert faults(trigger) == [cause]


@pytest.mark.parametrize("name", TABLE)
def test_a_near_miss_does_not(name):
    cause, _, near = TABLE[name]
    assert cause not in faults(near)


def test_what_is_learned_by_heart_is_told_beside_too_small_a_network():
    (found,) = decide(case(reached=0.1), [])
    assert found.evidence.endswith("on one batch alone it learns 1.00 of 2 rows, 0.90 of 16 rows")
