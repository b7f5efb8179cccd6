"""A range of learning rates and a growing network: picture, table, and both as JSON."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nnref.logbook.index import number
from nnref.report.pictures import COLOURS, blank_figure, saved
from nnref.report.plain import attributes, finite, plain
from nnref.report.terminal.logbook import plain_table
from nnref.studies.crawl import Crawl
from nnref.studies.lr_range import LrRange


def draw_lr_range(result: LrRange, path: Path) -> Path:
    """The loss in the end over the learning rate, with the steepest and the largest stable one.

    Both axes are logarithmic. Thin lines are seeds, the thick one is their median; what diverged is
    left out; the dotted line is the loss before the first step.

    Args:
        result: by `lr_range`.
        path: of the PNG or SVG, by its ending.
    """
    figure, axes = blank_figure()
    losses = np.where(np.isfinite(result.losses), result.losses, np.nan)
    # What has exploded would leave no room for the rest.
    losses = np.where(losses > 10 * result.start.max(), np.nan, losses)
    colour = COLOURS["train_loss"]
    axes.plot(result.rates, losses.T, color=colour, linewidth=0.6, alpha=0.4)
    whole = ~np.isnan(losses).any(axis=0)
    label = f"median of {len(losses)} seeds after {result.steps} steps"
    median = np.median(losses[:, whole], axis=0)
    axes.plot(result.rates[whole], median, color=colour, linewidth=2, label=label)
    axes.axhline(float(np.median(result.start)), color="grey", linestyle=":", label="at the start")
    for rate, name, dash in ((result.steepest, "steepest", "-"), (result.stable, "stable", "--")):
        label = f"{name}: {rate.estimate:.2g}"
        axes.axvline(rate.estimate, color=COLOURS["valid_loss"], linestyle=dash, label=label)
        axes.axvspan(rate.low, rate.high, color=COLOURS["valid_loss"], alpha=0.12)
    axes.set_xscale("log")
    if np.nanmin(losses, initial=np.inf) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(f"{result.name}: range of learning rates", loc="left")
    axes.legend(frameon=False)
    return saved(figure, path)


def lr_range_as_json(result: LrRange) -> dict[str, Any]:
    """A range of rates as plain values: null where a loss is infinite."""
    rates = {
        name: attributes(getattr(result, name), "estimate", "low", "high")
        for name in ("steepest", "stable")
    }
    verdict = {"verdict": result.sentence, "warnings": result.warnings}
    arrays = attributes(result, "name", "steps", "rates", "losses", "start")
    return plain(arrays | rates | verdict)


def show_crawl(crawl: Crawl, console: Console) -> None:
    """A row for each size of network, and what it bought."""
    right = ("parameters", crawl.measure)
    table = plain_table("hidden layers", *right, "claim", right=right)
    for rung in crawl.rungs:
        held = {True: "held", False: "not held", None: ""}[rung.held]
        marks = [
            word
            for word, one in (("smallest", crawl.smallest), ("enough", crawl.enough))
            if one is rung
        ]
        claim = f"{held}  ← {', '.join(marks)}" if marks else held
        loss = number(finite(rung.loss))
        table.add_row(rung.name, f"{rung.parameters:,}", loss, claim)
    console.print(table)
    console.print(f"\n{crawl.name}: {crawl.sentence}", style="bold", highlight=False)


def crawl_as_json(crawl: Crawl) -> dict[str, Any]:
    """A crawl as plain values."""
    smallest = crawl.smallest.name if crawl.smallest else None
    found = {"smallest": smallest, "enough": crawl.enough.name, "verdict": crawl.sentence}
    return plain(attributes(crawl, "name", "measure") | {"sizes": crawl.rungs} | found)
