"""Every module has a size that one can read, and a test file where one looks for it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {
    path.relative_to(ROOT / "nnref"): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "nnref").rglob("*.py"))
}


def test_every_module_of_more_than_100_lines_has_a_test_file_of_its_name():
    long = [path for path, text in MODULES.items() if len(text.splitlines()) > 100]
    wanted = [ROOT / "tests" / path.parent / f"test_{path.name}" for path in long]
    assert len(wanted) > 50
    assert [path for path in wanted if not path.exists()] == []


def test_no_module_is_longer_than_500_lines():
    lengths = {path: len(text.splitlines()) for path, text in MODULES.items()}
    assert {path: length for path, length in lengths.items() if length > 500} == {}


def test_no_function_is_longer_than_60_lines():
    """From its first decorator to its last line, the docstring and inner functions included."""
    functions = [
        (path, node)
        for path, text in MODULES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [
        f"{path}: {function.name}, {length} lines"
        for path, function in functions
        if (length := function.end_lineno - first_line(function) + 1) > 60
    ] == []


def first_line(function):
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
