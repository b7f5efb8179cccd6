"""Train: state -> step -> epoch -> a chunk of epochs as one XLA program -> history.

Everything down to `train_chunk` is a pure function of arrays and keys. `fit` is the thin host loop
around it, which hears from the device about five times a second.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref import probes
from nnref.claims import Stop
from nnref.clipping import clipped_share
from nnref.compilation import TINY, tiny_options
from nnref.optimizers import evaluation_params
from nnref.schedules import observe
from nnref.task import Functions, Task

Array = jax.Array
Tree = Any
Numbers = Mapping[str, Any]  # a scalar for all runs of a program, or (runs,) with one for each


class Setup(Protocol):
    """Builds functions and optimizer from numbers that may be traced; hashable, for `jax.jit`."""

    def __call__(self, numbers: Numbers, /) -> tuple[Functions, optax.GradientTransformation]: ...


class TrainState(NamedTuple):
    """Everything that a run carries from one epoch to the next."""

    params: Tree
    model_state: Tree
    opt_state: Tree
    key: Array  # of the run; epochs and steps fold their number into it
    running: Array  # False once the run has stopped or diverged
    best: Array  # best value of the measure that `stop` watches
    waited: Array  # evaluations since then
    kept: tuple[Tree, Tree] | None  # params and model_state of the best evaluation, with patience


ADAPTED = 256  # examples that a data-dependent start looks at


class Plan(NamedTuple):
    """The structure of a run: what cannot change without another program."""

    batch_size: int
    epochs: int
    evaluate_every: int = 1
    stop: Stop | None = None
    shuffle: bool = True
    probes: str = "off"  # or "epoch", or "step"


def falls(measure: str) -> bool:
    """Whether less of a measure is better."""
    return measure.endswith(("loss", "error", "perplexity", "bits_per_character"))


def rises(stop: Stop) -> bool:
    """Whether more of what is watched is better."""
    if stop.at_least is not None or stop.at_most is not None:
        return stop.at_least is not None
    return not falls(stop.metric)


def keeps_best(plan: Plan) -> bool:
    """Whether a run keeps the network of its best evaluation instead of its last one."""
    return plan.stop is not None and plan.stop.patience is not None


def networks(states: TrainState) -> tuple[Tree, Tree]:
    """What training leaves: params where they are evaluated, and model_state, (runs, ...)."""
    if states.kept is not None:
        return states.kept
    return evaluation_params(states.opt_state, states.params), states.model_state


def train_step(
    functions: Functions,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    x: Array,
    y: Array,
    key: Array,
    layers: Sequence[str] | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """One update from one batch.

    Args:
        functions: of the task.
        optimizer: the whole chain of a step.
        state: before the step.
        x: inputs, (batch, ...).
        y: targets, (batch, ...).
        key: for whatever is random in the model.
        layers: to be measured in the step; None for none.

    Returns:
        The state after the step, and the sums of the batch before it: `loss` (times the number of
        examples) and those of every metric.
    """
    grads, (outputs, model_state) = gradient(functions, state, x, y, key)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    sums = batch_sums(functions, outputs, y)
    share = clipped_share(opt_state)
    if share is not None:
        sums["clipped"] = share
    if layers is not None:
        sums["probes"] = probes.of_step(state.params, grads, updates, layers)
    return state._replace(params=params, model_state=model_state, opt_state=opt_state), sums


def gradient(
    functions: Functions, state: TrainState, x: Array, y: Array, key: Array
) -> tuple[Tree, tuple[Array, Tree]]:
    """The gradient of the loss over a batch, with the outputs and the model's state after it."""
    loss = functions.training_loss or functions.loss

    def objective(params: Tree) -> tuple[Array, tuple[Array, Tree]]:
        outputs, model_state = functions.apply(params, state.model_state, x, key, True)
        return loss(outputs, y), (outputs, model_state)

    return jax.grad(objective, has_aux=True)(state.params)


def numbered_step(
    functions: Functions,
    optimizer: optax.GradientTransformation,
    key: Array,
    carry: tuple[TrainState, Array],
    x: Array,
    y: Array,
    layers: Sequence[str] | None = None,
) -> tuple[tuple[TrainState, Array], dict[str, Any]]:
    """`train_step` with the key of its number in the epoch of `key`; carries state and number."""
    state, number = carry
    key = jax.random.fold_in(key, number)
    state, sums = train_step(functions, optimizer, state, x, y, key, layers)
    return (state, number + 1), sums


