"""Inputs whose numbers stand in another order than their shape says."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from nnref.diagnosis.data.edits import reordered
from nnref.diagnosis.data.images import IMAGES, is_image, is_plane, likelier, likeness, of_filters
from nnref.diagnosis.data.references import FEW_ROWS
from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.split_checks import far_below
from nnref.diagnosis.proof import Proof
from nnref.diagnosis.thresholds import bound

STEPS = 8  # of a row at least, whose neighbours are held against each other

# The right order of rows and steps, by what is typed for it.
EXCHANGED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x.swapaxes(0, 1) of the array of (steps, rows), where x.reshape(rows, steps) stands": (
        lambda x: x.reshape(x.shape[1], len(x), *x.shape[2:]).swapaxes(0, 1)
    ),
    "x.swapaxes(0, 1) of the array of (rows, steps), where x.reshape(steps, rows) stands": (
        lambda x: x.swapaxes(0, 1).reshape(x.shape)
    ),
}


def misread(measured: Measurements, x: np.ndarray) -> Iterator[Finding]:
    """Numbers that make sense in another shape, which is also what can be learned.

    Of images a linear model of random filters is the proof, of others the same training.
    """
    plane = is_plane(x) and measured.recipe.inputs is None
    if measured.skill.costs or measured.skill.target.kind == "places":
        return
    if measured.recipe.inputs is None and not is_image(x):
        yield from across_rows(measured, x)
    if not (is_image(x) or plane):
        return
    for place, (differs, remedy, other) in enumerate(reordered(x[:IMAGES])):
        if "reshape" not in remedy or not likelier(other, x[:IMAGES]):
            continue
        proof = (
            retrained(measured, in_place(place)) if plane else of_linear_models(measured, x, other)
        )
        if proof is not None:
            yield fault(
                "inputs_misread",
                "inputs",
                f"{differs}: neighbouring numbers are not alike as they are, and are so in the "
                "other order",
                f"likeness of neighbours {likeness(x[:IMAGES]):.2f}, and {likeness(other):.2f}",
                remedy=remedy.replace("xv", "x"),
                proof=proof,
            )
            return


def across_rows(measured: Measurements, x: np.ndarray) -> Iterator[Finding]:
    """Rows and steps that were exchanged by a reshape, so that each row mixes others."""
    if x.ndim not in (2, 3) or x.shape[1] < STEPS or x.dtype.kind != "f" or len(x) < 2 * FEW_ROWS:
        return
    for remedy, exchanged in EXCHANGED.items():
        as_it_is, other = along_steps(x), along_steps(exchanged(x))
        if other < bound("steps alike") or as_it_is > bound("steps alike") / 3:
            continue
        proof = retrained(measured, exchanged)
        if proof is not None:
            yield fault(
                "inputs_misread",
                "inputs",
                "rows and steps were exchanged by a reshape, which mixes the rows: neighbouring "
                "steps are hardly alike as they are, and are so in the other order",
                f"likeness of neighbouring steps {as_it_is:.2f}, and {other:.2f}",
                remedy=remedy,
                proof=proof,
            )
            return


def along_steps(x: np.ndarray) -> float:
    """The correlation of neighbouring steps, about the mean of each row and of each column."""
    x = x.astype(np.float64)
    x = x - x.mean(0)
    x = x - x.mean(1, keepdims=True)
    return float((x[:, 1:] * x[:, :-1]).mean() / max(float((x**2).mean()), 1e-30))


def of_linear_models(measured: Measurements, x: np.ndarray, other: np.ndarray) -> Proof | None:
    """What random filters make of images in both orders, where only the other one can be told."""
    target = measured.skill.target
    target = target._replace(answers=target.answers[:IMAGES])
    as_it_is, better = of_filters(x[:IMAGES], target), of_filters(other, target)
    if as_it_is >= better - 2 * bound("gap") or not far_below(measured.trained, better):
        return None
    return Proof(
        f"a linear model of random filters over the images goes from {as_it_is:.2f} to "
        f"{better:.2f} on held-out rows (a constant answer is 0)",
        before=(as_it_is,),
        after=(better,),
    )


def in_place(place: int) -> Callable[[np.ndarray], np.ndarray]:
    """The order of the numbers that stands in this place of those of `reordered`."""
    return lambda x: list(reordered(x))[place][2]


def retrained(
    measured: Measurements, exchanged: Callable[[np.ndarray], np.ndarray]
) -> Proof | None:
    """The same training of inputs in the other order, where that alone makes them learned."""
    recipe = measured.recipe

    def in_order(rows: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return exchanged(np.asarray(rows[0])), rows[1]

    outcome = measured.trained if recipe.valid is None else measured.validated
    if outcome is None or outcome.skill > bound("failed"):
        return None
    valid = None if recipe.valid is None else in_order(recipe.valid)
    other = replace(recipe, train=in_order(recipe.train), valid=valid)
    again = Measurements(other, measured.effort, measured.progress)
    better = again.trained if valid is None else again.validated
    if better is None or not far_below(outcome, better.skill):
        return None
    rows = "training" if valid is None else "validation"
    return Proof(
        f"the same training on inputs in the other order goes from {outcome.skill:.2f} to "
        f"{better.skill:.2f} on the {rows} rows (a constant answer is 0)",
        before=(outcome.skill,),
        after=(better.skill,),
    )
