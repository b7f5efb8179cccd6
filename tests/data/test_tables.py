"""Tables as they come, from a file to a network that trains, and to new rows."""

import json

import jax
import numpy as np
import pytest
from small import run_killed
from written import csv_file, npz_file, refused, told_of

import nnref
from nnref.data import DATA, DataWarning
from nnref.studies import kept

rng = np.random.default_rng(0)
ROWS = 120
SEX = rng.choice(["male", "female"], ROWS)
DAYS = np.datetime64("2020-01-01") + rng.permutation(ROWS)
MASS = 4200 + 800 * (SEX == "male") + rng.normal(0, 60, ROWS)
GROUP = np.arange(ROWS) % 12


def table_of(**columns):
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def penguins(folder):
    size = [f"{v:.2f}" if i % 20 else "" for i, v in enumerate(MASS / 100 + rng.normal(size=ROWS))]
    mass = [f"{v:.0f}" if i != 3 else "NA" for i, v in enumerate(MASS)]
    columns = {"rowid": range(1, ROWS + 1), "sex": SEX, "size": size, "day": DAYS, "group": GROUP}
    return csv_file(folder, table_of(**columns, mass=mass), name="penguins.csv")


@pytest.fixture
def page(tmp_path):
    content = {
        "data": {"name": "file", "path": penguins(tmp_path), "target": "mass"},
        "model": {"name": "mlp", "hidden": [16]},
        "loss": "squared_error",
        "optimizer": {"name": "adam", "learning_rate": 0.02},
        "batch_size": 32,
        "epochs": 40,
        "metrics": ["r2", "mean_absolute_error"],
    }
    path = tmp_path / "mass.json"
    path.write_text(json.dumps(content))
    with pytest.warns(DataWarning):
        done = nnref.run(path, logbook=tmp_path / "logbook")
    history = done.history
    assert history["valid_r2"][0, -1] > 0.9
    assert 30 < history["valid_mean_absolute_error"][0, -1] < 300  # grams
    assert history["valid_loss"][0, -1] < 0.2  # squared deviations
    return done.records[0].page


@pytest.mark.filterwarnings("ignore::nnref.data.prepare.DataWarning")
def test_new_rows_are_read_as_the_training_rows_were(page, tmp_path):
    network = nnref.load(page)
    path = tmp_path / "new.csv"
    path.write_text("day,group,sex,size\n2020-02-01,3,male,50\n2020-02-01,3,female,42\n")
    rows = kept.rows_in(path, network.dataset)
    large, small = network.predict(rows)[:, 0]
    assert large == pytest.approx(5000, abs=300)
    assert small == pytest.approx(4200, abs=300)
    np.testing.assert_array_equal(network(rows), network.predict(rows))
    path.write_text("sex,size,group,day\nother,,3,\n")
    with pytest.warns(DataWarning) as told:
        rows = kept.rows_in(path, network.dataset)
    assert [str(each.message).removeprefix(f"{path}: ") for each in told] == [
        "cells are missing in size: 1, day: 1; filled by the median of training",
        "sex: other was in no training row, and counts as none that was, or as the rare ones",
    ]
    assert np.isfinite(network.predict(rows)).all()
    path.write_text("sex,size\nmale,50\n")
    assert refused(kept.rows_in, path, network.dataset) == (
        f"{path}: the columns day, group are missing; it has sex, size"
    )


