"""A sweep on the terminal: its plan, the best variants, and times in words."""

import json

import numpy as np
import pytest
from small import XOR_SWEEP

from nnref import cli
from nnref.report.terminal.sweep import about
from nnref.studies import sweep

CONTENT = XOR_SWEEP  # of `file`: nine variants in two groups


def test_a_dry_run_shows_the_plan_and_trains_nothing(file, logbook, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "train_jobs", None)
    assert cli.main(["sweep", str(file), "--dry-run", "--logbook", str(logbook)]) == 0
    told = capsys.readouterr().out
    assert "9 variants on 2 seeds: 18 runs, 2 programs, about " in told
    assert "optimizer adam" in told
    assert not logbook.exists()
    assert cli.main(["sweep", str(file), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [group["runs"] for group in plan["groups"]] == [6, 12]


def test_the_command_tells_the_best_and_where_the_page_is(file, logbook, capsys):
    assert cli.main(["sweep", str(file), "--logbook", str(logbook)]) == 0
    told = capsys.readouterr().out
    assert "the best of 9 variants" in told
    assert "sweep-" in told
    assert cli.main(["sweep", str(file), "--logbook", str(logbook)]) == 0
    assert "was swept before" in capsys.readouterr().out
    assert cli.main(["sweep", str(file), "--logbook", str(logbook), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["already_run"]
    assert result["variants"][2]["final"] is None
    assert len(result["variants"][0]["seeds"]) == 2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(5.2e-5, "0.052 ms"), (0.25, "250 ms"), (2.0, "2 s"), (100.0, "2 min"), (np.inf, "∞")],
)
def test_times_are_told_in_their_unit(seconds, said):
    assert about(seconds) == said
