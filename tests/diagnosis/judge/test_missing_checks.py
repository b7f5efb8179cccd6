"""Rows with holes: NaN that reaches the parameters, and NaN that a loss leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import X, Y, drawn, network

import nnref
from nnref.diagnosis.api import recipe_from
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.missing_checks import left_out_by_the_metric, never_learned, without_code
from nnref.diagnosis.judge.skill import Outcome

HOLED = np.where(np.arange(128)[:, None] % 5 == 0, np.nan, Y).astype(np.float32)


def multiplied(outputs, y):
    heard = ~jnp.isnan(y)
    return jnp.sum((outputs - y) ** 2 * heard) / heard.sum()


def selected_behind(outputs, y):
    return jnp.where(jnp.isnan(y), 0, (outputs - y) ** 2).mean()


def selected_before(outputs, y):
    return (jnp.where(jnp.isnan(y), 0, outputs - y) ** 2).mean()


def as_they_are(outputs, y):
    return jnp.mean((outputs - y) ** 2)


@pytest.mark.parametrize(
    ("loss", "severity", "masked"),
    [
        (multiplied, "fault", True),
        (selected_behind, "fault", True),
        (as_they_are, "fault", False),
        (selected_before, "note", False),
    ],
)
def test_nan_is_a_fault_where_it_reaches_the_gradient(loss, severity, masked):
    task = nnref.Task(init=lambda key: drawn(), apply=network, loss=loss, train=(X, HOLED))
    found = nnref.diagnose(task)
    (finding,) = [finding for finding in found if finding.cause == "nonfinite_data"]
    assert finding.severity == severity
    assert ("test_missing_checks.py" in finding.where) == masked
    assert ("jnp.where(mask, error, 0)" in finding.remedy) == masked
    assert found.learns is None
    assert bool(found.faults) == (severity == "fault")


MAPS = (np.random.default_rng(0).random((500, 16)) < 0.3).astype(np.int32)
SEEN = (np.random.default_rng(1).normal(size=(500, 16)) + 2 * MAPS).astype(np.float32)
MISSING = np.random.default_rng(2).random(500)[:, None] < 0.5


def known(outputs, y):
    each = optax.sigmoid_binary_cross_entropy(outputs, y)
    return jnp.where(y < 0, 0, each).sum() / (y >= 0).sum()


@pytest.mark.parametrize(("fill", "causes"), [(0, ["corrupted_labels"]), (-1, [])])
def test_labels_that_were_filled_in_are_told_where_they_count(fill, causes):
    task = nnref.Task(
        init=lambda key: {"w": jnp.zeros((16, 16)), "b": jnp.zeros(16)},
        apply=lambda params, x: x @ params["w"] + params["b"],
        loss=known,
        train=(SEEN, np.where(MISSING, fill, MAPS).astype(np.float32)),
    )
    found = nnref.diagnose(task, optimizer=optax.adam(1e-2), epochs=30, effort=0.2)
    told = [finding.cause for finding in found.faults if "missing" in finding.evidence]
    assert told == causes


def letters(between, steps=30, rows=120):
    """One-hot sequences of four letters, some of which are 0 throughout, and the number of one."""
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, 4, (rows, steps))
    x = np.eye(4, dtype=np.float32)[symbols]
    if between:
        x[rows // 2 :, 8:16] = 0
    else:
        x[rows // 2 :, 20:] = 0
    return x, (rng.random(rows) < 0.5).astype(np.float32)


def of_letters(between):
    def init(key):
        return {"w": jax.random.normal(key, (120, 1)) / 11}

    def apply(params, x):
        return (x.reshape(len(x), -1) @ params["w"])[:, 0]

    x, y = letters(between)
    task = nnref.Task(
        init=init,
        apply=apply,
        loss=lambda o, y: optax.sigmoid_binary_cross_entropy(o, y).mean(),
        train=(x, y),
    )
    return Measurements(recipe_from(task, {"optimizer": optax.sgd(1e-3), "epochs": 1}))


@pytest.mark.parametrize(("between", "causes"), [(True, ["no_signal"]), (False, [])])
def test_letters_that_a_code_does_not_know(between, causes):
    """What fills sequences up stands at their ends."""
    measured = of_letters(between)
    found = list(without_code(measured, np.asarray(measured.recipe.train[0])))
    assert [finding.cause for finding in found] == causes
    assert all(finding.severity == "fault" for finding in found)


def test_letters_that_are_not_known_are_a_note_where_the_network_learns():
    measured = of_letters(True)
    measured.trained = Outcome(0.1, 0.9)
    (finding,) = without_code(measured, np.asarray(measured.recipe.train[0]))
    assert finding.severity == "note"


RATED = np.random.default_rng(3).random((128, 6)) < 0.5
STARS = np.rint(3 + 1.5 * np.tanh(X @ np.ones((2, 6)))) * RATED  # 0 where nobody has rated
RATINGS = STARS.astype(np.float32)


def of_rated(outputs, y):
    return jnp.sum(jnp.where(y > 0, (outputs - y) ** 2, 0)) / jnp.sum(y > 0)


def error_of_rated(outputs, y):
    return np.sqrt(np.mean(np.square(np.asarray(outputs) - np.asarray(y))[np.asarray(y) > 0]))


def error_of_all(outputs, y):
    return np.sqrt(np.mean(np.square(np.asarray(outputs) - np.asarray(y))))


@pytest.mark.parametrize(
    ("loss", "metric", "skill", "severity"),
    [
        (as_they_are, error_of_rated, 0.1, "fault"),
        (as_they_are, error_of_rated, 0.9, "note"),
        (as_they_are, error_of_all, 0.1, None),
        (of_rated, error_of_rated, 0.1, None),
        (as_they_are, None, 0.1, None),
    ],
)
def test_targets_that_the_metric_alone_leaves_out(loss, metric, skill, severity):
    task = nnref.Task(
        init=lambda key: {"w": jax.random.normal(key, (2, 6))},
        apply=lambda params, x: x @ params["w"],
        loss=loss,
        train=(X, RATINGS),
    )
    measured = Measurements(recipe_from(task, {"metric": metric}))
    measured.trained, measured.validated = Outcome(1.0, skill), None
    found = list(left_out_by_the_metric(measured, RATINGS))
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert measured.skill.left_out == (0 if loss is of_rated else None)
    assert measured.skill.fits == (loss is not of_rated)


SHOWN = np.random.default_rng(4).random((128, 6)) < 0.6
BOTH = np.stack([RATINGS, SHOWN], -1).astype(np.float32)


def of_shown(outputs, y):
    return jnp.mean(y[..., 1] * (outputs - y[..., 0]) ** 2)


def of_hidden(outputs, y):
    return jnp.mean((1 - y[..., 1]) * (outputs - y[..., 0]) ** 2)


def of_both(outputs, y):
    return jnp.mean((outputs - y[..., 0]) ** 2)


@pytest.mark.parametrize(
    ("loss", "metric", "told"),
    [
        (of_shown, of_hidden, True),
        (of_hidden, of_hidden, False),
        (of_hidden, of_both, False),  # of more than what is learned
        (of_both, of_hidden, False),
        (of_shown, None, False),
    ],
)
def test_a_metric_of_what_is_never_learned(loss, metric, told):
    task = nnref.Task(
        init=lambda key: {"w": jax.random.normal(key, (2, 6))},
        apply=lambda params, x: x @ params["w"],
        loss=loss,
        train=(X, BOTH),
    )
    found = list(never_learned(Measurements(recipe_from(task, {"metric": metric})), BOTH))
    assert [f.cause for f in found] == ["loss_mismatch"] * told


def test_an_accuracy_that_two_draws_share_by_chance_looks_where_the_loss_does():
    """Of shares the loss sees those of the right class that are above 0, whatever is drawn."""

    def cross_entropy(shares, y):
        return -jnp.mean(jnp.sum(y * jnp.log(jnp.clip(shares, 1e-7, 1)), -1))

    def accuracy(shares, y):
        return jnp.mean(shares.argmax(-1) == y.argmax(-1))

    for seed in range(6):
        y = np.eye(2, dtype=np.float32)[np.random.default_rng(seed).integers(2, size=128)]
        task = nnref.Task(
            init=lambda key: {"w": jax.random.normal(key, (2, 2))},
            apply=lambda params, x: jax.nn.softmax(x @ params["w"]),
            loss=cross_entropy,
            train=(X, y),
        )
        measured = Measurements(recipe_from(task, {"metric": accuracy}))
        assert not list(never_learned(measured, y))
