"""Epochs of a loader: batches, rows or dicts of whatever library, as arrays in their order."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from nnref.errors import UserError

ROWS = 20_000  # of an epoch that are looked at
NUMBERS = 50_000_000  # of the inputs of an epoch: of large rows there are fewer
# The names under which loaders hand inputs and targets on, in dicts.
INPUTS = ("x", "image", "images", "input", "inputs", "features", "data", "pixel_values", "tokens")
INPUTS = (*INPUTS, "input_ids", "text")
TARGETS = ("y", "label", "labels", "target", "targets")


class Epoch(NamedTuple):
    """What a loader gives in one epoch.

    Attributes:
        x: inputs in the order in which they come, (rows, ...).
        y: targets, (rows, ...).
        sizes: rows of each batch; () where rows come one by one.
        ended: whether the loader ended by itself.
    """

    x: np.ndarray
    y: np.ndarray
    sizes: tuple[int, ...]
    ended: bool

    def __len__(self) -> int:
        return len(self.x)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches, each as inputs and targets."""
        ends = np.cumsum(self.sizes)
        for end, size in zip(ends, self.sizes, strict=True):
            yield self.x[end - size : end], self.y[end - size : end]


def epochs_of(
    load: Any,
    count: int,
    *,
    keys: Sequence[str] | None = None,
    batched: bool | None = None,
    rows: int = ROWS,
) -> list[Epoch | None]:
    """So many epochs of a loader, None for one that is empty.

    Args:
        load: an iterable, or a function, of nothing or of the epoch's number, that gives one.
        count: how many epochs.
        keys: of inputs and targets, where it gives dicts or tuples: ("image", "label").
        batched: whether it gives batches; asked of their shapes where that is None.
        rows: at most so many of an epoch.

    Raises:
        UserError: for what is no loader, or gives no pairs of arrays.
    """
    made = made_by(load)
    return [epoch_of(made(number), keys, batched, rows) for number in range(count)]


def made_by(load: Any) -> Callable[[int], Iterable[Any]]:
    """What gives the batches of an epoch, by its number."""
    if not callable(load):
        if not isinstance(load, Iterable):
            raise UserError(
                f"examine_data: load is a {type(load).__name__}; give an iterable of batches "
                "(x, y), or a function that makes one: lambda: DataLoader(...)"
            )
        return lambda number: load
    try:
        needed = [
            each
            for each in inspect.signature(load).parameters.values()
            if each.default is each.empty
            and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        needed = []
    make: Any = load
    return (lambda number: make(number)) if needed else (lambda number: make())


def epoch_of(
    items: Iterable[Any], keys: Sequence[str] | None, batched: bool | None, most: int
) -> Epoch | None:
    """The rows that an iterable gives, at most so many; None where there are none."""
    stream = iter(items)
    first = next(stream, None)
    if first is None:
        return None
    x, y = pair_of(first, keys)
    if batched is None:
        batched = bool(x.ndim and y.ndim and len(x) == len(y))
    most = min(most, max(1, NUMBERS // max((x[:1] if batched else x).size, 1)))
    parts, seen, ended = [], 0, True
    for item in chain([first], stream):
        if seen >= most:
            ended = False
            break
        x, y = pair_of(item, keys)
        x, y = (x, y) if batched else (x[None], y[None])
        if len(x) != len(y):
            raise UserError(f"examine_data: a batch has {len(x)} inputs and {len(y)} targets")
        parts.append((x, y))
        seen += len(x)
    sizes = tuple(len(x) for x, _ in parts) if batched else ()
    return Epoch(joined([x for x, _ in parts]), joined([y for _, y in parts]), sizes, ended)


def pair_of(item: Any, keys: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a batch or a row.

    Raises:
        UserError: for what has none.
    """
    if isinstance(item, dict):
        names = keys or [
            next((name for name in known if name in item), None) for known in (INPUTS, TARGETS)
        ]
        if None in names or not all(name in item for name in names):
            raise UserError(
                f"examine_data: the loader gives dicts of {', '.join(map(str, item))}; say which "
                'are inputs and targets: keys=("image", "label")'
            )
        item = [item[name] for name in names]
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise UserError(
            f"examine_data: the loader gives a {type(item).__name__}; pairs (x, y) or dicts are "
            "what can be looked at"
        )
    x, y = (np.asarray(part) for part in item[:2])
    x, y = (p.astype(np.float32) if p.dtype.kind == "V" else p for p in (x, y))  # bfloat16
    for part in (x, y):
        if part.dtype.kind not in "biuf":
            raise UserError(f"examine_data: the loader gives {part.dtype}, which are no numbers")
    return x, y


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Batches as one array; rows that are shorter in some batches are filled up with zeros."""
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) == 1:
        return np.concatenate(parts)
    if len({len(shape) for shape in shapes}) > 1:
        raise UserError(f"examine_data: batches of rows of shapes {sorted(shapes)}")
    largest = np.max([part.shape[1:] for part in parts], axis=0)
    filled = [
        np.pad(part, [(0, 0), *((0, m - n) for m, n in zip(largest, part.shape[1:], strict=True))])
        for part in parts
    ]
    return np.concatenate(filled)
