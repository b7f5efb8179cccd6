"""A user's own tables, read as programs write them and refused in words."""

import numpy as np
import pytest
from written import WHOLE, csv_file, in_order, npz_file, refused, told_of

from nnref.data import DATA

FLOWERS = "width,length,kind\n1,5.5,rose\n2,6,lily\n3,7,rose\n4,8.25,lily\n"


@pytest.mark.parametrize(
    "text",
    [
        FLOWERS,
        "\ufeff" + FLOWERS,
        FLOWERS.replace("\n", "\r\n"),
        FLOWERS.replace("\n", "\n\n") + ",,\n",
        FLOWERS.replace(",", ";"),
        FLOWERS.replace(",", "\t"),
        FLOWERS.replace(",", " , "),
        '"width","length","kind"\n"1","5.5","rose"\n2,6,"lily"\n3,7,rose\n4,8.25,lily\n',
    ],
    ids=["plain", "mark", "Windows", "empty lines", "semicolons", "tabs", "spaces", "quotes"],
)
def test_tables_are_read_as_programs_write_them(tmp_path, text):
    made = DATA["file"](path=csv_file(tmp_path, text), target="kind", **WHOLE)
    x, y = in_order(made)
    np.testing.assert_array_equal(x, [[1, 5.5], [2, 6], [3, 7], [4, 8.25]])
    assert made.classes == ("lily", "rose")
    assert y.tolist() == [1, 0, 1, 0]
    assert made.columns == ("width", "length")


def test_a_quoted_cell_may_hold_commas_and_lines(tmp_path):
    text = 'x,"the, kind"\n1,"a\nb"\n2,"c, ""d"""\n3,"a\nb"\n4,"c, ""d"""\n'
    made = DATA["file"](path=csv_file(tmp_path, text), target="the, kind", **WHOLE)
    assert made.classes == ("a\nb", 'c, "d"')


TABLES_REFUSED = {
    "no such column": (
        FLOWERS,
        "kindd",
        'data.target: PATH has no column "kindd"; its columns are width, length, kind; did you '
        'mean "kind"?',
    ),
    "header only": ("a,b\n", "b", "data.path: PATH has no rows below its header line"),
    "nothing": ("", "b", "data.path: PATH has no rows below its header line"),
    "ragged rows": (
        'a,y\n"1\n",0\n\n2\n3,1,1\n4,0\n',
        "y",
        "data.path: 2 rows of PATH have another number of cells than the 2 of the header, the "
        "first in line 5; correct these lines: a cell that holds ',' stands in quotes",
    ),
    "a name twice": (
        "a,a,y\n0,1,0\n",
        "y",
        'data.path: PATH has 2 columns called "a"; give each its own name in the header line',
    ),
    "no inputs": ("y\n0\n1\n", "y", 'data: there is no column beside the target "y"'),
    "an open quote": (
        'a,y\n"1,0\n2,1\n',
        "y",
        "data.path: PATH is no readable table: unexpected end of data",
    ),
    "one class": (
        "a,y\n1,same\n2,same\n3,same\n",
        "y",
        "data: there is only the class same: nothing to tell apart",
    ),
    "numbers beyond float32": (
        "a,b,y\n1,1e300,0\n2,1,1\n3,1,0\n4,1,1\n",
        "y",
        "data: inputs of table.csv hold 1 numbers beyond 3.4e38 (column b: 1); divide them by a "
        "unit first",
    ),
    "free text as classes": (
        "a,y\n" + "".join(f"{i},text {i}\n" for i in range(30)),
        "y",
        "data.kind: all 30 targets differ, so they are no classes; choose another target",
    ),
}


@pytest.mark.parametrize(("text", "target", "told"), TABLES_REFUSED.values(), ids=TABLES_REFUSED)
def test_bad_tables_are_refused_in_words(tmp_path, text, target, told):
    path = csv_file(tmp_path, text)
    got = refused(DATA["file"], path=path, target=target, **WHOLE)
    assert got.replace(path, "PATH") == told


def test_files_that_are_none_are_refused_in_words(tmp_path):
    path = csv_file(tmp_path, "a,y\n1,ä\n", encoding="latin-1")
    assert refused(DATA["file"], path=path, target="y") == (
        f"data.path: {path} is no UTF-8 text (byte 6); save it as CSV in UTF-8"
    )
    path = csv_file(tmp_path, "", name="table.xlsx")
    assert refused(DATA["file"], path=path, target="y") == (
        f"data.path: {path} ends in none of .csv, .tsv, .txt, .csv.gz, .tsv.gz, .txt.gz, .parquet, "
        ".arrow, .feather, .npz, and is no folder of images"
    )
    path = str(tmp_path / "missing.csv")
    assert refused(DATA["file"], path=path, target="y") == f"data.path: there is no file {path}"
    path = csv_file(tmp_path, "PK\3\4 and no archive", name="arrays.npz")
    assert refused(DATA["file"], path=path, target="y") == (
        f"data.path: {path} is no archive of arrays; write it with numpy.savez"
    )
    np.save(tmp_path / "one.npy", np.zeros((6, 2)))
    path = str((tmp_path / "one.npy").rename(tmp_path / "one.npz"))
    assert refused(DATA["file"], path=path, target="y") == (
        f"data.path: {path} is one array and no archive; use numpy.savez"
    )


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["1", "0", "1", "0"], ("0", "1")),
        (["10", "9", "10", "9"], ("9", "10")),
        (["12345678", "12345679"] * 2, ("12345678", "12345679")),
        ([" yes", "no", "yes ", "no"], ("no", "yes")),
        (["0.5", "1.5", "0.5", "1.5"], ()),
        (["1", "2", "3", "4"], ()),
        ([str(i) for i in range(21)] * 2, ()),
        (["1", "2", "two", "1"], ("1", "2", "two")),
    ],
)
def test_targets_that_come_back_are_classes(tmp_path, cells, classes):
    text = "x,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    made = DATA["file"](path=csv_file(tmp_path, text), target="y", **WHOLE)
    assert made.classes == classes
    _, y = in_order(made)
    if classes:
        assert [classes[k] for k in y] == [cell.strip() for cell in cells]
    else:
        np.testing.assert_array_equal(y, np.array(cells, np.float32))


