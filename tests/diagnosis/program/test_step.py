"""State, the batch, domains, tables."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from networks import (
    BITS,
    affine,
    binary_cross_entropy,
    dense,
    ends,
    judged,
    learns,
    line_of,
    mean_squared_error,
    recipe,
)

import nnref
from nnref.diagnosis.api import DEFAULTS, recipe_from
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.step import (
    batch_of_one,
    batch_scale,
    domain_errors,
    labels_below_zero,
    modes_of_layers,
    statistics,
    tables,
)
from nnref.diagnosis.recipe import Recipe


def normalizing(written, frozen=False):
    """A network with batch statistics."""

    def init(key):
        return dense(key, 3, 2), {"mean": jnp.zeros(2)}

    def apply(params, state, x, key, train):
        z = affine(params["dense0"], x)
        if not train or frozen:
            return z - state["mean"], state
        new = {"mean": 0.9 * state["mean"] + 0.1 * z.mean(0)} if written else state
        return z - z.mean(0), new

    return dataclasses.replace(recipe(learns, (3, 2)), init=init, apply=apply)


def test_running_statistics_that_are_not_written():
    (finding,) = statistics(AtStart(normalizing(written=False)))
    assert (finding.cause, finding.severity) == ("batch_statistics_not_updated", "fault")
    assert finding.where == "mean"
    assert list(statistics(AtStart(normalizing(written=True)))) == []
    assert list(statistics(AtStart(normalizing(written=False, frozen=True)))) == []


@pytest.mark.parametrize(("by_row", "rows", "found"), [(False, 1, 1), (False, 2, 0), (True, 1, 0)])
def test_a_batch_of_one_row_is_its_own_mean(by_row, rows, found):
    """By the batch nothing is left of one row; a mean over its features takes each by itself."""

    def apply(params, state, x, key, train):
        z = affine(params["dense0"], x)
        return z - (z.mean(1, keepdims=True) if by_row else z.mean(0) if train else 0.0), state

    asked = dataclasses.replace(recipe(learns, (3, 2)), apply=apply, batch_size=rows)
    findings = list(batch_of_one(AtStart(asked)))
    assert [finding.cause for finding in findings] == ["inputs_ignored"] * found


def always_evaluating(mean):
    """Batch normalization in evaluation mode, in training too; `mean` tells what was trained."""

    def init(key):
        return dense(key, 3, 2), {"mean": jnp.full(2, mean), "var": jnp.ones(2)}

    def apply(params, state, x, key, train):
        z = affine(params["dense0"], x)
        return (z - state["mean"]) * jax.lax.rsqrt(state["var"] + 1e-3), state

    return dataclasses.replace(recipe(learns, (3, 2)), init=init, apply=apply)


def test_statistics_that_nobody_ever_measured():
    (finding,) = statistics(AtStart(always_evaluating(0.0)))
    assert (finding.cause, finding.severity) == ("batch_statistics_not_updated", "fault")
    assert finding.where.startswith("var, ")
    assert list(statistics(AtStart(always_evaluating(0.3)))) == []


@pytest.mark.parametrize(
    ("loss", "rate", "found"),
    [
        (lambda o, y: jnp.sum((o - y) ** 2), 1e-4, [("note", "loss_summed_over_batch")]),
        (lambda o, y: jnp.sum((o - y) ** 2), 1.0, [("fault", "loss_summed_over_batch")]),
        (lambda o, y: jnp.mean(jnp.sum((o - y) ** 2, 0)), 1e-4, [("fault", "loss_axis_error")]),
        (lambda o, y: jnp.mean(jnp.sum((o - y) ** 2, 1)), 1.0, []),
    ],
)
def test_a_loss_that_grows_with_the_batch(loss, rate, found):
    asked = recipe(learns, rows=20, loss=loss, batch_size=20, optimizer=optax.sgd(rate))
    assert judged(batch_scale, asked) == found


def unguarded_cross_entropy(p, y):
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))  # unguarded


def test_a_logarithm_without_a_guard_is_noted_with_its_line():
    asked = ends(jax.nn.sigmoid, BITS, unguarded_cross_entropy)
    (finding,) = domain_errors(AtStart(asked))
    assert (finding.cause, finding.severity) == ("numerical_instability", "note")
    assert finding.where.endswith(f"{Path(__file__).name}:{line_of(__file__, 'unguarded')}")
    assert list(domain_errors(AtStart(ends(jax.nn.sigmoid, BITS, binary_cross_entropy)))) == []


@pytest.mark.parametrize(("rows", "causes"), [(5, ["inputs_ignored"]), (12, [])])
def test_indices_beyond_a_table(rows, causes):
    asked = Recipe(
        init=lambda key: ({"table": jnp.ones((rows, 2))}, {}),
        apply=lambda params, state, x, key, train: (params["table"][x].sum(1), state),
        loss=mean_squared_error,
        train=(np.arange(24).reshape(12, 2) // 2, np.ones((12, 2), np.float32)),
    )
    found = list(tables(AtStart(asked)))
    assert [finding.cause for finding in found] == causes


LABELS = np.array([0, 1, -1, 2] * 3, np.int32)


@pytest.mark.parametrize(
    ("weights", "causes"),
    [(lambda y: jnp.ones(y.shape), ["loss_mismatch"]), (lambda y: (y >= 0) * 1.0, [])],
    ids=["counted", "masked"],
)
def test_labels_below_zero_that_a_loss_counts(weights, causes):
    def loss(logits, y):
        each = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]
        return jnp.sum(each * weights(y)) / jnp.sum(weights(y))

    asked = recipe(learns, (3, 5, 3), y=LABELS, loss=loss)
    assert [finding.cause for finding in labels_below_zero(AtStart(asked))] == causes


@pytest.mark.parametrize("evaluating", [False, True])
def test_a_module_that_was_handed_over_in_evaluation_mode_is_told_of(evaluating):
    net = nnx.Sequential(nnx.Linear(3, 8, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    if evaluating:
        net.eval()
    task = nnref.Task(model=net, loss=mean_squared_error, train=(np.ones((9, 3)), np.ones((9, 8))))
    found = list(modes_of_layers(AtStart(recipe_from(task, dict(DEFAULTS)))))
    assert [f.cause for f in found] == ["training_in_evaluation_mode"] * evaluating
    assert all(f.severity == "note" and "layers.1 (Dropout)" in f.where for f in found)
