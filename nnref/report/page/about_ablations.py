"""What there is to say of an ablation: what can be concluded, each alternative, and its tuning."""

from collections.abc import Sequence

import numpy as np

from nnref.logbook.pages import read_sweep_page
from nnref.report.page.about_sweeps import sections_of_sweep
from nnref.report.page.blocks import (
    BAND,
    Block,
    Chart,
    Headline,
    Line,
    Pictures,
    Report,
    Section,
    Switch,
    Switches,
    Table,
    View,
    Words,
    figure,
)
from nnref.report.page.curves import POINTS, places, rounded
from nnref.report.page.panels import COLOURS, Panel, chart_panels, inline, intervals_panel
from nnref.report.page.subjects import in_words
from nnref.report.terminal.ablation import Rows, differences, results
from nnref.studies.comparison import Comparison
from nnref.studies.groups import Variant


def report_of_comparison(comparison: Comparison) -> Report:
    """Everything that there is to say; without pages nothing of the tuning's own."""
    page = comparison.tuning.page
    against = f"difference to {comparison.best.name}"
    sections = [
        Section("alternatives", "Alternatives", alternatives(comparison)),
        Section(
            "differences",
            "Against the best",
            [table(against, comparison.axis, differences(comparison))],
        ),
    ]
    if comparison.warnings:
        said = [Words(told) for told in comparison.warnings]
        sections.append(Section("warnings", "To bear in mind", said))
    for key, title, chart, about in charts(comparison):
        if chart is not None:
            sections.append(Section(key, title, [chart], about))
    if page is not None:
        sections += sections_of_sweep(read_sweep_page(page))
    return Report(f"{comparison.name}, an ablation", [headline(comparison)], sections)


def panels_of_comparison(comparison: Comparison) -> list[Panel]:
    """Its pictures."""
    drawn = [(title, chart) for _, title, chart, _ in charts(comparison) if chart is not None]
    return [scores(comparison), *(p for title, chart in drawn for p in chart_panels(title, chart))]


def headline(comparison: Comparison) -> Headline:
    """What can be concluded, and from how much."""
    facts = [
        ("compared", f"{len(comparison.alternatives)} values of {comparison.axis}"),
        ("tuned with", f"{comparison.best.trials} trials each"),
        ("judged by", f"{comparison.metric} on {len(comparison.seeds)} fresh seeds"),
    ]
    said = " ".join(comparison.sentences)
    return Headline("plain", "compared", comparison.name, said, comparison.about, facts)


def table(caption: str, axis: str, given: Rows) -> Table:
    """Rows as a table of the page."""
    columns = [axis, *["settings"] * any(row.settings for row in given.rows), *given.columns]
    rows = []
    for row in given.rows:
        rows.append([row.name, *([row.settings] if "settings" in columns else []), *row.figures])
    return Table(caption, columns, rows, note=given.note)


def alternatives(comparison: Comparison) -> list[Block]:
    shown = table("tuned, and as they come", comparison.axis, results(comparison))
    return [Pictures([inline(scores(comparison))]), shown]


def scores(comparison: Comparison) -> Panel:
    """Where each alternative ends, with its interval: tuned, and at its defaults."""
    each = comparison.alternatives
    defaults = [None if one.default is None else one.default.middle for one in each]
    title = f"{in_words(comparison.metric)}, interquartile mean of {len(comparison.seeds)} seeds"
    return intervals_panel(
        title, [one.name for one in each], [one.tuned.middle for one in each], defaults
    )


def charts(comparison: Comparison) -> list[tuple[str, str, Chart | None, str]]:
    """Pictures to follow with the pointer: key, title, chart, how to read it."""
    loss = in_words(comparison.tuning.loss)
    return [
        (
            "curves",
            "Learning curves",
            curves(comparison),
            f"The {loss} of the tuned settings on the fresh seeds: median, and between the "
            "quartiles the band. A seed that diverged counts as infinite.",
        ),
        (
            "profiles",
            "Performance profiles",
            profiles(comparison),
            f"The share of runs whose {in_words(comparison.metric)} is better than a value: the "
            "sooner a line rises to 1, the better, and lines that cross are no clear order.",
        ),
        (
            "sensitivity",
            "Sensitivity",
            sensitivity(comparison),
            f"The {loss} of every setting that was tried, but for what exploded: a broad valley "
            "forgives a bad guess.",
        ),
    ]


def chart_of(
    comparison: Comparison, title: str, x_label: str, x: np.ndarray, lines: Sequence[Line], **kinds
) -> Chart:
    """A line for each alternative."""
    positive = all(v > 0 for line in lines for v in [*line.values, *line.low] if v is not None)
    ends = ", ".join(f"{line.label} {figure(line.values[-1])}" for line in lines)
    log = kinds.pop("log", positive)
    view = View(title, x.tolist(), list(lines), log=log, **kinds)
    switches = [Switch(line.tags[0], line.label, line.colour) for line in lines]
    alt = f"{title} over {x_label} of each alternative. In the end: {ends}."
    groups = [Switches(comparison.axis, switches)]
    if any(line.low for line in lines):
        groups.append(Switches("bands", [Switch(BAND, "quartiles")]))
    return Chart(alt, x_label, [view], groups)


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
        low, middle, high = np.full((3, len(x)), np.nan)
        inside = x < curve.shape[1]
        for values, row in zip((low, middle, high), curve, strict=True):
            values[inside] = row[x[inside]]
        drawn.append(line_of(comparison, number, middle, low, high))
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
    wide = bool(x[0] > 0 and x[-1] > 20 * x[0])
    title = "share of runs that are better"
    kinds = {"log": False, "x_log": wide, "stepped": True}
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
    found = []
    for alternative in comparison.alternatives:
        losses = {}
        for number in alternative.members:
            for setting in inside(tuning.variants[number], comparison.axis):
                losses[setting.value] = tuning.final(number)
        found.append(losses)
    x = sorted({value for losses in found for value in losses if isinstance(value, int | float)})
    if len(x) < 3 or any(not losses for losses in found):
        return None
    start = np.median([record.history[tuning.loss][0] for record in tuning.records.values()])
    table = np.array([[losses.get(value, np.nan) for value in x] for losses in found])
    table[table > 10 * start] = np.nan  # what has exploded would leave no room for the rest
    lines = [line_of(comparison, number, row) for number, row in enumerate(table)]
    wide = x[0] > 0 and x[-1] > 20 * x[0]
    return chart_of(comparison, in_words(tuning.loss), path, np.array(x, float), lines, x_log=wide)


def inside(variant: Variant, axis: str) -> list:
    """What a variant sets beside the thing compared."""
    return [setting for setting in variant.settings if setting.path != axis]
