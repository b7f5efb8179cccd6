"""What pytest gets: markers, a seed, and a subject that is measured once."""

import subprocess
import sys
from pathlib import Path

TEST = """
import sys
import pytest

def test_nothing_is_imported_before_it_is_asked_for():
    assert "jax" not in sys.modules

@pytest.mark.network
@pytest.mark.data
@pytest.mark.trains
def test_seed(nnref_seed):
    assert nnref_seed == 7

def test_once(nnref_subject):
    path = "{path}"
    assert nnref_subject(path) is nnref_subject(path)
"""


def test_the_plugin(tmp_path):
    root = Path(__file__).parents[1]
    path = root / "experiments" / "xor_small.json"
    (tmp_path / "test_it.py").write_text(TEST.format(path=path))
    options = ["-q", "--strict-markers", "--nnref-seed", "7", "-p", "nnref.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", *options, "test_it.py"]
    environment = {"PYTHONPATH": str(root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
