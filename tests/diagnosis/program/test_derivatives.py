"""Second derivatives of a network of straight pieces, and of one that bends."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import affine, dense, line_of

from nnref.diagnosis.program.at_start import LossAtStart
from nnref.diagnosis.program.derivatives import derivatives

X = np.linspace(0, 1, 9, dtype=np.float32)


def equation(activation, order):
    def u(params, x):
        return affine(params["dense1"], activation(affine(params["dense0"], x[None])))[0]

    def loss(params, x):
        bend = jax.grad(u, 1)
        if order == 2:
            bend = jax.grad(bend, 1)
        return jnp.mean((jax.vmap(bend, (None, 0))(params, x) - jnp.sin(x)) ** 2)  # the residual

    return LossAtStart(loss, dense(jax.random.key(0), 1, 6, 1), X, False)


@pytest.mark.parametrize(
    ("activation", "order", "count"), [(jax.nn.relu, 2, 1), (jnp.tanh, 2, 0), (jax.nn.relu, 1, 0)]
)
def test_a_second_derivative_of_straight_pieces(activation, order, count):
    found = list(derivatives(equation(activation, order)))
    assert [(f.severity, f.cause) for f in found] == [
        ("fault", "hidden_activation_mismatch")
    ] * count
    line = f"{Path(__file__).name}:{line_of(__file__, 'the residual')}"
    assert all(f.where.endswith(line) for f in found)
