"""Runs: the one way through, from an experiment to its verdict."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.data import Dataset
from nnref.errors import UserError, nearest
from nnref.experiment.experiment import Experiment, read
from nnref.logbook.pages import Page, page_at, probe_table
from nnref.logbook.verdicts import Record, Verdict, judge, stacked, watched_loss
from nnref.logbook.writer import Writer, machine_facts, now
from nnref.parts.metrics import Metric, lower_is_better
from nnref.studies.listeners import Interrupted, Listener, one_interrupt_waits
from nnref.studies.resuming import (
    STREAM,
    checkpoint_folder,
    checkpoint_place,
    chunk_from_pages,
    finished,
    record_of,
    resumed,
    what_was_there,
)
from nnref.training import checkpoint, loop, probes, stream, train
from nnref.training.compilation import compile_tiny_loops_whole
from nnref.training.setup import Setup, from_experiment
from nnref.training.task import Task

SECONDS_BETWEEN_CHECKPOINTS = 30.0
SECONDS_WORTH_KEEPING = 10.0  # what was trained in less is trained again when it is asked for


@dataclass(frozen=True)
class Run:
    """An experiment that has been trained, for every seed.

    `params` and `model_state` are those that the run keeps and evaluates, with a leading axis of
    `trained`: the seeds trained now, not those whose pages were there already.
    """

    name: str
    experiment: Experiment
    records: tuple[Record, ...]
    verdict: Verdict
    task: Task | None = field(default=None, repr=False)
    trained: tuple[int, ...] = ()
    params: Any = field(default=None, repr=False)
    model_state: Any = field(default=None, repr=False)
    seconds: float = 0.0

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Measure -> (seeds, epochs + 1), NaN after the end of a seed."""
        return stacked(self.records)


class Trained(NamedTuple):
    """The network that one page is about, and what it was trained on."""

    page: Page
    experiment: Experiment
    task: Task
    setup: Setup
    dataset: Dataset
    params: Any
    model_state: Any


class AlreadyRun(UserError):
    """The logbook has every seed of this experiment already."""

    def __init__(self, run: Run, started: str, folder: Path):
        self.run = run
        super().__init__(
            f"{run.name} ({run.experiment.identity}) was run before, on {started}: "
            f"{run.verdict.sentence}\npages: {folder}\n"
            "to run it anew and keep those pages: --again (from Python: again=True)"
        )


def run(
    experiment: Experiment | str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    logbook: str | Path | None = "logbook",
    again: bool = False,
    listener: Listener | None = None,
) -> Run:
    """Train an experiment for all its seeds, and write it down.

    Args:
        experiment: an experiment, or the path of its file or of a page.
        settings: keys to set first, by path: `{"optimizer.learning_rate": 0.1}`.
        seeds: instead of those in the file.
        epochs: instead of those in the file; another number is another experiment.
        logbook: folder of the pages, None for none.
        again: train although the logbook has this run already.
        listener: hears how it goes.

    Raises:
        UserError: for every mistake in file, settings, data or folder.
        AlreadyRun: where the logbook has all seeds and `again` is not given.
        Interrupted: after Ctrl-C; the same call goes on where it was.
    """
    compile_tiny_loops_whole()
    given = dict(settings or {})
    given |= {"seeds": list(seeds)} if seeds is not None else {}
    given |= {"epochs": epochs} if epochs is not None else {}
    page, beside = None, Path("experiments")
    if isinstance(experiment, Experiment):
        name = "unnamed"
        experiment = experiment.replaced(given) if given else experiment
    else:
        page = page_at(Path(experiment))
        name = page.name if page else Path(experiment).stem
        beside = beside if page else Path(experiment).parent
        experiment = read(experiment, given)
    if experiment.sweep is not None:
        raise UserError(f"{name} is a sweep of many experiments: nnref sweep {name}")
    task, setup, dataset = from_experiment(experiment)
    check_measures(experiment, task)
    seeds = experiment.seeds
    folder = None if logbook is None else Path(logbook) / name
    facts = machine_facts() | {"data": dataset.fingerprint}
    known = {} if folder is None or again else finished(folder, experiment, facts["data"])

    def twin(other: str) -> dict[str, np.ndarray]:
        return run(beside / f"{other}.json", seeds=seeds, logbook=None).history

    if folder is not None and len(known) == len(seeds):
        records = tuple(record_of(known[seed]) for seed in seeds)
        verdict = judge(experiment, records, twin)
        past = Run(name, experiment, records, verdict, task)
        raise AlreadyRun(past, known[seeds[0]].facts["started"], folder)
    todo = tuple(seed for seed in seeds if seed not in known)
    # XLA rounds differently for another number of runs: a page is repeated with its neighbours.
    together = todo if page is None or seeds != page.experiment.seeds else page.together
    facts["together"] = " ".join(map(str, together))
    listener = listener or Listener()
    began = time.perf_counter()
    with ExitStack() as stack:
        writers = {}
        if folder is not None:
            for seed in todo:
                writer = Writer.open(folder, name, experiment, seed, facts, again)
                writers[seed] = stack.enter_context(writer)
        listener.begins(experiment, todo, setup.steps_per_epoch, what_was_there(known, writers))
        stack.callback(listener.ends)
        try:
            records, states = train_seeds(experiment, task, setup, together, writers, listener)
        except Interrupted as interrupted:
            interrupted.page = next((writer.path for writer in writers.values()), None)
            raise
        seconds = time.perf_counter() - began
        records |= {seed: record_of(page) for seed, page in known.items()}
        ordered = tuple(records[seed] for seed in seeds)
        verdict = judge(experiment, ordered, twin)
        for seed, writer in writers.items():
            writer.conclude(facts_at_end(records[seed], verdict, seconds))
    params, model_state = train.networks(states)
    return Run(name, experiment, ordered, verdict, task, together, params, model_state, seconds)


