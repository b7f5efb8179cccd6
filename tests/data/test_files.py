"""A user's own tables and archives, read as programs write them and refused in words."""

import os
import zipfile

import numpy as np
import pytest

from nnref.data import DATA, DataWarning
from nnref.errors import UserError

rng = np.random.default_rng(0)


def refused(call, *arguments, **keys):
    with pytest.raises(UserError) as error:
        call(*arguments, **keys)
    return str(error.value)


# --- the door -----------------------------------------------------------------------------------


X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1], np.int32)
BAD = X.copy()
BAD[[1, 4], 1] = np.nan
BAD[4, 0] = np.inf


# --- files of the user --------------------------------------------------------------------------


WHOLE = {"valid": 0.0, "test": 0.0, "standardized": False}


def csv_file(folder, text, encoding="utf-8", name="table.csv"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return str(path)


def npz_file(folder, **arrays):
    path = folder / "arrays.npz"
    np.savez(path, **arrays)
    return str(path)


def in_order(dataset):
    """Rows back in the order of their first column."""
    order = np.argsort(dataset.train.x[:, 0])
    return dataset.train.x[order], dataset.train.y[order]


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
    "empty cells": (
        "a,b,y\n1,2,0\n,2,1\n3,,0\nNA,4,1\n",
        "y",
        "data: inputs of table.csv hold 3 values that are missing, NaN or infinite, in 3 of 4 "
        "rows, the first in row 2 (column a: 2, column b: 1); remove or fill them first",
    ),
    "text columns": (
        "a,color,b,y\n1,red,x,0\n2,,4,1\n3,blue,4,0\n4,NA,4,1\n",
        "y",
        'data.path: 2 columns of PATH hold cells that are no numbers: "color" (2 like "red"), "b" '
        '(1 like "x"); encode them as numbers, or remove the columns',
    ),
    "ragged rows": (
        'a,y\n"1\n",0\n\n2\n3,1,1\n4,0\n',
        "y",
        "data.path: 2 rows of PATH have another number of cells than the 2 of the header, the "
        "first in line 5",
    ),
    "a column without name": (
        ",a,y\n0,1,0\n1,2,1\n",
        "y",
        "data.path: column 1 of PATH has no name in the header line; name it, or remove it if it "
        "only numbers the rows",
    ),
    "a name twice": ("a,a,y\n0,1,0\n", "y", 'data.path: PATH has 2 columns called "a"'),
    "no inputs": ("y\n0\n1\n", "y", "data.path: PATH has no column beside the target"),
    "an open quote": (
        'a,y\n"1,0\n2,1\n',
        "y",
        "data.path: PATH is no readable table: unexpected end of data",
    ),
    "missing classes": (
        "a,y\n1,red\n2,\n3,blue\n",
        "y",
        "data.target: 1 of 3 targets are missing, the first in row 2; remove or fill them first",
    ),
    "missing values": (
        "a,y\n1,0.5\n2,\n3,1.5\n4,n/a\n",
        "y",
        "data: targets of table.csv hold 2 values that are missing, NaN or infinite, in 2 of 4 "
        "rows, the first in row 2 (column 0: 2); remove or fill them first",
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
        f"data.path: {path} ends in none of .csv, .npz"
    )
    path = str(tmp_path / "missing.csv")
    assert refused(DATA["file"], path=path, target="y") == f"data.path: there is no file {path}"
    path = csv_file(tmp_path, "PK\3\4 and no archive", name="arrays.npz")
    assert refused(DATA["file"], path=path, target="y") == (
        f"data.path: {path} is no archive of arrays; write it with numpy.savez"
    )
    np.save(tmp_path / "one.npy", X)
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
        'data.kind: all 30 targets differ, so they are no classes; give kind="values"'
    )
    path = npz_file(tmp_path, x=X, y=np.zeros((6, 2)))
    assert refused(DATA["file"], path=path, target="y", kind="classes") == (
        "data.kind: targets of shape (6, 2) are no classes; classes have shape (rows,), or are "
        "one-hot rows"
    )


# --- archives -----------------------------------------------------------------------------------


LABELS = np.array([2, 0, 1, 2, 0, 1])


