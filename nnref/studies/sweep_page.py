"""The page of a sweep and the arrays beside it: written as it goes, read to go on."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from nnref.errors import UserError
from nnref.logbook.pages import FORMAT, SweepPage, read_sweep_page, sweep_paths
from nnref.logbook.verdicts import Record, padded
from nnref.logbook.writer import machine_facts, now, open_alone
from nnref.studies.groups import Job
from nnref.studies.sweep_record import AlreadySwept, Course, Courses, Planned, Swept

SECONDS_BETWEEN_SAVES = 2.0


class Keeper:
    """The page of a sweep, and beside it the parts that are done while it runs."""

    def __init__(self, page: Path, stream: IO[str]):
        self.page = page
        self.stream = stream
        self.parts = page.with_suffix(".parts")
        self.unsaved: list[Courses] = []
        self.saved = time.monotonic()

    @classmethod
    def open(cls, logbook: Path, plan: Planned, again: bool) -> "Keeper":
        """A new page, or the last one where that was cut short and would go on the same.

        Raises:
            UserError: where another process is writing the page, or the folder cannot be written.
            AlreadySwept: where the last page is complete and `again` is not given.
        """
        folder = logbook / plan.name
        facts = machine_facts() | {"data": data_of(plan)}
        paths = sweep_paths(folder, plan.identity)
        last = read_sweep_page(paths[-1]) if paths and not again else None
        if last is not None and is_done(last, plan):
            raise AlreadySwept(swept_of(last, plan), last.facts["started"])
        goes_on = last is not None and last.goes_on_with(facts)
        suffix = f"-{len(paths) + 1}" if paths else ""
        path = last.path if last and goes_on else folder / f"sweep-{plan.identity}{suffix}.json"
        stream = open_alone(path, "a" if goes_on else "x")
        keeper = cls(path, stream)
        if last and goes_on:
            keeper.write(f"{last.before_a_line}// continued: {now()}\n")
        else:
            head = [f"sweep page {FORMAT} of {plan.name}", f"identity: {plan.identity}"]
            head += [f"started: {now()}", *(f"{key}: {value}" for key, value in facts.items())]
            head += [f"runs: {len(plan.variants)} variants on {len(plan.seeds)} seeds"]
            if plan.fresh:
                head += [f"fresh: the tuned alternatives, on seeds from {plan.seeds[0]}"]
            text = plan.experiment.to_json() + "".join(f"// {line}\n" for line in head)
            keeper.write(text)
        return keeper

    def write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()

    def adds(self, block: Courses) -> None:
        """Some runs are done; they are on disk within seconds."""
        self.unsaved.append(block)
        if time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Put what is done on disk, a file for each block."""
        for block in self.unsaved:
            self.parts.mkdir(exist_ok=True)
            write_arrays(self.parts / f"{len(list(self.parts.iterdir())):06}.npz", arrays_of(block))
        self.unsaved, self.saved = [], time.monotonic()

    def courses(self, plan: Planned) -> Courses:
        """What earlier calls have done; a part that cannot be read is done again."""
        known, courses = set(plan.jobs), {}
        for path in sorted(self.parts.glob("*.npz")):
            try:
                with path.open("rb") as stream, np.load(stream) as arrays:
                    read = courses_in(arrays)
            except (OSError, ValueError, KeyError, BadZipFile):
                continue
            courses |= {job: course for job, course in read.items() if job in known}
        return courses

    def conclude(self, swept: Swept) -> None:
        """Write all losses and the lines of the page, the verdict at the very end."""
        write_arrays(self.page.with_suffix(".npz"), arrays_of_all(swept), compressed=True)
        lines = [
            f"variant {n}: {json.dumps(line_of(swept, n))}" for n in range(len(swept.variants))
        ]
        lines += [f"ended: {now()}, after {swept.seconds:.3g} s", f"verdict: {swept.sentence}"]
        self.write("".join(f"// {line}\n" for line in lines))
        shutil.rmtree(self.parts, ignore_errors=True)


