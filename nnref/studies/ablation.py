"""Ablation: the alternatives of one axis, compared so that the answer can be believed.

Every alternative is tuned with the same number of trials on the validation loss. The winners, and
the alternatives at their defaults, run once more on fresh seeds, the same for all: there the runs
of two alternatives are pairs, with the same order of the data and, where shapes are the same, the
same first weights. Only now are the test data looked at.
"""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nnref.errors import UserError, nearest
from nnref.experiment.axes import Setting, kind_of_axis, short_names, value_in_words
from nnref.experiment.claims import Bounds
from nnref.experiment.experiment import Experiment, Mistakes
from nnref.experiment.text import set_path
from nnref.logbook.pages import SweepPage, read_sweep_page
from nnref.logbook.verdicts import Record
from nnref.parts.metrics import lower_is_better
from nnref.studies.groups import Group, Job, Variant, groups_of
from nnref.studies.run import measures_of
from nnref.studies.statistics import (
    Interval,
    bootstrap,
    holm,
    holm_levels,
    interquartile_mean,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    signed_rank,
)
from nnref.studies.sweep import sweep
from nnref.studies.sweep_page import known
from nnref.studies.sweep_record import Planned, SweepListener, Swept, planned
from nnref.training.loop import fit

LEVEL = 0.95
NEAR = 1.1  # a loss at most so many times the best is near it


@dataclass(frozen=True)
class Result:
    """What the fresh seeds say of one setting of an alternative."""

    settings: str
    scores: np.ndarray = field(
        repr=False
    )  # (seeds,), infinite or, of an accuracy, 0 where diverged
    middle: Interval  # interquartile mean
    diverged: int
    steps: tuple[float, ...] | None  # to the target: quartiles over seeds, infinite where never
    reached: int = 0  # seeds that have reached it, and did not diverge later
    step: float | None = None  # seconds of a step of a run alone; None without a target

    @property
    def seconds(self) -> float:
        """To the target, of the median seed; infinite where it never arrives."""
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
        """How many settings were tried."""
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
    tuning: Swept = field(repr=False)
    final: Swept = field(repr=False)
    warnings: tuple[str, ...] = ()
    target: str | None = None  # what the steps are counted to
    about: str = ""  # of the file

    @property
    def best(self) -> Alternative:
        """That with the best interquartile mean."""
        return self.alternatives[0]

    @property
    def sentences(self) -> list[str]:
        """What can be concluded, and what cannot."""
        best, others = self.best, self.alternatives[1:]
        worse = [each.name for each in others if is_worse(each)]
        open_ = [each.name for each in others if not is_worse(each)]
        said = []
        if worse:
            said.append(
                f"{best.name} is better than {listed(worse)} here, at these budgets "
                f"({self.metric}, {len(self.seeds)} paired seeds, {LEVEL:.0%} for all together)."
            )
        if open_:
            these = open_[0] if len(open_) == 1 else f"any of {', '.join(open_)}"
            said.append(f"No difference can be claimed between {best.name} and {these} here.")
        return said


def is_worse(alternative: Alternative) -> bool:
    """Whether both the interval of the difference to the best and the test of pairs say so."""
    difference, p = alternative.difference, alternative.p
    assert difference is not None, "the best is not compared with itself"
    assert p is not None, "nor tested"
    return p < 1 - LEVEL and not difference.low <= 0 <= difference.high


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class Protocol:
    """What is going to be compared, and how."""

    plan: Planned  # of the tuning
    axis: str
    members: Mapping[str, Sequence[int]]  # the variants of each alternative, by its name
    metric: str

    @property
    def trials(self) -> int:
        """Of each alternative."""
        return len(next(iter(self.members.values())))

    @cached_property
    def expected(self) -> Planned:
        """The last runs, as far as they are known before the tuning."""
        return final_of(self, {name: numbers[0] for name, numbers in self.members.items()})[0]


def protocol(path: str | Path) -> Protocol:
    """Read a sweep file, and refuse what would be no fair comparison.

    Raises:
        UserError: for mistakes in the file, budgets that differ, or too few seeds.
    """
    plan = planned(path)
    axis = main_axis(plan)
    members = alternatives_of(plan, axis)
    refuse_unequal(axis, {name: len(numbers) for name, numbers in members.items()})
    return Protocol(plan, axis, members, metric_of(plan))


