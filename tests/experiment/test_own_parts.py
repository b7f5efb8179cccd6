"""Parts of a user's own through every command: resumed, swept, compared, reported, diagnosed."""

import json

import numpy as np
import pytest
from commands import call

import nnref
from nnref.experiment.schema import reference_model
from nnref.experiment.sources import SOURCES
from nnref.studies.listeners import Interrupted, Listener
from nnref.studies.run import resume

CODE = """
import jax.numpy as jnp
import numpy as np
from flax import nnx

def rows(count: int = 40):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    return {"train": (x, x[:, :1]), "valid": (-x[:10], -x[:10, :1])}

class Net(nnx.Module):
    def __init__(self, outputs, width: int = 4, *, rngs):
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.last = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))

class Whole(Net):
    def __call__(self, x):
        return jnp.round(super().__call__(x))

def error(outputs, y):
    return (outputs - y) ** 2
"""
CONTENT = {
    "data": "mine.py:rows",
    "model": "mine.py:Net",
    "loss": "mine.py:error",
    "optimizer": {"name": "optax:lamb", "learning_rate": 0.02},
    "batch_size": 10,
    "epochs": 6,
    "seeds": [0, 1],
}
TWO_NETS = ["mine.py:Net", {"name": "mine.py:Net", "width": 9}]
TWO_RULES = [CONTENT["optimizer"], {"name": "optax:adamw", "learning_rate": 0.02}]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes an experiment file beside the code that it names; it is run from another folder."""
    (tmp_path / "files").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "files" / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(**changes):
        path = tmp_path / "files" / "own.json"
        path.write_text(json.dumps(CONTENT | changes))
        return str(path)

    return write


def another_process(folder, *files):
    """What is known of files is forgotten, and the files are changed."""
    SOURCES.clear()
    reference_model.cache_clear()
    for file in files:
        (folder / "files" / file).write_text("raise ValueError")


class Stops(Listener):
    """Ctrl-C after the first epochs."""

    def hears(self, chunk):
        import signal

        signal.raise_signal(signal.SIGINT)


def test_a_run_goes_on_with_the_code_it_began_with(own, tmp_path, monkeypatch):
    monkeypatch.setattr("nnref.training.loop.SECONDS_PER_CHUNK", 0.0, raising=False)
    path = own(epochs=40)
    whole = nnref.run(path, logbook="whole")
    with pytest.raises(Interrupted) as stopped:
        nnref.run(path, logbook="cut", listener=Stops())
    another_process(tmp_path, "mine.py")
    page = stopped.value.page
    text = page.read_text()
    assert "all_seeds" not in text
    done = resume(page)
    for name, values in whole.history.items():
        np.testing.assert_array_equal(done.history[name], values)


def test_a_sweep_over_nets_and_rules_keeps_them_apart(own, capsys):
    sweep = {"axes": {"model": TWO_NETS, "optimizer": TWO_RULES}}
    code, out, err = call(capsys, "sweep", own(sweep=sweep), "--dry-run", "--json")
    assert code == 0, err
    groups = [each["settings"] for each in json.loads(out)["groups"]]
    assert sorted(each.count("width 9") + 2 * each.count("optax:adamw") for each in groups) == [
        *range(4)
    ]


@pytest.mark.slow
def test_alternatives_of_ones_own_are_compared(own, capsys, tmp_path):
    (tmp_path / "files" / "other.py").write_text(CODE)
    sweep = {
        "axes": {
            "model": ["mine.py:Net", "other.py:Whole"],
            "optimizer.learning_rate": {"log_grid": [0.01, 0.1, 2]},
        },
        "compare": "model",
        "fresh": 10,
    }
    path = own(sweep=sweep, seeds=[0], epochs=2)
    code, out, err = call(capsys, "ablate", path, "--json")
    assert code == 0, err
    names = [each["name"] for each in json.loads(out)["alternatives"]]
    assert names == ["mine.py:Net", "other.py:Whole"]
    folder = tmp_path / "here" / "logbook" / "own"
    assert {path.name.partition(".")[0] for path in (folder / "sources").iterdir()} == {
        "mine",
        "other",
    }
    another_process(tmp_path, "mine.py", "other.py")
    code, out, err = call(capsys, "report", str(next(folder.glob("sweep-*.json"))))
    assert code == 0, err
    assert "other.py:Whole" in (tmp_path / "here" / "report.html").read_text()


def test_an_edit_makes_another_sweep(own, tmp_path):
    from nnref.studies.sweep_record import plan_sweep

    axes = {"model": ["other.py:Net", "other.py:Whole"]}
    (tmp_path / "files" / "other.py").write_text(CODE)
    first = plan_sweep(path := own(sweep={"axes": axes})).identity
    assert plan_sweep(path).identity == first
    (tmp_path / "files" / "other.py").write_text(CODE + "# edited\n")
    assert plan_sweep(path).identity != first


@pytest.mark.slow
def test_a_network_of_ones_own_is_diagnosed_predicts_and_is_reported(own, capsys, tmp_path):
    code, out, err = call(
        capsys, "diagnose", own(model="mine.py:Whole", seeds=[0]), "--json", "--effort", "0.1"
    )
    assert code == 1, err
    assert json.loads(out)["found"][0]["cause"] == "gradient_blocked"
    path = own(epochs=30, seeds=[0])
    assert call(capsys, "run", path)[0] == 0
    np.savez("rows.npz", x=np.eye(3))
    another_process(tmp_path, "mine.py")
    code, out, err = call(capsys, "predict", "own", "rows.npz")
    assert code == 0, err
    assert len(out.splitlines()) == 3
    code, out, err = call(capsys, "report", "own")
    assert code == 0, err
    assert "mine.py:Net" in (tmp_path / "here" / "report.html").read_text()
