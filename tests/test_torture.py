"""A small form of `benchmarks/torture/`, which docs/reliability.md has figures of."""

import pytest

from benchmarks.torture import __main__ as torture
from benchmarks.torture import common, places


@pytest.mark.parametrize(
    "counts",
    [{"kills": 1}, {"torn": 3, "damaged": 6, "disks": 2, "rights": 2, "inputs": 30}],
    ids=lambda counts: " ".join(counts),
)
def test_nothing_is_lost_wrong_without_a_word_or_a_traceback(counts, capsys):
    none = dict.fromkeys(torture.COUNTS, 0)
    arguments = [f"--{name}={count}" for name, count in (none | counts).items()]
    assert torture.main([*arguments, "--seed=1"]) == 0, capsys.readouterr().out


def test_what_is_lost_is_told(capsys, monkeypatch):
    """A logbook whose runs came out otherwise, and a command that raises."""
    none = dict.fromkeys(torture.COUNTS, 0)
    arguments = [f"--{name}={count}" for name, count in (none | {"disks": 1}).items()]
    outcomes = iter("abc")
    monkeypatch.setattr(places, "results", lambda logbook: next(outcomes))
    assert torture.main(arguments) == 1
    assert "1 failures" in capsys.readouterr().out
    monkeypatch.setattr(common, "nnref", lambda arguments: 1 / 0)
    code, said = common.called("log")
    assert code == -1
    assert "ZeroDivisionError" in said


def test_what_takes_too_long_or_too_much_is_told(capsys, monkeypatch):
    none = dict.fromkeys(torture.COUNTS, 0)
    arguments = [f"--{name}={count}" for name, count in (none | {"tasks": 1}).items()]
    monkeypatch.setattr(torture.odd_tasks, "answer", lambda names: ("", []))
    assert torture.main(arguments) == 0
    monkeypatch.setattr(torture, "CPU_SECONDS", -1)
    megabytes = iter(range(5000, 6000, 2))
    monkeypatch.setattr(torture, "held", lambda: next(megabytes))
    monkeypatch.setattr(torture, "MEGABYTES", 1)
    assert torture.main(arguments) == 1
    assert "2 failures" in capsys.readouterr().out
