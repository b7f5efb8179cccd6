"""Integers that wrapped round: one less than 0 is the largest number there is."""

from typing import NamedTuple

import numpy as np

BITS = (8, 16, 32)  # of integers without a sign
JUST_BELOW = 64  # steps below 0, at most, from which numbers come that wrapped round
LOOKED_AT = 10**6  # numbers


class Wrapped(NamedTuple):
    """Numbers that lie just below the end of a range of integers, far from all others."""

    bits: int
    share: float
    example: float
    should_be: float
    largest: float  # of the others


def wrapped_round(values: np.ndarray) -> Wrapped | None:
    """Numbers on a grid of which a few lie 2^bits steps too high; None where there are none.

    Args:
        values: of any shape; the grid may be of fractions, as pixels over the size of a picture.
    """
    flat = values.ravel()
    flat = np.asarray(flat[:: max(1, flat.size // LOOKED_AT)], np.float64)
    different, counts = np.unique(flat, return_counts=True)
    if len(different) < 4 or not np.isfinite(different).all():
        return None
    gap = int(np.argmax(np.diff(different)))
    low, high = different[: gap + 1], different[gap + 1 :]
    if len(low) < 3:
        return None
    step = float(np.median(np.diff(low)))
    on_grid = np.abs((low - low[0]) / step - np.rint((low - low[0]) / step)).max() < 0.01
    if not on_grid or not -JUST_BELOW <= low[0] / step <= JUST_BELOW:
        return None
    for bits in BITS:
        turned = (high - 2.0**bits * step) / step  # in steps
        whole = np.abs(turned - np.rint(turned)).max() < 0.02 * 2.0 ** max(bits - 8, 0)
        below = (turned >= low[0] / step - JUST_BELOW).all() and (
            turned < low[0] / step - 0.5
        ).all()
        if whole and below and np.ptp(low) < 2.0 ** (bits - 2) * step:
            share = float(counts[gap + 1 :].sum() / counts.sum())
            example, right = float(high[0]), float(np.rint(turned[0]) * step)
            return Wrapped(bits, share, example, right, float(low[-1]))
    return None