def ablate(
    given: Protocol | str | Path,
    *,
    logbook: str | Path | None = "logbook",
    listener: SweepListener | None = None,
) -> Comparison:
    """Compare the alternatives of the main axis of a sweep file.

    Args:
        given: the protocol, or the path of the file.
        logbook: folder of the pages; what it has is not run again.
        listener: hears how it goes.

    Raises:
        UserError: for mistakes in the file, budgets that differ, or too few seeds.
    """
    asked = given if isinstance(given, Protocol) else protocol(given)

    def done(plan: Planned) -> Swept:
        there = None if logbook is None else known(plan, Path(logbook))
        return there or sweep(plan, logbook=logbook, listener=listener)

    tuning = done(asked.plan)
    final_plan, rows = final_of(asked, best_of(asked, tuning))
    return compared(asked, tuning, done(final_plan), rows)


def comparison_at(page: SweepPage) -> Comparison | None:
    """The comparison that a page is part of; None where its runs are not all done."""
    logbook = page.path.parent.parent
    try:
        asked = protocol(page.path)
        tuning = known(asked.plan, logbook)
        if tuning is None:
            return None
        final_plan, rows = final_of(asked, best_of(asked, tuning))
        final = known(final_plan, logbook)
    except UserError:  # no comparison, or its data are not here
        return None
    return None if final is None else compared(asked, tuning, final, rows)


def best_of(asked: Protocol, tuning: Swept) -> dict[str, int]:
    """The tuned variant of each alternative; what halving has dropped is behind what went on."""
    place = tuning.ranking.index
    return {name: min(numbers, key=place) for name, numbers in asked.members.items()}


def main_axis(plan: Planned) -> str:
    """The path of what is compared."""
    assert plan.experiment.sweep is not None, "a plan has a sweep"
    axes, compare = plan.experiment.sweep.axes, plan.experiment.sweep.compare
    if compare is None:
        return next(iter(axes))
    if compare not in axes:
        raise UserError(
            f'sweep.compare: "{compare}" given; allowed: {", ".join(axes)}{nearest(compare, axes)}'
        )
    return compare


def setting_at(variant: Variant, path: str) -> Setting:
    return next(setting for setting in variant.settings if setting.path == path)


def alternatives_of(plan: Planned, axis: str) -> dict[str, list[int]]:
    """The variants of each alternative, by its name."""
    assert plan.experiment.sweep is not None, "a plan has a sweep"
    given = plan.experiment.sweep.axes[axis].drawn(axis)
    members: dict[str, list[int]] = {}
    for number, variant in enumerate(plan.variants):
        setting = setting_at(variant, axis)
        place = setting.source.rpartition(".")[2]
        # What varies inside it is no part of its name.
        whole = given[int(place)] if isinstance(setting.value, dict) else setting.value
        members.setdefault(name_of(whole), []).append(number)
    if len(members) < 2:
        raise UserError(f"sweep.axes.{axis}: one alternative alone is not compared; give another")
    return members


def name_of(value: Any) -> str:
    """An alternative in a few words: without the axes inside it, unless it is nothing else."""
    if not isinstance(value, dict):
        return value_in_words(value)
    fixed = {k: v for k, v in value.items() if not (isinstance(v, dict) and kind_of_axis(v))}
    if "name" in value or fixed == value:
        return value_in_words(fixed)
    return " ".join(f"{k} {value_in_words(v)}" if k in fixed else k for k, v in value.items())


def refuse_unequal(axis: str, budgets: Mapping[str, int]) -> None:
    """Refuse a comparison in which some have more trials than others.

    Raises:
        UserError: with the trials of each.
    """
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{name} {trials}" for name, trials in budgets.items())
        raise UserError(
            f"sweep.axes.{axis}: who is tried more often, wins more often; trials: {told}. Give "
            "each the same number, most easily with random axes, which are drawn together"
        )


def final_of(
    asked: Protocol, chosen: Mapping[str, int]
) -> tuple[Planned, dict[str, tuple[int, int | None]]]:
    """The runs on fresh seeds, and of each alternative which are tuned and which at defaults."""
    plan, axis = asked.plan, asked.axis
    assert plan.experiment.sweep is not None, "a plan has a sweep"
    count = plan.experiment.sweep.fresh
    seeds = tuple(range(max(plan.seeds) + 1, max(plan.seeds) + 1 + count))
    variants: list[Variant] = []
    places: dict[str, int] = {}

    def added(variant: Variant) -> int:
        if variant.experiment.identity not in places:
            places[variant.experiment.identity] = len(variants)
            variants.append(variant)
        return places[variant.experiment.identity]

    rows: dict[str, tuple[int, int | None]] = {}
    for name, numbers in asked.members.items():
        tuned = added(plan.variants[chosen[name]])
        default = at_defaults(plan, plan.variants[numbers[0]], axis)
        rows[name] = (tuned, None if default is None else added(default))
    groups = groups_of(variants, seeds)
    final = Planned(plan.name, plan.experiment, variants, groups, seeds, fresh=True)
    return final, rows


