"""Sweeps: planned, run as few programs, resumed, halved, and written down."""

import os
import signal
import time

import numpy as np
import pytest
from small import XOR_SWEEP, changed, same_records

import nnref
from nnref.errors import UserError
from nnref.logbook.index import everything
from nnref.studies import groups, sweep, sweep_page
from nnref.studies.groups import Job
from nnref.studies.listeners import SweepListener
from nnref.training import loop

CONTENT = XOR_SWEEP  # of `file`: nine variants in two groups


# --- what is computed ---------------------------------------------------------------------------


def test_a_variant_has_the_losses_of_the_same_experiment_alone(file):
    swept = sweep.sweep(file, logbook=None)
    for number in (0, 1, 4):
        alone = nnref.run(swept.variants[number].experiment, logbook=None)
        for ours, theirs in zip(swept.of(number), alone.records, strict=True):
            assert ours.seed == theirs.seed
            assert ours.ending == theirs.ending
            for name, values in theirs.history.items():
                if name.endswith("loss"):
                    np.testing.assert_allclose(ours.history[name], values, rtol=1e-5)


def test_alone_in_its_program_a_run_is_the_same_to_the_last_bit(file, monkeypatch):
    monkeypatch.setattr(groups, "TOGETHER", 1)
    swept = sweep.sweep(file, logbook=None)
    alone = nnref.run(swept.variants[1].experiment, seeds=[3], logbook=None)
    for name, values in alone.records[0].history.items():
        np.testing.assert_array_equal(swept.records[Job(1, 3)].history[name], values)


