"""Runs and their logbook: what is written, read back, repeated, continued and refused."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from small import SPIRALS, pages

import nnref
from nnref.data import raw
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment, read
from nnref.logbook.pages import read_page
from nnref.studies import listeners
from nnref.studies import run as runs
from nnref.training import loop, setup

CONTENT = SPIRALS  # of `file`, on two seeds


def test_a_page_run_again_gives_the_same_losses(file, logbook):
    run = nnref.run(file, logbook=logbook)
    again = nnref.run(pages(logbook)[1], logbook=logbook, again=True)
    assert again.name == "small"
    assert [record.seed for record in again.records] == [1]
    for name in run.history:
        np.testing.assert_array_equal(again.history[name][0], run.history[name][1])


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


def test_a_lost_page_is_repeated_with_those_that_it_was_trained_with(file, logbook):
    run = nnref.run(file, logbook=logbook)
    pages(logbook)[1].unlink()
    again = nnref.run(file, logbook=logbook)
    assert again.trained == (0, 1)
    assert len(pages(logbook)) == 2
    for name in run.history:
        np.testing.assert_array_equal(again.history[name], run.history[name])


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


# --- pages that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("worth_keeping", [0.0, 60.0], ids=["kept", "trained again"])
def test_the_network_of_a_page_is_there_afterwards(file, logbook, monkeypatch, worth_keeping):
    monkeypatch.setattr(runs, "SECONDS_WORTH_KEEPING", worth_keeping)
    run = nnref.run(file, logbook=logbook, keep=False)
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
    other = re.sub("// data: .*", "// data: 0", page.read_text())
    page.write_text(re.sub("// sha256: .*\n", "", other))
    with pytest.raises(UserError, match="its data have changed since"):
        runs.trained(page)


# --- verdicts -----------------------------------------------------------------------------------


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


def test_a_model_of_ones_own_that_is_left_in_evaluation_mode_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "still.py").write_text(
        "from flax import nnx\n"
        "def net(inputs, outputs, rngs):\n"
        "    layers = [nnx.Linear(inputs[0], 8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)]\n"
        "    made = nnx.Sequential(*layers, nnx.Linear(8, outputs, rngs=rngs))\n"
        "    made.eval()\n"
        "    return made\n"
    )
    settings = {"model": {"name": "still.py:net"}}
    with pytest.warns(UserWarning, match=r"model: built in evaluation .*: layers.1 \(Dropout\);"):
        nnref.run("xor_small", settings=settings, epochs=2, seeds=[0], logbook=None)
