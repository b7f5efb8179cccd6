"""Rows of a table as numbers, held against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from written import refused

from nnref.data.encoding import MOST, Encoder, parts_of
from nnref.data.reading import typed

TABLE = {
    "size": typed(["1", "2", "", "4", "100"]),
    "colour": typed(["red", "blue", "red", "", "green"]),
}
TRAIN = np.array([0, 1, 2, 3])


def encoder(table=TABLE, rows=TRAIN, fill="median", dates="cyclic", embedding=None, **inputs):
    inputs = inputs or {"size": "number", "colour": "category"}
    made = Encoder(inputs, fill, dates, embedding=embedding)
    made.fit(table, rows)
    return made


def test_gaps_and_categories_are_those_of_the_training_rows_alone():
    made = encoder()
    assert made.names == ["size", "size missing", "colour=blue", "colour=missing", "colour=red"]
    assert made.scaled.tolist() == [True, False, False, False, False]
    np.testing.assert_array_equal(
        made(TABLE),
        [
            [1, 0, 0, 0, 1],
            [2, 0, 1, 0, 0],
            [2, 1, 0, 0, 1],  # the median of 1, 2 and 4: the 100 is not trained on
            [4, 0, 0, 1, 0],
            [100, 0, 0, 0, 0],  # green is unknown
        ],
    )
    assert encoder(fill="mean")(TABLE)[2, 0] == pytest.approx(7 / 3)


def test_a_gap_that_no_training_row_has_makes_no_column():
    made = encoder(rows=np.array([0, 1, 3]), size="number")
    assert made.names == ["size"]
    np.testing.assert_array_equal(made(TABLE)[:, 0], [1, 2, 2, 4, 100])


def test_gaps_of_new_rows_are_filled_by_rows_from_all_of_training():
    sizes = typed([str(i) for i in range(6000)])
    table = {"size": sizes, "holed": typed(["1", "3", ""] * 2000)}
    made = encoder(table, np.arange(6000), size="number", holed="number")
    assert made.names == ["size", "holed", "holed missing"]
    new = {"size": typed([""]), "holed": typed([""])}
    np.testing.assert_allclose(made(new), [[2998.5, 2, 1]])


def test_gaps_are_refused_where_nothing_may_stand_in_them():
    told = refused(encoder, fill="refuse")
    assert told == (
        'data: 1 columns lack numbers (size: 1); write "fill": "median" or "mean", or fill them in '
        "the file"
    )


def test_new_rows_in_any_order_with_gaps_and_unknown_categories():
    made = encoder({"size": typed(["1", "2", "9"]), "colour": typed(["a", "b", "b"])}, np.arange(3))
    new = {"other": typed(["x"]), "colour": typed(["c"]), "size": typed([""])}
    np.testing.assert_array_equal(made(new), [[2, 0, 0]])
    assert made.doubts(new) == [
        "cells are missing in size: 1; filled by the median of training",
        "colour: c was in no training row, and counts as none that was, or as the rare ones",
    ]
    assert made.doubts({"size": typed(["1"]), "colour": typed(["a"])}) == []
    assert "is no number" in refused(made, {"size": typed(["big"]), "colour": typed(["a"])})


def test_numbers_that_name_categories_are_known_again():
    table = {"kind": typed(["1", "2", "two"])}
    made = encoder(table, np.arange(3), kind="category")
    np.testing.assert_array_equal(made({"kind": typed(["2"])}), made(table)[1:2])


def test_rare_categories_share_a_column():
    cells = [f"{i:03}x" for i in range(80) for _ in range(1 + (i < 60))]
    made = encoder({"a": typed(cells)}, np.arange(len(cells)), a="category", embedding=0)
    assert len(made.names) == MOST
    assert made.names[-1] == "a=others"
    np.testing.assert_array_equal(made({"a": typed(["079x"])})[0], np.eye(MOST)[-1])


def test_texts_that_never_come_back_are_refused_and_the_words_help():
    cells = [f"text {i}" for i in range(60)]
    table = {"a": typed(cells), "b": typed([str(i % 7) for i in range(60)])}
    told = refused(encoder, table, np.arange(60), a="category", b="number")
    assert told.startswith('data: each of the 60 texts in "a" stands in one training row')
    assert 'write "drop": ["a"]' in told
    assert encoder(table, np.arange(60), b="number").names == ["b"]
    assert len(encoder({"a": typed(cells * 2)}, np.arange(120), a="category").vectors) == 1


def test_several_new_categories_are_told_and_no_gap_is_filled_where_none_may_be():
    table = {"size": typed([""] * 2), "colour": typed(["a", "b"])}
    made = encoder(
        {"size": typed(["1", "2"]), "colour": typed(["x", "y"])}, np.arange(2), fill="refuse"
    )
    assert made.doubts(table) == [
        "colour: a, b were in no training row, and count as none that was, or as the rare ones"
    ]
    assert refused(made, table) == 'numbers are missing in size, and "fill" refuses that'


def test_what_a_column_of_the_inputs_was_made_of():
    table = {"a": typed(["x", "y"]), "a=b": typed(["u", "v"]), "day": typed(["2020-01-01", ""])}
    made = encoder(table, np.arange(2), **{"a": "category", "a=b": "category", "day": "date"})
    sources = {name: made.source_of(name) for name in made.names}
    assert sources == {
        "a=x": "a",
        "a=y": "a",
        "a=b=u": "a=b",
        "a=b=v": "a=b",
        "day: days": "day",
        "day: days missing": "day",
    }


def test_infinite_numbers_are_refused():
    table = {"size": typed(["1", "inf", ""])}
    told = refused(encoder, table, np.arange(2), size="number")
    assert told == (
        "data: 1 numbers are infinite (size: 1), the first in row 2; correct them in the file, or "
        'write "missing": ["inf", "-inf"] where they are none'
    )


def test_parts_of_a_date():
    cells = np.array(["2024-01-01T06:00", "2024-12-31", "NaT"], "datetime64[us]")  # Monday, Tuesday
    parts = parts_of(cells, "parts")
    got = {name: part[:2].tolist() for name, part in parts.items()}
    assert got == {
        "days": [19723.25, 20088.0],
        "year": [2024, 2024],
        "month": [1, 12],
        "weekday": [0, 1],
        "day": [1, 31],
        "hour": [6, 0],
    }
    assert all(np.isnan(part[2]) for part in parts.values())
    cyclic = parts_of(cells, "cyclic")
    assert cyclic["day sin"][:2] == pytest.approx([1, 0], abs=1e-12)
    assert cyclic["week sin"][:2] == pytest.approx([0, np.sin(2 * np.pi / 7)])
    assert abs(cyclic["year sin"][0] - cyclic["year sin"][1]) < 0.02
    assert list(parts_of(cells, "number")) == ["days"]


def test_parts_that_never_change_are_left_out():
    days = [f"2024-01-{day:02}" for day in (1, 8, 15)]  # Mondays
    made = encoder({"day": typed(days)}, np.arange(3), day="date")
    assert made.names == ["day: days", "day: year sin", "day: year cos"]


@pytest.mark.parametrize(("fill", "embedding"), [("median", 0), ("mean", 0), ("mean", None)])
def test_an_encoder_comes_back_from_plain_values_to_the_bit(fill, embedding):
    sizes = [
        repr(v) if i % 7 else ""
        for i, v in enumerate(np.random.default_rng(0).normal(size=150).tolist())
    ]
    table = {
        "size": typed(sizes),
        "full": typed([str(i / 3) for i in range(150)]),
        "kind": typed([f"{i % 61}k" for i in range(150)]),
        "few": typed(["a", "b", ""] * 50),
        "day": typed([f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(150)]),
    }
    kinds = {
        "size": "number",
        "full": "number",
        "kind": "category",
        "few": "category",
        "day": "date",
    }
    made = encoder(table, np.arange(0, 150, 2), fill=fill, embedding=embedding, **kinds)
    again = Encoder.from_json(json.loads(json.dumps(made.to_json())))
    assert ("kind=others" if embedding == 0 else "kind") in made.names
    new = {**table, "full": typed([""] * 150), "few": typed(["new"] * 150)}
    for rows in (table, new):
        np.testing.assert_array_equal(again(rows), made(rows))
        assert again.doubts(rows) == made.doubts(rows)
    assert (again.names, again.scaled.tolist()) == (made.names, made.scaled.tolist())


MANY = np.array([f"town {i}" for i in range(60)] * 2 + ["once"])


def many(rows=None, **keys):
    table = {"town": typed(MANY.tolist()), "size": typed([str(i % 7) for i in range(len(MANY))])}
    table["trade"] = typed([["a", "b"][i % 2] for i in range(len(MANY))])
    inputs = {"town": "category", "size": "number", "trade": "category"}
    made = Encoder(inputs, "median", "cyclic", **keys)  # type: ignore
    made.fit(table, np.arange(len(MANY)) if rows is None else rows)
    return table, made, made(table)


def test_many_categories_become_numbers_in_front_of_all_other_columns():
    table, made, x = many()
    assert made.names == ["town", "size", "trade=a", "trade=b"]
    assert made.scaled.tolist() == [False, True, False, False]
    assert made.vectors == {"town": (61, 6)}  # 60 towns and one for the rest; 2 * 61 ** 0.25 = 5.6
    assert [made.numbered["town"].categories_[0][int(n)] for n in x[:5, 0]] == MANY[:5].tolist()
    assert x[-1, 0] == 60, "what is there once shares the last number with what is unknown"
    layout = made.layout
    assert layout is not None
    assert layout.names == ("categories", "numbers")
    assert layout.shapes == ((1,), (3,))
    new = {"town": typed(["elsewhere", "town 3"]), "size": typed(["1", "2"])}
    new["trade"] = typed(["a", "b"])
    assert made(new)[:, 0].tolist() == [60, x[3, 0]]
    assert made.doubts(new) == [
        "town: elsewhere was in fewer than 2 training rows, and counts as the rare ones do"
    ]
    back = Encoder.from_json(json.loads(json.dumps(made.to_json())))
    np.testing.assert_array_equal(back(table), x)
    assert (back.vectors, back.layout) == (made.vectors, made.layout)


def test_few_categories_have_columns_and_so_have_many_where_no_vectors_are_wanted():
    _, made, x = many(rows=np.arange(MOST))
    assert made.layout is None
    assert x.shape[1] == 1 + 2 + MOST
    _, made, x = many(embedding=0)
    assert made.layout is None
    assert x.shape[1] == 1 + 2 + MOST
    assert many(embedding=3)[1].vectors == {"town": (61, 3)}
