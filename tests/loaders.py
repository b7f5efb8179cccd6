"""Loaders as people write them, healthy and broken, that the tests of the pipeline share."""

import numpy as np
from sklearn.datasets import load_digits

import nnref

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


def turned_by_chance(x, axis):
    which = RANDOM.random(len(x)) < 0.5
    return np.where(which.reshape(-1, *[1] * (x.ndim - 1)), np.flip(x, axis), x)


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
