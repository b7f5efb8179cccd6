"""A user's own archives: which arrays are read, and what is refused in words."""

import os
import zipfile

import numpy as np
import pytest
from written import WHOLE, in_order, npz_file, refused

from nnref.data import DATA

rng = np.random.default_rng(0)

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1], np.int32)
BAD = X.copy()
BAD[[1, 4], 1] = np.nan
BAD[4, 0] = np.inf


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
    "rows without a target": (
        {"x": X, "y": np.zeros((len(X), 0), np.float32)},
        "data.target: targets of arrays.npz have no numbers; their shape is (6, 0)",
    ),
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


def test_the_only_array_that_may_be_the_target_is_named(tmp_path):
    path = npz_file(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y)
    assert refused(DATA["file"], path=path).endswith('y_test; write "target": "y"')
    path = npz_file(tmp_path, x=X, age=Y, sex=Y)
    assert refused(DATA["file"], path=path).endswith("has x, age, sex")
