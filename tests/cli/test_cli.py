"""The command `nnref`, as a user meets it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call, write

REPOSITORY = Path(__file__).parents[2]


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


@pytest.mark.filterwarnings("default")
def test_shared_rows_are_a_warning_in_one_line(folder, capsys):
    rows = ["a,b,kind"] + [f"{i % 3},{i % 2},{i % 2}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(rows))
    data = {"name": "file", "path": "table.csv", "target": "kind"}
    write(folder, "own", data=data, epochs=2)
    code, _, err = call(capsys, "run", "own", "--no-logbook")
    assert code == 0
    assert (
        "nnref: warning: data: train has 6 different rows among 42, and 9 of 9 rows of valid" in err
    )


def test_the_experiment_file_loads_nothing_heavy():
    """A small run must start fast: what draws, prepares or distributes is imported when used."""
    heavy = ("matplotlib", "tensorflow_datasets", "orbax", "ray", "sklearn", "scipy", "torch")
    heavy = (*heavy, "nnref.diagnosis", "nnref.checks")
    code = (
        "import sys, nnref.experiment, nnref.studies.run, nnref.report.terminal.terminal\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert said.stdout.split() == []


def test_a_closed_pipe_is_no_error(folder):
    command = f"'{sys.executable}' -m nnref schema | head -1"
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=REPOSITORY)
    assert said.stdout == "{\n"
    assert said.stderr == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_what_the_machine_refuses_is_one_sentence(folder, capsys, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number), "logbook/small/page.json")

    with monkeypatch.context() as patched:
        patched.setattr("nnref.logbook.writer.PageWriter.write", full)
        code, _, err = call(capsys, "run", "small", "--epochs", "2")
    assert code == 2
    assert err.startswith(f"nnref: logbook/small/page.json: {os.strerror(number).lower()}; once")
    assert call(capsys, "run", "small", "--epochs", "2")[0] == 0, "and then it goes on"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"claim": "text"}, "allowed is an object"),
        ({"seeds": [2**32]}, "allowed is a number up to 4294967295"),
        ({"epochs": 10**18}, "allowed is a number up to 2147483647"),
        ({"model": {"name": "mlp", "hidden": [10**7, 10**7]}}, "GB for 2 run(s)"),
        ({"optimizer": {"name": "adam", "beta1": 0.99999999}}, "beta1"),
    ],
)
def test_numbers_that_no_machine_can_train_are_refused(folder, capsys, change, said):
    write(folder, "wild", **change)
    code, _, err = call(capsys, "run", "wild", "--no-logbook")
    assert code == 2
    assert said in err


@pytest.mark.parametrize("text", ['{"a":' * 10**5, "[" * 10**5, '{"epochs": ' + "9" * 5000 + "}"])
def test_text_that_no_parser_takes_is_refused(folder, capsys, text):
    (folder / "experiments" / "wild.json").write_text(text)
    code, _, err = call(capsys, "run", "wild", "--no-logbook")
    assert code == 2
    assert "Traceback" not in err
