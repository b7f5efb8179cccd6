"""The metric of a user: what it gives to one answer for all rows, and to right ones."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.targets import target_of
from nnref.diagnosis.findings import in_a_line
from nnref.diagnosis.thresholds import bound

CONSTANTS = 20  # classes whose constant answer a metric is asked about
SMALL = 1e-4  # of a metric, by rounding
SURE = 10.0  # the logit of a class that is meant, of the others -10


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether a metric gave a finite number."""
    return value is not None and bool(np.isfinite(value))


class OwnMetric:
    """A metric `function(outputs, y)` of targets of some kind.

    `one_array` says whether the outputs are one array with the rows first; `refused` why the metric
    was not asked, once it was not.
    """

    def __init__(self, function: Callable[[Any, Any], Any] | None, kind: str, one_array: bool):
        self.function, self.kind, self.one_array = function, kind, one_array
        self.refused = ""

    def __call__(self, outputs: Any, y: np.ndarray) -> float | None:
        """Its value; None where there is none, or it raises."""
        if self.function is None:
            return None
        try:
            return float(self.function(jax.tree.map(jnp.asarray, outputs), jnp.asarray(y)))
        except Exception as error:  # whatever it raises, accuracy or R² goes on without it
            self.refused = in_a_line(error)
            return None

    def of_constants(self, outputs: Any, y: np.ndarray) -> list[float]:
        """What it gives to one answer for all rows, and another one.

        Of a tree of outputs that is the mean of each, or 0.
        """
        if not self.one_array:
            answers = [jax.tree.map(partial(constant, len(y), f), outputs) for f in (1.0, 0.0)]
            return [*filter(is_number, (self(each, y) for each in answers))]
        shape = np.shape(outputs)
        width = shape[-1] if len(shape) > 1 else 1
        values = np.asarray(y, float)
        constants: list[Any] = [-SURE, 0.0, 1.0, SURE, values.min(), values.mean(), values.max()]
        if values.shape == shape:  # an output for each target, as of pixels or labels
            constants += [values.mean(0), SURE * np.sign(values.mean(0) - 0.5)]
        elif self.kind != "regression" and width > 1:
            constants = [SURE * (2 * np.eye(width)[c] - 1) for c in range(min(width, CONSTANTS))]
        scores = (self(np.broadcast_to(np.float32(c), shape), y) for c in constants)
        return [*filter(is_number, scores)]

    def most_of_constants(self, outputs: Any, y: np.ndarray) -> float:
        """The most that it gives to one answer for all rows."""
        return max(self.of_constants(outputs, y), default=0.0)

    def counts_errors(self, outputs: np.ndarray, y: np.ndarray) -> bool:
        """Whether right answers get less than any constant one, as of a root of mean squares."""
        if self.function is None:
            return False
        right = [*filter(is_number, (self(z, y) for z in right_answers(self.kind, outputs, y)))]
        others = self.of_constants(outputs, y)
        counts = bool(right) and bool(others) and min(right) < min(others)
        if counts:
            self.refused = "it is less for right answers; accuracy or R² is asked in its place"
        return counts

    def is_no_share(self, outputs: np.ndarray, y: np.ndarray) -> bool:
        """Whether right answers get more than 1, as of decibels: what is perfect is not known.

        They get more than any constant one: else it is wrong, and asked.
        """
        if self.function is None:
            return False
        right = [self(z, y) for z in right_answers(self.kind, outputs, y)]
        least = max(1 + SMALL, self.most_of_constants(outputs, y))
        more = bool(right) and all(value is not None and value > least for value in right)
        if more:
            self.refused = "it is more than 1 for right answers; accuracy or R² is asked instead"
        return more

    def is_indifferent(self, outputs: np.ndarray, y: np.ndarray) -> bool:
        """Whether one answer for all rows is perfect.

        Ranking metrics do this: when all outputs are equal every pair ties, and the score is
        perfect.
        """
        perfect = self.most_of_constants(outputs, y) >= 1
        if perfect:
            self.refused = "it gives one answer for all rows as much as a perfect one"
        return perfect


def filler(y: np.ndarray) -> float | None:
    """The most frequent number of targets of several places, which may stand for a missing one.

    None for truth values, of which either means something.
    """
    if y.ndim < 2 or y[0].size < 2 or y.dtype.kind not in "fiu":
        return None
    values, counts = np.unique(y, return_counts=True)
    share = counts.max() / y.size
    holes = len(values) > 2 and bound("of a filler") < share < 1 - bound("of a filler")
    return float(values[np.argmax(counts)]) if holes else None


def leaves_out(
    score: Callable[[np.ndarray, np.ndarray], float | None],
    shape: tuple[int, ...],
    y: np.ndarray,
    value: float,
) -> bool | None:
    """Whether a score is the same whatever is answered where a target has this value.

    Args:
        score: of outputs and targets.
        shape: of the outputs, (rows, places) or (rows, places, classes).
        y: targets, (rows, places).
        value: of those that may be left out.

    Returns:
        None where it is not known: it raises, or is the same for all other answers as well.
    """
    if shape[: y.ndim] != y.shape:
        return None
    draws = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    one, other = draws * max(float(y.std()), 1.0) + float(y.mean())
    there = (y == value).reshape(y.shape + (1,) * (len(shape) - y.ndim))
    first, of_there, elsewhere = (
        score(each, y) for each in (one, np.where(there, other, one), np.where(there, one, other))
    )
    if first is None or of_there is None or elsewhere is None or first == elsewhere:
        return None
    return first == of_there


def constant(rows: int, factor: float, leaf: Any) -> np.ndarray:
    """A leaf of outputs whose rows are all their mean, times a factor."""
    leaf = np.asarray(leaf, np.float32)
    by_row = leaf.shape[:1] == (rows,)
    return factor * (np.broadcast_to(leaf.mean(0), leaf.shape) if by_row else leaf)


def right_answers(kind: str, outputs: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Outputs that are all right, of the same shape; of classes as logits, then as shares.

    None at all where it is not known how.
    """
    shape, y = np.shape(outputs), np.asarray(y)
    if kind == "regression" and y.size == np.size(outputs):
        yield y.reshape(shape).astype(np.float32)
    elif kind in ("binary", "multiclass"):
        width = shape[-1] if len(shape) > 1 else 1
        answers = target_of(y, kind).answers
        if answers.shape != shape[:1] or answers.min() < 0 or answers.max() >= max(width, 2):
            return
        shares = np.eye(width, dtype=np.float32)[answers] if width > 1 else answers.reshape(shape)
        for each in (SURE * (2 * shares - 1), shares):
            yield each.astype(np.float32)
