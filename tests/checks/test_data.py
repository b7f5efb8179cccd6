"""A look at data: each doubt where it is planted, none in what is healthy."""

import dataclasses

import numpy as np
import pytest

from nnref.checks.data import look
from nnref.data import DATA, Dataset, DataWarning, Split, doubts

rng = np.random.default_rng(0)
ROWS = 600
WEIGHTS = rng.normal(size=6)


def rows_of(count, generator=rng):
    x = generator.normal(size=(count, 6))
    return x, (x @ WEIGHTS > 0).astype(np.int32)


X, Y = rows_of(ROWS)


def seen(x=X, y=Y, held=None, **keys):
    held = held or rows_of(200)
    splits = (Split(a.astype(np.float32), b) for a, b in ((x, y), held))
    return look(Dataset(*splits, classes=("no", "yes"), **keys))


def whats(looked):
    return [doubt.what for doubt in looked.doubts]


def test_nothing_is_said_of_healthy_rows():
    looked = seen()
    assert whats(looked) == []
    assert min(looked.numbers["valid"][:3]) > 0.8


def test_labels_against_their_neighbours_are_told_with_their_rows():
    x = np.concatenate([rng.normal(size=(300, 3)), rng.normal(6, 1, size=(300, 3))])
    y = np.repeat([0, 1], 300).astype(np.int32)
    wrong = rng.permutation(600)[:30]
    noisy = y.copy()
    noisy[wrong] = 1 - y[wrong]
    held = (x + rng.normal(size=x.shape), y)
    assert "label noise" not in whats(seen(x, y, held))
    (doubt,) = [d for d in seen(x, noisy, held).doubts if d.what == "label noise"]
    count = int(doubt.sentence.split()[0])  # some have a second one beside them
    assert 25 <= count <= 30
    assert set(doubt.rows) <= set(wrong + 1)


def test_a_column_that_tells_the_target_alone():
    x = np.c_[X, 3 * Y + 0.1 * rng.normal(size=ROWS)]
    held, y = rows_of(200)
    looked = seen(x, Y, (np.c_[held, 3 * y + 0.1 * rng.normal(size=200)], y))
    (doubt,) = [d for d in looked.doubts if d.what == "tells too much"]
    assert doubt.sentence.startswith('"6" alone tells the target to 98% or better in 600')
    assert doubt.remedy.endswith('leave "6" out of the inputs')


def test_a_column_that_tells_the_target_is_left_out_by_the_name_it_has_in_the_file(tmp_path):
    lines = [f"{x:.6f},{['no', 'yes'][y]},{x > 0:d},{y}" for x, y in zip(X[:, 0], Y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,said,b,y", *lines]))
    keys = {"path": str(tmp_path / "t.csv"), "target": "y"}
    with pytest.warns(DataWarning, match='"said" is another name of the target') as told:
        dataset = DATA["file"](**keys)
    (doubt,) = [d for d in look(dataset).doubts if d.what == "tells too much"]
    assert doubt.remedy.endswith('write "drop": ["said"]')
    assert "tells too much" not in whats(look(dataset, tuple(str(w.message) for w in told)))
    assert "tells too much" not in whats(look(DATA["file"](**keys, drop=("said",))))


def test_a_rare_class_is_no_noise_of_labels():
    """Nearly all rows around each of its rows are of the other: so are those around all."""
    y = (np.random.default_rng(1).random(ROWS) < 0.04).astype(np.int32)
    assert "label noise" not in whats(seen(X, y))


def test_rows_that_no_network_tells_apart():
    x, y = X.copy(), Y.copy()
    x[:40], y[:40] = x[40:80], 1 - y[40:80]
    (doubt,) = [d for d in seen(x, y).doubts if d.what == "conflicts"]
    assert doubt.sentence.startswith("80 of 600 training rows have the same inputs")


def test_equal_rows_and_rows_between_training_rows():
    held, y = rows_of(200)
    held[:50], y[:50] = X[:50], Y[:50]
    with pytest.warns(DataWarning, match="50 of 200 rows of valid"):
        looked = seen(held=(held, y))
    told = (
        "12 of 20 rows of test are also in train; ...",
        "50 of 200 rows of valid are also in train",
    )
    dataset = looked.dataset
    with pytest.warns(DataWarning):
        assert look(dataclasses.replace(dataset), told).warnings == told[:1]
    (doubt,) = [d for d in looked.doubts if d.what == "equal rows"]
    assert "50 of 200 rows of valid are also in train, targets and all: row 1 is row 1" in (
        doubt.sentence
    )
    assert doubt.rows == tuple(range(1, 11))
    nearest = np.argsort(((X[:100, None] - X[None]) ** 2).sum(-1), 1)[:, 1]
    share = rng.random((100, 1))
    between = X[:100] + share * (X[nearest] - X[:100])
    assert "interpolated rows" in whats(seen(held=(between, Y[:100])))
    assert "near copies" in whats(seen(held=(X[:100] + 1e-5 * rng.normal(size=(100, 6)), Y[:100])))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda x, y: (x, 1 - y), "another meaning"),
        (lambda x, y: (x[:, ::-1], y), "another meaning"),
        (lambda x, y: (x + 2, y), "drift"),
    ],
)
def test_splits_that_do_not_mean_the_same(spoil, what):
    looked = seen(held=spoil(*rows_of(200)))
    assert what in whats(looked)
    if what == "another meaning":
        inside, across, within = looked.numbers["valid"][:3]
        assert min(inside, within) > 0.8 > across


