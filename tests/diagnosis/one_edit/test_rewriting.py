"""Functions that ask what each of their expressions shall be, and are themselves afterwards."""

import ast
import re

import jax
import jax.numpy as jnp
import pytest

from nnref.diagnosis.one_edit.deciding import Edits
from nnref.diagnosis.one_edit.rewriting import Rewriting, codes_run, exchanged, is_users, name_of


class Recorder(Edits):
    """Nothing is edited; the texts of all that asks are kept."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def of(self, file, at, value, kind, *parts):
        self.asked.append(self.sites[file][at].text)
        return value


def difference(a, b):
    c = a - b
    return c * 2


def many(x, state, width=3):
    """Most of what a function is made of."""
    total, _ = x.sum(), state
    for i in range(width):
        total += i * x[0]
    parts = [part - 1 for part in x[1:]]
    text = f"{width} {total:.1f}"
    if width > 2 and text != "":
        total = (lambda y: y / 2)(total)
    return total + state["a"].T + sum(parts), text


def closure(a):
    def inner(b):
        return a - b

    return inner


one, other = (lambda a, b: a - b), (lambda a, b: a + b)
RUNS = [
    (difference, (5.0, 3.0)),
    (many, (jnp.arange(3.0), {"a": jnp.ones(2)})),
    (closure(4.0), (1.0,)),
    (one, (5.0, 3.0)),
    (other, (5.0, 3.0)),
]


@pytest.mark.parametrize(("function", "arguments"), RUNS)
def test_a_rewritten_function_gives_what_it_gave(function, arguments):
    before, code = function(*arguments), function.__code__
    codes = codes_run(lambda: function(*arguments))
    recorder = Recorder()
    with exchanged(codes, recorder) as recorder.sites:
        now = function(*arguments)
    assert (
        jax.tree.all(jax.tree.map(lambda a, b: jnp.all(a == b), now[:1], before[:1]))
        if (isinstance(now, tuple))
        else now == before
    )
    assert function.__code__ is code
    assert "__nnref_edits__" not in function.__globals__
    # Two functions that begin in one line cannot be told apart, and stay as they are.
    assert bool(recorder.asked) == (function not in (one, other))


def test_each_expression_asks_with_its_own_text():
    recorder = Recorder()
    with exchanged([difference.__code__], recorder) as recorder.sites:
        assert difference(5.0, 3.0) == 4.0
    assert recorder.asked == ["a", "b", "a - b", "c", "c * 2"]


def test_a_function_is_itself_again_after_an_exception():
    recorder = Recorder()
    code = difference.__code__
    with (
        pytest.raises(TypeError) as raised,
        exchanged([code], recorder) as recorder.sites,
    ):
        difference(5.0, None)
    assert difference.__code__ is code
    lines = [entry.lineno + 1 for entry in raised.traceback if entry.name == "difference"]
    assert lines == [code.co_firstlineno + 1]  # of the file as it is


def names_offered(text):
    """For each name that asks, those that are offered in its place."""
    tree = Rewriting("made up", text).visit(ast.parse(text))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asks = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "name"]
    offered = {}
    for call in asks:
        pairs = [part for part in call.args[3:] if isinstance(part, ast.Tuple)]
        offered.setdefault(call.args[2].id, set()).update(pair.elts[0].value for pair in pairs)
    return offered


def test_names_of_a_loop_or_a_branch_are_known_within_it_alone():
    text = (
        "def f(a, b):\n    for i in a:\n        c = g(i)\n        h(c)\n"
        "    with b:\n        d = b\n    while d:\n        e = d\n    return a\n"
    )
    offered = names_offered(text)
    assert offered["i"] == {"a", "b"}
    assert offered["c"] == {"a", "b", "i"}
    assert offered["d"] == {"a", "b"}
    assert offered["a"] == {"b", "d"}


def test_only_names_that_have_a_value_are_offered():
    text = "def f(self, a, b):\n    c = g(a)\n    if a:\n        d = b\n    e = c\n    return e\n"
    assert names_offered(text) == {
        "a": {"b", "c"},
        "b": {"a", "c"},
        "c": {"a", "b"},  # d is bound in one branch alone
        "e": {"a", "b", "c"},
    }


def test_a_name_of_a_function_around_asks_too():
    text = "def f(a):\n    def g(b):\n        c = b\n        return a\n    return g\n"
    assert names_offered(text) == {"a": {"b", "c"}, "g": {"a"}}


def test_what_a_call_gives_and_is_thrown_away_may_be_kept():
    text = "def f(h, x):\n    _, out = cell(h, x)\n    return out\n"
    new = ast.unparse(Rewriting("made up", text).visit(ast.parse(text)))
    assert "h = __nnref_edits__.kept('made up', " in new
    assert "'h', h, _)" in new
    text = "def f(h, x):\n    new, out = cell(h, x)\n    return out\n"
    assert "kept" not in ast.unparse(Rewriting("made up", text).visit(ast.parse(text)))


def test_what_a_name_was_before_may_be_kept():
    text = "def f(x):\n    x = g(x)\n    y = g(x)\n    return y\n"
    rewriting = Rewriting("made up", text)
    new = ast.unparse(rewriting.visit(ast.parse(text)))
    assert new.count("kept") == 1
    (number,) = re.findall(r"kept\('made up', (\d+), 'x', ", new)
    assert rewriting.sites[int(number)].text == "g(x)"


def test_parts_stand_in_brackets_where_another_operation_would_tear_them_apart():
    text = "def f(a, b):\n    return (a + b) / b\n"
    rewriting = Rewriting("made up", text)
    rewriting.visit(ast.parse(text))
    assert [site.parts for site in rewriting.sites if site.text == "(a + b) / b"] == [
        ("(a + b)", "b")
    ]


def score(x):
    return jnp.mean(x)


def row(x):
    return x * 2


def test_functions_that_ran_and_the_sizes_of_what_they_gave():
    def run():
        jax.jit(score)(jnp.ones(3))
        return jax.vmap(row)(jnp.ones(3))

    codes = codes_run(run)
    assert codes[score.__code__] == {1}
    assert codes[row.__code__] == {0}  # a row of a vmap is no score
    assert all(is_users(code) for code in codes)
    assert not is_users(jax.vmap.__code__)
    assert not is_users(exchanged.__wrapped__.__code__)
    assert name_of(row.__code__) in set(map(name_of, codes))
