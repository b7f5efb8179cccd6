"""Raw files: verified, fetched, and prepared without TensorFlow."""

import gzip
import hashlib
import http.server
import io
import itertools
import os
import sys
import tarfile
import threading
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from raw_files import NAMES, digits, publish, refused, rng

from nnref.cli import main
from nnref.data import DATA, catalog, raw
from nnref.data.text import text_of

SHARED = Path(os.environ.get("NNREF_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of data sets and a cache of its own; the network is cut."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(raw, "unreachable", lambda url: "there is no network")
    monkeypatch.setattr(catalog, "unreachable", lambda url: "there is no network")
    return tmp_path


def shared(name):
    """The folder of real raw files, or a skip that says so."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"no raw files in {SHARED / name}; NNREF_SHARED_DATA names another folder")
    return SHARED / name


# --- prepared from raw files --------------------------------------------------------------------


@pytest.mark.parametrize("where", ["given", "given/mnist", "data/downloads/manual/mnist"])
def test_mnist_comes_out_of_its_raw_files_as_it_went_in(place, monkeypatch, where):
    parts, files = digits()
    publish(monkeypatch, place / where, files)
    given = place / "given" if where.startswith("given") else None
    folder = catalog.prepare("mnist", catalog.data_folder(None), given)
    assert folder == place / "data" / "mnist" / "3.0.1"
    source = catalog.opened(folder)
    for split, (images, labels) in zip(("train", "test"), parts, strict=True):
        x, y = catalog.joined(catalog.Records(source.as_data_source(split), "image", "label"))
        # TFDS shuffles once, when it prepares.
        found = sorted(zip(map(np.ndarray.tobytes, x), y.tolist(), strict=True))
        assert found == sorted(zip(map(np.ndarray.tobytes, images), labels.tolist(), strict=True))
        assert x.shape[1:] == (28, 28, 1)
    assert "tensorflow" not in sys.modules


def test_cifar_has_its_colours_and_ids(place, monkeypatch):
    images = rng.integers(0, 256, (6, 32, 32, 3), np.uint8)
    labels = np.array([3, 1, 4, 1, 5, 9], np.uint8)
    rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(6, -1)], axis=1)
    file = io.BytesIO()
    names = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, row in zip(names, rows, strict=True):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = row.size
            archive.addfile(member, io.BytesIO(row.tobytes()))
    publish(monkeypatch, place / "raw", {"cifar-10-binary.tar.gz": file.getvalue()})
    builder = catalog.opened(catalog.prepare("cifar10", place / "data", place / "raw"))
    train = {e["id"].decode(): e for e in builder.as_data_source("train")}
    assert sorted(train) == [f"train_0000{k}" for k in range(5)]
    for k in range(5):
        np.testing.assert_array_equal(train[f"train_0000{k}"]["image"], images[k])
        assert train[f"train_0000{k}"]["label"] == labels[k]
    assert builder.info.features["label"].names[3] == "cat"
    [test] = builder.as_data_source("test")
    np.testing.assert_array_equal(test["image"], images[5])


def test_a_text_is_cut_in_three_and_nothing_is_lost(place, monkeypatch):
    text = "To be, or not to be: «that» is the question.\n" * 50
    publish(monkeypatch, place / "raw", {"input.txt": text.encode()})
    catalog.prepare("tiny_shakespeare", place / "data", place / "raw")
    parts = text_of("tiny_shakespeare")
    assert list(parts) == ["train", "valid", "test"]
    assert "".join(parts.values()) == text
    assert len(parts["train"]) == int(0.9 * len(text))
    assert len(parts["valid"]) == len(text) // 20


def test_the_files_of_tfds_are_registered_with_their_sums():
    assert {file.name for file in raw.registered("mnist")} == set(NAMES)
    assert raw.registered("fashion_mnist") != raw.registered("mnist")
    [text] = raw.registered("tiny_shakespeare")
    assert (text.name, text.size) == ("input.txt", 1115394)
    [cifar] = raw.registered("cifar10")
    assert cifar.name == "cifar-10-binary.tar.gz"
    for file in [text, cifar]:
        assert len(file.sha256) == 64
        assert file.url.startswith("http")


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "tiny_shakespeare"])
def test_the_real_raw_files_are_those_that_are_registered(dataset, place):
    folder = shared(dataset)
    found = raw.raw_files(dataset, place / "data", folder)
    assert found == {file.name: folder / file.name for file in raw.registered(dataset)}


def test_tiny_shakespeare_is_prepared_from_its_real_file(place):
    folder = shared("tiny_shakespeare")
    catalog.prepare("tiny_shakespeare", place / "data", folder)
    parts = text_of("tiny_shakespeare")
    assert "".join(parts.values()) == (folder / "input.txt").read_text()
    assert parts["train"].startswith("First Citizen:\nBefore we proceed any further")


def test_mnist_is_read_from_its_real_files(place, monkeypatch):
    files = raw.raw_files("mnist", place / "data", shared("mnist"))
    for part, rows in (("train", 60000), ("t10k", 10000)):
        assert raw.read_idx(files[f"{part}-images-idx3-ubyte.gz"]).shape == (rows, 28, 28)
    numbers = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(raw.read_idx(files["t10k-labels-idx1-ubyte.gz"])).tolist() == numbers
    # Of all 70,000 the first 20 of each part, for the sake of time.
    cut = raw.images_of_idx

    def first(files):
        return {split: itertools.islice(rows, 20) for split, rows in cut(files).items()}

    monkeypatch.setitem(raw.OWN, "mnist", raw.OWN["mnist"]._replace(examples=first))
    catalog.prepare("mnist", place / "data", shared("mnist"))
    made = DATA["tfds"](dataset="mnist", valid=0.0, standardized=False)
    stored = raw.read_idx(files["t10k-images-idx3-ubyte.gz"])[:20]
    found = {image.tobytes() for image in np.round(255 * made.test.x[..., 0]).astype(np.uint8)}
    assert found == {image.tobytes() for image in stored}


# --- refused ------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_refused(place, monkeypatch):
    _, files = digits()
    folder = publish(monkeypatch, place / "raw", files)
    spoilt = bytearray(files[NAMES[1]])
    spoilt[20] ^= 1
    (folder / NAMES[1]).write_bytes(spoilt)
    told = refused(catalog.prepare, "mnist", place / "data", folder)
    assert told.startswith(f"data: {folder / NAMES[1]} ({len(spoilt)} bytes) is not {NAMES[1]} of")
    assert hashlib.sha256(files[NAMES[1]]).hexdigest()[:12] in told
    assert "http://nowhere.invalid/train-labels" in told
    assert not (place / "data" / "mnist").exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no archive", "is no readable .gz file"),
        (
            gzip.compress(b"\0\0\x0d\x01\0\0\0\x04" + bytes(4)),
            "is no array of bytes in the IDX format",
        ),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"), "is no array of bytes in the IDX format"),
    ],
    ids=["no archive", "no bytes", "too short"],
)
def test_a_file_that_is_no_idx_array_is_refused(place, content, text):
    (place / "file.gz").write_bytes(content)
    assert text in refused(raw.read_idx, place / "file.gz")


# --- the network --------------------------------------------------------------------------------


@pytest.fixture
def server(place):
    """A server of the files in a folder, on this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(place / "server"))

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/"
        serving.shutdown()


UNREACHABLE = raw.unreachable


def test_files_that_are_nowhere_are_fetched_and_verified(place, server, monkeypatch):
    monkeypatch.setattr(raw, "unreachable", UNREACHABLE)
    monkeypatch.setenv("no_proxy", "*")
    text = "A horse! " * 100
    publish(monkeypatch, place / "server", {"input.txt": text.encode()}, server)
    catalog.prepare("tiny_shakespeare", place / "data")
    kept = place / "data" / "downloads" / "manual" / "tiny_shakespeare" / "input.txt"
    assert kept.read_text() == text
    (place / "server" / "input.txt").write_text("My kingdom!")
    kept.unlink()
    told = refused(catalog.prepare, "tiny_shakespeare", place / "other")
    assert "is not input.txt of 900 bytes" in told
    assert not list((place / "other").rglob("*input.txt*"))
    (place / "server" / "input.txt").unlink()
    told = refused(catalog.prepare, "tiny_shakespeare", place / "other", kind=raw.DataMissing)
    assert "127.0.0.1 cannot be reached (" in told


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_server_that_refuses_leaves_no_connection_open(place, server, monkeypatch, method):
    publish(monkeypatch, place / "raw", {"input.txt": b"text"}, server)
    [file] = raw.registered("tiny_shakespeare")
    monkeypatch.setenv("no_proxy", "*")
    urlopen, errors = raw.urllib.request.urlopen, []

    def recorded(*arguments, **keys):
        try:
            return urlopen(*arguments, **keys)
        except urllib.error.HTTPError as error:
            errors.append(error)
            raise

    monkeypatch.setattr(raw.urllib.request, "urlopen", recorded)
    if method == "HEAD":
        assert "127.0.0.1 cannot be reached (" in UNREACHABLE(file.url)
    else:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            raw.download(file, place / "here")
    assert [(error.code, error.closed) for error in errors] == [(404, True)]


def test_a_download_that_breaks_off_leaves_nothing_and_says_what_to_do(place, monkeypatch):
    publish(monkeypatch, place / "server", {"input.txt": b"text"})
    monkeypatch.setattr(raw, "unreachable", lambda url: "")

    def broken(url, timeout):
        raise urllib.error.URLError("connection reset")

    monkeypatch.setattr(raw.urllib.request, "urlopen", broken)
    told = refused(catalog.prepare, "tiny_shakespeare", place / "data", kind=raw.DataMissing)
    assert "http://nowhere.invalid/input.txt could not be downloaded" in told
    assert "put input.txt into" in told
    assert not list((place / "data").rglob("*.partial"))


def silent(*_, **__):
    """Looking up a name that nobody answers; the thread that does it is left behind."""
    time.sleep(30)
    raise urllib.error.URLError("timed out")


def without_route(*_, **__):
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize("urlopen", [silent, without_route])
def test_the_failure_comes_within_five_seconds(place, monkeypatch, urlopen):
    monkeypatch.setattr(raw, "unreachable", UNREACHABLE)
    monkeypatch.setattr(raw.urllib.request, "urlopen", urlopen)
    import tensorflow_datasets  # noqa: F401 (its import is not what is measured)

    began = time.monotonic()
    told = refused(DATA["tfds"], dataset="mnist", kind=raw.DataMissing)
    assert time.monotonic() - began < 5
    assert "no answer within 3 s" in told or "(no route to host)" in told


# --- the command line ---------------------------------------------------------------------------


def call(capsys, *arguments):
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err
