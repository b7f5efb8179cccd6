"""Panels: still pictures with matplotlib, for the page (SVG inside it) and for `nnref plot`.

A panel draws on axes that it is handed, so that each picture of the page and each part of the one
file of `nnref plot` come from the same lines.
"""

import io
import re
import textwrap
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from nnref.errors import UserError
from nnref.report.page.blocks import HEIGHT, WIDTH, Chart, Heading, Image, Panel, Pictures, Report
from nnref.studies.statistics import Interval

# The style sheet has the same eight as --line-0 ..., and lighter ones for dark screens.
COLOURS = (
    *("#2f5fd0", "#c2410c", "#0f766e", "#8b2fd6"),
    *("#8a5a00", "#be185d", "#3f7010", "#475569"),
)
INK = "#010203"  # stands for the colour of text until the page is written
MOST_NAMES = 24  # on an axis
EXPLODED = 30  # a loss so many times the median has the colour of the worst
STYLE: Any = {
    "axes.grid": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "font.size": 9,
    "image.cmap": "viridis",
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters
    "text.parse_math": False,  # a dollar in a name is no formula
}
IN_INK: Any = dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
)
DRAWN = count()  # numbers the pictures


def inline(panel: Panel) -> Image:
    """A panel as SVG that stands inside a page and takes its colours."""
    salt = {"svg.hashsalt": str(next(DRAWN))}  # names in the picture are names in the page
    with mpl.rc_context(STYLE | IN_INK | salt):
        figure = Figure(figsize=panel.size, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        panel.draw(axes)
        written = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", dpi=100, metadata=no_metadata)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 aria-hidden="true"', svg, count=1)
    svg = svg.replace(INK, "currentColor")
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--line-{number})")
    return Image(panel.alt, svg=svg, caption=panel.title)


def panels_in(report: Report) -> list[Panel]:
    """The still pictures of a report, and each view of its charts as another one.

    Raises:
        UserError: where there is nothing to draw.
    """
    panels = []
    for section in report.sections:
        heading = ""
        for block in section.blocks:
            if isinstance(block, Heading):
                heading = block.text
            elif isinstance(block, Chart):
                panels += chart_panels(heading or section.title, block)
            elif isinstance(block, Pictures):
                prefix = f"{heading}: " if heading else ""
                still = [each for each in block.images if isinstance(each, Panel)]
                panels += [panel._replace(title=prefix + panel.title) for panel in still]
    if not panels:
        raise UserError(f"{report.title}: nothing to draw, it has no line of measures yet")
    return panels


def save(panels: Sequence[Panel], title: str, path: Path) -> Path:
    """All panels in one PNG or SVG, by its ending.

    Raises:
        UserError: where the file cannot be written.
    """
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = [panels[n : n + columns] for n in range(0, len(panels), columns)]
    heights = [max(panel.size[1] for panel in row) + 0.2 for row in rows]
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=(columns * WIDTH, sum(heights)), layout="constrained")
        grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
        figure.suptitle(title, x=0.01, ha="left")
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(grid[number])
            axes.set_title(panel.title, loc="left")
            panel.draw(axes)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130, metadata=metadata)
        except OSError as error:
            raise UserError(f"-o {path}: {(error.strerror or 'not written').lower()}") from None
    return path


# --- curves -------------------------------------------------------------------------------------


