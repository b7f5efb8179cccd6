"""Which rows a loss of times until an event holds against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnref
from nnref.diagnosis.api import recipe_from
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.survival import at_risk


def cox(sign):
    """The partial likelihood, of rows sorted by their times, times a sign."""

    def loss(risk, y):
        order = jnp.argsort(sign * y[:, 0])
        risk, event = risk[order, 0], y[order, 1]
        return jnp.sum((jax.lax.cumlogsumexp(risk) - risk) * event) / jnp.maximum(event.sum(), 1)

    return loss


def pairs(risk, y):
    """A hinge of each row that has its event against all that stay longer."""
    before = (y[:, None, 0] < y[None, :, 0]) & (y[:, None, 1] > 0)
    return jnp.mean(before * jnp.maximum(1 - risk[:, None, 0] + risk[None, :, 0], 0))


def of_each(risk, y):
    """The likelihood of exponential times, row by row."""
    return jnp.mean(jnp.exp(risk[:, 0]) * y[:, 0] - y[:, 1] * risk[:, 0])


@pytest.mark.parametrize(
    ("loss", "causes"),
    [(cox(1), ["loss_mismatch"]), (cox(-1), []), (pairs, []), (of_each, [])],
    ids=["those who left before", "those at risk", "pairs", "row by row"],
)
def test_those_at_risk_are_still_there(loss, causes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = np.stack([rng.exponential(size=64), rng.uniform(size=64) < 0.6], 1).astype(np.float32)
    task = nnref.Task(
        init=lambda key: {"w": jnp.zeros((3, 1))},
        apply=lambda params, x: x @ params["w"],
        loss=loss,
        train=(x, y),
    )
    found = at_risk(AtStart(recipe_from(task, {})))
    assert [finding.cause for finding in found] == causes
