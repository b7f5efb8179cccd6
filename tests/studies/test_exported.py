"""The trained network as a file of ONNX or StableHLO."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnref
from nnref.studies import exported
from nnref.studies.exported import export, product

KEYS = {
    "data": {"name": "xor", "copies": 2},
    "model": {"name": "mlp", "hidden": [3]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 2,
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    return nnref.load(nnref.run(nnref.Experiment(**KEYS), logbook=folder).records[0].page)


@pytest.mark.parametrize("to", ["stablehlo", "onnx"])
@pytest.mark.filterwarnings("ignore")
def test_a_file_gives_the_same_outputs_for_any_number_of_rows(network, to, tmp_path):
    pytest.importorskip("jax2onnx" if to == "onnx" else "flatbuffers")
    path = tmp_path / f"a{exported.ENDINGS[to]}"
    assert export(network, path, to) < 1e-6
    run = exported.run_onnx if to == "onnx" else exported.run_hlo
    x = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    (outputs,) = run(path, [x])
    np.testing.assert_allclose(outputs, network(x), rtol=1e-5, atol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_other_outputs_is_refused_and_not_left(network, tmp_path, monkeypatch):
    pytest.importorskip("flatbuffers")
    monkeypatch.setattr(exported, "run_hlo", lambda path, rows: [np.ones((len(rows[0]), 1))])
    with pytest.raises(nnref.UserError, match="its outputs differ"):
        export(network, tmp_path / "a.stablehlo", "stablehlo")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("to", "library"), [("onnx", "jax2onnx"), ("stablehlo", "flatbuffers")])
def test_a_missing_library_is_named(network, to, library, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(nnref.UserError, match=rf'pip install "nnref\[{to}\]"'):
        export(network, tmp_path / "a", to)


def test_a_product_is_the_same_that_sums_over_the_last_axes():
    a, b = (np.random.default_rng(0).normal(size=s) for s in ((2, 5, 3, 4), (4, 2, 6, 5)))
    axes = (((1, 3), (3, 0)), ((0,), (1,)))
    a, b = jnp.float32(a), jnp.float32(b)
    wanted = jax.lax.dot_general(a, b, axes)
    np.testing.assert_allclose(product(a, b, dimension_numbers=axes), wanted, rtol=1e-5, atol=1e-6)
