"""Whether two splits mean the same: simple models fitted to one of them, asked about the other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from nnref.diagnosis.data.references import (
    FEW_ROWS,
    FOLDS,
    at_pixels,
    at_places,
    least_squares,
)
from nnref.diagnosis.data.targets import Rows, Target, target_of
from nnref.diagnosis.thresholds import bound

ROWS = 800  # of each split
NUMBERS = 4_000_000  # of the inputs of each: of long rows there are fewer
COLUMNS = 400  # of the inputs: of more, so many are drawn
OUTPUTS = 64  # of the targets, likewise
BENDS = 200  # units of the nonlinear model
FARTHEST = 8.0  # deviations: what lies farther from the mean is moved here
TOKENS = 256  # different integers, of which more are numbers

Predictor = Callable[[np.ndarray], np.ndarray]


class Numbers(NamedTuple):
    """Skill of the best simple model, 0 for a constant and 1 for a perfect answer.

    Attributes:
        inside: fitted and asked in folds of the training rows.
        across: fitted to the training rows, asked about the others.
        within: fitted and asked in folds of the others.
        of_all: of `across`, counting rows and not classes alike.
        behind_within: standard errors by which `across` falls behind `within`, row by row.
        behind_inside: standard errors by which it falls behind `inside`.
    """

    inside: float
    across: float
    within: float
    of_all: float
    behind_within: float
    behind_inside: float

    @property
    def carries(self) -> bool | None:
        """Whether what is learned in training is true of the others; None where nothing is."""
        if self.inside < bound("learnable"):
            return None
        far = self.across < bound("failed") * self.inside
        return not (far and self.behind_inside > bound("sure"))

    @property
    def both(self) -> bool:
        """Whether each split can be learned, and a model of one is far worse on the other."""
        least = min(self.inside, self.within)
        far = self.across < bound("collapse") * least
        surely = min(self.behind_inside, self.behind_within) > bound("sure")
        return least > bound("learnable") and far and surely


def vocabulary_of(x: np.ndarray) -> np.ndarray:
    """The tokens of sequences of integers; none where they are numbers."""
    known = np.unique(x) if x.ndim == 2 and x.dtype.kind in "iu" else np.zeros(0)
    return known if 2 < len(known) <= TOKENS and x.shape[1] > 2 else np.zeros(0)


@dataclass
class Splits:
    """Training rows and others, and the simple models that are fitted to them.

    Classes are scored by the mean over the classes of the share that is right, so that a split with
    other shares of them is no other task; values by squared error.
    """

    train: Rows
    held: Rows
    kind: str
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        # Inputs keep their form, but where each place of a sequence or pixel of a mask is a row.
        self.shaped, pairs = self.kind != "places", []
        for x, y in (self.train, self.held):
            x, target = np.asarray(x), target_of(np.asarray(y), self.kind)
            if target.kind == "places":
                x, target = at_places(x, target, known=np.unique(self.train[0]))
            elif target.kind == "multilabel" and (around := at_pixels(x, target)):
                x, target, self.shaped = *around, False
            rows = self.random.permutation(len(x))
            if target.kind in ("binary", "multiclass"):
                rows = rows[target.answers[rows] >= 0]
            rows = rows[: max(FEW_ROWS, min(ROWS, NUMBERS // max(x[:1].size, 1)))]
            pairs.append((x[rows], target._replace(answers=target.answers[rows])))
        (self.x, self.target), (self.held_x, self.held_target) = pairs

    @property
    def comparable(self) -> bool:
        """Whether both have enough rows, of one shape and of finite numbers."""
        parts = (self.x, self.held_x, self.target.answers, self.held_target.answers)
        return (
            self.x.shape[1:] == self.held_x.shape[1:]
            and self.target.answers.shape[1:] == self.held_target.answers.shape[1:]
            and self.target.kind == self.held_target.kind
            and min(len(self.x), len(self.held_x)) >= FEW_ROWS
            and all(np.isfinite(part).all() for part in parts)
            and len(self.chosen) > 0
            and (self.classes or len(self.outputs) > 0)
        )

    @cached_property
    def classes(self) -> bool:
        """Whether the targets are classes, not values or several labels."""
        return self.target.kind in ("binary", "multiclass")

    # The rows as numbers of about unit scale

    @cached_property
    def vocabulary(self) -> np.ndarray:
        """The tokens of the training rows."""
        return vocabulary_of(self.x)

    @cached_property
    def chosen(self) -> np.ndarray:
        """The columns that differ from row to row, at most so many of them."""
        moving = np.flatnonzero(np.ptp(self.x.reshape(len(self.x), -1), axis=0) > 0)
        return np.sort(self.random.permutation(moving)[:COLUMNS])

    def raw(self, x: np.ndarray) -> np.ndarray:
        """The chosen columns of rows; beside them, how often each token stands in the row."""
        flat = x.reshape(len(x), -1)
        counts = [(flat == token).sum(1) for token in self.vocabulary]
        return np.column_stack([flat[:, self.chosen].astype(float), *counts])

    def scaled(self, x: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
        """Rows in deviations of others from their mean, of the training rows by default."""
        others = self.raw(self.x if by is None else by)
        deviation = others.std(0)
        flat = (self.raw(x) - others.mean(0)) / np.where(deviation > 0, deviation, 1)
        return np.clip(flat, -FARTHEST, FARTHEST)

    @cached_property
    def bends(self) -> tuple[np.ndarray, np.ndarray]:
        """Fixed random weights and thresholds of the nonlinear model."""
        wide = len(self.chosen) + len(self.vocabulary)
        weights = self.random.normal(size=(wide, BENDS)) * (2 / wide) ** 0.5
        return weights, self.random.normal(size=BENDS)

    def bent(self, x: np.ndarray) -> np.ndarray:
        """Rows as a linear model sees them, and beside them, random rectified units of them."""
        weights, thresholds = self.bends
        return np.c_[x, np.maximum(x @ weights - thresholds, 0)]

    @cached_property
    def views(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """What the models see of scaled rows."""
        return {"linear": lambda x: x, "bent": self.bent}

    # The targets as outputs of least squares

    @cached_property
    def outputs(self) -> np.ndarray:
        """The columns of the targets that differ from row to row, at most so many of them."""
        moving = np.flatnonzero(np.ptp(self.target.answers.reshape(len(self.x), -1), axis=0) > 0)
        return np.sort(self.random.permutation(moving)[:OUTPUTS])

    @cached_property
    def spread(self) -> np.ndarray:
        """The deviation of the values that are asked for, over the training rows."""
        return self.wanted(self.target).std(0)

    @cached_property
    def count(self) -> int:
        """The number of classes."""
        return max(self.target.classes, self.held_target.classes)

    def wanted(self, target: Target) -> np.ndarray:
        """Classes one-hot, or values."""
        if self.classes:
            return np.eye(self.count)[target.answers]
        return target.answers.reshape(len(target.answers), -1)[:, self.outputs].astype(float)

    def weight(self, y: np.ndarray) -> np.ndarray:
        """Weights of rows under which every class of them counts as much, summing to their number.

        Classes of fewer than 3 rows count as three: one row more or less says nothing.
        """
        if not self.classes:
            return np.ones(len(y))
        counts = np.maximum(y.sum(0), 3)
        weight = y @ (1 / counts)
        return weight * len(y) / max(weight.sum(), 1e-30)

    def fitted(self, x: np.ndarray, y: np.ndarray, view: str) -> Predictor:
        """A simple model of scaled rows."""
        see = self.views[view]
        model = least_squares(see(x), y, self.weight(y))
        return lambda rows: model(see(rows))

    def errors(self, predicted: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What is wrong of each row: 0 or 1 for a class, squared deviations for values."""
        if self.classes:
            return (predicted.argmax(1) != y.argmax(1)).astype(float)
        return (((predicted - y) / self.spread) ** 2).mean(1)

    def skill(self, errors: np.ndarray, y: np.ndarray) -> float:
        """1 less the weighted errors over those of the best constant answer."""
        if self.classes:
            constant = 1 - 1 / max((y.sum(0) > 0).sum(), 1)
        else:
            constant = float((y.var(0) / self.spread**2).mean())
        return float(1 - np.average(errors, weights=self.weight(y)) / max(constant, 1e-9))

    def of_all(self, errors: np.ndarray, y: np.ndarray) -> float:
        """The same with every row counted alike, as accuracy counts them."""
        if not self.classes:
            return self.skill(errors, y)
        return 1 - float(errors.mean()) / max(1 - float(y.mean(0).max()), 1e-9)

    # The three numbers

    @cached_property
    def models(self) -> dict[str, Predictor]:
        """Simple models of the training rows."""
        x, y = self.scaled(self.x), self.wanted(self.target)
        return {view: self.fitted(x, y, view) for view in self.views}

    def in_folds(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, str]:
        """Errors of each row by the best model, fitted to the rows of other folds, and which."""
        errors_by = {}
        fold = np.arange(len(x)) % FOLDS
        for view in self.views:
            predicted = np.empty(y.shape)
            for each in range(FOLDS):
                predicted[fold == each] = self.fitted(x[fold != each], y[fold != each], view)(
                    x[fold == each]
                )
            errors_by[view] = self.errors(predicted, y)
        best = max(errors_by, key=lambda view: self.skill(errors_by[view], y))
        return errors_by[best], best

    @cached_property
    def inside(self) -> tuple[np.ndarray, str]:
        """Errors of the training rows by the best model in folds, and which it is."""
        return self.in_folds(self.scaled(self.x), self.wanted(self.target))

    def predictions(self, x: np.ndarray) -> np.ndarray:
        """What the model of the training rows that is the better one in folds says of rows."""
        return self.models[self.inside[1]](self.scaled(x))

    def carried(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Errors of each row by the best model of the training rows."""
        scaled = self.scaled(x)
        predicted = [self.errors(model(scaled), y) for model in self.models.values()]
        return max(predicted, key=lambda errors: self.skill(errors, y))

    @cached_property
    def seen(self) -> np.ndarray:
        """Which of the other rows are of a class that stands in training."""
        if not self.classes:
            return np.ones(len(self.held_x), bool)
        return np.isin(self.held_target.answers, np.unique(self.target.answers))

    @cached_property
    def numbers(self) -> Numbers | None:
        """The three numbers; None where there are too few rows, or one target for all."""
        if not self.comparable or self.seen.sum() < FEW_ROWS:
            return None
        y, held_x = self.wanted(self.target), self.held_x[self.seen]
        held_y = self.wanted(self.held_target)[self.seen]
        if not (np.ptp(y, axis=0).any() and np.ptp(held_y, axis=0).any()):
            return None  # one answer for all rows: there is no skill
        with threadpool_limits(1):  # on a busy machine more of them wait for each other
            inside = self.inside[0]
            within, _ = self.in_folds(self.scaled(held_x, by=held_x), held_y)
            across = self.carried(held_x, held_y)
        weight, own = self.weight(held_y), self.weight(y)
        return Numbers(
            self.skill(inside, y),
            self.skill(across, held_y),
            self.skill(within, held_y),
            self.of_all(across, held_y),
            in_standard_errors(across - within, weight),
            in_standard_errors_apart(across, weight, inside, own),
        )


def in_standard_errors(difference: np.ndarray, weight: np.ndarray) -> float:
    """A weighted sum over its standard error, were each difference as likely of either sign."""
    lost = weight * difference
    return float(lost.sum() / max(float(np.sqrt((lost**2).sum())), 1e-30))


def in_standard_errors_apart(a: np.ndarray, wa: np.ndarray, b: np.ndarray, wb: np.ndarray) -> float:
    """The difference of two weighted means over its standard error (Welch)."""
    means = [float(np.average(part, weights=w)) for part, w in ((a, wa), (b, wb))]
    squares = [
        (w**2 * (part - mean) ** 2).sum() / w.sum() ** 2
        for part, w, mean in ((a, wa, means[0]), (b, wb, means[1]))
    ]
    return (means[0] - means[1]) / max(float(np.sqrt(sum(squares))), 1e-9)


def told_apart(splits: Splits) -> tuple[float, np.ndarray]:
    """How well a linear model tells training inputs from the others, and the columns it goes by.

    Balanced accuracy in folds as skill, 0 by chance and 1 perfect; columns of the flat inputs, the
    heaviest first.
    """
    both = np.concatenate([splits.x, splits.held_x])
    which = np.repeat([0, 1], [len(splits.x), len(splits.held_x)])
    x = splits.scaled(both, by=both)
    order = np.random.default_rng(0).permutation(len(x))
    x, which = x[order], which[order]
    weight = (len(x) / 2 / np.bincount(which))[which]
    answers, fold = np.empty(len(x)), np.arange(len(x)) % FOLDS
    for each in range(FOLDS):
        fit, y = fold != each, which[:, None] * 2.0 - 1
        answers[~fit] = least_squares(x[fit], y[fit], weight[fit])(x[~fit])[:, 0]
    right = (answers > 0) == (which == 1)
    skill = 2 * np.mean([right[which == split].mean() for split in (0, 1)]) - 1
    means = [x[which == split].mean(0)[: len(splits.chosen)] for split in (0, 1)]
    return float(skill), splits.chosen[np.argsort(-np.abs(means[0] - means[1]))]


def steadiness(x: np.ndarray) -> float:
    """How alike rows are that follow each other: 0 by chance, 1 where they hardly differ.

    1 - sum |x[i + 1] - x[i]|² / (2 sum |x[i] - mean|²), von Neumann's ratio (1941).
    """
    flat = x[:ROWS].reshape(len(x[:ROWS]), -1)[:, :COLUMNS].astype(float)
    deviation = flat.std(0)
    flat = (flat - flat.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    if len(flat) < FEW_ROWS or not flat.size:
        return 0.0
    return 1 - float((np.diff(flat, axis=0) ** 2).sum() / (2 * (flat**2).sum()))


def own_statistics(x: np.ndarray) -> bool:
    """Whether a split has mean 0 and deviation 1 to single precision: it was scaled by its own.

    By column, or all numbers together where a row by itself has no mean of 0.
    """
    flat = x.reshape(len(x), -1).astype(float)
    moving = flat.std(0) > 0
    if x.dtype.kind != "f" or len(x) < FEW_ROWS or not moving.any():
        return False

    def unit(mean: np.ndarray, deviation: np.ndarray) -> bool:
        return bool((np.abs(mean) < 1e-4).all() and (np.abs(deviation - 1) < 1e-3).all())

    if unit(flat[:, moving].mean(0), flat[:, moving].std(0)):
        return True
    rows = np.abs(flat.mean(1)).max() < 1e-3
    return bool(not rows and abs(flat.mean()) < 1e-5 and abs(flat.std() - 1) < 1e-5)