def resume(path: str | Path, listener: Listener | None = None) -> Run:
    """Go on with the run of a page, and of the seeds that were trained with it.

    Args:
        path: of a page, in the folder of its logbook.
        listener: hears how it goes.

    Raises:
        UserError: for a file that is no page.
        AlreadyRun: where the run has come to its end.
        Interrupted: after Ctrl-C.
    """
    page = page_at(Path(path))
    if page is None:
        raise UserError(f"{path}: not a page of a logbook; nnref log lists the runs")
    return run(path, seeds=page.together, logbook=page.path.parent.parent, listener=listener)


def plan_of(experiment: Experiment) -> train.Plan:
    """The structure of an experiment's runs."""
    return train.Plan(
        experiment.batch_size,
        experiment.epochs,
        experiment.evaluate_every,
        experiment.stop,
        experiment.shuffle,
        experiment.probes,
    )


def train_seeds(
    experiment: Experiment,
    task: Task,
    setup: Setup,
    seeds: Sequence[int],
    writers: Mapping[int, Writer],
    listener: Listener,
) -> tuple[dict[int, Record], train.TrainState]:
    """Train some seeds together, writing and telling as it happens."""
    plan = plan_of(experiment)
    chunks: list[loop.Chunk] = []
    states: Any = None
    place = checkpoint_place(experiment, seeds, writers)
    resume = resumed(place, experiment, setup, plan, seeds, task, writers)
    if resume is not None:
        states = resume[1] if task.stored is None else resume[1].states
        chunks.append(chunk_from_pages(resume[0], seeds, writers))
    measured = Measured(experiment, setup, plan, task, writers, chunks)
    began = saved = time.monotonic()
    with one_interrupt_waits() as interrupted:
        fit: Callable[..., Iterator[loop.Chunk]] = loop.fit if task.stored is None else stream.fit
        for chunk in fit(setup, plan, experiment.hyperparameters, seeds, task, resume):
            states = chunk.states
            chunks.append(chunk._replace(states=None, position=None, probes={}))
            for run, seed in enumerate(seeds):
                rows = int(np.count_nonzero(chunk.active[:, run]))
                if rows and seed in writers:
                    history = {n: values[:rows, run] for n, values in chunk.history.items()}
                    writers[seed].rows(chunk.first, history)
                    measured.add(seed, run, chunk, rows)
            listener.hears(chunk)
            if place is not None and (
                interrupted() or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS
            ):
                done = chunk.first + len(chunk.active) - 1
                measured.keep()
                if chunk.position is None:
                    checkpoint.save(place, done, states)
                else:
                    checkpoint.save(place / STREAM, done, chunk.position())
                saved = time.monotonic()
            if interrupted():
                raise Interrupted
    measured.keep()
    if place is not None and time.monotonic() - began > SECONDS_WORTH_KEEPING:
        checkpoint.save(place, sum(len(chunk.active) for chunk in chunks) - 1, states)
    active = np.concatenate([chunk.active for chunk in chunks])
    bad_step = np.concatenate([chunk.bad_step for chunk in chunks])
    history = {n: np.concatenate([c.history[n] for c in chunks]) for n in chunks[0].history}
    test = test_measures(setup, experiment, states, task)
    records = {}
    for run, seed in enumerate(seeds):
        rows = int(np.count_nonzero(active[:, run]))
        of_seed = {name: values[:rows, run] for name, values in history.items()}
        records[seed] = Record(
            seed,
            of_seed,
            ending(experiment, setup, rows - 1, int(bad_step[rows - 1, run])),
            {name: float(values[run]) for name, values in test.items()},
            writers[seed].path if seed in writers else None,
            best_epoch(plan, of_seed, setup.metrics()) if train.keeps_best(plan) else None,
        )
    return records, states


