"""Rows of the batches that were never labelled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import TX, faults

RANDOM = np.random.default_rng(0)
MAPS = (RANDOM.random((600, 16)) < 0.3).astype(np.int32)
KIND = RANDOM.integers(0, 2, 600)
SEEN = (RANDOM.normal(size=(600, 16)) + 2 * MAPS).astype(np.float32)
SEEN[:, 0] += KIND
MISSING = RANDOM.random(600)[:, None] < 0.6


def params():
    first, second, third = jax.random.split(jax.random.key(0), 3)
    return {
        "trunk": jax.random.normal(first, (16, 32)) / 4,
        "cells": jax.random.normal(second, (32, 16)) / 6,
        "kind": jax.random.normal(third, (32, 2)) / 6,
    }


@jax.jit
def step(params, moments, batch):
    """Two heads on a trunk; cells below 0 are left out."""

    def loss(params):
        h = jax.nn.relu(batch["x"] @ params["trunk"])
        known = batch["cells"] >= 0
        cells = optax.sigmoid_binary_cross_entropy(h @ params["cells"], batch["cells"])
        kind = optax.softmax_cross_entropy_with_integer_labels(h @ params["kind"], batch["kind"])
        return kind.mean() + jnp.where(known, cells, 0).sum() / jnp.maximum(known.sum(), 1)

    value, gradient = jax.value_and_grad(loss)(params)
    updates, moments = TX.update(gradient, moments)
    return optax.apply_updates(params, updates), moments, value


@pytest.mark.parametrize(
    ("cells", "causes"),
    [
        (np.where(MISSING, 0, MAPS), ["corrupted_labels"]),
        (np.where(MISSING, -1, MAPS), []),
        (MAPS, []),
    ],
)
def test_rows_that_were_filled_in_count_in_the_loss(cells, causes):
    def rows(number):
        at = np.random.default_rng(number).integers(0, 600, 32)
        return {"x": SEEN[at], "cells": cells[at], "kind": KIND[at]}

    assert faults(step, (params(), TX.init(params())), rows) == causes
