"""Inputs whose numbers stand in another order than their shape says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref
from nnref.diagnosis.api import recipe_from
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.misread_inputs import misread

ROWS, BANDS, STEPS = 300, 12, 40


def chirps(seed):
    """Spectrograms, (rows, bands, steps), of a tone that rises or falls, and which it is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, ROWS)
    x = 0.7 * rng.normal(size=(ROWS, BANDS, STEPS))
    for row, falls in enumerate(y):
        begin = rng.integers(0, STEPS - 8)
        for k in range(8):
            tone = 8 - k if falls else k + 1
            x[row, :, begin + k] += 2 * np.exp(-((np.arange(BANDS) - tone) ** 2) / 3)
    return x.astype(np.float32), y


def transposed(x):
    return np.ascontiguousarray(x.transpose(0, 2, 1))


def reshaped(x):
    return x.reshape(len(x), STEPS, BANDS)


def shuffled(x):
    """Bands and steps in an order of their own: neighbours are alike in no order."""
    rng = np.random.default_rng(3)
    return reshaped(x)[:, rng.permutation(STEPS)][:, :, rng.permutation(BANDS)]


def measured(frames):
    """A convolution over three steps and the maximum over time, trained on frames of chirps."""

    def init(key):
        first, second = jax.random.split(key)
        return {
            "kernel": jax.random.normal(first, (3, BANDS, 8)) / 6,
            "head": jax.random.normal(second, (8, 2)) / 3,
        }

    def apply(params, x):
        dims = ("NWC", "WIO", "NWC")
        hidden = jax.lax.conv_general_dilated(
            x, params["kernel"], (1,), "VALID", dimension_numbers=dims
        )
        return jnp.max(jax.nn.relu(hidden), axis=1) @ params["head"]

    (x, y), (xv, yv) = chirps(0), chirps(1)
    task = nnref.Task(
        init=init,
        apply=apply,
        loss=lambda o, y: optax.softmax_cross_entropy_with_integer_labels(o, y).mean(),
        train=(frames(x), y),
        valid=(frames(xv), yv),
    )
    training = {"optimizer": optax.adam(1e-2), "batch_size": 50, "epochs": 10}
    return Measurements(recipe_from(task, training))


@pytest.mark.parametrize(
    ("frames", "causes"),
    [(reshaped, ["inputs_misread"]), (transposed, []), (shuffled, [])],
    ids=["reshaped", "transposed", "shuffled"],
)
def test_spectrograms_that_were_reshaped_where_axes_should_have_been_exchanged(frames, causes):
    of_frames = measured(frames)
    found = list(misread(of_frames, np.asarray(of_frames.recipe.train[0])))
    assert [finding.cause for finding in found] == causes
    for finding in found:
        assert finding.proof.after[0] > 0.9 > finding.proof.before[0] + 0.3
        assert f"reshape(len(x), {BANDS}, {STEPS}).transpose(0, 2, 1)" in finding.remedy


HOURS = 20


def series(seed, walks):
    """Rows of (rows, hours): walks, or noise; and the change over each of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, HOURS))
    x = (x.cumsum(1) / 3 if walks else x).astype(np.float32)
    return x, x[:, -1:] - x[:, :1]


@pytest.mark.parametrize(
    ("order", "walks", "causes"),
    [
        (lambda x: x.T.reshape(x.shape), True, ["inputs_misread"]),
        (lambda x: x.reshape(x.shape[::-1]).T, True, ["inputs_misread"]),
        (lambda x: x, True, []),
        (lambda x: x.T.reshape(x.shape), False, []),
        (lambda x: x[:, np.random.default_rng(3).permutation(HOURS)], True, []),
    ],
    ids=["steps as rows", "rows as steps", "right", "noise", "columns in any order"],
)
def test_rows_and_steps_that_a_reshape_exchanged(order, walks, causes):
    (x, y), (xv, yv) = series(0, walks), series(1, walks)
    task = nnref.Task(
        init=lambda key: {"w": jnp.zeros((HOURS, 1))},
        apply=lambda params, x: x @ params["w"],
        loss=lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(order(x), y),
        valid=(order(xv), yv),
    )
    of_series = Measurements(
        recipe_from(task, {"optimizer": optax.adam(2e-2), "batch_size": 50, "epochs": 40})
    )
    found = list(misread(of_series, np.asarray(of_series.recipe.train[0])))
    assert [finding.cause for finding in found] == causes
    for finding in found:
        assert finding.proof.after[0] > 0.9 > finding.proof.before[0] + 0.3
