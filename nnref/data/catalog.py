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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnref.bounds import Index, Probability
from nnref.data.files import averaged
from nnref.data.prepare import (
    Dataset,
    Split,
    Stored,
    mean_and_deviation,
    shortened,
    split_rows,
    warn,
)
from nnref.data.raw import OWN, DataMissing, prepare_own, quietly, unreachable
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
    import tensorflow_datasets as tfds

    # Without TensorFlow some builders cannot be imported; their checksums are there all the same.
    sums = (Path(tfds.__file__).parent / "url_checksums").glob("*.txt")
    builders = tfds.list_builders(with_community_datasets=False)
    return sorted({*OWN, *builders, *(path.stem for path in sums)})


def versions(folder: Path) -> list[Path]:
    """The prepared versions in a folder, oldest first."""
    there = folder.iterdir() if folder.is_dir() else ()
    complete = [p for p in there if VERSION.fullmatch(p.name) and (p / "features.json").is_file()]
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
    there = [path for path in versions(folder) if version in ("", path.name)]
    if not there:
        return None
    stored = json.loads((there[-1] / "dataset_info.json").read_text()).get("fileFormat", "tfrecord")
    if stored != "array_record":
        raise UserError(
            f"data: {there[-1]} is in the format {stored}, which cannot be read row by row; "
            "prepare it in array_record, in another data_dir"
        )
    return there[-1]


def prepare(dataset: str, data_dir: Path, manual_dir: Path | None = None) -> Path:
    """The folder of a data set, prepared now where it was not.

    Raises:
        DataMissing: where there are neither files nor a network.
        UserError: for an unknown name, and what the files are refused for.
    """
    there = prepared(dataset, data_dir)
    if there is not None:
        return there
    name, _, version = parsed(dataset)
    if name in OWN:
        if version not in ("", OWN[name].version):
            raise UserError(
                f"data.dataset: {name} {version} given; prepared here is {OWN[name].version}"
            )
        prepare_own(name, data_dir, manual_dir)
    else:
        prepare_stock(dataset, data_dir, manual_dir)
    there = prepared(dataset, data_dir)
    assert there is not None, "what was just prepared is there"
    return there


