"""Learning-rate range test: which rates learn at all, all of them at once from the same start.

The usual test lets one rate rise step by step through a single run, so that what is read off at a
rate also tells what the rates before it have left, and a spike misleads. Here every rate trains a
network of its own, from the same first weights and on the same batches, all in one program.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnref.errors import UserError
from nnref.experiment.experiment import read
from nnref.experiment.text import located
from nnref.studies.listeners import SweepListener
from nnref.studies.statistics import Interval, bootstrap, interquartile_mean
from nnref.studies.sweep import sweep
from nnref.studies.sweep_record import plan_of_content
from nnref.training.compilation import usual_settings

MOST_RATES = 4096
STEPS = 100  # updates that each run makes at least


@dataclass(frozen=True)
class LrRange:
    """The losses of each rate, and the two rates that they show.

    `losses` is the training loss of the last epoch, infinite where it was not finite; `start` the
    loss before the first step.
    """

    name: str
    rates: np.ndarray  # rising
    losses: np.ndarray = field(repr=False)  # (seeds, rates)
    start: np.ndarray = field(repr=False)  # (seeds,)
    steps: int  # updates of each run
    steepest: Interval  # rate after which the loss is lowest
    stable: Interval  # largest rate, up from there, that ends below its start
    warnings: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Both rates in words."""
        return (
            f"after {self.steps} steps the loss is lowest at a learning rate of {self.steepest}; "
            f"it still falls at {self.stable}"
        )


@usual_settings()
def lr_range(
    path: str | Path,
    *,
    low: float = 1e-5,
    high: float = 10.0,
    count: int = 25,
    seeds: int = 5,
    epochs: int | None = None,
    listener: SweepListener | None = None,
) -> LrRange:
    """Train an experiment shortly at many rates, at a constant rate each.

    Args:
        path: of the experiment's file, or its name.
        low: smallest rate.
        high: largest rate.
        count: how many, their logarithms evenly spaced.
        seeds: how many, from 0 up.
        epochs: of each run, else as many as have 100 updates.
        listener: hears how it goes.

    Raises:
        UserError: for mistakes in the file or a range that is none.
    """
    if not 0 < low < high < math.inf or not 3 <= count <= MOST_RATES or seeds < 2:
        raise UserError(
            f"{count} rates from {low:g} to {high:g} and {seeds} seeds given; allowed are rates "
            f"above 0, the smaller one first, 3 to {MOST_RATES} of them, and two seeds or more"
        )
    path = located(path)
    base = read(path)
    grid = {"log_grid": [low, high, count]}
    varies = {
        "schedule": "constant",
        "stop": None,
        "claim": [],
        "seeds": list(range(seeds)),
        "evaluate_every": base.epochs,
        "sweep": {"axes": {"optimizer.learning_rate": grid}},
    }
    content = base.model_dump(mode="json", by_alias=True) | varies

    name = Path(path).stem
    plan = plan_of_content(name, content | {"epochs": epochs or 1})
    per_epoch = plan.groups[0].setup.steps_per_epoch
    if epochs is None and per_epoch < STEPS:
        plan = plan_of_content(name, content | {"epochs": -(-STEPS // per_epoch)})
    result = sweep(plan, logbook=None, listener=listener)
    rates = np.array([v.experiment.optimizer.learning_rate for v in result.variants])
    ends = [[record.final("train_loss") for record in result.of(n)] for n in range(len(rates))]
    losses = np.where(np.isfinite(ends), ends, np.inf).T
    start = np.array([record.history["train_loss"][0] for record in result.of(0)], float)
    return range_of(name, rates, losses, start, plan.groups[0].setup.steps)


def range_of(
    name: str, rates: np.ndarray, losses: np.ndarray, start: np.ndarray, steps: int
) -> LrRange:
    """The steepest and the largest stable rate, from the last losses, (seeds, rates)."""
    best = np.argmin(losses, axis=1)
    last = np.array([last_stable(*each) for each in zip(losses, start, best, strict=True)])
    warnings = []
    if np.median(last) == len(rates) - 1:
        warnings.append(f"every rate up to {rates[-1]:g} is stable; give a larger --high")
    if np.median(best) == 0:
        warnings.append(f"the smallest rate, {rates[0]:g}, is the steepest; give a smaller --low")
    if (losses.min(axis=1) >= start).all():
        warnings.append("at no rate did the loss fall: the rate is not what is wrong")
    steepest, stable = over_seeds(rates[best]), over_seeds(rates[last])
    return LrRange(name, rates, losses, start, steps, steepest, stable, tuple(warnings))


def last_stable(losses: np.ndarray, start: float, best: int) -> int:
    """Up from the best rate, the last one before the first that does not end below its start."""
    unstable = np.flatnonzero(~(losses[best:] < start))
    return max(best, best + int(unstable[0]) - 1) if len(unstable) else len(losses) - 1


def over_seeds(rates: np.ndarray) -> Interval:
    """The interquartile mean over seeds of the logarithm, and its interval."""
    logs = np.log10(rates)
    if np.ptp(logs) == 0:  # the bootstrap of equal values warns, and has nothing to say
        return Interval(float(rates[0]), float(rates[0]), float(rates[0]))
    interval = bootstrap(interquartile_mean, logs)
    return Interval(*(float(10**value) for value in interval[:3]))
