"""When layers are measured: before some epochs of the loop, on a batch that is always the same.

What is measured is in `probes.py`. Nothing here reaches the state of a run.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.parts.chain import updated
from nnref.training import probes, train
from nnref.training.task import Array, Task, Tree
from nnref.training.train import Builder, Hyperparameters, Plan, TrainState


def probe(
    setup: Builder,
    plan: Plan,
    hyperparameters: Hyperparameters,
    state: TrainState,
    data: Mapping[str, Any],
    epoch: Array,
) -> Array:
    """Measures of each layer before an epoch, (MEASURES, layers).

    Where every step is measured, only those of the outputs, (OF_OUTPUTS, layers).
    """
    functions, optimizer = setup(hyperparameters)
    x, y = data["probe"]
    params = state.params
    begun = state._replace(model_state=train.restart(functions, params, state.model_state))
    calls = {} if functions.layers is None else functions.layers(params, begun.model_state, x)
    shares = probes.of_outputs(params, calls)
    if plan.probes == "step":
        return shares
    key = jax.random.fold_in(jax.random.fold_in(state.key, epoch), 0)  # steps count from 1
    objective = train.objective_of(functions, begun, x, y, key)
    grads, (outputs, _, loss, penalty) = jax.grad(objective, has_aux=True)(params)
    updates, _ = updated(optimizer, grads, state.opt_state, params)
    step = probes.StepParts(params, outputs, loss, penalty, grads, updates)
    return jnp.concatenate([probes.of_step(step, list(calls)), shares])


def probe_every(plan: Plan, rows: int) -> int:
    """Epochs from one measurement of the layers to the next."""
    return probes.stride(plan.epochs, -(-rows // plan.batch_size))


@lru_cache(maxsize=64)
def measured_layers(
    setup: Builder, hyperparameters: tuple[tuple[str, float], ...], x: Any
) -> list[str]:
    """The names of the layers that are measured for a batch x, or its shape, in that order."""
    functions, _ = setup(dict(hyperparameters))
    params, model_state = jax.eval_shape(functions.init, jax.random.key(0))
    layers = probes.called_layers(functions.layers, params, model_state, x)
    return probes.layer_names(params, layers)


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
    """Train `count` epochs, from number `first` on, and measure before every so many of them.

    `measure` is `probe` of all runs; for `capacity`, `epochs_until` and its carry see `loop`.

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
        figures = train.when(due, lambda: measure(states, data, first + done))
        times = times.at[jnp.where(due, place, len(times))].set(figures, mode="drop")
        end = jnp.minimum(count, (before // every + 1) * every - (first - 1))
        return epochs_until(end, (done, states, written)), times

    def unfinished(carry: tuple[Any, Array]) -> Array:
        (done, states, _), _ = carry
        return (done < count) & jnp.any(states.running)

    return jax.lax.while_loop(unfinished, measured, (carry, times))


def probe_data(plan: Plan, task: Task) -> dict[str, Any]:
    """The batch that layers are measured on; rows that go on from one another come as they are."""
    if plan.probes == "off":
        return {}
    count = min(plan.batch_size, len(task.train.x))
    goes_on = task.functions.restart is not None
    rows = slice(count) if goes_on else probes.spread_rows(len(task.train.x), count)
    return {"probe": tuple(part[rows] for part in task.train)}


def trained_epochs(
    measures: Mapping[str, np.ndarray], first: int, last: int, every: int
) -> dict[str, np.ndarray]:
    """Cut the measures of `chunk_of_epochs` to the epochs from first to last, and number them."""
    if not measures:
        return {}
    at = np.arange(first + -(first - 1) % every, last + 1, every)
    steps = {"step": measures["step"][: last + 1 - first]} if "step" in measures else {}
    return {"at": at, "epoch": measures["epoch"][: len(at)]} | steps
