"""What a user calls about their own loader: which rows come, in which order, and still right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnref.diagnosis.findings import Finding, Findings, upstream
from nnref.diagnosis.judge import data_checks
from nnref.diagnosis.pipeline import meaning, numbers, order
from nnref.diagnosis.pipeline.epochs import ROWS, epochs_of
from nnref.diagnosis.pipeline.loaded import Loaded
from nnref.diagnosis.program.broken import broken
from nnref.errors import UserError
from nnref.training.compilation import usual_settings

CHECKED = (
    "which rows come and how often",
    "their order",
    "targets beside their rows",
    "augmentation",
    "images and integers",
    "scaling",
    "what simple models learn of the rows",
)
CHECKS = (
    order.runs_dry,
    order.one_batch,
    order.repeats,
    order.dropped,
    order.same_order,
    numbers.overflow,
    numbers.batch_statistics,
    meaning.meaning,
)


@dataclass(frozen=True)
class DataFindings(Findings):
    """What was found of a loader; there is no network that could learn."""

    @property
    def headline(self) -> str:
        """The whole answer in one sentence."""
        if not self.faults:
            return "Nothing was found that is wrong with these data."
        rest = len(self.faults) - 1
        more = f", and {rest} more fault{'s' * (rest > 1)}" if rest else ""
        return f"These data are not what they should be: {self.faults[0].where}{more}."


@usual_settings()
def examine_data(
    load: Any,
    rows: tuple[Any, Any] | None = None,
    *,
    valid: Any = None,
    epochs: int = 3,
    kind: str | None = None,
    keys: Sequence[str] | None = None,
    batched: bool | None = None,
    limit: int = ROWS,
) -> DataFindings:
    """Say what is wrong with what a loader gives, beside the raw rows where these are there.

    Args:
        load: an iterable of batches `(x, y)`, of rows or of dicts, such as a `tf.data.Dataset`, a
            Grain loader or a PyTorch `DataLoader` of NumPy arrays; or a function, of nothing or of
            the epoch's number, that gives one.
        rows: the raw training rows `(x, y)`, before any shuffling, scaling and augmentation.
        valid: the loader of validation, likewise.
        epochs: how many are drawn and compared.
        kind: "binary", "multiclass", "multilabel" or "regression", where the targets do not tell.
        keys: of inputs and targets, where the loader gives dicts: `("image", "label")`.
        batched: whether it gives batches, where their shapes do not tell.
        limit: at most so many rows of an epoch are looked at.

    Raises:
        UserError: for what is no loader, or gives no pairs of arrays.
    """
    if epochs < 1:
        raise UserError(f"examine_data: epochs is {epochs}; one is the least, two show the order")
    raw = None if rows is None else (np.asarray(rows[0]), np.asarray(rows[1]))
    if raw is not None and len(raw[0]) != len(raw[1]):
        raise UserError(f"examine_data: rows has {len(raw[0])} inputs, {len(raw[1])} targets")
    try:
        drawn = epochs_of(load, epochs, keys=keys, batched=batched, rows=limit)
        held = None if valid is None else epochs_of(valid, 1, keys=keys, batched=batched)[0]
    except UserError:
        raise
    except Exception as error:  # whatever the user's loader raises is what was found
        return DataFindings((broken(error),), ("that the loader runs",))
    if not drawn or drawn[0] is None:
        raise UserError("examine_data: the loader gives no rows at all")
    loaded = Loaded(drawn, raw, held, kind)
    with np.errstate(all="ignore"):
        found = once(finding for check in (*CHECKS, alone) for finding in check(loaded))
    measures = {
        "rows of an epoch": [0 if epoch is None else len(epoch) for epoch in drawn],
        "raw rows": None if raw is None else len(raw[0]),
        "share of known rows": float(loaded.known.mean()) if raw is not None else None,
    }
    return DataFindings(tuple(upstream(found)), CHECKED, tuple(impossible(loaded)), measures)


def alone(loaded: Loaded) -> Iterator[Finding]:
    """What the rows show by themselves, and beside those of validation, as in a diagnosis."""
    yield from data_checks.check(loaded.alone)


def once(findings: Iterator[Finding]) -> list[Finding]:
    """Findings without a second one of the same cause at the same place."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.cause, finding.where), finding)
    return list(kept.values())


def impossible(loaded: Loaded) -> Iterator[str]:
    """What could not be looked at, and what it would take."""
    if loaded.rows is None:
        yield "rows dropped, augmentation beside its originals: give rows=(x, y), the raw rows"
    elif not loaded.places:
        yield "row by row beside the raw rows: too few of them are known again"
    if len(loaded.epochs) < 2:
        yield "the order of epochs: the loader gives one epoch"
    if loaded.valid is None:
        yield "validation beside training: give valid=, its loader"
    if not all(epoch.ended for epoch in loaded.epochs):
        yield f"the whole epoch: {len(loaded.first)} rows were taken, and it did not end"
