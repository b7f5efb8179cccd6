"""Runs and their logbook: what is written, read back, repeated, continued and refused."""

import json
import os
import re
import shutil
import signal
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

import nnref
from nnref.data import raw
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment, read
from nnref.logbook.pages import FORMAT, page_paths, read_page
from nnref.logbook.verdicts import Record, judge
from nnref.logbook.writer import in_decimals
from nnref.studies import listeners
from nnref.studies import run as runs
from nnref.training import loop, setup

SPIRALS = {
    "about": "for the tests",
    "data": {"name": "spirals", "points": 20, "valid": 0.3, "test": 0.2},
    "model": {"name": "mlp", "hidden": [5]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.01},
    "batch_size": 8,
    "epochs": 6,
    "seeds": [0, 1],
}


@pytest.fixture
def file(tmp_path):
    """An experiment file of two seeds."""
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SPIRALS))
    return path


@pytest.fixture
def logbook(tmp_path):
    return tmp_path / "logbook"


def pages(logbook, name="small"):
    return sorted((logbook / name).glob("*.json"))


def test_a_page_is_the_experiment_and_what_came_of_it(file, logbook):
    run = nnref.run(file, logbook=logbook)
    assert [p.name for p in pages(logbook)] == [
        f"{run.experiment.identity}-seed{seed}.json" for seed in (0, 1)
    ]
    page = read_page(pages(logbook)[1])
    assert page.complete
    assert page.experiment.seeds == (1,)
    assert page.experiment.identity == run.experiment.identity
    assert page.facts.keys() >= {"started", "versions", "device", "commit", "data", "ended"}
    assert list(page.history) == ["train_loss", "valid_loss", "train_accuracy", "valid_accuracy"]
    for name, values in page.history.items():
        np.testing.assert_array_equal(values, run.history[name][1])
    assert page.text.splitlines()[-1].startswith("// verdict: valid_loss ")


def test_a_page_run_again_gives_the_same_losses(file, logbook):
    run = nnref.run(file, logbook=logbook)
    again = nnref.run(pages(logbook)[1], logbook=logbook, again=True)
    assert again.name == "small"
    assert [record.seed for record in again.records] == [1]
    for name in run.history:
        np.testing.assert_array_equal(again.history[name][0], run.history[name][1])


def test_lines_are_on_disk_as_the_epochs_happen(file, logbook, monkeypatch):
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    seen = []

    class Listener(listeners.Listener):
        def hears(self, chunk):
            seen.append((chunk.first, read_page(pages(logbook)[0]).epochs))

    nnref.run(file, logbook=logbook, listener=Listener())
    assert seen == [(epoch, epoch) for epoch in range(7)]


@pytest.mark.parametrize("wild", [0.5, np.inf, -np.inf])
def test_a_line_gives_the_same_numbers_back(wild):
    table = np.array([[0.1, np.nan], [1e-42, 1 / 3], [2**24 + 2, wild]], np.float32)
    lines = in_decimals(table)
    assert lines[0] == "0.1 -"
    back = [[float(cell.replace("-", "nan", cell == "-")) for cell in row.split()] for row in lines]
    np.testing.assert_array_equal(np.array(back, np.float32), table)


def test_the_same_run_again_is_refused_with_its_outcome(file, logbook):
    nnref.run(file, logbook=logbook)
    before = {path: path.read_bytes() for path in pages(logbook)}
    with pytest.raises(nnref.AlreadyRun, match=r"small \(\w{10}\) was run before, on 20") as error:
        nnref.run(file, logbook=logbook)
    assert "valid_loss went from" in str(error.value)
    assert "--again" in str(error.value)
    assert error.value.result.history["valid_loss"].shape == (2, 7)
    nnref.run(file, logbook=logbook, again=True)
    assert len(pages(logbook)) == 4
    assert {path: path.read_bytes() for path in before} == before


def test_only_missing_seeds_are_trained(file, logbook):
    nnref.run(file, logbook=logbook, seeds=[1])
    run = nnref.run(file, logbook=logbook, seeds=[0, 1])
    assert run.trained == (0,)
    assert [record.seed for record in run.records] == [0, 1]
    assert run.history["train_loss"].shape == (2, 7)


def test_other_data_are_another_run(tmp_path, logbook):
    table = tmp_path / "table.csv"
    file = tmp_path / "own.json"
    file.write_text(
        json.dumps(
            SPIRALS | {"data": {"name": "file", "path": str(table), "target": "kind"}, "seeds": [0]}
        )
    )
    rng = np.random.default_rng(0)

    def write(shift):
        rows = [f"{a + shift},{b},{'yes' if a > b else 'no'}" for a, b in rng.random((40, 2))]
        table.write_text("\n".join(["a,b,kind", *rows]))

    write(0)
    nnref.run(file, logbook=logbook)
    write(1)
    run = nnref.run(file, logbook=logbook)
    assert run.trained == (0,)
    assert len(pages(logbook, "own")) == 2