def batch_sums(functions: Functions, outputs: Array, y: Array) -> dict[str, Any]:
    """What a batch adds to the measures of its epoch: the loss without smoothing, and metrics."""
    counts = {
        name: metric.count(outputs, y)
        for name, metric in functions.metrics.items()
        if metric.scalar
    }
    return {"loss": functions.loss(outputs, y) * len(y), "examples": jnp.float32(len(y))} | counts


def measures(functions: Functions, batches: dict[str, Any], prefix: str) -> dict[str, Array]:
    """The figures that the sums of all batches, (batches, ...), stand for.

    Returns:
        `{prefix}_loss` and one for each metric; `clipped`, the mean over steps, where they clip.
    """
    figures = {"loss": jnp.sum(batches["loss"]) / jnp.sum(batches["examples"])}
    for name, metric in functions.metrics.items():
        if name in batches:
            figures[name] = metric.value(metric.total(batches[name]))
    figures = {f"{prefix}_{name}": figure for name, figure in figures.items()}
    return figures | ({"clipped": jnp.mean(batches["clipped"])} if "clipped" in batches else {})


def over_batches(
    step: Callable[[Any, Array], tuple[Any, Tree]], carry: Any, order: Array, batch_size: int
) -> tuple[Any, Tree]:
    """Scan `step(carry, rows)` over the batches of an order of rows.

    The last batch has its own size: a second, shorter step serves what a padded one would only
    approximate, batch normalisation above all, and nothing is dropped.

    Returns:
        The last carry, and the results of all steps stacked, (steps, ...).
    """
    full = len(order) // batch_size * batch_size
    stacked = []
    looped = full if full > batch_size else 0  # a single batch needs no loop
    if looped:
        carry, results = jax.lax.scan(step, carry, order[:looped].reshape(-1, batch_size))
        stacked.append(results)
    for rows in (order[looped:full], order[full:]):
        if len(rows):
            carry, result = step(carry, rows)
            stacked.append(jax.tree.map(lambda leaf: leaf[None], result))
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *stacked)


def evaluation_step(
    functions: Functions, params: Tree, model_state: Tree, x: Array, y: Array
) -> tuple[Tree, dict[str, Any]]:
    """The model's state after a batch in evaluation mode, and the sums of the batch."""
    outputs, model_state = functions.apply(params, model_state, x, None, False)
    return model_state, batch_sums(functions, outputs, y)


def evaluate(
    functions: Functions, params: Tree, model_state: Tree, data: Any, prefix: str, batch_size: int
) -> dict[str, Array]:
    """Loss and metrics of a whole split, in evaluation mode.

    Returns:
        `{prefix}_loss` and `{prefix}_{metric}`, scalars, exact whatever the batch size.
    """
    x, y = data

    def step(model_state: Tree, rows: Array) -> tuple[Tree, dict[str, Any]]:
        return evaluation_step(functions, params, model_state, x[rows], y[rows])

    restarted = restart(functions, params, model_state)
    _, sums = over_batches(step, restarted, jnp.arange(len(x)), batch_size)
    return measures(functions, sums, prefix)


def restart(functions: Functions, params: Tree, model_state: Tree) -> Tree:
    """The model's state before the first row of a split, where it goes on from row to row."""
    return model_state if functions.restart is None else functions.restart(params, model_state)


