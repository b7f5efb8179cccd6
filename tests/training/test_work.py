"""The work of a traced program: products, other operations, and what each takes to start."""

import jax
import jax.numpy as jnp
import pytest

from nnref.training import work


def test_products_are_counted():
    def three(x):
        return jax.lax.scan(lambda h, _: (h @ jnp.ones((5, 5)), None), x, length=3)[0]

    program = jax.make_jaxpr(three)(jnp.ones((2, 5))).jaxpr
    product = 2 * 2 * 5 * 5 / work.PRODUCTS + 25 / work.ELEMENTS
    seconds, _ = work.work_of(program)
    assert seconds == pytest.approx(3 * product)
    seconds, _ = work.work_of(program, started=1.0)  # the product, and the ones that it takes
    assert seconds == pytest.approx(3 * (product + 2))
