"""Targets of several numbers that were filled in where a label is missing."""

from typing import NamedTuple

import numpy as np

from nnref.diagnosis.data.references import FEW_ROWS, ROWS, balanced, least_squares
from nnref.diagnosis.data.targets import Target
from nnref.diagnosis.thresholds import bound

SEVERAL = 4  # numbers of a target: with fewer, many rows have the same one
OUTPUTS = 64  # numbers of the targets that a linear model predicts
QUANTILES = (0, 0.1, 0.5, 0.9, 1)


class Blanks(NamedTuple):
    """The rows whose target is one and the same number throughout, and what inputs say of them."""

    rows: np.ndarray  # yes or no, (rows,)
    value: float
    told: float  # skill of linear models that tell these rows from the others, 0 by chance
    of_others: float  # R² of a linear model of the other rows, on some held out
    spread: float  # variance of its answers for the blank rows, over that for others held out


def blank_rows(y: np.ndarray) -> tuple[np.ndarray, float] | None:
    """The rows with one constant target, and it; None where they are few, or others repeat too.

    Args:
        y: targets, (rows, ...).
    """
    if y.ndim < 2 or y[0].size < SEVERAL or y.dtype.kind not in "fiub" or len(y) < FEW_ROWS:
        return None
    flat = y.reshape(len(y), -1)
    still = (flat == flat[:, :1]).all(1)
    if not still.any():
        return None
    values, counts = np.unique(flat[still, 0], return_counts=True)
    value = values[counts.argmax()]
    blank = still & (flat[:, 0] == value)
    others = flat[~blank]
    if not bound("few blanks") < blank.mean() < 1 - bound("few blanks") / 2:
        return None
    if min(blank.sum(), len(others)) < FEW_ROWS:
        return None
    counts = np.unique(others, axis=0, return_counts=True)[1]
    if counts.max() > max(bound("few blanks") * len(others), 1) or 2 * len(counts) < len(others):
        return None  # one-hot classes, and labels of few values
    return blank, float(value)


def filled(x: list[np.ndarray], y: np.ndarray) -> Blanks | None:
    """Blank targets that nothing in the inputs tells from others; None where there are none such.

    Where there is nothing to be seen in the inputs, linear models of them, and of the quantiles of
    each channel, tell these rows, and a model of the other rows gives even answers for them. What
    was never labelled looks like any other row.

    Args:
        x: inputs, each (rows, ...) of numbers.
        y: targets, (rows, ...).
    """
    found = blank_rows(y)
    if found is None or not all(np.isfinite(part).all() for part in x):
        return None
    blank, value = found
    order = np.random.default_rng(0).permutation(len(y))[:ROWS]
    blank, y = blank[order], y[order].reshape(len(order), -1).astype(float)
    flat = np.concatenate([part[order].reshape(len(order), -1) for part in x], 1).astype(float)
    flat = (flat - flat.mean(0)) / (flat.std(0) + 1e-30)
    of_places = [quantiles(part[order]) for part in x if part.ndim > 2]
    target = Target("binary", blank.astype(int), 2)
    score = max(balanced(each, target) for each in (flat, *of_places))
    y = y[:, np.random.default_rng(0).permutation(y.shape[1])[:OUTPUTS]]
    others = np.flatnonzero(~blank)
    fit, held = np.array_split(others, 2)
    model = least_squares(flat[fit], y[fit])
    answers, missed = model(flat[held]), ((y[held] - model(flat[held])) ** 2).sum()
    of_others = 1 - missed / max(((y[held] - y[fit].mean(0)) ** 2).sum(), 1e-30)
    spread = model(flat[blank]).var(0).sum() / max(answers.var(0).sum(), 1e-30)
    blanks = Blanks(found[0], value, score, float(of_others), float(spread))
    hidden = score < bound("learnable") and spread > bound("looks alike")
    return blanks if hidden and of_others > bound("signal") else None


def quantiles(part: np.ndarray) -> np.ndarray:
    """Mean, deviation and quantiles of each channel over all places, wherever something stands."""
    part = part.reshape(len(part), -1, part.shape[-1]).astype(float)
    levels = np.quantile(part, QUANTILES, axis=1)
    return np.concatenate([part.mean(1), part.std(1), *levels], 1)