def test_the_old_rows_need_not_be_there_any_more(page, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("day,group,sex,size\n2020-02-01,3,male,50\n2020-02-01,3,female,42\n")
    network = nnref.load(page)
    before = network.predict(kept.rows_in(path, network.dataset))
    (tmp_path / "penguins.csv").unlink()
    network = nnref.load(page)
    np.testing.assert_array_equal(network.predict(kept.rows_in(path, network.dataset)), before)
    page.with_suffix(".columns").unlink()
    assert "there is no file" in refused(nnref.load, page)
    page.with_suffix(".columns").write_text("{")
    assert "it is damaged" in refused(nnref.load, page)


def test_files_of_before_keep_identity_and_bits(tmp_path, monkeypatch):
    """Both were written down with the version that knew none of the newer keys."""
    monkeypatch.chdir(tmp_path)
    content = {"model": {"name": "mlp", "hidden": [4]}, "loss": "softmax_cross_entropy"}
    content |= {"optimizer": {"name": "adam", "learning_rate": 0.01}, "batch_size": 8, "epochs": 2}
    data = {"name": "file", "path": "table.csv", "target": "y"}
    assert nnref.Experiment(**content, data=data).identity == "5f0cb6924b"
    data |= {"valid": 0.2, "kind": "classes", "standardized": False, "seed": 3}
    assert nnref.Experiment(**content, data=data).identity == "4bfc6544f9"
    old = np.random.default_rng(0)
    x = old.normal(size=(300, 5)) * [1, 10, 1e3, 1e-3, 1]
    rows = zip(x.tolist(), old.integers(0, 3, 300).tolist(), strict=True)
    lines = ["a,b,c,d,e,y", *(",".join(map(repr, [*row, k])) for row, k in rows)]
    path = csv_file(tmp_path, "\n".join(lines))
    assert DATA["file"](path=path, target="y").fingerprint == "a3f613316453"
    keys = {"target": "y", "standardized": False, "valid": 0.3}
    assert DATA["file"](path=path, **keys).fingerprint == "f786ee219278"
    images = old.integers(0, 255, (100, 8, 8, 3)).astype(np.uint8)
    path = npz_file(tmp_path, x=images, y=np.arange(100) % 4)
    assert DATA["file"](path=path, target="y").fingerprint == "79bb7a0754ba"
    assert DATA["file"](path=path, **keys).fingerprint == "a41c6fc7571e"


def test_what_is_decided_is_told(tmp_path):
    path = penguins(tmp_path)
    assert told_of(path=path, target="mass") == [
        'data: 1 of 120 rows have no "mass", the first is row 4; they are left out',
        "data: 1 columns are left out: rowid (every row has its own); to learn from them all the "
        'same, name the columns in "inputs"',
        "data: numbers are missing in 1 columns (size: 6); the median of the training rows stands "
        "there, and a further column says where",
        'data: 18 of 18 rows of valid are earlier, by "day", than rows of train; where later rows '
        'are to be predicted, write "split": "time", "by": "day"',
    ]
    with pytest.warns(DataWarning):
        made = DATA["file"]("squared_error", path=path, target="mass")
    assert [(use.column, use.type, use.missing, use.use) for use in made.table] == [
        ("rowid", "number", 0, "left out: every row has its own"),
        ("sex", "category", 0, "input, 2 columns"),
        ("size", "number", 6, "input, gaps filled: median"),
        ("day", "date", 0, "input, 5 columns"),
        ("group", "number", 0, "input"),
        ("mass", "number", 0, "target"),
    ]
    places = np.concatenate(list(made.places.values()))
    assert sorted(places) == [row for row in range(1, 121) if row != 4]
    mean, deviation = made.target_scaling
    first = made.train.y[0] * deviation + mean
    assert first == pytest.approx(round(MASS[made.places["train"][0] - 1]), rel=1e-5)
    assert made.notes[0].startswith("mass: values; the loss counts deviations of ")
    assert made.notes[1] == "rows: train 83, valid 18, test 18, at random"


def test_gaps_are_filled_and_columns_scaled_by_the_training_rows_alone(tmp_path):
    a = np.where(np.arange(40) % 4 == 0, np.nan, np.arange(40.0) ** 2)
    cells = ["" if value != value else f"{value:g}" for value in a]
    path = csv_file(tmp_path, table_of(a=cells, b=rng.normal(size=40), y=np.arange(40) % 2))
    with pytest.warns(DataWarning):
        made = DATA["file"](path=path, target="y")
    assert made.columns == ("a", "b", "a missing")
    train = made.train.x.astype(float)
    assert train[:, :2].mean(0) == pytest.approx([0, 0], abs=1e-6)
    assert train[:, :2].std(0) == pytest.approx([1, 1], rel=1e-5)
    for split in made.splits.values():
        gap = split.x[:, 2] == 1
        assert len(set(split.x[gap, 0])) <= 1
        assert set(split.x[:, 2]) == {0, 1}
    raw = train[:, 0] * made.scaling[1][0, 0] + made.scaling[0][0, 0]
    present = raw[train[:, 2] == 0]
    assert raw[train[:, 2] == 1][0] == pytest.approx(np.median(present), rel=1e-5)


def test_words_for_nothing_are_those_of_training_in_new_rows(tmp_path):
    path = csv_file(tmp_path, table_of(a=["nil", *MASS[1:]], b=MASS, y=SEX))
    with pytest.warns(DataWarning, match="numbers are missing in 1 columns"):
        made = DATA["file"](path=path, target="y", missing=("nil",))
    new = tmp_path / "new.csv"
    new.write_text("b,a\n1,nil\n")
    with pytest.warns(DataWarning, match="cells are missing in a: 1"):
        rows = kept.rows_in(new, made)
    assert rows[0, 2] == 1
    assert made.columns[2] == "a missing"


def test_splits_by_a_column(tmp_path):
    path = csv_file(tmp_path, table_of(a=MASS, day=DAYS, group=GROUP, y=SEX))
    made = DATA["file"](path=path, target="y", split="time", by="day")
    assert made.columns == ("a", "group")
    assert made.notes[1] == 'rows: train 84, valid 18, test 18, time by "day"'
    made = DATA["file"](path=path, target="y", split="group", by="group", standardized=False)
    assert "group" not in made.columns
    given = ["train", "train", "valid", "test"] * 30
    path = csv_file(tmp_path, table_of(a=MASS, part=given, y=SEX))
    made = DATA["file"](path=path, target="y", split="given", by="part")
    assert [len(split.x) for split in made.splits.values()] == [60, 30, 30]
    for keys in ({"split": "time"}, {"by": "part"}):
        assert '"split": "time", "by": "date"' in refused(
            DATA["file"], path=path, target="y", **keys
        )


def test_groups_and_splits_that_a_column_names_are_told_with_the_words_that_help(tmp_path):
    person = [f"P{i}" for i in rng.integers(0, 30, ROWS)]
    part = ["train", "train", "valid", "test"] * 30
    path = csv_file(tmp_path, table_of(a=MASS, person=person, part=part, y=SEX))
    told = told_of(path=path, target="y")
    assert sum('"split": "group", "by": "person"' in each for each in told) == 2
    assert told[-1] == (
        'data: "part" holds the names of splits, and is an input like others; to split by it, '
        'write "split": "given", "by": "part"'
    )
    made = DATA["file"](path=path, target="y", split="group", by="person", drop=("part",))
    assert len(made.splits) == 3
    made = DATA["file"](path=path, target="y", split="given", by="part", drop=("person",))
    assert made.notes[1] == 'rows: train 60, valid 30, test 30, given by "part"'


def test_ratings_are_values_under_a_squared_error(tmp_path):
    path = csv_file(tmp_path, table_of(a=MASS, y=1 + np.arange(ROWS) % 5))
    assert len(DATA["file"]("softmax_cross_entropy", path=path, target="y").classes) == 5
    made = DATA["file"]("squared_error", path=path, target="y")
    assert made.classes == ()
    assert made.train.y.mean() == pytest.approx(0, abs=1e-6)
    plain = DATA["file"]("squared_error", path=path, target="y", standardized_targets=False)
    assert set(np.unique(plain.train.y)) == {1, 2, 3, 4, 5}
    assert plain.target_scaling is None
    unscaled = DATA["file"]("squared_error", path=path, target="y", standardized=False)
    assert unscaled.target_scaling is None
    assert unscaled.notes[0] == "y: values, as they are in the file"


def test_an_archive_with_its_own_splits_is_never_split_anew(tmp_path):
    x, y = rng.normal(size=(20, 3)), np.arange(20) % 2
    own = {"x_valid": x[10:14], "y_valid": y[10:14], "x_test": x[14:], "y_test": y[14:]}
    plain = {"target": "y", "standardized": False}
    made = DATA["file"](path=npz_file(tmp_path, x=x[:10], y=y[:10], **own), **plain)
    for split, rows in {"train": x[:10], "valid": x[10:14], "test": x[14:]}.items():
        np.testing.assert_array_equal(made.splits[split].x, rows.astype(np.float32))
    keras = {"x_train": x[:14], "y_train": y[:14], "x_test": x[14:], "y_test": y[14:]}
    for target in ("y", "y_train"):
        made = DATA["file"](path=npz_file(tmp_path, **keras), **plain | {"target": target})
        np.testing.assert_array_equal(made.test.x, x[14:].astype(np.float32))
        assert [len(split.x) for split in made.splits.values()] == [12, 2, 6]
        assert made.notes[1:] == (
            "rows: train 12, valid 2, test 6, as they are given; valid out of train at random, "
            "stratified",
            'inputs: the array "x", 3 numbers a row',
        )
    path = npz_file(tmp_path, x=x, y=y, x_valid=x)
    assert 'has "x_valid" and no "y_valid"' in refused(DATA["file"], path=path, target="y")
    path = npz_file(tmp_path, x=x, y=y, x_valid=x[:, :2], y_valid=y)
    assert "valid of" in refused(DATA["file"], path=path, target="y")
    told = refused(DATA["file"], path=path, target="y", drop=("a",))
    assert told == "data.drop: it is about the columns of a table, and not of a .npz"


def test_classes_that_are_rare_weigh_more(tmp_path):
    path = csv_file(tmp_path, table_of(a=MASS, y=["no", "no", "no", "yes"] * 30))
    made = DATA["file"](path=path, target="y", balance=True)
    assert made.weights == pytest.approx((2 / 3, 2), rel=0.03)
    path = csv_file(tmp_path, table_of(a=MASS, y=SEX))
    assert "targets are values" in refused(DATA["file"], path=path, target="a", balance=True)


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"]
)
def test_a_constant_answer_under_weights_favours_no_class(tmp_path, loss):
    """Without information all classes have the same output, whatever their shares."""
    path = csv_file(tmp_path, table_of(a=rng.normal(size=ROWS), y=["no", "no", "no", "yes"] * 30))
    data = {"name": "file", "path": path, "target": "y", "valid": 0.0, "test": 0.0, "balance": True}
    content = {
        "data": data,
        "model": {"name": "mlp", "hidden": []},
        "loss": loss,
        "optimizer": {"name": "adam", "learning_rate": 0.02},
        "batch_size": 120,
        "epochs": 400,
    }
    done = nnref.run(nnref.Experiment(**content), logbook=None)
    (bias,) = [leaf[0] for leaf in jax.tree.leaves(done.params) if leaf.ndim == 2]
    middle = 0.5 if loss == "squared_error" else 0.0
    assert (np.ptp(bias) if len(bias) > 1 else bias) == pytest.approx(middle, abs=0.05)


