"""Folders of images, as they come and as they should not."""

import json

import numpy as np
import pytest
from PIL import Image
from written import refused, told_of

import nnref
from nnref.cli import main
from nnref.data import DATA, DataWarning
from nnref.data.files import file
from nnref.data.folders import header_of

rng = np.random.default_rng(0)


def put(path, shape=(12, 10, 3), **how):
    """An image of random bytes, and these bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = rng.integers(0, 256, shape, np.uint8)
    Image.fromarray(array).save(path, **how)
    return array


def classes(folder, count=20, shape=(12, 10, 3)):
    """Images of two classes, by their place below the folder."""
    names = [f"{kind}/{i:02}.png" for kind in ("cat", "dog") for i in range(count)]
    return {name: put(folder / name, shape) for name in names}


def read(folder, **keys):
    return DATA["file"](path=str(folder), **keys)


def test_the_folder_of_an_image_is_its_class(tmp_path):
    written = classes(tmp_path)
    put(tmp_path / "cat" / "more" / "deep.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image either")
    made = read(tmp_path, standardized=False)
    assert made.classes == ("cat", "dog")
    assert made.notes[0] == "folders: 2 classes (cat, dog)"
    assert made.notes[2] == "images: 12 high, 10 wide, in colour"
    assert len(made.files) == 41
    rows = 0
    for name, split in made.splits.items():
        for x, y, place in zip(*split, made.places[name], strict=True):
            own = made.files[place - 1]
            assert made.classes[y] == own.split("/")[0]
            if own in written:
                np.testing.assert_array_equal(x, written[own])
                rows += 1
    assert rows == 40


def test_pixels_are_standardized_channel_by_channel_as_those_of_an_archive(tmp_path):
    classes(tmp_path)
    made = read(tmp_path)
    assert made.train.x.dtype == np.float32
    np.testing.assert_allclose(made.train.x.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(made.train.x.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val", "test")])
def test_folders_of_splits_stand_above_the_classes(tmp_path, names):
    for name in names:
        classes(tmp_path / name, 10)
    made = read(tmp_path)
    assert set(made.splits) == {"train", "valid", "test"}
    assert {made.files[place - 1].split("/")[0] for place in made.places["test"]} == {"test"}
    own = {made.files[place - 1].split("/")[0] for place in made.places["valid"]}
    assert own == {names[-2]}, "without a folder of their own they are taken from training"


def test_a_class_may_be_called_train(tmp_path):
    for kind in ("bus", "train"):
        for i in range(10):
            put(tmp_path / kind / f"{i}.png")
    assert read(tmp_path).classes == ("bus", "train")


def test_sizes_that_differ_are_refused_with_the_words_that_work(tmp_path):
    classes(tmp_path)
    put(tmp_path / "dog" / "99.png", (30, 40, 3))
    told = refused(file, path=str(tmp_path))
    assert told == (
        f"data.path: the images in {tmp_path} have 2 sizes: 40 of 41 are 12 high and 10 wide, "
        f'{tmp_path / "dog" / "99.png"} is 30 high and 40 wide; write "resize": [12, 10]'
    )
    made = read(tmp_path, resize=(12, 10))
    assert made.train.x.shape[1:] == (12, 10, 3)
    assert made.notes[2].endswith("; 1 of 41 are resized")
    assert read(tmp_path, resize=(8,)).train.x.shape[1:] == (8, 8, 3)
    assert "height and width are two numbers" in refused(file, path=str(tmp_path), resize=(1, 2, 3))


def test_grey_images_have_one_channel_and_a_mixture_is_told(tmp_path):
    classes(tmp_path, shape=(12, 10))
    assert read(tmp_path).train.x.shape[1:] == (12, 10, 1)
    assert read(tmp_path, colors="rgb").train.x.shape[1:] == (12, 10, 3)
    put(tmp_path / "dog" / "99.png")
    (told,) = told_of(path=str(tmp_path))
    assert told.startswith("data: 40 of 41 images are grey, and read in three equal colours")
    assert read(tmp_path, colors="grey").train.x.shape[1:] == (12, 10, 1)


def test_what_is_transparent_lies_on_white_and_what_was_turned_is_upright(tmp_path):
    classes(tmp_path)
    clear = np.zeros((12, 10, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "dog" / "clear.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    put(tmp_path / "dog" / "turned.png", (10, 12, 3), exif=turned)
    assert header_of(tmp_path / "dog" / "turned.png").size == (12, 10)
    with pytest.warns(DataWarning, match="1 of 42 images may be transparent; white is put behind"):
        made = read(tmp_path, standardized=False, valid=0, test=0)
    place = 1 + made.files.index("dog/clear.png")
    assert (made.train.x[made.places["train"] == place] == 255).all()


def test_what_is_no_image_is_refused_by_name(tmp_path):
    classes(tmp_path)
    whole = (tmp_path / "cat" / "00.png").read_bytes()
    for content in (b"hello", whole[:100], b""):
        bad = tmp_path / "cat" / "zz.png"
        bad.write_bytes(content)
        told = refused(file, path=str(tmp_path))
        assert told.startswith(f"data.path: {bad} is no readable image (")
        assert told.endswith("; mend it, or take it away")
    Image.fromarray(np.zeros((12, 10), np.uint16)).save(bad)
    assert "more than 8 bits a pixel" in refused(file, path=str(tmp_path))


def test_folders_without_classes_and_keys_without_a_meaning_are_refused(tmp_path):
    assert "holds no folders of images" in refused(file, path=str(tmp_path))
    put(tmp_path / "a.png")
    assert "holds 1 images and no folders of them" in refused(file, path=str(tmp_path))
    classes(tmp_path)
    with pytest.warns(DataWarning, match="1 images lie beside the classes"):
        read(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.warns(DataWarning, match="no images in empty of"):
        read(tmp_path)
    path = str(tmp_path)
    assert "the folders of images are the classes" in refused(file, path=path, target="y")
    assert refused(file, path=path, fill="mean") == (
        "data.fill: it is about the columns of a table, and not of a folder of images"
    )
    table = tmp_path / "table.csv"
    table.write_text("a,y\n1,2\n")
    assert refused(file, path=str(table), target="y", resize=(3,)) == (
        "data.resize: it is about images in a folder, and not of a file"
    )
    assert refused(file, path=str(table)) == (
        f"data.target: name what is to be predicted; the columns of {table} are a, y"
    )
    classes(tmp_path / "train")
    assert "has folders of splits (train) beside others (cat, dog, empty)" in refused(
        file, path=path
    )


@pytest.mark.filterwarnings("ignore::nnref.data.prepare.DataWarning")
def test_a_run_of_images_and_what_it_says_of_new_ones(tmp_path, monkeypatch, capsys):
    """The experiment and the folder of its images have one name, as a newcomer gives them."""
    monkeypatch.chdir(tmp_path)
    for kind, low in (("dark", 0), ("light", 150)):
        for i in range(20):
            (tmp_path / "shades" / kind).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(low, low + 100, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shades" / kind / f"{i}.png")
    Image.fromarray(np.full((16, 16), 10, np.uint8)).save(tmp_path / "shades" / "dark" / "99.png")
    data = {"name": "file", "path": "shades", "resize": 8}
    content = {"data": data, "model": {"name": "linear"}}
    content |= {"loss": "softmax_cross_entropy", "batch_size": 8, "epochs": 20}
    content |= {"optimizer": {"name": "adam", "learning_rate": 0.01}}
    (tmp_path / "shades.json").write_text(json.dumps(content))
    done = nnref.run("shades.json", logbook=tmp_path / "logbook")
    assert done.history["valid_accuracy"][0, -1] == 1
    Image.fromarray(np.full((16, 16), 10, np.uint8)).save(tmp_path / "new.png")
    assert main(["predict", "shades", "shades/light"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "shades/light/0.png,light"
    assert main(["predict", "shades", "new.png"]) == 0
    said = capsys.readouterr()
    assert said.out == "new.png,dark\n"
    assert main(["data", "look", "shades.json"]) == 0
    assert "folders: 2 classes (dark, light)" in capsys.readouterr().out
