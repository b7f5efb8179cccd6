"""The logbook on the terminal."""

from pathlib import Path

import numpy as np
import pytest
from logbooks import EXPERIMENT, write_page

from nnref.experiment.experiment import Experiment
from nnref.logbook.index import entries
from nnref.report.terminal.logbook import side_of, sparkline


def test_a_spark_line_is_logarithmic_and_newest_at_the_right():
    assert sparkline(np.array([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]), 20) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.geomspace(1, 1e-6, 1000), 4) == "█▆▃▁"
    assert sparkline(np.array([np.nan, 1.0, np.inf, 0.0]), 4) == "▁"
    assert sparkline(np.array([np.nan]), 4) == ""
    assert sparkline(np.ones(3), 0) == ""


def test_two_spark_lines_with_the_same_ends_can_be_compared():
    ends = (1e-4, 1.0)
    assert sparkline(np.array([1.0, 1e-2]), 60, ends) == "█▅"
    assert sparkline(np.array([1e-2, 1e-4]), 60, ends) == "▅▁"


@pytest.fixture
def logbook(tmp_path):
    """Two experiments, the first with two seeds."""
    for seed in (0, 1):
        write_page(tmp_path, "a", {"train_loss": [1.0, 0.5]}, seed)
    write_page(tmp_path, "b", {"train_loss": [1.0, 0.1]}, batch_size=2)
    return tmp_path


def test_a_side_is_a_page_a_file_a_name_or_an_identity(logbook, tmp_path):
    known, _ = entries(logbook)
    experiment = Experiment(**EXPERIMENT | {"seeds": [0]})
    page = next((logbook / "a").glob("*-seed1.json"))
    side = side_of(str(page), logbook, known, Path)
    assert (side.label, [entry.seed for entry in side.entries]) == (str(page), [1])
    assert side.histories[0]["train_loss"].tolist() == [1.0, 0.5]
    file = tmp_path / "mine.json"
    file.write_text(experiment.to_json())
    for word in ("a", str(file), experiment.identity, experiment.identity[:5]):
        side = side_of(word, logbook, known, Path)
        assert sorted(entry.seed for entry in side.entries) == [0, 1]
        assert side.settings["batch_size"] == 4
        assert experiment.identity in side.label
        assert len(side.histories) == 2
    assert side_of("b", logbook, known, Path).settings["batch_size"] == 2


def test_a_side_that_was_never_run_has_its_settings_alone(logbook, tmp_path):
    file = tmp_path / "new.json"
    file.write_text(Experiment(**EXPERIMENT | {"epochs": 9}).to_json())
    side = side_of("new", logbook, [], lambda word: tmp_path / f"{word}.json")
    assert (side.label, side.settings["epochs"]) == ("new", 9)
    assert list(side.entries) == list(side.histories) == []
