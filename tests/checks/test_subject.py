"""What a property is asked of: tasks of every form, and answers that fail."""

import numpy as np
import optax
import pytest
from networks import X, Y, apply, init, squared, task

from nnref import checks
from nnref.checks.subject import Answer, settle, subject
from nnref.diagnosis.findings import fault, note
from nnref.errors import UserError

PARTS = {"init": init, "apply": apply, "loss": squared, "train": (X, Y)}
NOTE = note("undertrained", "the run", "too short")
FAULT = fault("no_signal", "inputs", "nothing in them", "0", remedy="look at a row")


def test_a_subject_is_made_of_a_task_or_of_its_parts():
    whole, parts = subject(task()), subject(**PARTS)
    assert subject(whole) is whole
    for one, other in zip(whole.batch(3), parts.batch(3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_subject_is_told_how_it_is_trained():
    assert subject(task(), batch_size=8, epochs=3).recipe.batch_size == 8
    assert subject("experiments/xor_small.json").recipe.batch_size == 4


def test_a_subject_is_trained_as_its_task_says_unless_it_is_told_otherwise():
    """As a compiled model of Keras has its optimizer with it."""
    own, other = optax.sgd(0.1), optax.sgd(0.2)
    compiled = task()
    compiled.training = {"optimizer": own, "batch_size": 7}
    recipe = subject(compiled).recipe
    assert (recipe.optimizer, recipe.batch_size) == (own, 7)
    assert subject(compiled, optimizer=other).recipe.optimizer is other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": task(), "loss": abs}, "give a task, or loss, not both"),
        ({"task": task(), "rate": 3}, "rate is no argument"),
        ({}, "loss is missing|train is missing"),
        ({"task": 3}, "int is no task"),
        ({"task": "no.such:thing"}, "No module named"),
    ],
)
def test_what_is_no_subject_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        subject(**arguments)


def test_a_fault_fails_and_a_note_where_it_is_strict():
    with pytest.raises(AssertionError, match=r"(?s)mine: nothing in them.*measured  0.*look at a"):
        settle("mine", Answer({}, [NOTE, FAULT]), strict=False)
    with pytest.raises(AssertionError, match="mine: too short"):
        settle("mine", Answer({}, [NOTE]), strict=True)
    assert settle("mine", Answer({"a": 1}, [NOTE]), strict=False) == {"a": 1}


def test_every_property_says_what_it_is_in_a_line():
    names = [name for name in checks.__all__ if name.islower()]
    first = [getattr(checks, name).__doc__.partition("\n")[0] for name in names]
    assert all(line.endswith(".") for line in first)