@pytest.mark.parametrize(
    ("y", "classes", "labels"),
    [
        (LABELS, ("0", "1", "2"), LABELS),
        (LABELS[:, None] + 5, ("5", "6", "7"), LABELS),
        (LABELS.astype(np.uint8), ("0", "1", "2"), LABELS),
        (LABELS.astype(np.float16), ("0", "1", "2"), LABELS),
        (np.eye(3)[LABELS], ("0", "1", "2"), LABELS),
        (np.eye(4, dtype=bool)[LABELS], ("0", "1", "2"), LABELS),
        (LABELS > 0, ("False", "True"), LABELS > 0),
        (np.array(["c", "a", "b"] * 2), ("a", "b", "c"), LABELS),
        (np.array([b"c", b"a", b"b"] * 2), ("a", "b", "c"), LABELS),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_classes_in_an_archive(tmp_path, y, classes, labels):
    inputs = np.arange(6)
    made = DATA["file"](path=npz_file(tmp_path, x=inputs, labels=y), target="labels", **WHOLE)
    assert made.classes == classes
    x, got = in_order(made)
    np.testing.assert_array_equal(got, labels)
    np.testing.assert_array_equal(x, inputs[:, None])
    assert (x.dtype, got.dtype) == (np.float32, np.int32)


def test_truth_values_are_classes_even_if_they_are_few(tmp_path):
    path = npz_file(tmp_path, x=X[:3], y=np.array([True, False, True]))
    assert DATA["file"](path=path, target="y", **WHOLE).classes == ("False", "True")


def test_the_only_other_array_is_the_inputs(tmp_path):
    made = DATA["file"](path=npz_file(tmp_path, pixels=X, y=Y), target="y", **WHOLE)
    np.testing.assert_array_equal(in_order(made)[0], X)


def test_values_of_any_shape(tmp_path):
    y = rng.normal(size=(6, 2, 2))
    made = DATA["file"](path=npz_file(tmp_path, x=X, y=y), target="y", **WHOLE)
    np.testing.assert_array_equal(in_order(made)[1], y.astype(np.float32))
    assert made.classes == ()


@pytest.mark.parametrize(
    ("x", "axis"),
    [
        (rng.integers(0, 256, (20, 4, 5, 3)).astype(np.uint8), (0, 1, 2)),
        (rng.integers(0, 256, (20, 4, 5)).astype(np.uint8), (0, 1, 2)),
        (rng.normal(size=(20, 4, 5, 3)), (0, 1, 2)),
        (rng.normal(size=(20, 4, 5)), (0, 1)),
        (rng.normal(size=(20, 4)), 0),
        (rng.integers(-(2**60), 2**60, (20, 4)), 0),
        (rng.integers(0, 2, (20, 4)).astype(bool), 0),
    ],
    ids=["images", "grey images", "images of floats", "series", "table", "huge integers", "bool"],
)
def test_inputs_keep_their_shape_and_are_standardized_by_what_they_look_like(tmp_path, x, axis):
    y = np.arange(20) % 2
    path = npz_file(tmp_path, x=x, y=y)
    made = DATA["file"](path=path, target="y", valid=0.0, test=0.0)
    assert made.train.x.shape == x.shape
    assert made.train.x.dtype == np.float32
    np.testing.assert_allclose(made.train.x.mean(axis), 0, atol=1e-6)
    np.testing.assert_allclose(made.train.x.std(axis), 1, rtol=1e-5)
    # Of every example one: the same numbers, in another order.
    exact = (x - x.mean(axis, keepdims=True)) / x.std(axis, keepdims=True)
    assert np.sort(made.train.x.ravel()) == pytest.approx(np.sort(exact.ravel()), abs=1e-5)


ARCHIVES_REFUSED = {
    "no such array": (
        {"x": X, "label": Y},
        'data.target: PATH has no array "y"; it has x, label',
    ),
    "no inputs": (
        {"a": X, "b": X, "y": Y},
        'data.path: PATH must hold its inputs in an array called "x"; beside the target it has a, '
        "b",
    ),
    "the target alone": (
        {"y": Y},
        'data.path: PATH must hold its inputs in an array called "x"; beside the target it has '
        "nothing",
    ),
    "objects": (
        {"x": np.array([{}, 1] * 3, object), "y": Y},
        'data.path: "x" of PATH holds Python objects; save it as an array of numbers or text',
    ),
    "text as inputs": (
        {"x": X.astype(str), "y": Y},
        "data.path: the inputs of PATH have dtype <U32, not numbers",
    ),
    "complex targets": (
        {"x": X, "y": Y * 1j},
        "data.target: targets have dtype complex128; numbers or text are allowed",
    ),
    "a single value": (
        {"x": X, "y": np.array(3)},
        'data.path: "y" of PATH is a single value, without rows',
    ),
    "another number of rows": (
        {"x": X, "y": Y[:5]},
        "data.path: PATH has 6 rows of inputs and 5 targets",
    ),
    "no rows": ({"x": X[:0], "y": Y[:0]}, "data.path: PATH has no rows"),
    "NaN": (
        {"x": BAD, "y": Y},
        "data: inputs of arrays.npz hold 3 values that are missing, NaN or infinite, in 2 of 6 "
        "rows, the first in row 2 (column 1: 2, column 0: 1); remove or fill them first",
    ),
    "values beyond float32": (
        {"x": X, "y": np.array([1e39, 0.5, 0, 0, 0, 0])},
        "data: targets of arrays.npz hold 1 numbers beyond 3.4e38 (column 0: 1); divide them by a "
        "unit first",
    ),
}


@pytest.mark.parametrize(("arrays", "told"), ARCHIVES_REFUSED.values(), ids=ARCHIVES_REFUSED)
def test_bad_archives_are_refused_in_words(tmp_path, arrays, told):
    path = npz_file(tmp_path, **arrays)
    assert refused(DATA["file"], path=path, target="y", **WHOLE).replace(path, "PATH") == told


def test_an_archive_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = npz_file(tmp_path, x=np.array([Trap()] * 2, object), y=np.array([0, 1]))
    assert "holds Python objects" in refused(DATA["file"], path=path, target="y")
    assert not (tmp_path / "sprung").exists()


def test_a_damaged_archive_is_told(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    place = content.index(X.tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    told = refused(DATA["file"], path=str(path), target="y")
    assert told.startswith(f'data.path: "x" of {path} is damaged: Bad CRC-32')


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"shape": (10**12, 2)}, "its header tells of 16,000,000,000,000 bytes, and 64 follow"),
        ({"shape": (1, 2)}, "its header tells of 16 bytes, and 64 follow"),
        (None, "is damaged"),
    ],
)
def test_a_header_that_asks_for_other_bytes_than_there_are_is_told(tmp_path, header, told):
    """Harmless: nothing is unpacked, and the memory that is asked for is not taken."""
    path = tmp_path / "forged.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as content:
        if header is not None:
            whole = {"descr": "<f8", "fortran_order": False} | header
            np.lib.format.write_array_header_1_0(content, whole)
        content.write(bytes(64))
    with zipfile.ZipFile(path, "a") as archive, archive.open("y.npy", "w") as content:
        np.save(content, np.zeros(4))
    assert told in refused(DATA["file"], path=str(path), target="y")


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = npz_file(tmp_path, x=np.zeros((64, 2)), y=np.arange(64))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2, "SC_PAGE_SIZE": 1000}.__getitem__)
    assert "save fewer rows, or in float32" in refused(DATA["file"], path=path, target="y")


# --- doubtful files -----------------------------------------------------------------------------


def told_of(**arguments):
    with pytest.warns(DataWarning) as told:
        DATA["file"](**arguments)
    return [str(each.message) for each in told]


def test_columns_without_information_are_told(tmp_path):
    text = "a,b,y\n" + "".join(f"{i},7,{i % 2}\n" for i in range(10))
    path = csv_file(tmp_path, text)
    assert told_of(path=path, target="y", valid=0.2, test=0.2) == [
        "data: 1 columns of table.csv are the same in every training row: b; nothing can be "
        "learned from them"
    ]


def test_rows_that_are_there_twice_are_told(tmp_path):
    text = "a,y\n" + "".join(f"{i // 10},{i // 10}\n" for i in range(20))
    path = csv_file(tmp_path, text)
    assert told_of(path=path, target="y", valid=0.2, test=0.2) == [
        f"data: 4 of 4 rows of {name} are also in train; what {name} says is too good by that much"
        for name in ("valid", "test")
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
