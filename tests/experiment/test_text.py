"""The text of an experiment file: comments, what is no experiment, and keys set by their path."""

import json
from pathlib import Path

import pytest

import nnref
from nnref.experiment.experiment import parse, read
from nnref.experiment.text import located

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


# --- identity -----------------------------------------------------------------------------------


def test_comments_decide_nothing():
    text = json.dumps(SMALL, indent=1)
    commented = "// first\n" + text.replace("\n", "\n   // between\n", 3) + "\n// last"
    assert parse(commented).identity == parse(text).identity


def test_a_comment_behind_a_value_is_refused():
    assert "line 1" in errors('{"data": "xor" // no\n}')[0]


# --- errors -------------------------------------------------------------------------------------


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


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "xor_small.json").write_text("{}")
    with pytest.raises(nnref.UserError, match='did you mean "xor_small"') as error:
        read(tmp_path / "xor_smal.json")
    assert "experiments in" in str(error.value)


def test_an_experiment_is_found_by_its_bare_name_from_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located("xor_small").name == "xor_small.json"
    assert located("xor_small").exists()
    assert located("xor_small.json") == Path("xor_small.json")
    assert located("none") == Path("none")


# --- settings -----------------------------------------------------------------------------------


def test_settings_reach_inside_a_component_given_by_name():
    experiment = parse(json.dumps(SMALL | {"optimizer": "adam"}), {"optimizer.beta1": 0.5})
    assert experiment.optimizer.beta1 == 0.5


def test_a_setting_that_leads_nowhere_is_refused():
    with pytest.raises(nnref.UserError, match="epochs is 10, it has no keys"):
        parsed().replaced({"epochs.more": 1})
    with pytest.raises(nnref.UserError, match='unknown key.*did you mean "learning_rate"'):
        parsed().replaced({"optimizer.lerning_rate": 1})
