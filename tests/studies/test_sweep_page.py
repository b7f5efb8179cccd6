"""The page of a sweep and the arrays beside it: written, read back, in the log."""

import numpy as np
import pytest
from small import XOR_SWEEP, same_records

import nnref
from nnref import cli
from nnref.errors import UserError
from nnref.logbook.index import entries, everything
from nnref.logbook.pages import read_sweep_page
from nnref.studies import sweep
from nnref.studies.groups import Job
from nnref.studies.sweep_record import plan_sweep

CONTENT = XOR_SWEEP  # of `file`: nine variants in two groups


def test_a_sweep_leaves_one_page_and_one_file_of_losses(file, logbook):
    swept = sweep.sweep(file, logbook=logbook)
    assert sorted(p.name for p in (logbook / "small").iterdir()) == [
        f"sweep-{swept.identity}.json",
        f"sweep-{swept.identity}.npz",
    ]
    page = read_sweep_page(swept.page)
    assert page.complete
    assert page.facts["verdict"] == swept.sentence
    assert len(page.variants) == 9
    line = page.variants[4]
    assert line["identity"] == swept.variants[4].experiment.identity
    assert line["settings"] == {
        "optimizer": {"name": "adam"},
        "optimizer.beta1": 0.8,
        "optimizer.learning_rate": 1.0,
    }
    assert line["valid_loss"] == pytest.approx(swept.final(4), rel=1e-5)
    assert page.variants[2]["valid_loss"] is None
    assert page.variants[2]["diverged"] == 2
    assert page.variants[2]["ending"].startswith("diverged at epoch")
    with np.load(swept.page.with_suffix(".npz")) as arrays:
        assert arrays["valid_loss"].shape == (9, 2, 101)
        np.testing.assert_array_equal(
            arrays["valid_loss"][4, 1], swept.records[Job(4, 3)].history["valid_loss"]
        )
        assert np.isnan(arrays["valid_loss"][2, 0, -1])
    assert plan_sweep(swept.page).identity == swept.identity
    assert plan_sweep(swept.page).name == "small"


def test_a_sweep_that_was_run_is_known_and_read_back(file, logbook):
    swept = sweep.sweep(file, logbook=logbook)
    with pytest.raises(nnref.AlreadyRun, match="was swept before, on 20") as error:
        sweep.sweep(file, logbook=logbook)
    same_records(error.value.result.records, swept.records)
    assert error.value.result.sentence == swept.sentence
    again = sweep.sweep(file, logbook=logbook, again=True)
    assert again.page.name == f"sweep-{swept.identity}-2.json"
    same_records(again.records, swept.records)
    swept.page.with_suffix(".npz").unlink()
    again.page.with_suffix(".npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be read"):
        sweep.sweep(file, logbook=logbook)


def test_the_log_has_one_line_for_a_sweep(file, logbook, capsys):
    swept = sweep.sweep(file, logbook=logbook)
    assert entries(logbook) == ([], [])
    [entry] = everything(logbook)[0]
    assert (entry.variants, entry.seeds, entry.seed, entry.identity) == (9, 2, None, swept.identity)
    assert entry.best == pytest.approx(swept.best(swept.ranking[0]), rel=1e-5)
    assert entry == everything(logbook)[0][0], "from the index"
    assert cli.main(["log", "--logbook", str(logbook)]) == 0
    told = capsys.readouterr().out
    assert "9×2" in told
    assert "the best of 9 variants is " in told


def test_a_part_that_is_damaged_is_done_again(file, logbook, monkeypatch):
    train_block = sweep.train_block
    monkeypatch.setattr(sweep, "workers", lambda: 1)

    def second_fails(group, *others):
        if group.experiment.optimizer.name == "adam":
            raise RuntimeError
        return train_block(group, *others)

    monkeypatch.setattr(sweep, "train_block", second_fails)
    with pytest.raises(RuntimeError):
        sweep.sweep(file, logbook=logbook)
    monkeypatch.setattr(sweep, "train_block", train_block)
    [part] = (logbook / "small").glob("*.parts/*.npz")
    part.write_bytes(part.read_bytes()[:-100])
    assert sweep.sweep(file, logbook=logbook).trained == 18
