"""What a user's own prediction function says, beside the targets: in their unit, or in another."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnref.diagnosis.data.edits import MOST, TRANSFORMS, in_short, numbers_in_words, renumbered
from nnref.diagnosis.data.targets import Target, chance, score, skill, target_of
from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.thresholds import bound

ROWS = 1000  # that are predicted
Function = Callable[[Any], Any]


def check(
    predict: Function, unscale: Function | None, rows: tuple[Any, Any], kind: str
) -> Iterator[Finding]:
    """Whether predictions are in the unit of the targets.

    Args:
        predict: of inputs, what the user takes for the answers.
        unscale: of scaled targets, the targets in their own unit, where they were scaled.
        rows: `(x, y)`, with the targets that were trained on.
        kind: of task.
    """
    x, y = (np.asarray(part)[:ROWS] for part in rows)
    wanted = np.asarray(y if unscale is None else unscale(y))
    predicted = np.asarray(predict(x))
    if kind in ("binary", "multiclass"):
        yield from of_classes(predicted, target_of(wanted, kind))
    elif kind == "regression" and predicted.size == wanted.size:
        yield from of_values(
            predicted.reshape(len(predicted), -1), wanted.reshape(len(predicted), -1), unscale
        )


def of_classes(predicted: np.ndarray, target: Target) -> Iterator[Finding]:
    """Predictions that number the classes otherwise than the targets do."""
    predicted = predicted.reshape(len(predicted), -1)
    if predicted.shape[1] > 1:
        predicted = predicted.argmax(1)[:, None]
    if (
        len(predicted) != len(target.answers)
        or (np.rint(predicted) != predicted).any()
        or predicted.min() < 0
    ):
        return
    answers = predicted[:, 0].astype(int)
    classes = np.eye(max(target.classes, int(answers.max()) + 1))
    order = renumbered(classes[target.answers], classes[answers])
    reached = skill(score(target, answers), chance(target))
    edited = skill(score(target, np.argsort(order)[answers]), chance(target))
    if edited > bound("learnable") and reached < bound("failed") * edited:
        yield fault(
            "predictions_in_another_unit",
            "predict",
            f"predictions and targets number the classes otherwise: {numbers_in_words(order)}",
            f"skill {reached:.2f}, and {edited:.2f} once they are named alike",
            remedy=f"np.array({np.argsort(order).tolist()})[predict(x)]",
        )


def of_values(
    predicted: np.ndarray, wanted: np.ndarray, unscale: Function | None
) -> Iterator[Finding]:
    """Predictions of another scale, or transformed."""
    target = Target("regression", wanted.astype(float), 0)
    predicted = predicted.astype(float)
    reached = score(target, predicted)
    spread = predicted.std(0)
    if not np.isfinite(predicted).all() or not spread.all():
        return
    a = ((predicted - predicted.mean(0)) * (wanted - wanted.mean(0))).mean(0) / spread**2
    b = wanted.mean(0) - a * predicted.mean(0)
    changes = ({} if unscale is None else {"unscale": unscale}) | TRANSFORMS
    with np.errstate(all="ignore"):
        edits = {f"{name}(predict(x))": np.asarray(f(predicted)) for name, f in changes.items()}
    edits[f"{in_short(a)} * predict(x) + {in_short(b)}"] = a * predicted + b
    fit = {code: edited for code, edited in edits.items() if (np.abs(edited) < MOST).all()}
    skills = {code: score(target, edited) for code, edited in fit.items()}
    best = max(skills.values())
    code = next(code for code in skills if skills[code] > best - bound("tie"))
    stretch, away = np.abs(a).max(), np.abs(predicted.mean(0) - wanted.mean(0))
    moved = not 1 / bound("stretched") < stretch < bound("stretched")
    moved |= bool((away > bound("shifted") * wanted.std(0)).any())
    if best > bound("learnable") and reached < bound("failed") * best and moved:
        yield fault(
            "predictions_in_another_unit",
            "predict",
            f"predictions go along with the targets and are of another unit: {code} brings them "
            "to it",
            f"R² {reached:.3g}, and {skills[code]:.2f} so; means {in_short(predicted.mean(0))} and "
            f"{in_short(wanted.mean(0))}, deviations {in_short(spread)} and "
            f"{in_short(wanted.std(0))}",
            remedy=code,
        )
