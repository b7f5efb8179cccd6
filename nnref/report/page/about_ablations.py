"""The part of a report about an ablation: conclusions, each alternative, and its tuning."""

from collections.abc import Sequence

import numpy as np

from nnref.logbook.pages import read_sweep_page
from nnref.report.page.about_sweeps import sections_of_sweep
from nnref.report.page.blocks import (
    Chart,
    Headline,
    Line,
    Panel,
    Pictures,
    Report,
    Section,
    Table,
    Words,
)
from nnref.report.page.curves import POINTS, at_places, line_chart, places, rounded
from nnref.report.page.panels import COLOURS, intervals_panel, is_wide
from nnref.report.page.subjects import in_words
from nnref.report.terminal.ablation import ResultTable, differences, results
from nnref.studies.comparison import Comparison
from nnref.studies.groups import Variant


def report_of_comparison(comparison: Comparison) -> Report:
    """The report of a comparison; where it was written down, with the sections of its tuning."""
    page = comparison.tuning.page
    against = f"difference to {comparison.best.name}"
    tuned = table("tuned, and as they come", comparison.axis, results(comparison))
    others = table(against, comparison.axis, differences(comparison))
    sections = [
        Section("alternatives", "Alternatives", [Pictures([scores(comparison)]), tuned]),
        Section("differences", "Against the best", [others]),
    ]
    if comparison.warnings:
        warnings = [Words(warning) for warning in comparison.warnings]
        sections.append(Section("warnings", "To bear in mind", warnings))
    sections += chart_sections(comparison)
    if page is not None:
        sections += sections_of_sweep(read_sweep_page(page))
    return Report(f"{comparison.name}, an ablation", [headline(comparison)], sections)


def headline(comparison: Comparison) -> Headline:
    """The conclusion, and the amount of work that it rests on."""
    facts = [
        ("compared", f"{len(comparison.alternatives)} values of {comparison.axis}"),
        ("tuned with", f"{comparison.best.trials} trials each"),
        ("judged by", f"{comparison.metric} on {len(comparison.seeds)} fresh seeds"),
    ]
    verdict = " ".join(comparison.sentences)
    return Headline("plain", "compared", comparison.name, verdict, comparison.about, facts)


def table(caption: str, axis: str, result: ResultTable) -> Table:
    """A table of alternatives as a table of the page."""
    columns = [axis, *["settings"] * any(row.settings for row in result.rows), *result.columns]
    settings = "settings" in columns
    rows = [[row.name, *[row.settings] * settings, *row.figures] for row in result.rows]
    return Table(caption, columns, rows, note=result.note)


def scores(comparison: Comparison) -> Panel:
    """Where each alternative ends, with its interval: tuned, and at its defaults."""
    each = comparison.alternatives
    defaults = [None if one.default is None else one.default.middle for one in each]
    names, tuned = [one.name for one in each], [one.tuned.middle for one in each]
    title = f"{in_words(comparison.metric)}, interquartile mean of {len(comparison.seeds)} seeds"
    return intervals_panel(title, names, tuned, defaults)


def chart_sections(comparison: Comparison) -> list[Section]:
    """The charts, each with a word on how to read it."""
    loss, metric = in_words(comparison.tuning.loss), in_words(comparison.metric)
    about = (
        f"The {loss} of the tuned settings on the fresh seeds: median, and between the quartiles "
        "the band. A seed that diverged counts as infinite."
    )
    sections = [Section("curves", "Learning curves", [curves(comparison)], about)]
    chart = profiles(comparison)
    if chart is not None:
        about = (
            f"The share of runs whose {metric} is better than a value: the sooner a line rises to "
            "1, the better, and lines that cross are no clear order."
        )
        sections.append(Section("profiles", "Performance profiles", [chart], about))
    chart = sensitivity(comparison)
    if chart is not None:
        about = (
            f"The {loss} of every setting that was tried, but for what exploded: a broad valley "
            "forgives a bad guess."
        )
        sections.append(Section("sensitivity", "Sensitivity", [chart], about))
    return sections


def chart_of(
    comparison: Comparison, title: str, x_label: str, x: np.ndarray, lines: Sequence[Line], **kinds
) -> Chart:
    """A line for each alternative."""
    alt = f"{title} over {x_label} of each alternative"
    return line_chart(alt, title, x_label, x, lines, comparison.axis, **kinds)


def line_of(comparison: Comparison, number: int, values: np.ndarray, *band: np.ndarray) -> Line:
    """The line of an alternative, the best one first among the colours."""
    name = comparison.alternatives[number].name
    low, high = [rounded(edge) for edge in band] or ([], [])
    colour, dashed = number % len(COLOURS), number >= len(COLOURS)
    tags = (f"alternative {number}",)
    return Line(name, rounded(values), colour, tags, dashed, low=low, high=high)


def curves(comparison: Comparison) -> Chart:
    """The loss of each alternative over the epochs, quartiles as a band."""
    each = [alternative.curve for alternative in comparison.alternatives]
    x = places(each, POINTS // len(each))
    drawn = []
    for number, curve in enumerate(each):
        low, median, high = at_places(curve, x)
        drawn.append(line_of(comparison, number, median, low, high))
    return chart_of(comparison, in_words(comparison.tuning.loss), "epoch", x, drawn)


def profiles(comparison: Comparison) -> Chart | None:
    """The share of runs that are better than a threshold."""
    thresholds, shares = comparison.profiles
    if len(thresholds) < 2:
        return None
    some = places([shares], POINTS // 4)
    x = np.array([float(f"{v:.4g}") for v in thresholds])
    some = some[np.append(True, np.diff(x[some]) > 0)]
    lines = [line_of(comparison, number, share[some]) for number, share in enumerate(shares)]
    title = "share of runs that are better"
    kinds = {"log": False, "x_log": is_wide(x[0], x[-1]), "stepped": True}
    return chart_of(comparison, title, comparison.metric, x[some], lines, **kinds)


def sensitivity(comparison: Comparison) -> Chart | None:
    """The loss of the trials over what was tuned; None where that is not one number."""
    tuning = comparison.tuning
    tuned = {
        setting.path
        for alternative in comparison.alternatives
        for setting in inside(tuning.variants[alternative.members[0]], comparison.axis)
    }
    if len(tuned) != 1:
        return None
    (path,) = tuned
    trials = []
    for alternative in comparison.alternatives:
        losses = {}
        for number in alternative.members:
            for setting in inside(tuning.variants[number], comparison.axis):
                losses[setting.value] = tuning.final(number)
        trials.append(losses)
    x = sorted({value for losses in trials for value in losses if isinstance(value, int | float)})
    if len(x) < 3 or any(not losses for losses in trials):
        return None
    start = np.median([record.history[tuning.loss][0] for record in tuning.records.values()])
    table = np.array([[losses.get(value, np.nan) for value in x] for losses in trials])
    table[table > 10 * start] = np.nan  # what has exploded would leave no room for the rest
    lines = [line_of(comparison, number, row) for number, row in enumerate(table)]
    values, x_log = np.array(x, float), is_wide(x[0], x[-1])
    return chart_of(comparison, in_words(tuning.loss), path, values, lines, x_log=x_log)


def inside(variant: Variant, axis: str) -> list:
    """The settings of a variant on other axes than the one compared."""
    return [setting for setting in variant.settings if setting.path != axis]
