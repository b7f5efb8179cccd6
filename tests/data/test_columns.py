"""What columns are used for, and what is said of those that are not."""

import numpy as np
import pytest
from written import refused

from nnref.data.columns import names_groups, unique_in_words, uses_of
from nnref.data.reading import Column, typed

ROWS = 60
rng = np.random.default_rng(0)
COLUMNS = {
    "size": [f"{v:.3f}" for v in rng.normal(size=ROWS)],
    "colour": ["red", "blue", "", "red"] * 15,
    "day": [f"2020-01-{1 + i % 28:02}" for i in range(ROWS)],
    "same": ["7"] * ROWS,
    "empty": [""] * ROWS,
    "column 1": [str(i) for i in range(ROWS)],
    "row id": [str(i + 1) for i in range(ROWS)],
    "patient_id": [str(i % 9) for i in range(ROWS)],
    "PassengerId": [str(1000 + 7 * i) for i in range(ROWS)],
    "who": [f"name {i}" for i in range(ROWS)],
    "town": [f"town {i % 40}" for i in range(ROWS)],
    "holed": ["3", ""] * 30,
    "y": ["0", "1"] * 30,
}
TABLE = {name: typed(cells) for name, cells in COLUMNS.items()}


def test_each_column_is_used_as_what_it_is_or_left_out_for_a_reason():
    chosen, left = uses_of(TABLE, "y", "")
    assert chosen == {"size": "number", "colour": "category", "day": "date", "holed": "number"}
    assert left == {
        "same": "the same in every row",
        "empty": "empty",
        "column 1": "numbers the rows",
        "row id": "numbers the rows",
        "patient_id": "an id: 9 for 60 rows",
        "PassengerId": "every row has its own",
        "who": "every row has its own",
        "town": "nearly every row has its own: 40 in 60",
    }


def test_the_file_decides_where_it_says_something():
    chosen, left = uses_of(TABLE, "y", "day", inputs=["town", "patient_id", "same"])
    assert chosen == {"town": "category", "patient_id": "number", "same": "number"}
    assert set(left.values()) == {'"inputs" does not name it'}
    assert "day" not in left
    chosen, left = uses_of(TABLE, "y", "", drop=["size"], categories=["patient_id"])
    assert "size" not in chosen
    assert chosen["patient_id"] == "category"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"inputs": ["sise"]}, 'data.inputs: there is no column "sise"; the columns are size, '),
        ({"drop": ["y"]}, 'data.drop: "y" is to be used and to be left out'),
        ({"drop": ["size", "colour", "day", "holed"]}, "data: no column is left to learn from"),
    ],
)
def test_names_that_mean_nothing_are_refused(keys, told):
    assert refused(uses_of, TABLE, "y", "", **keys).startswith(told)


def test_what_is_said_of_prose_holds_when_it_is_typed():
    words = [f"this is sentence {i} of a text that nobody counts" for i in range(30)]
    table = {"a": typed(["1", "2", "3"] * 10), "text": typed(words), "y": typed(["0", "1"] * 15)}
    told = refused(uses_of, table, "y", "")
    assert told.startswith('data: "text" holds prose, 10 words a cell')
    assert told.endswith('write "drop": ["text"]')
    assert uses_of(table, "y", "", drop=["text"])[0] == {"a": "number"}
    assert uses_of(table, "y", "", categories=["text"])[0]["text"] == "category"


def test_a_few_words_among_numbers_are_told_with_their_row():
    cells = [str(i) for i in range(60)]
    cells[41], cells[50] = "about 4", "none"
    table = {"a": typed(cells), "y": typed(["0", "1"] * 30)}
    told = refused(uses_of, table, "y", "")
    assert 'holds 58 numbers and 2 cells that are none, the first in row 42: "about 4"' in told
    assert told.endswith('write "missing": ["about 4", "none"], "drop": ["a"]')
    twice = {"a": typed(cells * 2), "y": typed(["0", "1"] * 60)}
    assert refused(uses_of, twice, "y", "").endswith('"drop": ["a"] or "categories": ["a"]')
    assert typed(cells, missing=("about 4", "none")).kind == "number"
    assert uses_of(table, "y", "", categories=["a"])[0] == {"a": "category"}


def test_different_cells_are_counted_exactly_where_they_are_few():
    assert unique_in_words(typed(["a", "b", "", "a"])) == "2"
    assert unique_in_words(typed(["1", "2", "", "1", ""])) == "2"
    assert unique_in_words(Column(np.arange(5000) % 3.0)) == "3"
    assert unique_in_words(Column(np.arange(5000) * 1.0)) == ">500"


def test_columns_of_groups_are_known_by_name_and_by_their_cells():
    many = [str(i % 30) for i in range(120)]
    assert all(
        names_groups(name, typed(many))
        for name in ("patient", "Subject ID", "user_no", "customerkey")
    )
    assert names_groups("patient", typed([f"P{cell}" for cell in many]))
    assert not names_groups("users online", typed(many))
    assert not names_groups("patients", typed(many))
    assert not names_groups("patient", typed([str(i % 3) for i in range(120)]))
    assert not names_groups("session", typed([str(i / 7) for i in range(120)]))