def test_targets_that_are_dates_or_all_missing_are_refused(tmp_path):
    path = csv_file(tmp_path, table_of(a=range(3), day=DAYS[:3]))
    assert "holds dates" in refused(DATA["file"], path=path, target="day")
    path = csv_file(tmp_path, table_of(a=range(3), y=["", "", ""]))
    assert 'all 3 cells of "y" are missing' in refused(DATA["file"], path=path, target="y")


def test_lists_in_cells_are_told_and_refused_by_name(tmp_path):
    polars = pytest.importorskip("polars")
    path = tmp_path / "rows.parquet"
    columns = {"a": MASS, "emb": [[1.0, 2.0]] * ROWS, "y": SEX}
    polars.DataFrame(columns).write_parquet(path)
    assert told_of(path=str(path), target="y") == [
        "data: 1 columns are left out: emb (its cells are of the type List(Float64)); to learn "
        "from them, save each of their numbers in a column of its own"
    ]
    for key, given in (("inputs", ("emb",)), ("categories", ("emb",)), ("target", "emb")):
        told = refused(DATA["file"], **{"path": str(path), "target": "y"} | {key: given})
        assert told.startswith(f'data.{key}: the cells of "emb" are of the type List(Float64)')
    polars.DataFrame({"emb": columns["emb"], "y": SEX}).write_parquet(path)
    assert refused(DATA["file"], path=str(path), target="y").endswith(
        "save their numbers in columns of their own"
    )


