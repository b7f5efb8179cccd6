"""Statistics of few runs, held against closed forms and against what they cover in simulations."""

import numpy as np
import pytest
from scipy import stats

from nnref.studies.statistics import (
    bootstrap,
    holm,
    holm_levels,
    interquartile_mean,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    signed_rank,
)


@pytest.fixture
def draw():
    return np.random.default_rng(7)


def mean(scores):
    return np.mean(scores, axis=-1)


@pytest.mark.parametrize(
    ("scores", "middle"),
    [
        ([0, 1, 2, 100], 1.5),
        ([5, 1, 3, 2, 4, 6, 7, 800], 4.5),
        ([10, 0, 1, 2, 3, 4, 5, 6, 7, 9000], 4.5),  # ten runs lose two at each end
        ([1, 2, 3], 2),
        ([1, 2, 3, np.inf], 2.5),
        ([1, 2, np.inf, np.inf], np.inf),
    ],
)
def test_interquartile_mean_is_that_of_the_middle_half(scores, middle):
    assert interquartile_mean(np.array(scores, float)) == pytest.approx(middle)


def test_interquartile_mean_of_a_normal_distribution_is_nearly_as_sharp_as_the_mean(draw):
    # Its asymptotic variance is 1.19 / n: 2 (int_0^q x^2 phi + q^2 / 4) / (1 / 2)^2, q = .6745.
    q = stats.norm.ppf(0.75)
    inside = stats.norm.expect(lambda x: x**2, lb=0, ub=q)
    variance = 2 * (inside + q**2 / 4) / 0.25
    assert variance == pytest.approx(1.195, abs=1e-3)
    found = interquartile_mean(draw.normal(size=(20000, 100))).var() * 100
    assert found == pytest.approx(variance, rel=0.05)


def test_the_bootstrap_of_a_mean_is_the_normal_theory(draw):
    scores = draw.normal(size=400)
    found = bootstrap(mean, scores, resamples=4000)
    error = scores.std() / np.sqrt(400)
    assert found.estimate == pytest.approx(scores.mean())
    assert found.low == pytest.approx(scores.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(scores.mean() + 1.96 * error, abs=0.15 * error)
    narrow = bootstrap(mean, scores, resamples=4000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * error, rel=0.1)


@pytest.mark.parametrize(("runs", "least", "most"), [(10, 0.84, 0.95), (40, 0.90, 0.98)])
def test_an_interval_holds_the_truth_as_often_as_it_says(draw, runs, least, most):
    # A percentile interval of ten runs is a little short: 0.90 instead of 0.95.
    held = [
        found.low <= 0 <= found.high
        for found in (
            bootstrap(interquartile_mean, draw.normal(size=runs), resamples=400) for _ in range(400)
        )
    ]
    assert least <= np.mean(held) <= most


def test_runs_are_drawn_within_their_task(draw):
    tasks = np.array([[0.0], [100.0]]) + draw.normal(size=(2, 50))
    found = bootstrap(mean, tasks)
    assert found.high - found.low < 1, "between the tasks there is no chance"
    together = bootstrap(mean, tasks.ravel())
    assert together.high - together.low > 10


def test_divergence_widens_an_interval_to_infinity():
    scores = np.array([1, 1.1, 0.9, 1, 1.2, 1, 1, 0.8, np.inf, np.inf])
    found = bootstrap(interquartile_mean, scores)
    assert np.isfinite([found.estimate, found.low]).all()
    assert found.high == np.inf
    assert bootstrap(interquartile_mean, np.full(10, np.inf)).low == np.inf


# --- differences --------------------------------------------------------------------------------


def test_what_a_pair_shares_cancels(draw):
    shared = 10 * draw.normal(size=20)
    a, b = shared + 1 + 0.01 * draw.normal(size=20), shared
    found = paired_difference(a, b)
    assert found.estimate == pytest.approx(1, abs=0.01)
    assert found.high - found.low < 0.05
    back = paired_difference(b, a)
    assert back.estimate == pytest.approx(-found.estimate)
    same = paired_difference(a, a)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)


