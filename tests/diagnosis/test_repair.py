"""The repaired experiment: which change a proof is, and what is written down."""

import json

import pytest
from small import SPIRALS

from nnref.diagnosis.findings import Findings, fault
from nnref.diagnosis.proof import Proof
from nnref.diagnosis.repair import CHANGES, change_of, in_its_own_line, repair, times
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment, parse, read

SLOW = SPIRALS | {
    "model": {"name": "mlp", "hidden": [16]},
    "optimizer": {"name": "adam", "learning_rate": 1e-4},
    "regularization": {"dropout": 0.2, "l2": 1e-4, "weight_decay": 1e-3},
    "epochs": 30,
}


def found(edit, cause="learning_rate_too_low"):
    return Findings((fault(cause, "the run", "steps are too small", proof=Proof("", edit)),))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "slow.json"
    path.write_text(json.dumps(SLOW))
    return path


def test_the_new_file_has_the_change_and_its_proof(path):
    made = repair(path, found("rate x100"))
    assert made.path == path.with_name("slow_repaired.json")
    assert made.settings == {"optimizer.learning_rate": pytest.approx(0.01)}
    new, old = read(made.path), read(path)
    assert new.optimizer.learning_rate == pytest.approx(0.01)
    assert new.model_copy(update={"optimizer": old.optimizer}).identity == old.identity
    text = made.path.read_text()
    assert text.startswith("// slow.json, repaired by nnref diagnose --fix: steps are too small")
    figures = f"{made.after[0]:.2f}, {made.after[1]:.2f}, {made.after[2]:.2f} after"
    assert figures in text
    assert made.helps
    with pytest.raises(UserError, match="slow_repaired.json exists"):
        repair(path, found("rate x100"))


OWN = """{
  // what I tried first
  "data": {"name": "xor"}, "batch_size": 4,
  "model": {"name": "mlp", "hidden": [4], "activation": "tanh"},
  "loss": "sigmoid_cross_entropy",
  "optimizer": {"name": "sgd", "learning_rate" : 1e-6, "momentum": 0.9},
  "epochs": 60
}"""


def test_everything_else_of_the_file_stays_as_its_author_wrote_it():
    slower = times("optimizer.learning_rate", 0.1)(parse(OWN).model_dump(mode="json"))
    assert slower == {"optimizer.learning_rate": 1e-7}, "and no 9.999999999999999e-08"
    for settings, old, new in (
        ({"optimizer.learning_rate": 1e-5, "epochs": 300}, "1e-6", "1e-05"),
        ({"epochs": 300}, "60", "300"),
    ):
        edited = in_its_own_line(OWN, settings, parse(OWN, settings))
        assert edited == OWN.replace(old, new).replace("60\n", f"{settings['epochs']}\n")
    settings = {"model.kernel_initializer": "he_normal"}
    assert in_its_own_line(OWN, settings, parse(OWN, settings)) is None, "it has no line"
    settings = {"epochs": 300}
    assert in_its_own_line(OWN, settings, parse(OWN)) is None, "it is another experiment"


CHANGED = {
    "rate x0.1": {"optimizer.learning_rate": pytest.approx(1e-5)},
    "longer": {"epochs": 150},
    "penalty": {"regularization.l2": None},
    "decay": {"regularization.l2": None, "regularization.weight_decay": None},
    "quiet": {"regularization.dropout": None},
    "initialization": {"model.kernel_initializer": "he_normal"},
}


@pytest.mark.parametrize("edit", CHANGED)
def test_a_change_of_a_run_is_a_change_of_the_file(edit):
    content = Experiment(**SLOW).model_dump(mode="json", by_alias=True)
    assert change_of(content, found(edit))[1] == CHANGED[edit]


def test_every_change_is_one_that_an_experiment_can_have(tmp_path):
    from nnref.diagnosis.causes import EDITS
    from nnref.experiment.text import set_path

    assert set(CHANGES) <= set(EDITS)
    for change in CHANGES.values():
        content = Experiment(**SLOW).model_dump(mode="json", by_alias=True)
        for place, value in change(content).items():
            set_path(content, place, value)
        Experiment(**content)


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        (Findings(), "nothing was found to repair"),
        (found("turned", "gradient_ascent"), "gradient_ascent is no key of an experiment file"),
        (found(""), "learning_rate_too_low is no key"),
    ],
)
def test_what_a_file_cannot_say_is_left_to_its_author(path, findings, message):
    with pytest.raises(UserError, match=message):
        repair(path, findings)
