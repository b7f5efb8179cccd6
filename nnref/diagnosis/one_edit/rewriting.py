"""A user's functions, rewritten so that each expression asks what it shall be.

`a - b` becomes `__nnref_edits__.binary(site, "-", a, b)`. While nothing is edited that is `a - b`;
with an edit it is `b - a`, say. A function keeps its name, its lines and whoever holds it: only its
code is exchanged, and given back at the end.
"""

import ast
import contextlib
import gc
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import nnref
from nnref.internals import is_differentiated, is_of_a_plain_program, is_traced

NAME = "__nnref_edits__"  # by which the rewritten functions know who decides
LIBRARIES = ("site-packages", "dist-packages", "lib/python")
OWN = str(Path(nnref.__file__).parent).replace("\\", "/")
SYMBOLS: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.MatMult: "@",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
SLOPE = -1
MOST_NAMES = 12  # that are tried in the place of another one: those that were bound last
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Site(NamedTuple):
    """An expression of the user's: where it stands, its text, and the texts of its parts."""

    file: str
    line: int
    columns: tuple[int, int]
    text: str
    parts: tuple[str, ...]


class Rewriting(ast.NodeTransformer):
    """The expressions of a file, each of which asks what it shall be; `sites` in order."""

    def __init__(self, file: str, source: str) -> None:
        """Of the text of a file."""
        self.file, self.source = file, source
        self.sites: list[Site] = []
        self.bound: list[list[str]] = []  # names that have a value, of the functions around

    def asked(self, node: ast.expr, word: str, parts: Iterable[ast.AST], *values: Any) -> Any:
        """The call that stands in the place of an expression."""
        if not self.bound or node.lineno != node.end_lineno:
            return node  # outside of functions nothing runs again; an edit is one of one line
        texts = tuple(self.text_of(part) for part in parts)
        columns = (node.col_offset, node.end_col_offset or 0)
        text = ast.get_source_segment(self.source, node) or ""
        self.sites.append(Site(self.file, node.lineno, columns, text, texts))
        first = ast.Constant(len(self.sites) - 1)
        function = ast.Attribute(ast.Name(NAME, ast.Load()), word, ast.Load())
        constants = [v if isinstance(v, ast.expr) else ast.Constant(v) for v in values]
        call = ast.Call(function, [ast.Constant(self.file), first, *constants], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def text_of(self, node: ast.AST) -> str:
        """The text of a part, in brackets where another operation could tear it apart."""
        text = ast.get_source_segment(self.source, node) or ""
        torn = isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare | ast.IfExp | ast.Lambda)
        return f"({text})" if torn else text

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        parts = (node.left, node.right)
        symbol = SYMBOLS.get(type(node.op))
        new = ast.copy_location(
            ast.BinOp(self.visit(node.left), node.op, self.visit(node.right)), node
        )
        if symbol is None:
            return new
        call = self.asked(node, "binary", parts, symbol, new.left, new.right)
        return new if call is node else call

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        symbol = SYMBOLS.get(type(node.ops[0])) if len(node.ops) == 1 else None
        parts = (node.left, *node.comparators)
        left, *others = map(self.visit, parts)
        new = ast.copy_location(ast.Compare(left, node.ops, others), node)
        if symbol is None:
            return new
        call = self.asked(node, "compared", parts, symbol, left, others[0])
        return new if call is node else call

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if not isinstance(node.op, ast.USub | ast.Invert) or isinstance(node.operand, ast.Constant):
            return node
        symbol = "-" if isinstance(node.op, ast.USub) else "~"
        operand = self.visit(node.operand)
        call = self.asked(node, "unary", (node.operand,), symbol, operand)
        return ast.copy_location(ast.UnaryOp(node.op, operand), node) if call is node else call

    def visit_Name(self, node: ast.Name) -> ast.AST:
        known = any(node.id in names for names in self.bound)
        if not isinstance(node.ctx, ast.Load) or not known:
            return node
        # Names of functions around are not offered: this one would close over one more.
        others = [name for name in self.bound[-1] if name != node.id][-MOST_NAMES:]
        if not others:
            return node
        pairs = [ast.Tuple([ast.Constant(n), ast.Name(n, ast.Load())], ast.Load()) for n in others]
        return self.asked(node, "name", (), ast.Name(node.id, ast.Load()), *pairs)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if not isinstance(node.ctx, ast.Load):
            return node
        parts = (node.value, node.slice)
        value, index = self.visit(node.value), self.visit(self.as_value(node.slice))
        call = self.asked(node, "item", parts, value, index)
        if call is node:
            return ast.copy_location(ast.Subscript(value, self.visit(node.slice), node.ctx), node)
        return call

    def as_value(self, index: ast.expr) -> ast.expr:
        """An index as an expression: `slice(1, None)` for `1:`."""
        if isinstance(index, ast.Slice):
            ends = [end or ast.Constant(None) for end in (index.lower, index.upper, index.step)]
            call = ast.Call(ast.Name("slice", ast.Load()), ends, [])
            return ast.fix_missing_locations(ast.copy_location(call, index))
        if isinstance(index, ast.Tuple):
            elements = [self.as_value(element) for element in index.elts]
            return ast.copy_location(ast.Tuple(elements, ast.Load()), index)
        return index

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        if not isinstance(node.ctx, ast.Load):
            return node
        parts = tuple(node.elts)
        if any(isinstance(part, ast.Starred) for part in parts):
            return self.generic_visit(node)
        new = ast.copy_location(ast.Tuple([self.visit(part) for part in parts], node.ctx), node)
        call = self.asked(node, "ordered", parts, new)
        return new if call is node else call

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        value = self.visit(node.value)
        new = ast.copy_location(ast.Attribute(value, node.attr, node.ctx), node)
        if not isinstance(node.ctx, ast.Load) or self.is_module(node.value):
            return new
        call = self.asked(node, "attribute", (node.value,), value, node.attr)
        return new if call is node else call

    def is_module(self, node: ast.expr) -> bool:
        """Whether an expression is a dotted name that begins outside of the function."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and not any(node.id in names for names in self.bound)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name):
            function: ast.expr = node.func
            if node.func.id in ("super", "locals", "globals", "vars", "slice", "isinstance"):
                return node
        elif isinstance(node.func, ast.Attribute):
            function = ast.Attribute(self.visit(node.func.value), node.func.attr, ast.Load())
        else:
            function = self.visit(node.func)
        arguments = [self.visit(argument) for argument in node.args]
        words = [ast.keyword(word.arg, self.visit(word.value)) for word in node.keywords]
        parts = (node.func, *node.args)
        call = self.asked(node, "called", parts, function, *arguments)
        if call is node:
            call = ast.Call(function, arguments, [])
        call.keywords = words
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_Assign(self, node: ast.Assign) -> Any:
        """`_, out = cell(h, x)`: what is thrown away may be what an argument was to be.

        And `x = f(x)`: what a name was before.
        """
        target, value = node.targets[0], node.value
        parts = target.elts if isinstance(target, ast.Tuple) else []
        away = [n for n in parts if isinstance(n, ast.Name) and n.id.startswith("_")]
        given = node.value.args if isinstance(node.value, ast.Call) else []
        names = [
            n.id for n in given if isinstance(n, ast.Name) and n.id in (self.bound or [[]])[-1]
        ]
        node.value = self.visit(node.value)
        if isinstance(target, ast.Name) and target.id in (self.bound or [[]])[-1]:
            before = ast.Name(target.id, ast.Load())
            call = self.asked(value, "kept", (), target.id, node.value, before)
            node.value = node.value if call is value else call
        kept = [node]
        for one, name in ((one, name) for one in away for name in dict.fromkeys(names)):
            values = ast.Constant(name), ast.Name(name, ast.Load()), ast.Name(one.id, ast.Load())
            call = self.asked(one, "kept", (), *values)
            if call is not one:
                new = ast.Assign([ast.Name(name, ast.Store())], call)
                kept.append(ast.fix_missing_locations(ast.copy_location(new, node)))
        return kept

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.bound.append(arguments_of(node))
        body = self.visit(node.body)
        self.bound.pop()
        return ast.copy_location(ast.Lambda(node.args, body), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.bound.append(arguments_of(node))
        node.body = [*self.entered(node), *self.block(node.body)]
        self.bound.pop()
        if self.bound:
            self.bound[-1].append(node.name)
        return node

    def entered(self, node: ast.FunctionDef) -> list[ast.stmt]:
        """`a, b = ...` at the beginning of a function of a and b, which may stand in the way."""
        names = arguments_of(node)
        if len(names) < 2 or is_generator(node):
            return []
        text = f"{node.name}({', '.join(names)})"
        columns = (node.col_offset, node.col_offset)
        self.sites.append(Site(self.file, node.lineno, columns, text, (node.name, *names)))
        values, targets = (
            ast.Tuple([ast.Name(name, context()) for name in names], context())
            for context in (ast.Load, ast.Store)
        )
        function = ast.Attribute(ast.Name(NAME, ast.Load()), "entered", ast.Load())
        where = [ast.Constant(self.file), ast.Constant(len(self.sites) - 1)]
        new = ast.Assign([targets], ast.Call(function, [*where, values], []))
        return [ast.fix_missing_locations(ast.copy_location(new, node))]

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Statements in their order: each knows the names that those before it have bound."""
        body = []
        for statement in statements:
            new = self.visit(statement)
            body += new if isinstance(new, list) else [new]
            if self.bound:
                self.bound[-1] += [n for n in stored(statement) if n not in self.bound[-1]]
        return body

    def visit_For(self, node: ast.For) -> ast.AST:
        """A loop or a branch; whether its names are bound behind it is not certain."""
        node.iter = self.visit(node.iter)
        node.body = self.inside(node.body, names_of(node.target))
        node.orelse = self.inside(node.orelse)
        return node

    def visit_If(self, node: ast.If | ast.While) -> ast.AST:
        node.test = self.visit(node.test)
        node.body, node.orelse = self.inside(node.body), self.inside(node.orelse)
        return node

    visit_While = visit_If

    def visit_With(self, node: ast.With) -> ast.AST:
        for item in node.items:
            item.context_expr = self.visit(item.context_expr)
        node.body = self.block(node.body)
        return node

    def inside(self, statements: list[ast.stmt], names: Iterable[str] = ()) -> list[ast.stmt]:
        """A block whose names are known within it alone."""
        if not self.bound:
            return self.block(statements)
        outside = list(self.bound[-1])
        self.bound[-1] += [name for name in names if name not in outside]
        body = self.block(statements)
        self.bound[-1] = outside
        return body

    def left_alone(self, node: Any) -> Any:
        """What is not rewritten: text is no number."""
        return node

    def value_alone(self, node: Any) -> Any:
        """`a += b * c`: what is added, not what it is added to."""
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def without_names(self, node: Any) -> Any:
        """A comprehension, whose names are its own."""
        self.bound.append([])
        new = self.generic_visit(node)
        self.bound.pop()
        return new

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = without_names
    visit_AnnAssign = visit_AugAssign = value_alone
    visit_JoinedStr = visit_Assert = left_alone


