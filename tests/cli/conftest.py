"""A working folder with an experiment."""

import pytest
from commands import write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with one experiment."""
    (tmp_path / "experiments").mkdir()
    write(tmp_path, "small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path
