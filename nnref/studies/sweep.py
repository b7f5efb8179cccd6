"""Sweep: many experiments as few programs. What is finished is not run again.

Runs are trained in blocks, each a call of its group's program, several side by side. While a sweep
runs, what is done lies in a folder beside its page; in the end a page and one file of all losses
are left.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnref.logbook.verdicts import Record
from nnref.studies.groups import Group, Job, workers
from nnref.studies.listeners import Interrupted, SweepListener, one_interrupt_waits
from nnref.studies.on_ray import RayPool
from nnref.studies.resuming import AlreadyRun, history_of
from nnref.studies.run import test_measures, trained_record
from nnref.studies.sweep_page import SweepWriter, finished_page, result_of
from nnref.studies.sweep_record import (
    DROPPED,
    RunProgress,
    SweepPlan,
    SweepResult,
    median_loss,
    plan_sweep,
)
from nnref.training import checkpoint, loop
from nnref.training.compilation import drop_programs, usual_settings

AllProgress = dict[Job, RunProgress]


@usual_settings()
def sweep(
    sweep: SweepPlan | str | Path,
    *,
    logbook: str | Path | None = "logbook",
    again: bool = False,
    listener: SweepListener | None = None,
    ray: bool | str = False,
) -> SweepResult:
    """Train every variant of a sweep for every seed, and write it down.

    Args:
        sweep: the plan, or the path of its file or page.
        logbook: folder of the pages, None for none.
        again: run although the logbook has this sweep already.
        listener: hears how it goes.
        ray: train on a Ray cluster: its address, or True for one that is started here.

    Raises:
        UserError: for every mistake in file, data or folder, and a cluster that cannot be used.
        AlreadyRun: where the logbook has it and `again` is not given.
        Interrupted: after Ctrl-C; the same call goes on where it was.
    """
    plan = sweep if isinstance(sweep, SweepPlan) else plan_sweep(sweep)
    listener = listener or SweepListener()
    if logbook is None:
        with pool_on(ray) as pool:
            return run_plan(plan, {}, listener, None, pool)
    page = None if again else finished_page(plan, Path(logbook))
    if page is not None:
        result = result_of(page, plan)
        outcome = f"{plan.name} ({plan.identity}) was swept before, on "
        outcome += f"{page.facts['started']}: {result.sentence}"
        raise AlreadyRun(result, outcome, page.path)
    with pool_on(ray) as pool, SweepWriter(Path(logbook), plan, again) as writer:
        result = run_plan(plan, writer.progress(plan), listener, writer, pool)
        writer.end(result)
    return result


def pool_on(ray: bool | str) -> Executor:
    """Where blocks are trained: in threads of this process, or by tasks of a Ray cluster."""
    return RayPool(ray) if ray else ThreadPoolExecutor(workers())


def run_plan(
    plan: SweepPlan,
    progress: AllProgress,
    listener: SweepListener,
    writer: SweepWriter | None,
    pool: Executor,
) -> SweepResult:
    """Train the runs that have not come to their end, and put the result together."""
    began = time.perf_counter()
    trained = sum(job not in progress or progress[job].leaves is not None for job in plan.jobs)
    records = successive_halving(plan, progress, listener, writer, pool)
    seconds = time.perf_counter() - began
    page = None if writer is None else writer.path
    repeated = pool.repeated() if isinstance(pool, RayPool) else 0
    of_plan = plan.name, plan.identity, plan.variants, plan.seeds
    return SweepResult(*of_plan, records, page, seconds, trained, repeated)


# --- training -----------------------------------------------------------------------------------


def successive_halving(
    plan: SweepPlan,
    progress: AllProgress,
    listener: SweepListener,
    writer: SweepWriter | None,
    pool: Executor,
) -> dict[Job, Record]:
    """Train all runs, rung by rung where the worse variants are dropped early."""
    left, last = list(range(len(plan.variants))), plan.rungs[-1]
    dropped_on: dict[int, int] = {}  # variant -> rung
    for number, rung in enumerate(plan.rungs):

        def until(group: Group, rung: int = rung) -> int:
            return -(-group.plan.epochs * rung // last)

        todo = [
            (group, [job for job in group.jobs if job.variant in left]) for group in plan.groups
        ]
        train_jobs(todo, until, progress, listener, writer, pool, plan.fresh)
        if rung == last:
            break
        losses: dict[int, list[float]] = {}
        for group, jobs in todo:
            for job in jobs:
                record = record_of_job(group, job, progress[job].until(until(group)))
                losses.setdefault(job.variant, []).append(record.final("valid_loss"))
        better = sorted(left, key=lambda variant: median_loss(losses[variant]))
        dropped_on |= dict.fromkeys(better[plan.survivors(number + 1) :], number)
        left = sorted(better[: plan.survivors(number + 1)])
    records = {}
    for group in plan.groups:
        for job in group.jobs:
            record = record_of_job(group, job, progress[job])
            if job.variant in dropped_on and not record.diverged:
                above = plan.survivors(dropped_on[job.variant] + 1)
                words = f"{DROPPED} after epoch {record.epochs}: {above} variants were better"
                record = replace(record, ending=words)
            records[job] = record
    return {job: records[job] for job in plan.jobs}


def record_of_job(group: Group, job: Job, progress: RunProgress) -> Record:
    """The record of a run, as a run alone would have it."""
    history, bad_step, test = progress.history, progress.bad_step, progress.test
    known = group.plan, group.setup.steps_per_epoch, group.setup.metrics()
    return trained_record(*known, job.seed, history, bad_step, test)


def train_jobs(
    todo: Sequence[tuple[Group, Sequence[Job]]],
    until: Callable[[Group], int],
    progress: AllProgress,
    listener: SweepListener,
    writer: SweepWriter | None,
    pool: Executor,
    test: bool = False,
) -> None:
    """Train runs of some groups, block by block and several blocks side by side.

    Each group is trained up to the epoch that `until` gives. The progress is brought up to date;
    the writer, if there is one, keeps what is done; with `test` the networks are evaluated on the
    test data as well.

    Raises:
        Interrupted: after Ctrl-C, everything that is done having been kept.
    """
    # One block of each group in turn, so that their programs are compiled side by side.
    turns: Any = zip_longest(*(blocks_of(g, jobs, until(g), progress) for g, jobs in todo))
    blocks = [block for turn in turns for block in turn if block is not None]
    whole = sum(until(group) * len(jobs) for group, jobs in todo)
    to_train = 0
    for group, jobs in blocks:
        to_train += sum(until(group) - max(0, epochs_of(job, progress)) for job in jobs)
    listener.begins(whole, whole - to_train)
    halt = threading.Event()
    try:
        with one_interrupt_waits() as interrupted:

            def hears(epochs: int) -> bool:
                if epochs:
                    listener.hears(epochs)
                return halt.is_set() or interrupted()

            def begun(group: Group, jobs: Sequence[Job]) -> Future[AllProgress]:
                before = {job: progress[job] for job in jobs if job in progress}
                return pool.submit(train_block, group, jobs, until(group), before, test, hears)

            waiting: set[Future[AllProgress]] = set()
            try:
                waiting |= {begun(*block) for block in blocks}
                while waiting:
                    done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    keep(done, progress, writer)
                    drop_programs()  # a grid of structures has programs of its own for each
                    if interrupted():
                        halt.set()
                if interrupted():
                    raise Interrupted
            except BaseException:
                halt.set()
                keep((each for each in wait(waiting)[0] if not each.exception()), progress, writer)
                if writer is not None:
                    writer.save()
                raise
    finally:
        listener.ends()


def keep(
    done: Iterable[Future[AllProgress]], progress: AllProgress, writer: SweepWriter | None
) -> None:
    """Add blocks that are done; the error of a block is raised when the others are added."""
    for future in sorted(done, key=lambda each: each.exception() is not None):
        progress |= (block := future.result())
        if writer is not None and block:
            writer.add(block)


def blocks_of(
    group: Group, jobs: Sequence[Job], until: int, progress: AllProgress
) -> list[tuple[Group, Sequence[Job]]]:
    """Blocks of runs that one call of the program trains: they have come to the same epoch."""
    lacking: dict[int, list[Job]] = {}
    for job in jobs:
        if job not in progress or not progress[job].reaches(until):
            lacking.setdefault(epochs_of(job, progress), []).append(job)
    step = group.together
    return [
        (group, some[first : first + step])
        for some in lacking.values()
        for first in range(0, len(some), step)
    ]


def epochs_of(job: Job, progress: AllProgress) -> int:
    """The last epoch of a run; -1 where it has not begun."""
    return progress[job].epochs if job in progress else -1


def train_block(
    group: Group,
    jobs: Sequence[Job],
    until: int,
    progress: AllProgress,
    test: bool,
    hears: Callable[[int], bool],
) -> AllProgress:
    """Train some runs as one program, up to an epoch or until they are halted.

    `hears` is told how many more epochs are done, and says whether to halt.
    """
    if hears(0):
        return {}
    # A shorter block repeats its last run: another number of runs would be another program.
    full = [*jobs, *[jobs[-1]] * (group.together - len(jobs))]
    resume = None
    if jobs[0] in progress:
        before = [progress[job] for job in full]
        leaves = zip(*(each.leaves for each in before if each.leaves), strict=True)
        resume = before[0].epochs, states_from(leaves, group.like)
    chunks: list[loop.Chunk] = []
    states: Any = None
    done = 0
    for chunk in group.fit(full, resume, until):
        states = chunk.states
        chunks.append(chunk._replace(states=None))
        done = chunk.first + len(chunk.active) - 1
        if hears(len(jobs) * len(chunk.active) * (done > 0)):
            break
    running = np.asarray(states.running)
    measured = {}
    if test and group.task.test is not None:
        hyperparameters = group.hyperparameters(full)
        measured = test_measures(group.setup, group.plan, hyperparameters, states, group.task)
    goes_on = done < group.plan.epochs
    leaves = [checkpoint.on_host(leaf) for leaf in jax.tree.leaves(states)] if goes_on else []
    trained = {}
    for run, job in enumerate(jobs):
        history, bad_step = history_of(chunks, run)
        if resume is not None:
            earlier = progress[job].history
            history = {name: np.concatenate([earlier[name], history[name]]) for name in history}
        ended = not running[run]
        state = tuple(leaf[run] for leaf in leaves) if goes_on and not ended else None
        tested = {name: float(values[run]) for name, values in measured.items()}
        trained[job] = RunProgress(history, bad_step, ended, state, tested)
    if not running.any():
        hears(len(jobs) * (until - done))
    return trained


def states_from(leaves: Iterable[Sequence[np.ndarray]], like: Any) -> Any:
    """States on the device, (runs, ...), from the leaves of each run and the shapes of one run."""
    shapes, tree = jax.tree.flatten(like)
    pairs = zip(leaves, shapes, strict=True)
    return tree.unflatten([checkpoint.as_leaf(np.stack(leaf), one) for leaf, one in pairs])
