"""Data: what users have is read, split and standardized as said, and refused where it is bad."""

import hashlib
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnref.data import DATA, Dataset, DataWarning, Split
from nnref.data.prepare import split_rows, standardize, stratified
from nnref.errors import UserError

rng = np.random.default_rng(0)


def refused(call, *arguments, **keys):
    with pytest.raises(UserError) as error:
        call(*arguments, **keys)
    return str(error.value)


def some(rows=6, classes=2, **changes):
    """A small data set in order, or with some fields of its own."""
    x = rng.normal(0, 1, (rows, 3)).astype(np.float32)
    y = np.arange(rows, dtype=np.int32) % classes
    fields = {"train": Split(x, y), "classes": tuple("abcdefgh"[:classes])} | changes
    return Dataset(**fields)


# --- the split ----------------------------------------------------------------------------------


@st.composite
def tables(draw):
    numbers = np.array(draw(st.lists(st.integers(1, 40), min_size=1, max_size=12)))
    valid = draw(st.integers(0, numbers.sum() - 1))
    test = draw(st.integers(0, numbers.sum() - 1 - valid))
    return numbers, np.array([numbers.sum() - valid - test, valid, test])


@given(tables())
# These need a row kept from a part whose share is whole, and one handed on through a third part.
@example((np.array([5, 5, 2]), np.array([6, 4, 2])))
@example((np.array([10, 4, 3, 4, 9]), np.array([15, 10, 5])))
@settings(max_examples=300, deadline=None)
def test_every_class_gets_its_share_to_within_a_row_and_every_part_its_size(table):
    numbers, sizes = table
    counts = stratified(numbers, sizes)
    np.testing.assert_array_equal(counts.sum(axis=1), numbers)
    np.testing.assert_array_equal(counts.sum(axis=0), sizes)
    assert (abs(counts - np.outer(numbers, sizes) / sizes.sum()) < 1).all()


