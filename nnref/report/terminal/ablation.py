"""An ablation: its tables, for the terminal and the page, and the comparison as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from nnref.report.plain import attributes, plain
from nnref.report.terminal.logbook import plain_table
from nnref.report.terminal.sweep import about, plan_as_json, show_plan
from nnref.studies.ablation import Protocol
from nnref.studies.cluster import Node
from nnref.studies.comparison import LEVEL, NEAR, Alternative, Comparison, Result
from nnref.studies.statistics import Interval


class ResultRow(NamedTuple):
    """One alternative: its name, the settings that it ran with, and its figures."""

    name: str
    settings: str
    figures: Sequence[str]


class ResultTable(NamedTuple):
    """A table of alternatives, and a note on how to read it."""

    columns: Sequence[str]
    rows: Sequence[ResultRow]
    note: str


def results(comparison: Comparison) -> ResultTable:
    """A row for each alternative as tuned, and one for it at its defaults."""
    metric, seeds = comparison.metric, len(comparison.seeds)
    each = comparison.alternatives
    shown = [one for alternative in each for one in (alternative.tuned, alternative.default) if one]
    diverged = any(result.diverged for result in shown)
    timed = comparison.best.tuned.steps is not None
    columns = [metric, "near", *["diverged"] * diverged]
    columns += ["steps", "time", "reach"] if timed else []

    def figures(result: Result, near: str) -> list[str]:
        cells = [interval(result.middle), near]
        if diverged:
            cells.append(f"{result.diverged}/{seeds}" if result.diverged else "")
        if result.steps is not None:
            cells += [three_digits(result.steps[1]), about(result.seconds)]
            cells.append(f"{result.reached}/{seeds}")
        return cells

    rows = []
    for alternative in each:
        near = f"{alternative.sensitivity:.0%}"
        tuned, default = alternative.tuned, alternative.default
        settings = f"{tuned.settings}, the default" if default is tuned else tuned.settings
        rows.append(ResultRow(alternative.name, settings, figures(tuned, near)))
        if default is not None and default is not tuned:
            settings = default.settings
            if "," not in settings:  # one setting: the row above names it
                settings = settings.rpartition(" ")[2]
            rows.append(ResultRow("", f"by default {settings}", figures(default, "")))
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
    return ResultTable(columns, rows, note)


def differences(comparison: Comparison) -> ResultTable:
    """A row for each alternative but the best: how much worse it is, and how sure that is."""
    rows = []
    for each in comparison.alternatives[1:]:
        assert each.difference is not None, "the others are compared with the best"
        assert each.p is not None, "and tested"
        assert each.improvement is not None, "and their runs counted"
        share = f"{each.improvement.estimate:.0%}"
        rows.append(ResultRow(each.name, "", [interval(each.difference), f"{each.p:.2g}", share]))
    note = (
        f"difference of {comparison.metric} to {comparison.best.name}: interquartile mean over "
        "paired seeds. p: Wilcoxon's signed-rank test. Both are corrected (Holm) for all pairs of "
        f"{len(comparison.alternatives)} alternatives, as the same runs said which one is the "
        "best. best wins: share of pairs of runs in which it is better."
    )
    return ResultTable(["difference", "p", "best wins"], rows, note)


def show_protocol(protocol: Protocol, console: Console, nodes: Sequence[Node] = ()) -> None:
    """The plan: the tuning, and the runs on fresh seeds that follow it; the nodes of a cluster."""
    show_plan(protocol.plan, console, nodes)
    last = plan_as_json(protocol.expected)
    console.print(
        f"{len(protocol.members)} alternatives of {protocol.axis}, {protocol.trials} trials each; "
        f"then tuned and at defaults on {len(last['seeds'])} fresh seeds: {last['runs']} runs, "
        f"about {about(last['seconds'])}\n",
        highlight=False,
    )


def protocol_as_json(protocol: Protocol, nodes: Sequence[Node] = ()) -> dict[str, Any]:
    """The plan as plain values; what the tuning will choose is not known yet."""
    return {
        "name": protocol.plan.name,
        "axis": protocol.axis,
        "metric": protocol.metric,
        "trials": {name: len(numbers) for name, numbers in protocol.members.items()},
        "tuning": plan_as_json(protocol.plan, nodes),
        "final": plan_as_json(protocol.expected),
    }


def show_comparison(comparison: Comparison, console: Console) -> None:
    """A row for each alternative, warnings, and what can be concluded."""
    trials = f"{comparison.axis}, {comparison.best.trials} trials each "
    seeds = f"on {len(comparison.tuning.seeds)} seeds, then {len(comparison.seeds)} fresh seeds\n"
    console.print(Text.assemble((comparison.name, "bold"), f"  {trials}{seeds}"))
    shown = {comparison.axis: results(comparison), "against the best": differences(comparison)}
    for title, (columns, rows, note) in shown.items():
        table = plain_table(title, *columns, right=columns, wraps=[title])
        for row in rows:
            lines = [Text(row.name)] if row.name else []
            lines += [Padding(Text(row.settings, style="dim"), (0, 0, 0, 2))] * bool(row.settings)
            table.add_row(Group(*lines), *row.figures)
        console.print(table, highlight=False)
        console.print(f"{note}\n", style="dim", highlight=False)
    for warning in comparison.warnings:
        console.print(f"note: {warning}", highlight=False)
    for sentence in comparison.sentences:
        console.print(sentence, style="bold", highlight=False)


def interval(estimated: Interval) -> str:
    estimate, low, high = map(three_digits, estimated[:3])
    return f"{estimate} [{low}, {high}]"


def three_digits(value: float) -> str:
    return f"{value:.3g}".replace("inf", "∞")


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values: "inf" where something is infinite, which JSON lacks."""
    thresholds, profiles = comparison.profiles
    names = [alternative.name for alternative in comparison.alternatives]
    pages = [swept.page for swept in (comparison.tuning, comparison.final) if swept.page]
    content = attributes(comparison, "name", "axis", "metric", "target") | {
        "level": LEVEL,
        "seeds": comparison.seeds,
        "pages": pages,
        "alternatives": [alternative_as_json(each) for each in comparison.alternatives],
        "profiles": {"thresholds": thresholds, "shares": dict(zip(names, profiles, strict=True))},
        "warnings": comparison.warnings,
        "conclusions": comparison.sentences,
    }
    return plain(content, infinite=str)


def alternative_as_json(alternative: Alternative) -> dict[str, Any]:
    results = {
        name: result and result_as_json(result)
        for name, result in attributes(alternative, "tuned", "default").items()
    }
    certainty = attributes(alternative, "edges", "sensitivity", "p", "difference")
    better = {"best_is_better": alternative.improvement, "curve": alternative.curve}
    return attributes(alternative, "name", "trials") | results | certainty | better


def result_as_json(result: Result) -> dict[str, Any]:
    return attributes(result, "settings", "scores") | {
        "interquartile_mean": result.middle,
        "diverged": result.diverged,
        "steps_to_target": result.steps,
        "seconds_to_target": None if result.steps is None else result.seconds,
        "reached_target": result.reached,
    }
