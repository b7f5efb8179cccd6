"""The loop: many epochs of many runs as one XLA program, and the thin host loop around it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.prepare import host_memory
from nnref.errors import UserError
from nnref.training import devices, probing, processes, train
from nnref.training.checkpoint import is_key
from nnref.training.compilation import is_tiny, tiny_options
from nnref.training.task import Array, Task, Tree
from nnref.training.train import Builder, Hyperparameters, Plan, TrainState, one_epoch, start


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
        hyperparameters: traced; scalars, or (runs,).
        states: of the runs, given away.
        data: `{"train": (x, y), "valid": (x, y)}` on the device.
        first: number of the first epoch, from 1.
        count: epochs to train, at most `capacity`.

    Returns:
        States; history `{measure: (capacity, runs)}`, and in it "probes" with "epoch", what `probe`
        gives whenever it is due, (times, runs, MEASURES, layers), and "step", (capacity, runs,
        steps, OF_STEP, layers); the epochs trained, fewer where every run has stopped before.
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
        every = probing.probe_every(plan, len(data["train"][0]))
        carry, times = probing.epochs_between_probes(
            for_runs(probing.probe), every, capacity, epochs_until, carry, data, first, count
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
    """`function(states, data, epoch)` of all runs; a single run has no axis of its own.

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
        The names of the measures; arrays for them, (capacity, measures, runs), and for those of the
        layers; and `epochs_until(end, carry)`, which trains until so many epochs are done, or every
        run has stopped. It carries the number of epochs done, the states and the arrays.
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
    program = chunk_program(is_tiny(states, data))
    return program(setup, plan, capacity, hyperparameters, states, data, *span)


@partial(jax.jit, static_argnames=("setup", "batch_size"))
def evaluate_runs(
    setup: Builder, batch_size: int, hyperparameters: Hyperparameters, states: TrainState, data: Any
) -> dict[str, Array]:
    """`evaluate` for many runs at once: `{measure: (runs,)}`, without a prefix."""

    def one(hyperparameters: Hyperparameters, network: tuple[Tree, Tree]) -> dict[str, Array]:
        return train.evaluate(setup(hyperparameters)[0], *network, data, "", batch_size)

    of_runs = jax.vmap(one, in_axes=(by_run(hyperparameters), 0))
    measured = of_runs(dict(hyperparameters), train.networks(states))
    return {name.lstrip("_"): values for name, values in measured.items()}


class Chunk(NamedTuple):
    """What `fit` gives to the host: some epochs of all runs."""

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
    setup, rows = devices.spread(setup, plan), len(task.train.x)
    data = devices.placed(setup, task.arrays | probing.probe_data(plan, task))
    done, states = resume or (0, None)
    states = devices.placed_states(setup, states)
    if states is None:
        shapes = shapes_of_start(setup, plan, hyperparameters, len(seeds), data)
        refuse_too_large(shapes, devices.shares(setup))
        begin = partial(start_runs, setup, plan, hyperparameters)
        states, row = begin(np.asarray(seeds, np.uint32), data)
        yield on_host(0, {name: np.asarray(value)[None] for name, value in row.items()}, states)
    end = plan.epochs if until is None else until
    capacity = min(plan.epochs, CAPACITY)
    if plan.probes == "step":
        capacity = max(1, min(capacity, PROBED_STEPS // -(-rows // plan.batch_size)))
    program = partial(train_chunk, setup, plan, capacity, hyperparameters)
    every = probing.probe_every(plan, rows)
    # The first chunk is timed to choose the length of the next; one epoch of a handful of rows
    # would be too short to be timed.
    count = min(1 + ROWS_BEFORE_TIMING // rows, capacity, end - done)
    while done < end:
        began = time.perf_counter()
        states, history, trained = program(states, data, np.int32(done + 1), np.int32(count))
        trained = int(trained)
        elapsed = time.perf_counter() - began
        if trained:
            measures = jax.tree.map(np.asarray, history.pop("probes"))
            figures = {name: np.asarray(value)[:trained] for name, value in history.items()}
            probed = probing.trained_epochs(measures, done + 1, done + trained, every)
            yield on_host(done + 1, figures, states)._replace(probes=probed)
        done += trained
        # A further call would give away the states of runs that have all stopped.
        if trained < count or not np.asarray(states.running).any():
            return
        rate = int(SECONDS_PER_CHUNK * count / elapsed)
        count = processes.agreed(max(1, min(rate, capacity, end - done)))


SHAPES: dict[Any, TrainState] = {}  # of the first states of runs, as far as they are known


def shapes_of_start(
    setup: Builder, plan: Plan, hyperparameters: Hyperparameters, runs: int, data: Mapping[str, Any]
) -> TrainState:
    """The shapes of the first states, which are traced once for runs of one structure.

    To trace them takes a quarter of the time of a whole run of XOR.
    """
    given = jax.tree.map(jax.typeof, (dict(hyperparameters), dict(data)))
    known = setup, plan, runs, str(given)
    if known not in SHAPES:
        seeds = np.zeros(runs, np.uint32)
        SHAPES[known] = jax.eval_shape(
            partial(start_runs, setup, plan, hyperparameters), seeds, data
        )[0]
    return SHAPES[known]


def refuse_too_large(states: TrainState, shares: int = 1) -> None:
    """Refuse runs whose states do not fit into memory, before hours are spent on compiling them.

    A step holds the states before and after it, and gradients as large as the parameters; where
    several devices share them, each holds one of so many `shares`.

    Raises:
        UserError: with both figures.
    """
    needed = (2 * bytes_of(states) + bytes_of(states.params)) / shares
    if needed > memory():
        raise UserError(
            f"model: a step needs {needed / 1e9:,.0f} GB for {len(states.running)} run(s) of "
            f"{size_of(states.params):,} numbers each, and this device has {memory() / 1e9:,.0f}; "
            "give fewer seeds, or smaller layers"
        )


def bytes_of(tree: Tree) -> int:
    """Bytes of all arrays of a tree, typed keys left out."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not is_key(leaf)]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def size_of(params: Tree) -> int:
    """Numbers in the parameters of one run, of arrays (runs, ...)."""
    return sum(leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(params))


@cache
def memory() -> int:
    """Bytes of memory of the device; those of the host where it does not say, as a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", host_memory())


def on_host(first: int, rows: Mapping[str, Any], states: TrainState | None) -> Chunk:
    """A chunk of the measures of some epochs, (epochs, runs), the losses first."""
    measures = sorted(rows.keys() - {"active", "bad_step"}, key=lambda n: ("loss" not in n, n))
    history = {name: rows[name] for name in measures}
    return Chunk(first, history, rows["active"] == 1, rows["bad_step"].astype(int), states)
