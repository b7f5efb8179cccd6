"""Gradients of a model beside finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def slopes_and_differences(model, shape, h, number):
    """Slopes of sum f(x)^3 along random directions of the parameters, twice (number,).

    Once from the gradient, once from central differences of width 2 h.
    """
    graph, *parts = nnx.split(model, nnx.Param, ...)
    params, rest = (nnx.to_pure_dict(nnx.as_pure(part)) for part in parts)
    with jax.enable_x64(True):
        params, rest = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, rest))
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape))

        @jax.jit
        def program(params, directions):
            def objective(params):
                return jnp.sum(nnx.merge(graph, params, rest)(x) ** 3)

            def along(direction, h):
                return objective(jax.tree.map(lambda p, d: p + h * d, params, direction))

            gradient = jax.grad(objective)(params)
            slopes = jax.vmap(lambda d: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, d))))
            differences = jax.vmap(lambda d: (along(d, h) - along(d, -h)) / (2 * h))
            return slopes(directions), differences(directions)

        # Each weight alone would do, but many random directions see the same.
        rng = np.random.default_rng(1)
        directions = jax.tree.map(
            lambda p: jnp.asarray(rng.normal(size=(number, *p.shape))), params
        )
        return program(params, directions)