def test_the_kind_of_targets_can_be_said(tmp_path):
    path = csv_file(tmp_path, "x,y\n1,0.1234567\n2,0.1234568\n3,0.1234567\n")
    assert DATA["file"](path=path, target="y", kind="classes", **WHOLE).classes == (
        "0.1234567",
        "0.1234568",
    )
    path = csv_file(tmp_path, "x,y\n1,0\n2,1\n3,0\n4,1\n")
    assert DATA["file"](path=path, target="y", kind="values", **WHOLE).train.y.dtype == np.float32
    path = csv_file(tmp_path, FLOWERS)
    assert refused(DATA["file"], path=path, target="kind", kind="values") == (
        'data.kind: targets are text; "values" needs numbers'
    )
    numbers = "x,y\n" + "".join(f"{i},{i / 7}\n" for i in range(30))
    path = csv_file(tmp_path, numbers)
    assert refused(DATA["file"], path=path, target="y", kind="classes") == (
        'data.kind: all 30 targets differ, so they are no classes; write "kind": "values"'
    )
    path = npz_file(tmp_path, x=np.zeros((6, 2)), y=np.zeros((6, 2)))
    assert refused(DATA["file"], path=path, target="y", kind="classes") == (
        "data.kind: targets of shape (6, 2) are no classes; classes have shape (rows,), or are "
        "one-hot rows"
    )


# --- doubtful files -----------------------------------------------------------------------------


def test_columns_without_information_are_told(tmp_path):
    text = "a,b,y\n" + "".join(f"{i},7,{i % 2}\n" for i in range(10))
    path = csv_file(tmp_path, text)
    assert told_of(path=path, target="y", valid=0.2, test=0.2) == [
        "data: 1 columns are left out: b (the same in every row); to learn from them all the same, "
        'name the columns in "inputs"'
    ]


def test_rows_that_are_there_twice_are_told_with_their_numbers(tmp_path):
    twins = [*range(30), 0, 3, 8, 17]
    text = "a,y\n" + "".join(f"{i},{i % 2}\n" for i in twins)
    told = told_of(path=csv_file(tmp_path, text), target="y", valid=0.2, test=0.2)
    assert told == [
        f"data: 2 of 7 rows of {name} are also in train (rows {rows}); what {name} says is too "
        "good by that much"
        for name, rows in (("valid", "9, 18"), ("test", "31, 32"))
    ]


def test_few_rows_that_come_back_are_told_once(tmp_path):
    """A table of truth, ten times."""
    rows = [(i & 1, i >> 1 & 1, (i >> 1 ^ i) & 1) for i in range(4)] * 10
    text = "a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows)
    assert told_of(path=csv_file(tmp_path, text), target="y", valid=0.2, test=0.2) == [
        "data: train has 4 different rows among 24, and 8 of 8 rows of valid and 8 of 8 rows of "
        "test are also in train: figures there are of rows that were seen, and say little of "
        "others; where equal rows have equal targets, keep each once"
    ]


def test_a_clock_survives_standardization_and_is_told_without_it(tmp_path):
    clock = 1.7e9 + np.arange(40)
    text = "time,y\n" + "".join(f"{t:.0f},{i % 2}\n" for i, t in enumerate(clock))
    path = csv_file(tmp_path, text)
    made = DATA["file"](path=path, target="y")
    assert len(np.unique(np.concatenate([part.x for part in made.splits.values()]))) == 40
    arguments = {"path": path, "target": "y", "standardized": False, "valid": 0.0, "test": 0.0}
    assert told_of(**arguments) == [
        "data: inputs of table.csv vary by less than 1/10000 of their size in column time; "
        "computed in float32, little of that is left: subtract an offset"
    ]


def test_targets_far_from_zero_are_told(tmp_path):
    text = "x,y\n" + "".join(f"{i},{1.7e9 + 1000 * i:.0f}\n" for i in range(40))
    assert told_of(path=csv_file(tmp_path, text), target="y") == [
        "data: targets of table.csv vary by less than 1/10000 of their size in column 0; computed "
        "in float32, little of that is left: subtract an offset"
    ]


def test_odd_values_are_told_in_the_unit_of_the_file(tmp_path):
    rows = [f"{place * 0.37 % 1:.3f},{12 if place % 5 else 30 + place}" for place in range(240)]
    path = csv_file(tmp_path, "\n".join(["x,rain", *rows]) + "\n")
    told = told_of(path=path, target="rain", loss="squared_error")
    assert any('"rain" is 12 in' in each for each in told)
