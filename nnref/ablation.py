"""Ablation: the alternatives of one axis, compared so that the answer can be believed.

Every alternative is tuned with the same number of trials on the validation loss. The winners, and
the alternatives at their defaults, run once more on fresh seeds, the same for all: there the runs
of two alternatives are pairs, with the same order of the data and, where shapes are the same, the
same first weights. Only now are the test data looked at.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnref.axes import Setting, kind_of_axis, value_in_words
from nnref.errors import UserError, nearest
from nnref.experiment import Experiment, Mistakes, set_path
from nnref.groups import Variant, groups_of
from nnref.runs import measures_of
from nnref.statistics import (
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
from nnref.sweep import AlreadySwept, Planned, SweepListener, Swept, planned, sweep
from nnref.train import falls
from nnref.verdicts import Record

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
    reached: int = 0  # seeds that have reached it


@dataclass(frozen=True)
class Alternative:
    """One of the things compared."""

    name: str
    trials: int
    tuned: Result
    default: Result | None  # None where the defaults are no experiment, or are the tuned settings
    edges: tuple[str, ...]  # tuned values on the edge of their grid
    sensitivity: float  # share of the trials whose loss is near the best one
    difference: Interval | None = None  # to the best, at its corrected level; None for the best
    p: float | None = None  # that there is none, corrected
    improvement: Interval | None = None  # probability that a run of the best is better
    curve: np.ndarray | None = field(default=None, repr=False)  # (3, epochs + 1): quartiles


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


def ablate(
    path: str | Path,
    *,
    logbook: str | Path | None = "logbook",
    listener: SweepListener | None = None,
) -> Comparison:
    """Compare the alternatives of the main axis of a sweep file.

    Args:
        path: of the file.
        logbook: folder of the pages; what it has is not run again.
        listener: hears how it goes.

    Raises:
        UserError: for mistakes in the file, budgets that differ, or too few seeds.
    """
    plan = planned(path)
    axis = main_axis(plan)
    members = alternatives_of(plan, axis)
    refuse_unequal(axis, {name: len(numbers) for name, numbers in members.items()})
    metric = metric_of(plan)
    tuning = known_or_swept(plan, logbook, listener)
    chosen = {name: min(numbers, key=tuning.final) for name, numbers in members.items()}
    final_plan, rows = final_of(plan, axis, members, chosen)
    final = known_or_swept(final_plan, logbook, listener)
    return compared(plan, axis, members, chosen, tuning, final, rows, metric)


def known_or_swept(
    plan: Planned, logbook: str | Path | None, listener: SweepListener | None
) -> Swept:
    try:
        return sweep(plan, logbook=logbook, listener=listener)
    except AlreadySwept as known:
        return known.swept


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
    if "name" in value:
        return value_in_words(fixed)
    words = (f"{k} {value_in_words(v)}" if k in fixed else k for k, v in value.items())
    return " ".join(words) or "off"


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
    plan: Planned, axis: str, members: Mapping[str, list[int]], chosen: Mapping[str, int]
) -> tuple[Planned, dict[str, tuple[int, int | None]]]:
    """The runs on fresh seeds, and of each alternative which are tuned and which at defaults."""
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
    for name, numbers in members.items():
        tuned = added(plan.variants[chosen[name]])
        default = at_defaults(plan, plan.variants[numbers[0]], axis)
        place = None if default is None else added(default)
        rows[name] = (tuned, None if place == tuned else place)
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
    plan: Planned,
    axis: str,
    members: Mapping[str, list[int]],
    chosen: Mapping[str, int],
    tuning: Swept,
    final: Swept,
    rows: Mapping[str, tuple[int, int | None]],
    metric: str,
) -> Comparison:
    """The comparison, from runs that are done."""
    sweep = plan.experiment.sweep
    assert sweep is not None, "a plan has a sweep"
    lower = falls(metric)
    steps_per_epoch = {
        number: group.setup.steps_per_epoch
        for group in groups_of(final.variants, final.seeds[:1])
        for number in {job.variant for job in group.jobs}
    }

    def result(place: int) -> Result:
        records = final.of(place)
        scores = np.array([score(record, metric) for record in records])
        steps, there = None, 0
        if sweep.target is not None:
            reached = [record.epochs_to(sweep.target) for record in records]
            of = [np.inf if e is None else float(e * steps_per_epoch[place]) for e in reached]
            there = int(np.isfinite(of).sum())
            steps = tuple(map(float, np.quantile(of, [0.25, 0.5, 0.75], method="higher")))
        variant = final.variants[place]
        told = ", ".join(
            f"{s.path.removeprefix(axis + '.')} {value_in_words(s.value)}"
            for s in variant.settings
            if s.path != axis
        )
        diverged = sum(record.diverged for record in records)
        middle = bootstrap(interquartile_mean, scores, level=LEVEL)
        return Result(told or "defaults", scores, middle, diverged, steps, there)

    found = []
    for name, (tuned, default) in rows.items():
        losses = np.array([tuning.final(number) for number in members[name]])
        near = float(np.mean(losses <= NEAR * losses.min())) if np.isfinite(losses.min()) else 0.0
        found.append(
            Alternative(
                name,
                len(members[name]),
                result(tuned),
                None if default is None else result(default),
                edges_of(
                    [plan.variants[n] for n in members[name]], plan.variants[chosen[name]], axis
                ),
                near,
                curve=quartiles(final.of(tuned), tuning.loss),
            )
        )
    found.sort(
        key=lambda each: each.tuned.middle.estimate if lower else -each.tuned.middle.estimate
    )
    best, others = found[0], found[1:]
    pairs = [signed_rank(each.tuned.scores, best.tuned.scores) for each in others]
    for number, (p, level) in enumerate(
        zip(holm(pairs), holm_levels(pairs, LEVEL), strict=True), 1
    ):
        ours, theirs = found[number].tuned.scores, best.tuned.scores
        better = (ours, theirs) if lower else (theirs, ours)
        found[number] = Alternative(
            **vars(found[number])
            | {
                "difference": paired_difference(ours, theirs, level=float(level)),
                "p": float(p),
                "improvement": probability_of_improvement(*better),
            }
        )
    every = np.concatenate([each.tuned.scores for each in found])
    thresholds = np.unique(every[np.isfinite(every)])
    sign = -1 if lower else 1  # a profile tells the share of runs that are better than a threshold
    profiles = [performance_profile(sign * each.tuned.scores, sign * thresholds) for each in found]
    warnings = [f"{each.name}: {edge}" for each in found for edge in each.edges]
    if not metric.startswith("test_"):
        warnings.append(
            f"{metric} is not of test data; these seeds are fresh, but settings were chosen on the "
            "same validation rows"
        )
    return Comparison(
        plan.name,
        axis,
        metric,
        final.seeds,
        tuple(found),
        (thresholds, np.array(profiles)),
        tuning,
        final,
        tuple(warnings),
    )


def score(record: Record, metric: str) -> float:
    """A measure in the end; where a run diverged an infinite loss, or nothing right."""
    value = np.nan if record.diverged else record.final(metric)
    if np.isnan(value):
        return np.inf if falls(metric) else 0.0
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
