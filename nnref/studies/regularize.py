"""Regularization piece by piece: all of it off, each piece back alone, then all together.

First the network must learn without any. Then every run with a piece is held against the run from
the same seed without it, and what is said of a piece is corrected for how many there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnref.errors import UserError
from nnref.experiment.axes import Setting, value_in_words
from nnref.experiment.experiment import Experiment, Mistakes, read
from nnref.logbook.verdicts import Record
from nnref.parts.metrics import lower_is_better
from nnref.parts.regularizers import augment
from nnref.studies import statistics
from nnref.studies.comparison import LEVEL, Result, listed, result_of_records
from nnref.studies.groups import Variant, groups_of
from nnref.studies.listeners import SweepListener
from nnref.studies.run import measures_of
from nnref.studies.statistics import Interval
from nnref.studies.sweep import sweep
from nnref.studies.sweep_page import known
from nnref.studies.sweep_record import SweepPlan
from nnref.training.compilation import usual_settings

OFF, TOGETHER = "everything off", "all together"
LEARNS = 0.5  # last over first training loss, at most, of what learns

# Pieces that are tried where the experiment has none of its own, at a usual strength.
PIECES: dict[str, Any] = {
    "dropout": 0.2,
    "l1": 1e-5,
    "l2": 1e-4,
    "weight_decay": 1e-3,
    "max_norm": 3.0,
    "label_smoothing": 0.1,
    "normalization": "layer",
    "input_noise": 0.1,
    "shift": 1,
    "average": 0.99,
}
STOP = {"metric": "valid_loss", "patience": 5}


@dataclass(frozen=True)
class Piece:
    """One piece of regularization, and its runs beside those without any.

    `difference` is that of the measure, with it less without it, over pairs of one seed, at its
    corrected level; `p` is corrected too. `falls` is the last over the first training loss.
    """

    name: str
    value: Any
    result: Result
    difference: Interval
    p: float
    falls: float

    @property
    def learns(self) -> bool:
        """Whether the training loss still falls with it, for the median seed."""
        return self.falls <= LEARNS

    @property
    def differs(self) -> bool:
        """Whether it makes a difference, by the interval and by the test of pairs."""
        return self.p < 1 - LEVEL and not self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class Regularized:
    """What each piece does, in the order of the file; the last one is all of them together."""

    name: str
    metric: str
    lower: bool  # whether less of the metric is better
    seeds: tuple[int, ...]
    off: Result
    falls: float  # last over first training loss without any
    pieces: tuple[Piece, ...]
    refused: Mapping[str, str]  # pieces that this experiment cannot have, and why

    @property
    def learns(self) -> bool:
        """Whether the network learns without regularization."""
        return self.falls <= LEARNS

    def better(self, piece: Piece) -> bool:
        """Whether a piece surely pays: of one that stops the learning there is nothing to gain."""
        return piece.learns and piece.differs and (piece.difference.estimate < 0) == self.lower

    @property
    def sentences(self) -> list[str]:
        """Whether it learns without any, which piece stops it, and which one pays."""
        if not self.learns:
            return [
                f"Without regularization the training loss only falls to {self.falls:.0%} of the "
                "first: that comes before any piece of it. First: nnref diagnose FILE."
            ]
        left = "less than 0.1%" if self.falls < 5e-4 else f"{self.falls:.1%}"
        sentences = [f"Without any it learns: the training loss falls to {left}."]
        stops = [piece for piece in self.pieces if not piece.learns]
        sentences += [f"{p.name} stops it: {p.falls:.0%} of the loss is left." for p in stops]
        for verb, side in (("pay", True), ("harm", False)):
            sure = [p for p in self.pieces if p.differs and p.learns]
            names = [p.name for p in sure if self.better(p) == side]
            if names:
                verb += "s" * (len(names) == 1)
                sentences.append(
                    f"{listed(names)} {verb} here ({self.metric}, {len(self.seeds)} paired seeds, "
                    f"{LEVEL:.0%} for all together)."
                )
        open_ = [piece.name for piece in self.pieces if not piece.differs]
        if open_:
            sentences.append(f"Of {listed(open_)} no difference can be claimed.")
        return sentences


@usual_settings()
def regularize(
    experiment: Experiment | str | Path,
    *,
    name: str | None = None,
    seeds: int = 10,
    logbook: str | Path | None = "logbook",
    listener: SweepListener | None = None,
) -> Regularized:
    """Switch all regularization off, and each piece on again: alone, and then together.

    The pieces are those of the experiment; where it has none, the usual ones at usual strengths.

    Args:
        experiment: or the path of its file; what it sweeps is left out.
        name: of the study; that of the file by default.
        seeds: how many, the same for every piece and none of the file's.
        logbook: folder of the page; what it has is not run again.
        listener: hears how it goes.

    Raises:
        UserError: for mistakes in the file, or too few seeds.
    """
    if not isinstance(experiment, Experiment):
        name, experiment = name or Path(experiment).stem, read(Path(experiment))
    plan, values, refused = planned(experiment, f"{name or 'experiment'}", seeds)
    refuse_few(seeds, len(values) - 1)
    earlier = None if logbook is None else known(plan, Path(logbook))
    runs = earlier or sweep(plan, logbook=logbook, listener=listener)
    task = plan.groups[0].task
    names = [measure for measure in measures_of(task) if measure != "epochs"]
    metric = next(m for m in ("test_loss", "valid_loss", "train_loss") if m in names)
    lower = lower_is_better(metric, task.functions.metrics)
    records = {label: runs.of(place) for place, label in enumerate(values)}
    return regularized(plan.name, metric, lower, records, values, refused)


def regularized(
    name: str,
    metric: str,
    lower: bool,
    records: Mapping[str, Sequence[Record]],
    values: Mapping[str, Any],
    refused: Mapping[str, str],
) -> Regularized:
    """What the runs of each piece say: those without any come first, one for each seed."""
    off, *others = (result_of_records(runs, metric, lower) for runs in records.values())
    falls = [fall(runs) for runs in records.values()]
    pieces = held_against(off, others, values, falls[1:])
    seeds = tuple(record.seed for record in records[OFF])
    return Regularized(name, metric, lower, seeds, off, falls[0], pieces, refused)


def pieces_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The pieces of an experiment's own, by name; of one that has none, the usual ones."""
    off = (None, False, {}, "off")
    on = {
        name: value
        for name, value in (content.get("regularization") or {}).items()
        if value not in off and name != "decay_everything"
    }
    if content.get("stop") is not None:
        on["early stopping"] = content["stop"]
    return on or PIECES | {"early stopping": STOP}


