"""Runs that were cut short: they go on to the same losses."""

import os
import signal

import numpy as np
import pytest
from small import SPIRALS, CutShort, pages, run_killed

import nnref
from nnref.errors import UserError
from nnref.logbook.pages import read_page
from nnref.studies import listeners
from nnref.studies import run as runs
from nnref.training import loop

CONTENT = SPIRALS  # of `file`, on two seeds


@pytest.mark.parametrize("torn", [0, 1, 5, 13, 25])
def test_a_run_cut_short_goes_on_to_the_same_losses(file, logbook, monkeypatch, torn):
    """Also where the last line was torn in the middle of a number."""
    run_killed(file, logbook, monkeypatch)
    whole = nnref.run(file, logbook=None)
    for path in pages(logbook):
        text = path.read_text()
        path.write_text(text[: len(text) - torn])
    kept = {path: path.read_text() for path in pages(logbook)}
    run = nnref.run(file, logbook=logbook)
    for path, text in kept.items():
        assert path.read_text().startswith(text), "a page only grows"
        page = read_page(path)
        assert page.complete
        assert "continued" in page.facts
        assert page.epochs == 6
    for name in whole.history:
        np.testing.assert_array_equal(run.history[name], whole.history[name])
        np.testing.assert_array_equal(
            read_page(pages(logbook)[0]).history[name], whole.history[name][0]
        )


@pytest.mark.parametrize("resumed", [False, True])
def test_ctrl_c_finishes_the_chunk_and_the_run_goes_on(file, logbook, monkeypatch, resumed):
    """From the checkpoint that it leaves, to the same losses."""
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    whole = nnref.run(file, logbook=None)

    class Press(listeners.Listener):
        def hears(self, chunk):
            if chunk.first == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(listeners.Interrupted) as interrupted:
        nnref.run(file, logbook=logbook, listener=Press())
    assert interrupted.value.page == pages(logbook)[0]
    assert [read_page(path).epochs for path in pages(logbook)] == [2, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    trained = []

    class Hear(listeners.Listener):
        def hears(self, chunk):
            trained.append(chunk.first)

    if resumed:
        run = runs.resume(interrupted.value.page, Hear())
    else:
        run = nnref.run(file, logbook=logbook, listener=Hear())
    assert trained == [3, 4, 5, 6]
    assert all(read_page(path).complete for path in pages(logbook))
    for name in whole.history:
        np.testing.assert_array_equal(run.history[name], whole.history[name])


def test_what_has_ended_or_is_no_page_is_not_resumed(file, logbook):
    nnref.run(file, logbook=logbook)
    with pytest.raises(nnref.AlreadyRun):
        runs.resume(pages(logbook)[0])
    with pytest.raises(UserError, match="not a page of a logbook"):
        runs.resume(file)


def test_long_runs_leave_checkpoints_and_a_kill_loses_little(file, logbook, monkeypatch):
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole = nnref.run(file, logbook=None)
    with pytest.raises(RuntimeError, match="killed"):
        nnref.run(file, logbook=logbook, listener=CutShort(5))
    trained = []

    class Hear(listeners.Listener):
        def hears(self, chunk):
            trained.append(chunk.first)

    run = nnref.run(file, logbook=logbook, listener=Hear())
    assert trained == [5, 6], "epoch 5 was killed before its checkpoint"
    for name in whole.history:
        np.testing.assert_array_equal(run.history[name], whole.history[name])
