"""Synthetic data, made on the spot: XOR and spirals."""

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
        *standardize(*parts),
        classes=tuple(str(k) for k in range(arms)),
        columns=("x1", "x2"),
    )
