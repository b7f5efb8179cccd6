"""A task of a user: what it takes, and what is said where something is missing."""

import pytest
from networks import X, Y, task

from nnref import UserError


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": None}, "loss is missing"),
        ({"init": None}, "init, called as init(key), is missing"),
        ({"apply": None}, "apply, called as apply(params, x), is missing"),
        ({"train": None}, "train is missing"),
        ({"train": (X, Y[:5])}, "rows come first"),
        ({"train": X}, "must be a pair"),
        ({"apply": lambda params, x, wings: x}, "'wings' has no default and no known name"),
        ({"apply": lambda params: 0}, "x is missing"),
        ({"init": lambda key, x, y: 0}, "functools.partial"),
        ({"model": 3}, "not both"),
        ({"model": 3, "init": None, "apply": None}, "a int is none that nnref knows"),
    ],
)
def test_what_is_missing_is_said(change, words):
    with pytest.raises(UserError) as told:
        task(**change)
    assert words in str(told.value)


def test_rows_become_arrays_and_a_split_that_is_not_there_stays_away():
    made = task(train=([[1.0, 2.0, 3.0]], [[4.0]]), valid=(X[:2], Y[:2]))
    assert made.train.x.shape == (1, 3)
    assert made.test is None
    assert list(made.arrays) == ["train", "valid"]
    assert list(task().arrays) == ["train"]