def train_epoch(
    functions: Functions,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    data: Any,
    epoch: Array,
    batch_size: int,
    shuffle: bool = True,
    layers: Sequence[str] | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """One pass over the training data, in an order drawn for this epoch where it is shuffled.

    Returns:
        The state, and the measures over the epoch as the parameters moved, with `bad_step`: the
        first step of the epoch, from 1, whose loss was not finite, or 0.
    """
    x, y = data
    state = state._replace(model_state=restart(functions, state.params, state.model_state))
    key = jax.random.fold_in(state.key, epoch)
    order = epoch_order(key, len(x), batch_size, shuffle)

    def step(carry: tuple[TrainState, Array], rows: Array) -> tuple[Any, dict[str, Any]]:
        batch = (x, y) if len(rows) == len(x) else (x[rows], y[rows])
        return numbered_step(functions, optimizer, key, carry, *batch, layers)

    (state, _), sums = over_batches(step, (state, jnp.int32(1)), order, batch_size)
    return state, epoch_measures(functions, sums)


def epoch_order(key: Array, rows: int, batch_size: int, shuffle: bool) -> Array:
    """The order of the rows in the epoch of this key; a full batch is the same in any order."""
    shuffled = shuffle and batch_size < rows
    return jax.random.permutation(key, rows) if shuffled else jnp.arange(rows)


def epoch_measures(functions: Functions, sums: dict[str, Any]) -> dict[str, Any]:
    """What the sums of its steps, (steps, ...), say of an epoch of training."""
    bad = ~jnp.isfinite(sums["loss"])
    bad_step = jnp.where(jnp.any(bad), jnp.argmax(bad) + 1, 0)
    row: dict[str, Any] = measures(functions, sums, "train") | {"bad_step": bad_step}
    return row | ({"probes": sums["probes"]} if "probes" in sums else {})


def should_stop(stop: Stop, state: TrainState, figure: Array) -> tuple[Array, Array, Array]:
    """Whether a run stops at this value of the measure it watches, its best value, its patience."""
    improved = figure > state.best if rises(stop) else figure < state.best
    best = jnp.where(improved, figure, state.best)
    waited = jnp.where(improved, 0, state.waited + ~jnp.isnan(figure))
    done = jnp.bool_(False)
    if stop.at_most is not None:
        done |= figure <= stop.at_most
    if stop.at_least is not None:
        done |= figure >= stop.at_least
    if stop.patience is not None:
        done |= waited >= stop.patience
    return done, best, waited


def start(
    setup: Setup, plan: Plan, numbers: Numbers, seed: Array, data: Mapping[str, Any]
) -> tuple[TrainState, dict[str, Any]]:
    """The state before the first step, and what it measures: epoch 0 of the history."""
    functions, optimizer = setup(numbers)
    init_key, key = jax.random.split(jax.random.key(seed))
    params, model_state = functions.init(init_key)
    if functions.adapt is not None and "train" in data:
        x = data["train"][0]
        x = x[adapting_rows(functions, plan, len(x))]
        params, model_state = functions.adapt(params, model_state, x)
    opt_state = optimizer.init(params)
    row = {"bad_step": jnp.int32(0), "active": jnp.bool_(True)}
    if clipped_share(opt_state) is not None:
        row["clipped"] = jnp.float32(jnp.nan)
    for name in ("train", "valid"):
        if name in data:
            batch = evaluation_batch(functions, plan)
            row |= evaluate(functions, params, model_state, data[name], name, batch)
    state = TrainState(
        params,
        model_state,
        opt_state,
        key,
        running=jnp.bool_(True),
        best=jnp.float32(0) if plan.stop is None else row[plan.stop.metric],
        waited=jnp.int32(0),
        kept=(params, model_state) if keeps_best(plan) else None,
    )
    return state, row


def adapting_rows(functions: Functions, plan: Plan, rows: int) -> slice:
    """The training rows that a data-dependent start looks at.

    Rows may be sorted by class; those that go on from batch to batch come in whole batches.
    """
    if functions.restart is not None:
        return slice(plan.batch_size)
    apart = max(1, rows // ADAPTED)
    return slice(0, apart * ADAPTED, apart)


def evaluation_batch(functions: Functions, plan: Plan) -> int:
    """Evaluation keeps no gradients, so its batches may be larger than those of training.

    Not where the rows of a batch go on where the same rows of the batch before ended.
    """
    return plan.batch_size if functions.restart is not None else max(plan.batch_size, 1024)


def one_epoch(
    setup: Setup,
    plan: Plan,
    numbers: Numbers,
    state: TrainState,
    data: Mapping[str, Any],
    epoch: Array,
) -> tuple[TrainState, dict[str, Any]]:
    """Train one epoch, validate where it is due, and stop where that is due."""
    functions, optimizer = setup(numbers)
    layers = None
    if plan.probes == "step":
        x, _ = data["probe"]
        layers = called_layers(functions, state.params, state.model_state, x)
    after, row = train_epoch(
        functions,
        optimizer,
        state,
        data["train"],
        epoch,
        plan.batch_size,
        plan.shuffle,
        layers,
    )
    after, row = end_of_epoch(functions, plan, after, row, data, epoch)
    if plan.stop is not None:
        # A run that has stopped keeps the state it stopped with, while its neighbours go on.
        after = jax.tree.map(partial(jnp.where, state.running), after, state)
    return after, row


def probe(
    setup: Setup,
    plan: Plan,
    numbers: Numbers,
    state: TrainState,
    data: Mapping[str, Any],
    epoch: Array,
) -> Array:
    """Measures of each layer before an epoch, on a batch that is always the same.

    Nothing of it reaches the state.

    Returns:
        (MEASURES, layers); without those of a step where every step is measured.
    """
    functions, optimizer = setup(numbers)
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


def called_layers(functions: Functions, params: Tree, model_state: Tree, x: Any) -> list[str]:
    """The names of the layers that a model calls; nothing is computed."""
    names: list[str] = []

    def call(params: Tree, model_state: Tree, x: Array) -> None:
        if functions.layers is not None:
            names.extend(functions.layers(params, model_state, x))

    jax.eval_shape(call, params, model_state, x)
    return names


@lru_cache(maxsize=64)
def measured_layers(setup: Setup, numbers: tuple[tuple[str, float], ...], x: Any) -> list[str]:
    """The names of the layers that are measured, in the order of the measures.

    Args:
        setup: builds functions.
        numbers: hyperparameters, as they are hashed.
        x: a batch, or a `jax.ShapeDtypeStruct` of it.
    """
    functions, _ = setup(dict(numbers))
    params, model_state = jax.eval_shape(functions.init, jax.random.key(0))
    return probes.layer_names(params, called_layers(functions, params, model_state, x))


def when(due: Array, measure: Callable[[], Tree]) -> Tree:
    """What is measured where that is due, else NaN in the same shapes."""
    nothing = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), jax.eval_shape(measure)
    )
    return jax.lax.cond(due, measure, lambda: nothing)


