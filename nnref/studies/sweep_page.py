"""The page of a sweep and the arrays beside it: written while it goes on, read when it resumes."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from nnref.errors import UserError
from nnref.logbook.pages import FORMAT, UNREADABLE, SweepPage, digest, numbered, sweep_page_at
from nnref.logbook.verdicts import Record, padded
from nnref.logbook.writer import PageWriter, keep_sources, machine_facts, now
from nnref.studies.groups import Job
from nnref.studies.sweep_record import RunProgress, SweepPlan, SweepResult

SECONDS_BETWEEN_SAVES = 2.0


class SweepWriter(PageWriter[SweepPage]):
    """The page of a sweep being written, and beside it the runs that are done while it goes on."""

    def __init__(self, logbook: Path, plan: SweepPlan, again: bool):
        """Open a new page, or go on with the last one, as `PageWriter` does."""
        facts = machine_facts() | {"data": data_of(plan)}
        facts["runs"] = f"{len(plan.variants)} variants on {len(plan.seeds)} seeds"
        if plan.fresh:
            facts["fresh"] = f"the tuned alternatives, on seeds from {plan.seeds[0]}"
        place = logbook / plan.name / f"sweep-{plan.identity}"
        title = f"sweep page {FORMAT} of {plan.name}"
        super().__init__(sweep_page_at, place, title, plan.identity, plan.experiment, facts, again)
        for variant in plan.variants:
            keep_sources(variant.experiment, place.parent)
        self.parts = self.path.with_suffix(".parts")
        self.unsaved: list[dict[Job, RunProgress]] = []
        self.saved = time.monotonic()

    def add(self, block: dict[Job, RunProgress]) -> None:
        """Take runs that have been trained; they are on disk within seconds."""
        self.unsaved.append(block)
        if time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Put the runs that are done on disk, a file for each block."""
        for block in self.unsaved:
            self.parts.mkdir(exist_ok=True)
            write_arrays(self.parts / f"{len(list(self.parts.iterdir())):06}.npz", arrays_of(block))
        self.unsaved, self.saved = [], time.monotonic()

    def progress(self, plan: SweepPlan) -> dict[Job, RunProgress]:
        """What earlier calls have done; a part that cannot be read is done again."""
        jobs, progress = set(plan.jobs), {}
        for path in sorted(self.parts.glob("*.npz")):
            with suppress(*UNREADABLE):
                block = progress_in(read_arrays(path))
                progress |= {job: each for job, each in block.items() if job in jobs}
        return progress

    def end(self, result: SweepResult) -> None:
        """Write all losses and the lines of the page, the verdict at the very end."""
        losses = self.path.with_suffix(".npz")
        write_arrays(losses, arrays_of_all(result), compressed=True)
        numbers = range(len(result.variants))
        facts = {f"variant {n}": json.dumps(line_of(result, n)) for n in numbers}
        facts["losses"] = digest(losses.read_bytes())
        facts["ended"] = f"{now()}, after {result.seconds:.3g} s"
        super().conclude(facts | {"verdict": result.sentence})
        shutil.rmtree(self.parts, ignore_errors=True)


