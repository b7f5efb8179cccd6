"""Train: state -> step -> evaluation -> epoch, each a pure function of arrays and keys.

`loop.py` makes one XLA program of many epochs of many runs, and calls it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from nnref.experiment.claims import Stop
from nnref.parts.chain import evaluation_params, updated
from nnref.parts.clipping import clipped_share
from nnref.parts.metrics import lower_is_better
from nnref.parts.schedules import observe
from nnref.training import probes
from nnref.training.task import Array, Functions, Tree

# By path; a scalar for all runs of a program, or (runs,) with one for each.
Hyperparameters = Mapping[str, Any]

LSUV_ROWS = 256  # training rows on which a data-dependent start rescales the first weights


# --- state ----------------------------------------------------------------------------------------


class Builder(Protocol):
    """Builds functions and optimizer from hyperparameters, traced or not; hashable, for `jit`."""

    def __call__(
        self, hyperparameters: Hyperparameters, /
    ) -> tuple[Functions, optax.GradientTransformation]: ...


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


class Plan(NamedTuple):
    """The structure of a run: what cannot change without another program."""

    batch_size: int
    epochs: int
    evaluate_every: int = 1
    stop: Stop | None = None
    shuffle: bool = True
    probes: str = "off"  # or "epoch", or "step"
    devices: int | str = 1  # or "all"
    shard: str = "off"  # or "params"


def keeps_best(plan: Plan) -> bool:
    """Whether a run keeps the network of its best evaluation instead of its last one."""
    return plan.stop is not None and plan.stop.patience is not None


def networks(states: TrainState) -> tuple[Tree, Tree]:
    """What training leaves: params where they are evaluated, and model_state, (runs, ...)."""
    if states.kept is not None:
        return states.kept
    return evaluation_params(states.opt_state, states.params), states.model_state


def start(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    seed: Array,
    data: Mapping[str, Any],
) -> tuple[TrainState, dict[str, Any]]:
    """The state before the first step, and what it measures: epoch 0 of the history."""
    functions, optimizer = setup(hyperparameters)
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
    running, waited = jnp.bool_(True), jnp.int32(0)
    best = jnp.float32(0) if plan.stop is None else row[plan.stop.metric]
    kept = (params, model_state) if keeps_best(plan) else None
    state = TrainState(params, model_state, opt_state, key, running, best, waited, kept)
    return state, row


def adapting_rows(functions: Functions, plan: Plan, rows: int) -> slice:
    """The training rows that a data-dependent start looks at.

    Rows may be sorted by class; those that go on from batch to batch come in whole batches.
    """
    if functions.restart is not None:
        return slice(plan.batch_size)
    apart = max(1, rows // LSUV_ROWS)
    return slice(0, apart * LSUV_ROWS, apart)


# --- step -----------------------------------------------------------------------------------------


Measure = Callable[[probes.StepParts], Tree]


def train_step(
    functions: Functions,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    x: Array,
    y: Array,
    key: Array,
    measure: Measure | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """One update from one batch of inputs x and targets y, (batch, ...).

    `optimizer` is the whole chain of a step, `key` for whatever is random in the model.

    Returns:
        The state after the step, and the sums of the batch before it: `loss` (times the number of
        examples), those of every metric, and under `probes` what `measure` gave.
    """
    objective = objective_of(functions, state, x, y, key)
    descended = jax.value_and_grad(objective, has_aux=True)(state.params)
    (total, (outputs, model_state, loss, penalty)), grads = descended
    updates, opt_state = updated(
        optimizer, grads, state.opt_state, state.params, lambda params: objective(params)[0], total
    )
    params = optax.apply_updates(state.params, updates)
    sums = batch_sums(functions, outputs, y)
    share = clipped_share(opt_state)
    if share is not None:
        sums["clipped"] = share
    if measure is not None:
        step = probes.StepParts(state.params, outputs, loss, penalty, grads, updates)
        sums["probes"] = measure(step)
    return state._replace(params=params, model_state=model_state, opt_state=opt_state), sums


def objective_of(
    functions: Functions, state: TrainState, x: Array, y: Array, key: Array
) -> Callable[[Tree], tuple[Array, tuple[Any, Tree, Array, Any]]]:
    """What a step descends, a function of the parameters: the loss over a batch, plus the penalty.

    It also gives the outputs, the model's state after the batch, the loss and the penalty.
    """
    training_loss = functions.training_loss or functions.loss

    def objective(params: Tree) -> tuple[Array, tuple[Any, Tree, Array, Any]]:
        outputs, model_state = functions.apply(params, state.model_state, x, key, True)
        loss = training_loss(outputs, y)
        if functions.penalty is None:
            return loss, (outputs, model_state, loss, 0.0)
        penalty = functions.penalty(params)
        total = jnp.asarray(loss + penalty, loss.dtype)
        return total, (outputs, model_state, loss, penalty)

    return objective


def numbered_step(
    functions: Functions,
    optimizer: optax.GradientTransformation,
    key: Array,
    carry: tuple[TrainState, Array],
    x: Array,
    y: Array,
    measure: Measure | None = None,
) -> tuple[tuple[TrainState, Array], dict[str, Any]]:
    """`train_step` with the key of its number in the epoch of `key`; carries state and number."""
    state, number = carry
    key = jax.random.fold_in(key, number)
    state, sums = train_step(functions, optimizer, state, x, y, key, measure)
    return (state, number + 1), sums


def batch_sums(functions: Functions, outputs: Array, y: Array) -> dict[str, Any]:
    """What a batch adds to the measures of its epoch: the loss without smoothing, and metrics."""
    sums = {"loss": functions.loss(outputs, y) * len(y), "examples": jnp.float32(len(y))}
    scalars = {name: metric for name, metric in functions.metrics.items() if metric.scalar}
    return sums | {name: metric.count(outputs, y) for name, metric in scalars.items()}


def measures(functions: Functions, batches: dict[str, Any], prefix: str) -> dict[str, Array]:
    """The figures that the sums of all batches, (batches, ...), stand for.

    Returns:
        `{prefix}_loss` and `{prefix}_{metric}`; where steps clip `clipped`, the mean over them.
    """
    figures = {f"{prefix}_loss": jnp.sum(batches["loss"]) / jnp.sum(batches["examples"])}
    for name, metric in functions.metrics.items():
        if name in batches:
            figures[f"{prefix}_{name}"] = metric.value(metric.total(batches[name]))
    return figures | ({"clipped": jnp.mean(batches["clipped"])} if "clipped" in batches else {})


# --- evaluation -----------------------------------------------------------------------------------


def over_batches(
    step: Callable[[Any, Array], tuple[Any, Tree]], carry: Any, order: Array, batch_size: int
) -> tuple[Any, Tree]:
    """Scan `step(carry, rows)` over the batches of an order of rows; nothing is dropped.

    The last batch has its own size: a second, shorter step serves what a padded one would only
    approximate, batch normalisation above all.

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
    """`measures` of a whole split in evaluation mode, exact whatever the batch size."""
    x, y = map(jnp.asarray, data)

    def step(model_state: Tree, rows: Array) -> tuple[Tree, dict[str, Any]]:
        return evaluation_step(functions, params, model_state, x[rows], y[rows])

    restarted = restart(functions, params, model_state)
    _, sums = over_batches(step, restarted, jnp.arange(len(x)), batch_size)
    return measures(functions, sums, prefix)


