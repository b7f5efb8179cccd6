"""Curves of runs: which epochs and seeds are drawn, medians, and the learning rate."""

import numpy as np
import pytest
from logbooks import write_page
from subjects import FALL, subject_of

from nnref.errors import UserError
from nnref.logbook.verdicts import medians
from nnref.report.page.about_networks import NOT_ASKED
from nnref.report.page.blocks import Chart, Words
from nnref.report.page.curves import chart_of, clipped_chart, drawn_seeds, places, rates


def test_a_long_history_keeps_its_spikes_its_first_and_its_last_epoch():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 5000))
    values[1, 1234], values[2, 4321], values[0, 7] = 50, -50, np.inf
    kept = places([values], 100)
    assert {0, 1234, 4321, 4999} <= set(kept)
    assert len(kept) <= 102
    assert list(kept) == sorted(set(kept))
    assert list(places([values[:, :80]], 100)) == list(range(80))


def test_epochs_without_a_value_are_not_drawn():
    seldom = np.full((1, 1000), np.nan)
    seldom[0, ::100] = 1.0
    assert list(places([seldom], 40)) == list(range(0, 1000, 100))


def test_lines_have_the_values_of_the_pages_and_their_median(tmp_path):
    paths = [
        write_page(tmp_path, "some", {"train_loss": [4.0, low], "valid_loss": [4.0, high]}, seed)
        for seed, (low, high) in enumerate([(1, 5), (2, np.nan), (3, 7)])
    ]
    chart = chart_of([subject_of(*paths)], {"loss": ["train_loss", "valid_loss"]}, "Losses")
    lines = {line.label: line for line in chart.views[0].lines}
    assert lines["training, seed 1"].values == [4, 2]
    assert lines["validation, seed 1"].values == [4, None]
    assert lines["training, median"].values == [4, 2]
    assert lines["validation, median"].values == [4, 6]
    assert chart.views[0].log
    assert "training, median 2" in chart.alt
    tags = {switch.tag for group in chart.switches for switch in group.switches}
    assert {tag for line in lines.values() for tag in line.tags} == tags, "a switch for every tag"


def test_runs_of_different_length_share_a_chart(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL))
    b = subject_of(write_page(tmp_path, "b", {"train_loss": [0.0, 2.0]}))
    chart = chart_of([a, b], {"loss": ["train_loss", "valid_loss"]}, "Losses")
    values = {line.label: line.values for line in chart.views[0].lines}
    assert values == {
        "a training": [1, 0.5, 0.1],
        "a validation": [1, 0.6, 0.2],
        "b training": [0, 2, None],
    }
    assert not chart.views[0].log, "a loss of 0 has no logarithm"


def test_who_clips_nothing_has_no_line_among_those_who_clip(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL))
    b = subject_of(
        *(write_page(tmp_path, "b", FALL | {"clipped": [np.nan, 1, 0.5]}, k) for k in (0, 1))
    )
    assert clipped_chart([a]) is None
    chart = clipped_chart([a, b])
    assert chart is not None
    assert {line.colour for line in chart.views[0].lines} == {1}, "its colour everywhere"
    assert chart.views[0].x == [1, 2], "before the first step nothing is clipped"
    assert [group.legend for group in chart.switches] == ["lines", "runs of b"]


def test_medians_are_over_what_is_known():
    values = np.array([[1, np.nan, np.nan], [3, 5, np.nan], [8, np.nan, np.nan]])
    assert np.array_equal(medians(values), [3, 5, np.nan], equal_nan=True)


def test_of_many_seeds_some_of_every_rank_are_drawn(tmp_path):
    ends = np.random.default_rng(0).permutation(60)
    subject = subject_of(
        *(
            write_page(tmp_path, "some", {"train_loss": [99.0, float(end)]}, seed)
            for seed, end in enumerate(ends)
        )
    )
    drawn = drawn_seeds(subject)
    ranks = sorted(ends[drawn])
    assert len(drawn) == 24
    assert (ranks[0], ranks[-1]) == (0, 59)
    assert max(np.diff(ranks)) <= 3
    chart = chart_of([subject], {"loss": ["train_loss"]}, "Loss")
    assert "Of 60 runs of some 24 are drawn" in chart.note
    assert chart.views[0].main[0].values == [99, 29.5], "the median is that of all"


def test_a_constant_rate_is_a_sentence_and_another_a_chart(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL))
    b = subject_of(write_page(tmp_path, "b", FALL, schedule="linear"))
    told = rates([a], [NOT_ASKED])
    assert isinstance(told, Words)
    assert told.text == "Constant: 0.5."
    chart = rates([a, b], [NOT_ASKED] * 2)
    assert isinstance(chart, Chart)
    assert [line.values[0] for line in chart.views[0].lines] == [0.5, 0.5]
    assert chart.views[0].lines[1].values[-1] == pytest.approx(0.375)
    assert chart.views[0].lines[0].values[-1] == 0.5


def test_without_data_the_rate_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("nnref.report.page.curves.from_experiment", refused)
    told = rates([subject_of(write_page(tmp_path, "a", FALL))], [NOT_ASKED])
    assert isinstance(told, Words)
    assert "no such data" in told.text


def refused(*_):
    raise UserError("no such data")
