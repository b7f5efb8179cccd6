"""A program with all small edits in it, and the edits of what an evaluation alone runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnosis.one_edit.deciding import NONE
from nnref.diagnosis.one_edit.search import (
    OfEvaluation,
    Search,
    Trained,
    functions_of,
)

X = np.linspace(-1, 1, 8, dtype=np.float32)
Y = 2 * X


def line(params, x):
    return params * x


@jax.jit
def descended(params, x, y):
    slope = jax.grad(lambda params: jnp.mean((line(params, x) - y) ** 2))(params)
    return params - 0.5 * slope


def answers(params):
    found = line(params, X)
    return found + 0 * found


def mean_error(params):
    return {"error": float(np.abs(answers(params) - Y).mean())}


LINE = Trained(
    lambda seed: jnp.float32(seed),
    lambda params, batch, key: descended(params, *batch),
    lambda place, seed: [X, Y],
    mean_error,
    jax.random.key(0),
)


@pytest.fixture(scope="module")
def search():
    return Search(LINE, functions_of(LINE))


def edit_of(search, text):
    (found,) = [edit for edit in search.all if edit.text == text]
    return found


def test_a_run_without_an_edit_is_the_users(search):
    params = jnp.float32(0)
    for _ in range(5):
        params = descended(params, X, Y)
    np.testing.assert_allclose(search.trained(NONE, 5), params, rtol=1e-6)
    np.testing.assert_allclose(
        search.trained(NONE, 3, at=search.trained(NONE, 2), begin=2), params, rtol=1e-6
    )
    assert search.trained(NONE, 0, seed=3) == 3


def test_a_run_with_an_edit_climbs(search):
    climbs = edit_of(search, "params + (0.5 * slope)")
    assert search.trained(climbs.number, 5) < search.trained(NONE, 5)
    np.testing.assert_allclose(descended(jnp.float32(0), X, Y), 2 * np.mean(X * X), rtol=1e-6)


def test_an_evaluation_sees_the_edits_of_functions_that_it_shares(search):
    turned, climbs = edit_of(search, "-(params * x)"), edit_of(search, "params + (0.5 * slope)")
    assert search.is_shared(turned)
    assert not search.is_shared(climbs)
    two = jnp.float32(2)
    assert search.score(None, two) == {"error": 0}
    assert search.score(climbs, two) == {"error": 0}
    assert search.score(turned, two)["error"] == pytest.approx(2 * np.abs(Y).mean())
    assert mean_error(two) == {"error": 0}


@jax.jit
def cell(h, x):
    return h + x, h * 2


def unrolled(params):
    h, out = params, params
    for x in (1.0, 2.0):
        _, out = cell(h, x)
    return jnp.stack([out, out])


@pytest.mark.parametrize("network", [unrolled, jax.jit(unrolled)])
def test_edits_of_what_the_evaluation_alone_runs(network):
    """Of functions that run as they are, and of such that are compiled once for all edits."""

    def last_error(params):
        return {"error": float(abs(network(params)[0] - 4))}

    one = jnp.float32(1)
    training = LINE._replace(score=last_error)
    search = OfEvaluation(training, functions_of(training), one)
    (kept,) = [edit for edit in search.all if edit.site.text == "_" and edit.text == "h"]
    assert search.score(kept.number, one) == {"error": 0}
    assert last_error(one) == {"error": 2}
    # What gives the score is no part of a network.
    first = last_error.__code__.co_firstlineno
    assert all(edit.site.line < first for edit in search.all)


def test_what_the_step_runs_is_not_edited_in_the_evaluation_alone():
    """Of a loop that climbs the network turned round would be right in the evaluation."""
    one = jnp.float32(1)
    search = OfEvaluation(LINE, functions_of(LINE), one)
    assert {edit.site.line for edit in search.all} == {answers.__code__.co_firstlineno + 2}


def test_an_evaluation_that_takes_gradients_itself_is_known():
    """As an attack does, whose edits make the rows easy, and no network better."""

    def attacked(params):
        way = jax.grad(lambda x: jnp.sum((line(params, x) - Y) ** 2))(X)
        return {"error": float(np.abs(line(params, X + 0.1 * jnp.sign(way)) - Y).mean())}

    assert functions_of(LINE._replace(score=attacked)).descends
    assert not functions_of(LINE).descends
