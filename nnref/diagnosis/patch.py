"""The edit of a user's own line that a finding asks for, as a patch."""

import ast
import difflib
import linecache
from collections.abc import Callable
from typing import Any

from nnref.diagnosis.findings import CodeLine, Finding, code_line

REACH = 3  # lines below the one that a finding names, where its activation may stand
ACTIVATIONS = {"relu", "sigmoid", "softmax", "log_softmax", "tanh", "softplus", "soft_sign"}


def called(node: ast.AST) -> str:
    """The last word of what a node calls: `softmax` of `jax.nn.softmax(x)`; "" for another node."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def renamed(old: str, new: str) -> Callable[[str], str | None]:
    """The first call of `old` in a line, of `new` instead."""

    def edit(line: str) -> str | None:
        for node in nodes_of(line):
            if called(node) == old and isinstance(node, ast.Call):
                end = node.func.end_col_offset or 0
                return line[: end - len(old)] + new + line[end:]
        return None

    return edit


def without_activation(line: str) -> str | None:
    """The argument of the outermost activation of a line in its place."""
    for node in nodes_of(line):
        if called(node) in ACTIVATIONS and isinstance(node, ast.Call) and node.args:
            inner = ast.get_source_segment(line, node.args[0])
            return f"{line[: node.col_offset]}{inner}{line[node.end_col_offset :]}"
    return None


def over_the_last_axis(line: str) -> str | None:
    """`axis=0` of a call as `axis=-1`."""
    for node in nodes_of(line):
        value = node.value if isinstance(node, ast.keyword) and node.arg == "axis" else None
        if isinstance(value, ast.Constant) and value.value == 0:
            return f"{line[: value.col_offset]}-1{line[value.end_col_offset :]}"
    return None


EDITS_OF_A_LINE: dict[str, Callable[[str], str | None]] = {
    "double_softmax": without_activation,
    "loss_axis_error": over_the_last_axis,
    "loss_summed_over_batch": renamed("sum", "mean"),
    "output_range_excludes_targets": without_activation,
    "relu_output": without_activation,
    "softmax_on_single_unit": renamed("softmax", "sigmoid"),
}


def nodes_of(line: str) -> list[ast.AST]:
    """The nodes of a line that is a statement, outermost first, at their columns of the line."""
    indent = len(line) - len(line.lstrip())
    # Behind another line, a statement may be indented, and may return.
    shell = "async def f():\n" + (line if indent else f" {line}")
    try:
        nodes = list(ast.walk(ast.parse(shell)))
    except SyntaxError:
        return []
    shift = 0 if indent else 1
    for node in nodes:
        for name in ("col_offset", "end_col_offset"):
            if hasattr(node, name):
                setattr(node, name, getattr(node, name) - shift)
        for name in ("lineno", "end_lineno"):
            if hasattr(node, name):
                setattr(node, name, getattr(node, name) - 1)
    return nodes


def as_patch(finding: Finding) -> str:
    """A patch of the user's own line of a finding, for `patch -p0`; "" where no line is known.

    Where the remedy is a known edit of the line it is made. Otherwise the line stays as it is, and
    the remedy stands above it as a comment: only its author knows the names around it.
    """
    line = code_line(finding.where)
    if line is None:
        return ""
    old = [text.rstrip("\n") for text in linecache.getlines(line.file)]
    new = edited(finding, line, old)
    head: Any = {"fromfile": line.file, "tofile": line.file, "lineterm": ""}
    return "\n".join(difflib.unified_diff(old, new, **head))


def edited(finding: Finding, line: CodeLine, program: list[str]) -> list[str]:
    """The lines of the program with the edit of one of them."""
    edit = EDITS_OF_A_LINE.get(finding.cause)
    at = line.number - 1
    for place in range(at, min(at + 1 + REACH, len(program))) if edit else ():
        changed = edit(program[place]) if edit else None
        if changed is not None:
            return [*program[:place], changed, *program[place + 1 :]]
    indent = line.text[: len(line.text) - len(line.text.lstrip())]
    return [*program[:at], f"{indent}# {finding.remedy}", *program[at:]]
