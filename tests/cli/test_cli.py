"""The command line, as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnref.cli import main

REPOSITORY = Path(__file__).parents[2]
SMALL = {
    "about": "A line about it. And more.",
    "data": {"name": "xor"},
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
    "batch_size": 4,
    "epochs": 60,
    "seeds": [0, 1],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with one experiment."""
    (tmp_path / "experiments").mkdir()
    write(tmp_path, "small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def write(folder, name, **changes):
    (folder / "experiments" / f"{name}.json").write_text(json.dumps(SMALL | changes))


def call(capsys, *arguments):
    """Exit code, stdout and stderr of a call."""
    try:
        code = main(arguments)
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_ctrl_c_says_how_to_go_on(folder, capsys, monkeypatch):
    def press(*_):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as pressed:
        pressed.setattr("nnref.report.terminal.terminal.TerminalListener.hears", press)
        code, _, err = call(capsys, "run", "small", "--epochs", "9000", "--no-logbook")
        assert (code, err) == (130, "interrupted; nothing was written down\n")
        code, _, err = call(capsys, "run", "small", "--epochs", "9000")
    assert code == 130
    page = err.split()[-1]
    assert err == f"interrupted; to go on: nnref resume {page}\n"
    code, out, err = call(capsys, "resume", page)
    assert (code, err) == (0, "")
    assert page in out
    code, out, _ = call(capsys, "resume", page)
    assert "was run before" in out
    code, _, err = call(capsys, "resume", "experiments/small.json")
    assert code == 2
    assert "not a page of a logbook" in err


def test_run_shows_table_curve_verdict_page_and_picture(folder, capsys):
    code, out, err = call(capsys, "run", "experiments/small.json")
    assert code == 0
    assert err == ""
    assert "valid_loss went from" in out
    assert "median" in out
    assert "· train_loss   • valid_loss" in out
    assert "\x1b" not in out, "no escape codes where there is no terminal"
    assert max(map(len, out.splitlines()[:-2])) <= 80
    picture = Path(out.splitlines()[-1].split()[-1])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert Path(out.splitlines()[-2].split()[1]).exists()


def test_json_is_one_object_and_nothing_else(folder, capsys):
    code, out, _ = call(capsys, "run", "small", "--json")
    told = json.loads(out)
    assert code == 0
    assert [seed["seed"] for seed in told["seeds"]] == [0, 1]
    assert told["seeds"][0]["final"]["train_loss"] > 0
    again = json.loads(call(capsys, "run", "small", "--json")[1])
    assert again["already_run"] is True
    assert again["seeds"][0]["final"] == told["seeds"][0]["final"]


def test_json_has_no_nan(folder, capsys):
    arguments = ("--json", "--no-logbook", "--set", "loss=squared_error")
    code, out, _ = call(capsys, "run", "small", *arguments, "--set", "optimizer.learning_rate=90")
    told = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert code == 1
    assert told["seeds"][0]["final"]["train_loss"] is None
    assert told["seeds"][0]["ending"].startswith("diverged at epoch")


def test_a_second_run_says_so_and_again_goes_on(folder, capsys):
    call(capsys, "run", "small")
    code, out, _ = call(capsys, "run", "small")
    assert code == 0
    assert "was run before" in out
    assert "--again" in out
    assert "picture" not in out
    code, out, _ = call(capsys, "run", "small", "--again")
    assert code == 0
    assert "picture" in out


def test_exit_codes_follow_the_claim(folder, capsys):
    claim = {"metric": "train_loss", "at_most": 0.0, "in": 1, "of": 2}
    write(folder, "wrong", claim=claim)
    assert call(capsys, "run", "wrong")[0] == 1
    # The outcome of the page is the outcome of the call that finds it.
    assert call(capsys, "run", "wrong")[0] == 1
    write(folder, "right", claim=claim | {"at_most": 5.0})
    assert call(capsys, "run", "right")[0] == 0


def test_seed_epochs_and_settings(folder, capsys):
    code, out, _ = call(
        capsys, "run", "small", "--no-logbook", "--json", "--seed", "7", "8", "9",
        "--epochs", "3", "--set", "optimizer=adam", "--set", "optimizer.learning_rate=0.01",
    )  # fmt: skip
    told = json.loads(out)
    assert code == 0
    assert [(seed["seed"], seed["epochs"]) for seed in told["seeds"]] == [(7, 3), (8, 3), (9, 3)]
    assert not (folder / "logbook").exists()


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


def test_list_and_show(folder, capsys):
    code, out, _ = call(capsys, "list")
    assert (code, out) == (0, "small  A line about it\n")
    code, out, _ = call(capsys, "show", "small")
    assert code == 0
    (folder / "shown.json").write_text(out)
    identity = out.split()[2]
    assert identity in call(capsys, "show", "shown.json")[1]


def test_show_tells_the_layers_in_comments(folder, capsys):
    _, out, _ = call(capsys, "show", "small")
    lines = out.splitlines()
    assert lines[2].split() == ["//", "layers.0", "Hidden", "4", "12", "16"]
    assert lines[4].split() == ["//", "in", "all", "1", "17", "24"]
    assert lines[5] == "{"
    write(folder, "lost", data={"name": "file", "path": "lost.csv", "target": "y"})
    code, out, _ = call(capsys, "show", "lost")
    assert code == 0
    assert out.splitlines()[1].startswith("// no table of layers: ")
    (folder / "shown.json").write_text(out)
    assert call(capsys, "show", "shown.json")[1] == out


def test_schema_is_json(folder, capsys):
    code, out, _ = call(capsys, "schema")
    assert code == 0
    assert json.loads(out)["properties"].keys() >= {"data", "model", "claim"}


def test_version_names_libraries_and_device(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert all(word in out for word in ("nnref ", "jax ", "flax ", "optax ", "cpu"))


def test_claims_prints_a_row_each_and_fails_with_one_of_them(folder, capsys):
    claim = {"metric": "train_loss", "at_most": 5.0, "in": 2, "of": 2}
    write(folder, "right", claim=claim)
    code, out, _ = call(capsys, "claims")
    assert code == 0
    assert out.splitlines()[0].startswith("right  held ")
    assert "small" not in out
    write(folder, "wrong", claim=claim | {"at_most": 0.0})
    code, out, _ = call(capsys, "claims")
    assert code == 1
    assert "wrong  NOT HELD" in out
    assert "1 of 2 claims did not hold" in out
    assert not (folder / "logbook").exists()


@pytest.mark.filterwarnings("default")
def test_shared_rows_are_a_warning_in_one_line(folder, capsys):
    rows = ["a,b,kind"] + [f"{i % 3},{i % 2},{i % 2}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(rows))
    data = {"name": "file", "path": "table.csv", "target": "kind"}
    write(folder, "own", data=data, epochs=2)
    code, _, err = call(capsys, "run", "own", "--no-logbook")
    assert code == 0
    assert "nnref: warning: data: 9 of 9 rows of valid are also in train" in err


def test_the_experiment_file_loads_nothing_heavy():
    """A small run must start fast: what draws, prepares or distributes is imported when used."""
    heavy = ("matplotlib", "tensorflow_datasets", "orbax", "ray", "sklearn", "scipy", "torch")
    code = (
        "import sys, nnref.experiment, nnref.runs\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert said.stdout.split() == []


def test_a_closed_pipe_is_no_error(folder):
    command = f"'{sys.executable}' -m nnref.cli schema | head -1"
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=REPOSITORY)
    assert said.stdout == "{\n"
    assert said.stderr == ""
