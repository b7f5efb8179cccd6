"""The columns of a table, by polars and by the module csv alike."""

import gzip
import os
from datetime import datetime, time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from written import csv_file, refused

from nnref.data import DataWarning, reading

SLOW = reading.by_csv
READERS = ["csv", *(["polars"] if find_spec("polars") else [])]
polars_only = pytest.mark.skipif(not find_spec("polars"), reason="read by polars alone")


@pytest.fixture(params=READERS)
def read(request, tmp_path, monkeypatch):
    """A reader of text, by what is asked for."""
    if request.param == "csv":
        monkeypatch.setattr(reading, "has_polars", lambda: False)

    def read(text, name="table.csv"):
        path = tmp_path / name
        packed = name.endswith(".gz")
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        return {name: listed(column) for name, column in reading.read_table(path).items()}

    return read


def listed(column):
    """Cells as plain values, None for what is missing."""
    text = column.kind == "text"
    values = (column.texts() if text else column.cells.astype("O")).tolist()
    return [
        None if missing else value for value, missing in zip(values, column.missing, strict=True)
    ]


@pytest.mark.parametrize(
    ("cells", "values", "spelling"),
    [
        (["1", "2.5", "-3e2"], [1, 2.5, -300], ""),
        (["1", "", "NA", "n/a", "NaN", "null", "None", "?", "-"], [1] + 8 * [None], ""),
        ([" 7 ", "007", "+8"], [7, 7, 8], ""),
        (["1,234", "5,678,901.5"], [1234, 5678901.5], "commas part thousands"),
        (["3,5", "1.234,25", "4"], [3.5, 1234.25, 4], "decimal comma"),
        (["1_000", "2"], ["1_000", "2"], ""),
        (["", "?"], [None, None], ""),
        (
            ["2020-01-31", "2020-02-01 10:30:00"],
            [datetime(2020, 1, 31), datetime(2020, 2, 1, 10, 30)],
            "",
        ),
        (["2020-01-31T01:00:00+01:00", ""], [datetime(2020, 1, 31), None], ""),
        (["31.01.2020"], [datetime(2020, 1, 31)], "day.month.year"),
        (
            ["01/02/2020", "12/31/2020"],
            [datetime(2020, 1, 2), datetime(2020, 12, 31)],
            "month/day/year",
        ),
        (
            ["01/02/2020", "31/12/2020"],
            [datetime(2020, 2, 1), datetime(2020, 12, 31)],
            "day/month/year",
        ),
        (["Jan 1 2000", "1959-07"], ["Jan 1 2000", "1959-07"], ""),
        (["01/02/2020"], [datetime(2020, 1, 2)], "month/day/year"),
        (["Jan 1 2000"], [datetime(2000, 1, 1)], ""),
        (["1959Q3", "1960 Q1"], [datetime(1959, 7, 1), datetime(1960, 1, 1)], ""),
        (["1959-07"], [datetime(1959, 7, 1)], ""),
        (["True", "false", "TRUE"], ["True", "False", "True"], ""),
        (["none", "-", "NA", " red "], ["none", "-", None, "red"], ""),
    ],
)
def test_cells_are_numbers_or_dates_or_text(cells, values, spelling):
    column = reading.typed(cells, ",")
    assert (listed(column), column.spelling) == (values, spelling)


def test_a_comma_is_decimal_where_it_separates_no_cells():
    assert listed(reading.typed(["1,234", "5,678"], ";")) == [1.234, 5.678]
    assert listed(reading.typed(["1,234", "5,678"], ",")) == [1234, 5678]


def test_further_words_for_nothing(tmp_path):
    path = csv_file(tmp_path, "a,b,c\n1,-999,x\nnil,5,nil\n3,-999.0,y\n")
    table = reading.read_table(Path(path), ("nil", "-999"))
    assert [listed(column) for column in table.values()] == [
        [1, None, 3],
        [None, 5, None],
        ["x", None, "y"],
    ]


def test_a_further_word_for_nothing_leaves_the_decimal_comma(read, tmp_path):
    read("a;b\n1,234;1\nnil;2\n")
    table = reading.read_table(tmp_path / "table.csv", ("nil",))
    assert listed(table["a"]) == [1.234, None]


SAME = {"a": [1.5, 2.25], "b": ["x", "y"]}


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1.5,x\n2.25,y\n",
        "\ufeffa,b\r\n1.5,x\r\n2.25,y",
        "a;b\n1,5;x\n2,25;y\n",
        "a\tb\n1.5\tx\n2.25\ty\n",
        "a|b\n1.5|x\n2.25|y\n",
        "a b\n1.5 x\n2.25 y\n",
        'a,b\n"1,5",x\n"2,25",y\n',
        "'a','b'\n1.5, \"x\"\n2.25,   'y'\n",
        'a,b\n1.5,"x"\n\n"2.25",y\n,\n',
    ],
)
def test_separators_quotes_marks_and_empty_lines(read, text):
    assert read(text) == SAME
    assert read(text, "table.csv.gz") == SAME


def test_rows_without_a_cell_are_told_where_others_follow(read):
    with pytest.warns(DataWarning, match="1 of 4 rows of .* hold nothing, the first is row 2"):
        assert read("a,b\n1.5,x\n,\n2.25,y\n,3\n") == {"a": [1.5, 2.25, None], "b": ["x", "y", "3"]}
    with pytest.warns(DataWarning, match="2 of 4 rows"):
        assert read("a,b\n1.5,x\n,\nNA,?\n2.25,y\n\n") == SAME
    assert read("a,b\n1.5,x\n2.25,y\n,\n,\n") == SAME


