"""The page of a look at data: what each column is, how the target lies, and what is doubtful."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nnref.checks.data import Look
from nnref.data import Dataset
from nnref.report.page.blocks import (
    Bar,
    Bars,
    Block,
    Headline,
    Panel,
    Pictures,
    Report,
    Section,
    Table,
)
from nnref.report.terminal.data import target_in_figures, with_rows

DRAWN = 24  # columns that have a picture each
SMALL = (2.2, 1.5)  # inches
ROWS = 8  # of images, and images in each


def report_of_look(seen: Look, name: str) -> Report:
    """A look as a report."""
    sections = [doubts_section(seen), target_section(seen.dataset), columns_section(seen.dataset)]
    sections.append(images_section(seen.dataset))
    return Report(f"Data: {name}", [headline_of(seen, name)], [s for s in sections if s.blocks])


def headline_of(seen: Look, name: str) -> Headline:
    """How many doubts there are, with the numbers of rows and columns."""
    count = len(seen.doubts) + len(seen.warnings)
    splits = {name: f"{len(split.x):,}" for name, split in seen.dataset.splits.items()}
    width = int(np.prod(seen.dataset.train.x.shape[1:]))
    facts = [*splits.items(), ("numbers a row", f"{width:,}")]
    subject = "One thing is" if count == 1 else f"{count} things are"
    sentence = f"{subject} told of these data." if count else "Nothing is doubtful."
    tone = "bad" if seen.doubts else "plain" if count else "good"
    about = " ".join(f"{note}." for note in seen.dataset.notes)
    return Headline(tone, "look" if count else "clear", name, sentence, about, facts)


def doubts_section(seen: Look) -> Section:
    """Each doubt with its rows and its remedy, what reading has told, and the three numbers."""
    blocks: list[Block] = []
    rows = [[doubt.what, with_rows(doubt), doubt.remedy] for doubt in seen.doubts]
    if rows:
        heads = ["what", "how it is seen", "what to do"]
        blocks.append(Table("doubts", heads, rows, numbers=False))
    if seen.warnings:
        warned = [["", warning] for warning in seen.warnings]
        blocks.append(Table("told while reading", ["", ""], warned, numbers=False, headless=True))
    for name, numbers in seen.numbers.items():
        if numbers is not None:
            bars = [
                Bar("inside train", numbers.inside),
                Bar(f"from train to {name}", numbers.across, 1),
                Bar(f"inside {name}", numbers.within, 2),
            ]
            note = "0 is the best constant answer, 1 is perfect; a low one between two high ones "
            note += "says that the splits do not mean the same"
            blocks.append(Bars(f"skill of simple models, train and {name}", bars, note))
    return Section("doubts", "What is told", blocks)


def target_section(dataset: Dataset) -> Section:
    """The distribution of the target."""
    rows = [[name, figure] for name, figure in target_in_figures(dataset)]
    alt = "how the targets of the training rows are distributed"
    panel = Panel("target of the training rows", alt, partial(draw_target, dataset))
    table = Table("training rows", ["", ""], rows, headless=True)
    return Section("target", "Target", [Pictures([panel]), table])


def draw_target(dataset: Dataset, axes: Axes) -> None:
    """Counts of classes, or of values in bins."""
    y = dataset.train.y.astype(np.float64)
    if dataset.classes:
        counts = np.bincount(dataset.train.y.ravel(), minlength=len(dataset.classes))
        axes.bar(np.arange(len(counts)), counts)
        if len(counts) <= 12:
            axes.set_xticks(np.arange(len(counts)), [name[:12] for name in dataset.classes])
            axes.tick_params(axis="x", rotation=40 if len(counts) > 4 else 0)
    else:
        if dataset.target_scaling is not None:
            mean, deviation = dataset.target_scaling
            y = y.reshape(len(y), -1) * deviation + mean
        axes.hist(y.ravel(), bins=40)
    axes.set_ylabel("rows")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def columns_section(dataset: Dataset) -> Section:
    """The table of the columns, and how the inputs of each split are distributed."""
    blocks: list[Block] = []
    if dataset.table:
        gaps = any(use.missing for use in dataset.table)
        heads = ["column", "type", *["missing"] * gaps, "different", "use"]
        rows = [
            [u.column, u.type, *[str(u.missing or "")] * gaps, u.unique, u.use]
            for u in dataset.table
        ]
        blocks.append(Table("columns of the file", heads, rows, numbers=False))
    if dataset.columns and dataset.train.x.ndim == 2:
        # Of numbers that stand for categories no picture says anything.
        first = 0 if dataset.encoder is None else len(dataset.encoder.numbered)
        panels = [
            Panel(
                dataset.columns[place],
                f"{dataset.columns[place]} in each split",
                partial(draw_column, dataset, place, place == first),
                SMALL,
            )
            for place in range(first, min(first + DRAWN, len(dataset.columns)))
        ]
        blocks += [Pictures(panels, small=True)] if panels else []
    about = "Each picture shows the share of the rows of each split; they should lie over another."
    return Section("columns", "Columns", blocks, about if dataset.columns else "")


def images_section(dataset: Dataset) -> Section:
    """Some training images of each class, of a folder of them."""
    blocks: list[Block] = []
    if dataset.files:
        first = dataset.classes[:ROWS]
        alt = f"some training images of {', '.join(first)}, a row for each"
        size = (SMALL[0] * 2, 0.5 * len(first) + 0.2)
        blocks.append(Pictures([Panel("some images", alt, partial(draw_images, dataset), size)]))
    return Section("images", "Images", blocks, "Training images, a row for each class.")


def draw_images(dataset: Dataset, axes: Axes) -> None:
    """Up to eight training images of each of the first classes, as they were before scaling."""
    x, y = dataset.train
    height, width = x.shape[1:3]
    wall = np.full((min(ROWS, len(dataset.classes)) * height, ROWS * width, x.shape[3]), 255.0)
    for row in range(len(wall) // height):
        for place, image in enumerate(x[y == row][:ROWS]):
            if dataset.scaling is not None:
                mean, deviation = (part[0] for part in dataset.scaling)
                image = image * deviation + mean
            top, left = row * height, place * width
            wall[top : top + height, left : left + width] = image
    pixels = np.rint(wall).clip(0, 255).astype(np.uint8)
    axes.imshow(pixels[..., 0] if x.shape[3] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
    centers = height * (np.arange(len(wall) // height) + 0.5)
    axes.set_yticks(centers, [name[:12] for name in dataset.classes[:ROWS]])
    axes.set_xticks([])
    axes.tick_params(length=0)


def draw_column(dataset: Dataset, place: int, legend: bool, axes: Axes) -> None:
    """A column of the inputs, by split, in its own unit where it was standardized."""
    columns = {name: split.x[:, place] for name, split in dataset.splits.items()}
    if dataset.scaling is not None:
        mean, deviation = (part[0, place] for part in dataset.scaling)
        columns = {name: values * deviation + mean for name, values in columns.items()}
    low, high = bounds(columns)
    for name, values in columns.items():
        bins = np.linspace(low, high, 21)
        shares = np.histogram(values, bins)[0] / len(values)
        axes.stairs(shares, bins, label=name)
    axes.set_yticks([])
    if legend:
        axes.legend(fontsize=7)


def bounds(columns: dict[str, np.ndarray]) -> tuple[float, float]:
    """The smallest and the largest value, a little apart where they are the same."""
    low = float(min(values.min() for values in columns.values()))
    high = float(max(values.max() for values in columns.values()))
    return low, high if high > low else low + 1
