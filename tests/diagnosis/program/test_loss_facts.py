"""How a loss reads its targets, whatever their dtype."""

import jax
import numpy as np
import pytest
from healthy import (
    CLASSES,
    COUNTS,
    HEALTHY,
    RATES,
    bce,
    huber,
    pinball,
    poisson,
    softmax_of_indices,
    squared,
    task,
)

from nnref.diagnosis.program.loss_facts import kind_of, takes_indices, where_least
from nnref.diagnosis.recipe import Recipe


@pytest.mark.parametrize("name", HEALTHY)
def test_what_targets_are_is_asked_of_the_loss_not_of_their_dtype(name):
    x, y, loss, expected = HEALTHY[name]
    made = task(x, y, loss).functions
    outputs, _ = made.apply(*made.init(jax.random.key(0)), x[:8], None, False)
    recipe = Recipe(made.init, made.apply, made.loss, train=(x, y))
    assert kind_of(recipe, outputs, y[:8]) == expected


@pytest.mark.parametrize(
    ("loss", "y", "place"),
    [
        (squared, COUNTS, "target"),
        (huber, COUNTS, "target"),
        (poisson, RATES, "elsewhere"),  # at the logarithm of the target
        (pinball, COUNTS, "elsewhere"),  # steeper on one side
        (bce, COUNTS, "nowhere"),  # it falls without end
    ],
    ids=["squared", "huber", "poisson", "pinball", "logits"],
)
def test_where_a_loss_is_least(loss, y, place):
    assert where_least(loss, (2, 1), y) == place


def test_a_loss_takes_indices_where_all_beyond_the_last_class_are_the_same():
    labels, outputs = CLASSES[:8], np.zeros((8, 3), np.float32)
    assert takes_indices(softmax_of_indices, outputs, labels)
    assert not takes_indices(squared, outputs[:, 0], labels)
    assert not takes_indices(softmax_of_indices, outputs, labels + 0.5)