def planned(
    experiment: Experiment, name: str, seeds: int
) -> tuple[SweepPlan, dict[str, Any], dict[str, str]]:
    """The runs, the pieces of each, and the pieces that were refused."""
    content = experiment.model_dump(mode="json", by_alias=True, exclude={"sweep", "claim"})
    pieces = pieces_of(content)
    everywhere = (content.get("regularization") or {}).get("decay_everything")
    base = content | {"stop": None, "claim": ()}
    variants: dict[str, Variant] = {}
    refused: dict[str, str] = {}

    def add(label: str, on: Mapping[str, Any]) -> None:
        record = {key: value for key, value in on.items() if key != "early stopping"}
        decays = {"decay_everything": True} if everywhere and record else {}
        keys = {"regularization": record | decays, "stop": on.get("early stopping")}
        settings = (Setting("regularization", on, "regularize"),)
        try:
            variant = Variant(settings, Experiment(**(base | keys)))
            (group,) = groups_of([variant], (0,))
            refuse_rows(variant.experiment.regularization, group.task.train.x)
        except (Mistakes, UserError) as error:
            refused[label] = str(error).splitlines()[-1].strip()
        else:
            variants[label] = variant

    add(OFF, {})
    if OFF in refused:
        raise UserError(f"regularize: {refused[OFF]}")
    for piece, value in pieces.items():
        add(piece, {piece: value})
    fit = {piece: pieces[piece] for piece in variants if piece != OFF}
    if len(fit) > 1:
        add(TOGETHER, fit)
    if not fit:
        raise UserError(f"regularize: no piece fits: {'; '.join(refused.values())}")
    first = max(experiment.seeds) + 1
    chosen = tuple(range(first, first + seeds))
    axes = {"axes": {"regularization": [{}, {"l2": 0.0}]}}  # stands for the variants, on the page
    file = Experiment(**(base | {"sweep": axes}))
    last = list(variants.values())
    plan = SweepPlan(name, file, last, groups_of(last, chosen), chosen, fresh=True)
    values = {label: pieces.get(label) for label in variants}
    return plan, values, refused


def refuse_few(seeds: int, pieces: int) -> None:
    """Refuse seeds so few that not even a piece that is better from each of them could be told.

    Raises:
        UserError: how many it takes.
    """
    # The smallest p of a signed-rank test of n pairs is 2 / 2^n, times the pieces by Holm.
    fewest = next(n for n in range(2, 64) if pieces * 2.0 ** (1 - n) < 1 - LEVEL)
    if seeds < fewest:
        raise UserError(
            f"regularize: of {seeds} seeds none of {pieces} pieces could be told; give {fewest} or "
            "more"
        )


def refuse_rows(terms: Any, x: Any) -> None:
    """Refuse pieces that want other rows than these: images, or real numbers.

    Raises:
        UserError: what is wanted.
    """
    jax.eval_shape(partial(augment, terms), x[:2], jax.random.key(0))


def fall(records: Sequence[Record]) -> float:
    """The last over the first training loss of some runs: the median of their seeds."""
    ratios = []
    for record in records:
        losses = record.history["train_loss"]
        gone = np.inf if record.diverged else float(losses[-1])
        ratios.append(gone / max(float(losses[0]), 1e-30))
    return float(np.median(ratios))


def held_against(
    off: Result, others: Sequence[Result], values: Mapping[str, Any], falls: Sequence[float]
) -> tuple[Piece, ...]:
    """Each piece beside the runs without any, corrected for their number."""
    tests = [statistics.signed_rank(each.scores, off.scores) for each in others]
    ps, levels = statistics.holm(tests), statistics.holm_levels(tests, LEVEL)
    pieces = []
    for place, name in enumerate(list(values)[1:]):
        each, level = others[place], float(levels[place])
        difference = statistics.paired_difference(each.scores, off.scores, level=level)
        p = float(ps[place])
        pieces.append(Piece(name, values[name], each, difference, p, falls[place]))
    return tuple(pieces)


def in_words(piece: Piece) -> str:
    """A piece and its strength."""
    return piece.name if piece.value is None else f"{piece.name} {value_in_words(piece.value)}"