# --- cut short ----------------------------------------------------------------------------------


class CutShort(listeners.Listener):
    """Dies, as by a kill, when an epoch has been written."""

    def __init__(self, epoch):
        self.epoch = epoch

    def hears(self, chunk):
        if chunk.first >= self.epoch:
            raise RuntimeError("killed")


@pytest.mark.parametrize("torn", [0, 1, 5, 13, 25])
def test_a_run_cut_short_goes_on_to_the_same_losses(file, logbook, monkeypatch, torn):
    """Also where the last line was torn in the middle of a number."""
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    whole = nnref.run(file, logbook=None)
    with pytest.raises(RuntimeError, match="killed"):
        nnref.run(file, logbook=logbook, listener=CutShort(3))
    for path in pages(logbook):
        text = path.read_text()
        path.write_text(text[: len(text) - torn])
    kept = {path: path.read_text() for path in pages(logbook)}
    run = nnref.run(file, logbook=logbook)
    for path, text in kept.items():
        assert path.read_text().startswith(text), "a page only grows"
        page = read_page(path)
        assert page.complete
        assert "continued" in page.facts
        assert page.epochs == 6
    for name in whole.history:
        np.testing.assert_array_equal(run.history[name], whole.history[name])
        np.testing.assert_array_equal(
            read_page(pages(logbook)[0]).history[name], whole.history[name][0]
        )


def test_a_page_of_other_versions_is_not_continued(file, logbook, monkeypatch):
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    with pytest.raises(RuntimeError, match="killed"):
        nnref.run(file, logbook=logbook, listener=CutShort(3))
    for path in pages(logbook):
        path.write_text(path.read_text().replace("jax ", "jax 0.0."))
    nnref.run(file, logbook=logbook)
    assert len(pages(logbook)) == 4


