"""Pictures of runs, of a schedule and of a range of rates; and the rate that a run had."""

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnref.experiment.experiment import Experiment
from nnref.logbook.verdicts import medians
from nnref.parts.metrics import is_loss
from nnref.parts.schedules import PlateauState, Progress, observe, plateau
from nnref.studies.lr_range import LrRange
from nnref.studies.run import Run
from nnref.training.setup import Setup, bind, from_experiment

POINTS = 600  # of a learning rate over a run
COLOURS = {"train_loss": "#4269d0", "valid_loss": "#c2410c"}


def draw_losses(run: Run, path: Path) -> Path:
    """Training and validation loss of every seed over the epochs: a PNG or SVG, by its ending.

    The losses are on a logarithmic scale. Thin lines are seeds, the thick one is their median.
    """
    figure, axes = blank_figure()
    losses = {name: values for name, values in run.history.items() if is_loss(name)}
    for name, values in losses.items():
        median = medians(values)
        epochs = np.flatnonzero(~np.isnan(median))
        values, many = values[:, epochs], len(values) > 1
        if many:
            # One line with gaps for all seeds: two hundred separate lines take seconds.
            gap = np.full((len(values), 1), np.nan)
            x = np.tile(np.append(epochs, np.nan), len(values))
            lines = np.concatenate([values, gap], axis=1).ravel()
            axes.plot(x, lines, color=COLOURS[name], linewidth=0.6, alpha=0.3)
        kind = name.replace("_loss", "")
        label = f"{kind}, median of {len(values)} seeds" if many else kind
        dash = "-" if name == "train_loss" else "--"
        axes.plot(epochs, median[epochs], dash, color=COLOURS[name], linewidth=2, label=label)
    if all(np.nanmin(values) > 0 for values in losses.values()):
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel=run.experiment.loss.name.replace("_", " "))
    axes.set_title(f"{run.name}  {run.experiment.identity}", loc="left")
    axes.legend(frameon=False)
    return saved(figure, path)


def draw_schedule(experiment: Experiment, name: str, path: Path) -> Path:
    """The learning rate at every step of a run: a PNG or SVG, by its ending.

    Where it depends on the validation loss, it is drawn as if that never stalled. The data are
    loaded to count the steps.
    """
    _, setup, _ = from_experiment(experiment)
    steps = np.unique(np.linspace(0, setup.steps - 1, 2000).astype(np.int32))
    rate = learning_rates(experiment, setup, steps, np.zeros_like(steps))
    figure, axes = blank_figure()
    axes.plot(steps / setup.steps_per_epoch, rate, color=COLOURS["train_loss"])
    epochs = f"epoch ({setup.steps_per_epoch} steps each, {setup.steps} in all)"
    axes.set(xlabel=epochs, ylabel="learning rate", ylim=(0, None))
    title = f"{name}: {experiment.optimizer.name}, {experiment.schedule.name}"
    if plateau(bind(experiment, "schedule", {})) is not None:
        title += ", while validation improves"
    axes.set_title(title, loc="left")
    return saved(figure, path)


def draw_lr_range(result: LrRange, path: Path) -> Path:
    """The loss in the end over the learning rate: a PNG or SVG, by its ending.

    Both axes are logarithmic. Thin lines are seeds, the thick one is their median; what diverged is
    left out; the dotted line is the loss before the first step.
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
    axes.set(xlabel="learning rate", ylabel="training loss")
    axes.set_title(f"{result.name}: range of learning rates", loc="left")
    axes.legend(frameon=False)
    return saved(figure, path)


def blank_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def saved(figure: Figure, path: Path) -> Path:
    """Write a picture; a link that stands in its place is replaced, and not followed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        figure.savefig(partial, dpi=150)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


# --- the learning rate over a run, computed again from its schedule -----------------------------


def learning_rates(
    experiment: Experiment, setup: Setup, steps: np.ndarray, reductions: np.ndarray
) -> np.ndarray:
    """The rates of the updates with these numbers, (n,), from 0.

    `reductions`, (n,), says how often a plateau has been seen before each of them.
    """
    schedule = bind(experiment, "schedule", {})

    def factor(step: jax.Array, reduced: jax.Array) -> jax.Array:
        return schedule(Progress(step, setup.steps, setup.steps_per_epoch, reduced))

    factors = jax.jit(jax.vmap(factor))(steps.astype(np.int32), reductions.astype(np.int32))
    return np.asarray(experiment.optimizer.learning_rate * factors)


def rate_of_run(
    experiment: Experiment, setup: Setup, valid_loss: np.ndarray, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rate of a run over its first epochs; a schedule may have listened to `valid_loss`.

    Returns:
        Epochs, in which an update stands at the share of its epoch that is done, and rates.
    """
    steps = max(1, epochs * setup.steps_per_epoch)
    some = np.unique(np.linspace(0, steps - 1, POINTS).astype(np.int64))
    seen = reductions_by_epoch(experiment, valid_loss)
    epoch = some // setup.steps_per_epoch
    reduced = seen[np.minimum(epoch, len(seen) - 1)] if len(seen) else np.zeros_like(epoch)
    return some / setup.steps_per_epoch, learning_rates(experiment, setup, some, reduced)


def reductions_by_epoch(experiment: Experiment, valid_loss: np.ndarray) -> np.ndarray:
    """How often a plateau had been seen after each epoch from 0; empty where none is looked for."""
    memory = plateau(bind(experiment, "schedule", {}))
    if memory is None or not len(valid_loss):
        return np.zeros(0, int)

    def heard(state: PlateauState, loss: jax.Array) -> tuple[PlateauState, jax.Array]:
        state = observe(state, loss)
        return state, state.reductions

    # What was measured before the first step, no schedule has heard.
    start = (jax.tree.map(jnp.asarray, memory), jnp.asarray(valid_loss[1:]))
    _, after = jax.jit(partial(jax.lax.scan, heard))(*start)
    return np.concatenate([[0], np.asarray(after)])
