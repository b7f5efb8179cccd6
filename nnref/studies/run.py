"""Runs: the one way through, from an experiment to its verdict."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from nnref.experiment.text import experiments_folders, located, read_text
from nnref.logbook.pages import Page, page_at, page_in, probe_table, refuse_name
from nnref.logbook.verdicts import Record, Verdict, as_html, judge, stacked, watched_loss
from nnref.logbook.writer import Writer, machine_facts, now
from nnref.parts.metrics import Metric, lower_is_better
from nnref.studies import resuming
from nnref.studies.described import kept_columns
from nnref.studies.kept import LoadedNetwork, keep_networks, kept_network
from nnref.studies.listeners import Interrupted, Listener, listener_here, one_interrupt_waits
from nnref.studies.resuming import AlreadyRun, history_of, note_on_known, record_of
from nnref.training import checkpoint, devices, loop, probes, probing, processes, stream, train
from nnref.training.compilation import usual_settings
from nnref.training.setup import Setup, from_experiment, functions_of
from nnref.training.task import Task, warn_of_modes

SECONDS_BETWEEN_CHECKPOINTS = 30.0
SECONDS_WORTH_KEEPING = 10.0  # a network trained in less is trained again when it is wanted


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

    def _repr_html_(self) -> str:
        return as_html(f"{self.name} {self.experiment.identity}", self.records, self.verdict)


class Trained(NamedTuple):
    """The network that one page is about, and what it was trained on."""

    page: Page
    experiment: Experiment
    task: Task
    setup: Setup
    dataset: Dataset
    params: Any
    model_state: Any


@usual_settings()
def run(
    experiment: Experiment | str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    logbook: str | Path | None = "logbook",
    again: bool = False,
    keep: bool = True,
    listener: Listener | None = None,
) -> Run:
    """Train an experiment for all its seeds, and write it down.

    Args:
        experiment: an experiment, the path of its file or of a page, or a name of `nnref list`.
        settings: keys to set first, by path: `{"optimizer.learning_rate": 0.1}`.
        seeds: instead of those in the file, as are `epochs`.
        logbook: folder of the pages, None for none.
        again: train although the logbook has this run already.
        keep: write the trained network beside its page.
        listener: hears how it goes.

    Raises:
        UserError: for every mistake in file, settings, data or folder.
        AlreadyRun: where the logbook has all seeds and `again` is not given.
        Interrupted: after Ctrl-C; the same call goes on where it was.
    """
    name, experiment, page, _ = request = request_of(experiment, settings, seeds, epochs)
    task, setup, dataset = data_read(experiment, listener := listener or listener_here())
    folder = None if logbook is None or not processes.leads() else Path(logbook) / name
    facts = machine_facts() | devices.facts(experiment.devices) | {"data": dataset.fingerprint}
    known = {} if folder is None or again else resuming.finished(folder, experiment, facts["data"])
    if folder is not None and len(known) == len(experiment.seeds):
        raise already_run(request, known, task, folder)
    todo = tuple(seed for seed in experiment.seeds if seed not in known)
    together = resuming.neighbours(experiment, todo, known.values(), page)
    facts["together"] = " ".join(map(str, together))
    began = time.perf_counter()
    with ExitStack() as stack:
        writers: dict[int, Writer] = {}
        if folder is not None:
            page_of = partial(Writer, folder, name, experiment, facts=facts, again=again)
            writers = {seed: stack.enter_context(page_of(seed)) for seed in todo}
        listener.begins(experiment, todo, setup.steps_per_epoch, note_on_known(known, writers))
        stack.callback(listener.ends)
        try:
            records, states = train_seeds(task, setup, together, writers, listener)
        except Interrupted as interrupted:
            interrupted.page = next((writer.path for writer in writers.values()), None)
            raise
        seconds = time.perf_counter() - began
        ordered = tuple(records.get(s) or record_of(known[s]) for s in experiment.seeds)
        verdict = verdict_of(request, ordered)
        keep_networks(together, writers if keep else {}, states, dataset)
        for seed, writer in writers.items():
            writer.conclude(facts_at_end(records[seed], verdict, seconds))
    return Run(name, experiment, ordered, verdict, task, together, *train.networks(states), seconds)


def data_read(experiment: Experiment, listener: Listener) -> tuple[Task, Setup, Dataset]:
    """The task of an experiment whose measures are known, after the listener has heard of its data.

    Raises:
        UserError: for every mistake in data, parts and measures, and for what another process of
            the run has otherwise.
    """
    task, setup, dataset = from_experiment(experiment)
    processes.refuse_differences(
        data=dataset.fingerprint, experiment=experiment.canonical, seeds=str(experiment.seeds)
    )
    listener.reads(dataset)
    warn_of_modes(task.functions)
    check_measures(experiment, task)
    return task, setup, dataset


class Request(NamedTuple):
    """What is to be run, and where it comes from."""

    name: str
    experiment: Experiment
    page: Page | None  # where the experiment is that of a page
    folder: Path | None  # of its file


def request_of(
    experiment: Experiment | str | Path,
    settings: Mapping[str, Any] | None,
    seeds: Sequence[int] | None,
    epochs: int | None,
) -> Request:
    """The experiment of a file, a page or an object, with some keys changed as `run` says.

    Raises:
        UserError: for every mistake in a file or in the changes, and for a sweep.
    """
    changes = dict(settings or {})
    changes |= {"seeds": list(seeds)} if seeds is not None else {}
    changes |= {"epochs": epochs} if epochs is not None else {}
    if isinstance(experiment, Experiment):
        changed = experiment.replaced(changes) if changes else experiment
        request = Request("unnamed", changed, None, None)
    else:
        path = located(experiment)
        text = read_text(path)
        page = page_in(path, text)
        experiment = read(path, changes, text)
        if isinstance(page, Page):
            request = Request(page.name, experiment, page, None)
        else:
            request = Request(path.stem, experiment, None, path.parent)
    refuse_name(Path(request.name), request.name)
    if request.experiment.sweep is not None:
        name = request.name
        raise UserError(f"{name} is a sweep of many experiments: nnref sweep {name}")
    return request


def verdict_of(request: Request, records: Sequence[Record]) -> Verdict:
    """The verdict over the records of all seeds; a twin that a claim names is trained for it."""

    def twin(name: str) -> dict[str, np.ndarray]:
        folders = [request.folder] if request.folder else experiments_folders()
        paths = [folder / f"{name}.json" for folder in folders]
        path = next((path for path in paths if path.is_file()), paths[0])
        return run(path, seeds=request.experiment.seeds, logbook=None).history

    return judge(request.experiment, records, twin)


def already_run(request: Request, known: dict[int, Page], task: Task, folder: Path) -> AlreadyRun:
    """The error that says how a run ended whose pages are all known, by seed."""
    name, experiment = request.name, request.experiment
    records = tuple(record_of(known[seed]) for seed in experiment.seeds)
    past = Run(name, experiment, records, verdict_of(request, records), task)
    started = known[experiment.seeds[0]].facts["started"]
    outcome = f"{name} ({experiment.identity}) was run before, on {started}: "
    return AlreadyRun(past, outcome + past.verdict.sentence, folder)


@usual_settings()
def resume(path: str | Path, listener: Listener | None = None) -> Run:
    """Go on with the run of a page in its logbook, and of the seeds that were trained with it.

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
    """The structure of an experiment's runs: the keys that a plan has by the same names."""
    return train.Plan(*(getattr(experiment, name) for name in train.Plan._fields))


