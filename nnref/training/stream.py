"""Stream: training rows that stay on disk, read and prefetched by Grain while the device computes.

What `train` does with arrays on the device, on batches that come from the host: the same order of
rows, the same steps, the same losses. One program covers a group of batches. Several seeds have
each an order of their own, and are trained one after another within each epoch. Where a run stands
inside an epoch is part of what can be saved: it goes on at the exact batch.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data import Split, Stored
from nnref.training import devices, loop, probing, processes, train
from nnref.training.loop import Chunk
from nnref.training.probes import OF_OUTPUTS
from nnref.training.task import Array, Task, Tree
from nnref.training.train import Builder, Hyperparameters, Plan, TrainState

GROUP_BYTES = 2**26  # of the batches that one program covers
GROUP_BATCHES = 32
READERS = 2  # threads of Grain: decoding holds Python's lock most of the time
AHEAD = 16  # batches read ahead


class Position(NamedTuple):
    """Where runs stand inside an epoch, and the sums of its steps so far."""

    states: TrainState  # (runs, ...)
    sums: Tree  # of the steps of this epoch, (runs, steps, ...), zero where they are still to come
    run: np.ndarray  # the run in hand
    batch: np.ndarray  # its batches that are done
    probes: Any = ()  # of the layers before this epoch, (runs, MEASURES, layers), NaN where not
    #                   measured; nothing where no layer is measured


NEWER = (".probes",)  # what a position has that one of an earlier version has not

# --- batches ------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """What this process has read of a batch, or of several stacked, (batches, rows, ...)."""

    x: np.ndarray
    y: np.ndarray
    rows: int  # of the whole batch, of which other processes may read their share


def batches(
    stored: Stored,
    order: np.ndarray,
    batch_size: int,
    first: int = 0,
    own: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
) -> Iterator[Batch]:
    """The batches of an order of rows, from number `first` on, the last one as short as it is.

    Of the rows of each those are read which `own` chooses.
    """
    import grain

    def read(batch: int) -> Batch:
        rows = order[batch * batch_size : (batch + 1) * batch_size]
        return Batch(*stored.read(own(rows)), len(rows))

    source = grain.MapDataset.range(-(-len(order) // batch_size))[first:].map(read)
    options = grain.ReadOptions(num_threads=READERS, prefetch_buffer_size=AHEAD)
    return iter(source.to_iter_dataset(options))


def groups(coming: Iterator[Batch]) -> Iterator[Batch]:
    """Batches of one size stacked, (batches, rows, ...), as many as one program covers."""
    for _, alike in groupby(coming, key=lambda batch: batch.rows):
        held: list[Batch] = []
        for batch in alike:
            held.append(batch)
            size = batch.x.nbytes // len(batch.x) * batch.rows
            if len(held) == min(GROUP_BATCHES, 1 + GROUP_BYTES // size):
                yield stacked(held)
                held = []
        if held:
            yield stacked(held)


def stacked(batches: Sequence[Batch]) -> Batch:
    x, y, rows = zip(*batches, strict=True)
    return Batch(np.stack(x), np.stack(y), rows[0])


def groups_of(
    setup: Builder, stored: Stored, order: np.ndarray, batch_size: int, first: int = 0
) -> Iterator[Split]:
    """The groups of the batches of an order of rows, from batch `first` on, for the devices."""
    own = partial(devices.own_rows, setup)
    for x, y, rows in groups(batches(stored, order, batch_size, first, own)):
        yield Split(*devices.placed_batches(setup, (x, y), rows))


# --- programs -----------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("setup", "plan"), donate_argnames="state")
def train_group(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    state: TrainState,
    epoch: Array,
    number: Array,
    group: Any,
) -> tuple[TrainState, dict[str, Any]]:
    """The steps of a group of batches of one run: its state, and their sums, (batches, ...).

    `number` is that of the first step in the epoch, from 1; the group is x, (batches, rows, ...),
    and y. The state is given away.
    """
    functions, optimizer = setup(hyperparameters)
    begun = train.restart(functions, state.params, state.model_state)
    model_state = jax.tree.map(partial(jnp.where, number == 1), begun, state.model_state)
    key = jax.random.fold_in(state.key, epoch)
    state = state._replace(model_state=model_state)
    measure = None
    if plan.probes == "step":
        measure = train.measure_of_layers(functions, state, group.x[0])

    def step(carry: tuple[TrainState, Array], batch: Any) -> tuple[Any, dict[str, Any]]:
        return train.numbered_step(functions, optimizer, key, carry, batch.x, batch.y, measure)

    (state, _), sums = jax.lax.scan(step, (state, number), group)
    return state, sums


probe_run = jax.jit(probing.probe, static_argnames=("setup", "plan"))


@partial(jax.jit, static_argnames=("setup", "plan"))
def end_epoch(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    state: TrainState,
    sums: dict[str, Any],
    data: Mapping[str, Any],
    epoch: Array,
) -> tuple[TrainState, dict[str, Any]]:
    """What `train.one_epoch` does after the last step of a run."""
    functions, _ = setup(hyperparameters)
    row = train.epoch_measures(functions, sums)
    return train.end_of_epoch(functions, plan, state, row, data, epoch)


@partial(jax.jit, static_argnames="setup")
def evaluate_group(
    setup: Builder, hyperparameters: Hyperparameters, params: Tree, model_state: Tree, group: Any
) -> tuple[Tree, dict[str, Any]]:
    """The sums of a group of batches for all runs, (runs, batches, ...), in evaluation mode."""
    functions, _ = setup(hyperparameters)

    def one(params: Tree, model_state: Tree) -> tuple[Tree, dict[str, Any]]:
        def step(model_state: Tree, batch: Any) -> tuple[Tree, dict[str, Any]]:
            return train.evaluation_step(functions, params, model_state, batch.x, batch.y)

        return jax.lax.scan(step, model_state, group)

    return jax.vmap(one)(params, model_state)


# --- before and between the epochs --------------------------------------------------------------


def begin(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    seeds: Sequence[int],
    task: Task,
    stored: Stored,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """The states before the first step and what they measure, as `train.start_runs` has them."""
    functions = setup(hyperparameters)[0]
    order = np.arange(stored.rows)
    some = stored.read(order[train.adapting_rows(functions, plan, stored.rows)])
    data = devices.placed(setup, task.arrays | {"train": tuple(some)})
    states, row = loop.start_runs(setup, plan, hyperparameters, np.asarray(seeds, np.uint32), data)
    restarted = jax.vmap(partial(train.restart, functions))
    model_state, sums = restarted(states.params, states.model_state), []
    for group in groups_of(setup, stored, order, train.evaluation_batch(functions, plan)):
        model_state, each = evaluate_group(
            setup, hyperparameters, states.params, model_state, group
        )
        sums.append(each)
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *sums)
    row |= jax.vmap(lambda sums: train.measures(functions, sums, "train"))(joined)
    if plan.stop is not None:
        states = states._replace(best=row[plan.stop.metric])
    return states, {name: np.asarray(value)[None] for name, value in row.items()}


def like(
    setup: Builder, plan: Plan, hyperparameters: Hyperparameters, seeds: Sequence[int], task: Task
) -> tuple[Position, list[str]]:
    """The shapes of a position, its sums zero; and the names of the measures of an epoch."""
    assert task.stored is not None, "there is nothing to stream"
    start = partial(train.start, setup, plan, hyperparameters)
    state, _ = jax.eval_shape(start, np.uint32(0), task.arrays)
    runs, steps = len(seeds), -(-task.stored.rows // plan.batch_size)

    def of(leading: int, leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((leading, *leaf.shape), leaf.dtype)

    rows = (1, min(plan.batch_size, task.stored.rows))
    shapes: Any = (jax.ShapeDtypeStruct((*rows, *p.shape[1:]), p.dtype) for p in task.train)
    one = np.int32(1)
    steps_of = partial(train_group, setup, plan)
    _, each = jax.eval_shape(steps_of, hyperparameters, state, one, one, Split(*shapes))
    sums = jax.tree.map(lambda leaf: np.zeros((runs, steps, *leaf.shape[1:]), leaf.dtype), each)
    end = partial(end_epoch, setup, plan, hyperparameters)
    _, row = jax.eval_shape(end, state, each, validation(task), one)
    states = jax.tree.map(partial(of, runs), state)
    names = [name for name in row if name != "probes"]
    zero = np.array(0, np.int32)
    position = Position(states, sums, zero, zero)
    if plan.probes == "off":
        return position, names
    data = probing.probe_data(plan, task)
    figures = jax.eval_shape(partial(probe_run, setup, plan, hyperparameters), state, data, one)
    unknown = np.full((runs, *figures.shape), np.nan, figures.dtype)
    return position._replace(probes=unknown), names


def validation(task: Task) -> dict[str, Any]:
    """What the end of an epoch needs of the data."""
    return {name: arrays for name, arrays in task.arrays.items() if name != "train"}


# --- the loop -----------------------------------------------------------------------------------


class Runs:
    """Runs inside an epoch: their states on the device, and the sums of their steps on the host."""

    def __init__(self, position: Position):
        count = len(position.states.running)
        self.states = [
            jax.tree.map(lambda leaf, r=r: leaf[r], position.states) for r in range(count)
        ]
        self.sums = jax.tree.map(np.array, position.sums)
        self.run, self.batch = int(position.run), int(position.batch)
        self.waiting: list[tuple[int, Tree]] = []  # sums on the device, by their first batch
        self.probes = jax.tree.map(np.array, position.probes)
        self.last_chunk = time.perf_counter()

    def position(self) -> Position:
        """Where the runs stand."""
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.states)
        run, batch = (np.array(number, np.int32) for number in (self.run, self.batch))
        return Position(states, self.sums, run, batch, self.probes)

    def fetch(self) -> None:
        """Copy the sums that wait on the device to their place on the host."""
        for first, each in self.waiting:
            for whole, part in zip(jax.tree.leaves(self.sums), jax.tree.leaves(each), strict=True):
                whole[self.run, first : first + len(part)] = part
        self.waiting.clear()

    def begin_epoch(self, blank: Position) -> None:
        """Stand before the first batch of the next epoch."""
        self.run = 0
        self.sums, self.probes = jax.tree.map(np.array, (blank.sums, blank.probes))

    def layer_measures(self, epoch: int, due: bool) -> dict[str, np.ndarray]:
        """The measures of the layers of an epoch that has ended, as `Chunk.probes` has them."""
        measures = {}
        if due:
            measures = {"at": np.array([epoch]), "epoch": self.probes[None]}
        if "probes" in self.sums:
            shape = 0, len(self.states), len(OF_OUTPUTS), self.sums["probes"].shape[-1]
            none = {"at": np.array([], int), "epoch": np.empty(shape)}
            measures = none | measures | {"step": self.sums["probes"][None]}
        return measures


def epoch_by_shares(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    stored: Stored,
    probe_data: Mapping[str, Any],
    runs: Runs,
    epoch: int,
    due: bool,
) -> Iterator[float]:
    """Train all runs to the end of an epoch; yields about every 0.2 s what share of it is done.

    Where the layers are `due`, they are measured before the first batch of a run.
    """
    steps, count = -(-stored.rows // plan.batch_size), len(runs.states)
    for run in range(runs.run, count):
        runs.run = run
        if not runs.states[run].running:
            continue
        if due and runs.batch == 0:
            before = hyperparameters, runs.states[run], probe_data, np.int32(epoch)
            runs.probes[run] = probe_run(setup, plan, *before)
        key = jax.random.fold_in(runs.states[run].key, epoch)
        order = train.epoch_order(key, stored.rows, plan.batch_size, plan.shuffle)
        for group in groups_of(setup, stored, np.asarray(order), plan.batch_size, runs.batch):
            place = np.int32(epoch), np.int32(runs.batch + 1)
            runs.states[run], sums = train_group(
                setup, plan, hyperparameters, runs.states[run], *place, group
            )
            runs.waiting.append((runs.batch, sums))
            runs.batch += len(group.x)
            late = time.perf_counter() - runs.last_chunk > loop.SECONDS_PER_CHUNK
            if processes.agreed(late):
                runs.fetch()
                yield (run + runs.batch / steps) / count
                runs.last_chunk = time.perf_counter()
        runs.fetch()
        runs.batch = 0


def end_of_runs(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    runs: Runs,
    data: Mapping[str, Any],
    epoch: int,
    names: Sequence[str],
) -> dict[str, np.ndarray]:
    """End an epoch of all runs that still train: `{measure: (1, runs)}`, NaN for the others."""
    rows = []
    for run, state in enumerate(runs.states):
        row = dict.fromkeys(names, np.nan) | {"active": False, "bad_step": 0}
        if state.running:
            sums = jax.tree.map(lambda leaf, run=run: leaf[run], runs.sums)
            runs.states[run], row = end_epoch(
                setup, plan, hyperparameters, state, sums, data, np.int32(epoch)
            )
        rows.append(row)
    return {name: np.array([[row[name] for row in rows]], np.float32) for name in names}


def fit(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    seeds: Sequence[int],
    task: Task,
    resume: tuple[int, Position] | None = None,
) -> Iterator[Chunk]:
    """Train runs that differ in their seed on the `stored` rows of a task; see `loop.fit`.

    It goes on from the last finished epoch and the position in the next one.

    Yields:
        The state before training and each epoch; in between, about every 0.2 s, a chunk without
        epochs and states, whose `share` says how far the next one is. Each has its `position`.
    """
    stored = task.stored
    assert stored is not None, "there is nothing to stream"
    setup = devices.spread(setup, plan)
    blank, names = like(setup, plan, hyperparameters, seeds, task)
    if resume is None:
        states, row = begin(setup, plan, hyperparameters, seeds, task, stored)
        begun = blank._replace(states=states)
        resume = 0, begun
        yield loop.on_host(0, row, states)._replace(position=lambda: begun)
    done, position = resume
    runs = Runs(position._replace(states=devices.placed_states(setup, position.states)))
    data = devices.placed(setup, validation(task))
    probe_data = devices.placed(setup, probing.probe_data(plan, task))
    nothing = {name: np.zeros((0, len(seeds)), np.float32) for name in names}
    every = probing.probe_every(plan, stored.rows)
    train_all = partial(epoch_by_shares, setup, plan, hyperparameters, stored, probe_data, runs)
    for epoch in range(done + 1, plan.epochs + 1):
        due = plan.probes != "off" and (epoch - 1) % every == 0
        shares = train_all(epoch, due)
        for share in shares:
            chunk = loop.on_host(epoch, nothing, None)
            yield chunk._replace(share=share, position=runs.position)
        history = end_of_runs(setup, plan, hyperparameters, runs, data, epoch, names)
        measures = runs.layer_measures(epoch, due)
        runs.begin_epoch(blank)
        chunk = loop.on_host(epoch, history, runs.position().states)
        yield chunk._replace(position=runs.position, probes=measures)
        if not any(state.running for state in runs.states):
            return
