"""Handwritten digits that come with scikit-learn."""

from functools import cache

import numpy as np

from nnref.bounds import Index, Probability
from nnref.data.prepare import Dataset, split_rows, standardize


@cache
def raw_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 64) of ink from 0 to 16 and labels (1797,), read once."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.data.astype(np.float32), bunch.target.astype(np.int32)


def digits(
    *,
    valid: Probability = 0.15,
    test: Probability = 0.15,
    standardized: bool = True,
    seed: Index = 0,
) -> Dataset:
    """1,797 real handwritten digits of 8 x 8 pixels, from 43 people (Alpaydin and Kaynak 1998).

    The split is stratified. Pixels are standardized one by one with the mean and deviation of the
    training split.

    Args:
        valid: share of the images for validation.
        test: share of the images for the test.
        standardized: shift and scale each pixel; else ink from 0 to 16 as it is.
        seed: of the split.
    """
    x, y = raw_digits()
    parts = split_rows(x, y, valid=valid, test=test, seed=seed, stratify=True)
    if standardized:
        parts = standardize(*parts)
    columns = tuple(f"row {r} column {c}" for r in range(8) for c in range(8))
    return Dataset(*parts, classes=tuple("0123456789"), columns=columns)
