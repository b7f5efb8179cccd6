"""The part of a report about a sweep: verdict, losses over the axes, best variants."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from nnref.experiment.axes import short_names, value_in_words
from nnref.experiment.text import blank_comments
from nnref.logbook.pages import SweepPage, read_sweep_page, sweep_page_at
from nnref.logbook.verdicts import medians
from nnref.report.page.blocks import (
    Block,
    Code,
    Headline,
    Line,
    Panel,
    Pictures,
    Report,
    Section,
    Table,
    Words,
    figure,
)
from nnref.report.page.curves import POINTS, line_chart, places, rounded
from nnref.report.page.panels import COLOURS, axes_panel, axis_panel
from nnref.report.page.subjects import in_words, machine_section, notes_section
from nnref.studies.sweep_page import UNREADABLE, read_arrays

DROPPED = re.compile(r"dropped after epoch (\d+)")
SHOWN = 20  # variants of the table that is open
MOST_PICTURES = 6  # of a sweep, one for each value of its third axis


def sweep_page(word: str, logbook: Path) -> SweepPage | None:
    """The page of a sweep, from its path, or from a name whose folder has pages of sweeps alone.

    Of several pages of one name the newest counts. None where the word stands for no sweep.
    """
    page = sweep_page_at(Path(word))
    if page is not None:
        return page
    paths = list((logbook / Path(word).stem).glob("*.json"))
    if not all(path.name.startswith("sweep-") for path in paths):
        return None
    pages = [read_sweep_page(path) for path in paths]
    return max(pages, key=lambda page: page.facts.get("started", ""), default=None)


def report_of_sweep(page: SweepPage) -> Report:
    """Everything that a page says about a sweep."""
    return Report(f"{page.name}, a sweep", [headline(page)], sections_of_sweep(page))


def sections_of_sweep(page: SweepPage) -> list[Section]:
    """The sections of a report on a sweep."""
    complete = page.complete and bool(page.variants)
    sections = [
        axes_section(page) if complete else None,
        variants_section(page) if complete else None,
        courses_section(page) if complete else None,
        experiment_section(page),
        machine_section([(page.name, [page])]),
        notes_section("sweep", [[page.name, note] for note in page.notes]),
    ]
    return [section for section in sections if section is not None]


def headline(page: SweepPage) -> Headline:
    """The verdict, and how large the sweep was."""
    about = json.loads(blank_comments(page.frozen)).get("about", "")
    facts = [
        ("runs", page.facts.get("runs", "–")),
        ("started", page.facts.get("started", "–")[:16]),
    ]
    if not page.complete:
        state = "it was cut short, or goes on still"
        return Headline("plain", "not ended", page.name, state, about, facts)
    failed = sum(variant["diverged"] for variant in page.variants)
    facts.append(("runs that diverged", str(failed)))
    return Headline("plain", "swept", page.name, page.facts["verdict"], about, facts)


def axes_of(page: SweepPage) -> dict[str, list[Any]]:
    """The axes that vary: path -> its values in order; the axis with the most values first."""
    values: dict[str, dict[str, Any]] = {}
    for variant in page.variants:
        for path, value in variant["settings"].items():
            values.setdefault(path, {})[value_in_words(value)] = value
    axes = {path: list(known.values()) for path, known in values.items() if len(known) > 1}
    for known in axes.values():
        if all(isinstance(value, int | float) for value in known):
            known.sort()
    return dict(sorted(axes.items(), key=lambda item: -len(item[1])))


def losses_over(page: SweepPage, axes: dict[str, list[Any]]) -> np.ndarray:
    """The lowest final loss at each combination of values, NaN where all diverged or none ran."""
    losses = np.full([len(values) for values in axes.values()], np.nan)
    for variant in page.variants:
        settings, loss = variant["settings"], variant[page.loss]
        if loss is None or not axes.keys() <= settings.keys():
            continue
        place = tuple(values.index(settings[path]) for path, values in axes.items())
        losses[place] = np.fmin(losses[place], loss)
    return losses


def panels_over_axes(page: SweepPage) -> list[Panel]:
    """The final loss over the axis, or over the two axes with the most values.

    A third axis has a picture for each of its values, if these are few.
    """
    axes = axes_of(page)
    paths = list(axes)
    third = paths[2] if len(axes) > 2 and len(axes[paths[2]]) <= MOST_PICTURES else None
    shown = paths[: 2 if third is None else 3]
    losses = losses_over(page, {path: axes[path] for path in shown})
    names = [[value_in_words(value) for value in axes[path]] for path in shown]
    others = [short_name(path) for path in paths[len(shown) :]]
    title = in_words(page.loss) + (f", lowest over {', '.join(others)}" if others else "")
    if len(shown) < 2:
        (path,) = shown or ("",)
        values = axes.get(path, [None])
        return [axis_panel(title, losses.reshape(-1), path, values, names[0] if names else ["all"])]

    def panel(part: np.ndarray, title: str) -> Panel:  # the more values across
        return axes_panel(title, part.T, shown[1], shown[0], names[1], names[0], losses)

    if third is None:
        return [panel(losses, title)]
    return [
        panel(losses[:, :, place], f"{short_name(third)} {name}: {title}")
        for place, name in enumerate(names[2])
    ]


def short_name(path: str) -> str:
    return path.rpartition(".")[2]


def axes_section(page: SweepPage) -> Section:
    """Heat maps, or a curve."""
    about = "The loss in the end, median of the seeds; blank where all runs diverged, or none ran."
    return Section("axes", "Over the axes", [Pictures(panels_over_axes(page))], about)


def ranked(page: SweepPage) -> list[int]:
    """The variants by their loss in the end, the best first.

    Variants that halving dropped stand behind those that went on, and diverged ones at the end.
    """

    def place(number: int) -> tuple[float, ...]:
        variant = page.variants[number]
        loss, dropped = variant[page.loss], DROPPED.match(variant["ending"])
        rung = int(dropped[1]) if dropped else math.inf
        return loss is None, -rung, loss or 0, number

    return sorted(range(len(page.variants)), key=place)


def variants_section(page: SweepPage) -> Section:
    """Every variant in figures, the best first."""
    paths = list(axes_of(page))
    loss = page.loss
    columns = ["place", *short_names(paths), f"{in_words(loss)} in the end"]
    columns += ["lowest", "diverged", "ended"]
    rows = []
    for place, number in enumerate(ranked(page), 1):
        variant = page.variants[number]
        settings = variant["settings"]
        values = [value_in_words(settings[path]) if path in settings else "–" for path in paths]
        figures = [figure(variant[loss]), figure(variant[f"best_{loss}"])]
        failed = str(variant["diverged"] or "–")
        rows.append([str(place), *values, *figures, failed, variant["ending"] or "–"])
    blocks: list[Block] = [Table("the best variants", columns, rows[:SHOWN])]
    if len(rows) > SHOWN:
        blocks.append(Table("all others", columns, rows[SHOWN:], folded=True))
    about = "Losses are medians over the seeds; a run that diverged counts as infinite."
    return Section("variants", "Variants", blocks, about)


def courses_section(page: SweepPage) -> Section | None:
    """The losses of the best variants over the epochs, from the file beside the page."""
    loss = page.loss
    path = page.path.with_suffix(".npz")
    try:
        losses = read_arrays(path)[loss]
    except UNREADABLE as error:
        reason = Words(f"left out: {path.name} cannot be read ({error})")
        return Section("courses", "The best variants", [reason])
    best = [n for n in ranked(page)[: len(COLOURS)] if page.variants[n][loss] is not None]
    matrices = [medians(losses[n])[None] for n in best]
    if not best:
        return None
    x = places(matrices, POINTS)
    lines = [
        Line(name_of(page.variants[n]), rounded(matrix[0, x]), colour, (f"run {n}",))
        for colour, (n, matrix) in enumerate(zip(best, matrices, strict=True))
    ]
    epochs = losses.shape[-1]
    note = "" if len(x) == epochs else f"Of {epochs:,} epochs {len(x):,} are drawn."
    title = in_words(loss)
    alt = f"{title} of the best variants over the epochs"
    chart = line_chart(alt, title, "epoch", x, lines, "variants", note)
    return Section("courses", "The best variants", [chart], "Medians over the seeds.")


def name_of(variant: dict[str, Any]) -> str:
    """A variant by what it sets."""
    settings = variant["settings"].items()
    words = (f"{short_name(path)} {value_in_words(value)}" for path, value in settings)
    return ", ".join(words) or variant["identity"]


def experiment_section(page: SweepPage) -> Section:
    """The file."""
    text = "\n".join(line for line in blank_comments(page.frozen).split("\n") if line.strip())
    title = f"{page.name} {page.facts.get('identity', '')}, defaults filled in"
    about = "The page of a sweep is a file of it: nnref sweep PAGE --again repeats it."
    return Section("experiment", "The experiment", [Code(title, text, folded=True)], about)
