"""What a range of learning rates and a growing network have shown."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nnref.logbook.index import number
from nnref.report.pictures import COLOURS, blank_figure, saved
from nnref.report.terminal.logbook import plain_table
from nnref.studies.crawl import Crawl
from nnref.studies.lr_range import LrRange
from nnref.studies.statistics import Interval


def draw_lr_range(found: LrRange, path: Path) -> Path:
    """The loss in the end over the learning rate, with the steepest and the largest stable one.

    Both axes are logarithmic. Thin lines are seeds, the thick one is their median; what diverged is
    left out; the dotted line is the loss before the first step.

    Args:
        found: by `lr_range`.
        path: of the PNG or SVG, by its ending.
    """
    figure, axes = blank_figure()
    losses = np.where(np.isfinite(found.losses), found.losses, np.nan)
    # What has exploded would leave no room for the rest.
    losses = np.where(losses > 10 * found.start.max(), np.nan, losses)
    colour = COLOURS["train_loss"]
    axes.plot(found.rates, losses.T, color=colour, linewidth=0.6, alpha=0.4)
    whole = ~np.isnan(losses).any(axis=0)
    label = f"median of {len(losses)} seeds after {found.steps} steps"
    middle = np.median(losses[:, whole], axis=0)
    axes.plot(found.rates[whole], middle, color=colour, linewidth=2, label=label)
    axes.axhline(float(np.median(found.start)), color="grey", linestyle=":", label="at the start")
    for rate, name, dash in ((found.steepest, "steepest", "-"), (found.stable, "stable", "--")):
        told = f"{name}: {rate.estimate:.2g}"
        axes.axvline(rate.estimate, color=COLOURS["valid_loss"], linestyle=dash, label=told)
        axes.axvspan(rate.low, rate.high, color=COLOURS["valid_loss"], alpha=0.12)
    axes.set_xscale("log")
    if np.nanmin(losses, initial=np.inf) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(f"{found.name}: range of learning rates", loc="left")
    axes.legend(frameon=False)
    return saved(figure, path)


def lr_range_as_json(found: LrRange) -> dict[str, Any]:
    """A range of rates as plain values: null where a loss is infinite."""

    def finite(values: np.ndarray) -> list[float | None]:
        return [float(value) if np.isfinite(value) else None for value in values]

    def plain(given: Interval) -> dict[str, float]:
        return {"estimate": given.estimate, "low": given.low, "high": given.high}

    return {
        "name": found.name,
        "steps": found.steps,
        "rates": [float(rate) for rate in found.rates],
        "losses": [finite(row) for row in found.losses],
        "start": finite(found.start),
        "steepest": plain(found.steepest),
        "stable": plain(found.stable),
        "verdict": found.sentence,
        "warnings": list(found.warnings),
    }


def show_crawl(found: Crawl, console: Console) -> None:
    """A row for each size of network, and what it bought."""
    right = ("parameters", found.measure)
    table = plain_table("hidden layers", *right, "claim", right=right)
    for rung in found.rungs:
        held = {True: "held", False: "not held", None: ""}[rung.held]
        marks = [
            word
            for word, one in (("smallest", found.smallest), ("enough", found.enough))
            if one is rung
        ]
        loss = number(rung.loss if np.isfinite(rung.loss) else None)
        told = f"{held}  ← {', '.join(marks)}" if marks else held
        table.add_row(rung.name, f"{rung.parameters:,}", loss, told)
    console.print(table)
    console.print(f"\n{found.name}: {found.sentence}", style="bold", highlight=False)


def crawl_as_json(found: Crawl) -> dict[str, Any]:
    """A crawl as plain values."""
    return {
        "name": found.name,
        "measure": found.measure,
        "sizes": [
            {
                "layers": rung.layers,
                "parameters": rung.parameters,
                "loss": rung.loss if np.isfinite(rung.loss) else None,
                "held": rung.held,
                "told": rung.told,
            }
            for rung in found.rungs
        ],
        "smallest": found.smallest.name if found.smallest else None,
        "enough": found.enough.name,
        "verdict": found.sentence,
    }
