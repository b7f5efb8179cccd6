"""Targets as a score takes them, and how well answers do: accuracy or R², and the skill."""

from typing import NamedTuple

import numpy as np

from nnref.data.targets import is_one_hot

Rows = tuple[np.ndarray, np.ndarray]  # inputs and targets


class Target(NamedTuple):
    """What the targets ask for, in the form in which references and network can be compared.

    `answers` are integer classes (rows,), zeros and ones (rows, labels), values (rows, width), or
    for "places", a class for each step of a sequence, integers (rows, steps); a class below 0 is
    masked out and asks for nothing. `weights` are those of the classes in a score, None for equal.
    """

    kind: str
    answers: np.ndarray
    classes: int
    weights: np.ndarray | None = None

    def of_rows(self, answers: np.ndarray) -> np.ndarray:
        """How much rows of these classes count."""
        if self.weights is None:
            return np.ones(answers.shape)
        return np.append(self.weights, 1.0)[np.minimum(answers, len(self.weights))]


def target_of(y: np.ndarray, kind: str) -> Target:
    """Targets as classes, labels or values.

    Args:
        y: targets, (rows, ...).
        kind: of task: "binary", "multiclass", "multilabel", "places" or "regression".
    """
    y = np.asarray(y)
    if kind == "places":
        labels = y.argmax(-1) if y.ndim > 2 and is_one_hot(y) else y
        labels = labels.reshape(len(y), -1).astype(int)
        return Target(kind, labels, int(labels.max()) + 1)
    if kind == "multiclass":
        labels = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(len(y), -1)[:, 0]
        labels = labels.reshape(len(y), -1)[:, 0] if labels.ndim > 1 else labels
        return Target(kind, labels.astype(int), int(labels.max()) + 1)
    if kind in ("binary", "multilabel"):
        flat = y.reshape(len(y), -1)
        low, high = float(flat.min()), float(flat.max())  # the sum of two int8 overflows
        middle = (low + high) / 2 if low < high else 0.5
        answers = (flat > middle).astype(int)
        if answers.shape[1] == 1:
            return Target("binary", answers[:, 0], 2)
        return Target("multilabel", answers, 2)
    return Target("regression", y.reshape(len(y), -1).astype(float), 0)


def score(target: Target, answers: np.ndarray) -> float:
    """Accuracy, or the share of the targets' variance that the answers explain; 1 is perfect."""
    if target.kind == "regression":
        truth = target.answers
        if not np.isfinite(answers).all():
            return -np.inf
        answers = answers.reshape(len(truth), -1)
        total = ((truth - truth.mean(0)) ** 2).sum()
        return 1 - float(((truth - answers) ** 2).sum() / max(total, 1e-30))
    asked = target.answers >= 0
    right = (target.answers == answers.reshape(target.answers.shape))[asked]
    weight = target.of_rows(target.answers[asked])
    return float(np.average(right, weights=weight)) if len(right) else 0.0


def chance(target: Target) -> float:
    """The score of the best constant answer."""
    if target.kind == "regression":
        return 0.0
    if target.kind == "multilabel":
        share = target.answers.mean(0)
        return float(np.maximum(share, 1 - share).mean())
    asked = target.answers[target.answers >= 0]
    weight = target.of_rows(asked)
    return float(np.bincount(asked, weight).max() / weight.sum()) if len(asked) else 0.0


def skill(score: float, chance: float) -> float:
    """How far from a constant answer (0) to a perfect one (1)."""
    if not np.isfinite(score):
        return -1.0
    return max(-1.0, (score - chance) / max(1 - chance, 1e-9))


def shares(target: Target, classes: int) -> np.ndarray:
    """The share of each class among the rows that count."""
    counted = target.answers[target.answers >= 0]
    return np.bincount(counted, minlength=classes)[:classes] / max(len(counted), 1)