@given(
    labels=st.lists(st.integers(0, 5), min_size=10, max_size=80),
    valid=st.sampled_from([0.0, 0.1, 0.15, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    seed=st.integers(0, 3),
    stratify=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_split_deals_out_every_row_once(labels, valid, test, seed, stratify):
    y = np.array(labels)
    x = np.arange(len(y))[:, None]
    parts = split_rows(x, y, valid=valid, test=test, seed=seed, stratify=stratify)
    there = [part for part in parts if part]
    dealt = np.concatenate([part.x for part in there])
    np.testing.assert_array_equal(np.sort(dealt.ravel()), np.arange(len(y)))
    for part in there:
        np.testing.assert_array_equal(part.y, y[part.x[:, 0]])
        if stratify:
            for label in set(labels):
                exact = (y == label).sum() * len(part.y) / len(y)
                assert abs((part.y == label).sum() - exact) < 1
    for share, part in ((valid, parts.valid), (test, parts.test)):
        assert (len(part.x) if part else 0) == round(share * len(y))
    again = split_rows(x, y, valid=valid, test=test, seed=seed, stratify=stratify)
    np.testing.assert_array_equal(again.train.x, parts.train.x)


def test_a_class_of_one_row_is_trained_on():
    y = np.array([0] * 30 + [1] * 30 + [2])
    for seed in range(5):
        parts = split_rows(y[:, None], y, valid=0.2, test=0.2, seed=seed, stratify=True)
        assert 2 in parts.train.y


@pytest.mark.parametrize("stratify", [False, True])
def test_a_split_is_shuffled_by_its_seed(stratify):
    y = np.arange(60) % 3
    x = np.arange(60)[:, None]

    def order(seed):
        parts = split_rows(x, y, valid=0.2, test=0.2, seed=seed, stratify=stratify)
        return [part.x.ravel().tolist() for part in parts]

    assert order(0) != order(1)
    assert all(rows != sorted(rows) for rows in order(0))
    labels = [[row % 3 for row in rows] for rows in order(0)]
    assert all(part != sorted(part) for part in labels)


@pytest.mark.parametrize(
    ("rows", "valid", "test", "text"),
    [
        (3, 0.15, 0.2, "data.valid: 0.15 of 3 rows is no row; give a larger share, or 0"),
        (3, 0.2, 0.15, "data.test: 0.15 of 3 rows is no row; give a larger share, or 0"),
        (
            10,
            0.6,
            0.4,
            "data: valid 0.6 and test 0.4 of 10 rows leave nothing to train on; give smaller "
            "shares",
        ),
        (
            2,
            0.4,
            0.4,
            "data: valid 0.4 and test 0.4 of 2 rows leave nothing to train on; give smaller shares",
        ),
    ],
)
def test_shares_that_leave_a_part_without_rows_are_refused(rows, valid, test, text):
    x = np.zeros((rows, 1))
    call = {"valid": valid, "test": test, "seed": 0, "stratify": False}
    assert refused(split_rows, x, x, **call) == text


# --- standardize --------------------------------------------------------------------------------


def test_standardization_uses_the_training_split_alone():
    x = rng.normal([1e9, -3, 0], [1, 1e-9, 1e6], (40, 3))
    y = np.zeros(40)
    train, valid = Split(x[:30], y[:30]), Split(x[30:], y[30:])
    parts = standardize(train, valid)
    assert parts.test is None
    # Of a deviation 1e-9 times the mean, float64 keeps seven digits.
    np.testing.assert_allclose(parts.train.x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(parts.train.x.std(0), 1, rtol=1e-6)
    expected = (x[30:] - x[:30].mean(0)) / x[:30].std(0)
    np.testing.assert_allclose(parts.valid.x, expected, rtol=1e-6, atol=1e-6)
    assert parts.train.x.dtype == parts.valid.x.dtype == np.float32
    np.testing.assert_array_equal(standardize(train).train.x, parts.train.x)


def test_a_constant_column_is_only_shifted():
    x = np.full((10, 2), 0.1)  # whose mean is not 0.1: the sum is rounded
    x[:, 1] = 1e-30 * np.arange(10)  # small, and not constant
    parts = standardize(Split(x, x), Split(x + 2, x))
    np.testing.assert_array_equal(parts.train.x[:, 0], 0)
    np.testing.assert_allclose(parts.valid.x[:, 0], 2, rtol=1e-6)
    np.testing.assert_allclose(parts.train.x[:, 1].std(), 1, rtol=1e-6)


def test_images_are_standardized_by_channel():
    x = rng.normal([0, 5], [1, 3], (20, 4, 4, 2))
    parts = standardize(Split(x, x[:, 0, 0, 0]), axis=(0, 1, 2))
    np.testing.assert_allclose(parts.train.x.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(parts.train.x.std((0, 1, 2)), 1, rtol=1e-6)
    assert parts.train.x[:, 0, 0, 0].std() != pytest.approx(1, abs=1e-3)


# --- the door -----------------------------------------------------------------------------------

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1], np.int32)
BAD = X.copy()
BAD[[1, 4], 1] = np.nan
BAD[4, 0] = np.inf
AB = ("a", "b")

REFUSED = {
    "NaN and infinity": (
        {"train": Split(BAD, Y), "columns": ("age", "height")},
        "data: inputs of train hold 3 values that are missing, NaN or infinite, in 2 of 6 rows, "
        "the first in row 2 (column height: 2, column age: 1); remove or fill them first",
    ),
    "infinity alone": (
        {"train": Split(np.where(X == 7, np.inf, X), Y)},
        "data: inputs of train hold 1 values that are missing, NaN or infinite, in 1 of 6 rows, "
        "the first in row 4 (column 1: 1); remove or fill them first",
    ),
    "NaN in an image": (
        {"train": Split(np.where(np.arange(24).reshape(6, 2, 2) == 7, np.nan, 0.0), Y)},
        "data: inputs of train hold 1 values that are missing, NaN or infinite, in 1 of 6 rows, "
        "the first in row 2 (column (1, 1): 1); remove or fill them first",
    ),
    "NaN in many columns": (
        {"train": Split(np.full((6, 7), np.nan), Y)},
        "data: inputs of train hold 42 values that are missing, NaN or infinite, in 6 of 6 rows, "
        "the first in row 1 (column 0: 6, column 1: 6, column 2: 6, column 3: 6, column 4: 6, and "
        "2 columns more); remove or fill them first",
    ),
    "NaN in the targets": (
        {"train": Split(X, BAD[:, 1]), "classes": ()},
        "data: targets of train hold 2 values that are missing, NaN or infinite, in 2 of 6 rows, "
        "the first in row 2 (column 0: 2); remove or fill them first",
    ),
    "another number of rows": (
        {"train": Split(X, Y[:5])},
        "data: train has 6 rows of inputs and 5 targets",
    ),
    "an empty split": (
        {"valid": Split(X[:0], Y[:0])},
        "data: valid is empty; give it a larger share or leave it out",
    ),
    "no axis of rows": (
        {"train": Split(X[0, 0], Y)},
        "data: train has no rows; inputs and targets need an axis of rows",
    ),
    "text as inputs": (
        {"train": Split(X.astype(str), Y)},
        "data: the inputs of train have dtype <U32; only real numbers are allowed",
    ),
    "complex targets": (
        {"train": Split(X, Y * 1j), "classes": ()},
        "data: the targets of train have dtype complex128; only real numbers are allowed",
    ),
    "splits of other shapes": (
        {"valid": Split(X[:, :1], Y)},
        "data: examples of valid have shapes (1,) and (), those of train (2,) and (); they must "
        "be equal",
    ),
    "labels out of range": (
        {"valid": Split(X, Y + 1)},
        "data: 3 labels of valid lie outside 0..1 (from 1 to 2), for 2 classes",
    ),
    "negative labels": (
        {"train": Split(X, Y - 1)},
        "data: 3 labels of train lie outside 0..1 (from -1 to 0), for 2 classes",
    ),
    "labels that are no integers": (
        {"train": Split(X, Y.astype(float))},
        "data: the labels of train have dtype float64 and shape (6,); classes are integers from 0 "
        "to 1",
    ),
    "a split of one class": (
        {"test": Split(X[::2], Y[::2])},
        "data: all 3 labels of test are class a: nothing to tell apart; give it a larger share, or "
        "stratify the split",
    ),
    "one class": (
        {"train": Split(X, Y * 0), "classes": ("only",)},
        "data: there is only the class only: nothing to tell apart",
    ),
    "two classes of one name": (
        {"classes": ("a", "a")},
        "data: two classes have the same name among a, a",
    ),
    "targets that are all the same": (
        {"train": Split(X, np.full((6, 2), 2.5)), "classes": ()},
        "data: all 6 targets of train are 2.5, 2.5: nothing to learn",
    ),
}


@pytest.mark.parametrize(("fields", "text"), REFUSED.values(), ids=REFUSED)
def test_bad_data_are_refused_at_the_door(fields, text):
    assert refused(Dataset, **({"train": Split(X, Y), "classes": AB} | fields)) == text


def test_rows_shared_with_train_are_counted():
    x = X.copy()
    x[0, 0] = -0.0  # the same number as 0
    shared = Split(np.concatenate([x[:3], X[:2] + 100]), np.array([0, 1, 0, 1, 1]))
    with pytest.warns(DataWarning) as told:
        Dataset(Split(X, Y), valid=shared, test=Split(X + 50, Y), classes=AB)
    assert [str(each.message) for each in told] == [
        "data: 3 of 5 rows of valid are also in train; what valid says is too good by that much"
    ]


def test_classes_that_are_never_trained_on_are_told():
    valid = Split(X + 50, np.array([0, 1, 2, 2, 3, 0]))
    with pytest.warns(DataWarning) as told:
        Dataset(Split(X, Y), valid=valid, classes=tuple("abcd"))
    assert [str(each.message) for each in told] == [
        "data: 3 of 6 labels of valid are of classes that train has no example of: c, d; they "
        "cannot be learned"
    ]


def test_a_class_that_is_never_validated_is_fine():
    valid = Split(X[:4] + 50, np.array([0, 1, 0, 1]))
    assert Dataset(Split(X, Y * 2), valid=valid._replace(y=valid.y * 2), classes=tuple("abc"))


# --- the fingerprint ----------------------------------------------------------------------------


def test_the_fingerprint_changes_with_every_bit_and_is_the_same_everywhere():
    x, y = np.array([[0.1, -1.0], [2.0, 3e-30]], np.float32), np.array([0, 1], np.int32)
    made = Dataset(Split(x, y), classes=AB)
    parts = b"train <f4 (2, 2)" + x.tobytes() + b"train <i4 (2,)" + y.tobytes()
    assert made.fingerprint == hashlib.sha256(parts).hexdigest()[:12] == "c3044c6a478b"
    for bit in range(0, 8 * x.nbytes, 5):
        flipped = np.frombuffer(x.tobytes(), np.uint8).copy()
        flipped[bit // 8] ^= 1 << bit % 8
        other = flipped.view(np.float32).reshape(x.shape)
        if np.isfinite(other).all():
            assert Dataset(Split(other, y), classes=AB).fingerprint != made.fingerprint
    # Byte order and layout belong to the machine.
    swapped = Split(x.astype(">f4"), y.astype(">i4"))
    assert Dataset(swapped, classes=AB).fingerprint == made.fingerprint
    assert Dataset(Split(np.asfortranarray(x), y), classes=AB).fingerprint == made.fingerprint


def test_the_fingerprint_knows_shape_dtype_and_split():
    x, y = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([0, 1, 0, 1], np.int32)
    more = Split(x + 9, y)
    prints = [
        Dataset(Split(x, y), classes=AB),
        Dataset(Split(x.reshape(4, 1, 2), y), classes=AB),
        Dataset(Split(x.view(np.int32), y), classes=AB),
        Dataset(Split(x, y), valid=more, classes=AB),
        Dataset(Split(x, y), test=more, classes=AB),
        Dataset(Split(x, y[::-1]), classes=AB),
    ]
    assert len({each.fingerprint for each in prints}) == len(prints)


# --- data that come with the house --------------------------------------------------------------


@pytest.mark.parametrize("name", ["xor", "spirals", "digits"])
def test_data_of_the_house_are_fit_to_train_on_and_always_the_same(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = DATA[name]()
    assert made.train.x.dtype == np.float32
    assert made.train.y.dtype == np.int32
    assert made.fingerprint == DATA[name]().fingerprint != DATA[name](seed=1).fingerprint
    assert made.valid is not None
    assert len(made.columns) == made.train.x.shape[1]
    assert set(np.unique(made.train.y)) == set(range(len(made.classes)))


def test_xor_trains_on_the_corners_and_validates_beside_them():
    made = DATA["xor"](jitter=0.05, copies=50)
    np.testing.assert_array_equal(made.train.y, made.train.x[:, 0] != made.train.x[:, 1])
    corner = np.round(made.valid.x)
    np.testing.assert_array_equal(made.valid.y, corner[:, 0] != corner[:, 1])
    assert np.bincount(made.valid.y).tolist() == [100, 100]
    np.testing.assert_allclose((made.valid.x - corner).std(), 0.05, rtol=0.15)  # of 400 numbers


def test_arms_of_spirals_are_turned_against_each_other():
    made = DATA["spirals"](arms=4, points=50, turns=1.5, noise=0.0, valid=0.0, test=0.0)
    assert made.valid is made.test is None
    arm, point = np.divmod(np.arange(200), 50)
    radius = (point + 1) / 50
    z = radius * np.exp(2j * np.pi * (arm / 4 + 1.5 * radius))
    x = np.stack([z.real, z.imag], axis=1)
    x = (x - x.mean(0)) / x.std(0)
    there = made.train.x[:, None] - x[None]
    nearest = np.linalg.norm(there, axis=2).argmin(1)
    assert sorted(nearest) == list(range(200))
    np.testing.assert_allclose(made.train.x, x[nearest], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(made.train.y, arm[nearest])


def test_noise_moves_points_of_a_spiral_along_their_circle(monkeypatch):
    monkeypatch.setattr("nnref.data.synthetic.standardize", lambda *parts: parts)
    made = DATA["spirals"](arms=3, points=800, turns=0.7, noise=0.2, valid=0.0, test=0.0)
    z = made.train.x[:, 0] + 1j * made.train.x[:, 1]
    radius = np.sort(abs(z))
    np.testing.assert_allclose(radius, np.repeat(np.arange(1, 801) / 800, 3))
    off = np.angle(z * np.exp(-2j * np.pi * (made.train.y / 3 + 0.7 * abs(z))))
    np.testing.assert_allclose(off.std(), 0.2, rtol=0.06)  # four deviations, of 2400
    np.testing.assert_allclose(off.mean(), 0, atol=4 * 0.2 / np.sqrt(2400))


def test_digits_are_split_by_class_and_standardized():
    made = DATA["digits"]()
    sizes = {name: len(split.x) for name, split in made.splits.items()}
    assert sizes == {"train": 1257, "valid": 270, "test": 270}
    every = np.bincount(np.concatenate([split.y for split in made.splits.values()]))
    for split in made.splits.values():
        exact = every * len(split.y) / 1797
        assert (abs(np.bincount(split.y) - exact) < 1).all()
    x = made.train.x
    varied = x.std(0) > 0
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, varied].std(0), 1, rtol=1e-5)
    assert abs(made.valid.x.mean(0)).max() > 1e-3


def test_digits_as_images_and_in_ink():
    raw = DATA["digits"](standardized=False)
    assert (raw.train.x.min(), raw.train.x.max()) == (0, 16)
    images = DATA["digits"](images=True)
    assert images.train.x.shape == (1257, 8, 8, 1)
    np.testing.assert_allclose(images.train.x.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(images.train.x.std(), 1, rtol=1e-5)
    flat = images.train.x.reshape(1257, 64)
    assert np.corrcoef(flat.ravel(), raw.train.x.ravel())[0, 1] == pytest.approx(1)


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
