"""The loop: many epochs of many runs as one XLA program, and the thin host loop around it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.training import probes
from nnref.training.compilation import TINY, tiny_options
from nnref.training.task import Task
from nnref.training.train import (
    Array,
    Builder,
    Hyperparameters,
    Plan,
    TrainState,
    Tree,
    called_layers,
    evaluate,
    gradient,
    networks,
    one_epoch,
    restart,
    start,
    when,
)


def probe(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    state: TrainState,
    data: Mapping[str, Any],
    epoch: Array,
) -> Array:
    """Measures of each layer before an epoch, on a batch that is always the same.

    Nothing of it reaches the state.

    Returns:
        (MEASURES, layers); without those of a step where every step is measured.
    """
    functions, optimizer = setup(hyperparameters)
    x, y = data["probe"]
    params = state.params
    begun = state._replace(model_state=restart(functions, params, state.model_state))
    calls = {} if functions.layers is None else functions.layers(params, begun.model_state, x)
    shares = probes.of_outputs(params, calls)
    if plan.probes == "step":
        return shares
    key = jax.random.fold_in(jax.random.fold_in(state.key, epoch), 0)  # steps count from 1
    grads, _ = gradient(functions, begun, x, y, key)
    updates, _ = optimizer.update(grads, state.opt_state, params)
    return jnp.concatenate([probes.of_step(params, grads, updates, list(calls)), shares])


def probe_every(plan: Plan, rows: int) -> int:
    """Epochs from one measurement of the layers to the next."""
    return probes.stride(plan.epochs, -(-rows // plan.batch_size))


@lru_cache(maxsize=64)
def measured_layers(
    setup: Builder, hyperparameters: tuple[tuple[str, float], ...], x: Any
) -> list[str]:
    """The names of the layers that are measured, in the order of the measures.

    Args:
        setup: builds functions.
        hyperparameters: hyperparameters, as they are hashed.
        x: a batch, or a `jax.ShapeDtypeStruct` of it.
    """
    functions, _ = setup(dict(hyperparameters))
    params, model_state = jax.eval_shape(functions.init, jax.random.key(0))
    return probes.layer_names(params, called_layers(functions, params, model_state, x))


@partial(jax.jit, static_argnames=("setup", "plan"))
def start_runs(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    seeds: Array,
    data: Mapping[str, Any],
) -> tuple[TrainState, dict[str, Any]]:
    """`start` for many runs at once; every leaf of the results has the runs as leading axis."""
    of_runs = jax.vmap(partial(start, setup, plan), in_axes=(by_run(hyperparameters), 0, None))
    return of_runs(dict(hyperparameters), seeds, data)


def by_run(hyperparameters: Hyperparameters) -> dict[str, int | None]:
    """The axis of the runs in each number; None where one number serves all of them."""
    return {name: 0 if np.ndim(number) else None for name, number in hyperparameters.items()}


def chunk_of_epochs(
    setup: Builder,
    plan: Plan,
    capacity: int,
    hyperparameters: Hyperparameters,
    states: TrainState,
    data: Mapping[str, Any],
    first: Array,
    count: Array,
) -> tuple[TrainState, dict[str, Any], Array]:
    """Some epochs of some runs, as one program that serves any number of epochs.

    Args:
        setup: builds functions and optimizer.
        plan: the structure of the run.
        capacity: the most epochs that one call can record.
        hyperparameters: hyperparameters, traced; scalars, or (runs,).
        states: of the runs, given away.
        data: `{"train": (x, y), "valid": (x, y)}` on the device.
        first: number of the first epoch, from 1.
        count: epochs to train, at most `capacity`.

    Returns:
        States, history `{measure: (capacity, runs)}`, in it "probes" where layers are measured:
        "epoch", what `probe` gives whenever it is due, (times, runs, MEASURES, layers), and "step",
        (capacity, runs, steps, OF_STEP, layers); and the epochs trained: fewer than `count` where
        every run has stopped before.
    """
    runs = len(states.running)
    if runs == 1:  # XLA is slower with an axis of length 1 than without
        states = jax.tree.map(lambda leaf: leaf[0], states)
        hyperparameters = {n: v[0] if np.ndim(v) else v for n, v in hyperparameters.items()}
    for_runs = partial(for_all_runs, setup, plan, hyperparameters, runs)
    names, blanks, epochs_until = epoch_loop(for_runs(one_epoch), capacity, states, data, first)
    carry, measures = (jnp.int32(0), states, blanks), {}
    if plan.probes == "off":
        done, states, (history, _) = epochs_until(count, carry)
    else:
        every = probe_every(plan, len(data["train"][0]))
        carry, times = epochs_between_probes(
            for_runs(probe), every, capacity, epochs_until, carry, data, first, count
        )
        done, states, (history, of_steps) = carry
        measures = {"epoch": times} | ({"step": of_steps} if plan.probes == "step" else {})
    if runs == 1:
        states, history = jax.tree.map(lambda leaf: leaf[None], states), history[..., None]
        measures = jax.tree.map(lambda leaf: leaf[:, None], measures)
    named: dict[str, Any] = {name: history[:, place] for place, name in enumerate(names)}
    return states, named | {"probes": measures}, done


def for_all_runs(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    runs: int,
    function: Callable[..., Any],
) -> Callable[..., Any]:
    """`function(states, data, epoch)` of all runs, of which a single one has no axis of its own.

    It is traced once, although it is called for its shapes as well as in the loop.
    """
    of_runs = partial(function, setup, plan)
    if runs > 1:
        of_runs = jax.vmap(of_runs, in_axes=(by_run(hyperparameters), 0, None, None))
    return partial(jax.jit(of_runs, inline=True), dict(hyperparameters))


def epoch_loop(
    epoch_of_runs: Callable[..., Any], capacity: int, states: TrainState, data: Any, first: Array
) -> tuple[list[str], Tree, Callable[[Array, Any], Any]]:
    """The loop over epochs that writes the measures of each into arrays.

    Returns:
        The names of the measures; the arrays to write them into, (capacity, measures, runs), and
        those for the measures of the layers; and `epochs_until(end, carry)`, which trains until so
        many epochs are done, or every run has stopped. The carry is the number of epochs done, the
        states and the arrays.
    """
    _, rows = jax.eval_shape(epoch_of_runs, states, data, first)
    of_steps = rows.pop("probes", ())
    blank = jnp.zeros((capacity, len(rows), *states.running.shape))
    blanks = blank, jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape)), of_steps)

    def body(carry: tuple[Array, TrainState, Tree]) -> Any:
        done, states, written = carry
        states, row = epoch_of_runs(states, data, first + done)
        line = jnp.stack([row[name].astype(blank.dtype) for name in rows])
        lines = line, row.get("probes", ())
        return done + 1, states, jax.tree.map(lambda w, new: w.at[done].set(new), written, lines)

    def epochs_until(end: Array, carry: tuple[Array, TrainState, Tree]) -> Any:
        return jax.lax.while_loop(lambda c: (c[0] < end) & jnp.any(c[1].running), body, carry)

    return list(rows), blanks, epochs_until


def epochs_between_probes(
    measure: Callable[..., Array],
    every: int,
    capacity: int,
    epochs_until: Callable[[Array, Any], Any],
    carry: tuple[Array, TrainState, Tree],
    data: Any,
    first: Array,
    count: Array,
) -> tuple[Any, Array]:
    """Epochs with a measurement of the layers before every so many of them.

    Args:
        measure: `probe` of all runs.
        every: epochs from one measurement to the next, counted from the first of the run.
        capacity: the most epochs that can be recorded.
        epochs_until: see `epoch_loop`.
        carry: of `epochs_until`, before the first epoch.
        data: on the device.
        first: number of the first epoch, from 1.
        count: epochs to train.

    Returns:
        The last carry, and what was measured, (times, ...).
    """
    _, states, _ = carry
    figures = jax.eval_shape(measure, states, data, first)
    times = jnp.zeros((1 + (capacity - 1) // every, *figures.shape))

    def measured(carry: tuple[Any, Array]) -> Any:
        """A measurement, if one is due, and the epochs up to the next."""
        (done, states, written), times = carry
        before = first + done - 1  # epochs
        due = before % every == 0
        place = before // every - (first - 1 + every - 1) // every
        figures = when(due, lambda: measure(states, data, first + done))
        times = times.at[jnp.where(due, place, len(times))].set(figures, mode="drop")
        end = jnp.minimum(count, (before // every + 1) * every - (first - 1))
        return epochs_until(end, (done, states, written)), times

    def unfinished(carry: tuple[Any, Array]) -> Array:
        (done, states, _), _ = carry
        return (done < count) & jnp.any(states.running)

    return jax.lax.while_loop(unfinished, measured, (carry, times))


def is_tiny(*trees: Tree) -> bool:
    """Whether arrays are so small that the loop over them is compiled as one function."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) <= TINY


