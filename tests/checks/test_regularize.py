"""Regularization piece by piece of a user's own task: its own pieces, and the usual ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import nnref
from nnref.checks.regularize import (
    DECAY,
    DRAWS,
    INSIDE,
    PENALTY,
    WithPieces,
    own_pieces,
    pieces_of,
)
from nnref.checks.regularize import trained as trained_with
from nnref.diagnosis.api import recipe_from
from nnref.errors import UserError
from nnref.studies.regularize import OFF, TOGETHER

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(160, 3)).astype(np.float32)
Y = (X[:, :1] - X[:, 1:2] + 0.3 * RANDOM.normal(size=(160, 1)) > 0).astype(np.float32)
TRAIN, VALID = (X[:120], Y[:120]), (X[120:], Y[120:])
HOW = {"batch_size": 32, "epochs": 15, "shuffle": True, "kind": None, "metric": None}


def init(key):
    first, second = jax.random.split(key)
    return {"a": jax.random.normal(first, (3, 16)), "b": 0.2 * jax.random.normal(second, (16, 1))}


def apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def dropping(params, x, key, train):
    hidden = jnp.tanh(x @ params["a"])
    if train:
        hidden = hidden * jax.random.bernoulli(key, 0.03, hidden.shape) / 0.03
    return hidden @ params["b"]


def loss(outputs, y):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(outputs, y))


def penalty(params):
    return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def recipe(network=apply, optimizer=None, penalty=None, train=TRAIN, valid=VALID, test=None):
    task = nnref.Task(init=init, apply=network, loss=loss, train=train, valid=valid, test=test)
    return recipe_from(task, HOW | {"optimizer": optimizer or optax.adam(0.03), "penalty": penalty})


def trained(given, on, seeds):
    return trained_with(WithPieces(given, own_pieces(given), on), seeds)


def losses(given, on):
    (record,) = trained(given, on, (3,))
    return record.history["train_loss"]


def test_what_the_task_brings_is_switched_off_and_comes_back_alone_and_together():
    task = nnref.Task(init=init, apply=dropping, loss=loss, train=TRAIN, valid=VALID)
    told = []
    done = nnref.regularize(
        task, optimizer=optax.adamw(0.03, weight_decay=1e-3), epochs=25, seeds=8,
        progress=told.append,
    )  # fmt: skip
    assert told == [OFF, DRAWS, DECAY, TOGETHER]
    assert [piece.name for piece in done.pieces] == [DRAWS, DECAY, TOGETHER]
    assert done.learns
    assert not done.pieces[0].learns, "97 % of the units are dropped"
    assert done.pieces[1].learns
    assert any(f"{DRAWS} stops it" in sentence for sentence in done.sentences)
    assert done.metric == "valid_loss"


def test_off_is_the_same_training_without_the_piece():
    plain = losses(recipe(), {})
    np.testing.assert_array_equal(losses(recipe(dropping), {}), plain)
    np.testing.assert_array_equal(losses(recipe(penalty=penalty), {}), plain)
    decaying = recipe(optimizer=optax.adamw(0.03, weight_decay=0.5))
    np.testing.assert_allclose(losses(decaying, {}), plain, rtol=1e-5)
    for given, piece in ((recipe(dropping), DRAWS), (decaying, DECAY)):
        assert not np.allclose(losses(given, {piece: None}), plain, rtol=1e-2)
    assert losses(recipe(penalty=penalty), {PENALTY: None})[-1] > 1.2 * plain[-1]


def test_a_task_without_any_gets_the_usual_ones_from_outside():
    pieces, refused = pieces_of(recipe(), own_pieces(recipe()))
    assert list(pieces) == ["l1", "l2", "max_norm", "input_noise", "average", "early stopping"]
    assert refused.keys() == INSIDE.keys() | {"shift"}, "no images"
    assert "early stopping" in pieces_of(recipe(valid=None), own_pieces(recipe(valid=None)))[1], (
        "nothing to watch"
    )
    plain = losses(recipe(), {})
    for piece, strength in (("l2", 0.3), ("max_norm", 0.5), ("input_noise", 1.0)):
        assert losses(recipe(), {piece: strength})[-1] > 1.05 * plain[-1]


def test_an_average_and_early_stopping_change_what_is_evaluated():
    plain, averaged = (trained(recipe(), on, (3,))[0] for on in ({}, {"average": 0.99}))
    np.testing.assert_allclose(averaged.history["train_loss"], plain.history["train_loss"])
    assert averaged.final("valid_loss") > plain.final("valid_loss")
    stop = {"metric": "valid_loss", "patience": 2}
    overfit = recipe(train=(X[:16], Y[:16]))
    stopped = trained(replace(overfit, epochs=200), {"early stopping": stop}, (3,))[0]
    assert stopped.epochs < 200
    assert stopped.final("valid_loss") == pytest.approx(stopped.best("valid_loss"))


def test_a_network_that_keeps_statistics_stays_in_training_mode():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(3, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(self.norm(x)))

    task = nnref.Task(model=Net, loss=loss, train=TRAIN, valid=VALID)
    given = recipe_from(task, HOW | {"optimizer": optax.adam(0.03), "penalty": None})
    assert own_pieces(given) == (False, False, False, True)
    pieces, refused = pieces_of(given, own_pieces(given))
    assert "l2" in pieces
    assert "is on in all runs" in refused[DRAWS]
    functions, _ = WithPieces(given, own_pieces(given), {})({})
    params, state = functions.init(jax.random.key(0))
    x = jnp.asarray(X[:8])
    one, other = (functions.apply(params, state, x, jax.random.key(i), True)[0] for i in (0, 1))
    assert not np.array_equal(one, other), "dropout is still on"


def test_the_test_rows_decide_where_there_are_some():
    (record,) = trained(recipe(test=VALID), {}, (0,))
    assert record.test["test_loss"] == pytest.approx(record.final("valid_loss"), rel=1e-5)


def test_what_cannot_be_asked_is_refused():
    task = nnref.Task(init=init, apply=apply, loss=loss, train=TRAIN, valid=VALID)
    with pytest.raises(UserError, match="of 3 seeds none of 7 pieces could be told; give 9"):
        nnref.regularize(task, seeds=3)
    with pytest.raises(UserError, match="epochs is given by the experiment; leave it out"):
        nnref.regularize("xor_small.json", epochs=3)
    with pytest.raises(UserError, match="is no task"):
        nnref.regularize(apply)
    own = nnref.Task(init=init, loss=lambda params, batch, key: 0.0, train=TRAIN)
    with pytest.raises(UserError, match="calls the network itself"):
        nnref.regularize(own)
