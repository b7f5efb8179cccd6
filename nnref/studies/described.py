"""What a run knows of the columns of its table, kept beside its page: new rows need no old ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnref.data import Dataset, Split
from nnref.data.encoding import Encoder
from nnref.errors import UserError
from nnref.logbook.writer import Writer
from nnref.training.setup import Setup, setup_of

ROWS = 8  # that stand for those of training, where a network is tried
ENDING = ".columns"  # of JSON; `.json` are pages


def keep_columns(writers: Mapping[int, Writer], dataset: Dataset) -> None:
    """Write what is known of the columns of a table beside each page; nothing of other data."""
    if dataset.encoder is None:
        return
    text = json.dumps(as_json(dataset))
    for writer in writers.values():
        half = writer.path.with_suffix(".half")
        half.write_text(text, encoding="utf-8")
        half.replace(writer.path.with_suffix(ENDING))


def as_json(dataset: Dataset) -> dict[str, Any]:
    """The encoder, classes and scales of a table, and some training rows, not all of one target."""
    x, y = dataset.train
    other = int(np.argmax((y != y[:1]).reshape(len(y), -1).any(axis=1)))
    some = [*range(min(ROWS, len(y))), other]
    assert dataset.encoder is not None, "only tables have columns"
    return {
        "encoder": dataset.encoder.to_json(),
        "classes": list(dataset.classes),
        "scaling": lists(dataset.scaling),
        "target_scaling": lists(dataset.target_scaling),
        "rows": [x[some].tolist(), y[some].tolist(), y.dtype.str],
    }


def lists(arrays: tuple[np.ndarray, ...] | None) -> list[Any] | None:
    """Arrays as lists of numbers, which JSON keeps to the bit."""
    return None if arrays is None else [array.tolist() for array in arrays]


def kept_columns(page: Path, experiment: Any) -> tuple[Setup, Dataset] | None:
    """The set-up of a page and its data without their rows; None where they were not kept.

    Raises:
        UserError: for a file that is damaged.
    """
    path = page.with_suffix(ENDING)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        x, y, dtype = content["rows"]
        scaling, target_scaling = (
            None if content[name] is None else tuple(map(np.array, content[name]))
            for name in ("scaling", "target_scaling")
        )
        encoder = Encoder.from_json(content["encoder"])
        dataset = Dataset(
            Split(np.array(x, np.float32), np.array(y, np.dtype(dtype))),
            classes=tuple(content["classes"]),
            columns=tuple(encoder.names),
            inputs=encoder.layout,
            scaling=scaling,  # pyright: ignore[reportArgumentType]
            target_scaling=target_scaling,  # pyright: ignore[reportArgumentType]
            encoder=encoder,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: it is damaged ({error}); run the experiment again") from None
    return setup_of(experiment, dataset)[0], dataset
