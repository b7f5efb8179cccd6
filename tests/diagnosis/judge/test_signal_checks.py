"""Signal and gradient before a step: measurements that name each cause, and near misses."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from invented_runs import FADING, LEVEL, STILL, TANH, WEAK, case, faults, layer, look
from networks import binary_cross_entropy, ends, identity, mean_squared_error

import nnref
from nnref.diagnosis.api import recipe_from
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.judge import decide
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.signal_checks import in_time, perfect_answer, place_by_place
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.recipe import Recipe

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
    "initialization_too_small, of a signal that dies": (
        "initialization_too_small",
        {"start": look(levels=WEAK, kernels=(0.01, 0.01, 0.01))},
        {"start": look(kernels=(0.01, 0.01, 0.01))},  # it does not die, nor does another start help
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


RANDOM = np.random.default_rng(0)
LOW = RANDOM.uniform(0, 0.5, (64, 2))
BOXES = np.concatenate([LOW, RANDOM.uniform(0.1, 0.4, (64, 2))], 1).astype(np.float32)
MASKS = (RANDOM.uniform(size=(64, 6)) < 0.2).astype(np.float32)
SHARES = RANDOM.uniform(0.05, 0.95, (64, 1)).astype(np.float32)


def overlap(one, other):
    """1 less the generalized IoU of boxes that are given by two corners, by Rezatofighi (2019)."""

    def area(low, high):
        return jnp.prod(jnp.maximum(high - low, 0), -1)

    (a, b), (c, d) = (jnp.split(box, 2, -1) for box in (one, other))
    both = area(jnp.maximum(a, c), jnp.minimum(b, d))
    either = area(a, b) + area(c, d) - both
    hull = area(jnp.minimum(a, c), jnp.maximum(b, d))
    return jnp.mean(1 - both / (either + 1e-6) + (hull - either) / (hull + 1e-6))


def corners(boxes):
    middle, size = jnp.split(boxes, 2, -1)
    return jnp.concatenate([middle - size / 2, middle + size / 2], -1)


def dice(outputs, y):
    return jnp.mean(1 - (2 * (outputs * y).sum(1) + 1) / ((outputs + y).sum(1) + 1))


def of_logits(outputs, y):
    return optax.sigmoid_binary_cross_entropy(outputs, y).mean()


def right_answers(loss, y, activation=identity):
    """What is said of the right answers to the loss of a network that was never trained."""
    x = np.random.default_rng(1).normal(size=(len(y), 3)).astype(np.float32)
    made = replace(ends(activation, y, loss), train=(x, y))
    skill = Measurements(made).skill
    start = SimpleNamespace(loss_line="net.py:9")
    return perfect_answer(
        SimpleNamespace(
            measurements=SimpleNamespace(skill=skill, recipe=made),
            exchanges=SimpleNamespace(at_start=start),
        )
    )


@pytest.mark.parametrize(
    ("loss", "y", "cause"),
    [(overlap, BOXES, "loss_mismatch"), (dice, MASKS, "output_activation_missing")],
    ids=["corners of centers and sizes", "Dice of logits"],
)
def test_a_loss_that_the_right_answers_do_not_lower(loss, y, cause):
    (found,) = right_answers(loss, y)
    assert (found.cause, found.severity, found.where) == (cause, "fault", "net.py:9")


@pytest.mark.parametrize(
    ("loss", "y", "activation"),
    [
        (lambda o, y: overlap(corners(o), corners(y)), BOXES, identity),
        (mean_squared_error, BOXES, identity),
        (lambda o, y: dice(jax.nn.sigmoid(o), y), MASKS, identity),
        (dice, MASKS, jax.nn.sigmoid),
        (binary_cross_entropy, MASKS, jax.nn.sigmoid),
        (binary_cross_entropy, SHARES, jax.nn.sigmoid),
        # A distance, 0 for pairs that are alike, whose targets are 1.
        (lambda o, y: (y * o**2 + (1 - y) * jax.nn.relu(1 - o) ** 2).mean(), MASKS, jnp.exp),
        (lambda o, y: optax.sigmoid_binary_cross_entropy(o, y).mean(), MASKS, identity),
        (
            lambda o, y: optax.sigmoid_binary_cross_entropy(o, 0.9 * y + 0.05).mean(),
            MASKS,
            identity,
        ),
        (lambda o, y: optax.sigmoid_binary_cross_entropy(o, y).mean(), SHARES, identity),
    ],
)
def test_losses_that_are_least_for_the_right_answers_or_for_sure_ones(loss, y, activation):
    assert [*right_answers(loss, y, activation)] == []


def reader(x, y):
    """Reads words one after the other; of what it has read, three tenths are left after each."""

    def init(key):
        words, out = jax.random.split(key)
        normal = jax.random.normal
        return {
            "words": normal(words, (9, 8)),
            "out": normal(out, (8, 2)) / 3,
            "still": jnp.ones(8),
        }

    def apply(params, x):
        def turn(state, now):
            return 0.3 * params["still"] * state + now, None

        words = params["words"][x].swapaxes(0, 1)
        return jax.lax.scan(turn, jnp.zeros((len(x), 8)), words)[0] @ params["out"]

    loss = optax.softmax_cross_entropy_with_integer_labels
    task = nnref.Task(init=init, apply=apply, loss=loss, train=(x, y), valid=(x[:40], y[:40]))
    return recipe_from(task, {"optimizer": optax.adam(0.02), "batch_size": 20, "epochs": 10})


SAID = np.random.default_rng(3).integers(1, 9, (200, 3)).astype(np.int32)
MORE = np.random.default_rng(4).integers(1, 9, (200, 21)).astype(np.int32)


@pytest.mark.parametrize(
    ("behind", "causes"),
    [(0 * MORE, ["inputs_ignored"]), (MORE, ["vanishing_gradients"]), (MORE[:, :0], [])],
    ids=["padding", "words", "nothing"],
)
def test_what_is_forgotten_behind_padding_is_no_matter_of_the_gradient(behind, causes):
    made = reader(np.concatenate([SAID, behind], 1), (SAID[:, 2] > 4).astype(np.int32))
    measured = Measurements(made)
    told = list(in_time(Signals(measured, Interventions(measured))))
    assert [finding.cause for finding in told] == causes
    assert all(finding.proof.after[0] > 0.9 for finding in told if finding.proof)


def of_places(axis, away):
    """Twelve places of three numbers; a target is what stands three places before, or its own."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 12, 3)).astype(np.float32)
    y = np.roll(x[..., :1], away, axis=1)
    w = (random.normal(size=(3, 1)) / 2).astype(np.float32)

    def apply(params, state, x, key, train):
        mixed = jnp.fft.ifft(jnp.fft.fft(x, axis=axis) * params["modes"], axis=axis).real
        return mixed @ params["w"], state

    modes = jnp.ones((12, 1) if axis == 1 else (3,))
    return Recipe(
        lambda key: ({"modes": modes, "w": jnp.asarray(w)}, {}),
        apply,
        mean_squared_error,
        train=(x, y),
        optimizer=optax.adam(1e-2),
    )


@pytest.mark.parametrize(
    ("axis", "away", "causes"), [(2, 3, ["inputs_ignored"]), (1, 3, []), (2, 0, [])]
)
def test_places_that_look_at_themselves_alone(axis, away, causes):
    """A transform along the features mixes no places; a near miss needs none but its own."""
    measured = Measurements(of_places(axis, away))
    found = list(place_by_place(Signals(measured, Interventions(measured))))
    assert [(each.severity, each.cause) for each in found] == [("fault", each) for each in causes]
    for finding in found:
        assert "test_signal_checks.py" in finding.where
