"""What is missing in the rows: NaN that reaches the parameters, or that the loss leaves out."""

from collections.abc import Iterator
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.blanks import Blanks, filled
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.own_metric import OwnMetric, filler, leaves_out
from nnref.diagnosis.program.birth import masked_by_product
from nnref.diagnosis.thresholds import bound

ROWS = 64  # of targets, that loss and metric are asked about


def finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite."""
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def nonfinite(measured: Measurements, x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """NaN or infinity; no fault where loss and gradient of the rows that hold it are finite."""
    parts = {name: part for name, part in (("inputs", x), ("targets", y)) if not finite(part)}
    if not parts:
        return
    wrong = {name: ~np.isfinite(part.reshape(len(part), -1)) for name, part in parts.items()}
    first = np.argsort(~np.any([bad.any(1) for bad in wrong.values()], axis=0), kind="stable")
    function, arguments = measured.slopes_at(first[: measured.recipe.batch_size])
    results = jax.tree.leaves(jax.jit(function)(*arguments))
    left_out = all(finite(np.asarray(leaf)) for leaf in results)
    birth = None if left_out else masked_by_product(function, *arguments)
    for name, bad in wrong.items():
        row, column = np.argwhere(bad)[0]
        count = f"{int(bad.sum())} numbers of the {name} are NaN or infinite"
        place, share = f"{name}, row {row}, column {column}", f"{bad.any(1).mean():.1%} of the rows"
        if left_out:
            reason = "the loss of these rows and its gradient are finite: they are left out"
            yield note("nonfinite_data", place, f"{count}; {reason}", share)
        elif birth is not None and birth.where:
            reason = f"{count}, and the loss meets {birth.name}"
            yield fault("nonfinite_data", birth.where, reason, share, remedy=birth.remedy)
        else:
            yield fault("nonfinite_data", place, count, share)


def unlabelled(measured: Measurements, x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """Targets that were filled in with one number where a label is missing, and count as others."""
    blanks = filled([x], y) if x.dtype.kind == "f" else None
    if blanks is not None and counted(measured, blanks.rows):
        yield never_labelled(blanks, "training targets")


def left_out_by_the_metric(measured: Measurements, y: np.ndarray) -> Iterator[Finding]:
    """Targets that the loss counts and the user's metric leaves out: nobody knows them.

    Where the network learns the others all the same, it is worth a note.
    """
    if measured.recipe.metric is None or measured.skill.outputs is None:
        return
    skill, y = measured.skill, y[:ROWS]
    value = filler(y)
    if value is None:
        return
    shape = (len(y), *measured.skill.outputs.shape[1:])
    loss = jax.jit(measured.recipe.loss)
    metric = OwnMetric(measured.recipe.metric, skill.kind, one_array=True)
    out = leaves_out(metric, shape, y, value)
    counts = leaves_out(lambda z, y: float(jnp.sum(loss(z, y))), shape, y, value) is False
    if not out or not counts:
        return
    outcome = measured.trained if measured.validated is None else measured.validated
    share = float((y == value).mean())
    yield (fault if outcome.skill < bound("failed") else note)(
        "loss_mismatch",
        "loss",
        f"{share:.0%} of the targets are {value:g}, and your metric is the same whatever is "
        "answered there: it leaves them out, as missing, and the loss counts them as all others",
        f"{share:.0%} of the targets",
        healthy="a loss of the targets that the metric looks at",
        remedy=f"known = targets != {value:g}; jnp.sum(jnp.where(known, cost, 0)) / "
        "jnp.maximum(known.sum(), 1)",
        confidence=0.9,
    )


def never_learned(measured: Measurements, y: np.ndarray) -> Iterator[Finding]:
    """A metric of outputs that no loss looks at, as of what was hidden, by flags of the rest."""
    outputs = measured.skill.outputs
    if measured.recipe.metric is None or outputs is None or y[0].size < 2:
        return
    skill, y = measured.skill, y[:ROWS]
    metric = OwnMetric(measured.recipe.metric, skill.kind, one_array=True)
    slopes = jax.jit(jax.grad(lambda z: jnp.asarray(measured.recipe.loss(z, y)).sum()))
    shape = (4, len(y), *outputs.shape[1:])
    draws = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    looked_at = np.any([np.asarray(slopes(z)) != 0 for z in draws], axis=0)
    if looked_at.all() or not looked_at.any():
        return

    def alone(one: np.ndarray, other: np.ndarray) -> bool:
        mixed = np.where(looked_at, other, one), np.where(looked_at, one, other)
        first, of_these, of_others = (metric(z, y) for z in (one, *mixed))
        return first is not None and of_others is not None and of_these == first != of_others

    # An accuracy of one draw may be that of another by chance.
    if all(alone(one, other) for one, other in pairwise(draws)):
        yield fault(
            "loss_mismatch",
            "loss",
            f"the loss looks at {looked_at.mean():.0%} of the outputs, and your metric at others "
            "alone: it is the same whatever is answered where the loss looks. What is judged is "
            "never learned, as where a mask stands the other way round in one of them",
            "no output in common",
            healthy="a loss of the outputs that the metric judges",
            remedy="the same mask in both: weight = 1 - visible, where what is hidden is asked for",
            confidence=0.95,
        )


def without_code(measured: Measurements, x: np.ndarray) -> Iterator[Finding]:
    """Steps of one-hot sequences that are 0 throughout, between others that are not.

    What fills a sequence up stands at its ends; in between is what the code had no number for, such
    as letters of the other case. Where the network learns all the same, it is worth a note.
    """
    if x.ndim != 3 or measured.recipe.inputs is not None or x.shape[2] < 3:
        return
    if not np.isin(x, (0, 1)).all() or (x.sum(2) > 1).any():
        return
    known = np.any(x, axis=2)
    begun = np.logical_or.accumulate(known, 1)
    open_ = np.logical_or.accumulate(known[:, ::-1], 1)[:, ::-1]
    between = begun & open_ & ~known
    rows = between.mean(1) > bound("without code")
    if rows.mean() < bound("rows without code"):
        return
    outcome = measured.trained if measured.validated is None else measured.validated
    yield (fault if outcome.skill < bound("failed") else note)(
        "no_signal",
        "inputs",
        f"in {rows.mean():.0%} of the rows, steps between others are 0 throughout, "
        f"{between[rows].mean():.0%} of all steps there: symbols that the code has no number for, "
        "such as lower-case letters where it knows capital ones",
        f"{between.mean():.1%} of all steps",
        healthy="a 1 in each step, but for those that fill a sequence up at its ends",
        remedy="sequence = sequence.upper() before the code, and an error for a symbol that it "
        "does not know",
        confidence=0.7,
    )


def counted(measured: Measurements, rows: np.ndarray) -> bool:
    """Whether the loss of these rows has a slope at outputs that are drawn."""
    outputs, loss = measured.skill.outputs, measured.recipe.loss
    if outputs is None:
        return False
    few = np.resize(np.flatnonzero(rows), 8)
    drawn = np.random.default_rng(0).uniform(0.1, 0.9, (len(few), *outputs.shape[1:]))
    y = np.asarray(measured.recipe.train[1])[few]
    slope = jax.grad(lambda outputs: jnp.asarray(loss(outputs, y)).sum())
    return bool(np.asarray(slope(drawn.astype(np.float32))).any())


def never_labelled(blanks: Blanks, where: str) -> Finding:
    """Rows that were filled in, as a fault."""
    count, value = int(blanks.rows.sum()), f"{blanks.value:g}"
    return fault(
        "corrupted_labels",
        where,
        f"{count} of {len(blanks.rows)} rows ({blanks.rows.mean():.0%}) have {value} for all of "
        "their target, and the inputs of these look like those of the others: their labels are "
        "missing and were filled in, and in the loss they teach that there is nothing",
        f"a model of the inputs tells these rows with skill {max(blanks.told, 0):.2f}; one of the "
        f"other rows (R² {blanks.of_others:.2f}) answers for them with {blanks.spread:.2f} times "
        "the variance that it has elsewhere",
        healthy="targets that were labelled, or that the loss leaves out",
        remedy="fill with a label that is none, such as -1 or 255, and leave it out of the loss: "
        "known = y != -1; jnp.sum(jnp.where(known, cost, 0)) / known.sum()",
        confidence=0.8,
    )
