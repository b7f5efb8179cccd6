"""Batches that come again because a generator begins anew with the same seed."""

import jax
import numpy as np
import pytest
from loops import BATCHES, X, Y, begun, plain, squares
from networks import line_of

import nnref
from nnref.diagnosis.loop.drawn_again import begun_anew, period_of

WORKERS = 4


def batch_of(rng):
    x = rng.normal(size=(16, 2)).astype(np.float32)
    return x, (x[:, :1] * x[:, 1:]).astype(np.float32)


def by_worker(number):
    return batch_of(np.random.default_rng([3, number % WORKERS]))  # the turn has no part


def by_turn(number):
    turn, worker = divmod(number, WORKERS)
    return batch_of(np.random.default_rng([3, worker, turn]))


def stored(number):
    """Rows that there are, in the order of every epoch."""
    order = np.random.default_rng(0).permutation(64)
    rows = order[number % WORKERS * 16 :][:16]
    return X[rows], Y[rows]


def far(state):
    """Error on other rows."""
    return float(squares(state[0], *batch_of(np.random.default_rng(9))))


def near(state):
    return 0.001 * far(state) / (1 + far(state)) if state[0]["b1"].any() else 1.0


near.__doc__ = "Error on other rows."


def of(batches, evaluate=far):
    found = nnref.examine(plain, begun(), batches, evaluate, effort=0).found
    return [f for f in found if "a generator begins anew" in f.evidence]


def test_a_seed_without_the_turn_draws_the_same_batches_again():
    (found,) = of(by_worker)
    assert (found.cause, found.severity) == ("repeated_rows", "fault")
    assert found.where.endswith(f"test_drawn_again.py:{line_of(__file__, 'the turn has no part')}")
    assert "4 different batches" in found.measured


def test_it_is_a_note_where_the_loop_has_learned():
    (found,) = of(by_worker, near)
    assert found.severity == "note"


@pytest.mark.parametrize("batches", [by_turn, stored, lambda number: BATCHES[number % 4]])
def test_other_numbers_and_rows_that_are_stored_are_healthy(batches):
    assert not of(batches)


def test_what_draws_anew():
    assert begun_anew(lambda: by_worker(0))
    assert not begun_anew(lambda: stored(0))
    rng = np.random.default_rng(0)
    assert not begun_anew(lambda: batch_of(rng))

    def with_a_key():
        return jax.random.normal(jax.random.PRNGKey(0), (2,))

    assert begun_anew(with_a_key)


def test_after_how_many_batches_they_come_again():
    a, b, c = (np.full(2, i) for i in range(3))
    assert period_of([a, b, a, b]) == 2
    assert period_of([a, b, c, a, b, c, a]) == 3
    assert period_of([a, b, c, a]) == 0  # seen once is seen by chance
    assert period_of([a, b, a, c]) == 0
