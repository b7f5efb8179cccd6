"""Loaders of every form, as arrays in their order."""

import numpy as np
import pytest

from nnref.diagnosis.pipeline.epochs import epochs_of
from nnref.errors import UserError

X = np.arange(24, dtype=np.float32).reshape(8, 3)
Y = np.arange(8)
PAIRS = [(X[:4], Y[:4]), (X[4:], Y[4:])]


class Tensor:
    """What an array of another library is: it can be made into one of NumPy."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


FORMS = {
    "batches": PAIRS,
    "a function": lambda: iter(PAIRS),
    "a function of the epoch": lambda epoch: PAIRS if epoch < 9 else [],
    "lists": [list(pair) for pair in PAIRS],
    "weights beside them": [(*pair, np.ones(4)) for pair in PAIRS],
    "dicts": [{"image": x, "label": y, "id": 3} for x, y in PAIRS],
    "rows": list(zip(X, Y, strict=True)),
    "rows in dicts": [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)],
    "tensors": [(Tensor(x), Tensor(y)) for x, y in PAIRS],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_loader_of_any_form_gives_the_same_rows(form):
    for epoch in epochs_of(FORMS[form], 2):
        np.testing.assert_array_equal(epoch.x, X)
        np.testing.assert_array_equal(epoch.y, Y)
        assert epoch.ended
        assert epoch.sizes == (() if "rows" in form else (4, 4))


def test_an_iterator_has_one_epoch():
    first, second = epochs_of(iter(PAIRS), 2)
    assert len(first) == 8
    assert second is None


def test_a_loader_without_end_is_cut():
    def endless():
        while True:
            yield PAIRS[0]

    (epoch,) = epochs_of(endless, 1, rows=10)
    assert len(epoch) == 12
    assert not epoch.ended


def test_names_of_inputs_and_targets():
    (epoch,) = epochs_of([{"a": X, "b": Y}], 1, keys=("a", "b"))
    np.testing.assert_array_equal(epoch.y, Y)
    with pytest.raises(UserError, match="dicts of a, b; say which"):
        epochs_of([{"a": X, "b": Y}], 1)


def test_short_batches_are_filled_up():
    (epoch,) = epochs_of([(X[:4], Y[:4]), (X[4:, :2], Y[4:])], 1)
    np.testing.assert_array_equal(epoch.x[4:, 2], 0)
    np.testing.assert_array_equal(epoch.x[4:, :2], X[4:, :2])


def test_sequences_one_by_one_are_said_to_be_rows():
    (epoch,) = epochs_of([(np.arange(5), np.arange(5))] * 3, 1, batched=False)
    assert epoch.x.shape == (3, 5)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (3, "load is a int"),
        ([X], "gives a ndarray"),
        ([(X[:3], Y[:3]), (X, Y[:2])], "8 inputs and 2 targets"),
        ([(np.array(["a"]), Y[:1])], "no numbers"),
        ([(X, Y), (X[:, :, None], Y)], "rows of shapes"),
    ],
)
def test_what_is_no_loader_is_refused(load, message):
    with pytest.raises(UserError, match=message):
        epochs_of(load, 1)
