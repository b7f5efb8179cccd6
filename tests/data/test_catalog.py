"""The catalogue: found in the right order, read by its features, refused in words."""

import importlib.util
import json

import numpy as np
import pytest
from raw_files import NAMES, digits, publish, refused, rng

from nnref.cli import main
from nnref.data import DATA, DataWarning, catalog, raw
from nnref.data.text import text_of
from nnref.experiment.experiment import Experiment
from nnref.training.setup import from_experiment


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of data sets and a cache of its own; the network is cut."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(raw, "unreachable", lambda url: "there is no network")
    monkeypatch.setattr(catalog, "unreachable", lambda url: "there is no network")
    return tmp_path


# --- prepared from raw files --------------------------------------------------------------------


def test_prepared_data_come_before_raw_files_and_are_left_alone(place, monkeypatch):
    _, files = digits()
    publish(monkeypatch, place / "raw", files)
    folder = catalog.prepare("mnist", place / "data", place / "raw")
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(raw, "registered", lambda dataset: pytest.fail("looked for raw files"))
    assert catalog.prepare("mnist", place / "data") == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written


@pytest.mark.parametrize("part", ["train", "features.json", "dataset_info.json"])
def test_a_prepared_data_set_that_is_cut_is_told(place, monkeypatch, part):
    _, files = digits()
    publish(monkeypatch, place / "raw", files)
    folder = catalog.prepare("mnist", place / "data", place / "raw")
    (path,) = [path for path in folder.iterdir() if part in path.name]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told = refused(DATA["tfds"], dataset="mnist")
    assert "cannot be read" in told
    assert "prepare it again" in told


# --- refused ------------------------------------------------------------------------------------


def test_an_unknown_name_is_refused_at_once_with_the_nearest(place, monkeypatch):
    monkeypatch.setattr(catalog, "unreachable", lambda url: pytest.fail("asked the network"))
    told = refused(catalog.prepare, "fashion_mnits", place / "data")
    assert told.startswith('data.dataset: "fashion_mnits" is not in the catalogue')
    assert 'did you mean "fashion_mnist"?' in told


def test_without_files_and_network_the_error_names_folder_and_files(place):
    told = refused(DATA["tfds"], dataset="mnist", kind=raw.DataMissing)
    assert told.startswith(f"data: mnist is not prepared in {place / 'data'}, and there is no net")
    assert str(place / "data" / "downloads" / "manual" / "mnist") in told
    assert all(name in told for name in NAMES)
    assert "nnref data prepare mnist --manual-dir DIR" in told


def test_only_what_is_missing_is_asked_for(place, monkeypatch):
    _, files = digits()
    folder = publish(monkeypatch, place / "raw", files)
    (folder / NAMES[2]).unlink()
    told = refused(catalog.prepare, "mnist", place / "data", folder, kind=raw.DataMissing)
    assert f"put {NAMES[2]} into" in told


def test_a_manual_folder_that_is_not_there_is_refused(place):
    told = refused(catalog.prepare, "mnist", place / "data", place / "nowhere")
    assert told == f"--manual-dir: there is no folder {place / 'nowhere'}"


