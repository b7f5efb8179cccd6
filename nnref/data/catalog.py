"""The catalogue of TFDS: prepared data sets as arrays, and what prepares them.

A data set is looked for in this order: prepared in `data_dir`; its raw files; the network. Without
all three the error says which files to put where, within seconds: TFDS itself would wait minutes.
"""

import hashlib
import importlib.util
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnref.bounds import Index, Probability
from nnref.data.prepare import (
    Dataset,
    Split,
    Stored,
    first_five,
    host_memory,
    scale_of,
    split_rows,
    warn,
)
from nnref.data.raw import OWN, DataMissing, catalogue, prepare_own, quietly, unreachable
from nnref.errors import UserError, nearest

BLOCK = 4096  # records read at once: one by one takes ten times as long
LOOKED_AT = 10_000  # training rows at most that mean and deviation are taken from
NUMBERS = 2**27  # numbers at most in those rows: a gigabyte
VERSION = re.compile(r"\d+\.\d+\.\d+")


# --- where data sets are ------------------------------------------------------------------------


def data_folder(data_dir: str | Path | None) -> Path:
    """The folder of prepared data sets: the given one, else that of TFDS."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser().absolute()


def parsed(dataset: str) -> tuple[str, str, str]:
    """Name, config and version of "name", "name/config" or "name/config:1.0.0"."""
    path, _, version = dataset.partition(":")
    name, _, config = path.partition("/")
    return name, config, version


def known() -> list[str]:
    """The names of the catalogue."""
    tfds = catalogue()

    # Without TensorFlow some builders cannot be imported; their checksums are there all the same.
    sums = (Path(tfds.__file__).parent / "url_checksums").glob("*.txt")
    builders = tfds.list_builders(with_community_datasets=False)
    return sorted({*OWN, *builders, *(path.stem for path in sums)})


def versions(folder: Path) -> list[Path]:
    """The prepared versions in a folder, oldest first."""
    entries = folder.iterdir() if folder.is_dir() else ()
    complete = [p for p in entries if VERSION.fullmatch(p.name) and (p / "features.json").is_file()]
    return sorted(complete, key=lambda path: tuple(map(int, path.name.split("."))))


def prepared(dataset: str, data_dir: Path) -> Path | None:
    """The folder of a prepared data set, the newest version; None where there is none.

    Raises:
        UserError: for one of several configs, or in another format than array_record.
    """
    name, config, version = parsed(dataset)
    folder = data_dir / name / config
    if not config and not versions(folder) and folder.is_dir():
        configs = sorted(path.name for path in folder.iterdir() if versions(path))
        if len(configs) > 1:
            allowed = ", ".join(f"{name}/{one}" for one in configs)
            raise UserError(f"data.dataset: {name} is prepared in several configs: {allowed}")
        folder = folder / configs[0] if configs else folder
    candidates = [path for path in versions(folder) if version in ("", path.name)]
    if not candidates:
        return None
    newest = candidates[-1]
    written = info_of(newest).get("fileFormat", "tfrecord")
    if written != "array_record":
        raise UserError(
            f"data: {newest} is in the format {written}, which cannot be read row by row; "
            "prepare it in array_record, in another data_dir"
        )
    return newest


def prepare(dataset: str, data_dir: Path, manual_dir: Path | None = None) -> Path:
    """The folder of a data set, prepared now where it was not.

    Raises:
        DataMissing: where there are neither files nor a network.
        UserError: for an unknown name, and what the files are refused for.
    """
    folder = prepared(dataset, data_dir)
    if folder is not None:
        return folder
    name, _, version = parsed(dataset)
    if name not in OWN:
        prepare_stock(dataset, data_dir, manual_dir)
    elif version in ("", OWN[name].version):
        prepare_own(name, data_dir, manual_dir)
    else:
        raise UserError(
            f"data.dataset: {name} {version} given; prepared here is {OWN[name].version}"
        )
    folder = prepared(dataset, data_dir)
    assert folder is not None, "what was just prepared is there"
    return folder


def prepare_stock(dataset: str, data_dir: Path, manual_dir: Path | None) -> None:
    """Prepare a data set with the builder of TFDS, which needs TensorFlow."""
    name = parsed(dataset)[0]
    names = known()
    if name not in names:
        raise UserError(
            f'data.dataset: "{name}" is not in the catalogue and not prepared in {data_dir}'
            f"{nearest(name, names)}; nnref data list shows all names"
        )
    unprepared = f"data: {dataset} is not prepared in {data_dir}"
    if importlib.util.find_spec("tensorflow") is None:
        raise DataMissing(
            f"{unprepared}, and to prepare it needs TensorFlow: "
            f'pip install "nnref[prepare]", then nnref data prepare {dataset}'
        )
    tfds = catalogue()

    reason = unreachable("https://storage.googleapis.com/tfds-data/")
    if reason and manual_dir is None:
        raise DataMissing(
            f"{unprepared}, and {reason}; name the folder of its raw files: "
            f"nnref data prepare {dataset} --manual-dir DIR"
        )
    try:
        builder = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        with quietly(tfds):
            builder.download_and_prepare(download_config=config)
    # Hundreds of builders raise whatever they like.
    except Exception as error:
        raise UserError(f"data: TFDS could not prepare {dataset}: {error}") from error


def listed(data_dir: Path) -> list[tuple[str, str, Path | None]]:
    """Name, state in words and folder of what is prepared, and of what is prepared here."""
    rows: dict[str, tuple[str, str, Path | None]] = {
        name: (name, f"not prepared: {own.about}", None) for name, own in OWN.items()
    }
    for folder in sorted(data_dir.iterdir()) if data_dir.is_dir() else ():
        for place in [folder, *sorted(p for p in folder.glob("*") if p.is_dir())]:
            for newest in versions(place)[-1:]:
                name = place.relative_to(data_dir).as_posix()
                rows[name] = (name, f"{newest.name}, {splits_in_words(newest)}", newest)
    return [rows[name] for name in sorted(rows)]


def info_of(folder: Path) -> dict[str, Any]:
    """What TFDS has written about a prepared data set."""
    with refusing_damage(folder):
        return json.loads((folder / "dataset_info.json").read_text())


def splits_in_words(folder: Path) -> str:
    """The rows of each split."""
    splits = info_of(folder).get("splits", ())
    rows = {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    return ", ".join(f"{name} {number:,}" for name, number in rows.items())


# --- records ------------------------------------------------------------------------------------


class Records(NamedTuple):
    """A split on disk, any rows of which can be read."""

    source: Any  # of TFDS, one dict an example
    inputs: str
    target: str

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: np.ndarray) -> Split:
        """Some rows as they are stored, in that order.

        Raises:
            UserError: for inputs of several shapes.
        """
        with refusing_damage("a record of the data set"):
            examples = self.source.__getitems__([int(row) for row in rows])
        x = [np.atleast_1d(example[self.inputs]) for example in examples]
        shapes = sorted({array.shape for array in x})
        if len(shapes) > 1:
            raise UserError(
                f"data.dataset: {self.inputs} has shapes {first_five(list(map(str, shapes)))}; "
                "a network takes one shape, and nothing is cut or scaled here"
            )
        return Split(np.stack(x), np.stack([np.asarray(each[self.target]) for each in examples]))

    def blocks(self) -> Iterator[Split]:
        """All rows in their order, a block at a time."""
        for first in range(0, len(self), BLOCK):
            yield self.read(np.arange(first, min(first + BLOCK, len(self))))


def opened(folder: Path) -> Any:
    """The builder of a prepared data set: its features and its records."""
    tfds = catalogue()
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # TFDS recommends OpenCV, which it does not need
    with refusing_damage(folder):
        return tfds.builder_from_directory(folder)


@contextmanager
def refusing_damage(what: object) -> Iterator[None]:
    """Turns whatever TFDS raises of files that are cut or damaged into one sentence.

    Raises:
        UserError: it.
    """
    try:
        yield
    except Exception as error:
        kind = type(error).__name__
        first = (str(error).splitlines() or [kind])[0]
        raise UserError(
            f"data.dataset: {what} cannot be read ({kind}: {first}); remove its folder, and "
            "prepare it again: nnref data prepare"
        ) from None


def chosen(builder: Any, inputs: str | None, target: str | None) -> tuple[str, str]:
    """The names of the features to learn from and to predict.

    Raises:
        UserError: where the data set leaves several to choose from, or they are no arrays.
    """
    tfds = catalogue()

    features = dict(sorted(builder.info.features.items()))
    keys = builder.info.supervised_keys
    if isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        inputs, target = inputs or keys[0], target or keys[1]
    kinds, text = tfds.features.Tensor | tfds.features.Image, tfds.features.Text
    arrays = [n for n, f in features.items() if isinstance(f, kinds) and not isinstance(f, text)]
    labels = [n for n in arrays if isinstance(features[n], tfds.features.ClassLabel)]
    target = target or (labels[0] if len(labels) == 1 else None)
    others = [n for n in arrays if n != target]
    inputs = inputs or (others[0] if len(others) == 1 else None)
    listing = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
    for name, feature in (("inputs", inputs), ("target", target)):
        if feature is None:
            raise UserError(f"data.{name}: which feature? There are {listing}")
        if feature not in arrays:
            raise UserError(
                f'data.{name}: "{feature}" given; images, tensors and class labels are allowed, '
                f"there are {listing}{nearest(feature, arrays)}"
            )
    assert inputs is not None
    assert target is not None
    return inputs, target


def cached(folder: Path, name: str, make: Callable[[], Split]) -> Split:
    """Arrays made of a prepared data set, from the user's cache where they were made before.

    Decoding 70,000 small images takes some ten seconds, reading them as one array none.
    """
    files = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    digest = hashlib.sha256(f"{folder} {files} {identified(folder)} {name}".encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nnref" / "data"
    place = cache / f"{digest[:20]}.npz"
    try:
        # NumPy leaves a file open that is no archive.
        with place.open("rb") as content, np.load(content) as arrays:
            return Split(arrays["x"], arrays["y"])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        made = make()  # not there, or damaged
    partial = place.with_suffix(f".{os.getpid()}.npz")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(partial, **made._asdict())
        partial.replace(place)
    except OSError:
        pass  # a full or read-only disk costs seconds next time, nothing more
    return made


def identified(folder: Path) -> str:
    """A digest of the description of a prepared data set, and of the sizes of its files."""
    sizes = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    words = [(folder / name).read_text() for name in ("dataset_info.json", "features.json")]
    return hashlib.sha256(f"{sizes} {words}".encode()).hexdigest()


# --- the member of the family -------------------------------------------------------------------


def tfds(
    *,
    dataset: str,
    data_dir: str | None = None,
    inputs: str | None = None,
    target: str | None = None,
    valid: Probability = 0.1,
    test: Probability = 0.1,
    standardized: bool = True,
    stream: bool | None = None,
    seed: Index = 0,
) -> Dataset:
    """A data set of the TensorFlow Datasets catalogue, such as "mnist" or "cifar10".

    Where it is not prepared yet, it is prepared on first use; `nnref data list` shows the names.
    Its own splits are kept; only what it lacks is taken from its training rows. Images
    have the shape (height, width, channels).

    Args:
        dataset: its name, "name/config" and "name:1.0.0" where there are several.
        data_dir: folder of prepared data sets; null for that of TFDS, ~/tensorflow_datasets.
        inputs: feature to learn from; null for what the data set declares.
        target: feature to predict; null for what the data set declares.
        valid: share of the training rows for validation, where it has no such split.
        test: share of the training rows for the test, where it has no such split.
        standardized: mean 0 and deviation 1, images channel by channel, other arrays column by
            column, by at most 10,000 training rows; else bytes from 0 to 1, all else as it is.
        stream: read training rows from disk when their turn comes; null where they would fill more
            than half of the memory.
        seed: of the split.
    """
    data = PreparedData(dataset, data_folder(data_dir), inputs, target, stream)
    # Numbers of rows are dealt out, so that the rows themselves may stay where they are.
    dealt = split_rows(
        np.arange(len(data.train)),
        data.labels(),
        valid=0.0 if "valid" in data.splits else valid,
        test=0.0 if "test" in data.splits else test,
        seed=seed,
        stratify=bool(data.classes),
    )
    trained = dealt.train.x
    sample = data.read(trained[looked_at(len(trained), data.train)])
    scale = scale_of(sample.x, standardized)
    rows_of = {part: split.x for part, split in dealt._asdict().items() if split}
    splits = {part: data.read(rows) for part, rows in rows_of.items() if part != "train"}
    splits |= {part: data.whole(part) for part in data.splits if part != "train"}
    splits["train"] = sample if data.from_disk else data.read(trained)
    scaled = {part: Split(scale(x), y) for part, (x, y) in splits.items()}

    def read_scaled(rows: np.ndarray) -> Split:
        x, y = data.read(trained[rows])
        return Split(scale(x), y)

    what = f"{identified(data.folder)} {data.names} {valid} {test} {standardized} {seed}"
    stored = Stored(len(trained), read_scaled, what) if data.from_disk else None
    return Dataset(**scaled, classes=data.classes, stored=stored)  # pyright: ignore[reportArgumentType]


class PreparedData:
    """A prepared data set, whose training rows are in memory or stay on disk.

    Its `splits` are records, by what they are for. `stream` says whether training rows stay on
    disk; None for whether they are too large.
    """

    def __init__(
        self,
        dataset: str,
        data_dir: Path,
        inputs: str | None,
        target: str | None,
        stream: bool | None,
    ):
        self.folder = prepare_now(dataset, data_dir)
        self.builder = opened(self.folder)
        self.names = chosen(self.builder, inputs, target)
        names = splits_of(dataset, self.builder)
        with refusing_damage(self.folder):
            sources = {part: self.builder.as_data_source(name) for part, name in names.items()}
            _ = [len(source) for source in sources.values()]
        self.splits = {part: Records(source, *self.names) for part, source in sources.items()}
        self.classes = tuple(
            getattr(self.builder.info.features[self.names[1]], "names", None) or ()
        )
        self.train = self.splits["train"]
        self.from_disk = too_large(self.train) if stream is None else stream
        self.in_memory = None if self.from_disk else self.whole("train")

    def typed(self, split: Split) -> Split:
        """The split with targets in the dtype of classes or values."""
        return Split(split.x, split.y.astype(np.int32 if self.classes else np.float32))

    def whole(self, part: str) -> Split:
        """All rows of a split."""
        name = f"{part} {self.names}"
        return self.typed(cached(self.folder, name, lambda: joined(self.splits[part])))

    def read(self, rows: np.ndarray) -> Split:
        """Some training rows, in that order."""
        if self.in_memory is None:
            return self.typed(self.train.read(rows))
        return Split(self.in_memory.x[rows], self.in_memory.y[rows])

    def labels(self) -> np.ndarray:
        """The labels of all training rows, (rows,); on disk, zeros where they are values."""
        if self.in_memory is not None:
            return self.in_memory.y
        if not self.classes:
            return np.zeros(len(self.train))
        return labels_of(self.folder, self.builder, self.train)


def too_large(records: Records) -> bool:
    """Whether the rows of a split would fill more than half of the memory, as float32."""
    import jax

    example = records.read(np.arange(1)).x
    host = host_memory()
    # A CPU does not say: its memory is that of the host.
    device = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", host)
    return 4 * example.size * len(records) > min(host, device) / 2


def looked_at(rows: int, records: Records) -> slice:
    """Evenly spaced training rows, from which mean and deviation are taken."""
    size = records.read(np.arange(1)).x.size
    number = max(1, min(rows, LOOKED_AT, NUMBERS // size))
    return slice(0, rows // number * number, rows // number)


def labels_of(folder: Path, builder: Any, records: Records) -> np.ndarray:
    """The labels of all training rows, read without decoding an image."""
    tfds = catalogue()

    features = builder.info.features
    undecoded = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    split = records.source.split
    source = builder.as_data_source(split, decoders=undecoded or None)
    labels = Records(source, records.target, records.target)

    def read() -> Split:
        return Split(np.zeros(0), joined(labels).y.astype(np.int32))

    return cached(folder, f"{split} labels {records.target}", read).y


def joined(records: Records) -> Split:
    """All rows of a split."""
    x, y = zip(*records.blocks(), strict=True)
    return Split(np.concatenate(x), np.concatenate(y))


def prepare_now(dataset: str, data_dir: Path) -> Path:
    """`prepare`, with a warning where the data set was not prepared yet."""
    was_prepared = prepared(dataset, data_dir) is not None
    folder = prepare(dataset, data_dir)
    if not was_prepared:
        warn(f"data: {dataset} was not prepared yet, and is now, in {folder}")
    return folder


SPLITS = {"train": ("train",), "valid": ("validation", "valid", "val"), "test": ("test",)}


def splits_of(dataset: str, builder: Any) -> dict[str, str]:
    """Which split of a data set is for training, and which for validation and test.

    Raises:
        UserError: for one without training rows.
    """
    splits = list(builder.info.splits)
    chosen = {p: next((n for n in names if n in splits), None) for p, names in SPLITS.items()}
    if chosen["train"] is None:
        raise UserError(f"data.dataset: {dataset} has no split train, only {', '.join(splits)}")
    return {part: name for part, name in chosen.items() if name is not None}