def train_seeds(
    task: Task,
    setup: Setup,
    seeds: Sequence[int],
    writers: Mapping[int, Writer],
    listener: Listener,
) -> tuple[dict[int, Record], train.TrainState]:
    """Train some seeds together; their pages grow, and the listener hears, chunk by chunk.

    Raises:
        Interrupted: after Ctrl-C, a checkpoint having been written where there are pages.
    """
    experiment, plan = setup.experiment, plan_of(setup.experiment)
    page = next((writer.path for writer in writers.values()), None)
    place = None if page is None else resuming.checkpoint_folder(experiment, seeds, page)
    data = resuming.data_of(writers)
    resume, chunks = resuming.begun(place, setup, plan, seeds, task, writers)
    states: Any = None
    if resume is not None:
        states = resume[1] if task.stored is None else resume[1].states
    layers = LayerMeasures(setup, plan, task, writers, chunks)
    fit: Callable[..., Iterator[loop.Chunk]] = loop.fit if task.stored is None else stream.fit
    began = saved = time.monotonic()
    with one_interrupt_waits() as interrupted:
        for chunk in fit(setup, plan, experiment.hyperparameters, seeds, task, resume):
            states = chunk.states
            chunks.append(chunk._replace(states=None, position=None, probes={}))
            for run, seed in enumerate(seeds):
                if seed in writers and chunk.active[:, run].any():
                    history, _ = history_of([chunk], run)
                    writers[seed].rows(chunk.first, history)
                    layers.add(seed, run, chunk)
            listener.hears(chunk)
            due = processes.agreed(time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS)
            pressed = processes.anywhere(interrupted())
            if due or pressed:
                layers.write()
                resuming.save_checkpoint(place, chunk, data)
                saved = time.monotonic()
            if pressed:
                processes.agreed(True)  # process 0 has written
                raise Interrupted
    states = devices.whole(states)
    layers.write()
    if place is not None and time.monotonic() - began > SECONDS_WORTH_KEEPING:
        checkpoint.save(place, sum(len(chunk.active) for chunk in chunks) - 1, states, data)
    test = {}
    if any(claim.metric.startswith("test_") for claim in experiment.claim):
        test = test_measures(setup, plan, experiment.hyperparameters, states, task)
    records, known = {}, (plan, setup.steps_per_epoch, setup.metrics())
    for run, seed in enumerate(seeds):
        ours = {name: float(values[run]) for name, values in test.items()}
        page = writers[seed].path if seed in writers else None
        records[seed] = trained_record(*known, seed, *history_of(chunks, run), ours, page)
    return records, states


