"""Data that papers construct to prove a point: each is built so that its outcome can be derived."""

from typing import Annotated

import numpy as np
from annotated_types import Interval

from nnref.bounds import Count, Index
from nnref.data.prepare import Dataset, Split
from nnref.errors import UserError


def periodic_costs(
    *, first: float = 1010.0, others: float = -10.0, period: Count = 101, periods: Count = 100
) -> Dataset:
    """Costs that come one after another, the first of each period unlike the others.

    f_t(w) = c_t w with c_t = first where t mod period = 1, else others (Reddi, Kale and Kumar 2018:
    theorem 1 has C, -1 and 3, figure 1 has 1010, -10 and 101). The input is 1 and the target c_t,
    so that the weight of a linear model without bias, under the loss `linear`, is the paper's x.
    The order is the sequence: it needs `shuffle` false and batches of 1.

    The one validation row has input and cost -1: its loss is w itself. A period of 1, in which all
    costs are alike, raises a UserError.

    Args:
        first: cost at the start of each period.
        others: cost at all other times.
        period: rows of a period.
        periods: how often it is repeated.
    """
    if period == 1:
        raise UserError("data.period: 1 leaves no room for other costs than the first; give more")
    costs = np.full((periods, period), others, np.float32)
    costs[:, 0] = first
    minus_one = -np.ones((1, 1), np.float32)
    return Dataset(
        train=Split(np.ones((costs.size, 1), np.float32), costs.reshape(-1, 1)),
        valid=Split(minus_one, minus_one),
    )


def wilson(
    *, rows: Count = 200, positive: Annotated[float, Interval(gt=0.5, lt=1)] = 0.7, seed: Index = 0
) -> Dataset:
    """Examples of -1 and 1 on which adaptive methods generalize wrongly (Wilson et al. 2017, 3.3).

    y = 1 with probability `positive`, else -1. x_1 = y, x_2 = x_3 = 1; then each example has five
    features of its own, of which one is 1 where y = 1, and all five are where y = -1. The first
    feature alone tells the classes apart. From zero weights gradient descent finds the solution of
    least norm, which does; AdaGrad, RMSProp and Adam, on the full batch, the one along the signs of
    sum_i y_i x_i, which calls every new example positive.

    Validation is one new positive example, the test one new negative one: their own features are
    columns that no other example has.

    Args:
        rows: n, training examples.
        positive: probability of y = 1, more than one half.
        seed: of the labels.

    Raises:
        UserError: where the drawn labels do not sum to more than 0, which the proof needs.
    """
    y = np.where(np.random.default_rng(seed).random(rows) < positive, 1, -1)
    if y.sum() <= 0:
        raise UserError(
            f"data: {np.sum(y > 0)} of {rows} labels came out positive, the construction needs "
            "more than half; give another seed, more rows or a larger share"
        )
    y = np.append(y, [1, -1])
    x = np.zeros((len(y), 3 + 5 * len(y)), np.float32)
    x[:, 0] = y
    x[:, 1:3] = 1
    for i, label in enumerate(y):
        own = 3 + 5 * i
        x[i, own : own + (1 if label == 1 else 5)] = 1
    y = y.reshape(-1, 1).astype(np.float32)
    parts = (slice(0, rows), slice(rows, rows + 1), slice(rows + 1, rows + 2))
    train, valid, test = (Split(x[part], y[part]) for part in parts)
    return Dataset(train, valid, test)


def signal(*, inputs: Count = 1, outputs: Count = 1) -> Dataset:
    """One vector, to be sent through a network that has not learned anything.

    The validation row is the vector of ones, h_0, and its targets are 0, so that under
    `squared_error` the validation loss is the mean square of what arrives; with as many outputs as
    inputs, ||h_L||^2 / ||h_0||^2.

    The training rows, a vector of twos with targets 1 and one of zeros with targets 0, are there
    because a run has to have some: with a rate of 1e-30 they change nothing.

    Args:
        inputs: width of the vector.
        outputs: width of what arrives.
    """
    one, zero = np.ones((1, inputs), np.float32), np.zeros((1, outputs), np.float32)
    return Dataset(
        train=Split(np.concatenate([2 * one, 0 * one]), np.concatenate([zero + 1, zero])),
        valid=Split(one, zero),
    )
