"""When layers are measured: held against the same computed outside of the program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnref.data import Split, Stored
from nnref.experiment.experiment import Experiment
from nnref.logbook.pages import probes_of, probes_path, read_page
from nnref.studies import listeners
from nnref.studies import run as runs
from nnref.training import loop, probes, stream, train
from nnref.training.setup import from_experiment
from nnref.training.task import Task

MLP = {"name": "mlp", "hidden": [6, 5], "activation": "tanh"}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Measurements may cost what they will."""
    monkeypatch.setattr(probes, "FREE", 1)


def experiment(**changes):
    keys = {
        "data": {"name": "spirals", "points": 90},
        "model": MLP,
        "loss": "softmax_cross_entropy",
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "batch_size": 16,
        "epochs": 3,
    }
    return Experiment(**keys | changes)


def chunks_of(experiment, seeds=(0,), **changes):
    task, setup, _ = from_experiment(experiment)
    plan = runs.plan_of(experiment)._replace(**changes)
    return list(loop.fit(setup, plan, experiment.hyperparameters, seeds, task))


def losses(chunks):
    return np.concatenate([chunk.history["train_loss"] for chunk in chunks])


# --- within the program -------------------------------------------------------------------------


def norm(*arrays):
    return np.sqrt(sum(np.sum(np.square(np.asarray(a, np.float64))) for a in arrays))


