"""Comparison: scores, edges, corrected differences, and warnings."""

from types import SimpleNamespace

import numpy as np
import pytest

from nnref.experiment.axes import Setting
from nnref.experiment.claims import Bounds
from nnref.logbook.verdicts import Record
from nnref.studies.comparison import (
    Alternative,
    Result,
    against_best,
    edges_of,
    is_worse,
    quartiles,
    score,
    steps_to,
    too_few,
)
from nnref.studies.groups import Variant
from nnref.studies.statistics import Interval, interquartile_mean, signed_rank


def record(values, ending="", **test):
    return Record(0, {"valid_loss": np.array(values, np.float32)}, ending, test)


def test_divergence_is_the_worst_score():
    wild = record([1, np.nan], "diverged at epoch 1", test_loss=0.1, test_accuracy=0.9)
    assert score(wild, "test_loss", lower=True) == np.inf
    assert score(wild, "test_accuracy", lower=False) == 0
    assert score(record([1, 0.5]), "valid_loss", lower=True) == 0.5
    target = Bounds(metric="valid_loss", at_most=0.5)
    runs = [record([1, 0.4, np.nan], "diverged at epoch 2"), record([1, 0.6]), record([1, 1, 0.5])]
    assert steps_to(runs, target, 7) == [np.inf, np.inf, 14]
    bands = quartiles(
        [record([1, 2, 3]), record([1, np.nan], "diverged"), record([1, 4])], "valid_loss"
    )
    np.testing.assert_array_equal(bands[1], [1, 4, 4])
    np.testing.assert_array_equal(bands[2], [1, np.inf, np.inf])


def variant(**values):
    return Variant(tuple(Setting(path, value, "") for path, value in values.items()), None)


@pytest.mark.parametrize(("best", "warned"), [(0.1, "smallest"), (1.0, None), (10.0, "largest")])
def test_a_best_value_on_the_edge_of_its_grid_is_told(best, warned):
    trials = [variant(optimizer="sgd", rate=rate, nesterov=True) for rate in (1.0, 0.1, 10.0)]
    told = edges_of(trials, variant(optimizer="sgd", rate=best, nesterov=True), "optimizer")
    assert len(told) == (warned is not None)
    assert warned is None or f"the best rate, {best:g}, is the {warned} that was tried" in told[0]
    assert not edges_of(trials[:2], trials[0], "optimizer"), "two values have no middle"


@pytest.mark.parametrize(
    ("low", "high", "p", "worse"),
    [
        (0.1, 0.2, 0.01, True),
        (-0.1, 0.2, 0.01, False),
        (0.1, 0.2, 0.06, False),
        (0.1, np.inf, 0.01, True),
    ],
)
def test_worse_is_what_interval_and_test_say(low, high, p, worse):
    given = SimpleNamespace(difference=Interval(0.15, low, high), p=p)
    assert is_worse(given) is worse


@pytest.mark.parametrize(("alternatives", "seeds", "warned"), [(8, 10, 1), (7, 10, 0), (8, 12, 0)])
def test_too_few_seeds_for_any_claim_are_told(alternatives, seeds, warned):
    assert len(too_few(alternatives, seeds)) == warned
    # No p of Wilcoxon's test is smaller than that of one sign throughout.
    smallest = (
        alternatives * (alternatives - 1) / 2 * signed_rank(np.arange(seeds), -np.ones(seeds))
    )
    assert (smallest >= 0.05) == warned


def alternative(name, scores):
    middle = Interval(float(interquartile_mean(scores)), 0, 1)
    return Alternative(name, (0,), Result("", scores, middle, 0, None), None, (), 0.5, None)


def test_the_others_are_compared_with_the_first():
    draw = np.random.default_rng(1)
    base = draw.normal(size=20)
    ramp = np.linspace(-0.1, 0.1, 20)
    scores = (base, base + 1 + ramp, base + 2 + 3 * ramp)
    found = [alternative(name, each) for name, each in zip("abc", scores, strict=True)]
    b, c = against_best(found, lower=True)
    assert (b.difference.estimate, c.difference.estimate) == pytest.approx((1, 2))
    assert b.p == pytest.approx(3 * 2.0 ** (1 - 20)), "three pairs, one sign in all twenty"
    levels = {each.difference.level for each in (b, c)}
    assert {round(1 - level, 9) for level in levels} < {round(0.05 / m, 9) for m in (1, 2, 3)}
    share = np.mean(found[2].tuned.scores[:, None] > base)
    assert c.improvement.estimate == pytest.approx(share)
    assert against_best(found, lower=False)[1].improvement.estimate == pytest.approx(1 - share)