def chart_panels(title: str, chart: Chart) -> list[Panel]:
    """Each view of a chart as a still picture."""

    def panel(number: int) -> Panel:
        view = chart.views[number]

        def draw(axes: Axes) -> None:
            for line in view.lines:
                x, y = np.array(view.x), np.array(line.values, float)
                drawn = np.isfinite(y)
                label = line.label if len(view.main) <= 4 else short(line.label, 26)
                style: Any = {"linestyle": "--"} if line.dashed else {}
                style |= {"linewidth": 0.5, "alpha": 0.35} if line.thin else {"label": label}
                style |= {"drawstyle": "steps-pre"} if view.stepped else {}
                axes.plot(x[drawn], y[drawn], color=COLOURS[line.colour], **style)
                if line.low:
                    edges = np.array(line.low, float), np.array(line.high, float)
                    axes.fill_between(x, *edges, color=COLOURS[line.colour], alpha=0.18, lw=0)
            if view.x_log:
                logarithmic_x(axes)
            if view.log:
                logarithmic_y(axes)
            if len(chart.views) == 1:
                axes.set_ylabel(view.label)
            axes.set_xlabel(chart.x_label)
            if len(view.main) > 4:  # below the picture: it would hide the lines
                tight: Any = {"columnspacing": 1.0, "handlelength": 1.4}
                place = {"loc": "upper left", "bbox_to_anchor": (-0.2, -0.2)}
                axes.legend(fontsize=7, ncols=2, **place, **tight)
            elif view.main:
                axes.legend(fontsize=8)

        name = view.label if len(chart.views) > 1 else title
        below = 0.16 * -(-len(view.main) // 2) if len(view.main) > 4 else 0
        return Panel(name, chart.alt, draw, (WIDTH, HEIGHT + below))

    return [panel(number) for number in range(len(chart.views))]


# --- layers over the run ------------------------------------------------------------------------


def heat_map(
    title: str,
    alt: str,
    values: np.ndarray,
    epochs: np.ndarray,
    layers: Sequence[str],
    log: bool,
    x_label: str = "epoch",
) -> Panel:
    """A measure of each layer, (n, layers), the first layer at the top, over the epochs, (n,).

    NaN stays blank and, where the colours go by the logarithm, what is not positive, too.
    """

    def draw(axes: Axes) -> None:
        shown = np.where(values > 0, values, np.nan) if log else values
        finite = shown[np.isfinite(shown)]
        norm = None
        if log and finite.size and finite.min() < finite.max():
            norm = LogNorm(finite.min(), finite.max())
        half = (epochs[-1] - epochs[0]) / max(1, len(epochs) - 1) / 2 or 0.5
        picture = axes.imshow(
            np.ma.masked_invalid(shown.T),
            aspect="auto",
            interpolation="nearest",
            extent=(epochs[0] - half, epochs[-1] + half, len(layers) - 0.5, -0.5),
            norm=norm,
            **({} if log else {"vmin": 0, "vmax": max(finite.max(initial=0), 0.01)}),
        )
        names_on(axes.yaxis, layers)
        axes.set_xlabel(x_label)
        if len(epochs) > 1:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        else:
            axes.set_xticks(epochs)
        bar = axes.figure.colorbar(picture, ax=axes, pad=0.02)
        if norm is not None:
            ticks = np.geomspace(finite.min(), finite.max(), 4)
            bar.set_ticks(list(ticks), labels=[f"{tick:.2g}" for tick in ticks])
            bar.minorticks_off()

    return Panel(title, alt, draw, (WIDTH, 1.5 + 0.17 * min(len(layers), MOST_NAMES)))


def names_on(axis: Any, names: Sequence[str]) -> None:
    """Names along an axis, as many as there is room for."""
    places = range(0, len(names), -(-len(names) // MOST_NAMES))
    axis.set_ticks(list(places), [short(names[place]) for place in places])


def logarithmic_y(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # the usual one writes formulas
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))


def logarithmic_x(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def is_wide(low: float, high: float) -> bool:
    """Whether positive numbers from `low` to `high` are better shown on a logarithmic axis."""
    return bool(low > 0 and high > 20 * low)


def short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


# --- the network --------------------------------------------------------------------------------


def histogram(title: str, alt: str, start: np.ndarray, end: np.ndarray) -> Panel:
    """How numbers are spread: before training as an outline, after it as an area."""

    def draw(axes: Axes) -> None:
        both = np.concatenate([start, end])
        both = both[np.isfinite(both)]
        low, high = (both.min(), both.max()) if both.size else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1, 41)
        area: Any = {"fill": True, "color": COLOURS[1], "alpha": 0.75, "label": "end"}
        outline: Any = {"color": COLOURS[0], "linewidth": 1.4, "label": "start"}
        for values, style in ((end, area), (start, outline)):
            counted, _ = np.histogram(values[np.isfinite(values)], edges)
            axes.stairs(counted / max(1, counted.sum()), edges, **style)
        axes.set_ylabel("share")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.legend(fontsize=8)

    return Panel(title, alt, draw, (WIDTH, 1.9))


def confusion_panel(alt: str, counts: np.ndarray, classes: Sequence[str]) -> Panel:
    """How often each class (row) was answered with each (column)."""

    def draw(axes: Axes) -> None:
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        tint = np.zeros((*share.shape, 4))
        # Never so dark, or on dark paper so bright, that the numbers cannot be read.
        tint[..., :3], tint[..., 3] = to_rgb(COLOURS[0]), 0.55 * share
        axes.imshow(tint)
        if len(classes) <= 12:
            for i, j in np.argwhere(counts):
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8)
        names_on(axes.xaxis, classes)
        names_on(axes.yaxis, classes)
        if max(map(len, classes)) > 3:
            axes.tick_params(axis="x", rotation=90)
        axes.set(xlabel="answer", ylabel="class")

    return Panel("Confusion matrix", alt, draw, (WIDTH, 3.6))


def residual_panels(targets: np.ndarray, answers: np.ndarray, alt: str) -> list[Panel]:
    """Answers over targets, and how the residuals are spread."""
    t, f = targets.ravel(), answers.ravel()
    apart = -(-t.size // 800)

    def scatter(axes: Axes) -> None:
        x, y = t[::apart], f[::apart]
        axes.plot(x, y, ".", color=COLOURS[0], markersize=3, alpha=0.6)
        ends = [float(t.min()), float(t.max())]
        axes.plot(ends, ends, color=COLOURS[1], linewidth=1.2, label="answer = target")
        axes.set(xlabel="target", ylabel="answer")
        axes.legend(fontsize=8)

    def spread(axes: Axes) -> None:
        residuals = f - t
        counted, edges = np.histogram(residuals[np.isfinite(residuals)], 40)
        axes.stairs(counted, edges, fill=True, color=COLOURS[0], alpha=0.8)
        axes.axvline(0, color=COLOURS[1], linewidth=1.2)
        axes.set(xlabel="answer − target", ylabel="rows")

    return [Panel("Answers", alt, scatter), Panel("Residuals", alt, spread)]


# --- sweeps and ablations -------------------------------------------------------------------------


def axis_panel(
    title: str, losses: np.ndarray, path: str, values: Sequence[Any], names: Sequence[str]
) -> Panel:
    """A loss over the values of one axis."""

    def draw(axes: Axes) -> None:
        numbers = all(isinstance(value, int | float) for value in values)
        x = np.array(values, float) if numbers else np.arange(len(values))
        axes.plot(x, losses, "o-", color=COLOURS[0], markersize=4)
        if not numbers:
            names_on(axes.xaxis, names)
            axes.tick_params(axis="x", rotation=90)
        elif is_wide(float(x.min()), float(x.max())):
            logarithmic_x(axes)
        if np.nanmin(losses, initial=np.inf) > 0:
            logarithmic_y(axes)
        axes.set_xlabel(path)

    figures = ", ".join(f"{name}: {value:.3g}" for name, value in zip(names, losses, strict=True))
    return Panel(title, f"{title} over {path}: {figures}", draw)


def intervals_panel(
    title: str,
    names: Sequence[str],
    tuned: Sequence[Interval],
    defaults: Sequence[Interval | None] = (),
    sure: Sequence[bool] = (),
) -> Panel:
    """An interval in each row, the first at the top, and another one below it.

    Instead of a second one, `sure` says of intervals of differences which can be claimed: these are
    filled, and the line of no difference is drawn.
    """

    def draw(axes: Axes) -> None:
        kinds: Any = [
            ("tuned", tuned, -0.13, {"color": COLOURS[0], "marker": "o"}),
            ("at defaults", defaults, 0.17, {"color": COLOURS[1], "marker": "s", "mfc": "none"}),
        ]
        if sure:
            claimed = [each if certain else None for each, certain in zip(tuned, sure, strict=True)]
            rest = [None if certain else each for each, certain in zip(tuned, sure, strict=True)]
            grey = {"color": COLOURS[7], "marker": "o", "mfc": "none"}
            kinds = [
                ("a difference", claimed, 0.0, {"color": COLOURS[0], "marker": "o"}),
                ("none can be claimed", rest, 0.0, grey),
            ]
            axes.axvline(0, color=COLOURS[7], linewidth=0.8, linestyle="--", zorder=0)
        for label, intervals, below, style in kinds:
            rows = [
                (n, each) for n, each in enumerate(intervals) if each and np.isfinite(each.estimate)
            ]
            if not rows:
                continue
            x, low, high = np.array([each[:3] for _, each in rows]).T
            y, bars = [n + below for n, _ in rows], np.array([x - low, high - x])
            axes.errorbar(x, y, xerr=bars, fmt="none", ecolor=style["color"], elinewidth=1.6)
            axes.plot(x, y, linestyle="", markersize=4, label=label, **style)
        axes.set_yticks(range(len(names)), [textwrap.fill(short(name, 40), 20) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        if not sure and is_wide(*axes.dataLim.intervalx):
            logarithmic_x(axes)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=2)

    figures = "; ".join(f"{name} {each}" for name, each in zip(names, tuned, strict=True))
    return Panel(title, f"{title}: {figures}", draw, (WIDTH, 1.1 + 0.32 * len(names)))


def axes_panel(
    title: str,
    losses: np.ndarray,
    rows: str,
    columns: str,
    row_names: Sequence[str],
    column_names: Sequence[str],
    all_losses: np.ndarray,
) -> Panel:
    """A loss over two axes, (rows, columns), with its figures where there is room.

    The colours are those of all losses, so that several such pictures can be compared.
    """

    def draw(axes: Axes) -> None:
        finite = all_losses[np.isfinite(all_losses)]
        ends = (0.0, 1.0)
        if finite.size:  # what has exploded would leave no colours for the rest
            ends = finite.min(), min(finite.max(), EXPLODED * np.median(finite))
        norm = (LogNorm if 0 < ends[0] < ends[1] else Normalize)(*ends, clip=True)
        tint = mpl.colormaps["viridis_r"]
        picture = axes.imshow(np.ma.masked_invalid(losses), aspect="auto", norm=norm, cmap=tint)
        if losses.shape[1] <= 10:
            for i, j in np.argwhere(np.isfinite(losses)):
                light = np.mean(tint(picture.norm(losses[i, j]))[:3])
                ink = "#101418" if light > 0.45 else "white"
                cell = f"{losses[i, j]:.2g}"
                axes.text(j, i, cell, ha="center", va="center", fontsize=7, color=ink)
        names_on(axes.xaxis, column_names)
        names_on(axes.yaxis, row_names)
        axes.tick_params(axis="x", rotation=90)
        axes.set(xlabel=columns, ylabel=rows)

    alt = f"{title} over {columns} and {rows}: from {np.nanmin(losses, initial=np.inf):.3g} to "
    alt += f"{np.nanmax(losses, initial=0):.3g}; the table has every figure"
    height = 2.2 + 0.22 * min(len(row_names), MOST_NAMES)
    width = WIDTH * (1 if losses.shape[1] <= 6 else 1.3)
    return Panel(title, alt, draw, (width, height))