@polars_only
@pytest.mark.parametrize(
    ("text", "fast"), [("a,b\n1,\n2,3\n", True), ('a,b\n"1",\n2,3\n', False), ("a,b\n1\n", None)]
)
def test_gaps_in_the_last_column_are_no_short_rows(tmp_path, monkeypatch, text, fast):
    """Of short rows polars makes such with gaps; the module csv tells them apart."""
    slow = []
    monkeypatch.setattr(reading, "by_csv", lambda *args: slow.append(args) or SLOW(*args))
    for name in ("table.csv", "table.csv.gz"):
        slow.clear()
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        if fast is None:
            assert "another number of cells" in refused(reading.read_table, path)
        else:
            assert listed(reading.read_table(path)["b"]) == [None, 3.0]
        assert (not slow) == bool(fast)


def test_a_word_far_down_makes_the_column_text(read):
    table = read("a,b\n" + "1,2\n" * 3000 + "x,3\n")
    assert table["a"][-2:] == ["1", "x"]
    assert table["b"][-2:] == [2.0, 3.0]


def test_words_for_nothing_far_down_leave_a_column_what_it_is(read):
    table = read(
        "a,b,c,d\n" + "1,2020-01-31,x,2\n" * 3000 + "NA,NA,NA,2\n 7 ,2020-02-01 10:30,y,2\n"
    )
    assert table["a"][-3:] == [1.0, None, 7.0]
    assert table["b"][-3:] == [datetime(2020, 1, 31), None, datetime(2020, 2, 1, 10, 30)]
    assert table["c"][-3:] == ["x", None, "y"]


def test_days_that_are_in_no_calendar_are_text(read):
    table = read("a,b\n2020-02-29,1\n2019-02-29,2\n")
    assert table["a"] == ["2020-02-29", "2019-02-29"]
    assert read("a,b\n2020-02-29,1\n,2\n")["a"] == [datetime(2020, 2, 29), None]


def test_names_that_are_missing_are_made(read):
    assert list(read(",a\n0,1\n1,2\n")) == ["column 1", "a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,y\n1,0\n2\n3,1,1\n4,0\n", "2 rows of PATH have another number of cells than the 2"),
        ("a,y\n1,0\n2\n4,0\n", "1 rows of PATH have another number of cells than the 2"),
        ("a,a\n1,2\n", 'PATH has 2 columns called "a"'),
        ("", "PATH has no rows below its header line"),
        ("a,b\n,\n", "PATH has no rows below its header line"),
        ('a,y\n"1,0\n2,1\n', "PATH is no readable table: unexpected end of data"),
    ],
)
def test_what_is_no_table_is_refused(read, tmp_path, text, told):
    path = str(tmp_path / "table.csv")
    assert told in refused(read, text).replace(path, "PATH")


def test_a_damaged_or_swollen_packed_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:-20])
    assert "is damaged" in refused(reading.read_table, path)
    path.write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2, "SC_PAGE_SIZE": 1000}.__getitem__)
    assert "unpacks to more than half of the memory" in refused(reading.read_table, path)


@polars_only
def test_parquet_and_arrow_files(tmp_path, monkeypatch):
    import polars

    frame = polars.DataFrame(
        {
            "whole": [1, None, 3],
            "text": ["a", None, "b"],
            "truth": [True, False, None],
            "day": [datetime(2020, 1, 1), None, datetime(2020, 1, 3)],
            "lists": [[1], [2], [3]],
            "clock": [time(1), None, time(0, 0, 2)],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ipc(tmp_path / "a.feather")
    frame.write_ipc_stream(tmp_path / "a.arrow")
    for name in ("a.parquet", "a.feather", "a.arrow"):
        table = reading.read_table(tmp_path / name)
        assert listed(table["whole"]) == [1.0, None, 3.0]
        assert listed(table["text"]) == ["a", None, "b"]
        assert listed(table["truth"]) == ["True", "False", None]
        assert listed(table["day"]) == [datetime(2020, 1, 1), None, datetime(2020, 1, 3)]
        assert table["lists"].unread
        assert [name for name in table if table[name].unread] == ["lists"]
        assert listed(table["clock"]) == [3600.0, None, 2.0]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no table")
    assert "is no readable table" in refused(reading.read_table, tmp_path / "b.parquet")
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2, "SC_PAGE_SIZE": 100}.__getitem__)
    assert "save fewer rows" in refused(reading.read_table, tmp_path / "a.parquet")


def test_parquet_without_polars_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "has_polars", lambda: False)
    assert 'pip install "nnref[tables]"' in refused(reading.read_table, tmp_path / "a.parquet")


def test_both_readers_give_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 3)) * 10.0 ** rng.integers(-9, 9, size=(50, 3))
    text = "a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())
    table = reading.by_csv(Path(csv_file(tmp_path, text)))
    np.testing.assert_array_equal(np.stack([c.cells for c in table.values()], 1), rows)
    if "polars" in READERS:
        table = reading.by_polars(tmp_path / "table.csv")
        np.testing.assert_array_equal(np.stack([c.cells for c in table.values()], 1), rows)
