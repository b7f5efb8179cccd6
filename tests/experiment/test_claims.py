"""Claims: about a number of seeds, a statistic over them, or another experiment."""

import json

import numpy as np
import pytest

import nnref
from nnref.experiment.experiment import parse

SMALL = {
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 10,
}


def parsed(**changes):
    return parse(json.dumps(SMALL | changes))


def errors(text):
    with pytest.raises(nnref.UserError) as error:
        parse(text)
    return str(error.value).split("\n")


# --- seeds and claims ---------------------------------------------------------------------------


def claimed(**keys):
    return parsed(claim={"metric": "valid_loss"} | keys).claim[0]


@pytest.mark.parametrize(
    ("within", "values", "held"),
    [
        (2, [0.1, 0.2, 0.9], True),
        (2, [0.1, 0.9, 0.9], False),
        ([1, 2], [0.1, 0.1, 0.1], False),
        ([1, 2], [0.1, 0.1, 0.9], True),
        (1, [float("nan")] * 3, False),
        (1, [0.5, 1, 1], True),
    ],
)
def test_a_claim_about_a_number_of_seeds(within, values, held):
    assert claimed(at_most=0.5, of=3, **{"in": within}).judged(values)[0] is held


@pytest.mark.parametrize(
    ("statistic", "value"), [("mean", 3.0), ("median", 2.0), ("mean_square", 41 / 3)]
)
def test_a_claim_about_a_statistic(statistic, value):
    for low, high, held in ((-0.1, 0.1, True), (0.1, 0.2, False), (-0.2, -0.1, False)):
        claim = claimed(statistic=statistic, at_least=value + low, at_most=value + high)
        assert claim.judged([1.0, 2.0, 6.0])[0] is held
    assert claim.judged([])[0] is False


def test_a_claim_about_a_twin():
    claim = claimed(twin="other", within=0.5, times=2)
    ours = np.array([[2.0, 4.5]])
    held, told = claim.judged(ours, np.array([[1.0, 2.0]]))
    assert held
    assert told == "valid_loss is 2 times that of other to 0.5, claimed 0.5"
    assert not claim.judged(ours, np.array([[1.0, 1.9]]))[0]
    assert not claim.judged(ours, np.array([[1.0, 2.0, 3.0]]))[0]
    assert not claim.judged(ours, np.array([[1.0, np.nan]]))[0]


def test_a_mistake_in_a_claim_names_its_own_keys():
    told = errors(
        json.dumps(SMALL | {"claim": [{"metric": "train_loss", "twin": "x", "wihtin": 1}]})
    )
    assert any("claim.0.wihtin" in t and 'did you mean "within"' in t for t in told)
    assert any("claim.0.within" in t and "missing" in t for t in told)
