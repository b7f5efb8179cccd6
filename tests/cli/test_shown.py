"""Commands that show what is there."""

import json

from commands import call, write


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
