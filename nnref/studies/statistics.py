"""Statistics of few runs: what a comparison may claim, with intervals.

After Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the statistical precipice",
rliable): interquartile means instead of means or best runs, intervals instead of points. From SciPy
where it has them.

Scores are (runs,), or (tasks, runs) where several tasks are taken together: then the bootstrap is
stratified, runs are drawn within each task. Larger is better or worse as the caller has it;
divergence is infinite, and stays so.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Scores = np.ndarray
Statistic = Callable[[np.ndarray], np.ndarray]  # of (..., runs) pooled scores, over the last axis


class Interval(NamedTuple):
    """An estimate, and the interval that holds the truth in `level` of all experiments."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def interquartile_mean(scores: Scores, axis: int = -1) -> np.ndarray:
    """Mean of the middle half: the lowest and highest quarter of the runs are left out.

    As rliable and SciPy have it, n runs lose floor(n / 4) at each end. A run that diverged counts
    with its infinite score; the mean is infinite only where a quarter or more have.
    """
    return np.asarray(stats.trim_mean(scores, 0.25, axis=axis))


def bootstrap(
    statistic: Statistic,
    scores: Scores,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a statistic of all scores; runs are drawn within each task.

    Args:
        statistic: of scores, (..., tasks * runs), over the last axis.
        scores: (runs,) or (tasks, runs).
        level: share of experiments whose interval holds the truth.
        resamples: how many are drawn.
        seed: of the draws.

    Returns:
        The interval; its ends are infinite where the resamples are.
    """
    tasks = np.atleast_2d(np.asarray(scores, float))

    def pooled(*each: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(np.concatenate(np.broadcast_arrays(*each), axis=-1))

    estimate = float(pooled(*tasks))
    drawn = resampled(pooled, tasks, resamples, seed)
    tail = (1 - level) / 2
    # Between an infinite and a finite value there is no middle: take the outer one.
    low = np.quantile(drawn, tail, method="lower")
    high = np.quantile(drawn, 1 - tail, method="higher")
    return Interval(estimate, float(low), float(high), level)


def resampled(
    statistic: Callable[..., np.ndarray], samples: Iterable[np.ndarray], resamples: int, seed: int
) -> np.ndarray:
    """The statistic of each resample, (resamples,); SciPy draws them, sample by sample."""
    with np.errstate(invalid="ignore"):  # infinite scores have no variance
        result = stats.bootstrap(
            tuple(samples),
            statistic,
            n_resamples=resamples,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        )
    return result.bootstrap_distribution


def paired_difference(a: Scores, b: Scores, *, level: float = 0.95) -> Interval:
    """Interquartile mean of a - b over pairs of runs that differ in nothing else.

    The interval is the mean ± c times its error, as Student's: c is such that it holds the truth of
    normal differences as often as it says, whatever their number. A bootstrap of 10 pairs does not,
    nor does t with h - 1 degrees of freedom (docs/reliability.md). Where more pairs diverged than
    are left out it is a bootstrap.
    """
    differences = np.sort(subtracted(a, b).ravel())
    pairs = len(differences)
    estimate, error = mean_and_error(differences)
    if not np.isfinite(estimate):
        return bootstrap(interquartile_mean, differences, level=level)
    if pairs == 1:
        return Interval(float(estimate), -np.inf, np.inf, level)
    drawn = studentized(pairs)
    half = float(drawn[min(int(level * len(drawn)), len(drawn) - 1)] * error)
    return Interval(float(estimate), float(estimate) - half, float(estimate) + half, level)


def mean_and_error(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interquartile mean of scores (..., n) that rise, and its standard error.

    Of n scores g = floor(n / 4) are left out at each end, which leaves h = n - 2g. The error is
    sqrt(S / (h (h - 1))), S the sum of squares about their mean of all n, of which those left out
    are set to their nearest neighbour (Tukey and McLaughlin 1963); NaN for a score alone.
    """
    n = ordered.shape[-1]
    kept = ordered[..., n // 4 : n - n // 4]
    h = kept.shape[-1]
    winsorized = np.clip(ordered, kept[..., :1], kept[..., -1:])
    with np.errstate(invalid="ignore"):  # infinite scores, or one alone
        squares = np.var(winsorized, axis=-1) * n
        return kept.mean(-1), np.sqrt(squares / np.float64(h * (h - 1)))


@cache
def studentized(n: int) -> np.ndarray:
    """|mean| over error, see `mean_and_error`, of many draws of n normal scores; rising."""
    draws = min(100_000, max(4_000_000 // n, 1_000))
    drawn = np.random.default_rng(0).normal(size=(draws, n))
    drawn.sort(axis=-1)
    mean, error = mean_and_error(drawn)
    return np.sort(np.abs(mean) / error)


def subtracted(a: Scores, b: Scores) -> np.ndarray:
    """A - b; where both have diverged, neither was better: 0."""
    with np.errstate(invalid="ignore"):
        difference = np.asarray(a, float) - np.asarray(b, float)
    return np.where(np.isnan(difference), 0.0, difference)


def signed_rank(a: Scores, b: Scores) -> float:
    """Wilcoxon's signed-rank test that pairs of runs differ: its p, and 1 where none of them do."""
    difference = subtracted(a, b).ravel()
    if not difference.any():
        return 1.0
    # Only ranks count, so that a large number may stand for an infinite one.
    finite = np.abs(difference[np.isfinite(difference)]).max(initial=0.0)
    difference = np.clip(difference, -2 * finite - 1, 2 * finite + 1)
    tested: Any = stats.wilcoxon(difference, zero_method="zsplit")
    return float(tested.pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p values for their number (Holm 1979): p_(i) becomes max_{j<=i} (m - j + 1) p_(j).

    Rejecting what is below alpha, the chance of even one false rejection is at most alpha.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    corrected = np.minimum(1.0, np.maximum.accumulate(factors * p[order])) if len(p) else p
    return corrected[np.argsort(order)]


def holm_levels(p_values: Sequence[float], level: float = 0.95) -> np.ndarray:
    """The level of the interval of each difference that goes with Holm's correction.

    The smallest of m p values is held against alpha / m, the next one against alpha / (m - 1), ...
    """
    p = np.asarray(p_values, float)
    place = np.argsort(np.argsort(p))
    return 1 - (1 - level) / (len(p) - place)


def probability_of_improvement(
    a: Scores, b: Scores, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """P(X > Y) for a run X of a and a run Y of b, ties counting half; the mean over tasks.

    The Mann-Whitney statistic divided by the number of pairs, as in rliable; runs need not be
    paired.
    """
    a, b = (np.atleast_2d(np.asarray(each, float)) for each in (a, b))
    pairs = len(a)

    def share(*each: np.ndarray, axis: int = -1) -> np.ndarray:
        shares = []
        for x, y in zip(each[:pairs], each[pairs:], strict=True):
            above = (x[..., :, None] > y[..., None, :]).mean(axis=(-2, -1))
            equal = (x[..., :, None] == y[..., None, :]).mean(axis=(-2, -1))
            shares.append(above + equal / 2)
        return np.mean(shares, axis=0)

    drawn = resampled(share, [*a, *b], resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(share(*a, *b)), float(low), float(high), level)


def performance_profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """The share of runs above each threshold, the mean over tasks (Agarwal et al. 2021, eq. 1).

    Returns:
        (thresholds,), falling from 1 to 0 as the thresholds rise.
    """
    tasks = np.atleast_2d(np.asarray(scores, float))
    above = tasks[:, :, None] > np.asarray(thresholds)
    return above.mean(axis=1).mean(axis=0)
