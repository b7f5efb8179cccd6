"""Data that are made: fit to train on, always the same, and as their docstrings say."""

import warnings

import numpy as np
import pytest

from nnref.data import DATA
from nnref.data.synthetic import adding, copy_memory, temporal_parity

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


def test_adding_adds_the_two_marked_numbers():
    data = adding(steps=9, examples=4000, valid=0.25, test=0.0)
    x, y = data.train
    number, mark = x[..., 0], x[..., 1]
    assert x.shape == (3000, 9, 2)
    assert len(data.valid.x) == 1000
    assert data.test is None
    np.testing.assert_array_equal(np.unique(mark), [0, 1])
    np.testing.assert_array_equal(mark[:, :4].sum(axis=1), 1)
    np.testing.assert_array_equal(mark[:, 4:].sum(axis=1), 1)
    assert (mark.sum(axis=0) > 0).all()
    assert (number.min() >= 0) & (number.max() < 1)
    np.testing.assert_allclose(y, (number * mark).sum(axis=1), rtol=1e-6)
    # The variance of the sum of two numbers from U[0, 1]; 3000 of them have it to 3 %.
    assert np.mean((y - 1) ** 2) == pytest.approx(1 / 6, rel=0.1)


def test_copy_memory_asks_for_the_symbols_again():
    data = copy_memory(delay=4, length=3, symbols=5, examples=500, valid=0.0, test=0.0)
    x, y = data.train
    assert x.shape == y.shape == (500, 10)
    assert data.classes == ("blank", "1", "2", "3", "4", "5", "begin")
    np.testing.assert_array_equal(np.unique(x[:, :3]), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(x[:, 3:], [[0, 0, 0, 6, 0, 0, 0]] * 500)
    np.testing.assert_array_equal(y[:, :7], 0)
    np.testing.assert_array_equal(y[:, 7:], x[:, :3])


def test_temporal_parity_counts_ones_up_to_the_end_of_each_sequence():
    data = temporal_parity(steps=12, examples=3000)
    x, y = data.train
    bits, real = x[..., 0], x[..., 1]
    lengths = real.sum(axis=1).astype(int)
    np.testing.assert_array_equal(np.unique(lengths), np.arange(1, 13))
    np.testing.assert_array_equal(real, np.arange(12) < lengths[:, None])
    np.testing.assert_array_equal(bits * real, bits)
    np.testing.assert_array_equal(y, [int(sum(row)) % 2 for row in bits])
    rows = np.concatenate([split.x for split in data.splits.values()])
    assert len(np.unique(rows, axis=0)) == len(rows) < 3000


@pytest.mark.parametrize("make", [adding, copy_memory, temporal_parity])
def test_sequences_follow_from_their_seed(make):
    one, again, other = (make(examples=50, seed=seed).fingerprint for seed in (0, 0, 1))
    assert one == again != other
