"""The proof of a finding: the same training with one thing changed, from one seed or several."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

POINTS = 200  # epochs of a curve that are kept, at most
LEVEL = 0.95  # share of such intervals that hold the true gain


@dataclass(frozen=True)
class Curve:
    """The training losses of a run, and whether it has what the proof changes."""

    seed: int
    changed: bool
    epochs: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Proof:
    """What one change of the same training does.

    `edit` names the change, `before` and `after` are the skills without and with it, a pair for
    each seed, the user's own first. `gain` is the mean of their differences with both ends of its
    interval (Student's t over pairs), which one seed does not have.
    """

    words: str
    edit: str = ""
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    curves: tuple[Curve, ...] = ()
    gain: tuple[float, float, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if len(self.before) == len(self.after) > 1:
            object.__setattr__(self, "gain", gain_of(self.before, self.after))

    def __str__(self) -> str:
        return self.words


def gain_of(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """The mean of `after - before` over two pairs or more, and both ends of its interval."""
    from scipy import stats

    gains = np.subtract(after, before)
    error = float(gains.std(ddof=1)) / len(gains) ** 0.5
    half = error * float(stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1))
    mean = float(gains.mean())
    return mean, mean - half, mean + half


def curve(seed: int, changed: bool, losses: Sequence[float]) -> Curve:
    """The curve of the losses of all epochs, of so many of them as can be seen."""
    kept = np.unique(np.linspace(0, len(losses) - 1, POINTS).round().astype(int))
    kept = kept[: len(losses)]  # of a run cut short in its first epoch there is none
    values = tuple(float(f"{losses[epoch]:.4g}") for epoch in kept)
    return Curve(seed, changed, tuple(int(epoch) + 1 for epoch in kept), values)
