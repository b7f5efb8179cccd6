"""Labels that an evaluation counts in another way than training does."""

from collections.abc import Iterator

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.program.tracing import Trace
from nnref.diagnosis.thresholds import bound


def other_labels(loop: Loop, traced: Trace, line: str) -> Iterator[Finding]:
    """Predictions that never meet their labels, and would if each class had another name.

    The evaluation holds them against each other; by chance alone more would agree. It says so of
    an error rate as of an accuracy. Asked where the loss has fallen.
    """
    fall = loop.fall()
    if fall is None:
        return
    (losses, first, last), end = fall, loop.further.state
    if not 0 < last < bound("falls here") * first:
        return
    for predicted, labels in compared(traced, jax.tree.leaves(end.arrays)):
        right, renamed, chance = agreements(predicted, labels)
        if right < bound("mostly") * chance and renamed > bound("renamed"):
            yield fault(
                "splits_differ",
                line,
                f"after {len(losses)} steps, in which the loss fell from {first:.3g} to "
                f"{last:.3g}, {right:.2f} of the predictions that are evaluated are their labels, "
                f"where {chance:.2f} would be so by chance; each class by another name, "
                f"{renamed:.2f} are. Evaluation numbers the classes otherwise than training: "
                f"{written(labels)} are its labels, and {written(predicted)} are predicted",
                f"{right:.2f}, and {renamed:.2f} with other names",
                healthy="the same number for a class in training and in evaluation",
                remedy="one table of numbers for all splits: numbers = {name: number for number, "
                "name in enumerate(names)}",
                confidence=0.9,
            )
            return


def compared(traced: Trace, leaves: list[jax.Array]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of arrays of classes that are compared: what the state has a part in, and labels."""
    learned = traced.reached(traced.arguments[0])
    needed = traced.needed(traced.outputs)
    for op in traced.operations:
        if op.name not in ("eq", "ne") or needed.isdisjoint(op.outputs):
            continue
        own = [value for value in op.inputs if value in learned]
        others = [value for value in op.inputs if value not in learned]
        if len(own) == len(others) == 1 and traced.shape(own[0]) == traced.shape(others[0]):
            values = traced.evaluate(leaves, [*own, *others])
            one, other = (np.ravel(np.asarray(value)) for value in values)
            enough = len(other) >= bound("rows for no signal")
            if enough and 1 < len(np.unique(other)) < bound("mostly") * len(other):
                yield one, other


def agreements(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """The share of predictions that are their labels; by other names; and by chance.

    Each predicted class is renamed to the label that it meets most. This counts from what one name
    for all would give, 0, to 1, and classes that get the same name count once.
    """
    names, places = np.unique(labels, return_inverse=True)
    classes, own = np.unique(predicted, return_inverse=True)
    counts = np.zeros((len(classes), len(names)))
    np.add.at(counts, (own, places), 1)
    met: dict[int, float] = {}
    for row in counts:
        best = int(row.argmax())
        met[best] = max(met.get(best, 0.0), float(row[best]))
    total, largest = len(labels), float(counts.sum(0).max())
    renamed = (sum(met.values()) - largest) / (total - largest)
    return float(np.mean(predicted == labels)), renamed, 1 / len(names)


def written(classes: np.ndarray) -> str:
    """The classes that there are, as `0, 1, 2, 3, …`."""
    values = np.unique(classes)
    return ", ".join(f"{value:g}" for value in values[:6]) + (", …" if len(values) > 6 else "")
