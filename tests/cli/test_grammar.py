"""The grammar of the command line."""

import pytest
from commands import call

from nnref.cli.grammar import COMMANDS, help_of, parser


def test_version_names_libraries_and_device(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert all(word in out for word in ("nnref ", "jax ", "flax ", "optax ", "cpu"))


def test_every_command_has_its_line_of_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # Python 3.13 breaks lines earlier than 3.11
    _, out, _ = call(capsys, "--help")
    for words in COMMANDS:
        if " " not in words:
            assert f"\n    {words}" in out
    assert "JSON Schema of an experiment file\n" in out
    assert "train an experiment for all its seeds, show it, write it down\n" in out
    _, out, _ = call(capsys, "log", "--help")
    assert "near | tree | note" in out


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != "data"])
def test_every_command_tells_its_arguments_and_calls_a_function(capsys, words):
    code, out, _ = call(capsys, *words.split(), "--help")
    assert code == 0
    assert help_of(COMMANDS[words][0]) in " ".join(out.split())
    options = [names[-1] for names, _ in COMMANDS[words][1:] if names[-1].startswith("-")]
    assert [option for option in options if option not in out] == []


def test_a_group_without_a_command_of_its_own_needs_a_second_word(capsys):
    code, _, err = call(capsys, "data")
    assert code == 2
    assert "required: prepare | list" in err
    assert parser().parse_args(["log"]).command is COMMANDS["log"][0]


def test_the_logbook_may_stand_before_or_behind_the_second_word():
    for words in (["log", "--logbook", "x", "tree", "a"], ["log", "tree", "--logbook", "x", "a"]):
        assert parser().parse_args(words).logbook == "x"
    assert parser().parse_args(["log", "tree", "a"]).logbook == "logbook"


def test_options_are_not_shortened():
    """Else a new option could change what an old command line means."""
    for words in (["run", "a", "--no-log"], ["data", "list", "--data", "x"]):
        with pytest.raises(SystemExit):
            parser().parse_args(words)