def trained_record(
    plan: train.Plan,
    steps_per_epoch: int,
    metrics: Mapping[str, Metric],
    seed: int,
    history: dict[str, np.ndarray],
    bad_step: int,
    test: dict[str, float],
    page: Path | None = None,
) -> Record:
    """The record of a run that was trained: its history, how it ended, and what it has kept."""
    words = ending(plan, steps_per_epoch, len(next(iter(history.values()))) - 1, bad_step)
    kept = best_epoch(plan, history, metrics) if train.keeps_best(plan) else None
    return Record(seed, history, words, test, page, kept)


class LayerMeasures:
    """The measures of the layers of some seeds, gathered while the seeds are trained."""

    def __init__(
        self,
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
        hyperparameters = tuple(setup.experiment.hyperparameters.items())
        self.layers = probing.measured_layers(setup, hyperparameters, batch)
        done = sum(len(chunk.active) for chunk in before) - 1
        for seed, writer in writers.items() if before else ():
            table = probe_table(writer.path)
            if table is not None:
                self.tables[seed] = [table[table["step"] < done * self.steps_per_epoch]]

    def add(self, seed: int, run: int, chunk: loop.Chunk) -> None:
        """Keep what a chunk has measured of one of its runs, up to the end of the run."""
        if chunk.probes:
            epochs = int(np.count_nonzero(chunk.active[:, run]))
            at = chunk.probes["at"]
            at = at[at < chunk.first + epochs]
            measures = [chunk.probes["epoch"][: len(at), run]]
            measures += [chunk.probes["step"][:epochs, run]] if "step" in chunk.probes else []
            place = chunk.first, self.steps_per_epoch
            self.tables[seed].append(probes.table(self.layers, *place, at, *measures))

    def write(self) -> None:
        """Write the measures of each seed beside its page."""
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


def ending(plan: train.Plan, steps_per_epoch: int, epoch: int, bad_step: int) -> str:
    """Why a seed ended before its last epoch, in words; empty where it did not."""
    if bad_step:
        step = (epoch - 1) * steps_per_epoch + bad_step
        return f"diverged at epoch {epoch}, step {step}: the training loss was not finite"
    if (stop := plan.stop) is None or epoch == plan.epochs:
        return ""
    reasons = []
    if stop.at_least is not None or stop.at_most is not None:
        reasons.append(str(stop))
    if stop.patience is not None:
        reasons.append(f"no better {stop.metric} in {stop.patience} evaluations")
    return f"stopped at epoch {epoch}: {' or '.join(reasons)}"


@usual_settings()
def trained(path: str | Path, listener: Listener | None = None, again: bool = True) -> Trained:
    """The network of a page: as training left it, or trained again, bit for bit.

    Raises:
        UserError: for a page of a run that has not ended, or whose data have changed since; and
            for a network that was not kept, where nothing may be trained `again`.
    """
    page = page_at(Path(path))
    if page is None or not page.complete:
        raise UserError(f"{path}: not the page of a run that has ended; give one of a logbook")
    experiment = page.experiment.replaced({"seeds": list(page.together)})
    task, setup, dataset = from_experiment(experiment)
    if page.facts["data"] != dataset.fingerprint:
        raise UserError(f"{path}: its data have changed since; run the experiment again")
    kept = kept_network(page.path, task.functions)
    if kept is not None:
        return Trained(page, experiment, task, setup, dataset, *kept)
    seeds, plan = experiment.seeds, plan_of(experiment)
    like = resuming.states_like(setup, plan, seeds, task)
    folder = resuming.checkpoint_folder(experiment, seeds, page.path)
    data = page.facts["data"]
    restored = checkpoint.restore(folder, like, data) if folder.is_dir() else None
    if restored is not None and restored[0] >= page.epochs:
        states = restored[1]
    elif not again:
        raise UserError(f"the network was not kept; to train it again: nnref run {path} --again")
    else:
        listener = listener or listener_here()
        note = "the network was not kept; it is trained again"
        listener.begins(experiment, seeds, setup.steps_per_epoch, note)
        try:
            _, states = train_seeds(task, setup, seeds, {}, listener)
        finally:
            listener.ends()
    params, model_state = jax.tree.map(
        lambda leaf: leaf[seeds.index(page.seed)], train.networks(states)
    )
    return Trained(page, experiment, task, setup, dataset, params, model_state)


@usual_settings()
def load(page: str | Path) -> LoadedNetwork:
    """The trained network of a page, to be called with rows.

    Of a table its columns are kept beside the page, so that its file need not be there any more.

    Raises:
        UserError: for a page of a run that has not ended, or whose data have changed since.
    """
    known = page_at(Path(page))
    if known is not None and known.complete:
        kept = kept_columns(known.path, known.experiment)
        functions = kept and functions_of(kept[0], tuple(known.experiment.hyperparameters.items()))
        network = functions and kept_network(known.path, functions)
        if kept and network:
            return LoadedNetwork(*kept, *network)
    network = trained(page)
    return LoadedNetwork(network.setup, network.dataset, network.params, network.model_state)


# --- measures ----------------------------------------------------------------------------------


def measures_of(task: Task) -> list[str]:
    """The measures that a run of a task has."""
    splits = [name for name in ("train", "valid", "test") if getattr(task, name) is not None]
    scalars = [name for name, metric in task.functions.metrics.items() if metric.scalar]
    return [f"{split}_{name}" for split in splits for name in ("loss", *scalars)] + ["epochs"]


def check_measures(experiment: Experiment, task: Task) -> None:
    """Refuse a claim or a stop about a measure that the run will not have."""
    known = measures_of(task)
    watched = [(f"claim.{i}", claim.metric, known) for i, claim in enumerate(experiment.claim)]
    if experiment.stop is not None:
        # Test data are looked at once, at the end.
        seen = [name for name in known if not name.startswith(("test_", "epochs"))]
        watched.append(("stop", experiment.stop.metric, seen))
    for path, metric, allowed in watched:
        refuse_unknown(f"{path}.metric", metric, allowed)


def refuse_unknown(path: str, name: str, allowed: Iterable[str]) -> None:
    """Refuse the name at a path of the file unless it is allowed; list the allowed ones."""
    allowed = list(allowed)
    if name not in allowed:
        raise UserError(
            f'{path}: "{name}" given; allowed: {", ".join(allowed)}{nearest(name, allowed)}'
        )


def test_measures(
    setup: train.Builder, plan: train.Plan, hyperparameters: Any, states: Any, task: Task
) -> dict[str, np.ndarray]:
    """The measures of the networks of some runs on the test data, measure -> (runs,)."""
    assert task.test is not None, "measures of test data are refused where there are none"
    setup = devices.spread(setup, plan)
    measured = loop.evaluate_runs(setup, plan.batch_size, hyperparameters, states, (*task.test,))
    return {f"test_{name}": np.asarray(values) for name, values in measured.items()}


def facts_at_end(record: Record, verdict: Verdict, seconds: float) -> dict[str, str]:
    """The last lines of a page, the verdict at the very end."""
    name = watched_loss(record)
    facts = {"ended": f"{now()}, after {seconds:.3g} s"}
    facts |= {name: f"{value:.9g}" for name, value in record.test.items()}
    facts |= {"ending": record.ending} if record.ending else {}
    facts |= {"kept": str(record.kept)} if record.kept is not None else {}
    facts |= {"all_seeds": verdict.sentence}
    outcome = f"{name} {record.final(name):.6g} after {record.epochs} epochs"
    outcome += f", best {record.best(name):.6g}"
    return facts | {"verdict": record.ending or outcome}
