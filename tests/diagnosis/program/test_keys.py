"""Keys that never change: where what is drawn matters, and where it is meant to stay."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import affine, dense, learns, line_of, recipe

from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.keys import drawn_twice, of_one_key, random_key, randomness
from nnref.diagnosis.program.tracing import trace

HERE = Path(__file__).name


def drawing(network, state=None):
    def init(key):
        return dense(key, 3, 5, 2), {} if state is None else state

    return dataclasses.replace(recipe(learns), init=init, apply=network)


def dropping(fresh, trains_only, rate=0.1):
    def apply(params, state, x, key, train):
        if train or not trains_only:
            key = key if fresh else jax.random.key(7)
            x = x * jax.random.bernoulli(key, 1 - rate, x.shape)
        return learns(params, x), state

    return drawing(apply)


@pytest.mark.parametrize(
    ("fresh", "trains_only", "said"),
    [(True, False, "evaluation draws"), (False, True, "never changes"), (True, True, None)],
)
def test_dropout_in_evaluation_and_with_one_key(fresh, trains_only, said):
    found = list(randomness(AtStart(dropping(fresh, trains_only))))
    assert [finding.severity for finding in found] == ["note"] * (said is not None)
    assert all(said in finding.evidence for finding in found)


def noisy(params, state, x, key, train):
    key = jax.random.key(0)  # made anew
    return learns(params, x + jax.random.normal(key, x.shape)), state


def random_features(params, state, x, key, train):
    """Numbers that are no row's stay, and are meant to."""
    kernel = jax.random.normal(jax.random.key(0), (3, 3))
    return learns(params, jnp.cos(x @ kernel)), state


def carried(goes_on):
    def apply(params, state, x, key, train):
        now, after = jax.random.split(state["key"])
        noise = jax.random.normal(now, x.shape)
        return learns(params, x + noise), {"key": after} if goes_on else state

    return drawing(apply, {"key": jax.random.key(1)})


@pytest.mark.parametrize(
    ("asked", "severities"),
    [
        (drawing(noisy), ["fault"]),
        (dropping(False, True, 0.5), ["fault"]),
        (dropping(False, True, 0.1), ["note"]),
        (drawing(random_features), []),
        (carried(goes_on=False), ["fault"]),
        (carried(goes_on=True), []),
    ],
)
def test_one_key_for_all_steps(asked, severities):
    found = list(random_key(AtStart(asked)))
    assert [f.severity for f in found] == severities
    assert {f.cause for f in found} <= {"random_key_reused"}


def test_the_line_is_the_one_that_makes_the_key():
    (finding,) = random_key(AtStart(drawing(noisy)))
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'made anew')}")
    assert finding.confidence == 0.9


def test_the_key_of_a_bare_loss():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

    def loss(key):
        def of(params, batch, *own):
            noise = jax.random.normal(own[0] if own else key, batch.shape)
            return jnp.mean((affine(params, batch + noise) - batch) ** 2)

        return of

    params = dense(jax.random.key(0), 3, 3)["dense0"]
    (finding,) = random_key(LossAtStart(loss(jax.random.key(3)), params, x, False))
    assert (finding.severity, finding.cause) == ("fault", "random_key_reused")
    assert list(random_key(LossAtStart(loss(None), params, x, True))) == []


def paired(second, frozen=False):
    """Two factors of one product, drawn with keys that may be the same."""

    def init(key):
        left, right = (jax.random.normal(k, (3, 8)) for k in (key, jax.random.split(key)[second]))
        return {"left": left, "right": left if second else right}, {}

    def apply(params, state, x, key, train):
        other = jax.lax.stop_gradient(params["right"]) if frozen else params["right"]
        return jnp.sum((x @ params["left"]) * (x @ other), 1, keepdims=True), state

    return dataclasses.replace(recipe(learns, (3, 5, 1)), init=init, apply=apply)


@pytest.mark.parametrize(
    ("asked", "causes"),
    [
        (paired(1), ["random_key_reused"]),
        (paired(0), []),
        (paired(1, frozen=True), []),
        (recipe(learns), []),
    ],
    ids=["one key", "two keys", "a frozen copy", "one kernel of each shape"],
)
def test_kernels_that_start_alike(asked, causes):
    assert [finding.cause for finding in drawn_twice(AtStart(asked))] == causes


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        (lambda key: jnp.stack([key] * 4), 1),
        (lambda key: jax.random.split(key, 4), 0),
        (lambda key: key[None], 0),
    ],
    ids=["the same for all", "one each", "one alone"],
)
def test_keys_of_a_batch(keys, count):
    def noise(key):
        return jax.vmap(lambda one: jax.random.normal(one, (3,)))(keys(key))

    key = jax.random.key(0)
    assert len(of_one_key(trace(noise, key), [key])) == count
