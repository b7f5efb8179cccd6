"""Commands about one network."""

import json
from pathlib import Path

import pytest
from commands import call, write


def test_run_shows_table_curve_verdict_page_and_picture(folder, capsys):
    code, out, err = call(capsys, "run", "experiments/small.json")
    assert code == 0
    assert err == ""
    assert "valid_loss went from" in out
    assert "median" in out
    assert "· train_loss   • valid_loss" in out
    assert "\x1b" not in out, "no escape codes where there is no terminal"
    assert max(map(len, out.splitlines()[:-2])) <= 80
    picture = Path(out.splitlines()[-1].split()[-1])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert Path(out.splitlines()[-2].split()[1]).exists()


def test_json_is_one_object_and_nothing_else(folder, capsys):
    code, out, _ = call(capsys, "run", "small", "--json")
    told = json.loads(out)
    assert code == 0
    assert [seed["seed"] for seed in told["seeds"]] == [0, 1]
    assert told["seeds"][0]["final"]["train_loss"] > 0
    again = json.loads(call(capsys, "run", "small", "--json")[1])
    assert again["already_run"] is True
    assert again["seeds"][0]["final"] == told["seeds"][0]["final"]


def test_json_has_no_nan(folder, capsys):
    arguments = ("--json", "--no-logbook", "--set", "loss=squared_error")
    code, out, _ = call(capsys, "run", "small", *arguments, "--set", "optimizer.learning_rate=90")
    told = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert code == 1
    assert told["seeds"][0]["final"]["train_loss"] is None
    assert told["seeds"][0]["ending"].startswith("diverged at epoch")


def test_a_second_run_says_so_and_again_goes_on(folder, capsys):
    call(capsys, "run", "small")
    code, out, _ = call(capsys, "run", "small")
    assert code == 0
    assert "was run before" in out
    assert "--again" in out
    assert "picture" not in out
    code, out, _ = call(capsys, "run", "small", "--again")
    assert code == 0
    assert "picture" in out


def test_exit_codes_follow_the_claim(folder, capsys):
    claim = {"metric": "train_loss", "at_most": 0.0, "in": 1, "of": 2}
    write(folder, "wrong", claim=claim)
    assert call(capsys, "run", "wrong")[0] == 1
    # The outcome of the page is the outcome of the call that finds it.
    assert call(capsys, "run", "wrong")[0] == 1
    write(folder, "right", claim=claim | {"at_most": 5.0})
    assert call(capsys, "run", "right")[0] == 0


def test_seed_epochs_and_settings(folder, capsys):
    code, out, _ = call(
        capsys, "run", "small", "--no-logbook", "--json", "--seed", "7", "8", "9",
        "--epochs", "3", "--set", "optimizer=adam", "--set", "optimizer.learning_rate=0.01",
    )  # fmt: skip
    told = json.loads(out)
    assert code == 0
    assert [(seed["seed"], seed["epochs"]) for seed in told["seeds"]] == [(7, 3), (8, 3), (9, 3)]
    assert not (folder / "logbook").exists()


def test_unit_tests_are_written_of_an_experiment_or_of_a_function(folder, capsys, monkeypatch):
    written = []

    def unit_tests(task, path):
        written.append((task, str(path)))
        return ["learns", "data_summary"]

    monkeypatch.setattr("nnref.checks.writing.unit_tests", unit_tests)
    code, out, _ = call(capsys, "unit-tests", "small")
    assert code == 0
    assert "2 properties hold and are tested: learns, data_summary" in out
    call(capsys, "unit-tests", "mine:make_task", "-o", "test_it.py")
    named = [(str(Path("experiments") / "small.json"), "test_mine.py")]
    assert written == [*named, ("mine:make_task", "test_it.py")]
    code, _, err = call(capsys, "unit-tests", "small", "-o", "tests.txt")
    assert code == 2
    assert "ends in .py" in err


def test_what_was_tried_is_written_down_where_a_logbook_is_given(folder, capsys, monkeypatch):
    from nnref.diagnosis.findings import Findings, fault
    from nnref.diagnosis.proof import Proof
    from nnref.logbook.index import entries

    proof = Proof("with ten times the learning rate", "rate x10", (0.1, 0.2, 0.1), (0.9, 0.9, 0.9))
    finding = fault("learning_rate_too_low", "the run", "too small", proof=proof)
    measures = {"trials": {"rate x10": 0.9, "longer": 0.2, "turned": -1.0}}
    found = Findings((finding,), measures=measures)
    monkeypatch.setattr("nnref.diagnosis.api.diagnose", lambda *_, **__: found)
    monkeypatch.setattr(Findings, "figures", [])
    for _ in range(2):  # what is there already is not trained again
        code, out, _ = call(capsys, "diagnose", "small", "--logbook", "tries")
        assert code == 1
        assert "pages    2 trials and the run as it is, in tries/small" in out
        assert "no page  with every update turned round: no file can say it" in out
    settings = [entry.settings for entry in entries(Path("tries"))[0]]
    assert sorted(each["optimizer.learning_rate"] for each in settings) == [0.5] * 4 + [5.0] * 3
    assert sorted(each["epochs"] for each in settings) == [60] * 6 + [300]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--logbook", "tries", "a page is of an experiment file"),
        ("--html", "why.txt", "a file that ends in .html"),
    ],
)
def test_what_a_diagnosis_cannot_write_is_refused_before_it(
    option, value, told, folder, capsys, monkeypatch
):
    asked = []
    monkeypatch.setattr("nnref.diagnosis.api.diagnose", lambda *_, **__: asked.append(1))
    monkeypatch.setattr("nnref.diagnosis.api.made_by", lambda given: (None, {}))
    code, _, err = call(capsys, "diagnose", "mine:make", option, value)
    assert code == 2
    assert told in err
    assert not asked


def test_diagnose_writes_the_repaired_experiment(folder, capsys, monkeypatch):
    from nnref.diagnosis.findings import Findings, fault
    from nnref.diagnosis.proof import Proof
    from nnref.diagnosis.repair import Repair

    def diagnosed(severity):
        finding = fault(
            "learning_rate_too_low", "the run", "too small", proof=Proof("", "rate x10")
        )
        found = (finding,) if severity == "fault" else ()
        monkeypatch.setattr("nnref.diagnosis.api.diagnose", lambda *_, **__: Findings(found))

    def repair(path, found):
        return Repair(Path("experiments/new.json"), {"optimizer.learning_rate": 5.0}, [], [])

    monkeypatch.setattr("nnref.diagnosis.repair.repair", repair)
    diagnosed("fault")
    code, out, _ = call(capsys, "diagnose", "small", "--fix")
    assert code == 1
    assert "repaired experiments/new.json: optimizer.learning_rate=5.0" in out
    assert "nnref diff experiments/small.json experiments/new.json" in out
    assert "repaired" not in call(capsys, "diagnose", "small")[1]
    diagnosed("none")
    assert "repaired" not in call(capsys, "diagnose", "small", "--fix")[1]
