"""What is said of a word that is not known."""

import json

import pytest

from nnref import UserError
from nnref.errors import SYNONYMS, letters_of, nearest
from nnref.experiment.experiment import FAMILIES, Experiment
from nnref.experiment.schema import schema_arguments
from nnref.parts.regularizers import Regularization

GIVEN = {
    "data": "xor",
    "model": {"name": "mlp", "hidden": [2]},
    "loss": "squared_error",
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "batch_size": 4,
    "epochs": 1,
}


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ({"loss": "mse"}, "squared_error"),
        ({"loss": "CrossEntropyLoss"}, "softmax_cross_entropy"),
        ({"loss": "crossentropy"}, 'sigmoid_cross_entropy" or "softmax_cross_entropy'),
        ({"loss": "BCEWithLogitsLoss"}, "sigmoid_cross_entropy"),
        ({"optimizer": {"name": "sgd", "lr": 0.1}}, "learning_rate"),
        ({"optimizer": {"name": "AdamW", "learning_rate": 0.1}}, "adamw"),
        ({"lr": 0.1}, "optimizer.learning_rate"),
        ({"dropout": 0.1}, "regularization.dropout"),
        ({"model": {"name": "mlp", "hidden_layer_sizes": [3], "hidden": [3]}}, "hidden"),
        ({"model": {"name": "mlp", "hidden": [3], "activation": "ReLU"}}, "relu"),
        ({"model": {"name": "lstm"}}, "recurrent"),
        ({"schedule": "CosineAnnealingLR"}, "cosine"),
        ({"seed": 3}, "seeds"),
    ],
)
def test_names_of_other_libraries_are_understood_in_an_experiment(change, meant):
    with pytest.raises(UserError) as told:
        Experiment(**GIVEN | change)
    assert f'did you mean "{meant}"?' in str(told.value), told.value


def test_names_of_measures_are_understood(tmp_path):
    from nnref import run

    stop = {"metric": "val_loss", "at_most": 0.1}
    (tmp_path / "a.json").write_text(json.dumps(GIVEN | {"stop": stop}))
    with pytest.raises(UserError, match='did you mean "valid_loss"'):
        run(tmp_path / "a.json", logbook=None)


def test_a_synonym_is_told_where_its_name_is_allowed():
    assert nearest("lr", ["name", "model"]) == ""
    assert nearest("lr", ["name"], ["optimizer.learning_rate"]).endswith('learning_rate"?')
    assert letters_of("Cross-Entropy_Loss") == "crossentropyloss"


def test_every_name_with_a_synonym_is_one_of_nnref():
    from nnref.cli.grammar import COMMANDS

    keys = {each.alias or name for name, each in Experiment.model_fields.items()}
    known = keys | {name for family in FAMILIES.values() for name in family} | set(COMMANDS)
    known |= {parameter.name for parameter in schema_arguments(FAMILIES["data"]["file"])}
    known |= {"--set", "--seed", "--logbook", *Regularization._fields, "hidden", "activation"}
    known |= {"learning_rate", "momentum", "beta1", "beta2", "epsilon"}
    known |= {f"{split}_{measure}" for split in ("train", "valid") for measure in known | {"loss"}}
    words = {name.split(".")[-1].split(" ")[0] for name in SYNONYMS}
    assert words - known == set()
