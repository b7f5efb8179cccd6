"""The grammar of the command line."""

import argparse
import json
import sys

import pytest
from commands import call

from nnref.cli.grammar import COMMANDS, help_of, parsed, parser


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
    assert "required: prepare | look | list" in err
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


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["rnu", "a"], 'did you mean "run"?'),
        (["train", "a"], 'did you mean "run"?'),
        (["data", "prep"], 'did you mean "prepare"?'),
        (["run", "a", "--epoch", "3"], 'did you mean "--epochs"?'),
        (["run", "a", "--lr", "3"], 'did you mean "--set optimizer.learning_rate"?'),
    ],
)
def test_a_word_that_is_none_has_the_nearest_beside_it(capsys, words, meant):
    code, _, err = call(capsys, *words)
    assert code == 2
    assert err.rstrip().endswith(meant)


def test_help_tells_every_default():
    for words, (_, *arguments) in COMMANDS.items():
        text = " ".join(parser_of(words).format_help().split())
        for names, keywords in arguments:
            if keywords.get("default") not in (None, [], argparse.SUPPRESS):
                assert f"(default: {json.dumps(keywords['default'])})" in text, (words, names)
            if names[0] == "-o":
                assert "default" in keywords or "else" in keywords["help"] or words == "ablate"


def parser_of(words):
    """The parser of a command, which is given what it needs."""
    needed = [n for n, k in COMMANDS[words][1:] if n[0][0] != "-" and k.get("nargs", "+") == "+"]
    return parsed([*words.split(), *["bash"] * len(needed)]).parser if words != "data" else parser()


@pytest.mark.parametrize(
    "words", [["a"], ["--sort", "epochs", "a"], ["a", "--logbook", "a"], ["--logbook", "a", "a"]]
)
def test_the_log_takes_a_name_wherever_it_stands(words):
    assert parsed(["log", *words]).name == "a"
    assert parsed(["log"]).name is None
    assert parsed(["log", "--sort", "tree"]).command is COMMANDS["log"][0]


def test_a_shell_completes_commands_options_files_and_folders(capsys):
    pytest.importorskip("shtab")
    code, out, _ = call(capsys, "completion", "bash")
    assert code == 0
    assert all(word in out for word in ("lr-range", "--tensorboard", "nnref list", "compgen_dirs"))
    assert "#compdef nnref" in call(capsys, "completion", "zsh")[1]


def test_completion_says_what_it_needs(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, err = call(capsys, "completion", "bash")
    assert code == 2
    assert "pip install" in err