class Measured:
    """The measures of the layers of some seeds, gathered while they train."""

    def __init__(
        self,
        experiment: Experiment,
        setup: Setup,
        plan: train.Plan,
        task: Task,
        writers: Mapping[int, Writer],
        before: Sequence[loop.Chunk],
    ):
        self.steps_per_epoch = setup.steps_per_epoch
        self.writers = writers
        self.tables: dict[int, list[np.ndarray]] = {seed: [] for seed in writers}
        self.layers: list[str] = []
        if plan.probes == "off" or not writers:
            return
        x = task.train.x
        batch = jax.ShapeDtypeStruct((min(plan.batch_size, len(x)), *x.shape[1:]), x.dtype)
        hyperparameters = tuple(experiment.hyperparameters.items())
        self.layers = loop.measured_layers(setup, hyperparameters, batch)
        done = sum(len(chunk.active) for chunk in before) - 1
        for seed, writer in writers.items() if before else ():
            table = probe_table(writer.path)
            if table is not None:
                self.tables[seed] = [table[table["step"] < done * self.steps_per_epoch]]

    def add(self, seed: int, run: int, chunk: loop.Chunk, epochs: int) -> None:
        """What a chunk tells of the first of its epochs of a run."""
        if chunk.probes:
            at = chunk.probes["at"]
            at = at[at < chunk.first + epochs]
            told = [chunk.probes["epoch"][: len(at), run]]
            told += [chunk.probes["step"][:epochs, run]] if "step" in chunk.probes else []
            place = chunk.first, self.steps_per_epoch
            self.tables[seed].append(probes.table(self.layers, *place, at, *told))

    def keep(self) -> None:
        """Write it beside the pages."""
        for seed, tables in self.tables.items():
            if tables:
                self.writers[seed].probes(np.concatenate(tables))


def best_epoch(
    plan: train.Plan, history: Mapping[str, np.ndarray], metrics: Mapping[str, Metric]
) -> int:
    """The epoch with the best `stop.metric`; the network of that epoch is the one kept."""
    assert plan.stop is not None, "a plan that keeps the best network has a stop"
    watched = plan.stop.metric
    best = np.nanargmin if lower_is_better(watched, metrics) else np.nanargmax
    return int(best(history[watched]))


def ending(experiment: Experiment, setup: Setup, epoch: int, bad_step: int) -> str:
    """Why a seed ended before its last epoch, in words; empty where it did not."""
    if bad_step:
        step = (epoch - 1) * setup.steps_per_epoch + bad_step
        return f"diverged at epoch {epoch}, step {step}: the training loss was not finite"
    if epoch < experiment.epochs and experiment.stop is not None:
        stop = experiment.stop
        bounded = stop.at_least is not None or stop.at_most is not None
        waited = (
            ""
            if stop.patience is None
            else f"no better {stop.metric} in {stop.patience} evaluations"
        )
        told = [str(stop)] * bounded + [waited] * bool(waited)
        return f"stopped at epoch {epoch}: {' or '.join(told)}"
    return ""