def at_defaults(plan: Planned, variant: Variant, axis: str) -> Variant | None:
    """An alternative as it comes, everything else as in the file; None where that is nothing."""
    setting = setting_at(variant, axis)
    if isinstance(setting.value, dict) and "name" not in setting.value:
        return None  # a strength that is left out is no default
    content = plan.experiment.model_dump(mode="json", by_alias=True, exclude={"sweep"})
    set_path(content, axis, copy.deepcopy(setting.value))
    try:
        return Variant((Setting(axis, setting.value, "defaults"),), Experiment(**content))
    except Mistakes:
        return None


def metric_of(plan: Planned) -> str:
    """What the comparison is about: of the test data, or where there are none of the validation."""
    sweep = plan.experiment.sweep
    assert sweep is not None, "a plan has a sweep"
    known = [name for name in measures_of(plan.groups[0].task) if name != "epochs"]
    default = next(name for name in ("test_loss", "valid_loss", "train_loss") if name in known)
    metric = sweep.metric or default
    if metric not in known:
        raise UserError(
            f'sweep.metric: "{metric}" given; allowed: {", ".join(known)}{nearest(metric, known)}'
        )
    seen = [name for name in known if not name.startswith("test_")]
    if sweep.target is not None and sweep.target.metric not in seen:
        raise UserError(
            f'sweep.target.metric: "{sweep.target.metric}" given; allowed: {", ".join(seen)}'
            f"{nearest(sweep.target.metric, seen)}"
        )
    return metric


# --- from the runs to the comparison ------------------------------------------------------------


def compared(
    asked: Protocol,
    tuning: Swept,
    final: Swept,
    rows: Mapping[str, tuple[int, int | None]],
) -> Comparison:
    """The comparison, from runs that are done."""
    plan, axis, metric = asked.plan, asked.axis, asked.metric
    sweep = plan.experiment.sweep
    assert sweep is not None, "a plan has a sweep"
    lower = lower_is_better(metric, plan.groups[0].task.functions.metrics)
    groups = {
        job.variant: group
        for group in groups_of(final.variants, final.seeds[:1])
        for job in group.jobs
    }
    timed = {} if sweep.target is None else step_times(final, groups)

    def result(place: int, paths: Sequence[str]) -> Result:
        records = final.of(place)
        scores = np.array([score(record, metric, lower) for record in records])
        steps, there = None, 0
        if sweep.target is not None:
            of = steps_to(records, sweep.target, groups[place].setup.steps_per_epoch)
            there = int(np.isfinite(of).sum())
            steps = tuple(map(float, np.quantile(of, [0.25, 0.5, 0.75], method="higher")))
        told = values_in_words(final.variants[place].experiment, paths)
        diverged = sum(record.diverged for record in records)
        middle = bootstrap(interquartile_mean, scores, level=LEVEL)
        return Result(told, scores, middle, diverged, steps, there, timed.get(place))

    found = []
    for name, (tuned, default) in rows.items():
        numbers = asked.members[name]
        trials = [plan.variants[number] for number in numbers]
        winner = trials[numbers.index(best_of(asked, tuning)[name])]
        paths = [s.path for s in winner.settings if s.path != axis]
        ours = result(tuned, paths)
        losses = np.array([tuning.final(number) for number in numbers])
        near = float(np.mean(losses <= NEAR * losses.min())) if np.isfinite(losses.min()) else 0.0
        found.append(
            Alternative(
                name,
                tuple(numbers),
                ours,
                ours if default == tuned else None if default is None else result(default, paths),
                edges_of(trials, winner, axis),
                near,
                quartiles(final.of(tuned), tuning.loss),
            )
        )
    found.sort(
        key=lambda each: each.tuned.middle.estimate if lower else -each.tuned.middle.estimate
    )
    found = [found[0], *against_best(found, lower)]
    every = np.concatenate([each.tuned.scores for each in found])
    thresholds = np.unique(every[np.isfinite(every)])
    sign = -1 if lower else 1  # a profile tells the share of runs that are better than a threshold
    profiles = [performance_profile(sign * each.tuned.scores, sign * thresholds) for each in found]
    warnings = [f"{each.name}: {edge}" for each in found for edge in each.edges]
    warnings += too_few(len(found), len(final.seeds))
    if not metric.startswith("test_"):
        warnings.append(
            f"{metric} is not of test data; these seeds are fresh, but settings were chosen on the "
            "same validation rows"
        )
    profile = thresholds, np.array(profiles)
    return Comparison(
        plan.name,
        axis,
        metric,
        final.seeds,
        tuple(found),
        profile,
        tuning,
        final,
        tuple(warnings),
        None if sweep.target is None else str(sweep.target),
        plan.experiment.about,
    )