def test_an_epoch_begins_with_its_measures():
    given = experiment(probes="epoch", batch_size=2, epochs=2)
    task, setup, _ = from_experiment(given)
    (start, *chunks), functions = chunks_of(given), task.functions
    told = np.concatenate([chunk.probes["epoch"] for chunk in chunks])[:, 0]
    assert told.shape == (2, len(probes.MEASURES), 3)
    assert not np.isnan(told[:, :4]).any()
    assert start.probes == {}
    # Before the first epoch the states are those of the start.
    seeds, data = np.uint32([0]), jax.device_put(task.arrays)
    states, _ = loop.start_runs(setup, runs.plan_of(given), given.hyperparameters, seeds, data)
    params = jax.tree.map(lambda leaf: leaf[0], states.params)
    rows = probes.spread_rows(len(task.train.x), 2)
    assert rows.tolist() == [0, len(task.train.x) // 2]
    x, y = (part[rows] for part in task.train)

    def loss(params):
        return functions.loss(functions.apply(params, {}, x, None, False)[0], y)

    grads = jax.grad(loss)(params)
    for layer in range(3):
        w, g = (list(jax.tree.leaves(tree["layers"][layer])) for tree in (params, grads))
        gradient_norm, weight_norm, update_ratio, dead, _ = told[0, :, layer]
        assert gradient_norm == pytest.approx(norm(*g), rel=1e-5)
        assert weight_norm == pytest.approx(norm(*w), rel=1e-5)
        assert update_ratio == pytest.approx(0.1 * norm(*g) / norm(*w), rel=1e-5)
        assert dead == 0
    assert np.isnan(told[:, 4, 2]).all(), "the last layer has no activation"
    assert (told[:, 4, :2] == 0).all()
    # Behind a tanh of large sums everything is saturated, and units that see one sign are dead.
    large = jax.tree.map(lambda leaf: 1e3 * leaf + 1e6, params)
    shares = probes.of_outputs(large, functions.layers(large, {}, x))
    np.testing.assert_array_equal(shares, [[1, 1, 1], [1, 1, np.nan]])


def test_every_step_is_measured_as_it_is_made():
    given = experiment(probes="step", optimizer={"name": "sgd", "learning_rate": 0.1})
    task, setup, _ = from_experiment(given)
    chunks = chunks_of(given)[1:]
    of_steps = np.concatenate([chunk.probes["step"] for chunk in chunks])[:, 0]
    assert of_steps.shape == (3, setup.steps_per_epoch, len(probes.OF_STEP), 3)
    gradient_norm, weight_norm, update_ratio = np.moveaxis(of_steps, 2, 0)
    np.testing.assert_allclose(update_ratio, 0.1 * gradient_norm / weight_norm, rtol=1e-5)
    assert len(np.unique(gradient_norm)) > 3 * setup.steps_per_epoch, "no two batches are alike"
    shares = np.concatenate([chunk.probes["epoch"] for chunk in chunks])
    assert shares.shape == (3, 1, len(probes.OF_OUTPUTS), 3)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_measuring_changes_nothing(seeds):
    plain, *others = (losses(chunks_of(experiment(), seeds, probes=p)) for p in PROBES)
    for other in others:
        np.testing.assert_allclose(other, plain, rtol=1e-6)


PROBES = ("off", "epoch", "step")


def test_dropout_draws_no_other_masks_where_layers_are_measured():
    given = experiment(regularization={"dropout": 0.5})
    plain, measured = (losses(chunks_of(given, probes=p)) for p in ("off", "epoch"))
    np.testing.assert_allclose(measured, plain, rtol=1e-6)


def test_what_is_not_due_is_left_out(monkeypatch):
    monkeypatch.setattr(probes, "MOST", 2)
    given = experiment(epochs=14, batch_size=1000)
    chunks = chunks_of(given)[1:]
    told, at = (np.concatenate([c.probes[name] for c in chunks]) for name in ("epoch", "at"))
    assert at.tolist() == [1, 8]
    assert told.shape == (2, 1, len(probes.MEASURES), 3)
    assert (told[:, 0, 0] > 0).all()
    table = probes.table(["a", "b", "c"], 1, 1, at, told[:, 0])
    assert table["step"].tolist() == [0, 7]
    assert table["b"]["gradient_norm"].tolist() == told[:, 0, 0, 1].tolist()
    assert table["a"]["dead"].tolist() == told[:, 0, 3, 0].tolist()


def test_layers_of_plain_functions_are_measured_too():
    functions = train.Functions(
        init=lambda key: ({"w": jnp.ones(2)}, {}),
        apply=lambda params, state, x, key, train: (x @ params["w"], state),
        loss=lambda outputs, y: jnp.mean((outputs - y) ** 2),
    )
    x = np.eye(2, dtype=np.float32)
    setup, task = Plain(functions), Task(functions, Split(x, np.zeros(2, np.float32)))
    plan = train.Plan(2, 1, probes="epoch")
    chunk = list(loop.fit(setup, plan, {}, [0], task))[-1]
    figures = chunk.probes["epoch"][0, 0, :, 0]
    np.testing.assert_allclose(figures[:3], [np.sqrt(2), np.sqrt(2), 0.5], rtol=1e-6)
    assert np.isnan(figures[3:]).all()


class Plain:
    """A setup of plain functions under gradient descent."""

    def __init__(self, functions):
        self.functions = functions

    def __call__(self, numbers):
        return self.functions, optax.sgd(0.5)


# --- streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes_", ["epoch", "step"])
def test_rows_from_disk_are_measured_like_those_in_memory(probes_):
    given = experiment(probes=probes_, batch_size=2)
    task, setup, _ = from_experiment(given)
    rows = len(task.train.x)
    stored = Stored(rows, lambda rows: Split(*(part[rows] for part in task.train)), "digest")
    plan = runs.plan_of(given)
    streamed = list(
        stream.fit(
            setup,
            plan,
            given.hyperparameters,
            [0, 1],
            Task(task.functions, task.train, task.valid, stored=stored),
        )
    )
    told = {}
    for name, chunks in (("stream", streamed), ("memory", chunks_of(given, (0, 1)))):
        tables = [
            probes.table(["a", "b", "c"], c.first, setup.steps_per_epoch, c.probes["at"], *values)
            for c in chunks
            if c.probes
            for values in [[c.probes[k][:, 1] for k in ("epoch", "step") if k in c.probes]]
        ]
        told[name] = np.concatenate(tables)
    assert len(told["stream"]) == 3 * (setup.steps_per_epoch if probes_ == "step" else 1)
    for field in ("gradient_norm", "weight_norm", "update_ratio", "dead"):
        streamed, kept = told["stream"]["b"][field], told["memory"]["b"][field]
        np.testing.assert_allclose(streamed, kept, rtol=1e-4)


# --- beside the page ----------------------------------------------------------------------------


class Stops(listeners.Listener):
    """Presses Ctrl-C, so to speak, after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def hears(self, chunk):
        if chunk.first + len(chunk.active) > self.epoch:
            raise KeyboardInterrupt


def page_of(folder):
    (path,) = folder.rglob("*-seed0.json")
    return read_page(path)


def test_measures_lie_beside_the_page(tmp_path):
    runs.run(experiment(batch_size=2, seeds=[0, 1]), logbook=tmp_path)
    told = probes_of(page_of(tmp_path))
    assert told["layers"].tolist() == ["layers.0", "layers.1", "layers.2"]
    assert told["epoch"].tolist() == [0, 1, 2]
    assert set(told) == {"step", "epoch", "layers", *probes.MEASURES}
    for measure in probes.MEASURES:
        assert told[measure].shape == (3, 3)
    assert not list(tmp_path.rglob("*.half"))


def test_without_probes_there_is_nothing_beside_the_page(tmp_path):
    runs.run(experiment(probes="off"), logbook=tmp_path)
    assert probes_of(page_of(tmp_path)) is None
    probes_path(page_of(tmp_path).path).write_text("something else")
    assert probes_of(page_of(tmp_path)) is None
    np.save(probes_path(page_of(tmp_path).path), np.ones(3))
    assert probes_of(page_of(tmp_path)) is None


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_run_that_goes_on_has_the_measures_of_one_without_a_break(
    tmp_path, monkeypatch, checkpoints
):
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    if checkpoints:
        monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    given = experiment(batch_size=2, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        runs.run(given, logbook=tmp_path / "broken", listener=Stops(3))
    assert (probes_of(page_of(tmp_path / "broken")) is not None) == checkpoints
    for folder in ("broken", "whole"):
        runs.run(given, logbook=tmp_path / folder)
    broken, whole = (probes_of(page_of(tmp_path / folder)) for folder in ("broken", "whole"))
    for name, values in whole.items():
        np.testing.assert_array_equal(broken[name], values)
