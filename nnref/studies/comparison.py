"""Comparison: what the runs of an ablation on fresh seeds say of its alternatives."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from nnref.experiment.axes import short_names, value_in_words
from nnref.experiment.claims import Bounds
from nnref.experiment.experiment import Experiment
from nnref.logbook.pages import read_sweep_page
from nnref.logbook.verdicts import Record
from nnref.studies import statistics
from nnref.studies.groups import Group, Job, Variant, groups_of
from nnref.studies.statistics import Interval
from nnref.studies.sweep_record import SweepResult

LEVEL = 0.95
NEAR = 1.1  # a loss is near the best where it is at most so many times the best


@dataclass(frozen=True)
class Result:
    """The runs of one setting of an alternative on the fresh seeds."""

    settings: str
    scores: np.ndarray = field(repr=False)  # (seeds,); of a run that diverged the worst value
    middle: Interval  # interquartile mean
    diverged: int
    steps: tuple[float, ...] | None  # to the target: quartiles over seeds, infinite where never
    reached: int = 0  # seeds that have reached the target, and did not diverge later
    step: float | None = None  # seconds of a step of a run alone; None without a target

    @property
    def seconds(self) -> float:
        """Seconds of the median seed to the target; infinite where it never gets there."""
        assert self.steps is not None, "there is a target"
        assert self.step is not None, "and its steps have been timed"
        return self.steps[1] * self.step


@dataclass(frozen=True)
class Alternative:
    """One of the things compared."""

    name: str
    members: tuple[int, ...]  # its trials, by their place among the variants of the tuning
    tuned: Result
    default: Result | None  # the same where these are the tuned settings, None where there are none
    edges: tuple[str, ...]  # tuned values on the edge of their grid
    sensitivity: float  # share of the trials whose loss is near the best one
    curve: np.ndarray = field(repr=False)  # (3, epochs + 1): quartiles over seeds
    difference: Interval | None = None  # to the best, at its corrected level; None for the best
    p: float | None = None  # that there is none, corrected
    improvement: Interval | None = None  # probability that a run of the best is better

    @property
    def trials(self) -> int:
        """The number of settings that were tried."""
        return len(self.members)


@dataclass(frozen=True)
class Comparison:
    """The alternatives, the best first, and what can be concluded."""

    name: str
    axis: str
    metric: str
    seeds: tuple[int, ...]
    alternatives: tuple[Alternative, ...]
    profiles: tuple[np.ndarray, np.ndarray] = field(repr=False)  # thresholds, (alternatives, ...)
    tuning: SweepResult = field(repr=False)
    final: SweepResult = field(repr=False)
    warnings: tuple[str, ...] = ()
    target: str | None = None  # what the steps are counted to
    about: str = ""  # of the file

    @property
    def best(self) -> Alternative:
        """The alternative with the best interquartile mean."""
        return self.alternatives[0]

    @property
    def sentences(self) -> list[str]:
        """What can be concluded, and what cannot."""
        best, others = self.best, self.alternatives[1:]
        worse = [each.name for each in others if is_worse(each)]
        open_ = [each.name for each in others if not is_worse(each)]
        sentences = []
        if worse:
            sentences.append(
                f"{best.name} is better than {listed(worse)} here, at these budgets "
                f"({self.metric}, {len(self.seeds)} paired seeds, {LEVEL:.0%} for all together)."
            )
        if open_:
            these = open_[0] if len(open_) == 1 else f"any of {', '.join(open_)}"
            sentences.append(f"No difference can be claimed between {best.name} and {these} here.")
        return sentences


def is_worse(alternative: Alternative) -> bool:
    """Whether an alternative is worse than the best by both the interval and the test of pairs."""
    difference, p = alternative.difference, alternative.p
    assert difference is not None, "the best is not compared with itself"
    assert p is not None, "nor tested"
    return p < 1 - LEVEL and not difference.low <= 0 <= difference.high


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# --- from the runs to the comparison ------------------------------------------------------------


def result_of_setting(
    final: SweepResult,
    place: int,
    metric: str,
    lower: bool,
    paths: Sequence[str],
    timing: "Timing | None",
) -> Result:
    """The result of one setting, the variant `place` of the runs on the fresh seeds.

    The values at `paths` name it. `lower` says whether less of the metric is better; without a
    target there is no timing.
    """
    records = final.of(place)
    settings = values_in_words(final.variants[place].experiment, paths)
    result = result_of_records(records, metric, lower, settings)
    if timing is None:
        return result
    counts = steps_to(records, timing.target, timing.steps_per_epoch[place])
    steps = tuple(map(float, np.quantile(counts, [0.25, 0.5, 0.75], method="higher")))
    reached = int(np.isfinite(counts).sum())
    return replace(result, steps=steps, reached=reached, step=timing.seconds[place])


def result_of_records(
    records: Sequence[Record], metric: str, lower: bool, settings: str = ""
) -> Result:
    """The result of some runs of one setting, one for each seed."""
    scores = np.array([score(record, metric, lower) for record in records])
    diverged = sum(record.diverged for record in records)
    mean = statistics.bootstrap(statistics.interquartile_mean, scores, level=LEVEL)
    return Result(settings, scores, mean, diverged, None)


class Timing(NamedTuple):
    """How many steps lead to a target, and how long they take, by variant of the last runs."""

    target: Bounds
    steps_per_epoch: Mapping[int, int]
    seconds: Mapping[int, float]  # of a step


def timing_of(final: SweepResult, target: Bounds) -> Timing:
    """The steps of an epoch and the seconds of a step of each variant."""
    few = groups_of(final.variants, final.seeds[:1])
    groups = {job.variant: group for group in few for job in group.jobs}
    steps = {variant: group.setup.steps_per_epoch for variant, group in groups.items()}
    return Timing(target, steps, step_times(final, groups))


def profiles_of(alternatives: Sequence[Alternative], lower: bool) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, and of each alternative the share of its runs that are better than them."""
    every = np.concatenate([each.tuned.scores for each in alternatives])
    thresholds = np.unique(every[np.isfinite(every)])
    sign = -1 if lower else 1
    profiles = [
        statistics.performance_profile(sign * each.tuned.scores, sign * thresholds)
        for each in alternatives
    ]
    return thresholds, np.array(profiles)


