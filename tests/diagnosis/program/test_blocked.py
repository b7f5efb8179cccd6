"""Gradients that are cut, and those that only look so: frozen parts, straight-through, targets."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import affine, dense, learns, line_of, recipe

from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.blocked import blocked

HERE = Path(__file__).name
stop = jax.lax.stop_gradient


def hidden(params, x):
    return jnp.tanh(affine(params["dense0"], x))


def rounded(params, x):
    return affine(params["dense1"], jnp.round(affine(params["dense0"], x)))  # rounds


def chosen(params, x):
    best = jnp.argmax(affine(params["dense0"], x), -1)
    return affine(params["dense1"], jax.nn.one_hot(best, 5))


def signs(params, x):
    return affine(params["dense1"], jnp.sign(affine(params["dense0"], x)))


def compared(params, x):
    return affine(params["dense1"], (affine(params["dense0"], x) > 0).astype(jnp.float32))


def as_integers(params, x):
    whole = (9 * hidden(params, x)).astype(jnp.int32)
    return affine(params["dense1"], whole.astype(jnp.float32))


def stopped_inside(params, x):
    return affine(params["dense1"], stop(hidden(params, x)))


def stopped_at_the_end(params, x):
    return stop(learns(params, x))


def in_a_loop(params, x):
    def turn(state, _):
        return jnp.round(affine(params["dense0"], x)) + 0 * state, None

    last = jax.lax.scan(turn, jnp.zeros((len(x), 5)), None, length=3)[0]
    return affine(params["dense1"], last)


@jax.custom_vjp
def cut(z):
    return z


cut.defvjp(lambda z: (z, None), lambda _, slope: (0 * slope,))


def by_hand(params, x):
    return affine(params["dense1"], cut(hidden(params, x)))


@pytest.mark.parametrize(
    "network",
    [
        rounded,
        chosen,
        signs,
        compared,
        as_integers,
        stopped_inside,
        stopped_at_the_end,
        in_a_loop,
        by_hand,
    ],
)
def test_a_gradient_that_is_cut(network):
    (finding,) = blocked(AtStart(recipe(network)))
    assert (finding.severity, finding.cause) == ("fault", "gradient_blocked")
    assert "dense0.kernel" in finding.evidence
    assert ("dense1" in finding.evidence) == (network is stopped_at_the_end)
    assert HERE in finding.where


def test_the_line_is_the_one_that_cuts():
    (finding,) = blocked(AtStart(recipe(rounded)))
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'rounds')}")
    assert "round" in finding.evidence


@jax.custom_vjp
def straight(z):
    return jnp.round(z)


straight.defvjp(lambda z: (jnp.round(z), None), lambda _, slope: (slope,))


@pytest.mark.parametrize(
    "network",
    [
        lambda p, x: affine(p["dense1"], straight(affine(p["dense0"], x))),
        lambda p, x: (lambda z: affine(p["dense1"], z + stop(jnp.sign(z) - z)))(hidden(p, x)),
        lambda p, x: affine(p["dense1"], jax.nn.softmax(affine(p["dense0"], x))),
        learns,
    ],
)
def test_a_gradient_that_finds_its_way(network):
    assert list(blocked(AtStart(recipe(network)))) == []


def zeros_last(asked):
    """A kernel of zeros, which lets no gradient pass in the first step."""

    def init(key):
        params = dense(key, 3, 5, 2)
        return params | {"dense1": jax.tree.map(jnp.zeros_like, params["dense1"])}, {}

    return dataclasses.replace(asked, init=init)


def test_a_kernel_of_zeros_cuts_nothing_for_long():
    assert list(blocked(AtStart(zeros_last(recipe(learns))))) == []


def test_frozen_parts_beside_what_learns_are_notes():
    def words(params, x):
        table = stop(params["dense0"]["kernel"])
        return affine(params["dense1"], table[(x[:, 0] > 0).astype(int)])

    def targets(params, x):
        return affine(params["dense2"], jnp.tanh(affine(params["dense0"], x))) - stop(
            jnp.tanh(affine(params["dense1"], x)).sum(-1, keepdims=True)
        )

    found = list(blocked(AtStart(recipe(words))))
    found += blocked(AtStart(recipe(targets, (3, 3, 3, 3))))
    assert [(f.severity, f.cause) for f in found] == [("note", "gradient_blocked")] * 2


def test_a_bare_loss():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

    def loss(network):
        return lambda params, batch: jnp.mean((network(params, batch) - batch[:, :2]) ** 2)

    params = dense(jax.random.key(0), 3, 5, 2)
    (finding,) = blocked(LossAtStart(loss(signs), params, x, False))
    assert (finding.severity, finding.cause) == ("fault", "gradient_blocked")
    assert list(blocked(LossAtStart(loss(learns), params, x, False))) == []
