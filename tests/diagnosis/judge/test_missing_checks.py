"""Rows with holes: NaN that reaches the parameters, and NaN that a loss leaves out."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import X, Y, drawn, network

import nnref

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