def end_of_epoch(
    functions: Functions,
    plan: Plan,
    state: TrainState,
    row: dict[str, Any],
    data: Mapping[str, Any],
    epoch: Array,
) -> tuple[TrainState, dict[str, Any]]:
    """After the last step: validate where it is due, and stop where that is due.

    Returns:
        The state, and the row of measures with those of the validation and `active`: rows of a run
        after its end mean nothing, and the host leaves them out.
    """
    after = state
    params = evaluation_params(after.opt_state, after.params)
    if "valid" in data:

        def validate() -> dict[str, Array]:
            batch = evaluation_batch(functions, plan)
            return evaluate(functions, params, after.model_state, data["valid"], "valid", batch)

        if plan.evaluate_every == 1:
            row |= validate()
        else:
            due = (epoch % plan.evaluate_every == 0) | (epoch == plan.epochs)
            row |= when(due, validate)
        after = after._replace(opt_state=observe(after.opt_state, row["valid_loss"]))
    running = row["bad_step"] == 0
    if plan.stop is not None:
        done, best, waited = should_stop(plan.stop, state, row[plan.stop.metric])
        after = after._replace(best=best, waited=waited)
        if keeps_best(plan):
            newest = (params, after.model_state)
            kept = jax.tree.map(partial(jnp.where, best != state.best), newest, state.kept)
            after = after._replace(kept=kept)
        running &= ~done
    return after._replace(running=state.running & running), row | {"active": state.running}


@partial(jax.jit, static_argnames=("setup", "plan"))
def start_runs(
    setup: Setup, plan: Plan, numbers: Numbers, seeds: Array, data: Mapping[str, Any]
) -> tuple[TrainState, dict[str, Any]]:
    """`start` for many runs at once; every leaf of the results has the runs as leading axis."""
    of_runs = jax.vmap(partial(start, setup, plan), in_axes=(by_run(numbers), 0, None))
    return of_runs(dict(numbers), seeds, data)


def by_run(numbers: Numbers) -> dict[str, int | None]:
    """The axis of the runs in each number; None where one number serves all of them."""
    return {name: 0 if np.ndim(number) else None for name, number in numbers.items()}


def chunk_of_epochs(
    setup: Setup,
    plan: Plan,
    capacity: int,
    numbers: Numbers,
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
        numbers: hyperparameters, traced; scalars, or (runs,).
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
    epoch_of_runs = partial(one_epoch, setup, plan)
    axes, numbers = by_run(numbers), dict(numbers)
    alone = len(states.running) == 1
    if alone:  # XLA is slower with an axis of length 1 than without
        states = jax.tree.map(lambda leaf: leaf[0], states)
        numbers = {n: v if axes[n] is None else v[0] for n, v in numbers.items()}
    else:
        epoch_of_runs = jax.vmap(epoch_of_runs, in_axes=(axes, 0, None, None))
    # Traced once for its shapes and the loop.
    epoch_of_runs = partial(jax.jit(epoch_of_runs, inline=True), numbers)
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

    carry = jnp.int32(0), states, blanks
    told = {}
    if plan.probes == "off":
        done, states, (history, _) = epochs_until(count, carry)
    else:
        measure = partial(probe, setup, plan)
        measure = measure if alone else jax.vmap(measure, in_axes=(axes, 0, None, None))
        measure = partial(jax.jit(measure, inline=True), numbers)
        every = probe_every(plan, len(data["train"][0]))
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

        carry, times = jax.lax.while_loop(unfinished, measured, (carry, times))
        done, states, (history, of_steps) = carry
        told = {"epoch": times} | ({"step": of_steps} if plan.probes == "step" else {})
    if alone:
        states, history = jax.tree.map(lambda leaf: leaf[None], states), history[..., None]
        told = jax.tree.map(lambda leaf: leaf[:, None], told)
    named: dict[str, Any] = {name: history[:, place] for place, name in enumerate(rows)}
    return states, named | {"probes": told}, done


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
    setup: Setup, plan: Plan, capacity: int, numbers: Numbers, states: TrainState, data: Any, *span
) -> tuple[TrainState, dict[str, Array], Array]:
    """`chunk_of_epochs`, compiled for little memory or for much."""
    return chunk_program(is_tiny(states, data))(setup, plan, capacity, numbers, states, data, *span)


