"""Data are split and standardized as said, and refused where they are bad."""

import hashlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnref.data import Dataset, DataWarning, Split
from nnref.data.prepare import row_hashes, split_rows, standardize, stratified
from nnref.errors import UserError

rng = np.random.default_rng(0)


def refused(call, *arguments, **keys):
    with pytest.raises(UserError) as error:
        call(*arguments, **keys)
    return str(error.value)


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
        "split at random, which keeps the shares of classes",
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


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float16, np.float32, np.float64])
def test_equal_rows_and_only_they_have_the_same_hash(dtype):
    x = np.random.default_rng(0).integers(0, 2, (400, 3, 3)).astype(dtype)
    hashes = row_hashes(x)
    assert len(np.unique(hashes)) == len(np.unique(x.reshape(400, 9), axis=0))
    _, first = np.unique(hashes, return_inverse=True)
    _, second = np.unique(x.reshape(400, 9), axis=0, return_inverse=True)
    assert (
        len(set(zip(first.tolist(), second.reshape(-1).tolist(), strict=True))) == first.max() + 1
    )
    if x.dtype.kind == "f":
        np.testing.assert_array_equal(row_hashes(-x * 0), row_hashes(x * 0))