def evaluation_batch(functions: Functions, plan: Plan) -> int:
    """Evaluation keeps no gradients: its batches may be larger, if none goes on from another.

    On a CPU not much: what lies between its layers is to stay in the cache. All rows of a recurrent
    and of a convolutional network take 1.2 and 1.6 times as long by 1,024 as by 128.
    """
    rows = 128 if jax.default_backend() == "cpu" else 1024
    return plan.batch_size if functions.restart is not None else max(plan.batch_size, rows)


def restart(functions: Functions, params: Tree, model_state: Tree) -> Tree:
    """The model's state before the first row of a split, where it goes on from row to row."""
    return model_state if functions.restart is None else functions.restart(params, model_state)


# --- epoch ----------------------------------------------------------------------------------------


def train_epoch(
    functions: Functions,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    data: Any,
    epoch: Array,
    batch_size: int,
    shuffle: bool = True,
    measure: Measure | None = None,
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
        chosen = slice(None) if len(rows) == len(x) else rows
        return numbered_step(functions, optimizer, key, carry, x[chosen], y[chosen], measure)

    (state, _), sums = over_batches(step, (state, jnp.int32(1)), order, batch_size)
    return state, epoch_measures(functions, sums)


def epoch_order(key: Array, rows: int, batch_size: int, shuffle: bool) -> Array:
    """The order of the rows in the epoch of this key; a full batch is the same in any order."""
    shuffled = shuffle and batch_size < rows
    return jax.random.permutation(key, rows) if shuffled else jnp.arange(rows)


def epoch_measures(functions: Functions, sums: dict[str, Any]) -> dict[str, Any]:
    """The measures of an epoch of training, from the sums of its steps, (steps, ...)."""
    bad = ~jnp.isfinite(sums["loss"])
    bad_step = jnp.where(jnp.any(bad), jnp.argmax(bad) + 1, 0)
    row: dict[str, Any] = measures(functions, sums, "train") | {"bad_step": bad_step}
    return row | ({"probes": sums["probes"]} if "probes" in sums else {})


def one_epoch(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    state: TrainState,
    data: Mapping[str, Any],
    epoch: Array,
    measure: Measure | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Train one epoch, validate where it is due, and stop where that is due.

    `data` has the splits, and the batch `probe` where the plan measures the layers in each step.
    """
    functions, optimizer = setup(hyperparameters)
    if plan.probes == "step":
        measure = measure_of_layers(functions, state, data["probe"][0])
    size, shuffle = plan.batch_size, plan.shuffle
    after, row = train_epoch(
        functions, optimizer, state, data["train"], epoch, size, shuffle, measure
    )
    after, row = end_of_epoch(functions, plan, after, row, data, epoch)
    if plan.stop is not None:
        # A run that has stopped keeps the state it stopped with, while its neighbours go on.
        after = jax.tree.map(partial(jnp.where, state.running), after, state)
    return after, row


def measure_of_layers(functions: Functions, state: TrainState, x: Any) -> Measure:
    """Measures a step layer by layer; the layers are those that the model calls for x."""
    layers = probes.called_layers(functions.layers, state.params, state.model_state, x)
    return partial(probes.of_step, layers=layers)


def when(due: Array, measure: Callable[[], Tree]) -> Tree:
    """Runs `measure` if `due`, else returns NaN of the same shapes."""
    shapes = jax.eval_shape(measure)
    nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)
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
    after, params = state, evaluation_params(state.opt_state, state.params)
    if "valid" in data:

        def validate() -> dict[str, Array]:
            batch = evaluation_batch(functions, plan)
            return evaluate(functions, params, state.model_state, data["valid"], "valid", batch)

        if plan.evaluate_every == 1:
            row |= validate()
        else:
            due = (epoch % plan.evaluate_every == 0) | (epoch == plan.epochs)
            row |= when(due, validate)
        after = after._replace(opt_state=observe(after.opt_state, row["valid_loss"]))
    running = row["bad_step"] == 0
    if plan.stop is not None:
        watched = plan.stop.metric
        lower = lower_is_better(watched, functions.metrics)
        done, best, waited = should_stop(plan.stop, state, row[watched], lower)
        after = after._replace(best=best, waited=waited)
        if keeps_best(plan):
            newest = (params, state.model_state)
            kept = jax.tree.map(partial(jnp.where, best != state.best), newest, state.kept)
            after = after._replace(kept=kept)
        running &= ~done
    return after._replace(running=state.running & running), row | {"active": state.running}


def should_stop(
    stop: Stop, state: TrainState, figure: Array, lower: bool
) -> tuple[Array, Array, Array]:
    """Whether a run stops at a value of the measure that it watches, NaN if nothing was evaluated.

    `lower` says whether a smaller value is the better one.

    Returns:
        Whether the run stops, the best value, and the number of evaluations since the best one.
    """
    improved = figure < state.best if lower else figure > state.best
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
