"""What the documents name is there."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnref
from nnref.data import DATA
from nnref.experiment.schema import schema_arguments

ROOT = Path(__file__).parents[1]
WALK = (ROOT / "docs" / "xor_small.md").read_text(encoding="utf-8")


def test_the_walk_through_a_run_is_twenty_stations():
    assert re.findall(r"^(\d+)\. ", WALK, re.MULTILINE) == [str(n) for n in range(1, 21)]


@pytest.mark.parametrize(("name", "path"), re.findall(r"\[`(\w+)`\]\((\S+?)\)", WALK))
def test_each_station_is_a_function_of_its_file(name, path):
    module = ast.parse((ROOT / "docs" / path).read_text(encoding="utf-8"))
    defined = {
        node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert name in defined, f"{path} has no {name}"


def test_the_map_of_the_house_has_every_wing():
    page = (ROOT / "docs" / "how_it_is_built.md").read_text(encoding="utf-8")
    wings = {path.parent.name for path in (ROOT / "nnref").glob("*/__init__.py")}
    assert {wing for wing in wings if f"{wing}/" not in page} == set()


def test_the_readme_is_short_and_leads_to_files_that_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    linked = re.findall(r"\]\((?!http|#)([^)#]+)", readme)
    assert [path for path in linked if not (ROOT / path).exists()] == []


def blocks_of(name):
    """The Python of a page, its blocks joined, and the line of each name that it defines."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


TESTING = {"__name__": "testing"}
ONE_EACH = blocks_of("testing.md")[1:]  # the first one is of a task of the reader's
NAMES = re.findall(r"^def (test_\w+)", "".join(ONE_EACH), re.MULTILINE)


@pytest.fixture(scope="module")
def testing():
    for block in ONE_EACH:
        exec(block, TESTING)
    return TESTING


@pytest.mark.parametrize("name", NAMES)
def test_each_test_of_the_page_about_testing_passes(name, testing):
    testing[name]()


def test_the_page_about_testing_has_a_test_of_every_property():
    from nnref import checks

    properties = set(checks.__all__) - {"Checked", "NotApplicable", "check", "subject"}
    asked = set(re.findall(r"checks\.(\w+)\(", "".join(ONE_EACH)))
    assert properties <= asked


@pytest.mark.parametrize("program", blocks_of("your_loop.md"))
def test_the_programs_about_a_loop_of_ones_own_run(program, tmp_path, monkeypatch):
    """Each from a file of its own, as it is the lines of a user's file that are told."""
    path = tmp_path / "mine.py"
    path.write_text(program)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, str(path), "exec"), {"__name__": "mine"})


def programs_of(page):
    """The Python of a page, a program of its own in each block."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


PROGRAMS = [
    (page.name, program)
    for page in (ROOT / "README.md", *(ROOT / "docs" / n for n in ("index.md", "python.md")))
    for program in programs_of(page)
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "program"), PROGRAMS)
def test_the_programs_of_the_page_run(page, program, tmp_path, monkeypatch):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "mine.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "mine"}
    exec(compile(program, str(tmp_path / "mine.py"), "exec"), names)
    if "make_task" in names:
        task, how = names["make_task"]()
        found = nnref.diagnose(task, **how)
        assert [fault.cause for fault in found.faults] == ["inputs_not_normalized"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("cluster.md", ["20 of 20 seeds", "was run before", "median of 20 seeds", "how it ended"]),
        ("gpu.md", ["device"]),
    ],
)
def test_the_commands_of_the_page_run(page, told, tmp_path, monkeypatch):
    """One block after the other in one folder, as task 2 of an array of Slurm."""
    for name, words in (("python", ""), ("nnref", "-m nnref")):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(nnref.__file__).parents[1]))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    scripts = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for script, words in zip(scripts, told, strict=True):
        ran = subprocess.run(["sh", "-e"], input=script, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert words in ran.stdout


def test_every_page_leads_to_files_that_are_there():
    pages = (ROOT / "docs").rglob("*.md")
    linked = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\((?!http|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert linked == []


def test_what_the_page_about_tables_writes_is_an_experiment():
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    whole, *parts = map(json.loads, re.findall(r"^```json\n(.*?)^```", page, re.M | re.S))
    for data in (whole["data"], *parts):
        assert nnref.Experiment(**whole | {"data": data}).data.name == "file"
    known = {parameter.name for parameter in schema_arguments(DATA["file"])}
    assert set(re.findall(r'`"(\w+)": ', page)) <= known
