"""How a loss reads its targets, whatever their dtype."""

import jax
import pytest
from healthy import HEALTHY, task

from nnref.diagnosis.program.loss_facts import kind_of
from nnref.diagnosis.recipe import Recipe


@pytest.mark.parametrize("name", HEALTHY)
def test_what_targets_are_is_asked_of_the_loss_not_of_their_dtype(name):
    x, y, loss, expected = HEALTHY[name]
    made = task(x, y, loss).functions
    outputs, _ = made.apply(*made.init(jax.random.key(0)), x[:8], None, False)
    recipe = Recipe(made.init, made.apply, made.loss, train=(x, y))
    assert kind_of(recipe, outputs, y[:8]) == expected
