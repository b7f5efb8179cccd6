"""The experiment file: what it may say, how it says no, and its identity."""

import json
from pathlib import Path

import pytest

import nnref
from nnref.experiment.experiment import Experiment, parse, read
from nnref.training.setup import bind

SMALL = {
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 10,
}
EXPERIMENTS = sorted(p for p in Path("experiments").glob("*.json") if p.stem != "schema")


def parsed(**changes):
    return parse(json.dumps(SMALL | changes))


def errors(text):
    with pytest.raises(nnref.UserError) as error:
        parse(text)
    return str(error.value).split("\n")


def test_defaults_are_those_of_the_signatures():
    experiment = parsed()
    assert experiment.optimizer.momentum == 0.0
    assert experiment.model.activation.name == "tanh"
    assert experiment.seeds == (0,)


def test_a_bare_name_is_a_component():
    assert parsed(optimizer="adam") == parsed(optimizer={"name": "adam"})


def test_python_and_file_give_the_same_experiment():
    assert Experiment(**SMALL) == parsed()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_experiments_read_back_to_themselves(path):
    experiment = read(path)
    again = parse(experiment.to_json())
    assert again.identity == experiment.identity
    assert again.claim == experiment.claim
    assert again.about == experiment.about != ""


# --- identity -----------------------------------------------------------------------------------


def test_identity_is_the_same_on_every_machine():
    # Computed once; another value anywhere else would part logbooks from their experiments.
    assert parsed().identity == "dd0f860370"


@pytest.mark.parametrize(
    "changes",
    [
        {"about": "something else"},
        {"claim": {"metric": "train_loss", "at_most": 1, "in": 1, "of": 1}},
        {"seeds": [7]},
        {"optimizer": {"learning_rate": 5e-1, "momentum": 0, "name": "sgd"}},
        {"schedule": "constant"},
        {"model": {"name": "mlp", "hidden": [4], "activation": {"name": "tanh"}}},
        {"$schema": "schema.json"},
    ],
)
def test_identity_ignores_what_decides_nothing(changes):
    assert parsed(**changes).identity == parsed().identity


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 11},
        {"batch_size": 2},
        {"evaluate_every": 2},
        {"optimizer": {"name": "sgd", "learning_rate": 0.5000001}},
        {"model": {"name": "mlp", "hidden": [4], "activation": "relu"}},
        {"data": {"name": "xor", "seed": 1}},
        {"clipping": "global_norm"},
        {"stop": {"patience": 3}},
    ],
)
def test_identity_changes_with_what_is_computed(changes):
    assert parsed(**changes).identity != parsed().identity


# --- numbers and structure ----------------------------------------------------------------------


def test_floats_are_numbers_and_the_rest_is_structure():
    experiment = parsed(clipping={"name": "global_norm", "threshold": 2.0})
    assert experiment.hyperparameters["optimizer.learning_rate"] == 0.5
    assert experiment.hyperparameters["clipping.threshold"] == 2.0
    faster = experiment.replaced({"optimizer.learning_rate": 0.7})
    assert faster.structure == experiment.structure
    assert faster.identity != experiment.identity
    wider = experiment.replaced({"model.hidden": [5]})
    assert wider.structure != experiment.structure


def test_bound_arguments_come_from_the_numbers():
    assert bind(parsed(), "optimizer", {"optimizer.learning_rate": 9.0})().learning_rate == 9.0


# --- settings -----------------------------------------------------------------------------------


def test_regularization_off_is_one_word():
    experiment = parse(
        json.dumps(SMALL | {"regularization": {"l2": 0.1}}), {"regularization": "off"}
    )
    assert experiment == parsed()


# --- seeds and claims ---------------------------------------------------------------------------


def test_seeds_may_be_counted():
    assert parsed(seeds={"count": 3}).seeds == (0, 1, 2)
    many = parsed(seeds={"first": 5, "count": 20})
    assert many.seeds == tuple(range(5, 25))
    assert '"seeds": {"first": 5, "count": 20}' in many.to_json()
    assert parse(many.to_json()).seeds == many.seeds
    told = errors(json.dumps(SMALL | {"seeds": {"count": 0}}))
    assert told == ["seeds.count (line 1): 0 given; allowed is a number from 1 up"]
