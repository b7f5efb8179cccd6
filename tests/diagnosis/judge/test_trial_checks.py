"""What trials show: measurements that name each cause, and the nearest that do not."""

from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from invented_runs import (
    FROM_ZERO,
    FROZEN,
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
    params,
    summed_loss,
)

from nnref.diagnosis.data.splits import Numbers
from nnref.diagnosis.judge.judge import decide
from nnref.diagnosis.judge.trial_checks import beyond_reach, generalization

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
    "learning_rate_too_low, not of a loss that has fallen to nothing": (
        "learning_rate_too_low",
        {"steps": history(np.linspace(1, 0.99, 200), update=1e-5)},
        {"steps": history(np.linspace(1, 1e-7, 200), update=1e-5)},
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
        {"reached": 0.3, "wider": 0.9},
        {"reached": 0.3, "longer": 0.9, "wider": 0.9},
    ),
    "insufficient_capacity, not where a wider network is no better": (
        "insufficient_capacity",
        {"reached": 0.3, "wider": 0.9},
        {"reached": 0.3, "wider": 0.35},
    ),
    "learning_rate_too_low, by another optimizer": (
        "learning_rate_too_low",
        {"reached": 0.1, "optimizer": 0.9},
        {"reached": 0.1, "optimizer": 0.15},
    ),
    "learning_rate_too_high, by another optimizer": (
        "learning_rate_too_high",
        {"reached": 0.1, "optimizer": 0.9, "steps": history(JUMPS)},
        {"reached": 0.1, "optimizer": 0.9},
    ),
    "parameters_not_updated, most of them": (
        "parameters_not_updated",
        {"reached": 0.1, "steps": FROZEN, "optimizer": 0.9, "rate_x10": 0.7},
        {"reached": 0.1, "steps": FROZEN, "optimizer": 0.6, "rate_x10": 0.7},
    ),
    "parameters_not_updated, a few": (
        "parameters_not_updated",
        {"reached": 0.1, "steps": FROZEN, "optimizer": 0.9},
        {
            "reached": 0.1,
            "steps": FROZEN._replace(update=FROZEN.update[:, ::-1] + [0, 1e-3, 0]),
            "optimizer": 0.9,
        },
    ),
    "loss_mismatch, of the wrong sign": (
        "loss_mismatch",
        {"reached": -0.1, "turned": 0.9},
        {"reached": -0.1, "turned": 0.0},
    ),
    "loss_mismatch, by its exchange": (
        "loss_mismatch",
        {"reached": 0.1, "exchanged": {"loss": 0.9}},
        {"reached": 0.1, "exchanged": {"loss": 0.15}},
    ),
    "output_activation_mismatch, by its exchange": (
        "output_activation_mismatch",
        {"reached": 0.1, "outputs": 0.9},
        {"reached": 0.1, "outputs": 0.15},
    ),
    "output_activation_mismatch, with another loss": (
        "output_activation_mismatch",
        {"reached": 0.1, "outputs": 0.1, "outputs_and loss": 0.9},
        {"reached": 0.1, "exchanged": {"loss": 0.9}},
    ),
    "hidden_activation_mismatch, by its exchange": (
        "hidden_activation_mismatch",
        {"reached": 0.1, "activation": ("sign",), "exchanged": {"activation": 0.9}},
        {"reached": 0.1, "activation": ("sign",), "exchanged": {"activation": 0.15}},
    ),
    "undertrained, by huge batches": (
        "undertrained",
        {"reached": 0.1, "exchanged": {"batch": 0.9}},
        {"reached": 0.1, "exchanged": {"batch": 0.15}},
    ),
    "initialization_too_small, of any kernel": (
        "initialization_too_small",
        {"reached": 0.1, "initialization": 0.9, "first": params(scale=0.2)},
        {"reached": 0.1, "initialization": 0.9, "first": params(scale=0.3)},
    ),
    "insufficient_capacity, not of a run hardly begun": (
        "insufficient_capacity",
        {"reached": 0.1, "wider": 0.9},
        {"reached": 0.1, "wider": 0.9, "steps": history(np.ones(10))},
    ),
    "insufficient_capacity, not of memory": (
        "insufficient_capacity",
        {"reached": 0.3, "valid": 0.0, "wider": 0.9},
        {"reached": 0.9, "valid": 0.0, "wider": 0.95},
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


@pytest.mark.parametrize(("goal", "found"), [(5.0, ["output_range_excludes_targets"]), (0.5, [])])
def test_targets_beyond_all_that_the_outputs_can_be(goal, found):
    """A network that ends in a recurrent layer gives what its last activation can be."""
    made = case(reached=0.1, y=np.random.default_rng(0).uniform(-goal, goal, (200, 1)))
    kernel = made.measurements.initial[0]["a"]["kernel"][:4, :1]
    made.measurements.recipe.apply = lambda params, state, x, key, train: (
        jnp.tanh(x @ params["a"]["kernel"][:4, :1]),
        state,
    )
    assert kernel.any()
    assert [f.cause for f in decide(made, []) if f.severity == "fault"] == found


def test_outputs_of_which_none_is_to_equal_its_target_may_stay_within_bounds():
    """Logarithms of rates, as a Poisson loss asks for them: counts of 200 lie beyond each."""
    counts = np.random.default_rng(0).poisson(200, (200, 1)).astype(float)

    def asked(loss):
        made = case(reached=0.1, y=counts, loss=loss)
        made.measurements.recipe.apply = lambda params, state, x, key, train: (
            20 * jnp.tanh(x @ params["a"]["kernel"][:4, :1]),
            state,
        )
        return [finding.cause for finding in beyond_reach(made)]

    assert asked(lambda log_rates, y: jnp.mean(jnp.exp(log_rates) - y * log_rates)) == []
    assert asked(lambda rates, y: jnp.mean((rates - y) ** 2)) == ["output_range_excludes_targets"]


def test_the_strongest_change_is_the_cause_and_what_helps_less_its_symptom():
    """Inputs of 500: a smaller rate helps a loss that jumps, and their scale helps far more."""
    (found,) = decide(
        case(reached=0.1, x=HUGE, steps=history(JUMPS), inputs=0.95, **{"rate_x0.1": 0.6}), []
    )
    assert found.cause == "inputs_not_normalized"
    assert [symptom.cause for symptom in found.symptoms] == ["learning_rate_too_high"]
    (found,) = decide(
        case(reached=0.1, x=HUGE, steps=history(JUMPS), inputs=0.95, **{"rate_x0.1": 0.94}), []
    )
    assert found.cause == "learning_rate_too_high"


def test_what_is_learned_by_heart_is_told_beside_too_small_a_network():
    (found,) = decide(case(reached=0.1, wider=0.9), [])
    assert found.evidence.endswith("on one batch alone it learns 1.00 of 2 rows, 0.90 of 16 rows")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (None, True),  # simple models learn nothing, or there are too few rows
        (Numbers(0.9, 0.9, 0.9, 0.9, 0.0, 0.0), True),
        (Numbers(0.9, 0.1, 0.9, 0.1, 9.0, 9.0), False),  # the split means something else
        (Numbers(0.9, 0.9, 0.9, 0.3, 0.0, 0.0), False),  # nearly one class: nobody does better
    ],
)
def test_overfitting_is_said_where_simple_models_carry_over_and_do_better(numbers, said):
    signals = case(reached=0.9, valid=0.3)
    signals.measurements.splits = None if numbers is None else SimpleNamespace(numbers=numbers)
    assert [finding.cause for finding in generalization(signals)] == ["overfitting"] * said


@pytest.mark.parametrize(
    ("rate", "cause"),
    [("rate_x0.01", "inputs_not_normalized"), ("rate_x0.1", "learning_rate_too_high")],
)
def test_an_ordinary_rate_is_not_blamed_for_pixels_that_were_never_divided(rate, cause):
    """With other inputs it needs no change, and without them a hundredth."""
    made = case(reached=0.0, x=HUGE, steps=history(JUMPS), inputs=0.95, **{rate: 0.95})
    assert next(f.cause for f in decide(made, []) if f.severity == "fault") == cause