def test_a_table_without_a_line_of_names_is_told(tmp_path):
    path = csv_file(tmp_path, "5.1,3\n4.9,2\n")
    assert refused(DATA["file"], path=path, target="y").endswith(
        "its columns are 5.1, 3; these are numbers: is there a line of names above the rows?"
    )
    path = csv_file(tmp_path, "a,3\n4.9,2\n")
    assert "line of names" not in refused(DATA["file"], path=path, target="y")


TOWNS = 60
TOWN = np.arange(1200) % TOWNS


def towns(folder, **model):
    """Prices that depend on the town alone; the model is an MLP where none is given."""
    price = np.random.default_rng(1).normal(size=TOWNS)[TOWN] + 0.1 * rng.normal(size=len(TOWN))
    columns = {"size": rng.normal(size=len(TOWN)), "town": [f"t{t}" for t in TOWN]}
    path = csv_file(folder, table_of(**columns, price=price.round(3)), name="towns.csv")
    content = {
        "data": {"name": "file", "path": path, "target": "price"},
        "model": model or {"name": "mlp", "hidden": [16]},
        "loss": "squared_error",
        "optimizer": {"name": "adam", "learning_rate": 0.02},
        "batch_size": 100,
        "epochs": 20,
    }
    experiment = folder / "towns.json"
    experiment.write_text(json.dumps(content))
    return experiment