def test_splits_scaled_each_by_itself():
    x, y = rows_of(200)
    own = [(part - part.mean(0)) / part.std(0) for part in (X, x)]
    looked = seen(own[0], Y, (own[1], y))
    assert "own statistics" in whats(looked)
    (told,) = doubts.scaled_by_their_own({"train": own[0], "valid": own[1]})
    assert look(looked.dataset, (told, "another")).warnings == ("another",)
    assert "own statistics" not in whats(seen(own[0], Y, ((x - X.mean(0)) / X.std(0), y)))


def test_values_and_places_are_looked_at_too():
    x = rng.normal(size=(300, 4))
    y = (x[:, :1] + 0.1 * rng.normal(size=(300, 1))).astype(np.float32)
    looked = look(Dataset(Split(x[:200], y[:200]), Split(x[200:], y[200:] * 50 + 7)))
    assert whats(looked)[-1:] == ["another meaning"]
    assert look(DATA["temporal_parity"]()).numbers is not None
    assert look(DATA["xor"]()).doubts is not None


def test_numbers_of_categories_are_looked_at_as_columns_of_their_own(tmp_path):
    """As sizes, 60 numbers would say nothing of a target that is random from town to town."""
    town = np.arange(900) % 60
    price = np.random.default_rng(0).normal(size=60)[town] + 0.05 * rng.normal(size=900)
    lines = [f"t{t},{rng.normal():.3f},{y:.3f}" for t, y in zip(town, price, strict=True)]
    (tmp_path / "towns.csv").write_text("\n".join(["town,size,price", *lines]))
    dataset = DATA["file"]("squared_error", path=str(tmp_path / "towns.csv"), target="price")
    assert dataset.train.x.shape[1] == 2
    looked = look(dataset)
    assert looked.dataset is dataset
    assert looked.numbers["valid"].across > 0.5


def pictures(count, channels=3):
    """Smooth coloured surfaces on which a class lies as a brighter square."""
    r, c = np.indices((16, 12)) / 8
    slopes = rng.normal(size=(count, 3, channels))
    x = np.stack([r, c, r * c], -1) @ slopes[:, None] + 0.05 * rng.normal(size=(count, 16, 12, 3))
    y = (np.arange(count) % 2).astype(np.int32)
    x[y == 1, 4:8, 4:8] += 2
    return x, y


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda x: x, []),
        (lambda x: rng.normal(size=x.shape), []),
        (lambda x: np.moveaxis(x, -1, 1).reshape(x.shape), ["misread images"]),
        (lambda x: np.moveaxis(x, -1, 1), ["channels first"]),
    ],
)
def test_images_in_another_order_of_their_axes(spoil, what):
    (x, y), (held, held_y) = pictures(200), pictures(100)
    looked = seen(spoil(x), y, (spoil(held), held_y))
    found = [doubt for doubt in looked.doubts if doubt.what in ("misread images", "channels first")]
    assert [doubt.what for doubt in found] == what
    if what == ["misread images"]:
        code = found[0].remedy.removesuffix(" before the arrays are saved")
        names = {"x": spoil(x)}
        exec(code, names)
        np.testing.assert_array_equal(names["x"], x)


@pytest.mark.parametrize("lag", [0, 2])
def test_targets_that_stand_two_rows_off_in_the_file(tmp_path, lag):
    """The split has shuffled them since: they are asked in the order of the file."""
    x, y = rows_of(400)
    np.savez(tmp_path / "rows.npz", x=x, y=np.roll(y, lag))
    looked = look(DATA["file"](path=str(tmp_path / "rows.npz"), target="y"))
    told = [doubt.sentence for doubt in looked.doubts if doubt.what == "rows out of step"]
    assert len(told) == bool(lag)
    assert all("row i stands beside the target of row i -2" in sentence for sentence in told)


@pytest.mark.parametrize(("split", "told"), [({}, True), ({"split": "time", "by": "t"}, False)])
def test_windows_of_a_table_that_overlap_are_told(tmp_path, split, told):
    series = np.sin(np.arange(260) / 7) + 0.05 * rng.normal(size=260)
    rows = np.lib.stride_tricks.sliding_window_view(series, 7).round(4)
    head = ["t", *(f"s{step}" for step in range(6)), "next"]
    table = np.c_[np.arange(len(rows)), rows].tolist()
    path = tmp_path / "series.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in [head, *table]))
    made = DATA["file"](path=str(path), target="next", inputs=head[1:-1], **split)
    assert ("overlapping windows" in whats(look(made))) == told
