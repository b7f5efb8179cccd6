"""A stream: what comes from disk trains as what lies in memory, and goes on at the exact batch."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref
from benchmarks.torture.kills import few_images
from nnref.data import DATA, Split, Stored, catalog
from nnref.experiment.experiment import Experiment
from nnref.logbook import pages
from nnref.studies import listeners
from nnref.studies import run as runs
from nnref.training import loop, probes, stream, train
from nnref.training.setup import from_experiment

SMALL = {
    "data": {"name": "tfds", "dataset": "mnist", "valid": 0.2},
    "model": {"name": "mlp", "hidden": [8], "activation": "relu"},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.01},
    "regularization": {"dropout": 0.2},
    "clipping": {"name": "global_norm", "threshold": 1.0},
    "batch_size": 7,
    "epochs": 2,
    "seeds": [0],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """95 images in place of MNIST, 60 of them for training: nine batches, the last one short."""
    place = tmp_path_factory.mktemp("data")
    few_images(place, train=75, test=20)
    return place


@pytest.fixture(autouse=True)
def place(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stream, "GROUP_BATCHES", 3)
    return tmp_path


def experiment(streamed, **changes):
    data = SMALL["data"] | {"stream": streamed}
    return Experiment(**(SMALL | {"data": data} | changes))


def same(ours, theirs, rtol=0.0):
    assert list(ours) == list(theirs)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, err_msg=name)


class Hear(listeners.Listener):
    """Hears every group of batches, and may do something in the midst of an epoch."""

    def __init__(self, epoch=None, share=0.0, act=None):
        self.epoch, self.share, self.act = epoch, share, act
        self.chunks = []

    def hears(self, chunk):
        self.chunks.append((chunk.first, round(chunk.share, 3), len(chunk.active)))
        if self.act and chunk.first == self.epoch and chunk.share > self.share:
            self.act()


CHANGES = {
    "dropout, clipping, two seeds": {"seeds": [0, 1]},
    "normalized, patient": {
        "regularization": {"normalization": "batch"},
        "stop": {"metric": "train_loss", "patience": 1},
        "evaluate_every": 2,
        "optimizer": {"name": "sgd", "learning_rate": 0.5},
        "epochs": 6,
    },
    "LSUV, one batch": {
        "model": {"name": "mlp", "hidden": [8], "kernel_initializer": "lsuv"},
        "batch_size": 100,
    },
    "unshuffled, stopped": {
        "shuffle": False,
        "batch_size": 30,
        "stop": {"metric": "train_accuracy", "at_least": 0.2},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "epochs": 9,
        "seeds": [0, 1],  # which do not stop at the same epoch
    },
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_stream_gives_the_losses_of_memory(changes):
    from_memory = nnref.run(experiment(False, **changes), logbook=None)
    hear = Hear()
    from_disk = nnref.run(experiment(True, **changes), logbook=None, listener=hear)
    assert hear.chunks[-1][0] == max(record.epochs for record in from_memory.records)
    assert from_memory.records[0].epochs > 1
    for ours, theirs in zip(from_disk.records, from_memory.records, strict=True):
        assert (ours.ending, ours.kept) == (theirs.ending, theirs.kept)
        # Batches come in other programs, which may round differently.
        same(ours.history, theirs.history, rtol=1e-5)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6),
        from_disk.params,
        from_memory.params,
    )


def test_a_state_that_goes_on_from_batch_to_batch_starts_anew_with_each_epoch():
    """The state counts the rows that it has seen."""
    functions = train.Functions(
        init=lambda key: (jnp.float32(1), jnp.int32(0)),
        apply=lambda params, seen, x, key, train: (params * x, seen + len(x)),
        loss=lambda outputs, y: jnp.mean((outputs - y) ** 2),
        restart=lambda params, seen: jnp.int32(100),
    )
    optimizer = optax.sgd(0.1)
    setup = lambda numbers: (functions, optimizer)  # noqa: E731
    state, _ = train.start(setup, train.Plan(3, 1), {}, 0, {})
    group = Split(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    for number, seen in ((1, 106), (3, 112), (5, 118), (1, 106)):
        state, sums = stream.train_group(setup, train.Plan(3, 1), {}, state, 1, number, group)
        assert state.model_state == seen
        assert sums["examples"].tolist() == [3, 3]


def test_a_stream_starts_as_memory_does(monkeypatch):
    """With LSUV on some rows, and measures of all: the best one is what `stop` begins with."""
    monkeypatch.setattr(train, "LSUV_ROWS", 16)
    changes = {
        "model": {"name": "mlp", "hidden": [8], "kernel_initializer": "lsuv"},
        "stop": {"metric": "train_loss", "patience": 2},
        "batch_size": 13,
    }
    memory, disk = (from_experiment(experiment(streamed, **changes)) for streamed in (False, True))
    plan = runs.plan_of(experiment(True, **changes))
    ours, row = stream.begin(disk[1], plan, {}, [3], disk[0], disk[0].stored)
    theirs, expected = loop.start_runs(memory[1], plan, {}, np.uint32([3]), memory[0].arrays)
    same({n: v[0] for n, v in row.items()}, expected, rtol=1e-5)  # other programs, other rounding
    assert ours.best == row["train_loss"]
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


# --- going on -----------------------------------------------------------------------------------


def press():
    os.kill(os.getpid(), signal.SIGINT)


def kill():
    raise RuntimeError("killed")


@pytest.mark.parametrize("act", [press, kill], ids=["Ctrl-C", "killed"])
def test_a_run_goes_on_at_the_exact_batch(place, monkeypatch, act):
    """In the second epoch of the second seed; its nine batches come as 3, 3, 2 and a short one."""
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0 if act is kill else 99.0)
    monkeypatch.setattr(probes, "FREE", 9)  # layers are measured before every epoch
    two = experiment(True, seeds=[0, 1], epochs=3)
    whole = nnref.run(two, logbook=place / "whole")
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        nnref.run(two, logbook=place / "log", listener=Hear(2, 0.8, act))
    begun = []
    batches = stream.batches

    def seen(stored, order, batch_size, first, own):
        begun.append(first)
        return batches(stored, order, batch_size, first, own)

    monkeypatch.setattr(stream, "batches", seen)
    hear = Hear()
    run = nnref.run(two, logbook=place / "log", listener=hear)
    # A kill comes before the checkpoint of its chunk: the group before is the last one kept.
    done = 6 if act is press else 3
    assert begun == [done, 0, 0]
    then = 8 if act is press else 6
    assert hear.chunks[0] == (2, round((1 + then / 9) / 2, 3), 0)
    same(run.history, whole.history)
    jax.tree.map(np.testing.assert_array_equal, run.params, whole.params)
    for ours, theirs in zip(run.records, whole.records, strict=True):
        layers, expected = (pages.probe_table(record.page) for record in (ours, theirs))
        assert expected["epoch"].tolist() == [0, 1, 2]
        assert layers.tobytes() == expected.tobytes()


def test_the_network_of_a_streamed_page_is_there_afterwards(place, monkeypatch):
    monkeypatch.setattr(runs, "SECONDS_WORTH_KEEPING", 0.0)
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    run = nnref.run(experiment(True, epochs=2), logbook=place / "log")
    monkeypatch.setattr(runs, "train_seeds", None)
    found = runs.trained(run.records[0].page)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_array_equal(ours, theirs[0]),
        found.params,
        run.params,
    )


def test_a_stream_is_refused_by_the_loop_for_arrays():
    task, setup, _ = from_experiment(experiment(True))
    with pytest.raises(AssertionError, match=r"stream\.fit"):
        next(loop.fit(setup, runs.plan_of(experiment(True)), {}, [0], task))


# --- batches ------------------------------------------------------------------------------------


def stored(rows=20):
    x = np.arange(rows * 3).reshape(rows, 3)
    return Stored(rows, lambda numbers: Split(x[numbers], -numbers), "")


@pytest.mark.parametrize("first", [0, 2, 5, 6])
def test_batches_come_in_order_and_the_last_one_is_short(first):
    order = np.random.default_rng(0).permutation(20)[:17]
    found = list(stream.batches(stored(), order, 3, first))
    assert [len(batch.x) for batch in found] == [3, 3, 3, 3, 3, 2][first:]
    rows = order[3 * first :]
    np.testing.assert_array_equal([y for batch in found for y in batch.y], -rows)
    np.testing.assert_array_equal([x[0] for batch in found for x in batch.x], 3 * rows)


@pytest.mark.parametrize(
    ("most", "shapes"),
    [
        (2**26, [(3, 3, 3), (2, 3, 3), (1, 2, 3)]),
        (100, [(2, 3, 3), (2, 3, 3), (1, 3, 3), (1, 2, 3)]),  # of 72 bytes each
        (1, [(1, 3, 3)] * 5 + [(1, 2, 3)]),
    ],
)
def test_groups_hold_batches_of_one_size_and_no_more_than_fit(monkeypatch, most, shapes):
    monkeypatch.setattr(stream, "GROUP_BYTES", most)
    found = list(stream.groups(stream.batches(stored(), np.arange(17), 3)))
    assert [group.x.shape for group in found] == shapes
    assert [group.y.shape for group in found] == [shape[:2] for shape in shapes]
    np.testing.assert_array_equal(np.concatenate([-g.y.ravel() for g in found]), np.arange(17))


def test_what_reading_refuses_is_said():
    def refuse(rows):
        raise nnref.UserError("data: torn")

    with pytest.raises(nnref.UserError, match="data: torn"):
        list(stream.batches(Stored(5, refuse, ""), np.arange(5), 2))


# --- data on disk -------------------------------------------------------------------------------


def test_rows_on_disk_are_those_of_memory():
    memory = DATA["tfds"](dataset="mnist", valid=0.2)
    disk = DATA["tfds"](dataset="mnist", valid=0.2, stream=True)
    assert disk.stored is not None
    assert disk.rows == disk.stored.rows == memory.rows == 60
    assert memory.stored is None
    rows = np.array([5, 0, 59, 5])
    for ours, theirs in zip(disk.stored.read(rows), memory.train, strict=True):
        np.testing.assert_array_equal(ours, theirs[rows])
        assert ours.dtype == theirs.dtype
    for name in ("valid", "test"):
        for ours, theirs in zip(disk.splits[name], memory.splits[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_the_fingerprint_of_a_stream_knows_what_is_read():
    prints = {
        DATA["tfds"](dataset="mnist", stream=True, **keys).fingerprint
        for keys in ({}, {"seed": 1}, {"standardized": False}, {"valid": 0.2}, {"valid": 0.3})
    }
    assert len(prints) == 5
    assert DATA["tfds"](dataset="mnist", stream=True).fingerprint in prints


def test_the_fingerprint_knows_more_than_the_rows_that_were_looked_at():
    disk = DATA["tfds"](dataset="mnist", stream=True)
    other = dataclasses.replace(disk, stored=disk.stored._replace(digest="another"))
    assert other.fingerprint != disk.fingerprint


def test_only_some_rows_stand_for_a_stream(monkeypatch):
    monkeypatch.setattr(catalog, "LOOKED_AT", 20)
    disk = DATA["tfds"](dataset="mnist", valid=0.2, stream=True)
    memory = DATA["tfds"](dataset="mnist", valid=0.2)
    np.testing.assert_array_equal(disk.train.x, memory.train.x[::3])
    np.testing.assert_allclose(disk.train.x.mean(), 0, atol=1e-6)
    monkeypatch.setattr(catalog, "NUMBERS", 10 * 28 * 28)
    assert len(DATA["tfds"](dataset="mnist", valid=0.2, stream=True).train.x) == 10


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_data_beyond_half_the_memory_stay_on_disk(monkeypatch, share):
    half = 75 * 28 * 28 * 4
    sizes = {"SC_PHYS_PAGES": int(2 * half / share), "SC_PAGE_SIZE": 1}
    monkeypatch.setattr(catalog.os, "sysconf", sizes.get)
    made = DATA["tfds"](dataset="mnist")
    assert (made.stored is not None) == (share > 1)
