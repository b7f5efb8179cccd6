"""Raw files, and the data sets that are prepared from them without TensorFlow.

`prepare_own` writes what TFDS itself would write, under the same name and version and with the same
features, so that both read it. Only its image encoder needs TensorFlow: Pillow writes the same PNG.
"""

import contextlib
import gzip
import hashlib
import importlib
import importlib.util
import io
import os
import shutil
import tarfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnref.errors import UserError

PROBE = 3.0  # seconds that a server may take to answer at all
STALL = 30.0  # seconds without a byte that end a download
Examples = Iterator[dict[str, Any]]


class DataMissing(UserError):
    """Data that are not on this machine, and cannot be fetched now."""


def catalogue_folder() -> Path:
    """Where the package tensorflow_datasets is: to import it takes seconds.

    Raises:
        DataMissing: where it is not installed.
    """
    package = importlib.util.find_spec("tensorflow_datasets")
    if package is None or package.origin is None:
        raise DataMissing(
            "data: the data sets of the TensorFlow Datasets catalogue need one more package: "
            'pip install "nnref[data]"'
        )
    return Path(package.origin).parent


def catalogue() -> Any:
    """The package tensorflow_datasets, imported by those alone who use it.

    Raises:
        DataMissing: where it is not installed.
    """
    catalogue_folder()
    return importlib.import_module("tensorflow_datasets")


# --- raw files ----------------------------------------------------------------------------------


class RawFile(NamedTuple):
    """A file as its publisher gives it away."""

    url: str
    size: int
    sha256: str
    name: str


def registered(dataset: str) -> list[RawFile]:
    """The raw files of a data set, as TFDS registers them; empty where it does not."""
    root = catalogue_folder()
    places = [root / f"url_checksums/{dataset}.txt", root / f"datasets/{dataset}/checksums.tsv"]
    lines = [line for place in places if place.is_file() for line in place.read_text().splitlines()]
    rows = [line.split("\t") for line in lines if line]
    return [RawFile(url, int(size), sha256, name) for url, size, sha256, name in rows]


def raw_files(dataset: str, data_dir: Path, manual_dir: Path | None) -> dict[str, Path]:
    """The raw files of a data set by name, verified; downloaded where they are not here yet.

    Raises:
        DataMissing: for files that are nowhere, and no network.
        UserError: for a file that is not the one that TFDS registers.
    """
    if manual_dir is not None and not manual_dir.is_dir():
        raise UserError(f"--manual-dir: there is no folder {manual_dir.resolve()}")
    # Several data sets call their files the same: each has a folder of its own.
    own = data_dir / "downloads" / "manual" / dataset
    folders = [own, own.parent]
    if manual_dir is not None:
        folders = [manual_dir, manual_dir / dataset, *folders]
    paths, missing = {}, []
    for file in registered(dataset):
        path = next((f / file.name for f in folders if (f / file.name).is_file()), None)
        if path is None:
            missing.append(file)
        else:
            refuse_other(path, file)
            paths[file.name] = path
    reason = unreachable(missing[0].url) if missing else ""
    for file in missing:
        try:
            if not reason:
                paths[file.name] = download(file, own)
        except OSError as error:
            reason = f"{file.url} could not be downloaded: {error}"
    if reason:
        raise DataMissing(
            f"data: {dataset} is not prepared in {data_dir}, and {reason}; put "
            f"{', '.join(file.name for file in missing)} into {own}, or name their folder: "
            f"nnref data prepare {dataset} --manual-dir DIR"
        )
    return paths


def refuse_other(path: Path, file: RawFile) -> None:
    """Raise where a file is not, byte for byte, the one that is registered."""
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        raise UserError(
            f"data: {path} ({path.stat().st_size} bytes) is not {file.name} of {file.size} bytes "
            f"as it is published: its SHA-256 is {digest[:12]}..., registered is "
            f"{file.sha256[:12]}...; get it again from {file.url}"
        )


def unreachable(url: str) -> str:
    """Why a server cannot be reached now, in words, or nothing; known within `PROBE` seconds."""
    host = urllib.parse.urlsplit(url).hostname
    answers: list[str] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with answer_of(request, PROBE):
                answers.append("")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            answers.append(f"{host} cannot be reached ({reason})")

    # In a thread that may be left behind: looking up a name knows no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE)
    return answers[0] if answers else f"{host} gave no answer within {PROBE:g} s"


def answer_of(request: str | urllib.request.Request, timeout: float) -> Any:
    """The answer of a server, open; one that refuses is closed before its error is raised.

    An `HTTPError` is itself an answer that can be read, and so it holds a connection.

    Raises:
        OSError: for a server that cannot be reached, and one that refuses.
    """
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise


