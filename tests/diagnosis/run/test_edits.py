"""Pieces that are known to work: losses by task, raw outputs, plain networks of any width."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import affine, dense, learns, mean_squared_error, recipe

from nnref.diagnosis.run.edits import (
    plain_network,
    same_losses,
    trusted_loss,
    with_raw_outputs,
    with_trusted_optimizer,
)

KEY = jax.random.key(0)
LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0, 2])
INTEGER = optax.softmax_cross_entropy_with_integer_labels


@pytest.mark.parametrize("y", [LABELS, LABELS[:, None], np.eye(3)[LABELS]])
def test_classes_get_a_cross_entropy_however_they_are_told(y):
    loss = trusted_loss("multiclass", 3, y)
    assert loss(LOGITS, y) == pytest.approx(float(INTEGER(LOGITS, LABELS).mean()), rel=1e-6)


def test_outputs_that_cannot_say_what_is_asked_have_no_loss():
    assert trusted_loss("multiclass", 2, LABELS) is None
    assert trusted_loss("multiclass", 1, LABELS) is None


@pytest.mark.parametrize("y", [np.array([[0], [1]]), np.array([[-1.0], [1.0]])])
def test_two_classes_in_a_column_get_a_logistic_loss(y):
    loss = trusted_loss("binary", 1, y)
    expected = (np.log1p(np.exp(2.0)) + np.log1p(np.exp(-3.0))) / 2
    assert loss(jnp.array([[2.0], [3.0]]), y) == pytest.approx(expected, rel=1e-6)


def test_places_that_do_not_count_are_left_out():
    y = np.array([[0, -1], [2, 1], [1, -1]])
    outputs = LOGITS.reshape(3, 2, 3)
    each = np.asarray(INTEGER(outputs, np.maximum(y, 0)))
    loss = trusted_loss("places", 3, y)(outputs, y)
    assert loss == pytest.approx(each[y >= 0].mean(), rel=1e-6)


def test_values_get_a_squared_error_whatever_the_shape_of_their_targets():
    y = np.arange(6.0)
    loss = trusted_loss("regression", 1, y)
    assert loss(jnp.zeros((6, 1)), y) == pytest.approx(np.mean(y**2))


def test_losses_that_differ_by_a_factor_are_the_same_and_others_are_not():
    y = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    assert same_losses(mean_squared_error, lambda o, y: 7 * mean_squared_error(o, y), LOGITS, y)
    assert not same_losses(mean_squared_error, lambda o, y: jnp.abs(o - y).mean(), LOGITS, y)
    assert not same_losses(mean_squared_error, lambda o, y: -mean_squared_error(o, y), LOGITS, y)


def test_raw_outputs_are_those_before_the_last_activation():
    ended = recipe(lambda params, x: jax.nn.softmax(learns(params, x)))
    params, state = ended.init(KEY)
    x = ended.train[0]
    outputs, _ = with_raw_outputs(ended).apply(params, state, x, KEY, True)
    np.testing.assert_allclose(outputs, learns(params, x), rtol=1e-6)
    slopes = jax.grad(lambda p: with_raw_outputs(ended).apply(p, state, x, None, False)[0].sum())
    assert np.abs(slopes(params)["dense1"]["bias"]).min() > 1  # a softmax would leave none


def test_a_trusted_optimizer_takes_steps_of_its_own_length():
    own = recipe(learns, optimizer=optax.sgd(1e9))
    optimizer = with_trusted_optimizer(own).optimizer
    params, _ = own.init(KEY)
    huge = jax.tree.map(lambda leaf: 1e6 * jnp.ones_like(leaf), params)
    updates, _ = optimizer.update(huge, optimizer.init(params), params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -1e-3, rtol=1e-3)


@pytest.mark.parametrize(("factor", "widths"), [(1, [4, 5, 3]), (4, [4, 64, 3])])
def test_a_plain_network_has_these_widths_and_computes_its_layers(factor, widths):
    network = plain_network([4, 5], factor, (3,))
    params, _ = network["init"](KEY)
    assert [*(kernel.shape[0] for kernel, _ in params), params[-1][0].shape[1]] == widths
    x = np.random.default_rng(0).normal(size=(7, 2, 2)).astype(np.float32)
    outputs, _ = network["apply"](params, {}, x, None, False)
    (first, _), (second, _) = params
    expected = np.maximum(x.reshape(7, 4) @ np.asarray(first), 0) @ np.asarray(second)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert affine(dense(KEY, 4, 3)["dense0"], x.reshape(7, 4)).shape == outputs.shape
