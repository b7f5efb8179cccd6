"""The schema of an experiment file, and what is said of every mistake in one."""

import json
from pathlib import Path

import jsonschema
import pytest

import nnref
from nnref.experiment.experiment import Experiment, parse

SMALL = {
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 10,
}
EXPERIMENTS = sorted(p for p in Path("experiments").glob("*.json") if p.stem != "schema")


def errors(text):
    with pytest.raises(nnref.UserError) as error:
        parse(text)
    return str(error.value).split("\n")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_experiments_pass_the_schema_that_editors_use(path):
    schema = json.loads(Path("experiments/schema.json").read_text())
    jsonschema.validate(json.loads(path.read_text()), schema)


def test_the_schema_refuses_what_the_parser_refuses():
    schema = json.loads(Path("experiments/schema.json").read_text())
    for wrong in ({"batch_size": 0}, {"optimizer": "sdg"}, {"epoch": 1}, {"loss": 3}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(SMALL | wrong, schema)


def test_a_word_in_the_place_of_a_list_is_told_as_a_list():
    data = {"name": "file", "path": "a.csv", "target": "y", "inputs": "size"}
    (told,) = errors(json.dumps(SMALL | {"data": data}))
    assert told == 'data.inputs (line 1): "size" given; allowed is a list, like ["size"]'
    (told,) = errors(json.dumps(SMALL | {"model": {"name": "mlp", "hidden": "4"}}))
    assert told == 'model.hidden (line 1): "4" given; allowed is a list, like [1, 2]'


def test_the_schema_file_is_up_to_date():
    assert json.loads(Path("experiments/schema.json").read_text()) == json.loads(
        json.dumps(Experiment.model_json_schema(by_alias=True))
    ), "write it anew: nnref schema > experiments/schema.json"


# --- errors -------------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once_with_path_line_and_remedy():
    told = errors(
        """{
  // a comment keeps the lines right
  "data": "xro",
  "model": {"name": "mlp", "hidden": [4, 0], "activation": "tahn"},
  "loss": {"x": 1},
  "optimizer": {
    "name": "sgd",
    "learning_rate": -1,
    "momentum": 1.5,
    "nestrov": true
  },
  "batch_size": 0,
  "epoch": 1000,
  "claim": {"metric": "train_loss", "in": 1, "of": 1}
}"""
    )
    assert told[0].startswith('data (line 3): "xro" given; allowed: xor, spirals, ')
    assert told[0].endswith('; did you mean "xor"?')
    assert "model.hidden.1 (line 4): 0 given; allowed is a number from 1 up" in told
    assert any(t.startswith('model.activation (line 4): "tahn" given') for t in told)
    assert any(t.startswith("loss (line 5): ") and '{"name": ...}' in t for t in told)
    assert "optimizer.learning_rate (line 8): -1 given; allowed is a number above 0" in told
    assert "optimizer.momentum (line 9): 1.5 given; allowed is a number below 1" in told
    assert any(
        t.startswith("optimizer.nestrov (line 10): unknown key; allowed: learning_rate, ")
        and t.endswith('did you mean "nesterov"?')
        for t in told
    )
    assert "batch_size (line 12): 0 given; allowed is a number from 1 up" in told
    assert "epochs: missing; it has no default" in told
    assert any(t.startswith("epoch (line 13): unknown key") and '"epochs"' in t for t in told)
    assert any("claim" in t and "at_least or at_most" in t for t in told)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 4.0}, "batch_size (line 1): 4.0 given; allowed is a whole number"),
        ({"batch_size": "4"}, 'batch_size (line 1): "4" given; allowed is a whole number'),
        ({"batch_size": True}, "batch_size (line 1): true given; allowed is a whole number"),
        ({"seeds": []}, "seeds (line 1): [] given; allowed are at least 1 entries"),
        ({"seeds": [-1]}, "seeds.0 (line 1): -1 given; allowed is a number from 0 up"),
        ({"stop": {"metric": "valid_loss"}}, "a stop needs at_least, at_most or patience"),
        (
            {"claim": {"metric": "train_loss", "at_most": 1, "in": 3, "of": 2}},
            "in must not be more than of, 2",
        ),
    ],
)
def test_single_mistakes(changes, said):
    assert said in errors(json.dumps(SMALL | changes))[0]


def test_a_word_that_must_be_given_is_named():
    told = errors(json.dumps(SMALL | {"optimizer": "padam"}))
    assert told == ['optimizer.convention (line 1): missing; give "paper" or "authors"']


def test_a_mistake_from_python_reads_the_same():
    with pytest.raises(nnref.UserError, match="batch_size: 0 given; allowed is a number from 1"):
        Experiment(**SMALL | {"batch_size": 0})
