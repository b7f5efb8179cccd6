"""Properties of data: each with rows that lack it, and a near miss that has it."""

import numpy as np
import pytest

from nnref import checks
from nnref.errors import UserError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(600, 4)).astype(np.float32)
Y = (X[:, :1] - 2 * X[:, 1:2] > 0).astype(int)
TRAIN, OTHER = (X[:400], Y[:400]), (X[400:], Y[400:])


def own(x):
    return (x - x.mean(0)) / x.std(0)


def mixed(at):
    x = np.array(X[400:])
    x[:20] = X[:20] if at == "copies" else (X[:20] + X[20:40]) / 2
    return x, Y[400:]


@pytest.mark.parametrize("at", ["copies", "between"])
def test_splits_are_disjoint(at):
    with pytest.raises(AssertionError, match="data_splits_are_disjoint: .*% of the other rows"):
        checks.data_splits_are_disjoint(TRAIN, mixed(at))
    assert checks.data_splits_are_disjoint(TRAIN, OTHER) == {"rows": (400, 200)}


def test_statistics_are_those_of_training():
    shifted = 3 * X[400:] + 2
    mean, deviation = X[:400].mean(0), X[:400].std(0)
    train = (X[:400] - mean) / deviation, Y[:400]
    with pytest.raises(AssertionError, match="scaled by its own statistics"):
        checks.train_statistics_only(train, (own(shifted), Y[400:]))
    figures = checks.train_statistics_only(train, ((shifted - mean) / deviation, Y[400:]))
    assert figures["deviation"] > 2


def test_labels_belong_to_rows():
    assert checks.labels_belong_to_rows(TRAIN, OTHER)["skill"] > 0.8
    drawn = TRAIN[0], RANDOM.permutation(TRAIN[1])
    with pytest.raises(AssertionError, match="find nothing of the targets"):
        checks.labels_belong_to_rows(drawn)
    assert checks.labels_belong_to_rows(drawn, strict=False)["skill"] < 0.1
    with pytest.raises(AssertionError, match=r"slipped: row i comes with the target of row i \+2"):
        checks.labels_belong_to_rows((TRAIN[0], np.roll(TRAIN[1], -2, 0)))
    with pytest.raises(AssertionError, match="validation targets do not belong"):
        checks.labels_belong_to_rows(TRAIN, (OTHER[0], RANDOM.permutation(OTHER[1])))
    with pytest.raises(checks.NotApplicable, match="too few"):
        checks.labels_belong_to_rows((X[:50], Y[:50]))


def test_scaling_has_an_inverse():
    prices = RANDOM.uniform(1, 900, 50)
    assert checks.inverse_of_scaling(np.log1p, np.expm1, prices)["missed by"] < 1e-6
    with pytest.raises(AssertionError, match=r"unscale\(scale\(.*is not the inverse"):
        checks.inverse_of_scaling(np.log1p, np.exp, prices)
    with pytest.raises(AssertionError, match="come back as"):
        checks.inverse_of_scaling(lambda y: y[:, None], lambda y: y, prices)


def test_figures_of_data():
    figures = checks.data_summary(TRAIN)
    copies = tuple(np.concatenate([part[:10], part[:-10]]) for part in TRAIN)
    assert checks.data_summary(copies)["different rows"] == figures["different rows"] - 10
    assert figures["rows"] == 400
    assert figures["mean of the inputs"] == pytest.approx(float(X[:400].mean()), abs=1e-6)
    with pytest.raises(AssertionError, match="NaN or infinity"):
        checks.data_summary((np.full_like(X, np.nan), Y))


def test_what_is_no_pair_of_arrays_is_refused():
    with pytest.raises(UserError, match="give rows as"):
        checks.data_summary((X, Y[:3]))
    with pytest.raises(UserError, match=r"rows of \(4,\) and \(2,\)"):
        checks.data_splits_are_disjoint(TRAIN, (X[:, :2], Y))