def test_a_page_with_other_losses_is_not_continued(file, logbook, monkeypatch):
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    with pytest.raises(RuntimeError, match="killed"):
        nnref.run(file, logbook=logbook, listener=CutShort(3))
    path = pages(logbook)[0]
    path.write_text(re.sub(r"^// 2 \S+", "// 2 0.5", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(nnref.UserError, match="come out different now.*--again"):
        nnref.run(file, logbook=logbook)


def test_a_page_being_written_is_not_touched(file, logbook):
    held = threading.Event()
    done = threading.Event()

    class Wait(listeners.Listener):
        def hears(self, chunk):
            held.set()
            done.wait(30)

    thread = threading.Thread(
        target=nnref.run, args=(file,), kwargs={"logbook": logbook, "listener": Wait()}
    )
    thread.start()
    assert held.wait(60)
    try:
        with pytest.raises(nnref.UserError, match="another process is writing this page"):
            nnref.run(file, logbook=logbook)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("resumed", [False, True])
def test_ctrl_c_finishes_the_chunk_and_the_run_goes_on(file, logbook, monkeypatch, resumed):
    """From the checkpoint that it leaves, to the same losses."""
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    whole = nnref.run(file, logbook=None)

    class Press(listeners.Listener):
        def hears(self, chunk):
            if chunk.first == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(listeners.Interrupted) as interrupted:
        nnref.run(file, logbook=logbook, listener=Press())
    assert interrupted.value.page == pages(logbook)[0]
    assert [read_page(path).epochs for path in pages(logbook)] == [2, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    trained = []

    class Hear(listeners.Listener):
        def hears(self, chunk):
            trained.append(chunk.first)

    if resumed:
        run = runs.resume(interrupted.value.page, Hear())
    else:
        run = nnref.run(file, logbook=logbook, listener=Hear())
    assert trained == [3, 4, 5, 6]
    assert all(read_page(path).complete for path in pages(logbook))
    for name in whole.history:
        np.testing.assert_array_equal(run.history[name], whole.history[name])


def test_what_has_ended_or_is_no_page_is_not_resumed(file, logbook):
    nnref.run(file, logbook=logbook)
    with pytest.raises(nnref.AlreadyRun):
        runs.resume(pages(logbook)[0])
    with pytest.raises(UserError, match="not a page of a logbook"):
        runs.resume(file)


def test_long_runs_leave_checkpoints_and_a_kill_loses_little(file, logbook, monkeypatch):
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole = nnref.run(file, logbook=None)
    with pytest.raises(RuntimeError, match="killed"):
        nnref.run(file, logbook=logbook, listener=CutShort(5))
    trained = []

    class Hear(listeners.Listener):
        def hears(self, chunk):
            trained.append(chunk.first)

    run = nnref.run(file, logbook=logbook, listener=Hear())
    assert trained == [5, 6], "epoch 5 was killed before its checkpoint"
    for name in whole.history:
        np.testing.assert_array_equal(run.history[name], whole.history[name])


# --- pages that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("worth_keeping", [0.0, 60.0], ids=["kept", "trained again"])
def test_the_network_of_a_page_is_there_afterwards(file, logbook, monkeypatch, worth_keeping):
    monkeypatch.setattr(runs, "SECONDS_WORTH_KEEPING", worth_keeping)
    run = nnref.run(file, logbook=logbook)
    assert (logbook / "small" / "checkpoints").exists() == (worth_keeping == 0)
    if worth_keeping == 0:  # what is kept must be enough
        monkeypatch.setattr(runs, "train_seeds", None)
    heard = []

    class Heard(listeners.Listener):
        def begins(self, *told):
            heard.append(told[-1])

    found = runs.trained(pages(logbook)[1], Heard())
    assert heard == (
        [] if worth_keeping == 0 else ["the network was not kept; it is trained again"]
    )
    expected = jax.tree.map(lambda leaf: leaf[1], (run.params, run.model_state))
    jax.tree.map(np.testing.assert_array_equal, (found.params, found.model_state), expected)
    assert found.experiment.seeds == (0, 1)


def test_a_checkpoint_from_before_the_end_is_not_taken_for_the_network(file, logbook, monkeypatch):
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)  # an epoch a chunk: a checkpoint at each
    run = nnref.run(file, logbook=logbook)
    [place] = (logbook / "small" / "checkpoints").iterdir()
    shutil.rmtree(max(place.iterdir()))
    found = runs.trained(pages(logbook)[0])
    expected = jax.tree.map(lambda leaf: leaf[0], run.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)


def test_a_page_without_its_network_is_refused(file, logbook, monkeypatch):
    with pytest.raises(UserError, match=r"small.json: not the page of a run that has ended"):
        runs.trained(file)
    nnref.run(file, logbook=logbook)
    page = pages(logbook)[0]
    page.write_text(re.sub("// data: .*", "// data: 0", page.read_text()))
    with pytest.raises(UserError, match="its data have changed since"):
        runs.trained(page)


def test_pages_are_told_from_other_files(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("{}\n// hello\n")
    with pytest.raises(nnref.UserError, match="not a page of a logbook"):
        read_page(other)
    other.write_text(f"{{}}\n// page {FORMAT + 1} of x\n")
    with pytest.raises(nnref.UserError, match="written by a newer nnref"):
        read_page(other)


def test_pages_of_one_run_are_in_the_order_of_their_numbers(tmp_path):
    names = ["ab-seed1.json", "ab-seed1-2.json", "ab-seed1-10.json", "ab-seed1-9.json"]
    for name in [*names, "ab-seed11.json", "abc-seed1.json", "ab-seed1.png"]:
        (tmp_path / name).touch()
    assert [path.name for path in page_paths(tmp_path, "ab", 1)] == [
        "ab-seed1.json",
        "ab-seed1-2.json",
        "ab-seed1-9.json",
        "ab-seed1-10.json",
    ]


def test_a_folder_that_cannot_be_written(file, tmp_path):
    (tmp_path / "logbook").write_text("a file, not a folder")
    with pytest.raises(nnref.UserError, match="--no-logbook"):
        nnref.run(file, logbook=tmp_path / "logbook")


# --- verdicts -----------------------------------------------------------------------------------


def record(seed, loss, ending=""):
    history = {"valid_loss": np.array([0.7, loss], np.float32)}
    return Record(seed, history, ending)


def judged(records, **changes):
    return judge(Experiment(**SPIRALS | changes), records, twin=None)


CLAIM = {"metric": "valid_loss", "at_most": 0.1, "in": 2, "of": 3}


def test_a_claim_holds_in_enough_seeds():
    verdict = judged([record(0, 0.05), record(1, 0.05), record(2, 0.5)], claim=CLAIM)
    assert verdict.held is True
    assert verdict.exit_code == 0
    assert verdict.sentence == (
        "the claim held: valid_loss <= 0.1 in 2 of 3 seeds, claimed 2 or more"
    )


def test_a_claim_does_not_hold_in_too_few():
    verdict = judged([record(0, 0.05), record(1, 0.5), record(2, 0.5)], claim=CLAIM)
    assert verdict.held is False
    assert verdict.exit_code == 1


def test_a_seed_that_diverged_never_holds():
    gone = record(1, 0.05, "diverged at epoch 1, step 3: the training loss was not finite")
    verdict = judged([record(0, 0.05), gone, record(2, 0.5)], claim=CLAIM)
    assert verdict.held is False
    assert verdict.sentence.endswith("seed 1 diverged")


def test_several_claims_must_all_hold():
    other = {"metric": "valid_loss", "at_least": 0.2, "in": 1, "of": 1}
    verdict = judged([record(0, 0.05)], claim=[CLAIM | {"in": 1, "of": 1}, other])
    assert verdict.held is False


def test_a_claim_about_other_seeds_is_not_judged():
    verdict = judged([record(0, 0.05)], claim=CLAIM)
    assert verdict.held is None
    assert verdict.exit_code == 0
    assert "the claim, about 3 seeds, was not judged" in verdict.sentence


def test_divergence_without_a_claim_is_a_failure():
    gone = record(1, np.nan, "diverged at epoch 1, step 3: the training loss was not finite")
    assert judged([record(0, 0.05), gone]).exit_code == 1


def test_divergence_names_epoch_and_step(file, logbook):
    run = nnref.run(
        file,
        logbook=logbook,
        settings={"loss": "squared_error", "optimizer": {"name": "sgd", "learning_rate": 80}},
    )
    assert run.verdict.diverged == (0, 1)
    found = re.fullmatch(
        r"diverged at epoch (\d+), step (\d+): the training loss was not finite",
        run.records[0].ending,
    )
    assert found
    steps_per_epoch = -(-len(run.task.train.x) // 8)
    assert (int(found[1]) - 1) * steps_per_epoch < int(found[2]) <= int(found[1]) * steps_per_epoch
    page = read_page(pages(logbook)[0])
    assert page.epochs == int(found[1]), "the history is kept up to there"
    assert page.facts["verdict"] == run.records[0].ending


def test_claims_about_test_data_are_measured_once_at_the_end(file, logbook):
    claim = {"metric": "test_accuracy", "at_least": 0.0, "in": 2, "of": 2}
    run = nnref.run(file, logbook=logbook, settings={"claim": claim})
    assert run.verdict.held
    assert "test_accuracy" not in run.history
    functions = run.task.functions
    for place, found in enumerate(run.records):
        params = jax.tree.map(lambda leaf, i=place: leaf[i], run.params)
        outputs, _ = functions.apply(params, {}, run.task.test.x, None, False)
        right = np.mean(np.argmax(outputs, -1) == run.task.test.y)
        assert found.final("test_accuracy") == pytest.approx(right)
    assert float(read_page(pages(logbook)[0]).facts["test_accuracy"]) == pytest.approx(
        run.records[0].test["test_accuracy"]
    )


def test_a_claim_about_an_unknown_measure_is_refused(file):
    claim = {"metric": "valid_acuracy", "at_least": 0.0, "in": 2, "of": 2}
    with pytest.raises(nnref.UserError, match='claim.0.metric.*did you mean "valid_accuracy"'):
        nnref.run(file, logbook=None, settings={"claim": claim})
    with pytest.raises(nnref.UserError, match="stop.metric"):
        nnref.run(file, logbook=None, settings={"stop": {"metric": "test_loss", "at_most": 1}})


def test_a_run_that_reached_its_target_says_so(file):
    stop = {"metric": "train_loss", "at_most": 5.0}
    run = nnref.run(file, logbook=None, settings={"stop": stop})
    assert run.records[0].ending == "stopped at epoch 1: train_loss <= 5"
    assert run.verdict.exit_code == 0


def test_an_experiment_object_runs_too():
    run = nnref.run(Experiment(**SPIRALS), logbook=None)
    assert run.history["train_loss"].shape == (2, 7)


@pytest.mark.filterwarnings("ignore::nnref.data.DataWarning")  # what data warn of is theirs
def test_shipped_experiments_name_measures_that_they_have(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(raw, "unreachable", lambda url: "the network is left alone")
    seen = set()
    for path in Path("experiments").glob("*.json"):
        if path.stem != "schema":
            experiment = read(path)
            try:
                task = setup.from_experiment(experiment)[0]
            except raw.DataMissing:
                continue  # data of the catalogue are not on every machine
            runs.check_measures(experiment, task)
            seen.add(path.stem)
    assert {"xor_small", "digits_mlp"} <= seen
