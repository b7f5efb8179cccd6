"""Trackers of runs; event files, read back as TensorBoard frames them."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from nnref.cli import grammar, main
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.report.sinks import TRACKERS, TensorBoardListener
from nnref.studies import run as runs
from nnref.training.loop import Chunk

event_pb2 = pytest.importorskip(
    "tensorboardX.proto.event_pb2", reason="needs tensorboardX: pip install nnref[tensorboard]"
)

EXPERIMENT = {
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
    "batch_size": 4,
    "epochs": 3,
    "seeds": [0, 1],
}


def events(folder):
    """The events of all files of a folder: records of length, its checksum, bytes, theirs."""
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def scalars(folder):
    """`{tag: {step: value}}`."""
    told = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                told.setdefault(value.tag, {})[event.step] = value.simple_value
    return told


def test_every_measure_of_every_epoch_is_written(tmp_path):
    listener = TensorBoardListener(tmp_path, "some")
    run = runs.run(Experiment(**EXPERIMENT), logbook=None, listener=listener)
    for place, seed in enumerate((0, 1)):
        (folder,) = (tmp_path / "some").glob(f"{run.experiment.identity}-seed{seed}")
        told = scalars(folder)
        for name, values in run.history.items():
            split, _, measure = name.partition("_")
            assert told[f"{measure}/{split}"] == dict(enumerate(values[place].tolist()))
            assert told[f"final/{name}"] == {0: values[place, -1]}


def test_settings_stand_beside_the_last_figures(tmp_path):
    listener = TensorBoardListener(tmp_path, "some")
    runs.run(Experiment(**EXPERIMENT), logbook=None, listener=listener)
    values = [
        value
        for folder in (tmp_path / "some").iterdir()
        for event in events(folder)
        for value in event.summary.value
    ]
    started = next(v for v in values if v.tag == "_hparams_/session_start_info")
    told = started.metadata.plugin_data.content
    for word in (b"optimizer.learning_rate", b"sgd", b"model.hidden", b"[4]"):
        assert word in told
    assert "experiment" in {v.tag.split("/")[0] for v in values}


def test_what_comes_after_the_end_of_a_seed_is_left_out(tmp_path):
    listener = TensorBoardListener(tmp_path, "some")
    listener.begins(Experiment(**EXPERIMENT), [0, 1], 1, "")
    nan = float("nan")
    losses = np.array([[1, 2], [3, 4]], np.float32)
    history = {"train_loss": losses, "valid_loss": np.array([[nan, 5], [6, 7]], np.float32)}
    active = np.array([[True, True], [False, True]])
    listener.hears(Chunk(4, history, active, np.zeros((2, 2), int), None))
    listener.ends()
    first, second = (scalars(path) for path in sorted((tmp_path / "some").iterdir()))
    assert first == {"loss/train": {4: 1}, "final/train_loss": {0: 1}}
    assert second["loss/train"] == {4: 2, 5: 4}
    assert second["loss/valid"] == {4: 5, 5: 7}


def test_the_command_writes_them_beside_the_pages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("small.json").write_text(json.dumps(EXPERIMENT))
    assert main(["run", "small.json", "--tensorboard", "events"]) == 0
    assert len(list(Path("events/small").iterdir())) == 2
    assert len(list(Path("logbook/small").glob("*.json"))) == 2
    assert "pages" in capsys.readouterr().out


def test_without_tensorboardx_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"nnref\[tensorboard\]"):
        TensorBoardListener(tmp_path, "some")


# --- trackers, each with what it has on disk read back ------------------------------------------


def trackio_figures(folder, run):
    from trackio.sqlite_storage import SQLiteStorage

    assert list(folder.glob("some*"))
    return {row["step"]: row["train_loss"] for row in SQLiteStorage.get_logs("some", run)}


def mlflow_figures(folder, run):
    from mlflow import MlflowClient

    client = MlflowClient()
    place = client.get_experiment_by_name("some").experiment_id
    (found,) = (each for each in client.search_runs([place]) if each.info.run_name == run)
    assert found.data.params["optimizer.name"] == "sgd"
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "train_loss")
    return {each.step: each.value for each in history}


def wandb_figures(folder, run):
    """Offline it leaves a file for each run, of records as LevelDB frames them."""
    from wandb.proto.wandb_internal_pb2 import Record

    figures = {}
    for path in folder.rglob("*.wandb"):
        data, records = path.read_bytes()[7:], []
        assert len(data) < 2**15, "longer files have blocks"
        while data:
            (length,) = struct.unpack("<H", data[4:6])
            records.append(Record.FromString(data[7 : 7 + length]))
            data = data[7 + length :]
        if run in [record.run.display_name for record in records]:
            for record in records:
                row = {(*item.nested_key, item.key)[0]: item for item in record.history.item}
                if "train_loss" in row:
                    figures[int(row["_step"].value_json)] = float(row["train_loss"].value_json)
    return figures


FIGURES = {"trackio": trackio_figures, "mlflow": mlflow_figures, "wandb": wandb_figures}


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.filterwarnings("ignore")
def test_a_tracker_gets_the_figures_of_each_seed(tracker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    pytest.importorskip(tracker)
    run = runs.run(Experiment(**EXPERIMENT), logbook=None, listener=TRACKERS[tracker]("some"))
    for place, seed in enumerate((0, 1)):
        told = FIGURES[tracker](tmp_path, f"{run.experiment.identity}-seed{seed}")
        losses = run.history["train_loss"][place]
        assert told == pytest.approx({e: v for e, v in enumerate(losses) if not np.isnan(v)})


def test_the_command_takes_the_trackers_that_there_are(monkeypatch, capsys, tmp_path):
    assert list(TRACKERS) == list(grammar.TRACKERS)
    monkeypatch.chdir(tmp_path)
    Path("small.json").write_text(json.dumps(EXPERIMENT))
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["run", "small.json", "--track", "wandb"]) == 2
    assert "nnref[wandb]" in capsys.readouterr().err
