"""The writer: lines on disk at once, the same numbers back, one process alone."""

import re
import subprocess
import threading

import numpy as np
import pytest
from small import SPIRALS, pages, run_killed

import nnref
from nnref.logbook.index import note
from nnref.logbook.pages import read_page
from nnref.logbook.writer import in_decimals, machine_facts, new_page
from nnref.studies import listeners
from nnref.training import loop

CONTENT = SPIRALS  # of `file`, on two seeds


def test_lines_are_on_disk_as_the_epochs_happen(file, logbook, monkeypatch):
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    seen = []

    class Listener(listeners.Listener):
        def hears(self, chunk):
            seen.append((chunk.first, read_page(pages(logbook)[0]).epochs))

    nnref.run(file, logbook=logbook, listener=Listener())
    assert seen == [(epoch, epoch) for epoch in range(7)]


@pytest.mark.parametrize("wild", [0.5, np.inf, -np.inf])
def test_a_line_gives_the_same_numbers_back(wild):
    table = np.array([[0.1, np.nan], [1e-42, 1 / 3], [2**24 + 2, wild]], np.float32)
    lines = in_decimals(table)
    assert lines[0] == "0.1 -"
    back = [[float(cell.replace("-", "nan", cell == "-")) for cell in row.split()] for row in lines]
    np.testing.assert_array_equal(np.array(back, np.float32), table)


def test_a_page_of_other_versions_is_not_continued(file, logbook, monkeypatch):
    run_killed(file, logbook, monkeypatch)
    for path in pages(logbook):
        path.write_text(path.read_text().replace("jax ", "jax 0.0."))
    nnref.run(file, logbook=logbook)
    assert len(pages(logbook)) == 4


def test_a_page_is_of_the_commit_of_the_folder_that_one_is_in_now(tmp_path, monkeypatch):
    """A process may go from folder to folder: the first one does not speak for the next."""
    under_git, gone = tmp_path / "under_git", tmp_path / "gone"
    monkeypatch.chdir(tmp_path)
    assert machine_facts()["commit"] == "none"
    subprocess.run(["git", "init", under_git], check=True)
    author = ("-c", "user.name=one", "-c", "user.email=one@here")
    subprocess.run(
        ["git", "-C", under_git, *author, "commit", "--allow-empty", "-m", "x"], check=True
    )
    monkeypatch.chdir(under_git)
    assert re.fullmatch("[0-9a-f]{10}", machine_facts()["commit"])
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert machine_facts()["commit"] == "none"
    monkeypatch.chdir(tmp_path)


def test_a_page_with_other_losses_is_not_continued(file, logbook, monkeypatch):
    run_killed(file, logbook, monkeypatch)
    path = pages(logbook)[0]
    path.write_text(re.sub(r"^// 2 \S+", "// 2 0.5", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(nnref.UserError, match="come out different now.*--again"):
        nnref.run(file, logbook=logbook)


def test_a_page_being_written_is_not_touched(file, logbook):
    held = threading.Event()
    done = threading.Event()

    class Wait(listeners.Listener):
        def hears(self, chunk):
            held.set()
            done.wait(30)

    thread = threading.Thread(
        target=nnref.run, args=(file,), kwargs={"logbook": logbook, "listener": Wait()}
    )
    thread.start()
    assert held.wait(60)
    try:
        with pytest.raises(nnref.UserError, match="another process is writing this page"):
            nnref.run(file, logbook=logbook)
    finally:
        done.set()
        thread.join()


def test_a_folder_that_cannot_be_written(file, tmp_path):
    (tmp_path / "logbook").write_text("a file, not a folder")
    with pytest.raises(nnref.UserError, match="--no-logbook"):
        nnref.run(file, logbook=tmp_path / "logbook")


def test_a_remark_while_a_run_writes_its_page_is_kept(file, logbook, monkeypatch):
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)

    class Remarks(listeners.Listener):
        def hears(self, chunk):
            for path in pages(logbook):
                note(path, f"at {chunk.first}", "2026-11-29")

    run = nnref.run(file, logbook=logbook, listener=Remarks())
    for path, losses in zip(pages(logbook), run.history["train_loss"], strict=True):
        page = read_page(path)
        assert page.complete
        assert len(page.notes) == 7
        np.testing.assert_array_equal(page.history["train_loss"], losses)


def test_two_that_begin_a_page_at_once_have_one_each(tmp_path):
    pages_ = [new_page(tmp_path / "a-seed0") for _ in range(3)]
    assert [path.name for path, _ in pages_] == ["a-seed0.json", "a-seed0-2.json", "a-seed0-3.json"]
    for _, stream in pages_:
        stream.close()
    (tmp_path / "a-seed0-2.json").unlink()  # as if another process took the third meanwhile
    path, stream = new_page(tmp_path / "a-seed0")
    stream.close()
    assert path.name == "a-seed0-4.json"
