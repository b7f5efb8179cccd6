"""A small form of `benchmarks/torture.py`, which docs/reliability.md has figures of."""

import pytest

from benchmarks import torture


@pytest.mark.parametrize(
    "counts",
    [{"kills": 1}, {"torn": 3, "damaged": 6, "disks": 2, "inputs": 30}],
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
    monkeypatch.setattr(torture, "results", lambda logbook: next(outcomes))
    assert torture.main(arguments) == 1
    assert "1 failures" in capsys.readouterr().out
    monkeypatch.setattr(torture, "nnref", lambda arguments: 1 / 0)
    code, said = torture.called("log")
    assert code == -1
    assert "ZeroDivisionError" in said
