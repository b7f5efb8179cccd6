"""Commands that show what is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

from commands import call, write
from logbooks import write_page

import nnref


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


def test_the_logbook_is_listed_without_jax_and_what_several_processes_need(folder):
    """It takes a fifth of a second so; JAX alone would take one and a half."""
    write_page(folder / "logbook", "some", {"train_loss": [1.0, 0.5]})
    code = (
        "import sys; from nnref.cli import main; main(['log'])\n"
        "print('jax' in sys.modules or 'nnref.training.processes' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(nnref.__file__).parents[1])}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "some" in said.stdout
    assert said.stdout.endswith("False\n")


def test_a_remark_is_text_and_neither_markup_nor_commands_to_the_terminal(folder, capsys):
    call(capsys, "run", "small", "--epochs", "1")
    page = next((folder / "logbook" / "small").glob("*-seed0.json"))
    assert call(capsys, "log", "note", str(page), "a [/x] [bold]b\x1b[31m")[0] == 0
    code, out, _ = call(capsys, "log")
    assert code == 0
    assert "a [/x] [bold]b�[31m" in out


def test_data_are_looked_at_before_anything_is_trained(folder, capsys):
    rows = [f"{i},{'' if i % 9 == 0 else i % 7 + i / 999},{'ab'[i % 7 > 2]}" for i in range(300)]
    (folder / "rows.csv").write_text("\n".join(["id,size,kind", *rows]))
    write(folder, "rows", data={"name": "file", "path": "rows.csv", "target": "kind"})
    for words in (["rows", "--html", "rows.html"], ["rows.csv", "--target", "kind"]):
        code, out, _ = call(capsys, "data", "look", *words)
        assert code == 0
        assert "left out: numbers the rows" in out
        assert "numbers are missing in 1 columns (size: 34)" in out
        assert "skill of simple models" in out
    assert "numbers the rows" in (folder / "rows.html").read_text()
    _, out, _ = call(capsys, "data", "look", "rows.csv", "--target", "kind", "--json")
    seen = json.loads(out)
    assert [column["column"] for column in seen["columns"]] == ["id", "size", "kind"]
    code, _, err = call(capsys, "data", "look", "rows.csv")
    assert code == 2
    assert "what is to be predicted? id, size, kind" in err
