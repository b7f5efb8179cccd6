"""A task that is not learned, with small edits of its functions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref

DRAWN = np.random.default_rng(0)
ROWS = 1200
X = DRAWN.normal(size=(ROWS, 12, 8)).astype(np.float32)
MASK = (DRAWN.uniform(size=(ROWS, 12)) < 0.5).astype(np.float32)
MASK[:, 0] = 1
SIGNS = np.tanh(X @ DRAWN.normal(size=8))
Y = ((SIGNS * MASK).sum(1) / MASK.sum(1) > 0).astype(np.float32)


def init(key):
    keys = jax.random.split(key, 3)
    sizes = {"a": (8, 32), "b": (32, 32), "o": (32, 1)}
    return {
        name: jax.random.normal(k, sizes[name]) / np.sqrt(sizes[name][0])
        for name, k in zip(sizes, keys, strict=True)
    }


def hidden(params, x):
    return jnp.tanh(x @ params["a"])


def pooled(params, batch):
    x, mask = batch
    mean = (hidden(params, x) * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
    return (jax.nn.relu(mean @ params["b"]) @ params["o"])[:, 0]


def pooled_otherwise(params, batch):
    x, mask = batch
    mean = (hidden(params, x) * (1 - mask[:, :, None])).sum(1) / mask.sum(1)[:, None]
    return (jax.nn.relu(mean @ params["b"]) @ params["o"])[:, 0]


def loss(outputs, y):
    return optax.sigmoid_binary_cross_entropy(outputs, y).mean()


@pytest.mark.parametrize(
    ("apply", "causes"), [(pooled_otherwise, ["wrong_expression"]), (pooled, [])]
)
def test_a_mask_that_is_turned_round_is_told_by_what_cures_it(apply, causes):
    """No shape, no dtype and no simple model knows which half of a mask was meant."""
    train, valid = slice(0, 900), slice(900, None)
    task = nnref.Task(
        init=init,
        apply=apply,
        loss=loss,
        train=((X[train], MASK[train]), Y[train]),
        valid=((X[valid], MASK[valid]), Y[valid]),
    )
    found = nnref.diagnose(task, optimizer=optax.adam(3e-3), batch_size=32, epochs=10, effort=0.3)
    assert not found.mistakes
    assert [fault.cause for fault in found.faults] == causes
    for fault in found.faults:
        assert "mask[:, :, None]" in fault.remedy
        assert "test_edited.py" in fault.where
