"""Targets: what is to be learned, and how well an answer does."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    pass

Rows = tuple[np.ndarray, np.ndarray]  # inputs and targets


class Target(NamedTuple):
    """What the targets ask for, in the form in which references and network can be compared.

    `answers` are integer classes (rows,), zeros and ones (rows, labels), values (rows, width), or
    for "places", a class for each step of a sequence, integers (rows, steps); a class below 0 is
    masked out and asks for nothing.
    """

    kind: str
    answers: np.ndarray
    classes: int


def infer_kind(y: np.ndarray, shape: tuple[int, ...]) -> str:
    """The kind of task that targets and the shape of the outputs speak of."""
    width = shape[-1] if len(shape) > 1 else 1
    if len(shape) > 2 and width > 1:
        numbered = y.dtype.kind in "iu" and y.shape == shape[:-1]
        if numbered or (y.shape == shape and exclusive(y)):
            return "places"
    values = np.unique(y[np.isfinite(y)]) if y.dtype.kind == "f" else np.unique(y)
    if y.ndim >= 2 and y.shape[-1] > 1:
        if set(values) <= {0, 1}:
            return "multiclass" if y.ndim == 2 and exclusive(y) else "multilabel"
        inside = len(values) and values[0] >= 0 and values[-1] <= 1
        if y.ndim == 2 and inside and np.allclose(y.sum(-1), 1, atol=1e-3):
            return "multiclass"
        return "regression"
    if len(values) <= 2 and (set(values) <= {0, 1} or set(values) <= {-1, 1}):
        return "multiclass" if width > 1 else "binary"
    return (
        "multiclass" if y.dtype.kind in "iub" and (width > 1 or len(values) <= 50) else "regression"
    )


def exclusive(y: np.ndarray) -> bool:
    """Whether targets are one-hot over their last axis."""
    return bool(np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all())


def target_of(y: np.ndarray, kind: str) -> Target:
    """The targets of so many rows as classes, labels or values."""
    y = np.asarray(y)
    if kind == "places":
        labels = y.argmax(-1) if y.ndim > 2 and exclusive(y) else y
        labels = labels.reshape(len(y), -1).astype(int)
        return Target(kind, labels, int(labels.max()) + 1)
    if kind == "multiclass":
        labels = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(len(y), -1)[:, 0]
        labels = labels.reshape(len(y), -1)[:, 0] if labels.ndim > 1 else labels
        return Target(kind, labels.astype(int), int(labels.max()) + 1)
    if kind in ("binary", "multilabel"):
        flat = y.reshape(len(y), -1)
        middle = (flat.min() + flat.max()) / 2 if flat.min() < flat.max() else 0.5
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
    return float((target.answers == answers.reshape(target.answers.shape))[asked].mean())


def chance(target: Target) -> float:
    """The score of the best constant answer."""
    if target.kind == "regression":
        return 0.0
    if target.kind == "multilabel":
        share = target.answers.mean(0)
        return float(np.maximum(share, 1 - share).mean())
    asked = target.answers[target.answers >= 0]
    return float(np.bincount(asked).max() / len(asked))


def skill(score: float, chance: float) -> float:
    """How far from a constant answer (0) to a perfect one (1)."""
    if not np.isfinite(score):
        return -1.0
    return max(-1.0, (score - chance) / max(1 - chance, 1e-9))
