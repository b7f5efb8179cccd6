"""Whether rows still mean what their targets say: labels moved, augmentation, channels."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np

from nnref.diagnosis.data.edits import renumbered, reordered
from nnref.diagnosis.data.images import IMAGES, is_image, likelier, likeness
from nnref.diagnosis.data.references import FEW_ROWS
from nnref.diagnosis.data.splits import Splits
from nnref.diagnosis.data.targets import Rows, Target, chance, score, skill, target_of
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.data_checks import contradiction
from nnref.diagnosis.judge.rows_alone import rows_alone
from nnref.diagnosis.judge.split_checks import ComparedSplit, unlearnable
from nnref.diagnosis.pipeline.loaded import Loaded
from nnref.diagnosis.pipeline.numbers import of_targets
from nnref.diagnosis.pipeline.origins import origins
from nnref.diagnosis.proof import Proof
from nnref.diagnosis.thresholds import bound

LAGS = (1, -1, 2, -2, 3, -3)  # rows by which targets may have slipped; a batch, too
ALIGNED = "x and y cut, dropped, skipped and shuffled by one and the same index"

Turn = Callable[[np.ndarray], np.ndarray]


def quarters(count: int) -> Turn:
    """A turn by so many quarters, anticlockwise."""
    return lambda x: np.rot90(x, count, (1, 2))


def mirrored(*axes: int) -> Turn:
    """A mirror image along some axes."""
    return lambda x: np.flip(x, axes)


TURNS: dict[str, tuple[Turn, Turn]] = {  # of images and grids: what is done, and what undoes it
    "mirrored top to bottom": (mirrored(1), mirrored(1)),
    "mirrored left to right": (mirrored(2), mirrored(2)),
    "turned by half": (quarters(2), quarters(2)),
    "turned by a quarter": (quarters(1), quarters(-1)),
    "turned by a quarter, clockwise": (quarters(-1), quarters(1)),
}


def labels(loaded: Loaded) -> Iterator[Finding]:
    """Targets that are not those of their rows: of the raw rows, or by what can be learned."""
    if not loaded.enough:
        return
    if loaded.places and loaded.rows is not None and loaded.known.sum() >= FEW_ROWS:
        yield from beside_raw(loaded, loaded.rows[1])
        return
    found = list(slipped(loaded))
    yield from found
    if not found and loaded.rows is not None and not changed(loaded, loaded.rows[0]):
        rows = loaded.first.x, loaded.first.y
        if loaded.rows[0].shape[1:] == rows[0].shape[1:]:
            measured = rows_alone(loaded.rows, rows, kind=loaded.kind)
            yield from unlearnable(ComparedSplit(measured, "loaded", rows))


def changed(loaded: Loaded, raw: np.ndarray) -> bool:
    """Whether raw rows are known again where they are as they were, and the loader's are not."""
    known = float((origins(raw, raw) >= 0).mean())
    return not loaded.places and known > bound("mostly")


def beside_raw(loaded: Loaded, raw: np.ndarray) -> Iterator[Finding]:
    """Targets held against those of the raw rows that the rows were made of."""
    if any(of_targets(loaded)):
        return  # they have wrapped round, which is told by itself
    kind = loaded.alone.skill.kind
    places, y = loaded.places[0], loaded.first.y
    wanted, given = (target_of(part, kind) for part in (raw[places], y))
    lags = [lag for lag in (0, *LAGS, *sizes(loaded)) if abs(lag) < len(y)]
    agrees = {lag: agreement(wanted, given, loaded.known, lag) for lag in lags}
    if agrees[0] >= bound("lookup"):
        return
    best = max(lags, key=lambda lag: agrees[lag])
    moved = agrees[best] >= bound("lookup")
    yield fault(
        "corrupted_labels",
        "the targets of the loader",
        (
            f"the targets have slipped: row i comes with the target of row i {-best:+d}"
            if moved
            else "rows come with other targets than those that they have in the raw rows"
        ),
        f"agreement {max(agrees[0], 0):.2f} with the raw targets"
        + (f", and {agrees[best]:.2f} once moved by {best:+d}" if moved else ""),
        healthy="1: each row with its own target",
        remedy=ALIGNED,
    )


