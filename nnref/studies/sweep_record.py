"""Records of a sweep: its plan, how far each run has come, and the result."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnref.errors import UserError
from nnref.experiment.axes import Sweep
from nnref.experiment.experiment import Experiment
from nnref.experiment.text import read_text
from nnref.logbook.pages import SweepPage, page_in
from nnref.logbook.verdicts import Record, watched_loss
from nnref.studies.groups import Group, Job, Variant, groups_of, parse_sweep, read_sweep
from nnref.studies.run import check_measures


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that is ready to run."""

    name: str
    experiment: Experiment  # the file's own
    variants: Sequence[Variant]
    groups: Sequence[Group]
    seeds: tuple[int, ...]
    fresh: bool = False  # the last runs of an ablation, on fresh seeds: the test data are used

    @property
    def jobs(self) -> list[Job]:
        """Every run, variant by variant."""
        return [Job(number, seed) for number in range(len(self.variants)) for seed in self.seeds]

    @property
    def sweep(self) -> Sweep:
        """What the file says of the sweep."""
        assert self.experiment.sweep is not None, "without it there are no variants"
        return self.experiment.sweep

    @property
    def identity(self) -> str:
        """Ten hexadecimal digits that name the experiment, what varies, and the seeds."""
        analysis = {"compare", "metric", "target", "fresh"}  # decide no run
        varies = self.sweep.model_dump_json(exclude_defaults=True, exclude=analysis)
        if self.fresh:
            varies = json.dumps([variant.experiment.identity for variant in self.variants])
        content = json.dumps([self.experiment.canonical, varies, self.seeds])
        return hashlib.sha256(content.encode()).hexdigest()[:10]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Shares of the epochs after which the worse variants end; the last one is the whole."""
        halving = self.sweep.halving
        return (1,) if halving is None or self.fresh else halving.rungs

    def survivors(self, rung: int) -> int:
        """How many variants are left on a rung."""
        left = len(self.variants)
        for a, b in zip(self.rungs[:rung], self.rungs[1:], strict=False):
            left = max(1, left * a // b)
        return left


def plan_sweep(path: str | Path) -> SweepPlan:
    """Read a sweep file, load its data, and part its variants into groups.

    Raises:
        UserError: for every mistake in the file, and for data that do not fit.
    """
    path = Path(path)
    text = read_text(path)
    page = page_in(path, text)
    experiment, variants = read_sweep(path, text)
    name = page.name if isinstance(page, SweepPage) else path.stem
    plan = plan_of(name, experiment, variants)
    for group in plan.groups:
        check_measures(group.experiment, group.task)
        if plan.sweep.halving is not None and group.task.valid is None:
            raise UserError(
                "sweep.halving: survivors are chosen on the validation loss, and these data have "
                "no validation split; give data.valid a share"
            )
    return plan


def plan_of_content(name: str, content: Mapping[str, Any]) -> SweepPlan:
    """The plan of a sweep that stands in no file, from its keys as a file would have them.

    Raises:
        UserError: for every mistake in the content, and for data that do not fit.
    """
    return plan_of(name, *parse_sweep(json.dumps(content)))


def plan_of(name: str, experiment: Experiment, variants: Sequence[Variant]) -> SweepPlan:
    groups = groups_of(variants, experiment.seeds)
    return SweepPlan(name, experiment, variants, groups, experiment.seeds)


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has been run."""

    name: str
    identity: str
    variants: Sequence[Variant]
    seeds: tuple[int, ...]
    records: Mapping[Job, Record]
    page: Path | None = None
    seconds: float = 0.0
    trained: int = 0  # runs of this call; the others were finished before
    repeated: int = 0  # blocks of runs that were trained again, as a node of a cluster had died

    def of(self, number: int) -> list[Record]:
        """The records of a variant, one for each seed."""
        return [self.records[Job(number, seed)] for seed in self.seeds]

    @property
    def loss(self) -> str:
        """The measure that counts."""
        return watched_loss(next(iter(self.records.values())))

    def final(self, number: int) -> float:
        """The median over the seeds of a variant of the loss in the end; divergence is infinite."""
        return median_loss(record.final(self.loss) for record in self.of(number))

    def best(self, number: int) -> float:
        """The median over the seeds of a variant of the lowest loss."""
        return median_loss(record.best(self.loss) for record in self.of(number))

    def failed(self, number: int) -> int:
        """The number of runs of a variant that diverged."""
        return sum(record.diverged for record in self.of(number))

    def ending(self, number: int) -> str:
        """How the runs of a variant ended early, in words; empty where none of them did."""
        endings = sorted({record.ending for record in self.of(number) if record.ending})
        return f"{len(endings)} ways" if len(endings) > 1 else "".join(endings)

    @property
    def ranking(self) -> list[int]:
        """The variants, the best first; the earlier a rung dropped them, the further behind.

        Variants that diverged stand last.
        """

        def place(number: int) -> tuple[float, ...]:
            records, final = self.of(number), self.final(number)
            rung = max((record.epochs for record in records if dropped(record)), default=np.inf)
            return np.isinf(final), -rung, final, number

        return sorted(range(len(self.variants)), key=place)

    @property
    def diverged(self) -> int:
        """The number of runs whose loss was not finite."""
        return sum(record.diverged for record in self.records.values())

    @property
    def sentence(self) -> str:
        """The best variant and its loss, and how many runs diverged."""
        first = self.ranking[0]
        seeds = f", median of {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        best = f"the best of {len(self.variants)} variants is {self.variants[first]}: "
        best += f"{self.loss} {self.final(first):.4g}{seeds}"
        runs = f"{self.diverged} of {len(self.records)} runs"
        return f"{best}; {runs} diverged" if self.diverged else best


def median_loss(values: Iterable[float]) -> float:
    """The median of some losses; NaN, as after divergence, counts as infinite."""
    return float(np.median([np.inf if np.isnan(value) else value for value in values]))


DROPPED = "dropped"


def dropped(record: Record) -> bool:
    """Whether a run ended early because other variants were better."""
    return record.ending.startswith(DROPPED)


class RunProgress(NamedTuple):
    """How far a run has come."""

    history: dict[str, np.ndarray]  # measure -> (epochs + 1,)
    bad_step: int  # of its last epoch
    ended: bool  # stopped or diverged
    leaves: tuple[np.ndarray, ...] | None  # of its state; None where the run does not go on
    test: dict[str, float] = {}

    @property
    def epochs(self) -> int:
        """The last epoch."""
        return len(next(iter(self.history.values()))) - 1

    def reaches(self, epoch: int) -> bool:
        """Whether nothing is left to train up to an epoch."""
        return self.ended or self.epochs >= epoch

    def until(self, epoch: int) -> "RunProgress":
        """The progress as it was after an epoch."""
        if self.epochs <= epoch:
            return self
        history = {name: values[: epoch + 1] for name, values in self.history.items()}
        return RunProgress(history, 0, False, None)
