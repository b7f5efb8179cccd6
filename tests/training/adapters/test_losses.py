"""Losses as people write them, as scalars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import KEY, X, Y, apply, init, squared

import nnref
from nnref.training.adapters.losses import batch_loss, loss_of, of_params


@pytest.mark.parametrize(
    ("loss", "own"),
    [
        (lambda outputs, y: 0, False),
        (lambda y_true, y_pred: 0, False),
        (lambda params, outputs, y: 0, False),
        (lambda params, batch: 0, True),
        (lambda params, batch, key: 0, True),
        (lambda model, x, y: 0, True),
        (lambda outputs: 0, False),
        (lambda p, batch, key: 0, True),
        (lambda p, y: 0, False),
        (lambda logits, batch: 0, False),
    ],
)
def test_a_loss_says_by_its_arguments_whether_it_calls_the_network(loss, own):
    assert of_params(loss) is own


def test_what_comes_beside_the_scalar_is_left():
    assert loss_of(lambda outputs, y: (outputs.sum(), {"aux": 1}))(X, Y) == X.sum()
    assert loss_of(lambda outputs: outputs)(X, Y) == jnp.mean(X)


def test_a_batch_goes_in_whole_or_in_parts():
    def by_parts(w, x, y, rng):
        return ((x @ w - y) ** 2).mean() + 0 * jax.random.normal(rng)

    def whole(w, batch, noise):
        return by_parts(w, *batch, noise), {"aux": 1}

    w = jnp.ones((3, 1))
    for loss in (by_parts, whole):
        asked, keyed = batch_loss(loss, (X, Y))
        assert keyed
        assert asked(w, (X, Y), KEY) == pytest.approx(
            float(((X @ np.ones((3, 1)) - Y) ** 2).mean())
        )
    by_name, keyed = batch_loss(
        lambda w, label, image: (image - label).mean(), {"image": X, "label": Y}
    )
    assert not keyed
    assert by_name(w, {"image": X, "label": Y}, KEY) == pytest.approx(float((X - Y).mean()))


def test_a_penalty_may_stand_in_the_loss():
    def loss(params, outputs, y):
        return squared(outputs, y).mean() + 100 * jnp.sum(params["w"] ** 2)

    functions = nnref.Task(init=init, apply=apply, loss=loss, train=(X, Y)).functions
    params, state = functions.init(KEY)
    outputs, _ = functions.apply(params, state, X, KEY, True)
    assert functions.loss(outputs, Y) == pytest.approx(float(loss(params, X @ params["w"], Y)))


def test_a_loss_that_calls_the_network_itself_is_trained_on():
    def loss(params, batch):
        x, y = batch
        return squared(apply(params, x), y).mean()

    task = nnref.Task(init=init, loss=loss, train=(X, Y))
    assert task.own_loss
    functions = task.functions
    params, state = functions.init(KEY)
    value, _ = functions.apply(params, state, task.train.x, KEY, True)
    assert functions.loss(value, task.train.y) == pytest.approx(
        float(loss(params, (X, Y))), rel=1e-6
    )