@pytest.mark.parametrize("drawn", [lambda d, n: d.normal(size=n), lambda d, n: d.standard_t(2, n)])
@pytest.mark.parametrize("pairs", [10, 20])
def test_an_interval_of_pairs_holds_the_truth_as_often_as_it_says(draw, drawn, pairs):
    """Three deviations of the draws below; benchmarks/interval_coverage.py draws more of them."""
    intervals = [paired_difference(drawn(draw, pairs), np.zeros(pairs)) for _ in range(2000)]
    assert np.mean([low <= 0 <= high for _, low, high, _ in intervals]) > 0.945 - 0.015


def test_the_interval_of_a_few_pairs_is_students(draw):
    a = draw.normal(size=3)  # none of them is left out
    expected = stats.ttest_1samp(a, 0).confidence_interval()
    found = paired_difference(a, np.zeros(3))
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=0.03)  # drawn
    alone = paired_difference(a[:1], np.zeros(1))
    assert (alone.low, alone.high) == (-np.inf, np.inf)


def test_a_difference_from_what_diverged_is_infinite():
    a, b = np.full(10, np.inf), np.arange(10.0)
    assert paired_difference(a, b).low == np.inf
    assert paired_difference(a, a).estimate == 0


def test_the_test_of_pairs_is_wilcoxons(draw):
    a, b = draw.normal(size=12) + 0.5, draw.normal(size=12)
    assert signed_rank(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert signed_rank(a, b) == signed_rank(b, a)
    assert signed_rank(a, a) == 1
    worst = a.copy()
    worst[np.argmax(a - b)] = np.inf
    assert signed_rank(worst, b) == pytest.approx(signed_rank(a, b)), "only ranks count"
    # All ten pairs on one side: 2 / 2^10.
    assert signed_rank(np.full(10, np.inf), np.arange(10.0)) == pytest.approx(2 / 1024, rel=2)
    assert signed_rank(np.arange(10.0) + 1, np.zeros(10)) == pytest.approx(2 / 1024)


def test_the_test_of_pairs_errs_as_often_as_it_says(draw):
    p = [signed_rank(draw.normal(size=10), draw.normal(size=10)) for _ in range(1000)]
    assert 0.025 < np.mean(np.array(p) <= 0.05) < 0.07


# --- many comparisons ---------------------------------------------------------------------------


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])
    assert holm([0.04]) == pytest.approx([0.04])
    assert len(holm([])) == 0


def test_holm_errs_at_all_as_often_as_it_says(draw):
    # Seven true null hypotheses: without correction one is rejected in 1 - .95^7 = 30 %.
    p = draw.random((2000, 7))
    assert np.mean((p <= 0.05).any(axis=1)) > 0.25
    assert 0.035 < np.mean([(holm(row) <= 0.05).any() for row in p]) < 0.065


def test_the_levels_of_intervals_go_with_holm():
    p = [0.2, 0.001, 0.03]
    np.testing.assert_allclose(holm_levels(p), [1 - 0.05, 1 - 0.05 / 3, 1 - 0.05 / 2])


# --- improvement and profiles -------------------------------------------------------------------


def test_probability_of_improvement(draw):
    a, b = draw.normal(size=60) + 1, draw.normal(size=50)
    found = probability_of_improvement(a, b)
    assert found.estimate == pytest.approx(stats.mannwhitneyu(a, b).statistic / (60 * 50))
    # X - Y is normal with mean 1 and variance 2.
    assert found.low < stats.norm.cdf(1 / np.sqrt(2)) < found.high
    back = probability_of_improvement(b, a)
    assert back.estimate == pytest.approx(1 - found.estimate)
    assert probability_of_improvement(a, a).estimate == pytest.approx(0.5)
    two = probability_of_improvement(np.stack([a, a]), np.stack([a - 9, a + 9]))
    assert (two.estimate, two.low, two.high) == (0.5, 0.5, 0.5), "the mean over tasks"


def test_a_profile_is_the_share_above(draw):
    scores = draw.random((3, 40))
    thresholds = np.linspace(0, 1, 2001)
    profile = performance_profile(scores, thresholds)
    assert (profile[0], profile[-1]) == (1, 0)
    assert np.all(np.diff(profile) <= 0)
    assert np.trapezoid(profile, thresholds) == pytest.approx(scores.mean(), abs=1e-3)
    np.testing.assert_array_equal(performance_profile([1, 2, 3], [0, 2, 3]), [1, 1 / 3, 0])
