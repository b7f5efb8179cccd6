"""The vocabulary of a diagnosis: its causes, and their order."""

import ast
from pathlib import Path

import pytest

import nnref
from nnref.diagnosis.causes import CAUSES, RANK

# The syntax tree of every module, by its name.
SOURCES = {
    path.name: ast.parse(path.read_text())
    for path in sorted((Path(nnref.__file__).parent / "diagnosis").rglob("*.py"))
    if path.name != "__init__.py"
}


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
