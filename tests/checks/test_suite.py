"""All properties at once, as one line of a test."""

import numpy as np
import optax
import pytest
from networks import X, Y, task

import nnref
from nnref import checks


def test_a_healthy_network():
    checked = nnref.check(task())
    assert "gradients_match_finite_differences" in checked.held
    assert "too few" in checked.skipped["labels_belong_to_rows"]
    assert "key_matters" in checked.skipped
    assert len(str(checked).splitlines()) == len(checked.held) + len(checked.skipped)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"loss": lambda o, y: -((o - y) ** 2)}, "loss_fits_outputs"),
        ({"train": (np.where(X > 2, np.nan, X), Y)}, "data_summary"),
    ],
)
def test_a_fault_raises_with_the_text_of_its_finding(changes, name):
    with pytest.raises(AssertionError, match=f"({name}): "):
        nnref.check(task(**changes))
    with pytest.raises(AssertionError, match="all_parameters_train: "):
        nnref.check(task(), optimizer=optax.sgd(-0.1))


def test_the_wing_is_a_door():
    assert nnref.checks is checks
