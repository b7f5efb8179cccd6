"""The edit of a user's own line that a finding asks for, as a patch."""

import ast
import difflib
import linecache
import re
from collections.abc import Callable
from typing import Any

from nnref.diagnosis.findings import CodeLine, Finding, code_line

REACH = 3  # lines below the one that a finding names, where its activation may stand
ACTIVATIONS = {"relu", "sigmoid", "softmax", "log_softmax", "tanh", "softplus", "soft_sign"}
INSTEAD = re.compile(r"jax\.nn\.(\w+) instead of")  # a remedy that names another activation


def called(node: ast.AST) -> str:
    """The last word of what a node calls: `softmax` of `jax.nn.softmax(x)`; "" for another node."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def renamed(old: set[str], new: str) -> Callable[[str], str | None]:
    """The first call of one of `old` in a line, of `new` instead."""

    def edit(line: str) -> str | None:
        for node in nodes_of(line):
            if called(node) in old and isinstance(node, ast.Call):
                end = node.func.end_col_offset or 0
                return line[: end - len(called(node))] + new + line[end:]
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
    "loss_summed_over_batch": renamed({"sum"}, "mean"),
    "output_range_excludes_targets": without_activation,
    "relu_output": without_activation,
}


def edit_of(
    finding: Finding, program: list[str], number: int
) -> Callable[[str], str | None] | None:
    """The edit of a line that a remedy stands for; None where only its author can make it."""
    instead = INSTEAD.match(finding.remedy)
    if instead:
        return renamed(ACTIVATIONS, instead[1])
    if finding.cause == "loss_broadcast":
        side = {"outputs[:, 0] - y": 0, "y[:, 0]": 1}.get(finding.remedy)
        names = arguments_around(program, number)
        return first_column(names[side]) if side is not None and len(names) == 2 else None
    return EDITS_OF_A_LINE.get(finding.cause)


def arguments_around(program: list[str], number: int) -> list[str]:
    """The names of the arguments of the innermost function that holds a line."""
    try:
        nodes = list(ast.walk(ast.parse("\n".join(program))))
    except SyntaxError:
        return []
    around = [
        node.args
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.Lambda)
        and node.lineno <= number <= (node.end_lineno or 0)
    ]
    return [argument.arg for argument in around[-1].args] if around else []


def first_column(name: str) -> Callable[[str], str | None]:
    """The only use of a name in a line as its first column."""

    def edit(line: str) -> str | None:
        uses = [n for n in nodes_of(line) if isinstance(n, ast.Name) and n.id == name]
        if len(uses) != 1:
            return None
        end = uses[0].end_col_offset or 0
        return f"{line[:end]}[:, 0]{line[end:]}"

    return edit


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
    edit = edit_of(finding, program, line.number)
    at = line.number - 1
    for place in range(at, min(at + 1 + REACH, len(program))) if edit else ():
        changed = edit(program[place]) if edit else None
        if changed is not None:
            return [*program[:place], changed, *program[place + 1 :]]
    indent = line.text[: len(line.text) - len(line.text.lstrip())]
    return [*program[:at], f"{indent}# {finding.remedy}", *program[at:]]
