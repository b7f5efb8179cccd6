"""What became of the numbers: integers that wrapped round, batches scaled each by itself."""

from collections.abc import Iterator

import numpy as np

from nnref.diagnosis.data.images import IMAGES, is_image, likeness
from nnref.diagnosis.data.references import FEW_ROWS
from nnref.diagnosis.data.splits import own_statistics
from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.pipeline.loaded import Loaded
from nnref.diagnosis.thresholds import bound

BYTE = 256  # values of a byte
OFFSETS = range(16, BYTE, 16)  # by which numbers may have wrapped round
BATCHES = 3  # that are each scaled by themselves: two may be so by chance
WIDER = "x = x.astype(np.float32) before any arithmetic"


def overflow(loaded: Loaded) -> Iterator[Finding]:
    """Integers of a byte or two that were computed with beyond their range, and wrapped round."""
    found = list(of_targets(loaded)) if loaded.places else []
    yield from found
    inputs = list(of_known_rows(loaded)) if loaded.places else []
    yield from inputs or of_images(loaded)


def of_targets(loaded: Loaded) -> Iterator[Finding]:
    """Targets that miss those of the raw rows by a multiple of 256."""
    assert loaded.rows is not None, "rows are known only beside raw rows"
    raw = np.asarray(loaded.rows[1])[loaded.places[0][loaded.known]]
    y = loaded.first.y[loaded.known]
    if raw.shape != y.shape or y.dtype.kind not in "iu" or raw.dtype.kind not in "iuf":
        return
    misses = raw.astype(float) - y.astype(float)
    wrapped = (misses != 0) & (misses % BYTE == 0)
    if wrapped.any() and (wrapped == (misses != 0)).all():
        row = int(np.argwhere(wrapped)[0][0])
        yield fault(
            "integer_overflow",
            "targets",
            f"targets are {y.dtype} and have wrapped round: {np.ravel(raw[row])[0]:g} came as "
            f"{np.ravel(y[row])[0]:g}",
            f"{wrapped.mean():.1%} of the targets",
            remedy="y = y.astype(np.int32)",
        )


def of_known_rows(loaded: Loaded) -> Iterator[Finding]:
    """Values that follow those of the raw rows on a line, and others of them a range beside it."""
    assert loaded.rows is not None, "rows are known only beside raw rows"
    x, raw = loaded.first.x[loaded.known], loaded.rows[0]
    raw = raw[loaded.places[0][loaded.known]]
    if raw.shape != x.shape or raw.dtype.kind not in "iu":
        return
    values, which = np.unique(raw, return_inverse=True)
    if not 2 < len(values) <= BYTE:
        return
    which = which.reshape(-1)
    count = np.bincount(which)
    became = np.bincount(which, weights=x.reshape(-1).astype(float)) / count
    spread = np.bincount(which, weights=x.reshape(-1).astype(float) ** 2) / count - became**2
    if spread.max() > 1e-6 * max(float(x.astype(float).var()), 1e-30):
        return  # one value became several: no function of single numbers
    slope = float(np.median(np.diff(became) / np.diff(values)))
    beside = became - slope * values
    turns = np.rint((beside - np.median(beside)) / (slope * BYTE)) if slope else beside * 0
    off = beside - turns * slope * BYTE
    on_line = np.ptp(off) < 1e-3 * abs(slope) * BYTE
    share = float(count[turns != 0].sum() / count.sum())
    if on_line and share > bound("wrapped"):
        at = int(np.flatnonzero(turns)[0])
        yield fault(
            "integer_overflow",
            "inputs",
            f"the inputs wrapped round at a byte: {values[at]:g} became {became[at]:g}, where "
            f"{off[at] + slope * values[at]:g} lies on the line of the others",
            f"{share:.0%} of the numbers",
            remedy=WIDER,
        )


def of_images(loaded: Loaded) -> Iterator[Finding]:
    """Images of bytes whose neighbouring pixels are alike once the numbers are turned back."""
    x = loaded.first.x[:IMAGES]
    if not is_image(x) or not np.isfinite(x).all():
        return
    values = np.unique(x)
    step = float(np.diff(values).min()) if len(values) > 1 else 0.0
    whole = (x.astype(float) - float(values[0])) / step if step else x
    if step <= 0 or len(values) > BYTE or np.abs(whole - np.rint(whole)).max() > 0.01:
        return
    if not BYTE / 2 < whole.max() < BYTE:
        return
    tried = {offset: np.rint(whole + offset) % BYTE for offset in OFFSETS}
    best = max(tried, key=lambda offset: likeness(tried[offset]))
    if likeness(tried[best]) > likeness(x) + bound("turned back"):
        yield fault(
            "integer_overflow",
            "inputs",
            "the inputs wrapped round at a byte: neighbouring pixels are not alike as they are, "
            f"and are so once {best} is added to each number, modulo {BYTE}",
            f"likeness of neighbours {likeness(x):.2f}, and {likeness(tried[best]):.2f} then",
            remedy=WIDER,
        )


def batch_statistics(loaded: Loaded) -> Iterator[Finding]:
    """Batches of which each was scaled by its own mean and deviation."""
    batches = [x for x, _ in loaded.first.batches() if len(x) >= FEW_ROWS]
    if len(batches) >= BATCHES and all(map(own_statistics, batches)):
        yield fault(
            "splits_differ",
            "every batch",
            f"each of {len(batches)} batches has mean 0 and deviation 1 to three places: each was "
            "scaled by its own statistics, so that one number means another thing in every batch, "
            "and a single row cannot be asked at all",
            f"{len(batches)} batches",
            healthy="the mean and deviation of all training rows, for every batch",
            remedy="mean, std = x_train.mean(0), x_train.std(0) once; then (x - mean) / std",
        )
