"""Rows without a network: what the checks of data ask, where there is no network to ask."""

from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from nnref.data.targets import LossFacts, is_whole, kind_of_targets
from nnref.diagnosis.data.references import SimpleModels, references
from nnref.diagnosis.data.splits import TOKENS
from nnref.diagnosis.data.targets import Rows
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.skill import Outcome, Skill
from nnref.diagnosis.recipe import Recipe


def no_network(*_: Any) -> NoReturn:
    """What stands in the place of a network's functions; no check of data calls them."""
    raise NotImplementedError("there is no network")


class KindAlone(Skill):
    """The kind of targets that no loss speaks of: few whole numbers are classes."""

    @cached_property
    def kind(self) -> str:
        """The task: what the user says, or what the targets speak of."""
        y = np.asarray(self.recipe.train[1])
        classes = is_whole(y) and float(y.min()) >= 0 and len(np.unique(y)) <= TOKENS
        return kind_of_targets(y, (), LossFacts(indices=classes), self.recipe.kind).task


class RowsAlone(Measurements):
    """Measurements of rows, of which no network has learned anything yet."""

    @cached_property
    def skill(self) -> Skill:
        """The kind of the targets; there are no outputs to score."""
        return KindAlone(self.recipe, None)

    @cached_property
    def trained(self) -> Outcome:
        """No better than a constant answer."""
        return Outcome(float("nan"), 0.0)

    @cached_property
    def validated(self) -> Outcome | None:
        """Not known."""
        return None

    def outcome_on(self, rows: tuple[Any, Any]) -> Outcome | None:
        """Not known."""
        return None

    @cached_property
    def hardly_predicted(self) -> set[int]:
        """Nothing is predicted."""
        return set()

    @cached_property
    def reference(self) -> SimpleModels:
        """What simple models reach on held-out rows."""
        return references(np.asarray(self.recipe.train[0]), self.skill.target)


def rows_alone(
    train: Rows,
    valid: Rows | None = None,
    *,
    kind: str | None = None,
    shuffle: bool = True,
    batch_size: int = 32,
) -> RowsAlone:
    """Training rows `(x, y)`, and others, as the checks of data take them.

    Args:
        train: training rows.
        valid: validation rows.
        kind: of the task, where the targets do not tell.
        shuffle: whether each epoch draws a new order.
        batch_size: rows of a step.
    """
    recipe = Recipe(
        no_network,
        no_network,
        no_network,
        train=train,
        valid=valid,
        kind=kind,
        shuffle=shuffle,
        batch_size=batch_size,
    )
    return RowsAlone(recipe)
