"""Synthetic data, made on the spot: XOR and spirals; sequences to add, remember and count."""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from nnref.bounds import Count, Index, NonNegative, Probability
from nnref.data.prepare import Dataset, Split, split_rows, standardize


def xor(*, jitter: NonNegative = 0.1, copies: Count = 8, seed: Index = 0) -> Dataset:
    """Exclusive or: the four corners of the unit square, opposite corners alike.

    The smallest task that no linear model solves (Minsky and Papert 1969). Training data are the
    four corners themselves; validation data are points near them, because an answer learned at
    the corners should hold beside them too.

    Args:
        jitter: standard deviation of the validation points around their corner.
        copies: validation points at each corner.
        seed: of the jitter.
    """
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    labels = np.array([0, 1, 1, 0], np.int32)
    rng = np.random.default_rng(seed)
    near = np.repeat(corners, copies, axis=0)
    near = (near + jitter * rng.standard_normal(near.shape)).astype(np.float32)
    return Dataset(
        train=Split(corners, labels),
        valid=Split(near, np.repeat(labels, copies)),
        classes=("0", "1"),
        columns=("x1", "x2"),
    )


def spirals(
    *,
    arms: Annotated[int, Ge(2)] = 3,
    points: Count = 200,
    turns: NonNegative = 1.0,
    noise: NonNegative = 0.1,
    valid: Probability = 0.2,
    test: Probability = 0.2,
    seed: Index = 0,
) -> Dataset:
    """Interleaved spirals: arm k starts at angle 2 pi k/arms and winds outward.

    A point at radius r in (0, 1] has angle 2 pi (k/arms + turns r) plus noise, so that noise moves
    it along its circle, as Karpathy's course notes make them (CS231n, "toy spiral data").

    Args:
        arms: number of spirals, that is of classes.
        points: points on each arm.
        turns: how far an arm winds.
        noise: standard deviation of the angle, in radians.
        valid: share of the points for validation.
        test: share of the points for the test.
        seed: of noise and split.
    """
    rng = np.random.default_rng(seed)
    arm = np.repeat(np.arange(arms), points)
    radius = np.tile(np.arange(1, points + 1) / points, arms)
    angle = 2 * np.pi * (arm / arms + turns * radius) + noise * rng.standard_normal(arm.shape)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    parts = split_rows(x, arm.astype(np.int32), valid=valid, test=test, seed=seed, stratify=True)
    return Dataset(
        *standardize(*parts), classes=tuple(str(k) for k in range(arms)), columns=("x1", "x2")
    )


# --- sequences ----------------------------------------------------------------------------------


def adding(
    *,
    steps: Annotated[int, Ge(2)] = 50,
    examples: Count = 20_000,
    valid: Probability = 0.1,
    test: Probability = 0.1,
    seed: Index = 0,
) -> Dataset:
    """Adding problem: of a sequence of numbers, the sum of the two that are marked.

    Step t shows a number from U[0, 1] and 1 or 0; one step in each half is marked with 1. Whoever
    answers 1 whatever the sequence has a squared error of 1/6, the variance of the sum (Hochreiter
    and Schmidhuber 1997, section 5.4; in this form Arjovsky et al. 2016). Inputs (steps, 2).

    Args:
        steps: length of a sequence; the longer, the harder.
        examples: number of sequences.
        valid: share of them for validation.
        test: share of them for the test.
        seed: of numbers, marks and split.
    """
    rng = np.random.default_rng(seed)
    half, rows = steps // 2, np.arange(examples)
    number = rng.random((examples, steps), np.float32)
    mark = np.zeros((examples, steps), np.float32)
    mark[rows, rng.integers(0, half, examples)] = 1
    mark[rows, rng.integers(half, steps, examples)] = 1
    y = (number * mark).sum(axis=1)
    x = np.stack([number, mark], axis=2)
    return Dataset(*split_rows(x, y, valid=valid, test=test, seed=seed, stratify=False))


def copy_memory(
    *,
    delay: Count = 10,
    length: Count = 10,
    symbols: Annotated[int, Ge(2)] = 8,
    examples: Count = 10_000,
    valid: Probability = 0.1,
    test: Probability = 0.1,
    seed: Index = 0,
) -> Dataset:
    """Copy memory: repeat some symbols a while after they were shown.

    A sequence is `length` random symbols, delay - 1 blanks, a sign to begin, `length` blanks; its
    target is blank at every step but the last `length`, which are the symbols. Who knows when but
    not what has a cross entropy of length log(symbols) / (delay + 2 length) (Hochreiter and
    Schmidhuber 1997; in this form Arjovsky et al. 2016). Inputs are tokens (delay + 2 length,): 0
    is blank, 1 to `symbols` the symbols, and the last one the sign.

    Args:
        delay: steps between the last symbol and the first answer; the longer, the harder.
        length: symbols to remember.
        symbols: number of different ones.
        examples: number of sequences.
        valid: share of them for validation.
        test: share of them for the test.
        seed: of symbols and split.
    """
    rng = np.random.default_rng(seed)
    shown = rng.integers(1, symbols + 1, (examples, length), np.int32)
    x = np.zeros((examples, delay + 2 * length), np.int32)
    y = x.copy()
    x[:, :length] = shown
    x[:, length + delay - 1] = symbols + 1
    y[:, -length:] = shown
    names = ("blank", *(str(k) for k in range(1, symbols + 1)), "begin")
    parts = split_rows(x, y, valid=valid, test=test, seed=seed, stratify=False)
    return Dataset(*parts, classes=names)


def temporal_parity(
    *,
    steps: Count = 20,
    examples: Count = 10_000,
    valid: Probability = 0.1,
    test: Probability = 0.1,
    seed: Index = 0,
) -> Dataset:
    """Temporal parity: whether a sequence of bits holds an odd number of ones.

    A single bit of state solves it, and no look at a part of the sequence helps. Lengths are
    uniform from 1 to `steps`; step t shows the bit and 1, or behind the end 0 and 0, for a model
    with `padded`. Sequences drawn twice are kept once, so that none of validation is trained on.
    Inputs (steps, 2).

    Args:
        steps: of the longest sequence.
        examples: number of sequences that are drawn.
        valid: share of them for validation.
        test: share of them for the test.
        seed: of lengths, bits and split.
    """
    rng = np.random.default_rng(seed)
    real = np.arange(steps) < rng.integers(1, steps + 1, (examples, 1))
    bits = rng.integers(0, 2, (examples, steps)) * real
    x = np.unique(np.stack([bits, real], axis=2).astype(np.float32), axis=0)
    y = (x[:, :, 0].sum(axis=1) % 2).astype(np.int32)
    parts = split_rows(x, y, valid=valid, test=test, seed=seed, stratify=True)
    return Dataset(*parts, classes=("even", "odd"))
