"""Raw files of a data set like MNIST, laid into a folder and registered as if they were known."""

import gzip
import hashlib

import numpy as np
import pytest

from nnref.data import raw
from nnref.errors import UserError

rng = np.random.default_rng(0)
NAMES = [
    f"{part}-{content}-ubyte.gz"
    for part in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
]


def idx(array):
    """A file of the IDX format."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes())


def digits(rows=(40, 20)):
    """Arrays like those of MNIST, and their four files."""
    parts = [
        (rng.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8) % 10)
        for n in rows
    ]
    return parts, dict(zip(NAMES, [idx(array) for part in parts for array in part], strict=True))


def publish(monkeypatch, folder, files, url="http://nowhere.invalid/"):
    """Lay files into a folder and register them as what TFDS knows of a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rows = [
        raw.RawFile(url + name, len(content), hashlib.sha256(content).hexdigest(), name)
        for name, content in files.items()
    ]
    monkeypatch.setattr(raw, "registered", lambda dataset: rows)
    return folder


def refused(call, *arguments, kind=UserError, **keys):
    with pytest.raises(kind) as error:
        call(*arguments, **keys)
    return str(error.value)