@cache
def chunk_program(tiny: bool) -> Any:
    """`chunk_of_epochs` as a program, which JAX compiles once for each structure."""
    return jax.jit(
        chunk_of_epochs,
        static_argnames=("setup", "plan", "capacity"),
        donate_argnames=("states",),
        compiler_options=tiny_options() if tiny else None,
    )


def train_chunk(
    setup: Builder,
    plan: Plan,
    capacity: int,
    hyperparameters: Hyperparameters,
    states: TrainState,
    data: Any,
    *span,
) -> tuple[TrainState, dict[str, Array], Array]:
    """`chunk_of_epochs`, compiled for little memory or for much."""
    return chunk_program(is_tiny(states, data))(
        setup, plan, capacity, hyperparameters, states, data, *span
    )


@partial(jax.jit, static_argnames=("setup", "batch_size"))
def evaluate_runs(
    setup: Builder, batch_size: int, hyperparameters: Hyperparameters, states: TrainState, data: Any
) -> dict[str, Array]:
    """`evaluate` for many runs at once: `{measure: (runs,)}`, without a prefix."""

    def one(hyperparameters: Hyperparameters, network: tuple[Tree, Tree]) -> dict[str, Array]:
        return evaluate(setup(hyperparameters)[0], *network, data, "", batch_size)

    of_runs = jax.vmap(one, in_axes=(by_run(hyperparameters), 0))
    measured = of_runs(dict(hyperparameters), networks(states))
    return {name.lstrip("_"): values for name, values in measured.items()}


