"""Reproduction: experiments with a claim are run for all their seeds, and the claim is judged."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nnref.data.raw import DataMissing
from nnref.errors import UserError
from nnref.experiment.experiment import read
from nnref.logbook.verdicts import Verdict
from nnref.studies.on_ray import on_nodes
from nnref.studies.run import run


class Reproduction(NamedTuple):
    """One experiment that was run again, or was skipped because its data are missing."""

    name: str
    seconds: float
    verdict: Verdict | None  # None where it was skipped
    missing: str = ""  # which data are missing, and how to get them

    @property
    def failed(self) -> bool:
        """Whether the claim did not hold."""
        return self.verdict is not None and self.verdict.exit_code != 0

    def __str__(self) -> str:
        if self.verdict is None:
            return f"skipped   {self.missing}"
        word = "held    " if self.verdict.held else "NOT HELD"
        return f"{word}  {self.seconds:6.1f} s  {self.verdict.sentence}"


def with_claim(paths: Sequence[Path]) -> list[Path]:
    """The experiments that have a claim; refused where none has one."""
    chosen = [path for path in paths if read(path).claim]
    if not chosen:
        raise UserError("none of these experiments has a claim")
    return chosen


def reproduce(paths: Sequence[Path], ray: bool | str = False) -> Iterator[Reproduction]:
    """Run experiments without a logbook; yield each as soon as it is judged.

    One after another, or with `ray`, the address of a cluster or True for one that is started here,
    one a core or one a GPU, in the order in which they end. There the files of the experiments, and
    the data that they name, must be on every node.
    """
    if ray:
        yield from on_nodes(reproduced, [path.resolve() for path in paths], ray)
    else:
        yield from map(reproduced, paths)


def reproduced(path: Path) -> Reproduction:
    """Run one experiment for all its seeds, and judge its claim."""
    began, missing = time.perf_counter(), ""
    try:
        verdict = run(path, logbook=None).verdict
    except DataMissing as error:
        verdict, missing = None, str(error)
    return Reproduction(path.stem, time.perf_counter() - began, verdict, missing)
