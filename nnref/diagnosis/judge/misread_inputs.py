"""Inputs whose numbers stand in another order than their shape says."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nnref.diagnosis.data.edits import reordered
from nnref.diagnosis.data.images import IMAGES, is_image, is_plane, likelier, likeness, of_filters
from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.split_checks import far_below
from nnref.diagnosis.proof import Proof
from nnref.diagnosis.thresholds import bound


def misread(measured: Measurements, x: np.ndarray) -> Iterator[Finding]:
    """Numbers that make sense in another shape, which is also what can be learned.

    Of images a linear model of random filters is the proof, of others the same training.
    """
    plane = is_plane(x) and measured.recipe.inputs is None
    if measured.skill.costs or measured.skill.target.kind == "places":
        return
    if not (is_image(x) or plane):
        return
    for place, (differs, remedy, other) in enumerate(reordered(x[:IMAGES])):
        if "reshape" not in remedy or not likelier(other, x[:IMAGES]):
            continue
        proof = retrained(measured, place) if plane else of_linear_models(measured, x, other)
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


def retrained(measured: Measurements, place: int) -> Proof | None:
    """The same training of inputs in the other order, where that alone makes them learned."""
    recipe = measured.recipe

    def in_order(rows: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return list(reordered(np.asarray(rows[0])))[place][2], rows[1]

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
