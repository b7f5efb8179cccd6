"""A loader of one's own: each fault planted in one, and a near miss that is healthy."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import nnref
from nnref.errors import UserError

DIGITS, NAMES = load_digits(return_X_y=True)
DIGITS = (DIGITS * 15).astype(np.uint8).reshape(-1, 8, 8)[:900]  # bytes from 0 to 240
NAMES = NAMES[:900]
RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(640, 6)).astype(np.float32)
LINE = (TABLE @ np.array([1.0, -2, 0.5, 0, 1, 3]) + 0.1 * RANDOM.normal(size=640))[:, None]
# A smooth picture in colours, whose brightest side is the class: turned, it is another one.
SIDES = RANDOM.integers(0, 2, 640)
RAMP = np.where(SIDES[:, None] == 0, np.linspace(0, 1, 12), np.linspace(1, 0, 12))
PICTURES = 200 * RAMP[:, None, :, None] * np.array([1, 0.7, 0.4]) * np.ones((640, 12, 12, 3))
PICTURES = (PICTURES + RANDOM.integers(0, 40, PICTURES.shape)).astype(np.uint8)


def batches(x, y, size=32, *, shuffle=True, prepared=lambda x: x, last=True):
    """A loader as people write it: a function of the epoch."""

    def load(epoch):
        random = np.random.default_rng(epoch)
        order = random.permutation(len(x)) if shuffle else np.arange(len(x))
        end = len(x) if last else len(x) // size * size
        for start in range(0, end, size):
            at = order[start : start + size]
            yield prepared(x[at]), y[at]

    return load


def scaled(x):
    return (x.astype(np.float32) - 80) / 60


def said(load, rows=None, severity="fault", **others):
    found = nnref.examine_data(load, rows, **others)
    return sorted({finding.cause for finding in found if finding.severity == severity})


HEALTHY = {
    "images, shuffled and scaled": (batches(DIGITS, NAMES, prepared=scaled), (DIGITS, NAMES)),
    "the same without raw rows": (batches(DIGITS, NAMES, prepared=scaled), None),
    "a table, scaled by column": (
        batches((TABLE - TABLE.mean(0)) / TABLE.std(0), LINE / 3),
        (TABLE, LINE),
    ),
    "a little noise in every draw": (
        batches(DIGITS, NAMES, prepared=lambda x: scaled(x) + RANDOM.normal(0, 0.2, x.shape)),
        (DIGITS, NAMES),
    ),
    "the last batch dropped from another order each time": (
        batches(DIGITS, NAMES, 64, prepared=scaled, last=False),
        (DIGITS, NAMES),
    ),
    "channels first, transposed": (
        batches(PICTURES, SIDES, prepared=lambda x: scaled(x).transpose(0, 3, 1, 2)),
        (PICTURES, SIDES),
    ),
    "mirrored top to bottom, which changes no answer": (
        batches(PICTURES, SIDES, prepared=lambda x: scaled(turned_by_chance(x, 1))),
        (PICTURES, SIDES),
    ),
    "classes counted from 1": (batches(DIGITS, NAMES + 1, prepared=scaled), (DIGITS, NAMES)),
    "one-hot": (batches(DIGITS, np.eye(10)[NAMES], prepared=scaled), (DIGITS, NAMES)),
}


def turned_by_chance(x, axis):
    which = RANDOM.random(len(x)) < 0.5
    return np.where(which.reshape(-1, *[1] * (x.ndim - 1)), np.flip(x, axis), x)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_loader_has_no_fault(name):
    load, rows = HEALTHY[name]
    assert said(load, rows) == []


def read_once(load):
    """A generator that is made once, and read in every epoch."""
    stream = load(0)
    return lambda: stream


def first_batch(load):
    return lambda: (next(iter(load(0))) for _ in range(20))


def slipping(x, y, by, size=32):
    """Targets of the row that stands some places on, as of two iterators read unevenly."""
    load = batches(x, y, size)

    def slipped(epoch):
        xs, ys = (np.concatenate(part) for part in zip(*load(epoch), strict=True))
        ys = np.roll(ys, -by, 0)
        for start in range(0, len(xs), size):
            yield xs[start : start + size], ys[start : start + size]

    return slipped


def apart(x, y):
    """Inputs and targets shuffled, each by itself."""
    return batches(x, RANDOM.permutation(y))


def by_class(x, y):
    order = np.argsort(y, kind="stable")
    return batches(x[order], y[order], shuffle=False)


def each_by_itself(x):
    x = x.astype(np.float32)
    return (x - x.mean(0)) / (x.std(0) + 1e-9)


LOST = NAMES != 0
FAULTS = {
    "read to its end": (read_once(batches(TABLE, LINE)), None, "rows_dropped"),
    "one batch for ever": (first_batch(batches(TABLE, LINE)), None, "repeated_rows"),
    "a class is filtered away": (
        batches(DIGITS[LOST], NAMES[LOST]),
        (DIGITS, NAMES),
        "rows_dropped",
    ),
    "a few batches left from a trial": (
        batches(TABLE[:128], LINE[:128]),
        (TABLE, LINE),
        "rows_dropped",
    ),
    "sorted by class": (by_class(DIGITS, NAMES), None, "unshuffled_split"),
    "slipped by one, raw rows known": (
        slipping(DIGITS, NAMES, 1),
        (DIGITS, NAMES),
        "corrupted_labels",
    ),
    "slipped by one": (slipping(TABLE, LINE, 1), None, "corrupted_labels"),
    "slipped by a batch": (slipping(DIGITS, NAMES, -32), None, "corrupted_labels"),
    "shuffled apart": (apart(DIGITS, NAMES), (DIGITS, NAMES), "corrupted_labels"),
    "shuffled apart, of a table": (apart(TABLE, LINE), (TABLE, LINE), "corrupted_labels"),
    "mirrored, which changes the answer": (
        batches(PICTURES, SIDES, prepared=lambda x: scaled(turned_by_chance(x, 2))),
        (PICTURES, SIDES),
        "augmentation_changes_answer",
    ),
    "noise that leaves nothing": (
        batches(TABLE, LINE, prepared=lambda x: x + RANDOM.normal(0, 30, x.shape)),
        (TABLE, LINE),
        "augmentation_changes_answer",
    ),
    "reshaped for transposed": (
        batches(PICTURES, SIDES, prepared=lambda x: scaled(x).reshape(-1, 3, 12, 12)),
        (PICTURES, SIDES),
        "inputs_misread",
    ),
    "bytes wrapped round": (
        batches(DIGITS, NAMES, prepared=lambda x: (x - np.uint8(100)) / np.float32(255)),
        (DIGITS, NAMES),
        "integer_overflow",
    ),
    "bytes wrapped round, of images": (
        batches(PICTURES, SIDES, prepared=lambda x: x + np.uint8(128)),
        None,
        "integer_overflow",
    ),
    "targets wrapped round": (
        batches(TABLE, (100 * LINE).astype(np.int16).astype(np.int8)),
        (TABLE, (100 * LINE).astype(np.int16)),
        "integer_overflow",
    ),
    "each batch by its own statistics": (
        batches(TABLE, LINE, 64, prepared=each_by_itself),
        (TABLE, LINE),
        "splits_differ",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    load, rows, cause = FAULTS[name]
    assert cause in said(load, rows)


def test_validation_scaled_by_its_own_statistics():
    def loader(x, y, prepared):
        return batches(x, y, 64, prepared=prepared)

    shifted = TABLE[400:] * 3 + 5
    y = shifted @ np.array([1.0, -2, 0.5, 0, 1, 3])[:, None]
    mean, deviation = TABLE[:400].mean(0), TABLE[:400].std(0)
    train = loader((TABLE[:400] - mean) / deviation, LINE[:400], lambda x: x)
    own = loader((shifted - shifted.mean(0)) / shifted.std(0), y, lambda x: x)
    alike = loader((shifted - mean) / deviation, y, lambda x: x)
    assert "splits_differ" in said(train, valid=own)
    assert "splits_differ" not in said(train, valid=alike)


def test_the_same_order_in_every_epoch_is_worth_knowing():
    assert said(batches(TABLE, LINE, shuffle=False), (TABLE, LINE), "note") == ["unshuffled_split"]
    assert said(batches(TABLE, LINE), (TABLE, LINE), "note") == []


def test_rows_that_come_more_than_once_are_worth_knowing():
    def drawn(epoch):
        at = np.random.default_rng(epoch).integers(0, len(TABLE), len(TABLE))
        for start in range(0, len(at), 32):
            yield TABLE[at[start : start + 32]], LINE[at[start : start + 32]]

    assert "repeated_rows" in said(drawn, (TABLE, LINE), "note")


def test_an_exception_of_the_loader_is_what_was_found():
    def load():
        yield TABLE[:4], LINE[:4]
        raise ValueError("no such file")

    (finding,) = nnref.examine_data(load)
    assert finding.cause == "broken_program"
    assert "no such file" in finding.evidence
    assert __file__ in finding.where


def test_what_is_no_loader_is_refused():
    with pytest.raises(UserError, match="load is a int"):
        nnref.examine_data(3)
    with pytest.raises(UserError, match="no rows at all"):
        nnref.examine_data([])
    with pytest.raises(UserError, match="epochs is 0"):
        nnref.examine_data([(TABLE, LINE)], epochs=0)


def test_the_answer_speaks_of_data():
    assert "These data are not" in str(nnref.examine_data(first_batch(batches(TABLE, LINE))))
    healthy = nnref.examine_data(batches(TABLE, LINE), (TABLE, LINE))
    assert str(healthy).startswith("Nothing was found that is wrong with these data.")
    assert healthy.exit_code == 0
    assert healthy.measures["share of known rows"] == 1