def trained(path: str | Path, listener: Listener | None = None) -> Trained:
    """The network of a page: as training left it, or trained again, bit for bit.

    Args:
        path: of a page.
        listener: hears how it goes, where it is trained again.

    Raises:
        UserError: for a page of a run that has not ended, or whose data have changed since.
    """
    page = page_at(Path(path))
    if page is None or not page.complete:
        raise UserError(f"{path}: not the page of a run that has ended; give one of a logbook")
    (seed,) = page.experiment.seeds
    experiment = page.experiment.replaced({"seeds": list(page.together)})
    task, setup, dataset = from_experiment(experiment)
    if page.facts["data"] != dataset.fingerprint:
        raise UserError(f"{path}: its data have changed since; run the experiment again")
    seeds, plan = experiment.seeds, plan_of(experiment)
    start = partial(loop.start_runs, setup, plan, experiment.hyperparameters)
    like, _ = jax.eval_shape(start, np.asarray(seeds, np.uint32), task.arrays)
    place = checkpoint_folder(experiment, seeds, page.path.parent)
    found = checkpoint.restore(place, like) if place.is_dir() else None
    if found is not None and found[0] >= page.epochs:
        states = found[1]
    else:
        listener = listener or Listener()
        note = "the network was not kept; it is trained again"
        listener.begins(experiment, seeds, setup.steps_per_epoch, note)
        try:
            _, states = train_seeds(experiment, task, setup, seeds, {}, listener)
        finally:
            listener.ends()
    params, model_state = jax.tree.map(lambda leaf: leaf[seeds.index(seed)], train.networks(states))
    return Trained(page, experiment, task, setup, dataset, params, model_state)


# --- what the logbook knew ----------------------------------------------------------------------


def measures_of(task: Task) -> list[str]:
    """The measures that a run of a task knows."""
    splits = [name for name in ("train", "valid", "test") if getattr(task, name) is not None]
    scalars = [name for name, metric in task.functions.metrics.items() if metric.scalar]
    return [f"{split}_{name}" for split in splits for name in ("loss", *scalars)] + ["epochs"]


def check_measures(experiment: Experiment, task: Task) -> None:
    """Refuse a claim or a stop about a measure that the run will not have.

    Raises:
        UserError: naming the measures that there are.
    """
    known = measures_of(task)
    watched = [(f"claim.{i}", claim.metric, known) for i, claim in enumerate(experiment.claim)]
    if experiment.stop is not None:
        # Test data are looked at once, at the end.
        seen = [name for name in known if not name.startswith(("test_", "epochs"))]
        watched.append(("stop", experiment.stop.metric, seen))
    for path, metric, allowed in watched:
        if metric not in allowed:
            raise UserError(
                f'{path}.metric: "{metric}" given; allowed: {", ".join(allowed)}'
                f"{nearest(metric, allowed)}"
            )


def test_measures(
    setup: Setup, experiment: Experiment, states: train.TrainState, task: Task
) -> dict[str, np.ndarray]:
    """The measures of the test split, (runs,), if a claim is about them: else nobody looks."""
    if not any(claim.metric.startswith("test_") for claim in experiment.claim):
        return {}
    assert task.test is not None, "check_measures has refused the claim"
    data = tuple(task.test)
    measured = loop.evaluate_runs(
        setup, experiment.batch_size, experiment.hyperparameters, states, data
    )
    return {f"test_{name}": np.asarray(values) for name, values in measured.items()}


def facts_at_end(record: Record, verdict: Verdict, seconds: float) -> dict[str, str]:
    """The last lines of a page, the verdict at the very end."""
    name = watched_loss(record)
    facts = {"ended": f"{now()}, after {seconds:.3g} s"}
    facts |= {name: f"{value:.9g}" for name, value in record.test.items()}
    facts |= {"ending": record.ending} if record.ending else {}
    facts |= {"kept": str(record.kept)} if record.kept is not None else {}
    facts |= {"all_seeds": verdict.sentence}
    told = f"{name} {record.final(name):.6g} after {record.epochs} epochs"
    told += f", best {record.best(name):.6g}"
    return facts | {"verdict": record.ending or told}
