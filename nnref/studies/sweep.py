"""Sweep: many experiments as few programs. What is finished is not run again.

Runs are trained in blocks, each a call of its group's program, several side by side. While a sweep
runs, what is done lies in a folder beside its page; in the end a page and one file of all losses
are left.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnref.logbook.verdicts import Record
from nnref.studies.groups import Group, Job, workers
from nnref.studies.listeners import Interrupted, one_interrupt_waits
from nnref.studies.run import best_epoch, ending
from nnref.studies.sweep_page import Keeper
from nnref.studies.sweep_record import (
    DROPPED,
    Course,
    Courses,
    Planned,
    SweepListener,
    Swept,
    middle,
    planned,
)
from nnref.training import loop, train
from nnref.training.compilation import compile_tiny_loops_whole


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
    experiment, plan = group.variants[job.variant].experiment, group.plan
    kept = train.keeps_best(plan)
    return Record(
        job.seed,
        course.history,
        ending(experiment, group.setup, course.epochs, course.bad_step),
        course.test,
        kept=best_epoch(plan, course.history, group.setup.metrics()) if kept else None,
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
    chunks: list[loop.Chunk] = []
    states: Any = None
    done = 0
    hyperparameters, seeds = group.hyperparameters(full), [job.seed for job in full]
    fitting = loop.fit(
        group.setup, group.plan, hyperparameters, seeds, group.on_device, resume, until
    )
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
        tested = loop.evaluate_runs(group.setup, size, hyperparameters, states, split)
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