def line_of(swept: Swept, number: int) -> dict[str, Any]:
    """What the page says of a variant: losses are medians over its seeds, null for infinite."""
    variant, records = swept.variants[number], swept.of(number)
    endings = sorted({record.ending for record in records if record.ending})

    def figure(value: float) -> float | None:
        return float(f"{value:.6g}") if np.isfinite(value) else None

    return {
        "identity": variant.experiment.identity,
        "settings": {setting.path: setting.value for setting in variant.settings},
        swept.loss: figure(swept.final(number)),
        f"best_{swept.loss}": figure(swept.best(number)),
        "diverged": sum(record.diverged for record in records),
        "ending": endings[0] if len(endings) == 1 else f"{len(endings)} ways" if endings else "",
    }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """A file of arrays, there as a whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        (np.savez_compressed if compressed else np.savez)(stream, **dict[str, Any](arrays))
    partial.replace(path)


HISTORY, LEAF, TEST = "history:", "leaf:", "test:"


def arrays_of(block: Courses) -> dict[str, np.ndarray]:
    """Courses of runs of one group, as arrays."""
    courses = list(block.values())
    longest = max(course.epochs for course in courses) + 1
    going = [course.leaves for course in courses if course.leaves is not None]
    arrays = {
        "jobs": np.array(list(block), np.int64),
        "rows": np.array([course.epochs + 1 for course in courses]),
        "bad_step": np.array([course.bad_step for course in courses]),
        "ended": np.array([course.ended for course in courses]),
        "going": np.array([course.leaves is not None for course in courses]),
    }
    for name in courses[0].history:
        rows = [padded(course.history[name], longest) for course in courses]
        arrays[HISTORY + name] = np.stack(rows)
    for name in courses[0].test:
        arrays[TEST + name] = np.array([course.test[name] for course in courses])
    stacked = [np.stack(leaf) for leaf in zip(*going, strict=True)]
    return arrays | {f"{LEAF}{number}": leaf for number, leaf in enumerate(stacked)}


def courses_in(arrays: Mapping[str, np.ndarray]) -> Courses:
    """The courses that `arrays_of` has put away."""
    loaded = {name: arrays[name] for name in arrays}
    leaves = [loaded[f"{LEAF}{n}"] for n in range(sum(name.startswith(LEAF) for name in loaded))]
    place = np.cumsum(loaded["going"]) - 1

    def part(prefix: str, run: int) -> dict[str, Any]:
        names = [name for name in loaded if name.startswith(prefix)]
        return {name.removeprefix(prefix): loaded[name][run] for name in names}

    courses = {}
    for run, (variant, seed) in enumerate(loaded["jobs"].tolist()):
        rows = loaded["rows"][run]
        history = {name: values[:rows] for name, values in part(HISTORY, run).items()}
        keep = tuple(leaf[place[run]] for leaf in leaves) if loaded["going"][run] else None
        test = {name: float(value) for name, value in part(TEST, run).items()}
        bad_step, ended = int(loaded["bad_step"][run]), bool(loaded["ended"][run])
        courses[Job(variant, seed)] = Course(history, bad_step, ended, keep, test)
    return courses


def arrays_of_all(swept: Swept) -> dict[str, np.ndarray]:
    """Every loss of every epoch: measure -> (variants, seeds, epochs + 1), NaN where there is none.

    Beside them `seeds`, and (variants, seeds): `epochs` trained, `ending` in words, `kept`.
    """
    records = list(swept.records.values())
    shape = (len(swept.variants), len(swept.seeds))
    longest = max(record.epochs for record in records) + 1
    names = list(dict.fromkeys(name for record in records for name in record.history))
    nothing = np.full(longest, np.nan, np.float32)
    arrays = {
        "seeds": np.array(swept.seeds),
        "epochs": np.array([record.epochs for record in records]).reshape(shape),
        "ending": np.array([record.ending for record in records]).reshape(shape),
        "kept": np.array([-1 if r.kept is None else r.kept for r in records]).reshape(shape),
    }
    for name in dict.fromkeys(name for record in records for name in record.test):
        tested = [record.test.get(name, np.nan) for record in records]
        arrays[TEST + name] = np.array(tested).reshape(shape)
    for name in names:
        rows = [padded(r.history[name], longest) if name in r.history else nothing for r in records]
        arrays[name] = np.stack(rows).reshape(*shape, longest)
    return arrays


def data_of(plan: Planned) -> str:
    """The fingerprints of its data."""
    return " ".join(dict.fromkeys(group.dataset.fingerprint for group in plan.groups))


def is_done(page: SweepPage, plan: Planned) -> bool:
    return page.complete and page.facts.get("data") == data_of(plan)


def known(plan: Planned, logbook: Path) -> Swept | None:
    """A sweep that the logbook has; None where it was never run on these data, or not to its end.

    Raises:
        UserError: where its losses are missing or damaged.
    """
    paths = sweep_paths(logbook / plan.name, plan.identity)
    last = read_sweep_page(paths[-1]) if paths else None
    return swept_of(last, plan) if last is not None and is_done(last, plan) else None


def swept_of(page: SweepPage, plan: Planned) -> Swept:
    """A sweep as its page and the file beside it have it.

    Raises:
        UserError: where that file is missing or damaged.
    """
    path = page.path.with_suffix(".npz")
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            arrays = {name: file[name] for name in file}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
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
    return Swept(plan.name, plan.identity, plan.variants, plan.seeds, records, page.path)
