"""Verdicts: the record of each seed, and what it says of the claim."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from nnref.experiment.claims import Bounds, Claim, CountClaim, StatisticClaim, TwinClaim
from nnref.experiment.experiment import Experiment
from nnref.parts.metrics import Metric, lower_is_better


@dataclass(frozen=True)
class Record:
    """The history of one seed.

    `history` maps a measure to an array (epochs + 1,): entry 0 is the state before the first step,
    NaN stands where nothing was measured. `ending` says in words how it ended early, or is empty.
    `kept` is the epoch whose network the run keeps, where that is not the last one.
    """

    seed: int
    history: dict[str, np.ndarray]
    ending: str = ""
    test: dict[str, float] = field(default_factory=dict)
    page: Path | None = None
    kept: int | None = None

    @property
    def epochs(self) -> int:
        """The last epoch."""
        return len(next(iter(self.history.values()))) - 1

    @property
    def diverged(self) -> bool:
        """Whether the loss was not finite in the end."""
        return self.ending.startswith("diverged")

    def final(self, measure: str) -> float:
        """A measure of the network that is kept, else its last value; NaN after divergence.

        `epochs` is the number of epochs trained.
        """
        if measure == "epochs":
            return float(self.epochs)
        if measure in self.test:
            return self.test[measure]
        if self.kept is not None:
            return float(self.history[measure][self.kept])
        if self.diverged:
            return float("nan")
        values = self.history[measure]
        known = np.flatnonzero(~np.isnan(values))
        return float(values[known[-1]]) if len(known) else float("nan")

    def best(self, measure: str, metrics: Mapping[str, Metric] = {}) -> float:
        """The best value of any epoch: the lowest of a loss, the highest of an accuracy.

        Each of the task's metrics, by name, says whether larger is better.
        """
        values = self.history[measure]
        if np.isnan(values).all():
            return float("nan")
        return float((np.nanmin if lower_is_better(measure, metrics) else np.nanmax)(values))

    def epochs_to(self, bounds: Bounds) -> int | None:
        """The first epoch at which a measure is within its bounds."""
        inside = [bounds.within(value) for value in self.history.get(bounds.metric, ())]
        return inside.index(True) if True in inside else None


def stacked(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Histories of several seeds, (seeds, epochs + 1)."""
    longest = max(record.epochs for record in records) + 1
    return {
        name: np.stack([padded(record.history[name], longest) for record in records])
        for name in records[0].history
    }


def padded(values: np.ndarray, length: int) -> np.ndarray:
    """Values with NaN behind them, up to a length."""
    return np.pad(values, (0, length - len(values)), constant_values=np.nan)


def medians(values: np.ndarray) -> np.ndarray:
    """The median over the runs that have a value, (runs, epochs) -> (epochs,); NaN for none."""
    known = ~np.isnan(values).all(axis=0)
    median = np.full(values.shape[1], np.nan)
    median[known] = np.nanmedian(values[:, known], axis=0)
    return median


@dataclass(frozen=True)
class Verdict:
    """How a run ended, in one sentence. `held` is None where there is no claim to judge."""

    held: bool | None
    diverged: tuple[int, ...]  # seeds whose loss was not finite
    sentence: str

    @property
    def exit_code(self) -> int:
        """0 when all is well; 1 when the claim did not hold or, without one, a seed diverged."""
        if self.held is not None:
            return 0 if self.held else 1
        return 1 if self.diverged else 0


def judge(
    experiment: Experiment,
    records: Sequence[Record],
    twin: Callable[[str], Mapping[str, np.ndarray]],
) -> Verdict:
    """The verdict over all seeds: the claim where there is one, else how the loss ended.

    `twin` gives the history of another experiment, by its name, for the same seeds.
    """
    diverged = tuple(record.seed for record in records if record.diverged)
    sentence, held = summary(records), None
    counted = next((c.of for c in experiment.claim if isinstance(c, CountClaim)), len(records))
    if counted != len(records):
        sentence += f"; the claim, about {counted} seeds, was not judged"
    elif experiment.claim:
        each = [judge_claim(claim, records, twin) for claim in experiment.claim]
        held = all(one for one, _ in each)
        words = "; ".join(words for _, words in each)
        sentence = f"the claim {'held' if held else 'did not hold'}: {words}"
    if diverged:
        sentence += f"; {seeds_in_words(diverged)} diverged"
    return Verdict(held, diverged, sentence)


def judge_claim(
    claim: Claim, records: Sequence[Record], twin: Callable[[str], Mapping[str, np.ndarray]]
) -> tuple[bool, str]:
    """Whether one claim holds, and that in words."""
    if isinstance(claim, TwinClaim):
        return claim.judged(stacked(records)[claim.metric], twin(claim.twin)[claim.metric])
    if isinstance(claim, StatisticClaim) and claim.among == "stopped":
        records = [record for record in records if record.ending.startswith("stopped")]
    return claim.judged([record.final(claim.metric) for record in records])


def watched_loss(record: Record) -> str:
    """The validation loss, or without it the training loss."""
    return "valid_loss" if "valid_loss" in record.history else "train_loss"


def summary(records: Sequence[Record]) -> str:
    """How the loss moved, in the median over seeds."""
    name = watched_loss(records[0])
    before = np.median([record.history[name][0] for record in records])
    after = np.median([record.final(name) for record in records])
    of = f", median of {len(records)} seeds" if len(records) > 1 else ""
    return f"{name} went from {before:.4g} to {after:.4g}{of}"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Some seeds as the subject of a sentence: by number, or how many they are."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 6:
        return f"each of {len(seeds)} seeds"
    return f"each of the seeds {', '.join(map(str, seeds))}"


# --- in a notebook ------------------------------------------------------------------------------

POINTS, WIDTH, HEIGHT = 200, 320, 120  # of the picture of the losses


def as_html(title: str, records: Sequence[Record], verdict: Verdict) -> str:
    """How a run ended, as HTML: the verdict, a row for each seed, and the losses of all of them."""
    name = watched_loss(records[0])
    head = "".join(f"<th>{each}</th>" for each in ("seed", name, "best", "epochs", "ending"))
    rows = [
        (r.seed, f"{r.final(name):.4g}", f"{r.best(name):.4g}", r.epochs, escape(r.ending))
        for r in records
    ]
    cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    table = f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
    words = f"<p><b>{escape(title)}</b>: {escape(verdict.sentence)}</p>"
    return words + table + losses_as_svg(records, name)


def losses_as_svg(records: Sequence[Record], name: str) -> str:
    """The losses over the epochs, a line for each seed, by their logarithm where it exists."""
    curves = stacked(records)[name]
    finite = curves[np.isfinite(curves)]
    if not finite.size:
        return ""
    by_logarithm = finite.min() > 0
    heights = np.log(curves) if by_logarithm else curves
    ends = heights[np.isfinite(heights)]
    low, high = ends.min(), ends.max()
    lines = []
    for curve in heights:
        epochs = np.flatnonzero(np.isfinite(curve))
        epochs = epochs[:: -(-len(epochs) // POINTS) or 1]
        x = epochs / max(1, curves.shape[1] - 1) * WIDTH
        y = (high - curve[epochs]) / ((high - low) or 1) * HEIGHT
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="currentColor" opacity=".5"/>'
        )
    about = f"{name} from {finite.min():.3g} to {finite.max():.3g}"
    scale = ", by its logarithm" if by_logarithm else ""
    return (
        f'<svg viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 4}" width="{WIDTH}" role="img" '
        f'aria-label="{about}">{"".join(lines)}</svg><p>{about}{scale}</p>'
    )
