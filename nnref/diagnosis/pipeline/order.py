"""Which rows come, how often and in which order."""

from collections.abc import Iterator

import numpy as np

from nnref.diagnosis.data.references import FEW_ROWS
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.pipeline.epochs import Epoch
from nnref.diagnosis.pipeline.loaded import Loaded
from nnref.diagnosis.thresholds import bound

ANEW = "order = rng.permutation(len(x)) at the start of every epoch; x, y = x[order], y[order]"


def runs_dry(loaded: Loaded) -> Iterator[Finding]:
    """Epochs after the first that are empty: an iterator that has been read to its end."""
    empty = [number for number, epoch in enumerate(loaded.drawn, 1) if epoch is None]
    if empty:
        yield fault(
            "rows_dropped",
            f"epoch {empty[0]}",
            f"the loader gives {len(loaded.first)} rows in the first epoch and none in epoch "
            f"{empty[0]}: it is an iterator that has been read to its end",
            "0 rows",
            remedy="make the iterator anew in every epoch: for batch in load(), where load is a "
            "function, or the DataLoader itself and not iter(DataLoader)",
        )


def one_batch(loaded: Loaded) -> Iterator[Finding]:
    """The same batch again and again."""
    seen = {x.tobytes() + y.tobytes() for x, y in loaded.first.batches()}
    if len(seen) == 1 < len(loaded.first.sizes):
        yield fault(
            "repeated_rows",
            "every batch",
            f"all {len(loaded.first.sizes)} batches of an epoch are the same one: the network "
            f"sees {loaded.first.sizes[0]} rows, whatever the data hold",
            "1 different batch",
            healthy="batches that differ",
            remedy="one iterator an epoch: for batch in loader, not next(iter(loader))",
        )


def repeats(loaded: Loaded) -> Iterator[Finding]:
    """Rows that come more than once in an epoch, though they stand once in the raw rows."""
    if not loaded.places or len(set(loaded.first.sizes)) == 0 and not loaded.first.ended:
        return
    for number, (epoch, places) in enumerate(zip(loaded.epochs, loaded.places, strict=True), 1):
        counts = np.bincount(places[places >= 0])
        share = float((counts[counts > 0] > 1).mean())
        if share > bound("leak") and epoch.ended:
            yield note(
                "repeated_rows",
                f"epoch {number}",
                f"{share:.0%} of the rows of an epoch come more than once in it, up to "
                f"{counts.max()} times",
                f"{share:.0%}",
                healthy="each row once in an epoch",
                remedy="draw a permutation, not rng.integers; no repeat() before the epoch ends",
            )
            return


def dropped(loaded: Loaded) -> Iterator[Finding]:
    """Raw rows that no epoch holds, where it is the same ones each time."""
    if loaded.rows is None or not all(epoch.ended for epoch in loaded.epochs):
        return
    total, first = len(loaded.rows[0]), len(loaded.first)
    never, classes = 1 - first / total, ""
    if loaded.places:
        sets = [set(places[places >= 0].tolist()) for places in loaded.places]
        never = 1 - len(set.union(*sets)) / total
        unknown = 1 - min(float((places >= 0).mean()) for places in loaded.places)
        never = max(never - unknown, 0.0)  # who is not known again may be any of them
        classes = lost_classes(loaded, set.union(*sets)) if never else ""
        if len(sets) > 1 and never < bound("failed") * (1 - len(sets[0]) / total):
            return  # other rows in other epochs: each epoch is a part, drawn anew
    elif len({len(epoch) for epoch in loaded.epochs}) > 1:
        return
    size = max(loaded.first.sizes, default=0)
    if never <= 0 or (never <= bound("leak") and not classes):
        return
    last = 0 < total - first < size and first % size == 0
    yield (fault if classes or (never > bound("repeated") and not last) else note)(
        "rows_dropped",
        "the loader",
        f"{total - first} of {total} raw rows come in no epoch"
        + (f", among them all of {classes}" if classes else "")
        + (": the last batch is dropped, and the order never changes" if last else ""),
        f"{never:.1%} of the rows",
        remedy="drop_remainder=False (drop_last=False)"
        if last
        else "look at filter, take, islice and the steps of an epoch: a target of 0 is false",
    )


def lost_classes(loaded: Loaded, seen: set[int]) -> str:
    """The classes of the raw rows of which no row ever comes, in words."""
    assert loaded.rows is not None, "asked beside raw rows"
    if loaded.alone.skill.target.kind not in ("binary", "multiclass"):
        return ""
    y = np.asarray(loaded.rows[1])
    y = y.argmax(1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
    names, counts = np.unique(y, return_counts=True)
    left = np.unique(y[sorted(seen)])
    lost = [f"{name:g}" for name, count in zip(names, counts, strict=True) if name not in left]
    return f"class {', '.join(lost[:5])}" if lost and counts.min() > 1 else ""


def same_order(loaded: Loaded) -> Iterator[Finding]:
    """An order that is the same in every epoch; of the raw rows, perhaps."""
    if len(loaded.epochs) < 2:
        return
    pairs = list(zip(loaded.epochs, loaded.epochs[1:], strict=False))
    if len(loaded.first) < FEW_ROWS or not all(are_in_one_order(*pair) for pair in pairs):
        return
    raw = bool(loaded.places) and in_order(loaded.places[0])
    yield note(
        "unshuffled_split",
        "the order of the rows",
        f"{len(loaded.epochs)} epochs give the rows in one order"
        + (", that of the raw rows: they are never shuffled" if raw else ""),
        "the same order",
        healthy="another order in every epoch",
        remedy=ANEW
        if raw
        else "a seed that goes along with the epoch; for tf.data "
        "reshuffle_each_iteration=True, and no cache() behind shuffle()",
    )


def are_in_one_order(one: Epoch, other: Epoch) -> bool:
    """Whether two epochs give the same rows at the same places, however they are augmented.

    Targets stand as they do, and inputs are nearer to each other than to those of another place.
    """
    if len(one) != len(other) or one.y.shape != other.y.shape or (one.y != other.y).any():
        return False
    a, b = (epoch.x.reshape(len(epoch), -1).astype(float) for epoch in (one, other))
    if a.shape != b.shape:
        return False
    here, there = np.abs(a - b).mean(), np.abs(a - np.roll(b, 1, 0)).mean()
    return bool(here < bound("failed") * there)


def in_order(places: np.ndarray) -> bool:
    """Whether the raw rows come as they stand."""
    known = places[places >= 0]
    return bool((np.diff(known) > 0).mean() > 1 - bound("leak"))
