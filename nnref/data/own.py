"""Data of a user's own function: pairs of arrays, or of trees of arrays, as a data set."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnref.data.prepare import Dataset, Split
from nnref.data.trees import Layout, layout_of, pair_of
from nnref.errors import UserError

SPLITS = ("train", "valid", "test")
CLASSES = 1000  # whole numbers from 0 up to here are classes


def dataset_of(made: Any) -> Dataset:
    """The data set of what a function gives: one already, `(x, y)`, or a dict of its splits.

    Such a dict is `{"train": (x, y), "valid": (x, y), "classes": ["cat", "dog"]}`, and only `train`
    is needed. Whole numbers from 0 up, one a row, are classes where it does not say so.

    Raises:
        UserError: for something else.
    """
    if isinstance(made, Dataset):
        return made
    splits = made if isinstance(made, Mapping) else {"train": made}
    unknown = set(splits) - {*SPLITS, "classes"}
    if "train" not in splits or unknown:
        raise UserError(
            f"data: {sorted(unknown) or type(made).__name__} given; a function of data gives "
            '(x, y), or {"train": (x, y), "valid": (x, y), "test": (x, y), "classes": [names]}'
        )
    pairs = {name: pair_of(name, splits[name]) for name in SPLITS if splits.get(name) is not None}
    x, y = pairs["train"]
    inputs, targets = layout_of(x, "x of train"), layout_of(y, "y of train")
    rows = {
        name: Split(packed(inputs, x, f"x of {name}"), packed(targets, y, f"y of {name}"))
        for name, (x, y) in pairs.items()
    }
    named = splits.get("classes")
    classes = tuple(map(str, named)) if named is not None else classes_in(rows["train"].y)
    parts = (rows["train"], rows.get("valid"), rows.get("test"))
    return Dataset(*parts, classes=classes, inputs=inputs, targets=targets)


def packed(layout: Layout | None, rows: Any, what: str) -> np.ndarray:
    """Rows as one array."""
    return np.asarray(rows) if layout is None else layout.pack(rows, what)


def classes_in(y: np.ndarray) -> tuple[str, ...]:
    """The names of classes that whole numbers stand for; () where they stand for themselves."""
    if y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() > CLASSES:
        return ()
    return tuple(map(str, range(int(y.max()) + 1)))