def line_of(result: SweepResult, number: int) -> dict[str, Any]:
    """A variant as the page has it: losses are medians over its seeds, null for infinite."""
    variant = result.variants[number]

    def figure(value: float) -> float | None:
        return float(f"{value:.6g}") if np.isfinite(value) else None

    return {
        "identity": variant.experiment.identity,
        "settings": {setting.path: setting.value for setting in variant.settings},
        result.loss: figure(result.final(number)),
        f"best_{result.loss}": figure(result.best(number)),
        "diverged": result.failed(number),
        "ending": result.ending(number),
    }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Write a file of arrays, whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        (np.savez_compressed if compressed else np.savez)(stream, **dict[str, Any](arrays))
    partial.replace(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; raises one of `UNREADABLE` where it is missing or damaged."""
    with path.open("rb") as stream, np.load(stream) as arrays:
        return {name: arrays[name] for name in arrays}


HISTORY, LEAF, TEST = "history:", "leaf:", "test:"


def arrays_of(block: Mapping[Job, RunProgress]) -> dict[str, np.ndarray]:
    """The progress of runs of one group, as arrays."""
    runs = list(block.values())
    longest = max(run.epochs for run in runs) + 1
    going = [run.leaves for run in runs if run.leaves is not None]
    arrays = {
        "jobs": np.array(list(block), np.int64),
        "rows": np.array([run.epochs + 1 for run in runs]),
        "bad_step": np.array([run.bad_step for run in runs]),
        "ended": np.array([run.ended for run in runs]),
        "going": np.array([run.leaves is not None for run in runs]),
    }
    for name in runs[0].history:
        arrays[HISTORY + name] = np.stack([padded(run.history[name], longest) for run in runs])
    for name in runs[0].test:
        arrays[TEST + name] = np.array([run.test[name] for run in runs])
    stacked = [np.stack(leaf) for leaf in zip(*going, strict=True)]
    return arrays | {f"{LEAF}{number}": leaf for number, leaf in enumerate(stacked)}


def progress_in(arrays: Mapping[str, np.ndarray]) -> dict[Job, RunProgress]:
    """The progress of each run, from the arrays that `arrays_of` gives."""
    leaves = [arrays[f"{LEAF}{n}"] for n in range(sum(name.startswith(LEAF) for name in arrays))]
    place = np.cumsum(arrays["going"]) - 1

    def part(prefix: str, run: int) -> dict[str, Any]:
        names = [name for name in arrays if name.startswith(prefix)]
        return {name.removeprefix(prefix): arrays[name][run] for name in names}

    progress = {}
    for run, (variant, seed) in enumerate(arrays["jobs"].tolist()):
        rows = arrays["rows"][run]
        history = {name: values[:rows] for name, values in part(HISTORY, run).items()}
        state = tuple(leaf[place[run]] for leaf in leaves) if arrays["going"][run] else None
        test = {name: float(value) for name, value in part(TEST, run).items()}
        bad_step, ended = int(arrays["bad_step"][run]), bool(arrays["ended"][run])
        progress[Job(variant, seed)] = RunProgress(history, bad_step, ended, state, test)
    return progress


def arrays_of_all(result: SweepResult) -> dict[str, np.ndarray]:
    """Every loss of every epoch: measure -> (variants, seeds, epochs + 1), NaN where there is none.

    Beside them `seeds`, and (variants, seeds): `epochs` trained, `ending` in words, `kept`.
    """
    records = list(result.records.values())
    shape = (len(result.variants), len(result.seeds))
    longest = max(record.epochs for record in records) + 1
    nothing = np.zeros(0, np.float32)
    arrays = {
        "epochs": [record.epochs for record in records],
        "ending": [record.ending for record in records],
        "kept": [-1 if record.kept is None else record.kept for record in records],
    }
    for name in dict.fromkeys(name for record in records for name in record.test):
        arrays[TEST + name] = [record.test.get(name, np.nan) for record in records]
    for name in dict.fromkeys(name for record in records for name in record.history):
        arrays[name] = [padded(record.history.get(name, nothing), longest) for record in records]
    stacked = {name: np.array(values) for name, values in arrays.items()}
    by_variant = {n: values.reshape(*shape, *values.shape[1:]) for n, values in stacked.items()}
    return {"seeds": np.array(result.seeds)} | by_variant


def data_of(plan: SweepPlan) -> str:
    """The fingerprints of the data of all variants."""
    return " ".join(dict.fromkeys(group.dataset.fingerprint for group in plan.groups))


def finished_page(plan: SweepPlan, logbook: Path) -> SweepPage | None:
    """The page of a sweep that the logbook has: run to its end, and on the same data."""
    paths = numbered(logbook / plan.name, f"sweep-{plan.identity}")
    pages = [page for path in paths if (page := sweep_page_at(path)) is not None]
    same = pages and pages[-1].complete and pages[-1].facts.get("data") == data_of(plan)
    return pages[-1] if same else None


def known(plan: SweepPlan, logbook: Path) -> SweepResult | None:
    """The result of a sweep that the logbook has; None where it has no page run to its end.

    Raises:
        UserError: where its losses are missing or damaged.
    """
    page = finished_page(plan, logbook)
    return None if page is None else result_of(page, plan)


def result_of(page: SweepPage, plan: SweepPlan) -> SweepResult:
    """The result of a sweep as its page and the file beside it have it.

    Raises:
        UserError: where that file is missing or damaged.
    """
    path = page.path.with_suffix(".npz")
    try:
        if page.facts.get("losses", whole := digest(path.read_bytes())) != whole:
            raise ValueError("they are not those that the page was written with")
        arrays = read_arrays(path)
    except UNREADABLE as error:
        raise UserError(
            f"{path}: the losses of a sweep cannot be read ({error}); run it anew with --again"
        ) from None
    tested = [name for name in arrays if name.startswith(TEST)]
    measures = arrays.keys() - {"seeds", "epochs", "ending", "kept", *tested}
    records = {}
    for job in plan.jobs:
        place = job.variant, plan.seeds.index(job.seed)
        rows = arrays["epochs"][place] + 1
        history = {n: arrays[n][place][:rows] for n in sorted(measures)}
        history = {n: v for n, v in history.items() if not np.isnan(v).all()}
        kept = int(arrays["kept"][place])
        records[job] = Record(
            job.seed,
            history,
            str(arrays["ending"][place]),
            {name.removeprefix(TEST): float(arrays[name][place]) for name in tested},
            page.path,
            kept=None if kept < 0 else kept,
        )
    return SweepResult(plan.name, plan.identity, plan.variants, plan.seeds, records, page.path)