def sizes(loaded: Loaded) -> tuple[int, ...]:
    """The rows of a batch, forth and back."""
    size = max(loaded.first.sizes, default=0)
    return (size, -size) if size > max(LAGS) else ()


def agreement(wanted: Target, given: Target, known: np.ndarray, lag: int) -> float:
    """How far the targets of rows tell those of their raw rows: 0 by chance, 1 wholly.

    Another number of a class, and another scale of a value, are no disagreement, nor are targets
    of another form.
    """
    a, b = wanted.answers, np.roll(given.answers, -lag, 0)
    if a.shape != b.shape or wanted.kind != given.kind:
        return 1.0
    a, b = a[known], b[known]
    if wanted.kind in ("binary", "multiclass"):
        counted = (a >= 0) & (b >= 0)
        classes = np.eye(max(wanted.classes, given.classes))
        order = renumbered(classes[a[counted]], classes[b[counted]])
        named = wanted._replace(answers=a[counted])
        return skill(score(named, np.argsort(order)[b[counted]]), chance(named))
    if wanted.kind != "regression":
        return float((a == b).mean())
    a, b = ((part - part.mean(0)) / (part.std(0) + 1e-30) for part in (a, b))
    return float(((a * b).mean(0) ** 2).mean())


def slipped(loaded: Loaded) -> Iterator[Finding]:
    """Targets of which simple models tell nothing, and much once they are moved by some rows."""
    kind = loaded.alone.skill.kind
    x, y = loaded.first.x, loaded.first.y
    if kind == "places" or len(x) < bound("rows for no signal"):
        return

    slip = slip_of(x, y, kind, (*LAGS, *sizes(loaded)))
    if slip is not None:
        here, best, skill = slip
        yield fault(
            "corrupted_labels",
            "the targets of the loader",
            f"the targets have slipped: row i comes with the target of row i {-best:+d}",
            f"simple models find {max(here, 0):.2f} of the answer, and {skill:.2f} once "
            f"the targets are moved by {best:+d}",
            healthy="each row with its own target",
            remedy=ALIGNED,
        )


def slip_of(
    x: np.ndarray, y: np.ndarray, kind: str, lags: Iterable[int] = LAGS
) -> tuple[float, int, float] | None:
    """Skill of simple models, the rows by which targets have slipped, and the skill without that.

    None where targets belong to their rows, or where nothing is learned either way.
    """

    def learned(lag: int) -> float:
        moved = np.roll(y, -lag, 0)
        splits = Splits((x, moved), (x, moved), kind)
        if not splits.comparable:
            return 0.0
        return splits.skill(splits.inside[0], splits.wanted(splits.target))

    here = learned(0)
    if here > bound("signal"):
        return None
    skills = {lag: learned(lag) for lag in lags}
    best = max(skills, key=skills.__getitem__)
    return (here, best, skills[best]) if skills[best] > 2 * bound("learnable") else None


def augmentation(loaded: Loaded) -> Iterator[Finding]:
    """Draws of a row that no longer mean what its target says."""
    if loaded.rows is None or not loaded.enough:
        return
    found = list(turned(loaded, loaded.rows))
    yield from found or drowned(loaded, loaded.rows)


