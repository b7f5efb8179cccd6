"""Categories that are numbered anew in another split."""

from itertools import combinations

import numpy as np
import pytest

from nnref.diagnosis.data.codes import aligned, as_they_appear, codes_in, renumbered_columns

TOWNS = 40
RANDOM = np.random.default_rng(0)
OF_TOWNS = RANDOM.normal(size=TOWNS)


def rows(towns, classes=False):
    """Rows of a town and a number; targets that depend on both."""
    number = RANDOM.normal(size=len(towns))
    y = OF_TOWNS[towns] + 0.3 * number + RANDOM.normal(0, 0.3, len(towns))
    return np.column_stack([towns, number]).astype(np.float32), y > 0 if classes else y


def anew(x):
    """Its categories numbered by an encoder of its own."""
    x = x.copy()
    x[:, 0] = np.unique(x[:, 0], return_inverse=True)[1]
    return x


@pytest.mark.parametrize("classes", [False, True])
def test_an_encoder_that_is_fitted_to_each_split(classes):
    train = rows(RANDOM.integers(0, TOWNS, 2000), classes)
    some = np.setdiff1d(np.arange(TOWNS), [3, 11, 20, 21, 30])
    x, y = rows(RANDOM.choice(some, 400), classes)
    kind = "binary" if classes else "regression"
    (found,) = renumbered_columns(train, (anew(x), y), kind)
    assert (found.column, found.known, found.here) == (0, TOWNS, TOWNS - 5)
    assert found.after > found.before + 0.2
    assert len(set(found.missing) & {3, 11, 20, 21, 30}) >= (2 if classes else 4)
    assert not list(renumbered_columns(train, (x, y), kind))  # one encoder for both


def test_rare_categories_that_come_last_and_are_missing():
    """Numbered by how often they are: a split without the last ones has no gap, and is right."""
    train = rows(np.minimum(RANDOM.geometric(0.1, 3000) - 1, TOWNS - 1))
    x, y = rows(RANDOM.integers(0, TOWNS - 6, 400))
    assert 0 < codes_in(x[:, 0]) < TOWNS
    assert not list(renumbered_columns(train, (x, y), "regression"))


def test_the_nearest_means_in_the_same_order():
    known, here = RANDOM.normal(size=(7, 2)), RANDOM.normal(size=(4, 2))
    counts = np.array([1, 5, 2, 3])

    def cost(order):
        return (counts * ((here - known[list(order)]) ** 2).sum(1)).sum()

    best = min(combinations(range(7), 4), key=cost)
    np.testing.assert_array_equal(aligned(known, here, counts), best)


@pytest.mark.parametrize("values", [[0.5, 1.0], [0.0, 2.0], [-1.0, 0.0], [np.nan, 0.0]])
def test_what_is_no_numbering(values):
    assert codes_in(np.array(values)) == 0


def numbered(names):
    """Numbers for names, as they come."""
    table = {}
    return np.array([table.setdefault(name, len(table)) for name in names])


def test_numbers_that_were_given_as_the_names_came():
    names = RANDOM.integers(0, 30, 500)
    hours, sessions = np.arange(500) % 24, np.concatenate([np.arange(n) for n in range(1, 33)])
    x = np.column_stack([numbered(names), names, hours, np.arange(500), sessions[:500]])
    assert as_they_appear(x) == [0]  # no counter, no hour, no encoder that sorts
    assert as_they_appear(np.column_stack([numbered(names % 5)])) == []  # too few to tell
