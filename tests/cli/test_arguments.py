"""What words on the command line mean, and what is said of those that mean nothing."""

import pytest
from commands import call


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "which experiment? experiments: small"),
        (["run", "smal"], 'there is no file smal; did you mean "small"?'),
        (["run", "experiments/.json"], "which experiment?"),
        (["run", "small", "--set", "epochs"], "--set epochs: give PATH=VALUE"),
        (["run", "small", "--set", "epochs=0"], "epochs (line 1): 0 given"),
        (["run", "small", "--set", "optimiser=adam"], 'did you mean "optimizer"?'),
        (["run", "small", "--epochs", "x"], "invalid int value"),
        (["rnu"], "invalid choice"),
        (["show", "smal"], 'did you mean "small"?'),
    ],
)
def test_mistakes_are_told_without_a_traceback(folder, capsys, arguments, said):
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_broken_file_is_told_with_its_name_and_lines(folder, capsys):
    (folder / "experiments" / "broken.json").write_text('{\n "epochs": 3,\n "epochs": 4\n}')
    code, _, err = call(capsys, "run", "broken")
    assert code == 2
    assert "broken.json: epochs (line 3): given twice, also in line 2" in err
