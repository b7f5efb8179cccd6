"""Which rows are trained on: by time, by group, as given."""

import numpy as np
import pytest
from written import refused

from nnref.data.reading import typed
from nnref.data.splitting import dealt, lacking, names_splits

SHARES = {"valid": 0.2, "test": 0.2, "seed": 0}
rng = np.random.default_rng(0)


def test_what_is_later_is_validated_and_tested_on():
    days = rng.permutation(np.arange(100))
    rows = dealt(
        "time", "t", typed([f"2020-{1 + d // 28:02}-{1 + d % 28:02}" for d in days]), **SHARES
    )
    assert [len(numbers) for numbers in rows.values()] == [60, 20, 20]
    assert days[rows["train"]].max() < days[rows["valid"]].min()
    assert days[rows["valid"]].max() < days[rows["test"]].min()


def test_rows_of_one_time_stay_together():
    years = np.repeat(np.arange(7), 13)
    rows = dealt("time", "year", typed(list(map(str, years))), **SHARES)
    sets = [set(years[numbers]) for numbers in rows.values()]
    assert not sets[0] & sets[1] | sets[1] & sets[2]
    assert sorted(np.concatenate(list(rows.values()))) == list(range(91))


def test_a_group_is_in_one_split():
    groups = rng.integers(0, 30, 400).astype(str)
    rows = dealt("group", "g", typed(list(groups)), **SHARES)
    sets = [set(groups[numbers]) for numbers in rows.values()]
    assert sum(map(len, sets)) == len(set(groups))
    shares = [len(numbers) / 400 for numbers in rows.values()]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.05)
    again = dealt("group", "g", typed(list(groups)), **SHARES)
    other = dealt("group", "g", typed(list(groups)), **SHARES | {"seed": 1})
    assert again["test"].tolist() == rows["test"].tolist() != other["test"].tolist()


def test_a_column_names_the_splits():
    words = ["train", "Val", "TRAINING", "test", "train", "train"]
    rows = dealt("given", "set", typed(words), **SHARES)
    assert {name: numbers.tolist() for name, numbers in rows.items()} == {
        "train": [0, 2, 4, 5],
        "valid": [1],
        "test": [3],
    }
    rows = {"train": np.array([5, 6, 7, 8]), "test": np.array([0])}
    filled = lacking(rows, np.zeros(9), valid=0.25, seed=0, stratify=False)
    assert sorted(np.concatenate([filled["train"], filled["valid"]])) == [5, 6, 7, 8]
    assert len(filled["valid"]) == 1
    assert filled["test"].tolist() == [0]


@pytest.mark.parametrize(
    ("way", "cells", "told"),
    [
        ("time", ["soon", "later"], 'holds text like "soon", no dates and no numbers'),
        ("time", ["1", ""], "1 cells of"),
        ("group", ["a", "b"] * 9, "which leave no row for"),
        ("given", ["train", "a"], "a column of splits holds train, valid and test"),
        ("given", ["test", "valid"], 'no cell of "c" is "train"'),
    ],
)
def test_columns_that_split_nothing_are_refused(way, cells, told):
    assert told in refused(dealt, way, "c", typed(cells), **SHARES)


def test_a_column_that_names_splits_is_known():
    assert names_splits(["train", "Test"])
    assert not names_splits(["train", "bus", "car"])
    assert not names_splits(["valid", "test"])
    assert not names_splits(["train"])
