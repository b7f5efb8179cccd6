"""What a user's own prediction function says, beside the targets: in their unit, or in another."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnref.diagnosis.data.edits import TRANSFORMS, in_short, numbers_in_words, renumbered
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
    told = np.asarray(predict(x))
    if kind in ("binary", "multiclass"):
        yield from of_classes(told, target_of(wanted, kind))
    elif kind == "regression" and told.size == wanted.size:
        yield from of_values(told.reshape(len(told), -1), wanted.reshape(len(told), -1), unscale)


def of_classes(told: np.ndarray, target: Target) -> Iterator[Finding]:
    """Predictions that number the classes otherwise than the targets do."""
    told = told.reshape(len(told), -1)
    if told.shape[1] > 1:
        told = told.argmax(1)[:, None]
    if len(told) != len(target.answers) or (np.rint(told) != told).any() or told.min() < 0:
        return
    answers = told[:, 0].astype(int)
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


def of_values(told: np.ndarray, wanted: np.ndarray, unscale: Function | None) -> Iterator[Finding]:
    """Predictions of another scale, or transformed."""
    target = Target("regression", wanted.astype(float), 0)
    told = told.astype(float)
    reached = score(target, told)
    spread = told.std(0)
    if not np.isfinite(told).all() or not spread.all():
        return
    a = ((told - told.mean(0)) * (wanted - wanted.mean(0))).mean(0) / spread**2
    b = wanted.mean(0) - a * told.mean(0)
    edits = {} if unscale is None else {"unscale(predict(x))": np.asarray(unscale(told), float)}
    with np.errstate(all="ignore"):
        edits |= {f"{name}(predict(x))": change(told) for name, change in TRANSFORMS.items()}
    edits[f"{in_short(a)} * predict(x) + {in_short(b)}"] = a * told + b
    skills = {code: score(target, edited) for code, edited in edits.items()}
    best = max(skills.values())
    code = next(code for code in skills if skills[code] > best - bound("tie"))
    stretch, offset = np.abs(a).max(), float((np.abs(b) / (wanted.std(0) + 1e-30)).max())
    moved = not 1 / bound("stretched") < stretch < bound("stretched") or offset > bound("shifted")
    if best > bound("learnable") and reached < bound("failed") * best and moved:
        yield fault(
            "predictions_in_another_unit",
            "predict",
            f"predictions go along with the targets and are of another unit: {code} brings them "
            "to it",
            f"R² {reached:.3g}, and {skills[code]:.2f} so; means {in_short(told.mean(0))} and "
            f"{in_short(wanted.mean(0))}, deviations {in_short(spread)} and "
            f"{in_short(wanted.std(0))}",
            remedy=code,
        )
