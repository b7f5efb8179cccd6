"""What words on the command line mean, and what is said of those that mean nothing."""

from pathlib import Path

import pytest
from commands import call
from logbooks import EXPERIMENT, write_page

from nnref.cli.arguments import (
    PICTURES,
    experiment_path,
    experiment_paths,
    output_path,
    page_of,
    settings,
)
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "which experiment? experiments: small"),
        (["run", "smal"], 'there is no file smal; did you mean "small"?'),
        (["run", "experiments/.json"], "which experiment?"),
        (["run", "small", "--set", "epochs"], "--set epochs: give PATH=VALUE"),
        (["run", "small", "--set", "epochs=0"], "epochs (line 1): 0 given"),
        (["run", "small", "--set", "optimiser=adam"], 'did you mean "optimizer"?'),
        (["run", "small", "--epochs", "x"], "invalid int value"),
        (["rnu"], "invalid choice"),
        (["show", "smal"], 'did you mean "small"?'),
    ],
)
def test_mistakes_are_told_without_a_traceback(folder, capsys, arguments, said):
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_broken_file_is_told_with_its_name_and_lines(folder, capsys):
    (folder / "experiments" / "broken.json").write_text('{\n "epochs": 3,\n "epochs": 4\n}')
    code, _, err = call(capsys, "run", "broken")
    assert code == 2
    assert "broken.json: epochs (line 3): given twice, also in line 2" in err


def test_a_name_is_a_file_among_the_experiments_unless_there_is_such_a_file(folder):
    by_name = Path("experiments/small.json")
    assert experiment_path("small") == experiment_path("experiments/small.json") == by_name
    (folder / "small").write_text("{}")
    assert experiment_path("small") == Path("small")
    assert experiment_paths() == {"small": by_name}


def test_experiments_of_ones_own_stand_before_those_that_nnref_brings(folder):
    brought = experiment_path("xor_small")
    assert brought.is_absolute()
    own = folder / "experiments" / "xor_small.json"
    own.write_text("{}")
    assert experiment_path("xor_small") == Path("experiments/xor_small.json")


def test_an_experiment_is_copied_to_be_changed_and_never_over_another_file(folder, capsys):
    assert call(capsys, "copy", "xor_small")[0] == 0
    assert Path("xor_small.json").read_bytes() == experiment_path("xor_small").read_bytes()
    code, _, err = call(capsys, "copy", "xor_small")
    assert code == 2
    assert "give another file: -o PATH" in err
    assert call(capsys, "copy", "xor_small", "-o", "nowhere/mine.json")[0] == 2


def test_values_of_settings_are_json_where_they_can_be():
    pairs = ["epochs=3", "optimizer=adam", "stop=null", "model.hidden=[4, 4]", "about=a=b"]
    expected = {"epochs": 3, "optimizer": "adam", "stop": None, "model.hidden": [4, 4]}
    assert settings(pairs) == expected | {"about": "a=b"}


@pytest.mark.parametrize("name", ["x.pdf", "x", "x.PNG"])
def test_output_of_another_kind_is_refused(name):
    with pytest.raises(UserError, match=r"give a file that ends in \.png or \.svg"):
        output_path(name, PICTURES)
    assert output_path("a/x.svg", PICTURES) == Path("a/x.svg")


def test_the_page_of_a_name_is_the_newest_that_is_complete(folder):
    facts = {"verdict": "well"}
    experiment = Experiment(**EXPERIMENT | {"seeds": [0, 1]})
    (folder / "experiments" / "a.json").write_text(experiment.to_json())
    logbook = folder / "logbook"
    with pytest.raises(UserError, match="has no run of a .* that has ended; first: nnref run a"):
        page_of("a", logbook)
    write_page(logbook, "a", {"train_loss": [1.0]}, 0)
    second = write_page(logbook, "a", {"train_loss": [1.0]}, 1, facts=facts)
    assert page_of("a", logbook) == second, "the first seed was cut short"
    first = write_page(logbook, "a", {"train_loss": [1.0]}, 0, facts=facts)
    assert page_of("a", logbook) == first
    assert page_of(str(second), logbook) == second
