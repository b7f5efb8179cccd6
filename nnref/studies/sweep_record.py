"""What a sweep plans, what it has done so far, and what it gives in the end."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.logbook.pages import sweep_page_at
from nnref.logbook.verdicts import Record, watched_loss
from nnref.studies.groups import Group, Job, Variant, groups_of, read_sweep
from nnref.studies.run import check_measures


@dataclass(frozen=True)
class Planned:
    """A sweep that is ready to run."""

    name: str
    experiment: Experiment  # the file's own
    variants: Sequence[Variant]
    groups: Sequence[Group]
    seeds: tuple[int, ...]
    fresh: bool = False  # the last runs of an ablation: other seeds, and the test data looked at

    @property
    def jobs(self) -> list[Job]:
        """Every run, variant by variant."""
        return [Job(number, seed) for number in range(len(self.variants)) for seed in self.seeds]

    @property
    def identity(self) -> str:
        """Ten hexadecimal digits that name the experiment, what varies, and the seeds."""
        assert self.experiment.sweep is not None, "without it there are no variants"
        asked = {"compare", "metric", "target", "fresh"}  # of runs that are done
        varies = self.experiment.sweep.model_dump_json(exclude_defaults=True, exclude=asked)
        if self.fresh:
            varies = json.dumps([variant.experiment.identity for variant in self.variants])
        content = json.dumps([self.experiment.canonical, varies, self.seeds])
        return hashlib.sha256(content.encode()).hexdigest()[:10]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Shares of the epochs after which the worse variants end; the last one is the whole."""
        sweep = self.experiment.sweep
        return sweep.halving.rungs if sweep and sweep.halving and not self.fresh else (1,)

    def survivors(self, rung: int) -> int:
        """How many variants are left on a rung."""
        left = len(self.variants)
        for a, b in zip(self.rungs[:rung], self.rungs[1:], strict=False):
            left = max(1, left * a // b)
        return left


def planned(path: str | Path) -> Planned:
    """Read a sweep file, load its data, and part its variants into groups.

    Raises:
        UserError: for every mistake in the file, and for data that do not fit.
    """
    page = sweep_page_at(Path(path))
    experiment, variants = read_sweep(path)
    groups = groups_of(variants, experiment.seeds)
    for group in groups:
        check_measures(group.experiment, group.task)
        halves = experiment.sweep is not None and experiment.sweep.halving is not None
        if halves and group.task.valid is None:
            raise UserError(
                "sweep.halving: survivors are chosen on the validation loss, and these data have "
                "no validation split; give data.valid a share"
            )
    name = page.name if page else Path(path).stem
    return Planned(name, experiment, variants, groups, experiment.seeds)


@dataclass(frozen=True)
class Swept:
    """A sweep that has been run."""

    name: str
    identity: str
    variants: Sequence[Variant]
    seeds: tuple[int, ...]
    records: Mapping[Job, Record]
    page: Path | None = None
    seconds: float = 0.0
    trained: int = 0  # runs of this call; the others were finished before

    def of(self, number: int) -> list[Record]:
        """The records of a variant, one for each seed."""
        return [self.records[Job(number, seed)] for seed in self.seeds]

    @property
    def loss(self) -> str:
        """The measure that counts."""
        return watched_loss(next(iter(self.records.values())))

    def final(self, number: int) -> float:
        """The median over the seeds of a variant of the loss in the end; divergence is infinite."""
        return middle(record.final(self.loss) for record in self.of(number))

    def best(self, number: int) -> float:
        """The same of the lowest loss."""
        return middle(record.best(self.loss) for record in self.of(number))

    @property
    def ranking(self) -> list[int]:
        """The variants, the best first; those that ended on an earlier rung stand behind.

        Behind them all stands what diverged.
        """

        def place(number: int) -> tuple[float, ...]:
            records, final = self.of(number), self.final(number)
            rung = max((record.epochs for record in records if dropped(record)), default=np.inf)
            return np.isinf(final), -rung, final, number

        return sorted(range(len(self.variants)), key=place)

    @property
    def diverged(self) -> int:
        """Runs whose loss was not finite."""
        return sum(record.diverged for record in self.records.values())

    @property
    def sentence(self) -> str:
        """What came of it."""
        first = self.ranking[0]
        seeds = f", median of {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        told = f"the best of {len(self.variants)} variants is {self.variants[first]}: "
        told += f"{self.loss} {self.final(first):.4g}{seeds}"
        return told + (
            f"; {self.diverged} of {len(self.records)} runs diverged" * (self.diverged > 0)
        )


def middle(values: Iterable[float]) -> float:
    return float(np.median([np.inf if np.isnan(value) else value for value in values]))


DROPPED = "dropped"


def dropped(record: Record) -> bool:
    return record.ending.startswith(DROPPED)


class AlreadySwept(UserError):
    """The logbook has this sweep already."""

    def __init__(self, swept: Swept, started: str):
        self.swept = swept
        super().__init__(
            f"{swept.name} ({swept.identity}) was swept before, on {started}: {swept.sentence}\n"
            f"page: {swept.page}\nto run it anew and keep that page: --again (from Python: "
            "again=True)"
        )


class SweepListener:
    """Hears how a sweep goes; the terminal is one. Called from several threads."""

    def begins(self, epochs: int, done: int) -> None:
        """Training starts: epochs of all runs together, and how many are finished."""

    def hears(self, epochs: int) -> None:
        """So many more epochs are done or, where a run ended, left out."""

    def ends(self) -> None:
        """Training is over, however it ended."""


class Course(NamedTuple):
    """How far a run has come."""

    history: dict[str, np.ndarray]  # measure -> (epochs + 1,)
    bad_step: int  # of its last epoch
    ended: bool  # stopped or diverged
    leaves: tuple[np.ndarray, ...] | None  # of its state; None where it does not go on
    test: dict[str, float] = {}

    @property
    def epochs(self) -> int:
        """The last epoch."""
        return len(next(iter(self.history.values()))) - 1

    def reaches(self, epoch: int) -> bool:
        """Whether there is nothing left to do up to an epoch."""
        return self.ended or self.epochs >= epoch


Courses = dict[Job, Course]