def too_few(alternatives: int, seeds: int) -> list[str]:
    """A warning where even a difference of one sign in every pair of runs could not be claimed."""
    pairs = alternatives * (alternatives - 1) // 2
    if pairs * 2.0 ** (1 - seeds) < 1 - LEVEL:
        return []
    return [
        f"{seeds} fresh seeds are too few to tell {alternatives} alternatives apart, whatever they "
        "do: give sweep.fresh more"
    ]


def against_best(found: Sequence[Alternative], lower: bool) -> list[Alternative]:
    """The others, with their difference to the first.

    Which one is the best, these same runs have said. So it is not for its comparisons alone that p
    and intervals are corrected, but for all between two alternatives that might have been it.
    """
    scores = [each.tuned.scores for each in found]
    pairs = list(combinations(range(len(found)), 2))
    tests = [signed_rank(scores[b], scores[a]) for a, b in pairs]
    corrected = zip(pairs, holm(tests), holm_levels(tests, LEVEL), strict=True)
    told = []
    for (a, b), p, level in corrected:
        if a == 0:
            better = (scores[b], scores[0]) if lower else (scores[0], scores[b])
            difference = paired_difference(scores[b], scores[0], level=float(level))
            improvement = probability_of_improvement(*better)
            told.append(
                replace(found[b], difference=difference, p=float(p), improvement=improvement)
            )
    return told


def values_in_words(experiment: Experiment, paths: Sequence[str]) -> str:
    """What an experiment has at some paths."""
    words = []
    for name, path in zip(short_names(paths), paths, strict=True):
        value = experiment.model_dump(mode="json", by_alias=True)
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        value = float(f"{value:.3g}") if isinstance(value, float) else value
        words.append(f"{name} {value_in_words(value)}")
    return ", ".join(words)


TIMED = "seconds_per_step"  # of each variant, on the page of the last runs


def step_times(final: Swept, groups: Mapping[int, Group]) -> dict[int, float]:
    """Seconds that a step takes each variant; measured once, then they stand on the page."""
    if final.page is not None:
        said = read_sweep_page(final.page).facts.get(TIMED)
        if said is not None:
            return dict(enumerate(json.loads(said)))
    timed = [seconds_of_step(groups[place], place) for place in range(len(final.variants))]
    if final.page is not None:
        with suppress(OSError), final.page.open("a", encoding="utf-8") as stream:
            stream.write(f"// {TIMED}: {json.dumps(timed)}\n")
    return dict(enumerate(timed))


def seconds_of_step(group: Group, variant: int) -> float:
    """Seconds of a step of a run alone, validation after each epoch and all, once compiled."""
    job = Job(variant, 0)
    best = np.inf
    for _ in range(3):  # the first one compiles
        began, epochs = time.perf_counter(), 0
        for chunk in fit(
            group.setup, group.plan, group.hyperparameters([job]), [0], group.on_device
        ):
            epochs = chunk.first + len(chunk.active) - 1
            if time.perf_counter() - began > 1.0:
                break
        spent = time.perf_counter() - began
        best = min(best, spent / max(1, epochs * group.setup.steps_per_epoch))
    return float(f"{best:.3g}")


def steps_to(records: Sequence[Record], target: Bounds, epoch: int) -> list[float]:
    """Steps of each run to a target, `epoch` of them in one; infinite where it never arrives.

    So are they where it diverges, though it may have been there before.
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
    """Where the best value is the first or the last of three or more numbers that were tried."""
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
    """Of each epoch the quartiles over seeds, (3, epochs + 1), infinite after divergence."""
    longest = max(record.epochs for record in records) + 1
    rows = []
    for record in records:
        values = record.history[measure]
        rest = np.inf if record.diverged else values[-1]
        rows.append(np.concatenate([values, np.full(longest - len(values), rest)]))
    table = np.where(np.isnan(rows), np.inf, rows)
    return np.quantile(table, [0.25, 0.5, 0.75], axis=0, method="higher")
