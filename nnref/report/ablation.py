"""A comparison of alternatives on the terminal and as plain values."""

from typing import Any

import numpy as np
from rich.console import Console

from nnref.ablation import LEVEL, Alternative, Comparison, Result
from nnref.report.logbook import plain_table
from nnref.statistics import Interval


def show_comparison(comparison: Comparison, console: Console) -> None:
    """A row for each alternative, warnings, and what can be concluded."""
    metric, seeds = comparison.metric, len(comparison.seeds)
    trials = comparison.best.trials
    console.print(
        f"[bold]{comparison.name}[/bold]  {comparison.axis}, {trials} trials each on "
        f"{len(comparison.tuning.seeds)} seeds, then {seeds} fresh seeds\n",
        highlight=False,
    )
    timed = comparison.best.tuned.steps is not None
    right = [
        metric,
        "diverged",
        *(["steps to target"] if timed else []),
        "at defaults",
        "near best",
    ]
    table = plain_table(comparison.axis, "tuned", *right, right=right)
    for each in comparison.alternatives:
        steps = []
        if each.tuned.steps:
            steps = [f"{figure(each.tuned.steps[1])} ({each.tuned.reached} of {seeds})"]
        table.add_row(
            each.name,
            each.tuned.settings,
            interval(each.tuned.middle),
            f"{each.tuned.diverged} of {seeds}" if each.tuned.diverged else "",
            *steps,
            "-" if each.default is None else interval(each.default.middle),
            f"{each.sensitivity:.0%}",
        )
    console.print(table)
    console.print(
        f"{metric}: interquartile mean and its {LEVEL:.0%} interval; steps: median, and how many "
        "seeds arrive; at defaults: - where there are none, or these are the tuned settings; "
        "near best: trials whose loss is within 10 % of the best\n",
        style="dim",
        highlight=False,
    )
    right = ["difference", "p", "best is better in"]
    table = plain_table(f"to {comparison.best.name}", *right, right=right)
    for each in comparison.alternatives[1:]:
        if each.difference is not None and each.p is not None and each.improvement is not None:
            share = f"{each.improvement.estimate:.0%} of pairs of runs"
            table.add_row(each.name, interval(each.difference), f"{each.p:.2g}", share)
    console.print(table)
    console.print(
        f"difference: interquartile mean over paired seeds, with intervals and p (Wilcoxon) "
        f"corrected for {len(comparison.alternatives) - 1} comparisons (Holm)\n",
        style="dim",
        highlight=False,
    )
    for warning in comparison.warnings:
        console.print(f"note: {warning}", highlight=False, markup=False)
    for sentence in comparison.sentences:
        console.print(sentence, style="bold", highlight=False, markup=False)


def interval(given: Interval) -> str:
    return f"{figure(given.estimate)} [{figure(given.low)}, {figure(given.high)}]"


def figure(value: float) -> str:
    return "∞" if value == np.inf else "-∞" if value == -np.inf else f"{value:.4g}"


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values: "inf" where something is infinite, which JSON lacks."""
    thresholds, profiles = comparison.profiles
    return {
        "name": comparison.name,
        "axis": comparison.axis,
        "metric": comparison.metric,
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
        "curve": None if alternative.curve is None else [values(row) for row in alternative.curve],
    }


def result_as_json(result: Result) -> dict[str, Any]:
    return {
        "settings": result.settings,
        "scores": values(result.scores),
        "interquartile_mean": interval_as_json(result.middle),
        "diverged": result.diverged,
        "steps_to_target": None if result.steps is None else values(result.steps),
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
