"""Weights of classes, measured by the slopes of a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnref.diagnosis.program.class_weights import class_weights

Y = np.array([0, 0, 2, 1, 0, 1])
W = jnp.array([1.0, 2.0, 6.0])


def each(outputs, y):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y)


def weighted_mean(outputs, y):
    return jnp.sum(each(outputs, y) * W[y]) / jnp.sum(W[y])


def of_probabilities(outputs, y):
    return -jnp.mean(W[y] * jnp.log(outputs[jnp.arange(len(y)), y] + 1e-7))


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        (weighted_mean, W),
        (lambda outputs, y: jnp.sum(each(outputs, y) * W[y]), W),
        (of_probabilities, W),
        (lambda outputs, y: each(outputs, y).mean(), None),
        (lambda outputs, y: jnp.mean((outputs - jax.nn.one_hot(y, 3)) ** 2), None),
    ],
)
def test_the_weights_of_a_loss_of_several_classes_are_measured(loss, weights):
    found = class_weights(loss, (3,), Y, Y)
    if weights is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_allclose(found.weights, weights / weights.mean(), rtol=1e-4)


def by_logits(outputs, y):
    each = optax.sigmoid_binary_cross_entropy(outputs[:, 0], y)
    return jnp.mean(each * jnp.where(y == 1, 5, 1))


def by_clipped_probabilities(outputs, y):
    p = jnp.clip(outputs[:, 0], 1e-7, 1 - 1e-7)
    return -jnp.mean(5 * y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


@pytest.mark.parametrize(
    ("loss", "y", "neutral"),
    [
        (by_logits, [0, 1, 1], 0.0),
        (by_clipped_probabilities, [0, 1, 1], 0.5),
        (lambda o, y: optax.sigmoid_binary_cross_entropy(o[:, 0], y).mean(), [0, 1, 1], None),
        (lambda o, y: jnp.mean((o[:, 0] - y) ** 2), [1, 2, 2], None),
    ],
)
def test_those_of_one_output_stand_at_what_says_nothing(loss, y, neutral):
    y = np.asarray(y, np.float32)
    found = class_weights(loss, (1,), y, (y > y.min()).astype(int))
    if neutral is None:
        assert found is None
    else:
        assert found is not None
        assert found.neutral == neutral
        assert found.weights[1] / found.weights[0] == pytest.approx(5, rel=1e-3)
