"""Gradients that are added up over parts with different numbers of targets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import TX, begun, faults, first, network

PARTS, ROWS, PLACES = 4, 6, 8
DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(40, PARTS, ROWS, PLACES, 2)).astype(np.float32)
Y = np.tanh(X[..., :1] - X[..., 1:])


def batches(full):
    """A function of the number of the step; the first of the parts holds few targets."""
    mask = np.ones((PARTS, ROWS, PLACES, 1), np.float32)
    mask[0, :, full:] = 0
    return lambda number: (X[number % 40], Y[number % 40], mask)


def stepping(mean):
    """A step that adds up the gradients of its parts, of sums that `mean` divides."""

    @jax.jit
    def step(params, opt_state, x, y, mask):
        def one(sums, part):
            def loss(params):
                x, y, own = part
                return mean((network(params, x) - y) ** 2 * own, own, mask)

            return jax.tree.map(jnp.add, sums, jax.grad(loss)(params)), loss(params)

        zeros = jax.tree.map(jnp.zeros_like, params)
        sums, losses = jax.lax.scan(one, zeros, (x, y, mask))
        updates, opt_state = TX.update(sums, opt_state)
        return optax.apply_updates(params, updates), opt_state, losses.sum()

    return step


def of_part(error, own, mask):
    return error.sum() / own.sum() / PARTS


def of_all(error, own, mask):
    return error.sum() / mask.sum()


def of_rows(error, own, mask):
    return (error.sum((1, 2)) / own.sum((1, 2))).mean() / PARTS


def test_a_mean_of_means_of_unlike_parts_is_told():
    found = first(stepping(of_part), begun(), batches(1))
    assert found.cause == "loss_mismatch"
    assert "a mean of 4 means, of parts with 6 to 48 targets" in found.evidence


@pytest.mark.parametrize(
    ("mean", "full"),
    [(of_all, 1), (of_part, 6), (of_rows, 1)],
    ids=["of all targets", "of parts that are nearly alike", "of rows, as it may be meant"],
)
def test_other_means_are_meant(mean, full):
    assert "loss_mismatch" not in faults(stepping(mean), begun(), batches(full))
