"""Networks that say which of two parts of a row stands first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnref
from nnref.diagnosis.api import recipe_from
from nnref.diagnosis.judge.leak_checks import check
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.skill import Skill
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.sides import one_sided, takes_sides

RANDOM = np.random.default_rng(0)
TRIPLES = RANDOM.integers(0, 20, (60, 3)).astype(np.int32)  # a user and two items
FEATURES = RANDOM.normal(size=(60, 12)).astype(np.float32)  # two items of six numbers
ARRAYS = {"first": FEATURES[:, :6], "second": FEATURES[:, 6:]}


def of_items(key):
    return {"user": jax.random.normal(key, (20, 4)), "item": jax.random.normal(key, (60, 4))}


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
    y = np.ones(len(jax.tree.leaves(x)[0]), np.float32)
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


def triples(first, second):
    """Users, and items drawn evenly from two ranges; items of one range are more frequent first."""
    user, one, other = (RANDOM.uniform(size=400) for _ in range(3))
    columns = [20 * user]
    for share, (low, high, power) in ((one, first), (other, second)):
        columns.append(low + (high - low) * share**power)
    return np.stack(columns, 1).astype(np.int32)


@pytest.mark.parametrize(
    ("first", "second", "columns"),
    [
        ((0, 60, 1), (0, 24, 1), [(2, 24, 1)]),
        ((0, 36, 1), (0, 60, 1), [(1, 36, 2)]),
        ((0, 60, 1), (0, 60, 1), []),
        ((6, 60, 1), (0, 6, 1), []),  # two kinds of nodes in one table
        ((0, 60, 4), (0, 24, 4), []),  # frequent items first, and those alone in the other column
    ],
    ids=["negatives", "positives", "the whole table", "two kinds", "frequent first"],
)
def test_ids_that_one_column_never_holds(first, second, columns):
    found = list(one_sided(AtStart(recipe(triples(first, second), of_items, difference))))
    assert [(each.column, each.end, each.other) for each in found] == columns
    assert all(each.table == "item" for each in found)


@pytest.mark.parametrize(("end", "causes"), [(24, ["leaked_targets"]), (60, [])])
def test_ids_on_one_side_alone_give_the_answer_away(end, causes):
    made = recipe(triples((0, 60, 1), (0, end, 1)), of_items, difference)
    told = list(check(Measurements(made)))
    assert [finding.cause for finding in told] == causes
    assert all(finding.where == "item, column 2 of the inputs" for finding in told)
