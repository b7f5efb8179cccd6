"""Losses by the book whose gradient is wrong at exactly 0, where rows stand there."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import BITS, line_of, recipe

from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.edges import edges, edges_of_loss


def by_the_book(z, y):
    return jnp.mean(jax.nn.relu(z) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))  # edges


def smooth(z, y):
    return jnp.mean(jax.nn.softplus(z) - z * y)


def hinge(z, y):
    """A kink that is one: no gradient is wrong there."""
    return jnp.mean(jnp.maximum(z, 0) + jnp.abs(z - y))


def without_bias(params, x):
    return jnp.tanh(x @ params["dense0"]["kernel"]) @ params["dense1"]["kernel"]


def made(loss, zeros):
    asked = recipe(without_bias, (3, 5, 1), y=BITS, loss=loss)
    if zeros:
        asked.train[0][0] = 0
    return AtStart(asked)


@pytest.mark.parametrize(
    ("loss", "zeros", "count"),
    [(by_the_book, True, 1), (by_the_book, False, 0), (smooth, True, 0), (hinge, True, 0)],
)
def test_a_row_that_stands_on_an_edge(loss, zeros, count):
    found = list(edges(made(loss, zeros)))
    assert [(f.severity, f.cause) for f in found] == [("fault", "wrong_gradient")] * count
    line = f"{Path(__file__).name}:{line_of(__file__, 'edges')}"
    assert all(f.where.endswith(line) for f in found)


def with_bias(params, x):
    return without_bias(params, x) + params["dense1"]["bias"]


def test_an_edge_that_is_left_at_once_is_a_note():
    asked = recipe(with_bias, (3, 5, 1), y=BITS, loss=by_the_book)
    asked.train[0][0] = np.zeros(3)
    (finding,) = edges(AtStart(asked))
    assert finding.severity == "note"


@pytest.mark.parametrize(
    ("loss", "share", "severity"),
    [
        (by_the_book, 1.0, "fault"),  # of a last kernel of zeros
        (by_the_book, 0.1, "note"),
        (by_the_book, 0.0, None),
        (smooth, 1.0, None),
        (hinge, 1.0, None),
    ],
)
def test_an_edge_in_a_bare_loss(loss, share, severity):
    asked = made(loss, zeros=0 < share < 1)
    if share == 1:
        asked.params["dense1"]["kernel"] *= 0

    def bare(params, batch):
        return loss(with_bias(params, batch[0]), batch[1])

    start = LossAtStart(bare, asked.params, asked.recipe.train, keyed=False)
    found = list(edges_of_loss(start))
    assert [(f.severity, f.cause) for f in found] == [(severity, "wrong_gradient")] * bool(severity)
    line = f"{Path(__file__).name}:{line_of(__file__, 'edges')}"
    assert all(f.where.endswith(line) for f in found)
