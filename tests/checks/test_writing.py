"""A file of unit tests: it passes for its network, and fails for the same one with a fault."""

import subprocess
import sys
from pathlib import Path

import pytest

from nnref.checks.writing import unit_tests
from nnref.errors import UserError

CODE = """
import jax, numpy as np, nnref, optax

random = np.random.default_rng(0)
X = random.normal(size=(300, 3)).astype(np.float32)
Y = X[:, :1] - 2 * X[:, 1:2]

def make_task():
    task = nnref.Task(
        init=lambda key: {{"w": 0.3 * jax.random.normal(key, (3, 1))}},
        apply=lambda params, x: {apply},
        loss=lambda outputs, y: (outputs - y) ** 2,
        train=(X[:200], {targets}),
        valid=(X[200:], Y[200:]),
    )
    return task, {{"optimizer": optax.sgd({rate})}}
"""
HEALTHY = {"apply": 'x @ params["w"]', "targets": "Y[:200]", "rate": "0.1"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_task.py").write_text(CODE.format(**HEALTHY))
    yield tmp_path
    sys.modules.pop("a_task", None)


def run(folder, *words):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    command += words
    environment = {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_file_passes_for_its_network_and_fails_for_another(folder):
    names = unit_tests("a_task:make_task", folder / "test_mine.py")
    text = (folder / "test_mine.py").read_text()
    assert {"learns", "data_summary", "data_splits_are_disjoint, validation"} <= set(names)
    assert text.count("def test_") == len(names)
    assert 'checks.subject("a_task:make_task")' in text
    assert '    """Every parameter gets a gradient and moves within five steps' in text
    code, told = run(folder)
    assert code == 0, told
    (folder / "a_task.py").write_text(CODE.format(**HEALTHY | {"targets": "Y[:200][::-1]"}))
    code, told = run(folder, "-k", "labels")  # the others would only take time
    assert code == 1
    assert "labels_belong_to_rows" in told


def test_no_tests_are_written_for_a_network_with_a_fault(folder):
    (folder / "a_task.py").write_text(CODE.format(**HEALTHY | {"rate": "-0.1"}))
    with pytest.raises(UserError, match=r"(?s)is not healthy.*nnref diagnose a_task.*climb"):
        unit_tests("a_task:make_task", folder / "test_mine.py")
    assert not (folder / "test_mine.py").exists()


def test_what_is_no_file_of_python_is_refused():
    with pytest.raises(UserError, match=r"ends in \.py"):
        unit_tests("a_task:make_task", "tests.txt")


def test_a_file_that_is_there_is_kept(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("# my network\n")
    with pytest.raises(UserError, match=r"mine\.py is there already; give another file"):
        unit_tests("a_task:make_task", mine)
    assert mine.read_text() == "# my network\n"
