"""The trained network beside its page."""

import json

import numpy as np
import pytest

import nnref
from nnref.studies import kept
from nnref.studies.run import trained


@pytest.fixture
def table(tmp_path):
    x = np.random.default_rng(0).normal(5, 3, size=(60, 2))
    names = np.where(x[:, 0] > 5, "large", "small")
    lines = [f"{a},{name},{b}" for (a, b), name in zip(x, names, strict=True)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["a,size,b", *lines]))
    return path


@pytest.fixture
def page(table, tmp_path):
    content = {
        "data": {"name": "file", "path": str(table), "target": "size"},
        "model": {"name": "mlp", "hidden": [8]},
        "loss": "softmax_cross_entropy",
        "optimizer": {"name": "adam", "learning_rate": 0.05},
        "batch_size": 20,
        "epochs": 30,
    }
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content))
    return nnref.run(path, logbook=tmp_path / "logbook").records[0].page


def test_the_network_says_the_names_of_classes_of_raw_rows(page):
    network = nnref.load(page)
    assert network.predict([[30.0, 5.0], [-20.0, 5.0]]).tolist() == ["large", "small"]
    assert repr(network) == "<mlp: rows of 2 (a, b) -> large, small>"
    with pytest.raises(nnref.UserError, match=r"\(1, 1\) given; the network takes \(rows, 2\)"):
        network.predict([[1.0]])


def test_a_kept_network_is_trained_no_second_time(page, monkeypatch):
    monkeypatch.setattr("nnref.studies.run.train_seeds", None)
    params = trained(page).params
    assert kept.network_path(page).is_file()
    monkeypatch.undo()
    kept.network_path(page).unlink()
    again = trained(page).params
    for one, other in zip(*map(leaves, (params, again)), strict=True):
        np.testing.assert_array_equal(one, other)


def leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_a_table_of_rows_is_read_by_the_names_of_its_columns(page, tmp_path):
    dataset = nnref.load(page).dataset
    path = tmp_path / "new.csv"
    path.write_text("b,a\n1,2\n3,4\n")
    assert kept.rows_in(path, dataset).tolist() == [[2, 1], [4, 3]]
    for text, told in {
        "b,c\n1,2\n": "column a is missing",
        "b,a\n1,many\n": 'column a "many" is no number',
        "b,a\n1\n": "another number of cells",
        "": "no rows below its header line",
    }.items():
        path.write_text(text)
        with pytest.raises(nnref.UserError, match=told):
            kept.rows_in(path, dataset)
    (tmp_path / "bad.npz").write_text("hello")
    with pytest.raises(nnref.UserError, match="no archive"):
        kept.rows_in(tmp_path / "bad.npz", dataset)


def test_a_large_network_is_not_kept_and_that_is_said(monkeypatch, tmp_path, page):
    monkeypatch.setattr(kept, "MOST_BYTES", 10)
    experiment = trained(page).experiment
    made = nnref.run(experiment, logbook=tmp_path / "other")
    text = made.records[0].page.read_text()
    assert "// network: not kept" in text
    assert not kept.network_path(made.records[0].page).exists()


def test_nothing_is_kept_where_nobody_wants_it(tmp_path, page):
    made = nnref.run(trained(page).experiment, logbook=tmp_path / "other", keep=False)
    assert not kept.network_path(made.records[0].page).exists()


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int32([1])}
    kept.write(path, arrays)
    np.testing.assert_array_equal(kept.read(path)["w"], arrays["w"])
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(nnref.UserError, match="not those that were written"):
            kept.read(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(nnref.UserError, match="not those that were written"):
        kept.read(path)
