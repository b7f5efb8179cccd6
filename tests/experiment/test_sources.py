"""Parts of a user's own, named in an experiment file."""

import inspect
import json

import numpy as np
import optax
import pytest

import nnref
from nnref.experiment.experiment import read
from nnref.experiment.sources import digest_of, settings_of, type_of

CODE = """
import numpy as np
from flax import nnx

def rows(count: int = 20):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    return x, x[:, :1]

class Net(nnx.Module):
    def __init__(self, outputs, width: int = 4, *, rngs):
        self.layer = nnx.Linear(3, outputs, rngs=rngs)

    def __call__(self, x):
        return self.layer(x)

def error(outputs, y, *, power: float = 2.0):
    return abs(outputs - y) ** power
"""
CONTENT = {
    "data": {"name": "mine.py:rows", "count": 12},
    "model": "mine.py:Net",
    "loss": "mine.py:error",
    "optimizer": {"name": "optax:lamb", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 3,
}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)

    def write(**changes):
        path = tmp_path / "own.json"
        path.write_text(json.dumps(CONTENT | changes, indent=1))
        return path

    return write


def mistake(path):
    with pytest.raises(nnref.UserError) as told:
        read(path)
    return str(told.value)


def test_the_signature_is_the_schema(file):
    told = mistake(file(model={"name": "mine.py:Net", "widht": 3}))
    assert "model.widht (line 8): unknown key; allowed: width; did you mean" in told
    told = mistake(file(model={"name": "mine.py:Net", "width": 2.5}))
    assert "model.width (line 8): 2.5 given; allowed is a whole number" in told
    told = mistake(file(optimizer="optax:lamb"))
    assert "optimizer.learning_rate (line 8): missing" in told
    assert 'did you mean "Net"' in mistake(file(model="mine.py:Nett"))
    assert "there is no file their.py" in mistake(file(data="their.py:rows"))


@pytest.mark.parametrize("arguments", ["params, batch, key", "model, x, y", "outputs, y, key"])
def test_a_loss_that_calls_the_network_is_for_a_task(file, tmp_path, arguments):
    path = file()
    (tmp_path / "mine.py").write_text(f"{CODE}\ndef error({arguments}):\n    return 0\n")
    told = mistake(path)
    assert "loss (line 7)" in told
    assert f"a loss of ({arguments}) calls the network itself, which nnref.Task allows" in told


def test_a_file_that_raises_says_where(file, tmp_path):
    path = file()
    (tmp_path / "mine.py").write_text("x = 1\n1 / 0\n")
    assert "mine.py:2: ZeroDivisionError" in mistake(path)


def test_an_edit_makes_another_experiment(file, tmp_path):
    path = file()
    first = read(path)
    assert read(path).identity == first.identity
    assert first.model.digest == digest_of(CODE)
    (tmp_path / "mine.py").write_text(CODE + "\n# another\n")
    assert read(path).identity != first.identity


def test_the_variants_of_a_sweep_name_files_beside_it(file):
    axes = {"model": ["mine.py:Net", {"name": "mine.py:Net", "width": 9}]}
    done = nnref.sweep(file(sweep={"axes": axes}, data="mine.py:rows"), logbook=None)
    assert len(done.variants) == 2
    assert np.isfinite(done.final(done.ranking[0]))


def test_only_a_rate_is_an_argument_of_the_program(file):
    assert read(file()).hyperparameters == {"optimizer.learning_rate": 0.5}


def test_a_file_that_nobody_names_is_not_imported(file, tmp_path):
    path = file(data="xor", model={"name": "mlp", "hidden": [2]}, loss="squared_error")
    (tmp_path / "mine.py").write_text("1 / 0")
    read(path)


def test_settings_are_what_training_does_not_pass():
    def loss(outputs, y, *, power=2.0):
        return 0

    assert [one.name for one in settings_of("loss", loss)] == ["power"]
    assert "b1" in [one.name for one in settings_of("optimizer", optax.lamb)]
    assert settings_of("model", object()) == []


@pytest.mark.parametrize(
    ("default", "annotation", "kind"),
    [(2.0, inspect.Parameter.empty, float), (2, int, int), (True, None, bool), ("a", None, str)],
)
def test_a_default_tells_the_type(default, annotation, kind):
    parameter = inspect.Parameter(
        "size", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
    assert type_of(parameter) is kind


def test_a_page_is_read_with_its_copy_of_the_source(file, tmp_path):
    path = file()
    made = nnref.run(path, logbook=tmp_path / "logbook")
    page = made.records[0].page
    assert made.verdict.sentence
    copy = page.parent / "sources" / f"mine.{digest_of(CODE)}.py"
    assert copy.read_text() == CODE
    (tmp_path / "mine.py").write_text("raise ValueError")
    again = nnref.run(page, logbook=tmp_path / "other")
    for name, values in made.history.items():
        assert (again.history[name] == values).all()
