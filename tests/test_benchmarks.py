"""The benchmark compares no times of contenders that did not do the same."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "run.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


WORK = SimpleNamespace(
    experiment=SimpleNamespace(about="a work"), tolerance=1e-3, target=4, updates=10
)
OURS = np.array([1.0, 0.5, 0.25])


def measured(benchmark, monkeypatch, theirs):
    curves = {benchmark.PUBLIC_DOOR: (OURS, OURS), "PyTorch": (OURS, theirs)}
    there = {name: lambda each=each: lambda: each for name, each in curves.items()}
    monkeypatch.setattr(benchmark, "contenders", lambda *_: (there, {"Keras": "not measured"}))
    return benchmark.measure(WORK, 2, Path("unused"), Console(quiet=True))


def test_equal_curves_are_timed(benchmark, monkeypatch):
    result = measured(benchmark, monkeypatch, OURS * (1 + 1e-5))
    assert result.held is not None
    assert [row[0] for row in result.rows] == [benchmark.PUBLIC_DOOR, "PyTorch", "Keras"]


@pytest.mark.parametrize(
    "theirs", [OURS * 1.01, OURS[:2], np.array([1.0, 0.5, np.nan])], ids=["other", "short", "nan"]
)
def test_where_curves_differ_no_ratio_is_given(benchmark, monkeypatch, theirs):
    result = measured(benchmark, monkeypatch, theirs)
    assert result.held is None
    assert all(len(row) == 2 for row in result.rows)
    assert "times" not in result.columns


@pytest.mark.parametrize(("pieces", "held"), [(3.0, True), (1.1, False)])
def test_options_that_do_nothing_are_noticed(benchmark, monkeypatch, pieces, held):
    work = SimpleNamespace(experiment=SimpleNamespace(about="a work", epochs=1000))
    monkeypatch.setattr(benchmark, "bare_program", lambda *_: lambda: lambda: None)
    times = dict(zip("ab", ([2e-3], [2e-3 * pieces]), strict=True))
    monkeypatch.setattr(benchmark, "seconds", lambda *_: times)
    result = benchmark.whole_and_in_pieces(work, 1, Console(quiet=True))
    assert [row[1] for row in result.rows] == ["2.00", f"{2 * pieces:.2f}"]
    assert result.held is held
