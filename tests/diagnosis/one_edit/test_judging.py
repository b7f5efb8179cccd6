"""Which edit cures, and which one only seems to."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnosis.one_edit import judging
from nnref.diagnosis.one_edit.judging import Outcome, identical, rank, the_best
from nnref.diagnosis.one_edit.rewriting import Site
from nnref.diagnosis.one_edit.scale import Scale
from nnref.diagnosis.one_edit.search import Edited, Trained, functions_of

DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(64, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)
SHARES = jnp.array([0.2, 0.8])
NOISY = (Y + DRAWN.normal(size=64)).astype(np.float32)


def line(params, x):
    return x @ params["w"] + params["b"]


def pinball(params, x, y, sign):
    """The loss of quantiles; with a sign of -1 of those of the other end, without a bound."""
    over = sign * (y[:, None] - line(params, x))
    return jnp.mean(jnp.maximum(SHARES * over, (SHARES - 1) * over))


def swapped(params, x, y):
    over = line(params, x) - y[:, None]
    return jnp.mean(jnp.maximum(SHARES * over, (SHARES - 1) * over))


def right(params, x, y):
    over = y[:, None] - line(params, x)
    return jnp.mean(jnp.maximum(SHARES * over, (SHARES - 1) * over))


def covered(params):
    """How far the shares of targets beneath the quantiles are off."""
    beneath = np.mean(NOISY[:, None] <= np.asarray(line(params, X)), axis=0)
    return {"error": float(np.abs(beneath - np.asarray(SHARES)).mean())}


def training(loss, rate=0.3, score=covered):
    def start(seed):
        w = jax.random.normal(jax.random.key(seed), (3, 2))
        return {"w": w, "b": jnp.full(2, -2.0)}

    @jax.jit
    def step(params, batch, key):
        slopes = jax.grad(loss)(params, *batch)
        return jax.tree.map(lambda p, g: p - rate * g, params, slopes)

    return Trained(start, step, lambda place, seed: [X, NOISY], score, jax.random.key(0))


def cured(training, scale, seconds):
    return judging.cured(training, functions_of(training), scale, seconds)


SCALE = Scale("error", larger_is_better=False, start=0.5)


def test_the_edit_that_was_meant_is_found_with_its_line():
    found = cured(training(swapped), SCALE, 5.0).finding
    assert found.cause == "wrong_expression"
    assert found.remedy.startswith("y[:, None] - line(params, x) instead of")
    assert f":{swapped.__code__.co_firstlineno + 1}: over = line" in found.where
    assert "it holds in each" in found.evidence


def test_a_training_that_is_right_has_no_edit():
    assert cured(training(right), SCALE, 1.0) is None


def light(params, x, y):
    over = y[:, None] - line(params, x)
    weights = jnp.full_like(over, 0.05)
    return jnp.mean(weights * jnp.maximum(SHARES * over, (SHARES - 1) * over))


def test_a_training_that_is_merely_slow_has_none(monkeypatch):
    """Light weights, which an edit leaves out: twenty times the steps bring as much without it."""
    assert "weights *" in str(cured(training(light), SCALE, 0.1))
    monkeypatch.setattr(judging, "SLOWER", (25, 25))
    assert cured(training(light), SCALE, 0.1) is None


def off(params, x):
    aim, reached = jnp.full(len(x), 3.0), line(params, x)[:, 0] / 1e4 + 1
    return aim - reached


def test_an_edit_that_makes_the_untrained_network_good_is_none():
    """Without the aim the error is half as large, before any step: it is counted otherwise."""

    def loss(params, x, y):
        return jnp.mean(off(params, x) ** 2)

    def error(params):
        return {"error": float(np.abs(np.asarray(off(params, X))).mean())}

    assert cured(training(loss, score=error), Scale("error", False, 2.0), 1.0) is None


@pytest.mark.parametrize(("bounded", "tried"), [(True, 2), (False, 1)])
def test_an_edit_of_what_is_counted_cures_only_towards_a_known_best(bounded, tried):
    """Of a density the best is not known; and no error is less than 0."""
    network, own = edit("a * b", "a / b"), edit("a + b", "a - b")
    values = {None: 0.5, network: -4.0, own: 0.1}
    search = SimpleNamespace(
        all=[network, own],
        work=1.0,
        is_shared=lambda edit: edit is network,
        score=lambda edit, arrays: {"e": values[edit]},
        seconds=lambda edit, steps: 0.1,
    )
    judge = judging.Judge(search, Scale("e", False, 0.5, bounded), 1.0)
    assert len(judge.edits) == tried
    errors = [judge.error(each, {}) for each in (None, network, own)]
    assert errors == [0.5, np.inf if bounded else -4.0, 0.1]
    assert judge.error(own, None) == np.inf


def edit(text, new):
    return Edited(0, Site("made_up.py", 1, (0, 1), text, ()), new)


def test_likely_edits_come_first():
    order = [
        edit("_", "h"),
        edit("obs", "next_obs"),
        edit("a + b", "a - b"),
        edit("jnp.flip(x)", "x"),
        edit("a * b", "a * (1 - b)"),
        edit("a * b", "a * jax.lax.stop_gradient(b)"),
    ]
    ranks = [rank(one) for one in order]
    assert rank(edit("obs", "reward")) > rank(edit("obs", "next_obs"))
    assert ranks[0] == ranks[2] == 0
    assert ranks[3] < ranks[4] < ranks[5]


def test_edits_that_are_as_good_as_the_best_one():
    far, near = edit("a * b", "a * (1 - b)"), edit("a + b", "a - b")
    found = [
        Outcome(far, [1.0, 1.0], [0.1, 0.1]),
        Outcome(near, [1.0, 1.0], [0.2, 0.1]),
        Outcome(near, [1.0, 1.0], [0.6, 0.1]),
    ]
    assert [outcome.gain for outcome in found] == pytest.approx([0.9, 0.8, 0.4])
    assert the_best(found) == [found[1], found[0]]
    assert the_best([]) == []


@pytest.mark.parametrize(
    ("without", "with_edit", "cures"),
    [
        ([90.0, 11.0, 43.0], 0.5, True),  # one stands well by chance
        ([90.0, 11.0, 43.0], 30.0, False),  # and the edit does no better than it
        ([9.0, 11.0, 90.0], 0.5, False),  # the usual run has learned
    ],
)
def test_a_run_that_climbs_and_falls_may_stand_well_by_chance(without, with_edit, cures):
    edit = Edited(0, Site("made_up.py", 1, (0, 1), "y - z", ()), "z - y")
    judge = SimpleNamespace(
        best=lambda: ([(with_edit, edit, {})], 60),
        scale=Scale("error", False, 111.0),
        without=lambda steps, seed=0: without[seed],
        after=lambda edit, steps, seed: with_edit,
        with_time=lambda steps: without[0],
    )
    assert bool(judging.Judge.outcomes(judge)) == cures


@pytest.mark.parametrize(("errors", "changes"), [([9.0] * 4, True), ([9.0, 11.0, 9.0, 9.0], False)])
def test_an_edit_that_changes_what_is_counted_makes_every_untrained_network_better(errors, changes):
    judge = SimpleNamespace(
        search=SimpleNamespace(is_shared=lambda edit: True),
        scale=Scale("error", False, 10.0),
        untrained=[(number, 10.0) for number in range(4)],
        error=lambda edit, state: errors[state],
    )
    assert judging.Judge.changes_the_score(judge, None) == changes
    other = judging.exchanged({"w": jnp.arange(20.0).reshape(4, 5), "n": jnp.arange(3)}, 1)
    assert other["w"].shape == (4, 5)
    assert sorted(other["w"].ravel().tolist()) == [*range(20)] != other["w"].ravel().tolist()
    assert other["n"].tolist() == [0, 1, 2]


def test_the_same_state():
    one = {"w": jnp.array([1.0, jnp.nan]), "key": jax.random.key(0)}
    assert identical(one, {"w": jnp.array([1.0, jnp.nan]), "key": jax.random.key(0)})
    assert not identical(one, {"w": jnp.array([1.0, 2.0]), "key": jax.random.key(0)})
    assert not identical(one, {"w": jnp.array([1.0, jnp.nan]), "key": jax.random.key(1)})
    assert not identical(one, {"w": jnp.array([1.0, 0.0]), "key": jax.random.key(0)})