def test_one_compilation_serves_a_group(file, monkeypatch):
    monkeypatch.setattr(groups, "TOGETHER", 4)  # the last block is shorter
    changed(file, epochs=77, sweep={"axes": {"optimizer.learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5]}})
    program = loop.chunk_program(True)
    before = program._cache_size()
    swept = sweep.sweep(file, logbook=None)
    assert program._cache_size() == before + 1
    assert len(swept.records) == 10


# --- the logbook --------------------------------------------------------------------------------


def test_a_sweep_is_no_run(file, logbook):
    with pytest.raises(UserError, match="is a sweep of many experiments: nnref sweep small"):
        nnref.run(file, logbook=logbook)


# --- cut short ----------------------------------------------------------------------------------


def test_what_is_finished_is_not_run_again(file, logbook, monkeypatch):
    whole = sweep.sweep(file, logbook=None)
    monkeypatch.setattr(groups, "TOGETHER", 3)
    monkeypatch.setattr(sweep, "workers", lambda: 1)
    train_block, calls = sweep.train_block, []

    def third_fails(group, jobs, *others):
        calls.append(jobs)
        if len(calls) == 3:
            raise RuntimeError("power failure")
        return train_block(group, jobs, *others)

    monkeypatch.setattr(sweep, "train_block", third_fails)
    with pytest.raises(RuntimeError, match="power failure"):
        sweep.sweep(file, logbook=logbook)
    [entry] = everything(logbook)[0]
    assert entry.outcome == "cut short"
    saved = []
    for part in (logbook / "small").glob("*.parts/*.npz"):
        with part.open("rb") as stream:
            arrays = np.load(stream)
            saved += [Job(*job) for job in arrays["jobs"][~arrays["going"]].tolist()]
    assert len(saved) >= 6, "the two blocks before"
    calls[:] = [None] * 5
    swept = sweep.sweep(file, logbook=logbook)
    again = [job for jobs in calls[5:] for job in jobs]
    assert len(again) == swept.trained == 18 - len(saved)
    assert {*again, *saved} == set(whole.records)
    for job, record in whole.records.items():
        assert swept.records[job].ending == record.ending
        for name, values in record.history.items():
            np.testing.assert_allclose(
                swept.records[job].history[name], values, rtol=1e-4, atol=1e-6
            )
    assert "// continued: " in swept.page.read_text()
    assert not swept.page.with_suffix(".parts").exists()


def test_ctrl_c_keeps_half_a_run(file, logbook, monkeypatch):
    changed(file, sweep={"axes": {"optimizer.learning_rate": [0.1, 0.2]}})
    whole = sweep.sweep(file, logbook=None)
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    heard = []

    class Impatient(SweepListener):
        def hears(self, epochs):
            heard.append(epochs)
            if len(heard) == 8:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1.0)  # the main thread is told, however busy the machine is

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(file, logbook=logbook, listener=Impatient())
    assert 7 * 4 <= sum(heard) < 100 * 4
    begun = []

    class Fresh(SweepListener):
        def begins(self, epochs, done):
            begun.append((epochs, done))

    swept = sweep.sweep(file, logbook=logbook, listener=Fresh())
    assert begun == [(400, sum(heard))]
    assert swept.trained == 4
    same_records(swept.records, whole.records)


# --- halving ------------------------------------------------------------------------------------

HALVED = {
    "axes": {"optimizer.learning_rate": [1e30, 1e-3, 3e-3, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4]},
    "halving": {"rungs": [1, 3, 9]},
}


def test_the_better_third_goes_on(file, logbook):
    swept = sweep.sweep(changed(file, epochs=90, sweep=HALVED), logbook=logbook)
    full = sweep.sweep(changed(file, epochs=90, sweep={"axes": HALVED["axes"]}), logbook=None)
    left = {n: max(record.epochs for record in swept.of(n)) for n in range(9)}
    assert sorted(left.values())[-3:] == [30, 30, 90]
    for rung, survivors in ((10, 3), (30, 1)):
        here = [n for n in left if left[n] >= rung]
        losses = {
            n: np.median([r.history["valid_loss"][rung] for r in full.of(n)])
            for n in here
            if not full.of(n)[0].diverged
        }
        best = sorted(losses, key=losses.get)[:survivors]
        assert {n for n in left if left[n] > rung} == set(best)
    for number in left:
        for ours, theirs in zip(swept.of(number), full.of(number), strict=True):
            shared = min(ours.epochs, theirs.epochs) + 1
            np.testing.assert_allclose(
                ours.history["valid_loss"][:shared],
                theirs.history["valid_loss"][:shared],
                rtol=1e-4,
            )
    [winner] = [n for n in left if left[n] == 90]
    assert swept.ranking[0] == winner
    assert swept.of(winner)[0].ending == ""
    third = next(n for n in left if left[n] == 30)
    assert swept.of(third)[0].ending == "dropped after epoch 30: 1 variants were better"
    assert left[swept.ranking[1]] == left[swept.ranking[2]] == 30
    with pytest.raises(nnref.AlreadyRun) as error:
        sweep.sweep(changed(file, epochs=90, sweep=HALVED), logbook=logbook)
    assert error.value.result.ranking == swept.ranking


def test_halving_goes_on_where_it_was_cut_short(file, logbook, monkeypatch):
    path = changed(file, epochs=90, sweep=HALVED)
    whole = sweep.sweep(path, logbook=None)
    train_jobs, rungs = sweep.train_jobs, []

    def second_rung_fails(*given):
        rungs.append(given)
        if len(rungs) == 2:
            raise RuntimeError("power failure")
        train_jobs(*given)

    monkeypatch.setattr(sweep, "train_jobs", second_rung_fails)
    monkeypatch.setattr(sweep_page, "SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(RuntimeError):
        sweep.sweep(path, logbook=logbook)
    epochs = []

    class Counting(SweepListener):
        def begins(self, epochs_of_rung, done):
            epochs.append(epochs_of_rung - done)

    swept = sweep.sweep(path, logbook=logbook, listener=Counting())
    assert epochs[0] == 0
    assert epochs[1] == 3 * 2 * 20
    same_records(swept.records, whole.records)
