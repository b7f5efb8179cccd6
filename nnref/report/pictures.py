"""Pictures of runs, drawn with matplotlib."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nnref.runs import Run

COLOURS = {"train_loss": "#4269d0", "valid_loss": "#c2410c"}


def draw_losses(run: Run, path: Path) -> Path:
    """Training and validation loss of every seed over the epochs, with their median.

    The losses are on a logarithmic scale. Thin lines are seeds, the thick one is their median.

    Args:
        run: a finished run.
        path: of the PNG or SVG, by its ending.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    losses = {name: values for name, values in run.history.items() if name.endswith("loss")}
    for name, values in losses.items():
        known = ~np.isnan(values).all(axis=0)
        epochs, values = np.flatnonzero(known), values[:, known]
        many = len(values) > 1
        if many:
            # One line with gaps for all seeds: two hundred separate lines take seconds.
            gap = np.full((len(values), 1), np.nan)
            x = np.tile(np.append(epochs, np.nan), len(values))
            lines = np.concatenate([values, gap], axis=1).ravel()
            axes.plot(x, lines, color=COLOURS[name], linewidth=0.6, alpha=0.3)
        middle = np.nanmedian(values, axis=0)
        kind = name.replace("_loss", "")
        label = f"{kind}, median of {len(values)} seeds" if many else kind
        dash = "-" if name == "train_loss" else "--"
        axes.plot(epochs, middle, dash, color=COLOURS[name], linewidth=2, label=label)
    if all(np.nanmin(values) > 0 for values in losses.values()):
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{run.experiment.loss.name.replace('_', ' ')}")
    axes.set_title(f"{run.name}  {run.experiment.identity}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