class Chunk(NamedTuple):
    """What the host hears: some epochs of all runs."""

    first: int  # number of the first epoch; 0 is the state before the first step
    history: dict[str, np.ndarray]  # measure -> (epochs, runs) float32, NaN where not measured
    active: np.ndarray  # (epochs, runs), False after the end of a run, whose rows mean nothing
    bad_step: np.ndarray  # (epochs, runs), first step of the epoch with a non-finite loss, or 0
    states: Any  # TrainState after these epochs, on the device until the next chunk is asked for
    probes: Mapping[str, np.ndarray] = {}  # "epoch" and "step" as the program gives them, "at": the
    #                                        number of the epoch before which each "epoch" was taken
    share: float = 0.0  # of the next epoch that is done, where data are streamed
    position: Callable[[], Any] | None = None  # of a stream, to go on from; as long as the states


SECONDS_PER_CHUNK = 0.2
ROWS_BEFORE_TIMING = 512  # rows to train on before an epoch is timed to choose a chunk's length
CAPACITY = 4096  # epochs that a chunk can record
PROBED_STEPS = 2**16  # steps whose measures of the layers a chunk can record


def fit(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    seeds: Sequence[int],
    task: Task,
    resume: tuple[int, TrainState] | None = None,
    until: int | None = None,
) -> Iterator[Chunk]:
    """Train runs that differ in their seed, or in hyperparameters, a chunk of epochs at a time.

    Args:
        setup: builds functions and optimizer; equal setups share a compiled program.
        plan: the structure of the runs.
        hyperparameters: may change without another program; scalars, or (runs,).
        seeds: one run for each, all in one program.
        task: its arrays are put on the device; its functions come from `setup`.
        resume: last finished epoch and the states after it, to go on from there.
        until: epoch to end with, if not the plan's last; the rest may be resumed.

    Yields:
        A chunk about every 0.2 s, first the state before training. How many epochs a chunk has
        depends on the clock; what they compute does not.
    """
    assert task.stored is None, "what is stored comes through stream.fit"
    data = jax.device_put(task.arrays | probe_data(plan, task))
    done, states = resume or (0, None)
    if states is None:
        states, row = start_runs(setup, plan, hyperparameters, np.asarray(seeds, np.uint32), data)
        yield on_host(0, {name: np.asarray(value)[None] for name, value in row.items()}, states)
    end = plan.epochs if until is None else until
    capacity = min(plan.epochs, CAPACITY)
    if plan.probes == "step":
        capacity = max(1, min(capacity, PROBED_STEPS // -(-len(task.train.x) // plan.batch_size)))
    program = partial(train_chunk, setup, plan, capacity, hyperparameters)
    every = probe_every(plan, len(task.train.x))
    # The first chunk is timed to choose the length of the next; one epoch of a handful of rows
    # would be too short to be timed.
    count = min(1 + ROWS_BEFORE_TIMING // len(task.train.x), capacity, end - done)
    while done < end:
        began = time.perf_counter()
        states, history, trained = program(states, data, np.int32(done + 1), np.int32(count))
        trained = int(trained)
        elapsed = time.perf_counter() - began
        if trained:
            measures = jax.tree.map(np.asarray, history.pop("probes"))
            rows = {name: np.asarray(value)[:trained] for name, value in history.items()}
            chunk = on_host(done + 1, rows, states)
            yield chunk._replace(probes=trained_epochs(measures, done + 1, done + trained, every))
        done += trained
        # A further call would give away the states of runs that have all stopped.
        if trained < count or not np.asarray(states.running).any():
            return
        rate = int(SECONDS_PER_CHUNK * count / elapsed)
        count = max(1, min(rate, capacity, end - done))


def probe_data(plan: Plan, task: Task) -> dict[str, Any]:
    """The batch that layers are measured on; rows that go on from one another come as they are."""
    if plan.probes == "off":
        return {}
    count = min(plan.batch_size, len(task.train.x))
    goes_on = task.functions.restart is not None
    rows = slice(count) if goes_on else probes.spread_rows(len(task.train.x), count)
    return {"probe": tuple(part[rows] for part in task.train)}


def on_host(first: int, rows: Mapping[str, Any], states: TrainState | None) -> Chunk:
    others = {"active", "bad_step"}
    losses_first = sorted(rows.keys() - others, key=lambda n: ("loss" not in n, n))
    history = {name: rows[name] for name in losses_first}
    active, bad_step = rows["active"] == 1, rows["bad_step"].astype(int)
    return Chunk(first, history, active, bad_step, states)


def trained_epochs(
    measures: Mapping[str, np.ndarray], first: int, last: int, every: int
) -> dict[str, np.ndarray]:
    """Cut the measures of the layers to the epochs that were trained, and number them.

    Args:
        measures: arrays as long as a chunk's capacity, see `chunk_of_epochs`; empty without probes.
        first: number of the first epoch of the chunk, from 1.
        last: number of its last epoch.
        every: epochs from one measurement to the next.
    """
    if not measures:
        return {}
    at = np.arange(first + -(first - 1) % every, last + 1, every)
    steps = {"step": measures["step"][: last + 1 - first]} if "step" in measures else {}
    return {"at": at, "epoch": measures["epoch"][: len(at)]} | steps
