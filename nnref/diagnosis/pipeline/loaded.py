"""What a loader has given, beside the raw rows: what several checks ask, each once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnref.diagnosis.data.references import FEW_ROWS
from nnref.diagnosis.data.targets import Rows
from nnref.diagnosis.judge.rows_alone import RowsAlone, rows_alone
from nnref.diagnosis.pipeline.epochs import Epoch
from nnref.diagnosis.pipeline.origins import origins
from nnref.diagnosis.thresholds import bound


@dataclass
class Loaded:
    """Epochs of a loader, an epoch of the one of validation, and the raw rows of training.

    `drawn` has None for an epoch that was empty; the first one never is.
    """

    drawn: list[Epoch | None]
    rows: Rows | None = None
    valid: Epoch | None = None
    kind: str | None = None

    @cached_property
    def epochs(self) -> list[Epoch]:
        """Those epochs that hold rows."""
        return [epoch for epoch in self.drawn if epoch is not None]

    @property
    def first(self) -> Epoch:
        """The first epoch."""
        return self.epochs[0]

    @cached_property
    def alone(self) -> RowsAlone:
        """The rows of the first epoch as training rows, in the order in which they came."""
        batch = max(self.first.sizes, default=1)
        valid = None if self.valid is None else (self.valid.x, self.valid.y)
        rows = self.first.x, self.first.y
        return rows_alone(rows, valid, kind=self.kind, shuffle=False, batch_size=batch)

    @cached_property
    def places(self) -> list[np.ndarray]:
        """For each epoch, the places of the raw rows that its rows were made of, -1 where unknown.

        Empty where there are no raw rows, or too few rows are known again.
        """
        if self.rows is None or not (np.isfinite(self.first.x).all()):
            return []
        found = [origins(self.rows[0], epoch.x) for epoch in self.epochs]
        return found if (found[0] >= 0).mean() > bound("mostly") else []

    @cached_property
    def known(self) -> np.ndarray:
        """Which rows of the first epoch have a raw row."""
        return self.places[0] >= 0 if self.places else np.zeros(len(self.first), bool)

    @property
    def enough(self) -> bool:
        """Whether there are rows enough to fit anything to."""
        return len(self.first) >= FEW_ROWS
