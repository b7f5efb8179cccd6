"""Runs of an optimizer on the noisy quadratic of the oracles.

One program for each structure of an optimizer serves all its numbers.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from oracles.noisy_quadratic import CENTRE, CURVATURE, NOISE, SHAPES, SILENT, SIZE, START, STEPS

from nnref.parts.chain import chain, evaluation_params
from nnref.parts.optimizers import OPTIMIZERS

ONES = np.ones(STEPS)


def split(flat):
    """A flat array of the problem's numbers as named arrays."""
    sizes = [int(np.prod(shape)) for shape in SHAPES.values()]
    parts = jnp.split(flat, np.cumsum(sizes)[:-1])
    return {name: part.reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}


def flat(tree):
    return jnp.concatenate([jnp.ravel(tree[name]) for name in SHAPES])


def follow(structure, numbers, curvature, noise, factors):
    """The run of one optimizer: (parameters, where it is evaluated), each (STEPS, SIZE)."""
    name, fixed = structure
    optimizer = OPTIMIZERS[name](**dict(fixed), **numbers)
    step = chain(optimizer, lambda progress: factors[progress.step], STEPS, 10)
    silent = jnp.arange(SIZE) == SILENT[0]

    def one(carry, now):
        params, state = carry
        t, n = now
        g = curvature * (flat(params) - jnp.array(CENTRE)) + n
        g = jnp.where(silent & (t <= SILENT[1]), 0, g)
        updates, state = step.update(split(g), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (flat(params), flat(evaluation_params(state, params)))

    params = split(jnp.array(START))
    now = (jnp.arange(1, STEPS + 1), noise)
    return jax.lax.scan(one, (params, step.init(params)), now)[1]


# Hundreds of small programs: compiling them fast matters more than running them fast.


fast = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}


program = jax.jit(follow, static_argnums=0, compiler_options=fast)


@partial(jax.jit, static_argnums=0, compiler_options=fast)
def many(structure, numbers, *problem):
    return jax.vmap(lambda numbers: follow(structure, numbers, *problem)[1])(numbers)


def parted(name, arguments):
    """A member's arguments, defaults filled in, as (structure, numbers)."""
    parameters = inspect.signature(OPTIMIZERS[name]).parameters
    bound = {n: p.default for n, p in parameters.items()} | arguments
    numbers = {n: v for n, v in bound.items() if isinstance(v, float)}
    return (name, tuple((n, v) for n, v in bound.items() if n not in numbers)), numbers


def jitted(function):
    return jax.jit(function, compiler_options=fast)


PROBLEM = np.array(CURVATURE), np.array(NOISE)


def trajectory(name, factors=ONES, problem=PROBLEM, **arguments):
    structure, numbers = parted(name, arguments)
    with jax.enable_x64(True):
        return [np.asarray(part) for part in program(structure, numbers, *problem, factors)]


def directions(optimizer, gradients):
    """The directions of a sequence of gradients, at parameters 0, in float64."""
    with jax.enable_x64(True):
        gradients = jnp.asarray(gradients, float)
        state = optimizer.direction.init(gradients[0])
        update = jitted(optimizer.direction.update)
        given = []
        for g in gradients:
            direction, state = update(g, state, jnp.zeros_like(g))
            given.append(np.asarray(direction))
    return np.array(given)
