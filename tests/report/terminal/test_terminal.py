"""A run on the terminal: its lines while it trains, table and curve."""

import numpy as np
import pytest
from finished_runs import EXPERIMENT, run_of
from rich.console import Console

from nnref.experiment.experiment import Experiment
from nnref.report.terminal.terminal import TerminalListener, curve, show, tables
from nnref.training.loop import Chunk


def printed(thing, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(thing)
    console.file.close()
    return console.export_text()


def listening(seeds, width=80):
    console = Console(width=width, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    listener = TerminalListener(console)
    listener.begins(Experiment(**EXPERIMENT), seeds, 2, "")
    return listener


def chunk(first, active, **history):
    """Epochs of two seeds."""
    arrays = {name: np.array(values, np.float32) for name, values in history.items()}
    return Chunk(first, arrays, np.array(active), np.zeros_like(active, int), None)


def lines_of(listener):
    """What it shows beneath the bar."""
    listener.ends()
    listener.console.file.close()
    return [text.plain for text in listener.view().renderables[1:]]


def test_every_seed_has_a_line_while_it_trains():
    listener = listening([3, 14])
    nan = float("nan")
    both, one = [[True, True]], [[True, True], [False, True]]
    listener.hears(chunk(0, both, train_loss=[[1, 2]], valid_accuracy=[[0.5, 0.6]]))
    told = {"train_loss": [[0.1, 0.2], [9, 0.02]], "valid_accuracy": [[nan, 0.8], [9, nan]]}
    listener.hears(chunk(1, one, train_accuracy=[[0.3, 0.3]] * 2, **told))
    assert listener.progress.tasks[0].completed == 2
    first, second = lines_of(listener)
    # The first seed has ended, and had no second validation.
    assert first == "seed 3   train_loss 0.1  valid_accuracy 0.5  █▁"
    assert second == "seed 14  train_loss 0.02  valid_accuracy 0.8  █▅▁"


def test_many_seeds_have_a_line_together():
    listener = listening(range(21))
    losses = [np.arange(21) + 1]
    listener.hears(chunk(0, [[True] * 21], train_loss=losses, valid_loss=losses))
    assert lines_of(listener) == ["median of 21 seeds  train_loss 11  valid_loss 11  ▁"]


def test_lines_fit_into_the_terminal():
    listener = listening([3, 14], width=40)
    for epoch in range(40):
        listener.hears(chunk(epoch, [[True, True]], train_loss=[[0.5**epoch] * 2]))
    for line in lines_of(listener):
        assert len(line) <= 40
        assert line.endswith("▁")


def test_the_table_has_a_row_for_each_seed_and_the_median():
    told = printed(tables(run_of([0.9, 0.5, 0.2], [0.8, 0.4, 0.6]))[0])
    rows = [line.split() for line in told.splitlines()]
    #                       train best  valid  best  accuracies  to target  epoch
    assert ["0", "0.2", "0.2", "0.22", "0.22", "0.8", "0.4", "2", "2"] in rows
    assert ["1", "0.6", "0.4", "0.66", "0.44", "0.4", "0.2", "never", "2"] in rows
    assert rows[-1][0] == "median"


def test_a_measure_of_the_test_split_is_reached_at_no_epoch(monkeypatch):
    claim = EXPERIMENT["claim"] | {"metric": "test_accuracy", "at_most": 2.0}
    monkeypatch.setitem(EXPERIMENT, "claim", claim)
    told = printed(tables(run_of([0.9, 0.5], [0.8, 0.4]))[0])
    assert "target" not in told
    assert "never" not in told


def test_the_table_tells_quantiles_where_there_are_many_seeds():
    curves = [[1.0, value] for value in np.linspace(0.1, 0.9, 101)]
    told = printed(tables(run_of(*curves))[0])
    rows = {line.split()[0]: line.split() for line in told.splitlines() if line.split()}
    assert rows["lowest"][1] == "0.1"
    assert rows["median"][1] == "0.5"
    assert rows["highest"][1] == "0.9"
    assert len(told.splitlines()) < 10


def test_the_table_shows_the_network_that_is_kept():
    told = printed(tables(run_of([0.9, 0.1, 0.7], kept=1, ending="stopped at epoch 2: x"))[0])
    assert told.splitlines()[-1].split() == [
        "0", "0.1", "0.1", "0.11", "0.11", "0.9", "0.45", "1", "1", "stopped",
    ]  # fmt: skip


def test_everything_fits_into_80_columns():
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(run_of(*[[0.9, 0.012345, 0.00012345]] * 3), console)
    console.file.close()
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_the_curve_falls_from_its_first_value_to_its_last():
    lines = curve(run_of(np.geomspace(1, 0.001, 200))).splitlines()
    assert lines[0].split()[0] == "1.1"
    assert lines[7].split()[0] == "0.001"
    columns = [len(line[10:]) - len(line[10:].lstrip()) for line in lines[:8]]
    assert columns == sorted(columns), "a straight line on a logarithmic scale"
    assert lines[-2].split() == ["0", "epoch", "199"]


@pytest.mark.parametrize("values", [[1.0, np.nan], [0.0, 0.0], [2.0, np.inf]])
def test_the_curve_leaves_out_what_it_cannot_draw(values):
    assert "nan" not in curve(run_of(values))