def arguments_of(node: Function) -> list[str]:
    """The names of the arguments of a function."""
    of = node.args
    names = [arg.arg for arg in (*of.posonlyargs, *of.args, *of.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def is_generator(node: ast.FunctionDef) -> bool:
    """Whether a function gives values one by one."""
    return any(isinstance(part, ast.Yield | ast.YieldFrom) for part in ast.walk(node))


def stored(statement: ast.stmt) -> list[str]:
    """The names that a plain assignment binds for certain."""
    if not isinstance(statement, ast.Assign):
        return []
    return [name for target in statement.targets for name in names_of(target)]


def names_of(target: ast.expr) -> list[str]:
    """The names that a target binds."""
    names = [n for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [n.id for n in names if isinstance(n.ctx, ast.Store)]


def rewritten(file: str) -> tuple[CodeType, list[Site]] | None:
    """The code of a file whose functions ask, and its sites; None where its text is not known."""
    return rewritten_text(file, "".join(linecache.getlines(file)))


@lru_cache(maxsize=16)
def rewritten_text(file: str, source: str) -> tuple[CodeType, list[Site]] | None:
    """The same of a text."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    if not source:
        return None
    rewriting = Rewriting(file, source)
    code = compile(ast.fix_missing_locations(rewriting.visit(tree)), file, "exec")
    return code, rewriting.sites


def inner(code: CodeType) -> Iterator[CodeType]:
    """A code and all within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from inner(constant)


def is_users(code: CodeType) -> bool:
    """Whether a function stands in a file of the user's."""
    file = code.co_filename.replace("\\", "/")
    return not (file.startswith(("<", OWN)) or any(part in file for part in LIBRARIES))


def codes_run(function: Callable[[], Any]) -> dict[CodeType, set[int]]:
    """The user's functions that a call runs, with the sizes of what each gives.

    A size is that of a whole array, and no row of a `jax.vmap`; of something else it is 0, and
    `SLOPE` of what is differentiated.
    """
    seen: dict[CodeType, set[int]] = {}

    def profile(frame: Any, event: str, value: Any) -> None:
        if event in ("call", "return") and is_users(frame.f_code):
            sizes = seen.setdefault(frame.f_code, set())
            if event == "return":
                sizes.add(size_of(value))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return seen


def name_of(code: CodeType) -> tuple[Any, ...]:
    """What a code is known by in its file; two lambdas of a line share it."""
    return code.co_filename, code.co_qualname, code.co_firstlineno


def size_of(value: Any) -> int:
    """The numbers of an array, or the most of the arrays of a tree; else 0."""
    if isinstance(value, dict | tuple | list):
        return max(map(size_of, value.values() if isinstance(value, dict) else value), default=0)
    if is_differentiated(value):
        return SLOPE
    if is_traced(value) and not is_of_a_plain_program(value):
        return 0
    return 1 if isinstance(value, float) else getattr(value, "size", 0)


class Exchange:
    """The functions that have some codes, and the codes with which they ask.

    Attributes:
        sites: of each file.
        held: each function, its code, and the one that asks.
    """

    def __init__(self, codes: Iterable[CodeType]) -> None:
        """Look for the functions, among all that there are: this takes a while."""
        wanted = set(codes)
        files = {file: rewritten(file) for file in {code.co_filename for code in wanted}}
        self.sites = {file: whole[1] for file, whole in files.items() if whole is not None}
        of_name: dict[tuple[Any, ...], list[CodeType]] = {}
        for whole in files.values():
            for code in inner(whole[0]) if whole is not None else ():
                of_name.setdefault(name_of(code), []).append(code)
        new = {name: codes[0] for name, codes in of_name.items() if len(codes) == 1}
        self.held: list[tuple[FunctionType, CodeType, CodeType]] = []
        for function in [f for f in gc.get_referrers(*wanted) if isinstance(f, FunctionType)]:
            old = function.__code__
            code = new.get(name_of(old)) if old in wanted else None
            if code is not None and code.co_freevars == old.co_freevars:
                self.held.append((function, old, code))

    @contextlib.contextmanager
    def made(self, decider: Any) -> Iterator[None]:
        """As long as the context lasts the functions ask `decider`."""
        for function, _, code in self.held:
            function.__globals__[NAME] = decider
            function.__code__ = code
        try:
            yield
        finally:
            for function, old, _ in self.held:
                function.__code__ = old
                function.__globals__.pop(NAME, None)


@contextlib.contextmanager
def exchanged(codes: Iterable[CodeType], decider: Any) -> Iterator[dict[str, list[Site]]]:
    """The functions that have these codes ask `decider`, as long as the context lasts.

    Yields:
        The sites of each file.
    """
    exchange = Exchange(codes)
    with exchange.made(decider):
        yield exchange.sites