@partial(jax.jit, static_argnames=("setup", "batch_size"))
def evaluate_runs(
    setup: Setup, batch_size: int, numbers: Numbers, states: TrainState, data: Any
) -> dict[str, Array]:
    """`evaluate` for many runs at once: `{measure: (runs,)}`, without a prefix."""

    def one(numbers: Numbers, network: tuple[Tree, Tree]) -> dict[str, Array]:
        return evaluate(setup(numbers)[0], *network, data, "", batch_size)

    of_runs = jax.vmap(one, in_axes=(by_run(numbers), 0))
    measured = of_runs(dict(numbers), networks(states))
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


HEARING = 0.2  # seconds between two chunks
ROWS_TO_TELL = 512  # rows to train on before the length of a chunk is chosen
CAPACITY = 4096  # epochs that a chunk can record
STEPS_TOLD = 2**16  # steps of which a chunk can tell the measures of every layer


def fit(
    setup: Setup,
    plan: Plan,
    numbers: Numbers,
    seeds: Sequence[int],
    task: Task,
    resume: tuple[int, TrainState] | None = None,
    until: int | None = None,
) -> Iterator[Chunk]:
    """Train runs that differ in their seed, or in numbers, a chunk of epochs at a time.

    Args:
        setup: builds functions and optimizer; equal setups share a compiled program.
        plan: the structure of the runs.
        numbers: hyperparameters that may change without another program; scalars, or (runs,).
        seeds: one run for each, all in one program.
        task: its arrays are put on the device; its functions come from `setup`.
        resume: last finished epoch and the states after it, to go on from there.
        until: epoch to end with, if not the plan's last; the rest may be resumed.

    Yields:
        A chunk about every 0.2 s, first the state before training. How many epochs a chunk has,
        depends on the clock; what they compute does not.
    """
    assert task.stored is None, "what is stored comes through stream.fit"
    data = jax.device_put(task.arrays | probe_data(plan, task))
    done, states = resume or (0, None)
    if states is None:
        states, row = start_runs(setup, plan, numbers, np.asarray(seeds, np.uint32), data)
        yield on_host(0, {name: np.asarray(value)[None] for name, value in row.items()}, states)
    end = plan.epochs if until is None else until
    capacity = min(plan.epochs, CAPACITY)
    if plan.probes == "step":
        capacity = max(1, min(capacity, STEPS_TOLD // -(-len(task.train.x) // plan.batch_size)))
    program = partial(train_chunk, setup, plan, capacity, numbers)
    every = probe_every(plan, len(task.train.x))
    # How long an epoch takes, the first ones tell: of a handful of rows one alone would not.
    count = min(1 + ROWS_TO_TELL // len(task.train.x), capacity, end - done)
    while done < end:
        began = time.perf_counter()
        states, history, trained = program(states, data, np.int32(done + 1), np.int32(count))
        trained = int(trained)
        elapsed = time.perf_counter() - began
        if trained:
            told = jax.tree.map(np.asarray, history.pop("probes"))
            rows = {name: np.asarray(value)[:trained] for name, value in history.items()}
            chunk = on_host(done + 1, rows, states)
            yield chunk._replace(probes=told_until(done + trained, done + 1, every, told))
        done += trained
        # A further call would give away the states of runs that have all stopped.
        if trained < count or not np.asarray(states.running).any():
            return
        rate = int(HEARING * count / elapsed)
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


def told_until(
    last: int, first: int, every: int, told: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a chunk of these epochs has measured, without the room for more."""
    if not told:
        return {}
    at = np.arange(first + -(first - 1) % every, last + 1, every)
    steps = {"step": told["step"][: last + 1 - first]} if "step" in told else {}
    return {"at": at, "epoch": told["epoch"][: len(at)]} | steps
