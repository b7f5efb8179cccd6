"""Ablation: the alternatives of one axis, compared so that the answer can be believed.

Every alternative is tuned with the same number of trials on the validation loss. The winners, and
the alternatives at their defaults, run once more on fresh seeds, the same for all: there the runs
of two alternatives are pairs, with the same order of the data and, where shapes are the same, the
same first weights. Only now are the test data looked at.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnref.errors import UserError
from nnref.experiment.axes import Setting, kind_of_axis, value_in_words
from nnref.experiment.experiment import Experiment, Mistakes
from nnref.experiment.text import set_path
from nnref.logbook.pages import SweepPage
from nnref.parts.metrics import lower_is_better
from nnref.studies.cluster import connection
from nnref.studies.comparison import (
    NEAR,
    Alternative,
    Comparison,
    against_best,
    edges_of,
    profiles_of,
    quartiles,
    result_of_setting,
    timing_of,
    too_few,
)
from nnref.studies.groups import Variant, groups_of
from nnref.studies.listeners import SweepListener
from nnref.studies.run import measures_of, refuse_unknown
from nnref.studies.sweep import sweep
from nnref.studies.sweep_page import known
from nnref.studies.sweep_record import SweepPlan, SweepResult, plan_sweep
from nnref.training.compilation import usual_settings


@dataclass(frozen=True)
class Protocol:
    """The alternatives that are compared, and how."""

    plan: SweepPlan  # of the tuning
    axis: str
    members: Mapping[str, Sequence[int]]  # the variants of each alternative, by its name
    metric: str

    @property
    def trials(self) -> int:
        """The number of trials of each alternative."""
        return len(next(iter(self.members.values())))

    @cached_property
    def expected(self) -> SweepPlan:
        """The plan of the last runs, as far as it is known before the tuning."""
        return final_of(self, {name: numbers[0] for name, numbers in self.members.items()})[0]


def read_protocol(path: str | Path) -> Protocol:
    """Read a sweep file, and refuse what would be no fair comparison.

    Raises:
        UserError: for mistakes in the file, budgets that differ, or too few seeds.
    """
    plan = plan_sweep(path)
    axis = main_axis(plan)
    members = alternatives_of(plan, axis)
    refuse_unequal(axis, {name: len(numbers) for name, numbers in members.items()})
    return Protocol(plan, axis, members, metric_of(plan))


@usual_settings()
def ablate(
    protocol: Protocol | str | Path,
    *,
    logbook: str | Path | None = "logbook",
    listener: SweepListener | None = None,
    ray: bool | str = False,
) -> Comparison:
    """Compare the alternatives of the main axis of a sweep file.

    Args:
        protocol: what is compared and how, or the path of the file.
        logbook: folder of the pages; what it has is not run again.
        listener: hears how it goes.
        ray: train on a Ray cluster: its address, or True for one that is started here.

    Raises:
        UserError: for mistakes in the file, budgets that differ, too few seeds, or a cluster that
            cannot be used.
    """
    asked = protocol if isinstance(protocol, Protocol) else read_protocol(protocol)

    def done(plan: SweepPlan) -> SweepResult:
        earlier = None if logbook is None else known(plan, Path(logbook))
        return earlier or sweep(plan, logbook=logbook, listener=listener, ray=bool(ray))

    with connection(ray):
        tuning = done(asked.plan)
        final_plan, places = final_of(asked, best_of(asked, tuning))
        return compared(asked, tuning, done(final_plan), places)


def comparison_at(page: SweepPage) -> Comparison | None:
    """The comparison that a page is part of; None where its runs are not all done."""
    logbook = page.path.parent.parent
    try:
        asked = read_protocol(page.path)
        tuning = known(asked.plan, logbook)
        if tuning is None:
            return None
        final_plan, places = final_of(asked, best_of(asked, tuning))
        final = known(final_plan, logbook)
    except UserError:  # no comparison, or its data are not here
        return None
    return None if final is None else compared(asked, tuning, final, places)


def best_of(asked: Protocol, tuning: SweepResult) -> dict[str, int]:
    """The tuned variant of each alternative; one that halving dropped is behind all the others."""
    place = tuning.ranking.index
    return {name: min(numbers, key=place) for name, numbers in asked.members.items()}


def main_axis(plan: SweepPlan) -> str:
    """The path of the axis whose values are compared."""
    axes, compare = plan.sweep.axes, plan.sweep.compare
    if compare is None:
        return next(iter(axes))
    refuse_unknown("sweep.compare", compare, axes)
    return compare


def setting_at(variant: Variant, path: str) -> Setting:
    return next(setting for setting in variant.settings if setting.path == path)


def alternatives_of(plan: SweepPlan, axis: str) -> dict[str, list[int]]:
    """The variants of each alternative, by its name."""
    drawn = plan.sweep.axes[axis].drawn(axis)
    members: dict[str, list[int]] = {}
    for number, variant in enumerate(plan.variants):
        setting = setting_at(variant, axis)
        place = setting.source.rpartition(".")[2]
        # The axes inside an alternative are no part of its name.
        whole = drawn[int(place)] if isinstance(setting.value, dict) else setting.value
        members.setdefault(name_of(whole), []).append(number)
    if len(members) < 2:
        raise UserError(f"sweep.axes.{axis}: one alternative alone is not compared; give another")
    return members


def name_of(value: Any) -> str:
    """An alternative in a few words, without the axes inside it unless these are all it has."""
    if not isinstance(value, dict):
        return value_in_words(value)
    fixed = {k: v for k, v in value.items() if not (isinstance(v, dict) and kind_of_axis(v))}
    if "name" in value or fixed == value:
        return value_in_words(fixed)
    return " ".join(f"{k} {value_in_words(v)}" if k in fixed else k for k, v in value.items())


def refuse_unequal(axis: str, budgets: Mapping[str, int]) -> None:
    """Refuse a comparison in which some alternatives have more trials, and say how many."""
    if len(set(budgets.values())) > 1:
        listed = ", ".join(f"{name} {trials}" for name, trials in budgets.items())
        raise UserError(
            f"sweep.axes.{axis}: who is tried more often, wins more often; trials: {listed}. Give "
            "each the same number, most easily with random axes, which are drawn together"
        )


def final_of(
    asked: Protocol, chosen: Mapping[str, int]
) -> tuple[SweepPlan, dict[str, tuple[int, int | None]]]:
    """The runs on fresh seeds, and the places among them of each alternative.

    Returns:
        The plan, and for each alternative the variants with its tuned and its default settings.
    """
    plan, first = asked.plan, max(asked.plan.seeds) + 1
    seeds = tuple(range(first, first + plan.sweep.fresh))
    variants: dict[str, Variant] = {}  # by identity: the same experiment runs once

    def place_of(variant: Variant) -> int:
        variants.setdefault(variant.experiment.identity, variant)
        return list(variants).index(variant.experiment.identity)

    places: dict[str, tuple[int, int | None]] = {}
    for name, numbers in asked.members.items():
        tuned = place_of(plan.variants[chosen[name]])
        default = at_defaults(plan, plan.variants[numbers[0]], asked.axis)
        places[name] = (tuned, None if default is None else place_of(default))
    last = list(variants.values())
    groups = groups_of(last, seeds)
    return SweepPlan(plan.name, plan.experiment, last, groups, seeds, fresh=True), places


def at_defaults(plan: SweepPlan, variant: Variant, axis: str) -> Variant | None:
    """An alternative at its defaults, everything else as in the file; None where it has none."""
    setting = setting_at(variant, axis)
    if isinstance(setting.value, dict) and "name" not in setting.value:
        return None  # a strength that is left out is no default
    content = plan.experiment.model_dump(mode="json", by_alias=True, exclude={"sweep"})
    set_path(content, axis, copy.deepcopy(setting.value))
    try:
        return Variant((Setting(axis, setting.value, "defaults"),), Experiment(**content))
    except Mistakes:
        return None


def metric_of(plan: SweepPlan) -> str:
    """The measure to compare: of the test data or, without test data, of the validation data."""
    sweep = plan.sweep
    known = [name for name in measures_of(plan.groups[0].task) if name != "epochs"]
    default = next(name for name in ("test_loss", "valid_loss", "train_loss") if name in known)
    metric = sweep.metric or default
    refuse_unknown("sweep.metric", metric, known)
    if sweep.target is not None:
        seen = [name for name in known if not name.startswith("test_")]
        refuse_unknown("sweep.target.metric", sweep.target.metric, seen)
    return metric


# --- from the runs to the comparison ------------------------------------------------------------


def compared(
    asked: Protocol,
    tuning: SweepResult,
    final: SweepResult,
    places: Mapping[str, tuple[int, int | None]],
) -> Comparison:
    """The comparison, from the runs that chose the settings and the runs on fresh seeds.

    `places` has for each alternative the variants of `final` as tuned and at its defaults.
    """
    plan, metric = asked.plan, asked.metric
    lower = lower_is_better(metric, plan.groups[0].task.functions.metrics)
    target = plan.sweep.target
    timing = None if target is None else timing_of(final, target)
    winners = best_of(asked, tuning)
    alternatives = []
    for name, (tuned, default) in places.items():
        numbers = asked.members[name]
        winner = plan.variants[winners[name]]
        paths = [setting.path for setting in winner.settings if setting.path != asked.axis]
        results = {
            place: result_of_setting(final, place, metric, lower, paths, timing)
            for place in {tuned, default} - {None}
        }
        losses = np.array([tuning.final(number) for number in numbers])
        near = float(np.mean(losses <= NEAR * losses.min())) if np.isfinite(losses.min()) else 0.0
        edges = edges_of([plan.variants[number] for number in numbers], winner, asked.axis)
        curve = quartiles(final.of(tuned), tuning.loss)
        result, at_default = results[tuned], results.get(default)
        alternatives.append(
            Alternative(name, tuple(numbers), result, at_default, edges, near, curve)
        )
    sign = 1 if lower else -1
    alternatives.sort(key=lambda each: sign * each.tuned.middle.estimate)
    alternatives = [alternatives[0], *against_best(alternatives, lower)]
    warnings = [f"{each.name}: {edge}" for each in alternatives for edge in each.edges]
    warnings += too_few(len(alternatives), len(final.seeds))
    if not metric.startswith("test_"):
        warnings.append(
            f"{metric} is not of test data; these seeds are fresh, but settings were chosen on the "
            "same validation rows"
        )
    return Comparison(
        plan.name,
        asked.axis,
        metric,
        final.seeds,
        tuple(alternatives),
        profiles_of(alternatives, lower),
        tuning,
        final,
        tuple(warnings),
        None if target is None else str(target),
        plan.experiment.about,
    )
