"""A metric of a user's: which way it goes, and what one answer for all rows gets."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from networks import linear

from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.own_metric import OwnMetric, right_answers


def root(outputs, y):
    return jnp.sqrt(jnp.mean((outputs - y) ** 2))


def broadcast(outputs, y):
    return jnp.sqrt(jnp.mean((outputs - y[:, 0]) ** 2))


def r2(outputs, y):
    return 1 - jnp.mean((outputs - y) ** 2) / jnp.var(y)


@pytest.mark.parametrize(("metric", "counts"), [(root, True), (broadcast, False), (r2, False)])
def test_a_metric_that_counts_errors_is_not_taken_for_one_of_successes(metric, counts):
    """A root of mean squares is 0 where all is right; one that broadcasts is not, and is asked."""
    measured = Measurements(replace(linear(), metric=metric))
    skill = measured.skill
    assert skill.errors_counted == counts
    assert ("less for right answers" in skill.metric.refused) == counts
    assert skill.fits
    learned = skill.outcome(measured.run.params, measured.run.state).skill
    assert (learned == pytest.approx(measured.recomputed)) == (metric is not broadcast)


def decibels(outputs, y):
    return 10 * jnp.log10(4 / (1e-6 + jnp.mean((outputs - y) ** 2)))


def test_a_metric_whose_best_is_more_than_1_is_no_share():
    skill = Measurements(replace(linear(), metric=decibels)).skill
    assert not skill.asks_metric
    assert "more than 1 for right answers" in skill.metric.refused
    assert Measurements(replace(linear(), metric=r2)).skill.asks_metric


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_errors_of_classes_are_counted_too(kind):
    y = np.arange(60) % (2 if kind == "binary" else 3)
    outputs = np.zeros((60, 1 if kind == "binary" else 3), np.float32)

    def wrong(outputs, y):
        answers = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(1)
        return jnp.mean(answers != y)

    assert OwnMetric(wrong, kind, one_array=True).counts_errors(outputs, y)
    right = OwnMetric(lambda outputs, y: 1 - wrong(outputs, y), kind, one_array=True)
    assert not right.counts_errors(outputs, y)
    assert right.most_of_constants(outputs, y) == pytest.approx(1 / len(np.unique(y)))


def test_one_answer_for_all_pixels_is_asked_of_an_overlap():
    """Where most pixels are of a class, to answer it everywhere is no skill."""
    y = (np.random.default_rng(0).random((20, 6, 6)) < 0.9).astype(np.float32)

    def overlap(outputs, y):
        found, truth = outputs > 0, y > 0.5
        return jnp.sum(found & truth) / jnp.sum(found | truth)

    most = OwnMetric(overlap, "multilabel", one_array=True).most_of_constants(0 * y, y)
    assert most == pytest.approx(y.mean())


def test_a_distance_of_shares_counts_errors_too():
    """Of probabilities: logits that are right are far away from them."""
    y = np.arange(60) % 2

    def brier(outputs, y):
        return jnp.mean((outputs[:, 0] - y) ** 2)

    assert OwnMetric(brier, "binary", one_array=True).counts_errors(np.zeros((60, 1)), y)


@pytest.mark.parametrize(
    ("kind", "outputs", "y"),
    [
        ("regression", (6, 2), np.zeros(6)),  # two outputs, one target
        ("multiclass", (6, 3), np.full(6, -1)),  # classes that are left out
        ("multiclass", (6, 2), np.arange(6) % 3),  # more classes than outputs
        ("places", (6, 2), np.zeros((6, 2))),
    ],
)
def test_where_it_is_not_known_what_is_right_nothing_is_said(kind, outputs, y):
    assert not [*right_answers(kind, np.zeros(outputs), y)]
    own = OwnMetric(lambda outputs, y: 0.0, kind, one_array=True)
    assert not own.counts_errors(np.zeros(outputs), y)
