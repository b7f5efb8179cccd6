"""Every threshold is asked for, and stands on the page of the diagnosis."""

import ast
from pathlib import Path

import nnref
from nnref.diagnosis.thresholds import THRESHOLDS


def test_the_page_of_the_diagnosis_has_every_threshold():
    page = Path("docs/diagnose.md").read_text()
    table = page.partition("## Every threshold")[2]
    rows = [f"| {name} | {value:g} | {why} |" for name, (value, why) in THRESHOLDS.items()]
    assert table.strip().splitlines()[2:] == rows


def test_every_threshold_is_asked_for_and_there_is_no_other():
    modules = Path(nnref.__file__).parent.rglob("*.py")
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    asked = {
        part.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "bound"
        for part in ast.walk(call.args[0])
        if isinstance(part, ast.Constant)
    }
    assert asked == set(THRESHOLDS)