OWN = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.layer = nnx.Linear(inputs[0], outputs, rngs=rngs)

    def __call__(self, x):
        return self.layer(x)
"""


@pytest.mark.parametrize("own", [False, True])
def test_towns_are_looked_up_and_one_that_is_new_is_told(tmp_path, monkeypatch, own):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    path = towns(tmp_path, **({"name": "mine.py:Net"} if own else {}))
    done = nnref.run(path, logbook=tmp_path / "logbook")
    assert done.history["valid_r2"][0, -1] > 0.9
    made = DATA["file"]("squared_error", path=str(tmp_path / "towns.csv"), target="price")
    assert [use.use for use in made.table] == ["input", "input, 61 vectors of 6 numbers", "target"]
    page = done.records[0].page
    if not own:
        run_killed(path, tmp_path / "other", monkeypatch)
        again = nnref.run(path, logbook=tmp_path / "other").history
        assert jax.tree.all(jax.tree.map(np.array_equal, again, dict(done.history)))
    (tmp_path / "towns.csv").unlink()
    network, new = nnref.load(page), tmp_path / "new.csv"
    new.write_text("town,size\nt3,0\nt4,0\nnowhere,0\n")
    with pytest.warns(DataWarning, match="town: nowhere was in fewer than 2 training rows"):
        rows = kept.rows_in(new, network.dataset)
    third, fourth, unknown = network.predict(rows)[:, 0]
    effects = np.random.default_rng(1).normal(size=TOWNS)
    assert third == pytest.approx(effects[3], abs=0.5)
    assert fourth == pytest.approx(effects[4], abs=0.5)
    assert np.isfinite(unknown)
