"""A comparison of alternatives: its rows, for the terminal and the page, and its plain values."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from nnref.report.terminal.logbook import plain_table
from nnref.report.terminal.sweep import about, plan_as_json, show_plan
from nnref.studies.ablation import Protocol
from nnref.studies.comparison import LEVEL, NEAR, Alternative, Comparison, Result
from nnref.studies.statistics import Interval


class Row(NamedTuple):
    """An alternative, with some settings, in figures."""

    name: str
    settings: str
    figures: Sequence[str]


class Rows(NamedTuple):
    """A table, and how to read it."""

    columns: Sequence[str]
    rows: Sequence[Row]
    note: str


def results(comparison: Comparison) -> Rows:
    """A row for each alternative as tuned, and one for it at its defaults."""
    metric, seeds = comparison.metric, len(comparison.seeds)
    each = comparison.alternatives
    shown = [one for alternative in each for one in (alternative.tuned, alternative.default) if one]
    diverged = any(result.diverged for result in shown)
    timed = comparison.best.tuned.steps is not None
    columns = [metric, "near", *["diverged"] * diverged]
    columns += ["steps", "time", "reach"] if timed else []

    def figures(result: Result, near: str) -> list[str]:
        told = [interval(result.middle), near]
        if diverged:
            told.append(f"{result.diverged}/{seeds}" if result.diverged else "")
        if result.steps is not None:
            told += [figure(result.steps[1]), about(result.seconds)]
            told.append(f"{result.reached}/{seeds}")
        return told

    rows = []
    for alternative in each:
        near = f"{alternative.sensitivity:.0%}"
        tuned, default = alternative.tuned, alternative.default
        told = f"{tuned.settings}, the default" if default is tuned else tuned.settings
        rows.append(Row(alternative.name, told, figures(tuned, near)))
        if default is not None and default is not tuned:
            told = default.settings
            told = told if "," in told else told.rpartition(" ")[2]  # the tuned row names it
            told = f"by default {told}"
            rows.append(Row("", told, figures(default, "")))
    note = (
        f"{metric}: interquartile mean of {seeds} fresh seeds and its {LEVEL:.0%} interval. "
        f"near: share of the {comparison.best.trials} settings tried whose loss is within "
        f"{NEAR - 1:.0%} of the best."
    )
    if timed:
        target = comparison.target
        note += (
            f" steps, time: to {target}, of the median seed, timed as a run alone; ∞ where it does "
            "not get there or diverges. reach: seeds that get there."
        )
    return Rows(columns, rows, note)


def differences(comparison: Comparison) -> Rows:
    """A row for each alternative but the best: how much worse it is, and how sure that is."""
    rows = []
    for each in comparison.alternatives[1:]:
        assert each.difference is not None, "the others are compared with the best"
        assert each.p is not None, "and tested"
        assert each.improvement is not None, "and their runs counted"
        share = f"{each.improvement.estimate:.0%}"
        rows.append(Row(each.name, "", [interval(each.difference), f"{each.p:.2g}", share]))
    note = (
        f"difference of {comparison.metric} to {comparison.best.name}: interquartile mean over "
        "paired seeds. p: Wilcoxon's signed-rank test. Both are corrected (Holm) for all pairs of "
        f"{len(comparison.alternatives)} alternatives, as the same runs said which one is the "
        "best. best wins: share of pairs of runs in which it is better."
    )
    return Rows(["difference", "p", "best wins"], rows, note)


def show_protocol(asked: Protocol, console: Console) -> None:
    """The plan: the tuning, and what comes after it."""
    show_plan(asked.plan, console)
    last = plan_as_json(asked.expected)
    console.print(
        f"{len(asked.members)} alternatives of {asked.axis}, {asked.trials} trials each; then "
        f"tuned and at defaults on {len(last['seeds'])} fresh seeds: {last['runs']} runs, about "
        f"{about(last['seconds'])}\n",
        highlight=False,
    )


def protocol_as_json(asked: Protocol) -> dict[str, Any]:
    """The plan as plain values; what the tuning will choose is not known yet."""
    return {
        "name": asked.plan.name,
        "axis": asked.axis,
        "metric": asked.metric,
        "trials": {name: len(numbers) for name, numbers in asked.members.items()},
        "tuning": plan_as_json(asked.plan),
        "final": plan_as_json(asked.expected),
    }


def show_comparison(comparison: Comparison, console: Console) -> None:
    """A row for each alternative, warnings, and what can be concluded."""
    console.print(
        f"[bold]{comparison.name}[/bold]  {comparison.axis}, {comparison.best.trials} trials each "
        f"on {len(comparison.tuning.seeds)} seeds, then {len(comparison.seeds)} fresh seeds\n",
        highlight=False,
    )
    shown = {comparison.axis: results(comparison), "against the best": differences(comparison)}
    for title, (columns, rows, note) in shown.items():
        table = plain_table(title, *columns, right=columns, wraps=[title])
        for row in rows:
            lines = [Text(row.name)] if row.name else []
            lines += [Padding(Text(row.settings, style="dim"), (0, 0, 0, 2))] * bool(row.settings)
            table.add_row(Group(*lines), *row.figures)
        console.print(table, highlight=False)
        console.print(f"{note}\n", style="dim", highlight=False, markup=False)
    for warning in comparison.warnings:
        console.print(f"note: {warning}", highlight=False, markup=False)
    for sentence in comparison.sentences:
        console.print(sentence, style="bold", highlight=False, markup=False)


def interval(given: Interval) -> str:
    return f"{figure(given.estimate)} [{figure(given.low)}, {figure(given.high)}]"


def figure(value: float) -> str:
    return "∞" if value == np.inf else "-∞" if value == -np.inf else f"{value:.3g}"


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values: "inf" where something is infinite, which JSON lacks."""
    thresholds, profiles = comparison.profiles
    return {
        "name": comparison.name,
        "axis": comparison.axis,
        "metric": comparison.metric,
        "target": comparison.target,
        "level": LEVEL,
        "seeds": list(comparison.seeds),
        "pages": [str(swept.page) for swept in (comparison.tuning, comparison.final) if swept.page],
        "alternatives": [alternative_as_json(each) for each in comparison.alternatives],
        "profiles": {
            "thresholds": values(thresholds),
            "shares": {
                each.name: values(profile)
                for each, profile in zip(comparison.alternatives, profiles, strict=True)
            },
        },
        "warnings": list(comparison.warnings),
        "conclusions": comparison.sentences,
    }


