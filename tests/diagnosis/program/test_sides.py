"""Networks that say which of two parts of a row stands first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnref
from nnref.diagnosis.api import recipe_from
from nnref.diagnosis.judge.skill import Skill
from nnref.diagnosis.program.sides import takes_sides

RANDOM = np.random.default_rng(0)
TRIPLES = RANDOM.integers(0, 20, (60, 3)).astype(np.int32)  # a user and two items
FEATURES = RANDOM.normal(size=(60, 12)).astype(np.float32)  # two items of six numbers
ARRAYS = {"first": FEATURES[:, :6], "second": FEATURES[:, 6:]}


def of_items(key):
    return {"user": jax.random.normal(key, (20, 4)), "item": jax.random.normal(key, (20, 4))}


def scores(p, x):
    user = p["user"][x[:, 0]]
    return [(user * p["item"][x[:, column]]).sum(1) for column in (1, 2)]


def of_features(key):
    return {"w": jax.random.normal(key, (6, 8)), "v": jax.random.normal(key, (8,))}


def score(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def difference(p, x):
    one, other = scores(p, x)
    return one - other


def logistic(margin, y):
    return jax.nn.softplus(-margin * y)


def recipe(x, init, apply):
    y = np.ones(60, np.float32)
    task = nnref.Task(init=init, apply=apply, loss=logistic, train=(x, y))
    return recipe_from(task, {})


CASES = {
    "a difference of scores": (TRIPLES, of_items, difference, True),
    "two scores": (TRIPLES, of_items, lambda p, x: jnp.stack(scores(p, x), 1), True),
    "two halves": (
        FEATURES,
        of_features,
        lambda p, x: score(p, x[:, :6]) - score(p, x[:, 6:]),
        True,
    ),
    "two arrays": (
        ARRAYS,
        of_features,
        lambda p, x: score(p, x["first"]) - score(p, x["second"]),
        True,
    ),
    "a sum of scores": (TRIPLES, of_items, lambda p, x: sum(scores(p, x)), False),
    "a constant beside it": (TRIPLES, of_items, lambda p, x: 1 + difference(p, x), False),
    "one score": (FEATURES, of_features, lambda p, x: score(p, x[:, :6]), False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_takes_sides_where_exchanged_parts_turn_its_answer_round(name):
    x, init, apply, sides = CASES[name]
    assert takes_sides(recipe(x, init, apply)) is sides


def test_the_constant_of_a_network_that_takes_sides_is_zero():
    outputs = np.full(60, 3.0, np.float32)
    skill = Skill(recipe(TRIPLES, of_items, difference), outputs)
    assert not skill.fits
    assert skill.constant_loss == pytest.approx(np.log(2))
    plain = Skill(recipe(TRIPLES, of_items, lambda p, x: 1 + difference(p, x)), outputs)
    assert plain.constant_loss < 0.1
