"""Targets that stand beside other rows than their own: a teacher's outputs in another order."""

from collections.abc import Iterator

import numpy as np

from nnref.diagnosis.data.references import references
from nnref.diagnosis.data.targets import Target
from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.batches import different_rows, measured
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.unlabelled import targets_of
from nnref.diagnosis.thresholds import bound

MEETING = {"sub", "mul", "add"}  # by which outputs meet what they are held against


def of_other_rows(loop: Loop) -> Iterator[Finding]:
    """Outputs of a teacher that neither inputs nor labels tell, where the inputs tell the labels.

    Simple models are asked, of measured numbers, and a row that comes again counts once.
    """
    if not loop.one_loss or not loop.batches:
        return
    program, loss, _ = loop.one_loss
    targets = targets_of(program, loop)
    taught = [path for path in targets if held_against(loop, program, loss, path)]
    rows = measured(different_rows(loop), targets) if taught and len(targets) > 1 else None
    if rows is None:
        return
    x, pooled = rows
    as_targets = {path: as_target(pooled[path]) for path in targets}
    known = {path: references(x, y).best[1] for path, y in as_targets.items() if y is not None}
    known = {path: skill for path, skill in known.items() if skill > bound("mostly")}
    for path in taught if known else []:
        numbers = pooled[path].astype(float)
        if path in known or not hang_together(numbers):
            continue
        reference = references(x, Target("regression", numbers, 0), shuffles=1)
        best, drawn = reference.best[1], max(reference.shuffled.values(), default=0.0)
        kept = [y for other, y in as_targets.items() if y is not None and other in known]
        of_labels = [references(numbers, y).best[1] for y in kept]
        if max(best, *of_labels) < bound("signal"):
            label = max(known, key=known.__getitem__)
            yield fault(
                "corrupted_labels",
                f"batches, {path}; {line_of(program, path) or loop.loss_line()}",
                f"the loss holds outputs against part {path} of the batches, and it belongs to "
                f"other rows: on rows held out, simple models make {best:.2f} of it of the inputs "
                f"({drawn:.2f} where it is shuffled) and {known[label]:.2f} of part {label}, from "
                f"0 for a constant answer to 1 for a perfect one; and part {label} is not told by "
                f"part {path} either, {max(of_labels):.2f}",
                f"{best:.2f}, and {known[label]:.2f} for part {label}",
                healthy=f"above {bound('signal'):g}",
                remedy="compute it of the rows of the batch itself, teacher(x); or keep it by the "
                "numbers of the rows, outputs[rows], and shuffle these alone",
                confidence=0.8,
            )
            return


def of_places(loop: Loop) -> Iterator[Finding]:
    """Outputs that are held against numbers kept for each place of a batch, whose rows change.

    Such as a teacher's outputs that were computed once, batch by batch, of rows in another order.
    """
    if not loop.one_loss or not loop.batches or not loop.shuffled_anew:
        return
    program, loss, _ = loop.one_loss
    traced, needed = program.trace, program.trace.needed([loss])
    rows = max((traced.shape(value)[:1] for value in program.batch), default=())
    weights = [program.old[path] for path in loop.of("parameter") if path in program.old]
    learning = traced.reached(weights)
    moving = traced.reached([*program.old.values(), *program.batch, *program.key])
    forward = [op for op in traced.operations if not needed.isdisjoint(op.outputs)]
    kernels = learning - traced.reached(program.batch)
    for op in forward:
        fixed = [value for value in op.inputs if value not in moving]
        if op.name not in MEETING or len(fixed) != 1 or learning.isdisjoint(op.inputs):
            continue
        shapes = {traced.shape(value) for value in op.inputs}
        if len(shapes) > 1 or traced.shape(fixed[0])[:1] != rows or traced.size(fixed[0]) < 2:
            continue
        spread = traced.reached(traced.needed(fixed))
        if any(spread & set(each.inputs) and kernels & set(each.inputs) for each in forward):
            continue  # noise that the network is given too, or a mask within it
        (kept,) = traced.evaluate(program.leaves, fixed)
        if not np.ptp(np.asarray(kept, np.float64), axis=0).any():
            continue
        yield fault(
            "corrupted_labels",
            op.where or loop.loss_line(),
            f"outputs of shape {traced.shape(fixed[0])} are held against numbers that were kept "
            "for each place of a batch, and each epoch has other rows in these places: they belong "
            "to the rows of another order",
            "the first batch of another epoch has other rows",
            healthy="numbers that go along with their rows",
            remedy="compute it of the rows of the batch itself, teacher(x); or keep it by the "
            "numbers of the rows, outputs[rows], and shuffle these alone",
            confidence=0.85,
        )
        return


def as_target(y: np.ndarray) -> Target | None:
    """Labels as classes or numbers, None where they are neither."""
    flat = y.reshape(len(y), -1)
    if flat.shape[1] == 1 and y.dtype.kind in "iub":
        classes, labels = np.unique(flat[:, 0], return_inverse=True)
        return Target("multiclass", labels, len(classes))
    return Target("regression", flat.astype(float), 0) if y.dtype.kind == "f" else None


def held_against(loop: Loop, program: Program, loss: int, path: str) -> bool:
    """Whether a part is numbers for each row, behind which no parameter comes any more.

    What is drawn for a layer has parameters behind it, and a loss is linear in weights.
    """
    traced = program.trace
    value = next(v for v in program.batch if traced.paths[v] == path)
    if (
        len(traced.shape(value)) != 2
        or traced.shape(value)[1] < 2
        or not program.is_floating(value)
    ):
        return False
    weights = [program.old[p] for p in loop.of("parameter") if p in program.old]
    alone = traced.reached(weights) - traced.reached(program.batch)
    own, needed = traced.reached([value]), traced.needed([loss])
    for op in traced.operations:
        if needed.isdisjoint(op.outputs) or own.isdisjoint(op.inputs):
            continue
        if any(traced.size(other) > 1 for other in alone.intersection(op.inputs)):
            return False
    leaf, at = program.leaves[traced.inputs.index(value)], traced.inputs.index(value)
    shares = np.allclose(np.sum(leaf, 1), 1, atol=1e-3) and bool((np.asarray(leaf) >= 0).all())

    def of(times: float) -> float:
        leaves = [times * leaf if i == at else other for i, other in enumerate(program.leaves)]
        return float(np.ravel(traced.evaluate(leaves, [loss])[0])[0])

    steps = np.diff([of(times) for times in (1.0, 1.5, 2.0)])
    return bool(shares or abs(steps[1] - steps[0]) > bound("signal") / 10 * abs(steps).max())


def hang_together(numbers: np.ndarray) -> bool:
    """Whether some columns go along with each other, as outputs do and random numbers do not."""
    if not np.isfinite(numbers).all() or not (numbers.std(0) > 0).all():
        return False
    together = np.abs(np.corrcoef(numbers.T)) - np.eye(numbers.shape[1])
    return bool(together.max() > bound("signal") + 4 / np.sqrt(len(numbers)))


def line_of(program: Program, path: str) -> str:
    """The user's line where a part of the batch comes in."""
    values = {value for value in program.batch if program.trace.paths[value] == path}
    places = (op.where for op in program.trace.operations if values & set(op.inputs) and op.where)
    return next(places, "")
