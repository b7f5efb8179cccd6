"""Regularization piece by piece: which pieces are tried, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
from small import SPIRALS

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.report.page.about_regularization import report_of_regularization
from nnref.report.page.blocks import Table
from nnref.report.page.document import html
from nnref.report.terminal.regularization import regularized_as_json, rows
from nnref.studies.regularize import (
    OFF,
    PIECES,
    TOGETHER,
    Piece,
    held_against,
    pieces_of,
    planned,
    regularize,
)
from nnref.studies.statistics import Interval

LEARNS = {"optimizer": {"name": "adam", "learning_rate": 0.05}, "epochs": 40}
STRONG = {"regularization": {"l2": 1e-4, "dropout": 0.99}, "stop": {"patience": 30}}
WIDE = SPIRALS | LEARNS | {"model": {"name": "mlp", "hidden": [16]}}
ONE_PIECE = Experiment(**WIDE | {"regularization": {"dropout": 0.99}})
EXPERIMENT = Experiment(**WIDE | STRONG)


@pytest.fixture(scope="module")
def done():
    return regularize(ONE_PIECE, name="spirals", seeds=8, logbook=None)


def test_each_piece_is_tried_alone_and_then_all_together(done):
    assert [piece.name for piece in done.pieces] == ["dropout"], "one piece is all together"
    plan, values, refused = planned(EXPERIMENT, "a", 8)
    assert list(values) == [OFF, "l2", "dropout", "early stopping", TOGETHER]
    assert refused == {}
    off, l2, dropout, stopping, together = [variant.experiment for variant in plan.variants]
    assert (off.regularization.l2, off.regularization.dropout, off.stop) == (None, None, None)
    assert (l2.regularization.l2, l2.regularization.dropout, l2.stop) == (1e-4, None, None)
    assert (dropout.regularization.l2, dropout.regularization.dropout) == (None, 0.99)
    assert stopping.stop == together.stop == EXPERIMENT.stop
    assert together.regularization == EXPERIMENT.regularization
    assert plan.seeds == tuple(range(2, 10)), "none of the file's own"


def test_the_piece_that_stops_it_is_named(done):
    assert done.learns
    stops = [piece.name for piece in done.pieces if not piece.learns]
    assert stops == ["dropout"]
    assert any("dropout stops it" in sentence for sentence in done.sentences)


def test_runs_of_one_seed_are_pairs(done):
    (dropout,) = done.pieces
    difference = np.sort(dropout.result.scores - done.off.scores)[2:-2].mean()
    assert dropout.difference.estimate == pytest.approx(difference)
    assert dropout.differs
    assert not done.better(dropout)


def test_a_piece_that_pays_and_one_of_which_nothing_can_be_said(done):
    off = done.off
    lower = replace(off, scores=off.scores - 0.1 - 0.01 * np.arange(8))
    alike = replace(off, scores=off.scores + 0.1 * (-1.0) ** np.arange(8))
    values = {OFF: None, "l2": 1e-4, "dropout": 0.99}
    pays, open_ = held_against(off, [lower, alike], values, [0.1, 0.1])
    told = replace(done, pieces=(pays, open_))
    assert "l2 pays here" in " ".join(told.sentences)
    assert "Of dropout no difference can be claimed." in told.sentences
    higher = replace(told, lower=False)
    assert "l2 harms here" in " ".join(higher.sentences)


def test_a_network_that_does_not_learn_without_any_is_no_question_of_regularization(done):
    (sentence,) = replace(done, falls=0.8).sentences
    assert "only falls to 80% of the first" in sentence


def test_an_interval_and_a_test_must_both_say_so(done):
    def piece(low, high, p):
        return Piece("a", 1, done.off, Interval(low, low, high, 0.95), p, 0.1)

    assert piece(0.1, 0.3, 0.01).differs
    assert not piece(-0.1, 0.3, 0.01).differs
    assert not piece(0.1, 0.3, 0.2).differs


def test_an_experiment_without_any_is_tried_with_the_usual_ones():
    content = EXPERIMENT.model_dump(mode="json", by_alias=True)
    assert list(pieces_of(content)) == ["l2", "dropout", "early stopping"]
    content |= {"regularization": {}, "stop": None}
    assert list(pieces_of(content)) == [*PIECES, "early stopping"]
    _, values, refused = planned(Experiment(**(SPIRALS | LEARNS)), "a", 8)
    assert "shift" in refused, "no images"
    assert "dropout" in values


def test_too_few_seeds_are_refused():
    with pytest.raises(UserError, match="of 7 seeds none of 4 pieces could be told; give 8"):
        regularize(EXPERIMENT, seeds=7, logbook=None)


def test_page_table_and_json_say_the_same(done):
    report = report_of_regularization(done)
    assert report.headlines[0].sentence == " ".join(done.sentences)
    table = next(b for b in report.sections[0].blocks if isinstance(b, Table))
    assert table.rows == rows(done)
    assert [row[0] for row in table.rows][:3] == [OFF, "dropout 0.99"]
    assert "dropout stops it" in html(report)
    told = regularized_as_json(done)
    assert told["pieces"][0]["loss_left"] == done.pieces[0].falls
    assert told["conclusions"] == done.sentences
