"""Properties of data, each as one call of plain arrays: it raises, or says its figures."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from nnref.checks.subject import Answer, NotApplicable, settle
from nnref.diagnosis.data.splits import own_statistics
from nnref.diagnosis.findings import fault, note
from nnref.diagnosis.judge import leak_checks
from nnref.diagnosis.judge.data_checks import finite
from nnref.diagnosis.judge.rows_alone import rows_alone
from nnref.diagnosis.judge.split_checks import (
    ComparedSplit,
    repeated,
    scaled_by_its_own,
    unlearnable,
)
from nnref.diagnosis.pipeline.epochs import Epoch
from nnref.diagnosis.pipeline.loaded import Loaded
from nnref.diagnosis.pipeline.meaning import slipped
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError

Rows = tuple[Any, Any]


def arrays(name: str, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets as NumPy arrays.

    Raises:
        UserError: for what is no pair of arrays of one length.
    """
    if not isinstance(rows, (tuple, list)) or len(rows) != 2 or len(rows[0]) != len(rows[1]):
        raise UserError(f"{name}: give rows as (x, y), arrays of one length")
    return np.asarray(rows[0]), np.asarray(rows[1])


def data_splits_are_disjoint(train: Rows, other: Rows, *, strict: bool = True) -> dict[str, Any]:
    """No row of the other split is a training row, nearly one, or lies between two of them."""
    name = "data_splits_are_disjoint"
    pairs = arrays(name, train), arrays(name, other)
    x, held = pairs[0][0], pairs[1][0]
    if x.shape[1:] != held.shape[1:]:
        raise UserError(f"{name}: rows of {x.shape[1:]} and {held.shape[1:]}")
    measured = rows_alone(*pairs)
    ways = repeated(measured, "other", held), leak_checks.between("other", x, held)
    found = list(chain(*ways, leak_checks.beside("other", x, held)))
    return settle(name, Answer({"rows": (len(x), len(held))}, found), strict)


def train_statistics_only(train: Rows, other: Rows, *, strict: bool = True) -> dict[str, Any]:
    """The other split was not scaled by its own mean and deviation."""
    name = "train_statistics_only"
    pairs = arrays(name, train), arrays(name, other)
    own = own_statistics(pairs[0][0]) and own_statistics(pairs[1][0])
    split = ComparedSplit(rows_alone(*pairs), "other", pairs[1])
    found = [scaled_by_its_own(split, fault)] if own else []
    held = pairs[1][0].astype(float)
    figures = {"mean": float(held.mean()), "deviation": float(held.std())}
    return settle(name, Answer(figures, found), strict)


def labels_belong_to_rows(
    train: Rows, other: Rows | None = None, *, kind: str | None = None, strict: bool = True
) -> dict[str, Any]:
    """Simple models find something of the targets in the inputs, and nothing better once moved.

    With another split, what is learned of one must say something of the other as well.
    """
    name = "labels_belong_to_rows"
    x, y = arrays(name, train)
    if len(x) < bound("rows for no signal"):
        raise NotApplicable(f"{name}: {len(x)} rows are too few to tell")
    if not (finite(x) and finite(y)):
        raise NotApplicable(f"{name}: rows hold NaN or infinity")
    held = None if other is None else arrays(name, other)
    loaded = Loaded([Epoch(x, y, (), True)], kind=kind)
    measured = rows_alone((x, y), held, kind=kind)
    best, skill = measured.reference.best
    found = list(slipped(loaded))
    if held is not None:
        found += unlearnable(ComparedSplit(measured, "validation", held))
    if not found and skill < bound("signal"):
        found = [  # of a puzzle, simple models find nothing, and a network may
            note(
                "no_signal",
                "targets",
                "linear models, neighbours and trees find nothing of the targets in the inputs",
                f"skill {skill:.2f} on rows held out",
                healthy=f"above {bound('signal'):g}",
                remedy="look at one row and its target by eye; shuffle x and y by one index",
            )
        ]
    return settle(name, Answer({"skill": skill, "model": best}, found), strict)


def inverse_of_scaling(
    scale: Callable[[Any], Any], unscale: Callable[[Any], Any], values: Any, *, within: float = 1e-3
) -> dict[str, Any]:
    """`unscale(scale(values))` are the values, but for rounding: `within` of their deviation."""
    values = np.asarray(values, float)
    back = np.asarray(unscale(scale(values)), float)
    if back.shape != values.shape:
        raise AssertionError(
            f"inverse_of_scaling: values of shape {values.shape} come back as {back.shape}"
        )
    spread = float(values.std()) or float(np.abs(values).max()) or 1.0
    missed = float(np.abs(back - values).max()) / spread
    found = []
    if not missed <= within:
        at = int(np.abs(back - values).argmax())
        found = [
            fault(
                "predictions_in_another_unit",
                "unscale",
                f"unscale(scale({values.flat[at]:g})) is {back.flat[at]:g}: one is not the inverse "
                "of the other",
                f"{missed:.2g} of the deviation",
                healthy=f"{within:g}",
                remedy="y = scaled * std + mean undoes scaled = (y - mean) / std; np.expm1 undoes "
                "np.log1p",
            )
        ]
    return settle("inverse_of_scaling", Answer({"missed by": missed}, found), strict=True)


def data_summary(train: Rows) -> dict[str, Any]:
    """Figures of data to compare later ones with: rows, copies, location and scale.

    Raises:
        AssertionError: where numbers are NaN or infinite.
    """
    x, y = arrays("data_summary", train)
    if not (finite(x) and finite(y)):
        raise AssertionError("data_summary: the rows hold NaN or infinity")
    flat, targets = (part.reshape(len(x), -1).astype(float) for part in (x, y))
    first = flat.argmax(1) if flat.shape[1] > 1 else flat[:, 0]
    return {
        "rows": len(x),
        "different rows": len(np.unique(flat, axis=0)),
        "mean of the inputs": float(flat.mean()),
        "deviation of the inputs": float(flat.std()),
        "deviation of the columns": float(np.sqrt((flat.std(0) ** 2).mean())),
        "place of the largest input": float(first.mean()),
        "mean of the targets": float(targets.mean()),
        "deviation of the targets": float(np.sqrt((targets.std(0) ** 2).mean())),
        "targets in order": float(np.mean(np.abs(np.diff(targets, axis=0)))),
    }
