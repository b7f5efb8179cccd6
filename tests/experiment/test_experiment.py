"""The experiment file: what it may say, how it says no, and its identity."""

import json
from pathlib import Path

import jsonschema
import numpy as np
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


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_experiments_pass_the_schema_that_editors_use(path):
    schema = json.loads(Path("experiments/schema.json").read_text())
    jsonschema.validate(json.loads(path.read_text()), schema)


def test_the_schema_refuses_what_the_parser_refuses():
    schema = json.loads(Path("experiments/schema.json").read_text())
    for wrong in ({"batch_size": 0}, {"optimizer": "sdg"}, {"epoch": 1}, {"loss": 3}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(SMALL | wrong, schema)


def test_the_schema_file_is_up_to_date():
    assert json.loads(Path("experiments/schema.json").read_text()) == json.loads(
        json.dumps(Experiment.model_json_schema(by_alias=True))
    ), "write it anew: nnref schema > experiments/schema.json"


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


def test_comments_decide_nothing():
    text = json.dumps(SMALL, indent=1)
    commented = "// first\n" + text.replace("\n", "\n   // between\n", 3) + "\n// last"
    assert parse(commented).identity == parse(text).identity


def test_a_comment_behind_a_value_is_refused():
    assert "line 1" in errors('{"data": "xor" // no\n}')[0]


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
    ("text", "said"),
    [
        ('{"data": "xor",\n "data": "xor"}', "data (line 2): given twice, also in line 1"),
        ('{"batch_size": NaN}', "NaN is no JSON number"),
        ('{"epochs": Infinity}', "Infinity is no JSON number"),
        ("[1]", "an experiment is a JSON object"),
        ('{"data": "xor",}', "line 1"),
        ("", "line 1, column 1"),
    ],
)
def test_what_is_no_experiment_file(text, said):
    assert said in errors(text)[0]


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


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "xor_small.json").write_text("{}")
    with pytest.raises(nnref.UserError, match='did you mean "xor_small"') as error:
        read(tmp_path / "xor_smal.json")
    assert "experiments in" in str(error.value)


# --- settings -----------------------------------------------------------------------------------


def test_settings_reach_inside_a_component_given_by_name():
    experiment = parse(json.dumps(SMALL | {"optimizer": "adam"}), {"optimizer.beta1": 0.5})
    assert experiment.optimizer.beta1 == 0.5


def test_regularization_off_is_one_word():
    experiment = parse(
        json.dumps(SMALL | {"regularization": {"l2": 0.1}}), {"regularization": "off"}
    )
    assert experiment == parsed()


def test_a_setting_that_leads_nowhere_is_refused():
    with pytest.raises(nnref.UserError, match="epochs is 10, it has no keys"):
        parsed().replaced({"epochs.more": 1})
    with pytest.raises(nnref.UserError, match='unknown key.*did you mean "learning_rate"'):
        parsed().replaced({"optimizer.lerning_rate": 1})


# --- seeds and claims ---------------------------------------------------------------------------


def test_seeds_may_be_counted():
    assert parsed(seeds={"count": 3}).seeds == (0, 1, 2)
    many = parsed(seeds={"first": 5, "count": 20})
    assert many.seeds == tuple(range(5, 25))
    assert '"seeds": {"first": 5, "count": 20}' in many.to_json()
    assert parse(many.to_json()).seeds == many.seeds
    told = errors(json.dumps(SMALL | {"seeds": {"count": 0}}))
    assert told == ["seeds.count (line 1): 0 given; allowed is a number from 1 up"]


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