def download(file: RawFile, folder: Path) -> Path:
    """A raw file, fetched and verified; it takes its name only once it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{file.name}.{os.getpid()}.partial"
    try:
        with answer_of(file.url, STALL) as answer, partial.open("wb") as copy:
            shutil.copyfileobj(answer, copy)
        refuse_other(partial, file)
        return partial.rename(folder / file.name)
    finally:
        partial.unlink(missing_ok=True)


# --- formats ------------------------------------------------------------------------------------


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the format of MNIST: magic number, sizes of the axes, content.

    Raises:
        UserError: for a file that is no such array.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"data: {path} is no readable .gz file: {error}") from None
    axes = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content[4 : 4 + 4 * axes], ">u4")
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if axes == 0 or len(body) != np.prod(shape, dtype=np.int64):
        raise UserError(f"data: {path} is no array of bytes in the IDX format")
    return body.reshape(tuple(shape))


def images_of_idx(files: Mapping[str, Path]) -> dict[str, Examples]:
    """MNIST and what has its format."""

    def examples(prefix: str) -> Examples:
        images = read_idx(files[f"{prefix}-images-idx3-ubyte.gz"])
        labels = read_idx(files[f"{prefix}-labels-idx1-ubyte.gz"])
        for image, label in zip(images, labels, strict=True):
            yield {"image": png(image), "label": int(label)}

    return {"train": examples("train"), "test": examples("t10k")}


def images_of_cifar(files: Mapping[str, Path]) -> dict[str, Examples]:
    """CIFAR-10: a byte of label, then 32 x 32 bytes each of red, green and blue."""
    archive = files["cifar-10-binary.tar.gz"]
    names = {
        "train": [f"data_batch_{number}.bin" for number in range(1, 6)],
        "test": ["test_batch.bin"],
    }

    def examples(split: str) -> Examples:
        number = 0
        with tarfile.open(archive) as members:
            for name in names[split]:
                content = members.extractfile(f"cifar-10-batches-bin/{name}")
                assert content is not None
                for row in np.frombuffer(content.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32):
                    image = png(row[1:].reshape(3, 32, 32).transpose(1, 2, 0))
                    yield {"id": f"{split}_{number:05d}", "image": image, "label": int(row[0])}
                    number += 1

    return {split: examples(split) for split in names}


def text_in_three(files: Mapping[str, Path]) -> dict[str, Examples]:
    """One text, cut as TFDS cuts it: 90 % for training, the rest in two halves."""
    text = files["input.txt"].read_text(encoding="utf-8")
    train = int(0.9 * len(text))
    valid = train + int(0.5 * (len(text) - train))
    cut = {"train": text[:train], "validation": text[train:valid], "test": text[valid:]}
    return {split: iter([{"text": part}]) for split, part in cut.items()}


def png(image: np.ndarray) -> bytes:
    """An image of bytes, (height, width) grey or (height, width, 3), as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


# --- data sets of our own preparation -----------------------------------------------------------


class Own(NamedTuple):
    """How a data set of the catalogue is prepared here."""

    version: str
    examples: Callable[[Mapping[str, Path]], dict[str, Examples]]
    about: str
    image: tuple[int, ...] = ()  # without one, it is text
    classes: Sequence[str] = tuple("0123456789")
    numbered: bool = False  # whether examples have an `id`


FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CIFAR = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

OWN = {
    "mnist": Own("3.0.1", images_of_idx, "70,000 handwritten digits, 28 x 28", (28, 28, 1)),
    "fashion_mnist": Own(
        "3.0.1", images_of_idx, "70,000 pictures of clothes, 28 x 28", (28, 28, 1), FASHION
    ),
    "cifar10": Own(
        "3.0.2", images_of_cifar, "60,000 colour images, 32 x 32", (32, 32, 3), CIFAR, True
    ),
    "tiny_shakespeare": Own("1.0.0", text_in_three, "1,115,394 characters of plays"),
}


def prepare_own(dataset: str, data_dir: Path, manual_dir: Path | None) -> None:
    """Prepare a data set of `OWN` in `data_dir`, in the format array_record.

    Raises:
        DataMissing: for files that are nowhere, and no network.
        UserError: for files that are others than TFDS registers, and a folder that is not writable.
    """
    own = OWN[dataset]
    files = raw_files(dataset, data_dir, manual_dir)
    tfds = catalogue()

    kinds: dict[str, Any] = {"id": tfds.features.Text()} if own.numbered else {}
    if own.image:
        kinds["image"] = tfds.features.Image(shape=own.image)
        kinds["label"] = tfds.features.ClassLabel(names=list(own.classes))
    else:
        kinds["text"] = tfds.features.Text()

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        """The builder of this data set that TFDS would have without TensorFlow."""

        name = dataset
        VERSION = tfds.core.Version(own.version)

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=own.about,
                features=tfds.features.FeaturesDict(kinds),
                supervised_keys=("image", "label") if own.image else None,
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: enumerate(each) for split, each in own.examples(files).items()}

        def _generate_examples(self) -> Any:
            raise AssertionError("the generators are given with the splits")

    try:
        builder = Builder(data_dir=data_dir, file_format="array_record")
        with quietly(tfds):
            builder.download_and_prepare()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"data: {data_dir} cannot be written: {reason}") from None


@contextlib.contextmanager
def quietly(tfds: Any) -> Iterator[None]:
    """TFDS without its bars and banners; what we have to say is said by the command line."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
