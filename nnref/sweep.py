"""Sweep: many experiments as few programs. What is finished is not run again.

Runs are trained in blocks, each a call of its group's program, several side by side. While a sweep
runs, what is done lies in a folder beside its page; in the end a page and one file of all losses
are left.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

import jax
import numpy as np

from nnref import train
from nnref.compilation import compile_tiny_loops_whole
from nnref.errors import UserError
from nnref.experiment import Experiment
from nnref.groups import Group, Job, Variant, groups_of, read_sweep, workers
from nnref.logbook import machine_facts, now, open_alone
from nnref.pages import FORMAT, SweepPage, read_sweep_page, sweep_page_at, sweep_paths
from nnref.runs import Interrupted, best_epoch, check_measures, ending, one_interrupt_waits
from nnref.verdicts import Record, padded, watched_loss

SECONDS_BETWEEN_SAVES = 2.0


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


def sweep(
    sweep: Planned | str | Path,
    *,
    logbook: str | Path | None = "logbook",
    again: bool = False,
    listener: SweepListener | None = None,
) -> Swept:
    """Train every variant of a sweep for every seed, and write it down.

    Args:
        sweep: as planned, or the path of its file or page.
        logbook: folder of the pages, None for none.
        again: run although the logbook has this sweep already.
        listener: hears how it goes.

    Raises:
        UserError: for every mistake in file, data or folder.
        AlreadySwept: where the logbook has it and `again` is not given.
        Interrupted: after Ctrl-C; the same call goes on where it was.
    """
    compile_tiny_loops_whole()
    plan = sweep if isinstance(sweep, Planned) else planned(sweep)
    listener = listener or SweepListener()
    keeper = None if logbook is None else Keeper.open(Path(logbook), plan, again)
    began = time.perf_counter()
    try:
        courses = {} if keeper is None else keeper.courses(plan)
        finished = sum(course.leaves is None for course in courses.values())
        records = climb(plan, courses, listener, keeper)
        seconds = time.perf_counter() - began
        trained = len(plan.jobs) - finished
        page = None if keeper is None else keeper.page
        swept = Swept(
            plan.name, plan.identity, plan.variants, plan.seeds, records, page, seconds, trained
        )
        if keeper is not None:
            keeper.conclude(swept)
    finally:
        if keeper is not None:
            keeper.close()
    return swept


# --- training -----------------------------------------------------------------------------------


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


def climb(
    plan: Planned, courses: Courses, listener: SweepListener, keeper: "Keeper | None"
) -> dict[Job, Record]:
    """Train all runs, rung by rung where the worse variants end early."""
    left, last = list(range(len(plan.variants))), plan.rungs[-1]
    ended_on: dict[int, int] = {}  # variant -> rung
    for number, rung in enumerate(plan.rungs):

        def until(group: Group, rung: int = rung) -> int:
            return -(-group.plan.epochs * rung // last)

        here = set(left)
        todo = [
            (group, [job for job in group.jobs if job.variant in here]) for group in plan.groups
        ]
        train_jobs(todo, until, courses, listener, keeper, plan.fresh)
        if rung == last:
            break
        scores = {}
        for group, jobs in todo:
            for variant in {job.variant for job in jobs}:
                stood = [
                    record_of(group, job, shortened(courses[job], until(group)))
                    for job in jobs
                    if job.variant == variant
                ]
                scores[variant] = middle(record.final("valid_loss") for record in stood)
        better = sorted(left, key=scores.__getitem__)
        ended_on |= dict.fromkeys(better[plan.survivors(number + 1) :], number)
        left = sorted(better[: plan.survivors(number + 1)])
    records = {}
    for group in plan.groups:
        for job in group.jobs:
            record = record_of(group, job, courses[job])
            if job.variant in ended_on and not record.ending.startswith("diverged"):
                above = plan.survivors(ended_on[job.variant] + 1)
                told = f"{DROPPED} after epoch {record.epochs}: {above} variants were better"
                record = replace(record, ending=told)
            records[job] = record
    return {job: records[job] for job in plan.jobs}


def shortened(course: Course, epoch: int) -> Course:
    """A course as it stood after an epoch."""
    if course.epochs <= epoch:
        return course
    history = {name: values[: epoch + 1] for name, values in course.history.items()}
    return Course(history, 0, False, None)


def record_of(group: Group, job: Job, course: Course) -> Record:
    """The record of a run, as a run alone would have it."""
    experiment = group.variants[job.variant].experiment
    stop = experiment.stop
    return Record(
        job.seed,
        course.history,
        ending(experiment, group.setup, course.epochs, course.bad_step),
        course.test,
        kept=best_epoch(stop, course.history) if stop and train.keeps_best(group.plan) else None,
    )


Todo = Sequence[tuple[Group, Sequence[Job]]]


def train_jobs(
    todo: Todo,
    until: Callable[[Group], int],
    courses: Courses,
    listener: SweepListener,
    keeper: "Keeper | None" = None,
    test: bool = False,
) -> None:
    """Train runs up to an epoch, block by block and several blocks side by side.

    Args:
        todo: groups, and their runs that go on.
        until: last epoch for a group.
        courses: how far each run has come; what is trained is added.
        listener: hears how it goes.
        keeper: of what is done; None for none.
        test: evaluate the networks on the test data as well.

    Raises:
        Interrupted: after Ctrl-C, everything done being kept.
    """
    blocks = list(interleaved([blocks_of(g, jobs, until(g), courses) for g, jobs in todo]))
    whole = sum(until(group) * len(jobs) for group, jobs in todo)
    ahead = sum(
        (until(group) - max(0, courses[job].epochs if job in courses else 0))
        for group, jobs in blocks
        for job in jobs
    )
    listener.begins(whole, whole - ahead)
    halt = threading.Event()
    try:
        with one_interrupt_waits() as interrupted, ThreadPoolExecutor(workers()) as pool:

            def work(group: Group, jobs: Sequence[Job]) -> Courses:
                over = lambda: halt.is_set() or interrupted()  # noqa: E731
                if over():
                    return {}
                return train_block(group, jobs, until(group), courses, listener, over, test)

            waiting = {pool.submit(work, *block) for block in blocks}
            try:
                while waiting:
                    done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    kept(done, courses, keeper)
                    if interrupted():
                        halt.set()
                if interrupted():
                    raise Interrupted
            except BaseException:
                halt.set()
                kept((each for each in wait(waiting)[0] if not each.exception()), courses, keeper)
                if keeper is not None:
                    keeper.save()
                raise
    finally:
        listener.ends()


def kept(done: Iterable[Future[Courses]], courses: Courses, keeper: "Keeper | None") -> None:
    """Add blocks that are done; what failed is raised when the others are added."""
    for future in sorted(done, key=lambda each: each.exception() is not None):
        courses |= (block := future.result())
        if keeper is not None and block:
            keeper.adds(block)


def blocks_of(
    group: Group, jobs: Sequence[Job], until: int, courses: Courses
) -> list[tuple[Group, Sequence[Job]]]:
    """What one call of the program trains: runs that stand at the same epoch."""
    lacking: dict[int, list[Job]] = {}
    for job in jobs:
        if job not in courses:
            lacking.setdefault(-1, []).append(job)
        elif not courses[job].reaches(until):
            lacking.setdefault(courses[job].epochs, []).append(job)
    step = group.together
    return [
        (group, some[first : first + step])
        for some in lacking.values()
        for first in range(0, len(some), step)
    ]


def interleaved(lists: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """One of each in turn, so that programs are compiled side by side."""
    nothing = object()
    return (
        x for x in chain.from_iterable(zip_longest(*lists, fillvalue=nothing)) if x is not nothing
    )


def train_block(
    group: Group,
    jobs: Sequence[Job],
    until: int,
    courses: Courses,
    listener: SweepListener,
    over: Callable[[], bool],
    test: bool = False,
) -> Courses:
    """Train some runs as one program, up to an epoch or until it is over."""
    # A shorter block repeats its last run: another number of runs would be another program.
    full = [*jobs, *[jobs[-1]] * (group.together - len(jobs))]
    before = [courses.get(job) for job in full]
    resume = None
    if before[0] is not None:
        leaves = zip(*(course.leaves for course in before if course and course.leaves), strict=True)
        resume = before[0].epochs, from_host([np.stack(leaf) for leaf in leaves], group.like)
    chunks: list[train.Chunk] = []
    states: Any = None
    done = 0
    numbers, seeds = group.numbers(full), [job.seed for job in full]
    fitting = train.fit(group.setup, group.plan, numbers, seeds, group.on_device, resume, until)
    for chunk in group.compiled_once(fitting):
        states = chunk.states
        chunks.append(chunk._replace(states=None))
        done = chunk.first + len(chunk.active) - 1
        listener.hears(len(jobs) * len(chunk.active) * (done > 0))
        if over():
            break
    running = np.asarray(states.running)
    tested = {}
    if test and group.task.test is not None:
        split = tuple(group.task.test)
        size = group.experiment.batch_size
        tested = train.evaluate_runs(group.setup, size, numbers, states, split)
        tested = {f"test_{name}": np.asarray(values) for name, values in tested.items()}
    leaves = to_host(states) if done < group.plan.epochs else None
    trained = {}
    for run, job in enumerate(jobs):
        rows = sum(int(np.count_nonzero(chunk.active[:, run])) for chunk in chunks)
        history = {
            name: np.concatenate([chunk.history[name][:, run] for chunk in chunks])[:rows]
            for name in chunks[0].history
        }
        if (course := courses.get(job)) is not None:
            history = {n: np.concatenate([course.history[n], history[n]]) for n in history}
        bad_step = np.concatenate([chunk.bad_step[:, run] for chunk in chunks])[rows - 1]
        ended = not running[run]
        keep = None if leaves is None or ended else tuple(leaf[run] for leaf in leaves)
        measured = {name: float(values[run]) for name, values in tested.items()}
        trained[job] = Course(history, int(bad_step), ended, keep, measured)
    if not running.any():
        listener.hears(len(jobs) * (until - done))
    return trained


def is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(states: Any) -> list[np.ndarray]:
    """The leaves of some states."""
    leaves = jax.tree.leaves(states)
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in leaves]


def from_host(leaves: Iterable[np.ndarray], like: Any) -> Any:
    """States from their leaves, (runs, ...), and the shapes of one of them."""
    shapes, tree = jax.tree.flatten(like)
    pairs = zip(leaves, shapes, strict=True)
    return tree.unflatten(
        [
            jax.random.wrap_key_data(jax.device_put(leaf)) if is_key(one) else jax.device_put(leaf)
            for leaf, one in pairs
        ]
    )


# --- the logbook --------------------------------------------------------------------------------


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
