"""Classes that training and evaluation number in two ways, and evaluations that are only bad."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import drawn, faults, first

RANDOM = np.random.default_rng(0)
CLASSES = 4
CENTRES = np.array([[2, 2], [2, -2], [-2, 2], [-2, -2]])
LABELS = RANDOM.integers(0, CLASSES, 640)
ROWS = (CENTRES[LABELS] + RANDOM.normal(size=(640, 2)) / 2).astype(np.float32)
HELD, WANTED = ROWS[:128], LABELS[:128]
BATCHES = [(ROWS[i : i + 64], LABELS[i : i + 64] + 1) for i in range(128, 640, 64)]  # from 1 on
TX = optax.adam(1e-2)


def logits(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["out"]


@jax.jit
def step(params, moments, x, y):
    def loss(params):
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
        return entropy.mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, moments = TX.update(gradient, moments)
    return optax.apply_updates(params, updates), moments, value


def begun():
    params = drawn() | {"out": jnp.zeros((16, CLASSES + 1))}
    return params, TX.init(params)


def accuracy(labels):
    return lambda state: (logits(state[0], HELD).argmax(1) == labels).mean()


def error_rate(labels):
    return lambda state: (logits(state[0], HELD).argmax(1) != labels).mean()


@pytest.mark.parametrize("measure", [accuracy, error_rate])
def test_classes_that_are_numbered_otherwise(measure):
    found = first(step, begun(), BATCHES, measure(WANTED))
    assert found.cause == "splits_differ"
    assert found.where.endswith(f".py:{measure(WANTED).__code__.co_firstlineno}")
    assert "0, 1, 2, 3 are its labels, and 1, 2, 3, 4 are predicted" in found.evidence
    assert faults(step, begun(), BATCHES, measure(WANTED + 1)) == []


def loss_of(state):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits(state[0], HELD), WANTED + 1
    ).mean()


def never(state):
    """A class that is never predicted: the labels say nothing of the rows."""
    return (logits(state[0], HELD).argmax(1) == RANDOM.integers(5, 9, 128)).mean()


@pytest.mark.parametrize("evaluate", [loss_of, never])
def test_evaluations_that_no_other_names_would_mend(evaluate):
    assert "splits_differ" not in faults(step, begun(), BATCHES, evaluate)
