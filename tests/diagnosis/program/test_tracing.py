"""The traced program: does it compute what the function does?"""

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.program.tracing import trace


def test_trace_computes_what_the_function_does():
    def function(params, x):
        def turn(carry, row):
            return jnp.tanh(carry @ params["kernel"] + row), carry.sum()

        last, sums = jax.lax.scan(turn, jnp.zeros(4), x)
        both = jax.lax.cond(last[0] > 0, jnp.sin, lambda z: 2 * z, last)
        return jax.nn.gelu(both), sums, jax.nn.logsumexp(x, -1)

    params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
    x = jax.random.normal(jax.random.key(1), (6, 4))
    traced = trace(function, params, x)
    leaves = jax.tree.leaves((params, x))
    given = jax.jit(lambda leaves: traced.evaluate(leaves, traced.outputs))(leaves)
    for value, expected in zip(given, function(params, x), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)
