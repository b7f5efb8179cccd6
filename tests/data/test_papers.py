"""The data that papers construct, each with the outcome that can be derived."""

import jax.numpy as jnp
import numpy as np
import pytest

from nnref.data import DATA
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.parts.losses import LOSSES
from nnref.studies.run import run


def test_costs_repeat_with_their_period_from_the_first_row():
    costs = DATA["periodic_costs"](first=3, others=-1, period=3, periods=4).train.y[:, 0]
    np.testing.assert_array_equal(costs, [3, -1, -1] * 4)
    costs = DATA["periodic_costs"](periods=2).train.y[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(costs == 1010), [0, 101])
    assert costs.mean() == pytest.approx(10 / 101)


def test_validation_of_costs_tells_the_weight():
    made = DATA["periodic_costs"]()
    loss = LOSSES["linear"](0.25 * made.valid.x, jnp.asarray(made.valid.y))
    np.testing.assert_array_equal(loss, [0.25])


def test_a_period_of_one_is_refused():
    with pytest.raises(UserError, match=r"data\.period: 1 leaves no room"):
        DATA["periodic_costs"](period=1)


def test_a_sequence_of_costs_is_met_in_its_order():
    # By hand: costs 2, -1, -1 and the rate 3/4 take w from 0 to -1 (from -1.5), -0.25 and 0.5.
    experiment = Experiment(
        data={"name": "periodic_costs", "first": 2.0, "others": -1.0, "period": 3, "periods": 1},
        model={"name": "linear", "use_bias": False, "kernel_initializer": "zeros"},
        loss="linear",
        optimizer={"name": "sgd", "learning_rate": 0.75},
        regularization={"max_norm": 1.0},
        metrics=[],
        batch_size=1,
        epochs=1,
        shuffle=False,
    )
    history = run(experiment, logbook=None).history
    np.testing.assert_allclose(history["valid_loss"][0], [0, 0.5], atol=1e-7)
    np.testing.assert_allclose(history["train_loss"][0, 1], (0 + 1 + 0.25) / 3, rtol=1e-6)


def closed_form(y):
    """Scores of a new positive and a new negative example under the solution of least norm."""
    positive, negative = np.sum(y > 0), np.sum(y < 0)
    d = 15 * positive + 3 * negative + 8 * positive * negative + 5
    return 1 - (4 * negative + 5) / d, -1 + 5 * (4 * positive + 1) / d


@pytest.mark.parametrize("seed", [0, 1])
def test_least_norm_on_wilsons_data_is_the_closed_form_and_right(seed):
    made = DATA["wilson"](rows=40, seed=seed)
    x, y = (np.asarray(part, np.float64) for part in made.train)
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    scores = [float((split.x @ w)[0, 0]) for split in (made.valid, made.test)]
    np.testing.assert_allclose(scores, closed_form(y), rtol=1e-10)
    assert scores[0] > 0 > scores[1]
    assert (made.valid.y, made.test.y) == (1, -1)


def test_the_signs_solve_wilsons_data_and_call_everything_positive():
    made = DATA["wilson"](rows=40)
    x, y = made.train
    w = np.sign(x.T @ y) / 4
    np.testing.assert_array_equal(x @ w, y)
    assert ((made.valid.x @ w).item(), (made.test.x @ w).item()) == (0.75, 0.25)


def test_every_wilson_example_has_features_of_its_own():
    made = DATA["wilson"](rows=40)
    x = np.concatenate([split.x for split in made.splits.values()])
    y = np.concatenate([split.y for split in made.splits.values()])[:, 0]
    assert x.shape == (42, 3 + 5 * 42)
    assert (x[:, 3:].sum(axis=0) <= 1).all()
    np.testing.assert_array_equal(x[:, 3:].sum(axis=1), np.where(y > 0, 1, 5))


def test_wilsons_labels_must_have_a_majority():
    with pytest.raises(UserError, match="0 of 1 labels came out positive.*another seed"):
        DATA["wilson"](rows=1, positive=0.51, seed=0)


def test_the_mean_square_of_a_signal_is_the_validation_loss():
    made = DATA["signal"](inputs=3, outputs=3)
    w = np.diag([1.0, 2.0, 3.0]).astype(np.float32)
    loss = LOSSES["squared_error"](made.valid.x @ w, jnp.asarray(made.valid.y))
    np.testing.assert_allclose(loss, [14 / 3], rtol=1e-6)
