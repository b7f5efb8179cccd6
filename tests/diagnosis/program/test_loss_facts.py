"""How a loss reads its targets, whatever their dtype."""

import jax
import jax.numpy as jnp
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

from nnref.diagnosis.program.loss_facts import (
    goes_round,
    kind_of,
    takes_indices,
    where_least,
)
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


def of_a_turn(angle, y):
    return (1 - jnp.cos(angle - y)).mean()


def of_a_day(clock, hour):
    """Sine and cosine of the hour against the two outputs."""
    angle = 2 * np.pi * hour / 24
    return ((clock - jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)) ** 2).mean()


@pytest.mark.parametrize(
    ("loss", "shape", "y", "round"),
    [
        (of_a_turn, (), np.linspace(-3.141, 3.139, 300), True),
        (of_a_day, (2,), np.arange(240) % 24, True),
        (of_a_turn, (), np.linspace(0, 2, 300), False),  # a part of the circle
        (squared, (1,), COUNTS, False),
        (lambda z, y: jnp.minimum((z - y) ** 2, 1).mean(), (), np.linspace(-9, 9, 300), False),
        (poisson, (1,), RATES, False),
        (lambda z, y: (z**2).mean(), (), np.linspace(-9, 9, 300), False),  # it looks at no target
    ],
    ids=["angle", "hour", "part of a turn", "squared", "clipped", "poisson", "no target"],
)
def test_a_loss_says_whether_its_targets_go_round(loss, shape, y, round):
    y = np.asarray(y) if np.asarray(y).dtype.kind == "i" else np.float32(y)
    assert goes_round(loss, shape, y) is round
