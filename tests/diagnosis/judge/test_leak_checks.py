"""Leaks: each check with data that trigger it, and a near miss."""

from types import SimpleNamespace

import numpy as np
import pytest

from nnref.diagnosis.data.targets import target_of
from nnref.diagnosis.judge.leak_checks import check

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(500, 5)).astype(np.float32)
HALF_TOLD = X[:, :1] + X[:, 1:2] + 1.5 * RANDOM.normal(size=(500, 1)).astype(np.float32)
DRAWN = RANDOM.normal(size=(500, 1)).astype(np.float32)
SERIES = np.lib.stride_tricks.sliding_window_view(
    np.cumsum(RANDOM.normal(size=511)).astype(np.float32), 12
)
DEALT = RANDOM.permutation(SERIES)
NAME = np.repeat(np.arange(50), 10)
PEOPLE = np.c_[RANDOM.normal(size=(50, 4))[NAME] + 0.1 * RANDOM.normal(size=(500, 4)), NAME]
OF_PEOPLE = RANDOM.normal(size=(50, 1))[NAME]
MIXED = RANDOM.permutation(500)
NEAREST = np.array([np.argsort(((X[:400] - row) ** 2).sum(1))[2] for row in X[:100]])


def said(x, y, held=None):
    measurements = SimpleNamespace(
        recipe=SimpleNamespace(
            train=(x[:400], y[:400]),
            valid=(x[400:] if held is None else held, y[400:]),
            test=None,
            inputs=None,
            column=str,
        ),
        skill=SimpleNamespace(target=target_of(y[:400], "regression"), takes_sides=False),
    )
    return [(finding.cause, finding.severity) for finding in check(measurements)]


TABLE = {
    "the target among columns that tell half of it": (
        (np.c_[X, 2 * HALF_TOLD], HALF_TOLD),
        ("leaked_targets", "fault"),
        (np.c_[X, 2 * HALF_TOLD + DRAWN], HALF_TOLD),
    ),
    "the target among columns that tell nothing": (
        (np.c_[X, 2 * DRAWN], DRAWN),
        ("leaked_targets", "note"),
        (np.c_[X, HALF_TOLD], DRAWN),
    ),
    "rows between training rows": (
        (X, HALF_TOLD, (0.3 * X[:100] + 0.7 * X[NEAREST])),
        ("repeated_rows", "note"),
        (X, HALF_TOLD),
    ),
    "training rows with a trace of noise": (
        (X, HALF_TOLD, X[:100] + RANDOM.normal(0, 1e-5, (100, 5))),
        ("repeated_rows", "note"),
        (X, HALF_TOLD, X[:100] + RANDOM.normal(0, 0.2, (100, 5))),
    ),
    "windows dealt at random": (
        (DEALT[:, :-1], DEALT[:, -1:]),
        ("repeated_rows", "note"),
        (SERIES[:, :-1], SERIES[:, -1:]),
    ),
    "people in both splits": (
        (PEOPLE[MIXED], OF_PEOPLE[MIXED]),
        ("repeated_rows", "note"),
        (PEOPLE, OF_PEOPLE),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_data_that_leak(name):
    trigger, expected, _ = TABLE[name]
    assert expected in said(*trigger)


@pytest.mark.parametrize("name", TABLE)
def test_data_that_nearly_do(name):
    _, expected, near = TABLE[name]
    assert expected not in said(*near)


@pytest.mark.parametrize("held", [X[400:, :3], X[400:] * np.nan])
def test_what_cannot_be_compared_is_left(held):
    assert said(X, HALF_TOLD, held) == []
