"""The data before any network: what is in them, and whether there is anything to learn."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.findings import Finding

if TYPE_CHECKING:
    from nnref.diagnosis.judge.case import Case
from nnref.diagnosis.data.references import FEW_ROWS, by_row, lookup, scales
from nnref.diagnosis.data.targets import Rows, Target, target_of

COMPARED = 5000  # rows that are compared with each other


def check(case: "Case") -> Iterator[Finding]:
    """What the data show before any network; faults only where no network could do without."""
    x, y = (np.asarray(part) for part in case.subject.train)
    yield from nonfinite(x, y)
    if not (finite(x) and finite(y)):
        return
    yield from still_columns(x)
    yield from copies(case, x)
    yield from given_away(x, case.target)
    yield from constant_targets(case, y)
    yield from conflicts(x, case.target)
    if case.kind in ("binary", "multiclass"):
        yield from balance(case)
    yield from splits(case)
    if not case.subject.shuffle:
        yield from sorted_rows(case)


def finite(values: np.ndarray) -> bool:
    """Whether every number is."""
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def nonfinite(x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """NaN or infinity."""
    for name, values in (("inputs", x), ("targets", y)):
        if not finite(values):
            bad = ~np.isfinite(values.reshape(len(values), -1))
            row, column = np.argwhere(bad)[0]
            yield Finding(
                "nonfinite_data",
                "fault",
                f"{name}, row {row}, column {column}",
                f"{int(bad.sum())} numbers of the {name} are NaN or infinite",
                measured=f"{bad.any(1).mean():.1%} of the rows",
                healthy="none",
                remedy="keep = np.isfinite(x).all(1); x, y = x[keep], y[keep]",
            )


def still_columns(x: np.ndarray) -> Iterator[Finding]:
    """Columns that say nothing: normal at the border of an image, worth knowing in a table."""
    if x.ndim == 2 and 2 < x.shape[1] <= 32 and len(x) > 2:
        still = np.flatnonzero(np.ptp(x, axis=0) == 0)
        if 0 < len(still) < x.shape[1] // 2:
            names = ", ".join(map(str, still[:5]))
            yield Finding(
                "no_signal",
                "note",
                f"columns {names}",
                f"{len(still)} of {x.shape[1]} columns have one value in every row",
            )


def copies(case: "Case", x: np.ndarray) -> Iterator[Finding]:
    """Training rows that are copies of others, in a data set that looks larger than it is."""
    different = len({row.tobytes() for row in by_row(x)})
    y = np.asarray(case.subject.train[1])
    if different == 1 < len(x) and (y != y[:1]).any() and not case.costs:
        yield Finding(
            "no_signal",
            "fault",
            "inputs",
            f"all {len(x)} training rows are the same, and their targets are not: nothing tells "
            "the rows apart",
            measured=f"every number of a row between {x.min():.3g} and {x.max():.3g}",
            healthy="rows that differ",
            remedy="look at the last cast, scale or crop of the inputs: uint8 of 0..1 is all 0",
        )
    elif len(x) >= bound("rows for no signal") and different < bound("copies") * len(x):
        yield Finding(
            "repeated_rows",
            "note",
            "training rows",
            f"only {different} of {len(x)} training rows are different ones",
            measured=f"{different / len(x):.0%}",
            healthy=f"above {bound('copies'):.0%}",
            remedy="x, first = np.unique(x, axis=0, return_index=True); y = y[first]",
        )


def given_away(x: np.ndarray, target: Target) -> Iterator[Finding]:
    """A column of the inputs that is the target itself."""
    if x.ndim != 2 or target.answers.shape[1:] not in ((), (1,)):
        return
    wanted = target.answers.reshape(len(x), 1)
    same = np.flatnonzero((x == wanted).all(0) & (np.ptp(x, axis=0) > 0))
    if len(same):
        yield Finding(
            "leaked_targets",
            "note",
            f"column {same[0]} of the inputs",
            f"column {same[0]} of the inputs is the target itself: there is nothing to learn but "
            "to copy it",
            remedy=f"x = np.delete(x, {same[0]}, axis=1)",
        )


def constant_targets(case: "Case", y: np.ndarray) -> Iterator[Finding]:
    """One target for every row: a fault where a metric compares, or the one class is not answered.

    Some losses want no targets, and are given zeros in their place.
    """
    if len(y) > 1 and (y == y[:1]).all():
        if case.kind == "regression":
            asked = case.subject.metric is not None and case.trained.skill < bound("failed")
        else:
            asked = case.answers is not None and bool(case.never_answered)
        asked = asked and not case.costs
        yield Finding(
            "corrupted_labels",
            "fault" if asked else "note",
            "targets",
            "every row has the same target: there is nothing to tell apart",
            measured=f"every target {in_short(y[0])}",
            healthy="targets that differ",
            remedy="look at the last cast or scale of the targets: integers of fractions are 0",
        )


def in_short(values: np.ndarray) -> str:
    """A target in a few characters."""
    return np.array2string(np.ravel(values)[:4], precision=3, separator=", ").strip("[]")


def conflicts(x: np.ndarray, target: Target) -> Iterator[Finding]:
    """Equal rows with unequal targets."""
    flat, target = (
        x.reshape(len(x), -1)[:COMPARED],
        target._replace(answers=target.answers[:COMPARED]),
    )
    _, group, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    repeated = counts[group.reshape(-1)] > 1
    if target.kind not in ("regression", "places") and repeated.mean() > 0.1:
        best = lookup(flat, target)
        if best < bound("lookup"):
            yield Finding(
                "corrupted_labels",
                "note",
                "targets",
                f"equal rows have unequal targets: no network can go further than {best:.2f} on "
                "them (a constant answer is 0, a perfect one 1)",
                measured=f"{repeated.mean():.0%} of the rows are repeated",
            )


def shares(target: Target, classes: int) -> np.ndarray:
    """The share of each class."""
    return np.bincount(target.answers, minlength=classes)[:classes] / len(target.answers)


def balance(case: "Case") -> Iterator[Finding]:
    """Classes that drown: rare in training, asked for in validation."""
    classes = case.target.classes
    train = shares(case.target, classes)
    present = train[train > 0]
    if len(present) < 2 or present.max() < bound("imbalance") * present.min():
        return
    told = (
        f"the rarest class has {present.min():.1%} of the training rows, the most frequent "
        f"{present.max():.0%}"
    )
    severity, healthy = "note", "within a factor of 10"
    if drowned(case, int(np.flatnonzero(train == present.min())[0])):
        severity, told = "fault", f"{told}; the network never answers it"
    if case.subject.valid is not None:
        target = target_of(np.asarray(case.subject.valid[1]), case.kind)
        valid = shares(target, max(classes, target.classes))[:classes]
        asked = valid[train == present.min()].max()
        outcome = case.validated
        far = outcome is not None and outcome.skill < bound("failed") * max(case.trained.skill, 0)
        if far and asked > bound("imbalance") / 2 * present.min():
            severity, told = "fault", f"{told}; of the validation rows it has {asked:.0%}"
    yield Finding(
        "class_imbalance",
        severity,
        "targets",
        told,
        measured=f"a factor of {present.max() / present.min():.0f}",
        healthy=healthy,
        remedy="weigh each row by 1 / share of its class, or draw classes evenly",
    )


def splits(case: "Case") -> Iterator[Finding]:
    """Training against validation and test: the same rows, other classes, another scale."""
    subject = case.subject
    for name, part in (("validation", subject.valid), ("test", subject.test)):
        if part is not None:
            rows = np.asarray(part[0]), np.asarray(part[1])
            yield from repeated(case, name, rows[0])
            yield from shifted(case, name, rows)
            yield from other_classes(case, name, rows)


def repeated(case: "Case", name: str, x: np.ndarray) -> Iterator[Finding]:
    """Rows of a split that are training rows."""
    known = {row.tobytes() for row in by_row(case.subject.train[0])}
    same = np.mean([row.tobytes() in known for row in by_row(x)])
    if same > bound("leak") and len(known) > len(case.subject.train[0]) // 2:
        yield Finding(
            "repeated_rows",
            "note",
            f"{name} rows",
            f"{same:.0%} of the {name} rows are training rows: {name} measures memory",
            measured=f"{same:.0%}",
            healthy=f"below {bound('leak'):.0%}",
            remedy="split before rows are repeated or drawn",
        )


def drowned(case: "Case", rarest: int) -> bool:
    """Whether the network never answers the rarest class, and is told to be bad for it."""
    best = case.reference.best[1]
    bad = case.trained.skill < bound("failed") * best and best > bound("signal")
    return bad and case.answers is not None and rarest in case.never_answered


def spoils(case: "Case", name: str, rows: Rows) -> bool:
    """Whether the network is far worse on a split than on its training rows."""
    outcome = case.validated if name == "validation" else case.on(rows)
    known = case.trained.skill > bound("signal")
    return known and outcome is not None and outcome.skill < bound("failed") * case.trained.skill


def shifted(case: "Case", name: str, rows: Rows) -> Iterator[Finding]:
    """A split that is scaled otherwise than the training rows."""
    x, other = np.asarray(case.subject.train[0]), rows[0]
    if x.shape[1:] != other.shape[1:] or len(other) < FEW_ROWS:
        return
    train, held = scales(x), scales(other)
    deviation = max(float(np.sqrt(np.mean(train.deviation**2))), 1e-30)
    shift = float(np.sqrt(np.mean((train.mean - held.mean) ** 2))) / deviation
    ratio = float(np.sqrt(np.mean(held.deviation**2))) / deviation
    column = int(np.abs(train.mean - held.mean).argmax())
    flat = x.reshape(len(x), -1)[:, column]
    if shift > 0.2 and (np.diff(flat) * np.sign(flat[-1] - flat[0]) >= 0).all():
        yield Finding(
            "unshuffled_split",
            "fault" if spoils(case, name, rows) else "note",
            f"column {column} of the inputs",
            f"training rows are sorted by column {column}, and {name} rows are of another region",
            measured=f"mean {train.mean[column]:.3g} and {held.mean[column]:.3g}",
            healthy="the same",
            remedy="order = rng.permutation(len(x)) before the split",
        )
    elif shift > 1 or not 1 / 3 < ratio < 3:
        yield Finding(
            "inputs_not_normalized",
            "fault" if spoils(case, name, rows) else "note",
            f"{name} inputs",
            f"{name} rows are scaled otherwise than training rows",
            measured=f"mean {shift:.2g} deviations away, deviation {ratio:.2g} times as large",
            healthy="the mean and deviation of the training rows, for both",
            remedy="xv = (xv - x_train.mean(0)) / x_train.std(0)",
        )


def other_classes(case: "Case", name: str, rows: Rows) -> Iterator[Finding]:
    """A split whose classes are others than those of the training rows."""
    if case.kind not in ("binary", "multiclass"):
        return
    target = target_of(rows[1], case.kind)
    classes = max(target.classes, case.target.classes)
    train, held = shares(case.target, classes), shares(target, classes)
    unseen = float(held[train == 0].sum())
    distance = float(np.abs(train - held).sum() / 2)
    # Where training itself is skewed, the skew is the finding, not the split.
    skewed = train.max() > bound("imbalance") * train[train > 0].min()
    if unseen > bound("unseen") or (distance > bound("histograms") and not skewed):
        yield Finding(
            "unshuffled_split",
            "fault" if spoils(case, name, rows) else "note",
            f"{name} targets",
            f"training and {name} rows hold different classes"
            + (f": {unseen:.0%} of the {name} rows are of classes never trained" if unseen else ""),
            measured=f"{distance:.0%} of the rows would have to change their class",
            healthy="below 20 %",
            remedy="order = rng.permutation(len(x)) before the split",
        )


def sorted_rows(case: "Case") -> Iterator[Finding]:
    """Rows in the order of their class, never shuffled: every batch unlearns the one before."""
    if case.kind not in ("binary", "multiclass") or len(case.target.answers) < FEW_ROWS:
        return
    changes = np.mean(case.target.answers[1:] != case.target.answers[:-1])
    expected = 1 - (shares(case.target, case.target.classes) ** 2).sum()
    if changes < bound("sorted") * expected and case.subject.batch_size < len(case.target.answers):
        bad = case.trained.skill < bound("failed") * max(case.reference.best[1], 0)
        yield Finding(
            "unshuffled_split",
            "fault" if bad else "note",
            "training rows",
            "the rows come class by class and are never shuffled",
            measured=f"the class changes after {changes:.1%} of the rows",
            healthy=f"about {expected:.0%}",
            remedy="shuffle=True",
        )