def turned(loaded: Loaded, rows: Rows) -> Iterator[Finding]:
    """Rows that are mirrored or turned, where the answer turns with them and the target does not.

    A model of the raw rows is asked about them: what it says of most is another target.
    """
    x, y = rows
    if x.ndim not in (3, 4) or loaded.first.x.shape[1:] != x.shape[1:]:
        return
    for words, (turn, back) in TURNS.items():
        undone = back(loaded.first.x)
        if undone.shape != loaded.first.x.shape:
            continue
        places = origins(x, undone)
        is_turned = (places >= 0) & ~loaded.known
        if is_turned.sum() < max(FEW_ROWS, bound("repeated") * len(places)):
            continue
        others = turn(x[places[is_turned]]), loaded.first.y[is_turned]
        found = contradiction((x, y), others, loaded.alone.skill.kind)
        if found is not None:
            numbers, edit = found
            yield fault(
                "augmentation_changes_answer",
                "the augmentation",
                f"{is_turned.mean():.0%} of the rows come {words}, with the target that they had "
                f"before; a model of the raw rows says of them that {edit.differs}",
                f"it reaches {numbers.inside:.2f} on raw rows, {numbers.across:.2f} on these",
                proof=Proof(
                    f"with targets so edited, {edit.skill:.2f}: {edit.remedy}, for yv the targets "
                    "of these rows",
                    before=(numbers.across,),
                    after=(edit.skill,),
                ),
            )
            return


def drowned(loaded: Loaded, rows: Rows) -> Iterator[Finding]:
    """Rows of which nothing can be learned any more, though each has the target it should have."""
    x = loaded.first.x
    if rows[0].shape[1:] != x.shape[1:] or loaded.alone.skill.kind == "places":
        return
    seen = [epoch.x for epoch in loaded.epochs], [epoch.y for epoch in loaded.epochs]
    drawn = tuple(np.concatenate(part) for part in seen)
    if drawn[1].shape[1:] != rows[1].shape[1:]:
        return
    numbers = Splits(rows, (drawn[0], drawn[1]), loaded.alone.skill.kind).numbers
    if numbers is None or numbers.inside < bound("learnable"):
        return
    if numbers.within > bound("collapse") * numbers.inside:
        return
    unknown = not loaded.places or float(loaded.known.mean()) < bound("known rows")
    if unknown or differ(loaded, rows[0]):
        yield (fault if numbers.within < bound("signal") else note)(
            "augmentation_changes_answer",
            "the augmentation",
            "what the loader makes of the rows says little of their targets",
            f"simple models reach {numbers.inside:.2f} on the raw rows, and {numbers.within:.2f} "
            "on what the loader gives",
            confidence=bound("soft"),
        )


def differ(loaded: Loaded, raw: np.ndarray) -> bool:
    """Whether rows are more than a scale away from the raw rows they were made of."""
    a, b = raw[loaded.places[0][loaded.known]], loaded.first.x[loaded.known]
    a, b = (part.reshape(len(part), -1).astype(float) for part in (a, b))
    a, b = ((part - part.mean(0)) / (part.std(0) + 1e-30) for part in (a, b))
    return bool(((a - b) ** 2).mean() > bound("leak"))


def channels(loaded: Loaded) -> Iterator[Finding]:
    """Images whose neighbouring pixels are alike in the raw rows, and not in what is loaded."""
    x = loaded.first.x[:IMAGES]
    if loaded.rows is None or not (is_image(x) and is_image(loaded.rows[0][:IMAGES])):
        return
    raw = loaded.rows[0][:IMAGES]
    for differs, remedy, other in reordered(x) if likelier(raw, x) else ():
        if "reshape" in remedy and likelier(other, x):
            yield fault(
                "inputs_misread",
                "inputs",
                f"{differs}: neighbouring pixels are alike in the raw rows, and not as loaded",
                f"likeness of neighbours {likeness(x):.2f}, of the raw rows {likeness(raw):.2f}",
                remedy=remedy.replace("xv", "x"),
                proof=Proof(
                    f"in the order that the remedy restores it is {likeness(other):.2f}",
                    before=(likeness(x),),
                    after=(likeness(other),),
                ),
            )
            return


def meaning(loaded: Loaded) -> Iterator[Finding]:
    """All checks of what rows mean; where targets are wrong, no augmentation is asked."""
    found = list(labels(loaded))
    yield from chain(found, () if found else augmentation(loaded), channels(loaded))
