"""Which step an output is held against, and what it sees of it."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import line_of

from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.sequences import (
    aligned,
    future_leakage,
    given_away,
    lag_of_data,
    lag_of_loss,
    order_of_steps,
    scattered_steps,
    shifted_twice,
)
from nnref.diagnosis.recipe import Recipe

HERE = Path(__file__).name
TEXT = np.random.default_rng(0).integers(0, 5, (16, 13)).astype(np.int32)
NOW, NEXT = TEXT[:, :-1], TEXT[:, 1:]


def reader(ahead):
    """The mean of what stands before; where it reads ahead, of all. Tokens are one-hot."""

    def apply(params, state, x, key, train):
        one_hot = jax.nn.one_hot(x, 5)
        steps = x.shape[1]
        sees = jnp.ones((steps, steps)) if ahead else jnp.tril(jnp.ones((steps, steps)))
        seen = jnp.einsum("ts,nsv->ntv", sees / sees.sum(1, keepdims=True), one_hot)
        return seen @ params["w"], state

    return apply


def of_text(apply, shift=1):
    text = np.random.default_rng(0).integers(0, 5, (16, 13))
    x, y = text[:, :-1], text[:, 1:]
    return Recipe(
        lambda key: ({"w": jax.random.normal(key, (5, 5))}, {}),
        apply,
        lambda outputs, y: optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(),
        train=(x, y if shift else x % 3),
        optimizer=optax.sgd(0.1),
    )


@pytest.mark.parametrize(
    ("ahead", "shift", "causes"),
    [(True, 1, ["leaked_targets"]), (False, 1, []), (True, 0, [])],
)
def test_answers_that_read_their_targets(ahead, shift, causes):
    found = list(future_leakage(AtStart(of_text(reader(ahead), shift))))
    assert [f.cause for f in found] == causes


def test_a_leak_is_seen_where_targets_are_one_hot():
    recipe = of_text(reader(True))
    x, y = recipe.train

    def loss(outputs, y):
        return optax.softmax_cross_entropy(outputs, y).mean()

    made = dataclasses.replace(recipe, train=(x, np.eye(5, dtype=np.float32)[y]), loss=loss)
    assert [f.cause for f in future_leakage(AtStart(made))] == ["leaked_targets"]


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def moves_itself(logits, y):
    return cross_entropy(logits[:, :-1], y[:, 1:])  # moves by one


def language_model(y, loss, ahead=False):
    return dataclasses.replace(of_text(reader(ahead)), train=(NOW, y), loss=loss)


@pytest.mark.parametrize(
    ("y", "loss", "twice"),
    [(NEXT, moves_itself, True), (NOW, moves_itself, False), (NEXT, cross_entropy, False)],
)
def test_targets_that_are_moved_twice(y, loss, twice):
    found = list(shifted_twice(AtStart(language_model(y, loss))))
    assert [(f.severity, f.cause) for f in found] == [("fault", "loss_mismatch")] * twice
    assert all(f.where.endswith(HERE + f":{line_of(__file__, 'moves by one')}") for f in found)


def test_lags_are_those_of_loss_and_data():
    shape = (16, 12, 5)
    assert lag_of_loss(language_model(NOW, moves_itself), shape) == 1
    assert lag_of_loss(language_model(NOW, cross_entropy), shape) == 0
    assert (lag_of_data(NOW, NOW), lag_of_data(NOW, NEXT)) == (0, 1)
    assert lag_of_data(NOW, np.roll(NOW, 1, 0)) is None


def test_what_a_loss_moves_is_scored_where_it_belongs():
    asked = language_model(NOW, moves_itself)
    moved = aligned(asked)
    x, y = moved.train
    np.testing.assert_array_equal(y[:, :-1], NOW[:, 1:])
    assert (y[:, -1] == -1).all()
    logits = np.random.default_rng(1).normal(size=(16, 12, 5)).astype(np.float32)
    np.testing.assert_allclose(moved.loss(logits, y), asked.loss(logits, NOW), rtol=1e-6)
    for other in (language_model(NEXT, cross_entropy), language_model(NEXT, moves_itself)):
        assert aligned(other) is other
    leaks = aligned(language_model(NOW, moves_itself, ahead=True))
    assert [f.cause for f in future_leakage(AtStart(leaks))] == ["leaked_targets"]
    assert list(future_leakage(AtStart(moved))) == []


def decoder(params, state, x, key, train):
    source, fed = jax.nn.one_hot(x[:, 0], 5), jax.nn.one_hot(x[:, 1], 5)
    return fed @ params["w"] + source[:, ::-1] @ params["w"], state


def test_a_decoder_that_is_fed_its_labels():
    late = np.concatenate([np.zeros_like(NOW[:, :1]), NOW[:, :-1]], 1)
    causes = []
    for fed in (NOW, late):
        x = np.stack([NOW[:, ::-1], fed], 1)
        asked = Recipe(
            lambda key: ({"w": jax.random.normal(key, (5, 5))}, {}),
            decoder,
            cross_entropy,
            train=(x, NOW),
        )
        causes.append([f.cause for f in given_away(AtStart(asked))])
    assert causes == [["leaked_targets"], []]


def test_an_autoencoder_is_given_nothing_away():
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    asked = Recipe(
        lambda key: ({"w": jax.random.normal(key, (6, 6))}, {}),
        lambda params, state, x, key, train: (x @ params["w"], state),
        lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(x, x),
    )
    assert list(given_away(AtStart(asked))) == []


# Where steps stand


def attention(params, x, places):
    h = params["w"][x] + places * params["places"][: x.shape[1]]
    weights = jax.nn.softmax(jnp.einsum("ntd,nsd->nts", h, h), axis=-1)
    return jnp.tanh(jnp.einsum("nts,nsd->ntd", weights, h)).mean(1)


def of_tokens(network):
    def init(key):
        return {"w": jax.random.normal(key, (5, 4)), "places": jax.random.normal(key, (12, 4))}, {}

    return Recipe(
        init,
        lambda params, state, x, key, train: (network(params, x), state),
        lambda outputs, y: jnp.mean((outputs[:, 0] - y) ** 2),
        train=(NOW, NOW[:, 0].astype(np.float32)),
        optimizer=optax.sgd(0.1),
    )


def test_an_attention_without_positions_takes_steps_in_any_order():
    (finding,) = order_of_steps(AtStart(of_tokens(lambda p, x: attention(p, x, 0.0))))
    assert (finding.severity, finding.cause) == ("note", "inputs_ignored")
    assert not [*order_of_steps(AtStart(of_tokens(lambda p, x: attention(p, x, 1.0))))]
    constant = AtStart(of_tokens(lambda p, x: p["w"][0] + 0 * x[:, :1]))
    assert not [*order_of_steps(constant)]


@pytest.mark.parametrize("on_padding", [True, False])
def test_places_that_are_told_of_the_padding_alone_are_told_of_no_step(on_padding):
    lengths = np.random.default_rng(1).integers(4, 9, len(NOW))
    padded = np.where(np.arange(NOW.shape[1]) < lengths[:, None], 1 + NOW % 4, 0).astype(np.int32)

    def network(params, x):
        empty = x == 0
        told = empty if on_padding else ~empty
        h = params["w"][x] + told[..., None] * params["places"][: x.shape[1]]
        scores = jnp.einsum("ntd,nsd->nts", h, h) - 1e9 * empty[:, None]
        return jnp.tanh(jnp.einsum("nts,nsd->ntd", jax.nn.softmax(scores, axis=-1), h))[..., :1]

    given = replace(of_tokens(network), train=(padded, padded.astype(np.float32)))
    start = AtStart(replace(given, loss=lambda o, y: jnp.mean((o[..., 0] - y) ** 2)))
    assert [found.cause for found in order_of_steps(start)] == ["inputs_ignored"] * on_padding


BANDS = np.random.default_rng(0).normal(size=(16, 6, 20)).astype(np.float32)


def of_bands(network):
    return Recipe(
        lambda key: (
            {"w": jax.random.normal(key, (6, 1))},
            {},
        ),
        lambda params, state, x, key, train: (network(params, x), state),
        lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(BANDS, BANDS.sum(1)[..., None]),
        optimizer=optax.sgd(0.1),
    )


def cut(params, x):
    return x.reshape(len(x), 20, 6) @ params["w"]


def exchanged_axes(params, x):
    return jnp.swapaxes(x, 1, 2) @ params["w"]


def running(params, x):
    return jnp.cumsum(exchanged_axes(params, x), axis=1)


def pooled(params, x):
    """Four steps become one, and that one four again."""
    steps = exchanged_axes(params, x).reshape(len(x), 5, 4).mean(-1)
    return jnp.repeat(jnp.tanh(steps), 4, axis=1)[..., None]


def blind(params, x):
    return 0 * exchanged_axes(params, x)


def test_a_reshape_that_cuts_steps_into_pieces_is_told():
    (finding,) = scattered_steps(AtStart(of_bands(cut)))
    assert (finding.severity, finding.cause) == ("fault", "inputs_misread")


@pytest.mark.parametrize("network", [exchanged_axes, running, pooled, blind])
def test_steps_that_stay_together_are_no_fault(network):
    assert not [*scattered_steps(AtStart(of_bands(network)))]
