"""What is told at the door of a file: each doubt where it is due, none where it is not."""

import numpy as np
from written import npz_file, told_of

from nnref.data import doubts
from nnref.data.reading import Column, typed

rng = np.random.default_rng(0)
ROWS = 200
Y = rng.normal(size=ROWS)
DEALT = {"train": np.arange(120), "valid": np.arange(120, 160), "test": np.arange(160, 200)}


def texts(cells):
    return typed([str(cell) for cell in cells])


def test_a_copy_of_the_target_is_told():
    noisy = Y + 0.01 * rng.normal(size=ROWS)
    table = {"y": Column(Y), "pounds": Column(2.2 * Y + 3), "noisy": Column(noisy)}
    told = list(doubts.copies_of_the_target(table, "y", ["pounds", "noisy"]))
    assert told == [
        'data: "pounds" is the target, or a multiple of it, in each of 200 rows; if it is not '
        'known before the target is, write "drop": ["pounds"]'
    ]
    assert not list(doubts.copies_of_the_target(table, "y", ["pounds"]))  # a line, for a lesson


def test_another_name_of_the_classes_is_told():
    kind = rng.integers(0, 3, ROWS)
    table = {
        "kind": texts(np.array(["a", "b", "c"])[kind]),
        "number": Column(7.0 * kind),
        "nearly": Column(np.where(np.arange(ROWS) == 9, 5, 7.0 * kind)),
        "finer": Column(kind + 3.0 * rng.integers(0, 2, ROWS)),
    }
    told = list(doubts.copies_of_the_target(table, "kind", ["number", "nearly", "finer"]))
    assert len(told) == 1
    assert told[0].startswith('data: "number" is another name of the target')


def test_groups_that_stand_in_two_splits_are_told():
    table = {"pid": texts(np.arange(ROWS) % 50), "own": texts(np.arange(ROWS))}
    table["apart"] = texts(np.arange(ROWS) // 20)
    told = list(doubts.groups_in_two_splits(table, ["pid", "own", "apart"], DEALT))
    assert len(told) == 2
    assert told[0] == (
        'data: 40 of 40 rows of valid have a "pid" that is also in train; where new rows will have '
        'new ones, write "split": "group", "by": "pid"'
    )


def test_a_broken_order_of_time_is_told():
    days = np.datetime64("2020-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "D")
    shuffled = days[rng.permutation(ROWS)]
    assert not list(doubts.time_order({"day": Column(days)}, ["day"], DEALT))
    (told,) = doubts.time_order({"day": Column(shuffled)}, ["day"], DEALT)
    assert told.endswith('write "split": "time", "by": "day"')


def test_rare_classes_and_odd_values_are_told():
    labels = np.repeat([0, 1, 2], [100, 95, 5])
    (told,) = doubts.imbalance(labels, ("a", "b", "c"), False)
    assert "1 of 3 classes are rare among 200 training rows (c: 5)" in told
    assert not list(doubts.imbalance(labels, ("a", "b", "c"), True))
    assert not list(doubts.imbalance(np.repeat([0, 1], [120, 80]), ("a", "b"), False))
    (told,) = doubts.odd_values("rain", np.where(np.arange(ROWS) % 5, 0, 1 + np.abs(Y)))
    assert '"rain" is 0 in 160 of 200 training rows' in told
    (told,) = doubts.odd_values("price", np.exp(3 * Y))
    assert '"price" is skewed (' in told
    assert not list(doubts.odd_values("y", Y))


def test_splits_of_an_archive_scaled_each_by_itself_are_told(tmp_path):
    x, y = rng.normal(3, 2, size=(120, 4)), np.arange(120) % 2
    train, valid = x[:80], x[80:]
    own = [(part - part.mean(0)) / part.std(0) for part in (train, valid)]
    told = told_of(
        path=npz_file(tmp_path, x=own[0], y=y[:80], x_valid=own[1], y_valid=y[80:]), target="y"
    )
    assert (
        "the rows of train and of valid each have mean 0 and deviation 1 (80 of train, 40"
        in told[0]
    )
    fair = [(part - train.mean(0)) / train.std(0) for part in (train, valid)]
    assert not list(doubts.scaled_by_their_own({"train": fair[0], "valid": fair[1]}))