def too_few(alternatives: int, seeds: int) -> list[str]:
    """A warning where no difference could be claimed, even if it had one sign in all pairs."""
    pairs = alternatives * (alternatives - 1) // 2
    if pairs * 2.0 ** (1 - seeds) < 1 - LEVEL:
        return []
    return [
        f"{seeds} fresh seeds are too few to tell {alternatives} alternatives apart, whatever they "
        "do: give sweep.fresh more"
    ]


def against_best(alternatives: Sequence[Alternative], lower: bool) -> list[Alternative]:
    """All alternatives but the best, which is the first, with their difference to the best.

    The same runs have decided which one is the best. So p values and intervals are corrected for
    all pairs of alternatives, not only for the pairs with the best.
    """
    scores = [each.tuned.scores for each in alternatives]
    pairs = list(combinations(range(len(alternatives)), 2))
    tests = [statistics.signed_rank(scores[b], scores[a]) for a, b in pairs]
    ps, levels = statistics.holm(tests), statistics.holm_levels(tests, LEVEL)
    others = []
    for (a, b), p, level in zip(pairs, ps, levels, strict=True):
        if a == 0:
            better = (scores[b], scores[0]) if lower else (scores[0], scores[b])
            difference = statistics.paired_difference(scores[b], scores[0], level=float(level))
            improvement = statistics.probability_of_improvement(*better)
            others.append(
                replace(alternatives[b], difference=difference, p=float(p), improvement=improvement)
            )
    return others


def values_in_words(experiment: Experiment, paths: Sequence[str]) -> str:
    """The values of an experiment at some paths, with short names: `learning_rate 0.1`."""
    words = []
    for name, path in zip(short_names(paths), paths, strict=True):
        value = experiment.model_dump(mode="json", by_alias=True)
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        value = float(f"{value:.3g}") if isinstance(value, float) else value
        words.append(f"{name} {value_in_words(value)}")
    return ", ".join(words)


TIMED = "seconds_per_step"  # the key of the step times on the page of the last runs


def step_times(final: SweepResult, groups: Mapping[int, Group]) -> dict[int, float]:
    """Seconds of a step of each variant: measured once, and written on the page."""
    if final.page is not None:
        measured = read_sweep_page(final.page).facts.get(TIMED)
        if measured is not None:
            return dict(enumerate(json.loads(measured)))
    timed = [seconds_of_step(groups[place], place) for place in range(len(final.variants))]
    if final.page is not None:
        with suppress(OSError), final.page.open("a", encoding="utf-8") as stream:
            stream.write(f"// {TIMED}: {json.dumps(timed)}\n")
    return dict(enumerate(timed))


def seconds_of_step(group: Group, variant: int) -> float:
    """Seconds of a step of a run alone, once compiled, evaluation after each epoch included."""
    job = Job(variant, 0)
    best = np.inf
    for _ in range(3):  # the first one compiles
        began, epochs = time.perf_counter(), 0
        for chunk in group.fit([job]):
            epochs = chunk.first + len(chunk.active) - 1
            if time.perf_counter() - began > 1.0:
                break
        spent = time.perf_counter() - began
        best = min(best, spent / max(1, epochs * group.setup.steps_per_epoch))
    return float(f"{best:.3g}")


def steps_to(records: Sequence[Record], target: Bounds, epoch: int) -> list[float]:
    """Steps of each run to a target; infinite where the run never gets there, or diverges later.

    `epoch` is the number of steps of an epoch.
    """
    first = [None if record.diverged else record.epochs_to(target) for record in records]
    return [np.inf if epochs is None else float(epochs * epoch) for epochs in first]


def score(record: Record, metric: str, lower: bool) -> float:
    """A measure at the end of a run; where the run diverged, the worst value.

    The worst value is infinity where a smaller value is better (`lower`), and 0 otherwise.
    """
    value = np.nan if record.diverged else record.final(metric)
    if np.isnan(value):
        return np.inf if lower else 0.0
    return value


def edges_of(trials: Sequence[Variant], winner: Variant, axis: str) -> tuple[str, ...]:
    """Warnings of tuned values that are the smallest or the largest of three or more tried."""
    warnings = []
    for setting in winner.settings:
        if setting.path == axis or isinstance(setting.value, bool | str | dict | list):
            continue
        tried = sorted(
            {s.value for variant in trials for s in variant.settings if s.path == setting.path}
        )
        if len(tried) >= 3 and setting.value in (tried[0], tried[-1]):
            side = "smallest" if setting.value == tried[0] else "largest"
            warnings.append(
                f"the best {setting.path}, {setting.value:g}, is the {side} that was tried; "
                "the true best may lie beyond"
            )
    return tuple(warnings)


def quartiles(records: Sequence[Record], measure: str) -> np.ndarray:
    """Quartiles of a measure over seeds for each epoch, (3, epochs + 1), infinite if diverged."""
    longest = max(record.epochs for record in records) + 1
    rows = []
    for record in records:
        values = record.history[measure]
        rest = np.inf if record.diverged else values[-1]
        rows.append(np.concatenate([values, np.full(longest - len(values), rest)]))
    table = np.where(np.isnan(rows), np.inf, rows)
    return np.quantile(table, [0.25, 0.5, 0.75], axis=0, method="higher")
