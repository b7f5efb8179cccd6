"""An ablation on the terminal: its plan before anything runs, and its tables."""

import io
import json
from dataclasses import replace

from rich.console import Console
from small import ABLATION

from nnref import cli
from nnref.report.terminal.ablation import differences, results, show_comparison
from nnref.studies import sweep


def test_the_plan_comes_first_and_a_dry_run_stops_there(tmp_path, capsys, monkeypatch):
    file = tmp_path / "small.json"
    file.write_text(json.dumps(ABLATION))
    monkeypatch.setattr(sweep, "train_jobs", None)
    logbook = tmp_path / "logbook"
    assert cli.main(["ablate", str(file), "--dry-run", "--logbook", str(logbook)]) == 0
    told = capsys.readouterr().out
    assert "6 variants on 2 seeds: 12 runs, 1 programs, about " in told
    assert "2 alternatives of optimizer, 3 trials each; then tuned and at defaults on 10" in told
    assert "fresh seeds: 40 runs, about " in told
    assert not logbook.exists()
    assert cli.main(["ablate", str(file), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["trials"] == {"sgd": 3, "sgd momentum 0.9": 3}
    assert plan["tuning"]["runs"] == 12
    assert plan["final"]["runs"] == 40
    assert plan["final"]["seeds"] == list(range(2, 12))


def test_on_eighty_columns_nothing_is_cut_off(compared):
    comparison, _, _ = compared
    each = comparison.alternatives
    wordy = tuple(replace(one, name=f"{one.name} called by a name of many words") for one in each)
    comparison = replace(comparison, alternatives=wordy)
    stream = io.StringIO()
    show_comparison(comparison, Console(width=80, file=stream))
    told = stream.getvalue()
    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told
    for row in [*results(comparison).rows, *differences(comparison).rows]:
        assert all(figure in told for figure in row.figures)
