"""Outputs against targets and loss: a program that triggers each check, and a near miss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import (
    BITS,
    binary_cross_entropy,
    ends,
    identity,
    judged,
    mean_squared_error,
    softmax_cross_entropy,
)

from nnref.diagnosis.program.outputs import outputs


def cross_entropy(probabilities, y):
    return -jnp.mean(jnp.sum(y * jnp.log(jnp.clip(probabilities, 1e-7, 1)), -1))


def logistic_cross_entropy(logits, y):
    return jnp.mean(jax.nn.softplus(logits) - y * logits)


def cross_entropy_of_numbers(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def softmax_inside(logits, y):
    return cross_entropy_of_numbers(jax.nn.softmax(logits), y)


def contrastive(distance, same):
    """Near where two are the same, else beyond a margin (Hadsell, Chopra, LeCun 2006)."""
    apart = jnp.maximum(0, 1.5 - distance) ** 2
    return jnp.mean(same * distance**2 + (1 - same) * apart)


def survival(risk, y):
    """A partial likelihood: the columns are times and events, and rows stand against each other."""
    order = jnp.argsort(-y[:, 0])
    risk, seen = risk[order, 0], (y[order, 1] > 0.5) * 1.0
    return -jnp.sum((risk - jax.lax.cumlogsumexp(risk)) * seen) / jnp.maximum(seen.sum(), 1)


def apart(z, y):
    """Distances between rows, of one class and of others."""
    distance = jnp.sum((z[:, None] - z[None]) ** 2, -1)
    same = (y[:, None] == y[None]) * 1.0
    return jnp.mean(same * distance + (1 - same) * jnp.maximum(1 - distance, 0))


def overlap(shares, y):
    """One less the coefficient of Dice (Milletari, Navab, Ahmadi 2016)."""
    return 1 - (2 * jnp.sum(shares * y) + 1) / (jnp.sum(shares) + jnp.sum(y) + 1)


def poisson(rate, y):
    return jnp.mean(rate - y * jnp.log(rate))


def ranked(scores, y):
    """A logistic loss of all pairs of rows (RankNet, Burges et al. 2005)."""
    ahead = (y - y.T > 0) * jax.nn.softplus(scores.T - scores)
    return ahead.sum() / jnp.maximum((y - y.T > 0).sum(), 1)


def matched(outputs, y):
    """Each answer has to find its target among those of the batch (van den Oord et al. 2018)."""
    unit = [part / jnp.linalg.norm(part + 1e-6, axis=-1, keepdims=True) for part in (outputs, y)]
    return -jnp.mean(jnp.diag(jax.nn.log_softmax(10 * unit[0] @ unit[1].T)))


def unit(z):
    return z / (jnp.linalg.norm(z, axis=-1, keepdims=True) + 1e-6)


def angle(outputs, y):
    """Of two directions; a product of 1 is the right one (Huynh 2009, equation 13)."""
    product = jnp.abs(jnp.sum(outputs * y, axis=-1))
    return jnp.mean(jnp.arccos(jnp.clip(product, 0, 1 - 1e-6)))


def hinge(outputs, y):
    return jnp.mean(jnp.maximum(0, 1 - y * outputs))


RANDOM = np.random.default_rng(1)
CLASSES = np.arange(12) % 3
ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES]
FLAGS = RANDOM.integers(0, 2, (12, 3)).astype(np.float32)
VALUES = np.linspace(-2, 2, 12, dtype=np.float32).reshape(-1, 1)
TWO = np.random.default_rng(2).normal(size=(12, 2)).astype(np.float32)
COUNTS = (3 + np.arange(12) % 5).astype(np.float32).reshape(-1, 1)
PAIRS = RANDOM.normal(size=(12, 5)).astype(np.float32)
SHARES = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(-1, 1)
PARTS = RANDOM.uniform(0.2, 0.6, (12, 3)).astype(np.float32)
DIRECTIONS = np.asarray(unit(np.c_[np.linspace(0.3, 2, 12), PAIRS[:, :3]]), np.float32)
NUMBERS = CLASSES.astype(np.float32).reshape(-1, 1)


def of_labels(z, y):
    return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()


EIGHT = np.arange(8)
PROGRAMS = {
    "softmax over one unit": (
        ends(jax.nn.softmax, BITS, mean_squared_error),
        "softmax_on_single_unit",
        ends(jax.nn.sigmoid, BITS, mean_squared_error),
    ),
    "softmax over one unit in the loss": (
        ends(identity, BITS, softmax_cross_entropy),
        "softmax_on_single_unit",
        ends(identity, np.eye(2, dtype=np.float32)[CLASSES % 2], softmax_cross_entropy),
    ),
    "one unit for three classes": (
        ends(jax.nn.sigmoid, NUMBERS, binary_cross_entropy, kind="multiclass"),
        "output_width_mismatch",
        ends(jax.nn.softmax, ONE_HOT, cross_entropy, kind="multiclass"),
    ),
    "one unit for three targets": (
        ends(identity, FLAGS, mean_squared_error, width=1),
        "output_width_mismatch",
        ends(jax.nn.sigmoid, FLAGS, mean_squared_error),
    ),
    "a class beyond the last": (
        ends(
            identity,
            CLASSES + 1,
            cross_entropy_of_numbers,
            width=3,
        ),
        "output_width_mismatch",
        ends(
            identity,
            CLASSES,
            cross_entropy_of_numbers,
            width=3,
        ),
    ),
    "two softmaxes": (
        ends(jax.nn.softmax, ONE_HOT, softmax_cross_entropy),
        "double_softmax",
        ends(jax.nn.log_softmax, ONE_HOT, softmax_cross_entropy),
    ),
    "two softmaxes in the loss": (
        ends(identity, CLASSES, softmax_inside, width=3),
        "double_softmax",
        ends(identity, CLASSES, cross_entropy_of_numbers, width=3),
    ),
    "a sigmoid and a softmax in the loss": (
        ends(identity, ONE_HOT, lambda z, y: softmax_cross_entropy(jax.nn.sigmoid(z), y)),
        "output_activation_mismatch",
        ends(identity, ONE_HOT, lambda z, y: softmax_cross_entropy(z, 0.9 * y + 0.1 / 3)),
    ),
    "sigmoid on the logits": (
        ends(jax.nn.sigmoid, ONE_HOT, softmax_cross_entropy),
        "output_activation_mismatch",
        ends(lambda z: 30 * jnp.tanh(z / 30), ONE_HOT, softmax_cross_entropy),
    ),
    "no probabilities": (
        ends(identity, ONE_HOT, cross_entropy),
        "output_activation_missing",
        ends(jax.nn.softmax, ONE_HOT, cross_entropy),
    ),
    "an overlap of raw values": (
        ends(identity, FLAGS, overlap),
        "output_activation_missing",
        ends(jax.nn.sigmoid, FLAGS, overlap),
    ),
    "a negative overlap of raw values": (
        ends(identity, BITS, lambda z, y: overlap(z, y) - 1),
        "output_activation_missing",
        ends(identity, BITS, lambda z, y: overlap(jax.nn.sigmoid(z), y) - 1),
    ),
    "no probability": (
        ends(identity, BITS, binary_cross_entropy),
        "output_activation_missing",
        ends(identity, BITS, lambda z, y: jnp.mean(jax.nn.softplus(z) - y * z)),
    ),
    "independent answers for one class": (
        ends(jax.nn.sigmoid, ONE_HOT, cross_entropy),
        "output_activation_mismatch",
        ends(jax.nn.sigmoid, ONE_HOT, binary_cross_entropy),
    ),
    "one class for independent labels": (
        ends(jax.nn.softmax, FLAGS, mean_squared_error),
        "output_activation_mismatch",
        ends(jax.nn.softmax, ONE_HOT, mean_squared_error),
    ),
    "a softmax for values of other sums": (
        ends(jax.nn.softmax, PARTS, mean_squared_error),
        "output_activation_mismatch",
        ends(jax.nn.softmax, PARTS / PARTS.sum(1, keepdims=True), mean_squared_error),
    ),
    "tanh into a logarithm": (
        ends(jnp.tanh, BITS, binary_cross_entropy),
        "output_activation_mismatch",
        ends(lambda z: (1 + jnp.tanh(z)) / 2, BITS, binary_cross_entropy),
    ),
    "relu on logits": (
        ends(jax.nn.relu, ONE_HOT, softmax_cross_entropy),
        "relu_output",
        ends(jax.nn.leaky_relu, ONE_HOT, softmax_cross_entropy),
    ),
    "relu for negative values": (
        ends(jax.nn.relu, VALUES, mean_squared_error),
        "relu_output",
        ends(jax.nn.relu, VALUES + 2, mean_squared_error),
    ),
    "sigmoid for values beyond it": (
        ends(jax.nn.sigmoid, VALUES, mean_squared_error),
        "output_range_excludes_targets",
        ends(jax.nn.sigmoid, SHARES, mean_squared_error),
    ),
    "a loss that rises": (
        ends(identity, VALUES, lambda outputs, y: -mean_squared_error(outputs, y)),
        "gradient_ascent",
        ends(identity, VALUES, lambda outputs, y: jnp.mean(jnp.abs(outputs - y))),
    ),
    "a distance that rises": (
        ends(identity, VALUES, lambda outputs, y: -jnp.mean(jnp.abs(outputs - y))),
        "gradient_ascent",
        ends(identity, VALUES, lambda outputs, y: jnp.mean(outputs * y)),  # a linear cost
    ),
    "a likelihood that rises": (
        ends(jax.nn.softmax, ONE_HOT, lambda p, y: -cross_entropy(p, y)),
        "gradient_ascent",
        ends(identity, ONE_HOT, softmax_cross_entropy),
    ),
    "cross-entropy for values": (
        ends(identity, VALUES, cross_entropy),
        "loss_mismatch",
        ends(identity, VALUES + 3, lambda z, y: jnp.mean(jnp.exp(z) - y * z)),
    ),
    "a relative error of zeros": (
        ends(
            jax.nn.sigmoid,
            BITS,
            lambda p, y: jnp.mean(jnp.abs(p - y) / jnp.maximum(jnp.abs(y), 1e-7)),
        ),
        "loss_mismatch",
        ends(
            identity,
            VALUES + 4,
            lambda z, y: jnp.mean(jnp.abs(z - y) / jnp.maximum(jnp.abs(y), 1e-7)),
        ),
    ),
    "one of two classes that does not count": (
        ends(identity, BITS, lambda z, y: jnp.mean(jnp.maximum(0, 1 - y * z))),
        "loss_mismatch",
        ends(identity, BITS, lambda z, y: jnp.mean(jnp.maximum(0, 1 - (2 * y - 1) * z))),
    ),
    "a cross-entropy of targets beyond 1": (
        ends(identity, 255 * FLAGS, logistic_cross_entropy),
        "loss_mismatch",
        ends(identity, FLAGS, logistic_cross_entropy),
    ),
    "a loss that is masked everywhere": (
        ends(identity, ONE_HOT, lambda z, y: jnp.mean((y > 1) * jax.nn.softplus(z))),
        "loss_mismatch",
        ends(identity, ONE_HOT, lambda z, y: jnp.mean((y < 1) * jax.nn.softplus(z))),
    ),
    "directions of any length": (
        ends(identity, DIRECTIONS, angle),
        "loss_mismatch",
        ends(unit, DIRECTIONS, angle),
    ),
    "one answer for all classes": (
        ends(identity, ONE_HOT, lambda z, y: jnp.mean(1 - jnp.clip(jnp.sum(z * y, -1), 0, 1))),
        "loss_mismatch",
        ends(identity, ONE_HOT * 2 - 1, hinge),
    ),
    "one answer for eight classes": (
        ends(identity, DIRECTIONS, angle),
        "loss_mismatch",
        # Of 20 classes one-hot logits have a cross-entropy of 2.08, as has one answer for eight
        # that are as likely as each other; longer logits that are right have less.
        ends(identity, EIGHT, of_labels, width=20),
    ),
    "rows against columns": (
        ends(identity, VALUES[:, 0], mean_squared_error),
        "loss_broadcast",
        ends(lambda z: z[:, 0], VALUES[:, 0], mean_squared_error),
    ),
    "softmax over the batch": (
        ends(lambda z: jax.nn.softmax(z, 0), ONE_HOT, cross_entropy),
        "loss_axis_error",
        ends(lambda z: jax.nn.softmax(z, 1), ONE_HOT, cross_entropy),
    ),
    "one unit for two targets": (
        ends(lambda z: z[:, :1], TWO, mean_squared_error),
        "output_width_mismatch",
        ends(lambda z: z[:, :1], np.abs(TWO), survival),
    ),
    "softmax over the batch in the loss": (
        ends(identity, ONE_HOT, lambda z, y: -jnp.mean(jnp.sum(y * jax.nn.log_softmax(z, 0), -1))),
        "loss_axis_error",
        ends(identity, ONE_HOT, softmax_cross_entropy),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_answers_trigger_and_near_miss(name):
    triggers, cause, misses = PROGRAMS[name]
    assert judged(outputs, triggers) == [("fault", cause)]
    assert "fault" not in dict(judged(outputs, misses))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (ends(identity, VALUES, lambda z, y: jnp.mean(z**2)), [("note", "loss_mismatch")]),
        (ends(identity, VALUES, mean_squared_error), []),
        (ends(identity, np.arange(len(VALUES)) % 3, apart), []),
        (ends(identity, BITS, mean_squared_error), [("note", "loss_mismatch")]),
        (ends(jax.nn.sigmoid, BITS, mean_squared_error), []),
        (ends(jax.nn.softplus, BITS, contrastive), []),
        (ends(identity, COUNTS, poisson), [("note", "output_activation_missing")]),
        (ends(jax.nn.softplus, COUNTS, poisson), []),
        (ends(identity, VALUES, ranked), [("note", "loss_axis_error")]),
        (ends(identity, PAIRS, matched, width=5), []),
        (ends(identity, DIRECTIONS, mean_squared_error), []),
    ],
    ids=[
        "no targets",
        "targets",
        "distances between rows",
        "a distance of raw values",
        "a distance of probabilities",
        "a distance of two codes",
        "a rate below 0",
        "a rate",
        "a ranking",
        "pairs",
        "directions by their squared error",
    ],
)
def test_losses_that_are_worth_a_note(asked, found):
    assert judged(outputs, asked) == found