def alternative_as_json(alternative: Alternative) -> dict[str, Any]:
    intervals = {"difference": alternative.difference, "best_is_better": alternative.improvement}
    return {
        "name": alternative.name,
        "trials": alternative.trials,
        "tuned": result_as_json(alternative.tuned),
        "default": None if alternative.default is None else result_as_json(alternative.default),
        "edges": list(alternative.edges),
        "sensitivity": alternative.sensitivity,
        "p": alternative.p,
        **{name: interval_as_json(given) for name, given in intervals.items()},
        "curve": [values(row) for row in alternative.curve],
    }


def result_as_json(result: Result) -> dict[str, Any]:
    return {
        "settings": result.settings,
        "scores": values(result.scores),
        "interquartile_mean": interval_as_json(result.middle),
        "diverged": result.diverged,
        "steps_to_target": None if result.steps is None else values(result.steps),
        "seconds_to_target": None if result.steps is None else value(result.seconds),
        "reached_target": result.reached,
    }


def interval_as_json(given: Interval | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {name: value(getattr(given, name)) for name in ("estimate", "low", "high", "level")}


def values(given: Any) -> list[Any]:
    return [value(each) for each in np.asarray(given, float)]


def value(given: float) -> Any:
    return float(given) if np.isfinite(given) else str(float(given))
