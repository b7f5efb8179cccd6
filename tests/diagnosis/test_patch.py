"""Patches of a user's own line: they apply, and the program is a program afterwards."""

import subprocess

import pytest

from nnref.diagnosis.findings import code_line, fault
from nnref.diagnosis.patch import as_patch

PROGRAM = """import jax


def apply(params, x):
    x = jax.nn.relu(x @ params["a"])
    x = x @ params["b"]
    return jax.nn.relu(x)


def loss(o, y):
    return jnp.sum((o - y) ** 2)


ce = -jnp.sum(y * jax.nn.log_softmax(o, axis=0))
p = jax.nn.softmax(o)
"""
EDITED = [
    ("relu_output", 6, "    return jax.nn.relu(x)", "    return x"),
    ("loss_summed_over_batch", 11, "    return jnp.sum((o - y) ** 2)", None),
    ("loss_axis_error", 14, "ce = -jnp.sum(y * jax.nn.log_softmax(o, axis=0))", None),
    ("softmax_on_single_unit", 15, "p = jax.nn.softmax(o)", "p = jax.nn.sigmoid(o)"),
    ("double_softmax", 15, "p = jax.nn.softmax(o)", "p = o"),
]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PROGRAM)
    return tmp_path / "mine.py"


def applied(patch, program):
    """The program after the patch, as the tool of that name makes it."""
    command = ["git", "apply", "-p0", "--unsafe-paths", "-"]
    done = subprocess.run(command, input=patch + "\n", text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return program.read_text()


@pytest.mark.parametrize(("cause", "number", "old", "new"), EDITED)
def test_a_known_edit_is_made_in_the_users_own_line(mine, cause, number, old, new):
    new = new or old.replace("sum", "mean") if "axis" not in cause else old.replace("=0", "=-1")
    patch = as_patch(fault(cause, f"out, mine.py:{number}", "seen"))
    assert applied(patch, mine) == PROGRAM.replace(old, new)


def test_another_remedy_stands_above_the_line(mine):
    patch = as_patch(fault("loss_broadcast", "mine.py:14", "a matrix", remedy="outputs[:, 0] - y"))
    line = "ce = -jnp.sum(y"  # in no function, so that nobody knows which name is which
    assert applied(patch, mine) == PROGRAM.replace(line, f"# outputs[:, 0] - y\n{line}")
    compile(mine.read_text(), "mine.py", "exec")
    half = as_patch(fault("relu_output", "mine.py:10", "a line that is no statement"))
    assert "+# no activation" in half


def test_another_activation_that_the_remedy_names_is_put_in_its_place(mine):
    remedy = "jax.nn.sigmoid instead of the ReLU"
    patch = as_patch(fault("relu_output", "b, mine.py:7", "a ReLU", remedy=remedy))
    assert applied(patch, mine) == PROGRAM.replace("jax.nn.relu(x)\n\n", "jax.nn.sigmoid(x)\n\n")


@pytest.mark.parametrize(
    ("remedy", "new"),
    [
        ("outputs[:, 0] - y", "jnp.sum((o[:, 0] - y) ** 2)"),
        ("y[:, 0]", "jnp.sum((o - y[:, 0]) ** 2)"),
    ],
)
def test_a_column_is_read_as_one_axis_where_the_line_names_the_arguments_of_the_loss(
    mine, remedy, new
):
    patch = as_patch(fault("loss_broadcast", "mine.py:11", "a matrix", remedy=remedy))
    assert applied(patch, mine) == PROGRAM.replace("jnp.sum((o - y) ** 2)", new)


def test_where_no_line_is_known_there_is_no_patch(mine):
    assert as_patch(fault("loss_broadcast", "the loss", "a matrix")) == ""
    assert as_patch(fault("loss_broadcast", "mine.py:99", "a matrix")) == ""


@pytest.mark.parametrize(
    "where",
    [
        "2 leaves: a, b; mine.py:11",
        "mine.py:11 (sub)",
        "mine.py:11 from mine.py:7",
        "x, mine.py:11",
    ],
)
def test_the_line_is_found_however_a_finding_names_it(mine, where):
    assert code_line(where) == ("mine.py", 11, "    return jnp.sum((o - y) ** 2)")
