"""Commands about many networks."""

from commands import call, write


def test_claims_prints_a_row_each_and_fails_with_one_of_them(folder, capsys):
    claim = {"metric": "train_loss", "at_most": 5.0, "in": 2, "of": 2}
    write(folder, "right", claim=claim)
    code, out, _ = call(capsys, "claims")
    assert code == 0
    assert out.splitlines()[0].startswith("right  held ")
    assert "small" not in out
    write(folder, "wrong", claim=claim | {"at_most": 0.0})
    code, out, _ = call(capsys, "claims")
    assert code == 1
    assert "wrong  NOT HELD" in out
    assert "1 of 2 claims did not hold" in out
    assert not (folder / "logbook").exists()
