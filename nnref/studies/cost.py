"""Cost: the seconds and the memory that a run takes, estimated from its traced program."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.internals import bodies, flops, repetitions
from nnref.training import train
from nnref.training.setup import Setup

STEP = 5e-6  # seconds that a step takes beside its arithmetic
PRODUCTS = 2e10  # floating-point operations of products and convolutions in a second of a core
ELEMENTS = 1e9  # elements of other operations in a second


class Cost(NamedTuple):
    """What one run costs, estimated from the traced forward pass: seconds and bytes."""

    step: float  # seconds of a step's arithmetic
    seconds: float  # of the whole run
    bytes: int  # of memory while it runs


@lru_cache(maxsize=256)
def cost_of(setup: Setup, plan: train.Plan, shape: tuple[int, ...], dtype: Any, valid: int) -> Cost:
    """What one run of a setup costs, on training inputs of a shape and so many rows to validate."""
    rows, *inputs = shape
    batch = min(plan.batch_size, rows)
    functions, optimizer = setup(setup.experiment.hyperparameters)
    params, model_state = jax.eval_shape(functions.init, jax.random.key(0))
    state = sum(map(size, jax.tree.leaves((params, model_state))))
    state += sum(map(size, jax.tree.leaves(jax.eval_shape(optimizer.init, params))))

    def evaluate(params: Any, model_state: Any, x: Any) -> Any:
        return functions.apply(params, model_state, x, None, False)

    x = jax.ShapeDtypeStruct((batch, *inputs), dtype)
    forward, kept = work_of(jax.make_jaxpr(evaluate)(params, model_state, x).jaxpr)
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    step = 3 * forward + 4 * weights / ELEMENTS
    evaluated = min(train.evaluation_batch(functions, plan), max(rows, valid))
    share = valid / batch / plan.evaluate_every
    epoch = setup.steps_per_epoch * (step + STEP) + share * forward + STEP
    history = 4 * 8 * (plan.epochs + 1)
    memory = 3 * state + max(2 * kept, kept * evaluated // batch) + history
    return Cost(float(step), float(plan.epochs * epoch), memory)


def size(leaf: Any) -> int:
    return int(np.prod(leaf.shape)) * getattr(leaf.dtype, "itemsize", 4)


def work_of(jaxpr: Any) -> tuple[float, int]:
    """Seconds of a core, and bytes of all results, that a traced function takes; roughly."""
    seconds, memory = 0.0, 0
    for equation in jaxpr.eqns:
        inner, times = bodies(equation), repetitions(equation)
        for each in inner:
            more, results = work_of(each.jaxpr)
            seconds += times * more
            memory += times * results
        if inner:
            continue
        memory += sum(size(var.aval) for var in equation.outvars)
        computed = flops(equation) / PRODUCTS
        seconds += computed or equation.outvars[0].aval.size / ELEMENTS
    return seconds, memory