def prepare_stock(dataset: str, data_dir: Path, manual_dir: Path | None) -> None:
    """Prepare a data set with the builder of TFDS, which needs TensorFlow."""
    name = parsed(dataset)[0]
    names = known()
    if name not in names:
        raise UserError(
            f'data.dataset: "{name}" is not in the catalogue and not prepared in {data_dir}'
            f"{nearest(name, names)}; nnref data list shows all names"
        )
    here = f"data: {dataset} is not prepared in {data_dir}"
    if importlib.util.find_spec("tensorflow") is None:
        raise DataMissing(
            f"{here}, and to prepare it needs TensorFlow: "
            f'pip install "nnref[prepare]", then nnref data prepare {dataset}'
        )
    import tensorflow_datasets as tfds

    reason = unreachable("https://storage.googleapis.com/tfds-data/")
    if reason and manual_dir is None:
        raise DataMissing(
            f"{here}, and {reason}; name the folder of its raw files: "
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
            there = versions(place)
            if there:
                name = place.relative_to(data_dir).as_posix()
                rows[name] = (name, f"{there[-1].name}, {splits_in_words(there[-1])}", there[-1])
    return [rows[name] for name in sorted(rows)]


def splits_in_words(folder: Path) -> str:
    """The rows of each split."""
    info = json.loads((folder / "dataset_info.json").read_text())
    rows = {s["name"]: sum(map(int, s["shardLengths"])) for s in info.get("splits", ())}
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
        examples = self.source.__getitems__([int(row) for row in rows])
        x = [np.atleast_1d(example[self.inputs]) for example in examples]
        shapes = sorted({array.shape for array in x})
        if len(shapes) > 1:
            raise UserError(
                f"data.dataset: {self.inputs} has shapes {shortened(list(map(str, shapes)))}; "
                "a network takes one shape, and nothing is cut or scaled here"
            )
        return Split(np.stack(x), np.stack([np.asarray(each[self.target]) for each in examples]))

    def blocks(self) -> Iterator[Split]:
        """All rows in their order, a block at a time."""
        for first in range(0, len(self), BLOCK):
            yield self.read(np.arange(first, min(first + BLOCK, len(self))))


def opened(folder: Path) -> Any:
    """The builder of a prepared data set: its features and its records."""
    import tensorflow_datasets as tfds
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # TFDS recommends OpenCV, which it does not need
    return tfds.builder_from_directory(folder)


def chosen(builder: Any, inputs: str | None, target: str | None) -> tuple[str, str]:
    """The names of the features to learn from and to predict.

    Raises:
        UserError: where the data set leaves several to choose from, or they are no arrays.
    """
    import tensorflow_datasets as tfds

    features = dict(sorted(builder.info.features.items()))
    keys = builder.info.supervised_keys
    if isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        inputs, target = inputs or keys[0], target or keys[1]
    arrays = [
        n for n, f in features.items() if isinstance(f, tfds.features.Tensor | tfds.features.Image)
    ]
    arrays = [n for n in arrays if not isinstance(features[n], tfds.features.Text)]
    labels = [n for n in arrays if isinstance(features[n], tfds.features.ClassLabel)]
    target = target or (labels[0] if len(labels) == 1 else None)
    others = [n for n in arrays if n != target]
    inputs = inputs or (others[0] if len(others) == 1 else None)
    told = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
    for name, given in (("inputs", inputs), ("target", target)):
        if given is None:
            raise UserError(f"data.{name}: which feature? There are {told}")
        if given not in arrays:
            raise UserError(
                f'data.{name}: "{given}" given; images, tensors and class labels are allowed, '
                f"there are {told}{nearest(given, arrays)}"
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
    """A digest of what a prepared data set says of itself, and of the sizes of its files."""
    sizes = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    said = [(folder / name).read_text() for name in ("dataset_info.json", "features.json")]
    return hashlib.sha256(f"{sizes} {said}".encode()).hexdigest()


class Scale(NamedTuple):
    """What is taken from inputs, and what they are divided by."""

    shift: Any
    divisor: Any

    def __call__(self, x: np.ndarray) -> np.ndarray:
        # Bytes lose nothing in float32; the numbers of a clock would.
        exact = np.float32 if x.dtype == np.uint8 else np.float64
        shift, divisor = np.asarray(self.shift, exact), np.asarray(self.divisor, exact)
        return ((x.astype(exact) - shift) / divisor).astype(np.float32)


def scale_of(sample: np.ndarray, standardized: bool) -> Scale:
    """How the inputs of a data set are scaled, from some of its training examples."""
    if standardized:
        return Scale(*mean_and_deviation(sample, averaged(sample)))
    return Scale(0, 255 if sample.dtype == np.uint8 else 1)


# --- the member of the family, and texts --------------------------------------------------------


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
    root = data_folder(data_dir)
    folder = prepare_now(dataset, root)
    builder = opened(folder)
    names = chosen(builder, inputs, target)
    feature = builder.info.features[names[1]]
    classes = tuple(getattr(feature, "names", None) or ())
    splits = {
        part: Records(builder.as_data_source(name), *names)
        for part, name in splits_of(dataset, builder).items()
    }
    train = splits["train"]
    from_disk = too_large(train) if stream is None else stream

    def typed(split: Split) -> Split:
        return Split(split.x, split.y.astype(np.int32 if classes else np.float32))

    def whole(part: str) -> Split:
        return typed(cached(folder, f"{part} {names}", lambda: joined(splits[part])))

    if from_disk:
        everything = None
        labels = labels_of(folder, builder, train) if classes else np.zeros(len(train))
    else:
        everything = whole("train")
        labels = everything.y

    def read(rows: np.ndarray) -> Split:
        if everything is None:
            return typed(train.read(rows))
        return Split(everything.x[rows], everything.y[rows])

    # Numbers of rows are dealt out, so that the rows themselves may stay where they are.
    dealt = split_rows(
        np.arange(len(train)),
        labels,
        valid=0.0 if "valid" in splits else valid,
        test=0.0 if "test" in splits else test,
        seed=seed,
        stratify=bool(classes),
    )
    trained = dealt.train.x
    some = read(trained[looked_at(len(trained), train)])
    scale = scale_of(some.x, standardized)
    found = {
        part: read(split.x) for part, split in dealt._asdict().items() if part != "train" and split
    }
    found |= {part: whole(part) for part in splits if part != "train"}
    found["train"] = some if from_disk else read(trained)
    scaled = {part: Split(scale(x), y) for part, (x, y) in found.items()}

    def read_scaled(rows: np.ndarray) -> Split:
        x, y = read(trained[rows])
        return Split(scale(x), y)

    what = f"{identified(folder)} {names} {valid} {test} {standardized} {seed}"
    stored = Stored(len(trained), read_scaled, what) if from_disk else None
    return Dataset(**scaled, classes=classes, stored=stored)  # pyright: ignore[reportArgumentType]


def too_large(records: Records) -> bool:
    """Whether the rows of a split would fill more than half of the memory, as float32."""
    import jax

    example = records.read(np.arange(1)).x
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # A CPU does not say: its memory is that of the host.
    device = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", host)
    return 4 * example.size * len(records) > min(host, device) / 2


def looked_at(rows: int, records: Records) -> slice:
    """Evenly spaced rows that stand for all."""
    size = records.read(np.arange(1)).x.size
    number = max(1, min(rows, LOOKED_AT, NUMBERS // size))
    return slice(0, rows // number * number, rows // number)


def labels_of(folder: Path, builder: Any, records: Records) -> np.ndarray:
    """The labels of all training rows, read without decoding an image."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    undecoded = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    split = records.source.split
    source = builder.as_data_source(split, decoders=undecoded or None)

    def read() -> Split:
        blocks = (range(k, min(k + BLOCK, len(source))) for k in range(0, len(source), BLOCK))
        y = [
            example[records.target]
            for block in blocks
            for example in source.__getitems__(list(block))
        ]
        return Split(np.zeros(0), np.asarray(y, np.int32))

    return cached(folder, f"{split} labels {records.target}", read).y


def joined(records: Records) -> Split:
    """All rows of a split."""
    x, y = zip(*records.blocks(), strict=True)
    return Split(np.concatenate(x), np.concatenate(y))


def prepare_now(dataset: str, data_dir: Path) -> Path:
    """`prepare`, with a word where that takes its time."""
    there = prepared(dataset, data_dir)
    if there is not None:
        return there
    there = prepare(dataset, data_dir)
    warn(f"data: {dataset} was not prepared yet, and is now, in {there}")
    return there


SPLITS = {"train": ("train",), "valid": ("validation", "valid", "val"), "test": ("test",)}


def splits_of(dataset: str, builder: Any) -> dict[str, str]:
    """Which split of a data set is for training, and which for validation and test.

    Raises:
        UserError: for one without training rows.
    """
    there = list(builder.info.splits)
    found = {p: next((n for n in names if n in there), None) for p, names in SPLITS.items()}
    if found["train"] is None:
        raise UserError(f"data.dataset: {dataset} has no split train, only {', '.join(there)}")
    return {part: name for part, name in found.items() if name is not None}


def text_of(dataset: str, data_dir: str | None = None) -> dict[str, str]:
    """The text of each split of a data set that holds text, "train" first.

    Raises:
        DataMissing: where it is neither prepared nor can be.
        UserError: for a data set with no text, or several.
    """
    import tensorflow_datasets

    builder = opened(prepare_now(dataset, data_folder(data_dir)))
    features = builder.info.features
    texts = [n for n, f in features.items() if isinstance(f, tensorflow_datasets.features.Text)]
    if len(texts) != 1:
        raise UserError(
            f"data.dataset: {dataset} has {len(texts)} texts in an example, one is needed; "
            f"its features are {', '.join(sorted(features))}"
        )

    def whole(split: str) -> str:
        source = builder.as_data_source(split)
        examples = source.__getitems__(list(range(len(source))))
        return "\n".join(example[texts[0]].decode() for example in examples)

    return {part: whole(name) for part, name in splits_of(dataset, builder).items()}
