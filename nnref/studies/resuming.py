"""Resuming: what a run that was cut short left behind, and where it goes on."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.logbook.pages import Page, page_at, page_paths
from nnref.logbook.verdicts import Record, seeds_in_words
from nnref.logbook.writer import Writer
from nnref.training import checkpoint, devices, loop, processes, stream, train
from nnref.training.setup import Setup
from nnref.training.task import Task

STREAM = "stream"  # folder of the positions inside an epoch, in the folder of the checkpoints


class AlreadyRun(UserError):
    """The logbook has this run or this sweep already: `result` is what the logbook has."""

    def __init__(self, result: Any, outcome: str, place: Path):
        self.result = result
        pages, those = ("pages", "those pages") if place.is_dir() else ("page", "that page")
        super().__init__(
            f"{outcome}\n{pages}: {place}\n"
            f"to run it anew and keep {those}: --again (from Python: again=True)"
        )


def checkpoint_folder(experiment: Experiment, seeds: Sequence[int], page: Path) -> Path:
    """The folder of the checkpoints of some seeds trained together, beside a page of them.

    A run made again, on a page with a number, has its own: another process may be at the first.
    """
    group = hashlib.sha256(repr(tuple(seeds)).encode()).hexdigest()[:6]
    number = page.stem.partition("-seed")[2].partition("-")[2]
    return (
        page.parent / "checkpoints" / "-".join(filter(None, (experiment.identity, group, number)))
    )


def neighbours(
    experiment: Experiment, todo: tuple[int, ...], pages: Iterable[Page], own: Page | None
) -> tuple[int, ...]:
    """The seeds to train together, so that some are trained as they were before.

    XLA rounds differently for another number of runs: what pages were trained with is repeated,
    as long as it holds all that is `todo` and no seed that the experiment does not have; and that
    of its `own` page, where an experiment is that of a page.
    """
    seeds = set(experiment.seeds)
    before = (page.together for page in pages)
    together = next((known for known in before if set(todo) <= set(known) <= seeds), todo)
    if own is not None and own.experiment.seeds == experiment.seeds:
        together = own.together
    return tuple(processes.agreed(together))


def resumed(
    place: Path | None,
    setup: Setup,
    plan: train.Plan,
    seeds: Sequence[int],
    task: Task,
    writers: Mapping[int, Writer],
) -> tuple[int, Any] | None:
    """The epoch and the states to go on from, where pages and a checkpoint agree; else None.

    Where the data are streamed, it is the epoch and the position in the next one. Without a
    checkpoint the run is repeated from its start and compared with its pages.
    """
    pages = [writers[seed].written if seed in writers else None for seed in seeds]
    if place is None or not place.is_dir() or any(page is None for page in pages):
        return None
    place = place if task.stored is None else place / STREAM
    like = like_of(setup, plan, seeds, task)
    restored = checkpoint.restore(place, like, data_of(writers), stream.NEWER)
    if restored is None or restored[0] > min(page.epochs for page in pages if page):
        return None
    # The page of a seed that had ended does not say at which step; the repetition finds it again.
    states = restored[1] if task.stored is None else restored[1].states
    return restored if np.asarray(states.running).all() else None


def begun(
    place: Path | None,
    setup: Setup,
    plan: train.Plan,
    seeds: Sequence[int],
    task: Task,
    writers: Mapping[int, Writer],
) -> tuple[tuple[int, Any] | None, list[loop.Chunk]]:
    """What `resumed` gives, and the history up to there, in every process of a run."""
    resume = resumed(place, setup, plan, seeds, task, writers)
    past = None
    if resume is not None:
        past = chunk_from_pages(resume[0], seeds, writers)
    if processes.HERE is None:
        return resume, [past] if past else []
    listed = past and {name: values.tolist() for name, values in past.history.items()}
    epoch, history = processes.agreed([past and resume and resume[0], listed])
    if history is None:
        return None, []
    state = devices.from_first(resume and resume[1], lambda: like_of(setup, plan, seeds, task))
    arrays = {name: np.array(values, np.float32) for name, values in history.items()}
    return (epoch, state), [chunk_of(epoch, len(seeds), arrays)]


def like_of(setup: Setup, plan: train.Plan, seeds: Sequence[int], task: Task) -> Any:
    """The shapes of what a checkpoint holds: of the states or, in a stream, of the position."""
    if task.stored is None:
        return states_like(setup, plan, seeds, task)
    return stream.like(setup, plan, setup.experiment.hyperparameters, seeds, task)[0]


def states_like(
    setup: Setup, plan: train.Plan, seeds: Sequence[int], task: Task
) -> train.TrainState:
    """The shapes and types of the states of some seeds that are trained together."""
    start = partial(loop.start_runs, setup, plan, setup.experiment.hyperparameters)
    return jax.eval_shape(start, np.asarray(seeds, np.uint32), task.arrays)[0]


def save_checkpoint(place: Path | None, chunk: loop.Chunk, data: str) -> None:
    """Keep the states after a chunk or, where data are streamed, the position in the stream.

    All processes of a run call it, and the one that has a place writes.
    """
    if place is None and processes.HERE is None:
        return
    state = devices.whole(chunk.states if chunk.position is None else chunk.position())
    if place is not None:
        epoch = chunk.first + len(chunk.active) - 1
        checkpoint.save(place if chunk.position is None else place / STREAM, epoch, state, data)


def data_of(writers: Mapping[int, Writer]) -> str:
    """The fingerprint of the data that runs are trained on, as their pages say it."""
    return next((writer.conditions.get("data", "") for writer in writers.values()), "")


# --- histories out of chunks and pages ----------------------------------------------------------


def history_of(chunks: Sequence[loop.Chunk], run: int) -> tuple[dict[str, np.ndarray], int]:
    """The history of one run up to its end, measure -> (epochs,), and the bad step at its end.

    The bad step is the first one of the last epoch with a non-finite loss, or 0.
    """
    rows = sum(int(np.count_nonzero(chunk.active[:, run])) for chunk in chunks)
    history = {
        name: np.concatenate([chunk.history[name][:, run] for chunk in chunks])[:rows]
        for name in chunks[0].history
    }
    bad_steps = np.concatenate([chunk.bad_step[:, run] for chunk in chunks])
    return history, int(bad_steps[rows - 1])


def chunk_from_pages(epoch: int, seeds: Sequence[int], writers: Mapping[int, Writer]) -> loop.Chunk:
    """The history up to an epoch, as the pages have it."""
    pages = [page for seed in seeds if (page := writers[seed].written) is not None]
    history = {
        name: np.stack([page.history[name][: epoch + 1] for page in pages], axis=1)
        for name in pages[0].history
    }
    return chunk_of(epoch, len(seeds), history)


def chunk_of(epoch: int, runs: int, history: dict[str, np.ndarray]) -> loop.Chunk:
    """The chunk of the epochs up to one that all runs have reached."""
    active = np.ones((epoch + 1, runs), bool)
    return loop.Chunk(0, history, active, np.zeros(active.shape, int), None)


def finished(folder: Path, experiment: Experiment, fingerprint: str) -> dict[int, Page]:
    """The last complete page of each seed that was run before on the same data."""
    known = {}
    for seed in experiment.seeds:
        for path in page_paths(folder, experiment.identity, seed):
            page = page_at(path)
            if page is not None and page.complete and page.facts.get("data") == fingerprint:
                known[seed] = page
    return known


def record_of(page: Page) -> Record:
    """The record of a seed, from its page."""
    test = {k: float(v) for k, v in page.facts.items() if k.startswith("test_")}
    kept = int(page.facts["kept"]) if "kept" in page.facts else None
    return Record(page.seed, page.history, page.facts.get("ending", ""), test, page.path, kept)


def note_on_known(known: Mapping[int, Page], writers: Mapping[int, Writer]) -> str:
    """Which seeds are not trained from their start, in a sentence; empty where all of them are."""
    sentences = []
    if known:
        dates = sorted(page.facts["started"] for page in known.values())
        sentences.append(
            f"{seeds_in_words(list(known))} ran before ({dates[0]}) and is read from its page"
        )
    continued = [s for s, writer in writers.items() if writer.written is not None]
    if continued:
        sentences.append(f"{seeds_in_words(continued)} was cut short before: its page goes on")
    return "; ".join(sentences)