def absent(monkeypatch, package):
    """Make a package look as if it were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find(name) if name != package else None
    )


@pytest.mark.parametrize("name", ["mnist", "imdb_reviews"])
def test_what_needs_the_catalogue_says_what_to_install(place, monkeypatch, name):
    absent(monkeypatch, "tensorflow_datasets")
    told = refused(catalog.prepare, name, place / "data", kind=raw.DataMissing)
    assert told.endswith('pip install "nnref[data]"')


def test_what_needs_tensorflow_says_so(place, monkeypatch):
    absent(monkeypatch, "tensorflow")
    told = refused(catalog.prepare, "imdb_reviews", place / "data", kind=raw.DataMissing)
    assert told.endswith(
        'needs TensorFlow: pip install "nnref[prepare]", then nnref data prepare imdb_reviews'
    )


def test_with_tensorflow_a_stock_builder_prepares(place, monkeypatch):
    import tensorflow_datasets

    asked = {}

    class Builder:
        def download_and_prepare(self, download_config):
            asked["manual_dir"] = str(download_config.manual_dir)
            raise RuntimeError("as builders do")

    def builder(name, **keys):
        asked.update(keys, name=name)
        return Builder()

    find = importlib.util.find_spec
    there = {"tensorflow": "as if it were there"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there.get(name) or find(name))
    told = refused(catalog.prepare, "imdb_reviews", place / "data", kind=raw.DataMissing)
    assert "there is no network; name the folder of its raw files" in told
    monkeypatch.setattr(tensorflow_datasets, "builder", builder)
    told = refused(catalog.prepare, "imdb_reviews/plain_text", place / "data", place)
    assert told == "data: TFDS could not prepare imdb_reviews/plain_text: as builders do"
    assert asked == {
        "name": "imdb_reviews/plain_text",
        "data_dir": place / "data",
        "file_format": "array_record",
        "manual_dir": str(place),
    }


# --- as a data set ------------------------------------------------------------------------------


def prepared(place, monkeypatch, rows=(40, 20)):
    parts, files = digits(rows)
    publish(monkeypatch, place / "raw", files)
    catalog.prepare("mnist", place / "data", place / "raw")
    return parts


def test_images_are_split_and_standardized_by_the_training_rows(place, monkeypatch):
    parts = prepared(place, monkeypatch)
    made = DATA["tfds"](dataset="mnist", valid=0.25)
    sizes = {name: split.x.shape for name, split in made.splits.items()}
    assert sizes == {k: (n, 28, 28, 1) for k, n in {"train": 30, "valid": 10, "test": 20}.items()}
    assert np.bincount(made.valid.y).tolist() == [1] * 10
    assert made.classes == tuple("0123456789")
    assert made.train.x.dtype == np.float32
    assert made.train.y.dtype == np.int32
    np.testing.assert_allclose(made.train.x.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(made.train.x.std(), 1, rtol=1e-6)
    bytes_ = DATA["tfds"](dataset="mnist", valid=0.25, standardized=False)
    mean, deviation = bytes_.train.x.mean(dtype=float), bytes_.train.x.std(dtype=float)
    for name, split in bytes_.splits.items():
        assert 0 <= split.x.min() < split.x.max() <= 1
        # float32, twice rounded
        expected = (split.x - mean) / deviation
        np.testing.assert_allclose(made.splits[name].x, expected, rtol=1e-5, atol=1e-6)
    stored = {image.tobytes(): label for image, label in zip(*parts[1], strict=True)}
    for image, label in zip(*bytes_.test, strict=True):
        assert stored[np.round(255 * image).astype(np.uint8).tobytes()] == label


def test_a_split_has_its_seed_and_the_cache_changes_nothing(place, monkeypatch):
    prepared(place, monkeypatch)
    first = DATA["tfds"](dataset="mnist")
    [*kept] = (place / "cache" / "nnref" / "data").iterdir()
    assert len(kept) == 2
    assert DATA["tfds"](dataset="mnist").fingerprint == first.fingerprint
    for path in kept:
        path.write_bytes(path.read_bytes()[:1000])  # torn
    assert DATA["tfds"](dataset="mnist").fingerprint == first.fingerprint
    assert DATA["tfds"](dataset="mnist", seed=1).fingerprint != first.fingerprint


def test_other_data_in_the_same_folder_are_not_read_from_the_cache(place, monkeypatch):
    prepared(place, monkeypatch)
    first = DATA["tfds"](dataset="mnist").fingerprint
    (place / "data" / "mnist").rename(place / "data" / "before")
    prepared(place, monkeypatch)
    assert DATA["tfds"](dataset="mnist").fingerprint != first


def test_what_is_prepared_on_first_use_is_said(place, monkeypatch):
    _, files = digits()
    publish(monkeypatch, place / "data" / "downloads" / "manual" / "mnist", files)
    with pytest.warns(DataWarning, match="mnist was not prepared yet, and is now, in"):
        DATA["tfds"](dataset="mnist")


def test_an_experiment_trains_on_it(place, monkeypatch):
    prepared(place, monkeypatch)
    experiment = Experiment(
        data={"name": "tfds", "dataset": "mnist"},
        model={"name": "mlp", "hidden": [4]},
        loss="softmax_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.1},
        batch_size=8,
        epochs=1,
    )
    task, setup, dataset = from_experiment(experiment)
    assert setup.inputs == (28, 28, 1)
    assert setup.outputs == 10
    assert len(task.test.x) == 20


def stock(place, features, examples, name="made_up", supervised=None, config=None):
    """A prepared data set of the given features: split -> examples."""
    import tensorflow_datasets as tfds

    chosen_name = name

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = chosen_name
        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description="made up",
                features=tfds.features.FeaturesDict(features(tfds)),
                supervised_keys=supervised,
            )

        def _split_generators(self, dl_manager):
            return {split: enumerate(rows) for split, rows in examples.items()}

        def _generate_examples(self):
            return iter(())

    builder = Builder(data_dir=place / "data", file_format="array_record")
    with raw.quietly(tfds):
        builder.download_and_prepare()


def numbers_and_label(tfds):
    return {
        "x": tfds.features.Tensor(shape=(3,), dtype=np.float32),
        "y": tfds.features.ClassLabel(num_classes=2),
    }


def table(rows):
    return [{"x": rng.normal(3, 2, 3).astype(np.float32), "y": k % 2} for k in range(rows)]


def test_a_table_of_the_catalogue_is_read_by_its_features(place):
    stock(
        place,
        lambda tfds: {
            "x": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "y": tfds.features.ClassLabel(names=["no", "yes"]),
            "note": tfds.features.Text(),
        },
        {
            "train": [row | {"note": "of no use"} for row in table(40)],
            "validation": [row | {"note": ""} for row in table(10)],
        },
    )
    made = DATA["tfds"](dataset="made_up", test=0.25)
    assert made.classes == ("no", "yes")
    assert {k: s.x.shape for k, s in made.splits.items()} == {
        "train": (30, 3),
        "valid": (10, 3),
        "test": (10, 3),
    }
    np.testing.assert_allclose(made.train.x.mean(0), 0, atol=1e-6)  # column by column
    np.testing.assert_allclose(made.train.x.std(0), 1, rtol=1e-6)


def test_values_are_predicted_from_values(place):
    stock(
        place,
        lambda tfds: {
            "height": tfds.features.Scalar(dtype=np.float64),
            "age": tfds.features.Scalar(dtype=np.int64),
            "name": tfds.features.Text(),
        },
        {"train": [{"height": k / 7, "age": k, "name": "A"} for k in range(20)]},
        supervised=("height", "age"),
    )
    made = DATA["tfds"](dataset="made_up")
    assert made.classes == ()
    assert made.train.x.shape == (16, 1)
    assert made.train.y.dtype == np.float32
    other = DATA["tfds"](dataset="made_up", target="height", inputs="age", standardized=False)
    np.testing.assert_allclose(other.train.y, other.train.x[:, 0] / 7, rtol=1e-6)
    told = refused(DATA["tfds"], dataset="made_up", target="name")
    assert told == (
        'data.target: "name" given; images, tensors and class labels are allowed, there are '
        'age (Scalar), height (Scalar), name (Text); did you mean "age"?'
    )


def test_several_candidates_are_not_guessed(place):
    stock(
        place,
        lambda tfds: {n: tfds.features.Scalar(dtype=np.float32) for n in "abc"},
        {"train": [dict.fromkeys("abc", 0.5 * k) for k in range(20)]},
    )
    told = refused(DATA["tfds"], dataset="made_up", target="a")
    assert told == "data.inputs: which feature? There are a (Scalar), b (Scalar), c (Scalar)"
    told = refused(DATA["tfds"], dataset="made_up", inputs="a")
    assert told == "data.target: which feature? There are a (Scalar), b (Scalar), c (Scalar)"
    assert DATA["tfds"](dataset="made_up", target="a", inputs="b").train.x.shape == (16, 1)


def test_images_of_several_sizes_are_refused(place):
    stock(
        place,
        lambda tfds: {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        },
        {
            "train": [
                {"image": raw.png(np.zeros((4, 4 + k % 2, 3), np.uint8)), "label": k % 2}
                for k in range(20)
            ]
        },
    )
    told = refused(DATA["tfds"], dataset="made_up")
    assert told.startswith("data.dataset: image has shapes (4, 4, 3), (4, 5, 3); a network takes")


def test_configs_and_versions_are_named(place):
    for config in ("small", "large"):
        stock(place, numbers_and_label, {"train": table(20)}, config=config)
    told = refused(DATA["tfds"], dataset="made_up")
    assert told.endswith("prepared in several configs: made_up/large, made_up/small")
    folder = place / "data" / "made_up" / "small"
    assert catalog.prepared("made_up/small", place / "data") == folder / "1.2.0"
    (folder / "1.2.0").rename(folder / "1.10.0")
    stock(place, numbers_and_label, {"train": table(20)}, config="small")
    assert catalog.prepared("made_up/small", place / "data") == folder / "1.10.0"
    older = catalog.prepared("made_up/small:1.2.0", place / "data")
    assert older == folder / "1.2.0"
    assert catalog.prepared("made_up/small:1.3.0", place / "data") is None
    assert refused(catalog.prepare, "mnist:2.0.0", place / "data") == (
        "data.dataset: mnist 2.0.0 given; prepared here is 3.0.1"
    )


def test_another_format_is_refused_in_words(place, monkeypatch):
    prepared(place, monkeypatch)
    info = place / "data" / "mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    told = refused(DATA["tfds"], dataset="mnist")
    assert "is in the format tfrecord, which cannot be read row by row" in told


def test_a_set_without_training_rows_or_text_is_refused(place):
    stock(place, numbers_and_label, {"test": table(20)})
    assert refused(DATA["tfds"], dataset="made_up") == (
        "data.dataset: made_up has no split train, only test"
    )
    assert refused(text_of, "made_up") == (
        "data.dataset: made_up has 0 texts in an example, one is needed; its features are x, y"
    )


# --- the command line ---------------------------------------------------------------------------


def call(capsys, *arguments):
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_data_are_prepared_and_listed_from_the_command_line(place, monkeypatch, capsys):
    _, files = digits()
    publish(monkeypatch, place / "raw", files)
    code, out, err = call(capsys, "data", "prepare", "mnist", "--manual-dir", str(place / "raw"))
    assert (code, err) == (0, f"preparing mnist in {place / 'data'} ...\n")
    folder = place / "data" / "mnist" / "3.0.1"
    assert out.startswith(f"mnist: train 40, test 20; in {folder} (")
    code, _, err = call(capsys, "data", "prepare", "mnist")
    assert (code, err) == (0, ""), "it is there already"
    code, out, _ = call(capsys, "data", "list")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"mnist 3.0.1, train 40, test 20, in {folder}" in lines
    assert "cifar10 not prepared: 60,000 colour images, 32 x 32" in lines
    assert "imdb_reviews" in out
    code, out, _ = call(capsys, "data", "list", "--data-dir", str(place / "empty"))
    assert "mnist not prepared" in " ".join(out.split())


def test_mistakes_leave_with_two_and_words(place, capsys):
    code, out, err = call(capsys, "data", "prepare", "mnits")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith('nnref: data.dataset: "mnits" is not in the catalogue')


def test_a_claim_whose_data_are_missing_is_skipped(place, monkeypatch, capsys):
    experiments = place / "experiments"
    experiments.mkdir()
    monkeypatch.chdir(place)
    small = {
        "data": "xor",
        "model": "linear",
        "loss": "sigmoid_cross_entropy",
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "batch_size": 4,
        "epochs": 1,
        "claim": {"metric": "train_loss", "at_most": 100, "in": 1, "of": 1},
    }
    far = small | {"data": {"name": "tfds", "dataset": "mnist"}}
    (experiments / "near.json").write_text(json.dumps(small))
    (experiments / "far.json").write_text(json.dumps(far))
    code, out, _ = call(capsys, "claims")
    assert code == 0
    assert "far   skipped   data: mnist is not prepared in" in out
    assert "near  held" in out
    assert out.endswith("every claim held; 1 skipped, their data are not here\n")
