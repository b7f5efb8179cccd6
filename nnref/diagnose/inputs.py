"""The data before any network: what is in them, and whether there is anything to learn."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnref.diagnose.subject import Subject

ROWS = 1200  # that a reference is fitted to
FOLDS = 3
FEW_ROWS = 30  # below, folds are too small to fit anything: a lookup table is the reference


class Target(NamedTuple):
    """What the targets ask for, in the form in which references and network can be compared.

    `answers` are integer classes (rows,), zeros and ones (rows, labels), or values (rows, width).
    """

    kind: str
    answers: np.ndarray
    classes: int


def infer_kind(y: np.ndarray, width: int) -> str:
    """The kind of task that targets and the width of the outputs speak of."""
    values = np.unique(y[np.isfinite(y)]) if y.dtype.kind == "f" else np.unique(y)
    if y.ndim >= 2 and y.shape[-1] > 1:
        if set(values) <= {0, 1}:
            exclusive = y.ndim == 2 and bool((y.sum(-1) == 1).all())
            return "multiclass" if exclusive else "multilabel"
        inside = len(values) and values[0] >= 0 and values[-1] <= 1
        if y.ndim == 2 and inside and np.allclose(y.sum(-1), 1, atol=1e-3):
            return "multiclass"
        return "regression"
    if len(values) <= 2 and (set(values) <= {0, 1} or set(values) <= {-1, 1}):
        return "multiclass" if width > 1 else "binary"
    return (
        "multiclass" if y.dtype.kind in "iub" and (width > 1 or len(values) <= 50) else "regression"
    )


def target_of(y: np.ndarray, kind: str) -> Target:
    """The targets of so many rows as classes, labels or values."""
    y = np.asarray(y)
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
    return float((target.answers == answers.reshape(target.answers.shape)).mean())


def chance(target: Target) -> float:
    """The score of the best constant answer."""
    if target.kind == "regression":
        return 0.0
    if target.kind == "multilabel":
        share = target.answers.mean(0)
        return float(np.maximum(share, 1 - share).mean())
    return float(np.bincount(target.answers).max() / len(target.answers))


def skill(score: float, chance: float) -> float:
    """How far from a constant answer (0) to a perfect one (1)."""
    if not np.isfinite(score):
        return -1.0
    return max(-1.0, (score - chance) / max(1 - chance, 1e-9))


class Reference(NamedTuple):
    """What simple models reach on held-out rows, by name, as skill; and on shuffled labels."""

    skills: dict[str, float]
    shuffled: dict[str, float]
    rows: int

    @property
    def best(self) -> tuple[str, float]:
        """The best of them."""
        return max(self.skills.items(), key=lambda pair: pair[1], default=("constant", 0.0))


def lookup(x: np.ndarray, target: Target) -> float:
    """The skill of a table of the training rows on themselves: below 1 where labels conflict."""
    _, group = np.unique(x, axis=0, return_inverse=True)
    group = group.reshape(-1)
    answers = np.empty(target.answers.shape, float)
    for each in np.unique(group):
        mine = group == each
        part = target.answers[mine]
        if target.kind == "regression":
            answers[mine] = part.mean(0)
        elif part.ndim == 2:
            answers[mine] = part.mean(0) > 0.5
        else:
            answers[mine] = np.bincount(part).argmax()
    return skill(score(target, answers), chance(target))


def models(kind: str, width: int) -> dict[str, Callable[[], Any]]:
    """The references for a kind of task; boosted trees where there is one thing to predict."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    if kind == "regression":
        members: dict[str, Callable[[], Any]] = {
            "linear": lambda: Ridge(1e-3),
            "neighbours": lambda: KNeighborsRegressor(3),
        }
        if width == 1:
            members["boosted trees"] = lambda: HistGradientBoostingRegressor(max_iter=60)
        return members
    if kind == "multilabel":
        return {"neighbours": lambda: KNeighborsClassifier(5)}
    members = {
        "linear": lambda: LogisticRegression(C=1.0, max_iter=300),
        "neighbours": lambda: KNeighborsClassifier(5),
    }
    if width <= 4:
        members["boosted trees"] = lambda: HistGradientBoostingClassifier(max_iter=60)
    return members


def references(x: np.ndarray, target: Target, *, shuffles: int = 0) -> Reference:
    """Linear model, nearest neighbours and boosted trees on held-out rows of the training data.

    With `shuffles`, also the best of so many fits of each to shuffled labels: what chance gives.
    """
    from sklearn.model_selection import KFold

    random = np.random.default_rng(0)
    rows = random.permutation(len(x))[:ROWS]
    flat = x.reshape(len(x), -1)[rows].astype(float)
    answers = target.answers[rows]
    if len(rows) < FEW_ROWS or not np.isfinite(flat).all() or not np.isfinite(answers).all():
        return Reference({"lookup table": lookup(x.reshape(len(x), -1), target)}, {}, len(rows))
    deviation = flat.std(0)
    flat = (flat - flat.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    if not flat.shape[1]:
        return Reference({"constant": 0.0}, {}, len(rows))
    scale = (answers.mean(0), answers.std(0) + 1e-30) if target.kind == "regression" else (0, 1)
    answers = (answers - scale[0]) / scale[1] if target.kind == "regression" else answers
    width = target.classes if target.kind != "regression" else answers.shape[1]
    if answers.ndim == 2 and answers.shape[1] > 64:
        answers = answers[:, random.permutation(answers.shape[1])[:64]]

    def held_out(build: Callable[[], Any], labels: np.ndarray) -> float:
        told = np.empty(labels.shape)
        for fit, held in KFold(FOLDS, shuffle=True, random_state=0).split(flat):
            if labels.ndim == 1 and len(np.unique(labels[fit])) < 2:
                told[held] = labels[fit][0]
                continue
            one = labels[fit].ravel() if labels.ndim == 2 and labels.shape[1] == 1 else labels[fit]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                told[held] = (
                    build().fit(flat[fit], one).predict(flat[held]).reshape(told[held].shape)
                )
        sample = target._replace(answers=labels)
        return skill(score(sample, told), chance(sample))

    skills, shuffled = {}, {}
    for name, build in models(target.kind, width).items():
        if name == "boosted trees" and max(skills.values()) > 0.95:
            continue
        skills[name] = held_out(build, answers)
        for _ in range(shuffles):
            drawn = held_out(build, answers[random.permutation(len(answers))])
            shuffled[name] = max(shuffled.get(name, -1.0), drawn)
    return Reference(skills, shuffled, len(rows))


class Scales(NamedTuple):
    """Location and spread of the inputs, column by column."""

    mean: np.ndarray
    deviation: np.ndarray
    largest: float
    root_mean_square: float


def scales(x: np.ndarray) -> Scales:
    """In double precision, flattened to columns."""
    flat = x.reshape(len(x), -1).astype(float)
    return Scales(
        flat.mean(0), flat.std(0), float(np.abs(flat).max()), float(np.sqrt((flat**2).mean()))
    )


def standardized(x: np.ndarray) -> np.ndarray:
    """Zero mean and unit deviation by column; of images, over all pixels at once."""
    x = x.astype(np.float64)
    axes: Any = 0 if x.ndim == 2 else None
    mean, deviation = x.mean(axes), x.std(axes)
    return ((x - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def is_standard(subject: Subject) -> bool:
    """Whether the inputs are about as they would be after standardizing."""
    told = scales(subject.train[0])
    return bool(
        abs(told.mean).max() < 3 and told.deviation.max() < 3 and told.root_mean_square > 0.1
    )
