"""The part of a report about runs: the verdict, figures, differences; and the commands."""

from pathlib import Path

import pytest
from logbooks import write_page
from subjects import DONE, FALL, subject_of

from nnref.cli import main
from nnref.errors import UserError
from nnref.report.page.about_networks import NOT_ASKED
from nnref.report.page.about_runs import headline, report_of
from nnref.report.page.blocks import Table
from nnref.report.page.document import html
from nnref.report.page.panels import panels_in

ADAM = {"name": "adam", "learning_rate": 0.5}


@pytest.mark.parametrize(
    ("facts", "tone", "word"),
    [
        ({"all_seeds": "the claim held: x <= 1", "verdict": "v"}, "good", "the claim held"),
        (
            {"all_seeds": "the claim did not hold: x", "verdict": "v"},
            "bad",
            "the claim did not hold",
        ),
        (DONE, "plain", "ended"),
        (DONE | {"ending": "diverged at epoch 2, step 3: x"}, "bad", "diverged"),
        ({}, "plain", "not ended"),
    ],
)
def test_the_verdict_comes_first(tmp_path, facts, tone, word):
    told = headline(subject_of(write_page(tmp_path, "some", FALL, facts=facts)))
    assert (told.tone, told.word) == (tone, word)
    assert not told.sentence.startswith("the claim")
    if not facts:
        assert "epoch 2 of 4" in told.sentence


def test_figures_of_every_run_and_over_them(tmp_path):
    ends = (0.2, 0.4, 0.1)
    paths = [
        write_page(tmp_path, "some", FALL | {"valid_loss": [1.0, 0.15, end]}, seed, facts=DONE)
        for seed, end in enumerate(ends)
    ]
    report = report_of([subject_of(*paths)], [NOT_ASKED])
    over, each = next(s for s in report.sections if s.key == "figures").blocks
    assert isinstance(over, Table)
    assert isinstance(each, Table)
    assert over.columns[2:4] == ["validation loss", "lowest validation loss"]
    assert [row[2] for row in over.rows] == ["0.2", "0.1", "0.4"]
    assert [row[2:4] for row in each.rows] == [["0.2", "0.15"], ["0.4", "0.15"], ["0.1", "0.1"]]
    assert dict(report.headlines[0].facts)["validation loss in the end, median"] == "0.2"


def test_a_run_that_has_just_begun_is_shown_all_the_same(tmp_path):
    begun = write_page(tmp_path, "some", dict.fromkeys(FALL, []))
    subject = subject_of(begun)
    text = html(report_of([subject], [NOT_ASKED]))
    assert "1 of 1 pages have no line of measures" in text
    assert "Curves" not in text
    with pytest.raises(UserError, match="no line of measures yet"):
        panels_in(report_of([subject], [NOT_ASKED]))
    both = subject_of(begun, write_page(tmp_path, "some", FALL, 1, facts=DONE))
    assert "1 of 2 pages have no line" in html(report_of([both], [NOT_ASKED]))
    assert "1 of 2 runs went on to epoch 0 of 4" in both.outcome[2]


def test_what_differs_and_what_came_of_it(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL, facts=DONE))
    better = FALL | {"valid_loss": [1.0, 0.03, 0.05]}
    b = subject_of(write_page(tmp_path, "b", better, facts=DONE, batch_size=2, optimizer=ADAM))
    (section,) = (s for s in report_of([a, b], [NOT_ASKED] * 2).sections if s.key == "differences")
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert [list(row) for row in table.rows] == [
        ["batch_size", "4", "2"],
        ["optimizer", "sgd", "adam"],
        ["→ validation loss in the end, median", "0.2", "0.05"],
        ["→ validation loss lowest, median", "0.2", "0.03"],
    ]


def test_the_commands_write_what_they_say(logbook, tmp_path, capsys):
    base = ["--logbook", str(logbook), "--no-network"]
    page, picture = str(tmp_path / "new" / "r.html"), str(tmp_path / "p.svg")
    assert main(["report", "some", "other", "-o", page, *base]) == 0
    assert main(["plot", "other", "-o", picture, *base]) == 0
    assert capsys.readouterr().out.split() == [page, picture]
    assert "3 experiments" in Path(page).read_text()
    assert "<svg" in Path(picture).read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "some", "-o", "x.pdf"], "ends in .html"),
        (["plot", "some", "-o", "x.html"], "ends in .png or .svg"),
        (["report", "none"], "has no run of that name"),
        (["report", "some", "-o", "{folder}/r.html"], "r.html: is a directory"),
        (["plot", "some", "-o", "{folder}/p.svg"], "p.svg: is a directory"),
    ],
)
def test_mistakes_of_users(logbook, tmp_path, capsys, arguments, told):
    for name in ("r.html", "p.svg"):
        (tmp_path / "folders" / name).mkdir(parents=True)
    arguments = [each.format(folder=tmp_path / "folders") for each in arguments]
    assert main([*arguments, "--logbook", str(logbook), "--no-network"]) == 2
    assert told in capsys.readouterr().err
