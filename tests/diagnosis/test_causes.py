"""The vocabulary of a diagnosis: its causes, their order, and every threshold."""

import ast
from pathlib import Path

import pytest

import nnref
from nnref.diagnosis.causes import CAUSES, RANK, THRESHOLDS


def test_the_page_of_the_diagnosis_has_every_threshold():
    page = Path("docs/diagnose.md").read_text()
    table = page.partition("## Every threshold")[2]
    rows = [f"| {name} | {value:g} | {why} |" for name, (value, why) in THRESHOLDS.items()]
    assert table.strip().splitlines()[2:] == rows


# The syntax tree of every module, by its name.
SOURCES = {
    path.name: ast.parse(path.read_text())
    for path in sorted((Path(nnref.__file__).parent / "diagnosis").rglob("*.py"))
    if path.name != "__init__.py"
}


def test_every_threshold_is_asked_for_and_there_is_no_other():
    nodes = [node for source in SOURCES.values() for node in ast.walk(source)]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    asked = {
        part.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "bound"
        for part in ast.walk(call.args[0])
        if isinstance(part, ast.Constant)
    }
    assert asked == set(THRESHOLDS)


def test_every_cause_is_named_by_a_check():
    checks = [tree for name, tree in SOURCES.items() if name not in ("causes.py", "findings.py")]
    nodes = [node for tree in checks for node in ast.walk(tree)]
    assert set(CAUSES) <= {node.value for node in nodes if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("cause", [cause for cause in CAUSES if cause != "broken_program"])
def test_every_cause_says_what_is_healthy_and_what_to_type(cause):
    """An exception has only its own line to point at; everything else has a remedy."""
    assert all(CAUSES[cause])


def test_upstream_comes_first():
    """The data, the program, the scale, the rate, and in the end what follows from these."""
    order = ["nonfinite_data", "double_softmax", "inputs_not_normalized", "learning_rate_too_high"]
    order += ["dying_relu", "undertrained", "overfitting"]
    assert sorted(order, key=RANK.get) == order
