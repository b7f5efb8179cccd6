"""Handwritten digits that come with scikit-learn."""

from functools import cache

import numpy as np

from nnref.bounds import Index, Probability
from nnref.data.prepare import Dataset, mean_and_deviation, split_rows, standardize


@cache
def raw_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 64) of ink from 0 to 16 and labels (1797,), read once."""
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    return np.asarray(ink, np.float32), np.asarray(digit, np.int32)


def digits(
    *,
    valid: Probability = 0.15,
    test: Probability = 0.15,
    standardized: bool = True,
    images: bool = False,
    seed: Index = 0,
) -> Dataset:
    """1,797 real handwritten digits of 8 x 8 pixels, from 43 people (Alpaydin and Kaynak 1998).

    The split is stratified. Pixels are standardized with the mean and deviation of the training
    split: one by one, or all alike where they stay together as images.

    Args:
        valid: share of the images for validation.
        test: share of the images for the test.
        standardized: shift and scale the pixels; else ink from 0 to 16 as it is.
        images: examples of shape (8, 8, 1), for convolutions and shifts; else 64 numbers in a row.
        seed: of the split.
    """
    x, y = raw_digits()
    columns = tuple(f"row {r} column {c}" for r in range(8) for c in range(8))
    if images:
        x = x.reshape(-1, 8, 8, 1)
    parts = split_rows(x, y, valid=valid, test=test, seed=seed, stratify=True)
    axis = (0, 1, 2) if images else 0
    scaling = mean_and_deviation(parts.train.x, axis) if standardized else None
    if standardized:
        parts = standardize(*parts, axis=axis)
    return Dataset(*parts, classes=tuple("0123456789"), columns=columns, scaling=scaling)
