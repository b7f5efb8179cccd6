"""Rows with holes: NaN that reaches the parameters, and NaN that a loss leaves out."""

import jax.numpy as jnp
import numpy as np
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
