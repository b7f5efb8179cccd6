"""Who hears of a run: in a notebook a line, and nothing where there is none."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import nnref
from nnref.studies import listeners
from nnref.training import loop

CELL = """
import nnref
nnref.run("xor_small", epochs=20, logbook=None)
"""


def shell(**attributes):
    """A module IPython whose shell has these attributes."""
    return SimpleNamespace(get_ipython=lambda: SimpleNamespace(**attributes))


def test_the_line_is_there_in_a_notebook_alone(monkeypatch):
    kinds = {"IPython": shell(kernel=object())}
    monkeypatch.setitem(sys.modules, "IPython", kinds["IPython"])
    assert type(listeners.listener_here()) is listeners.NotebookListener
    for ipython in (shell(kernel=None), shell(), SimpleNamespace(get_ipython=lambda: None)):
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert type(listeners.listener_here()) is listeners.Listener


def test_without_ipython_nothing_is_missed():
    code = f"import sys\nsys.modules['IPython'] = None\n{CELL}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_the_line_says_epoch_measures_and_time(monkeypatch):
    lines = []

    class Line:
        def update(self, data, raw):
            lines.append(data["text/plain"])

    def display(data, raw, display_id=None):
        lines.append(data["text/plain"])
        return Line()

    monkeypatch.setitem(sys.modules, "IPython", shell(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    run = nnref.run("xor_small", epochs=5, logbook=None)
    assert lines[0] == "epoch 0 of 5"
    assert len(lines) > 5
    loss = f"train_loss {np.median(run.history['train_loss'][:, -1]):.4g}"
    assert lines[-2].startswith(f"epoch 5 of 5, {loss}, ")
    assert lines[-2].endswith(", 0 s left")
    assert lines[-1].startswith(f"epoch 5 of 5, {loss}, ")
    assert lines[-1].endswith(" s")
    quiet = len(lines)
    nnref.run("xor_small", epochs=5, logbook=None, listener=listeners.Listener())
    assert len(lines) == quiet


@pytest.mark.slow
def test_a_notebook_shows_the_line_and_then_the_result(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="notebooks cannot be run without nbclient")
    nbformat = pytest.importorskip("nbformat", reason="notebooks cannot be run without nbformat")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    line, result = book.cells[0].outputs
    assert line["data"]["text/plain"].startswith("epoch 20 of 20, train_loss ")
    assert "text/html" in result["data"]
