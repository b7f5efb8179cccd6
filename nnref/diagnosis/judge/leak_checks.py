"""Leaks: what makes validation look better than rows that are new would."""

from collections.abc import Iterator

import numpy as np

from nnref.diagnosis.data.leaks import copies_of_targets, groups, interleaved, neighbours
from nnref.diagnosis.data.references import references
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.sides import one_sided
from nnref.diagnosis.thresholds import bound


def check(measured: Measurements) -> Iterator[Finding]:
    """Targets among the inputs, and splits that were not made of separate rows."""
    x = np.asarray(measured.recipe.train[0])
    yield from given_away(measured, x)
    yield from one_sided_ids(measured)
    for name, part in (("validation", measured.recipe.valid), ("test", measured.recipe.test)):
        if part is not None:
            held = np.asarray(part[0])
            if held.shape[1:] == x.shape[1:] and np.isfinite(held).all():
                yield from between(name, x, held)
                yield from beside(name, x, held)
                yield from in_groups(measured, name, x, held)


def given_away(measured: Measurements, x: np.ndarray) -> Iterator[Finding]:
    """Columns of the inputs that are the target itself, or a multiple of it.

    A fault where the other columns say something about it, and far less: then it is a column that
    was left among the inputs, not a task of copying.
    """
    target = measured.skill.target
    columns = copies_of_targets(x, target)
    flat = x.reshape(len(x), -1)
    if not columns or len(columns) == flat.shape[1] or target.answers[:1].size > 1:
        return
    honest = references(np.delete(flat, columns, 1), target).best[1]
    leaks = bound("signal") < honest < bound("failed")
    names = ", ".join(map(measured.recipe.column, columns[:5]))
    yield (fault if leaks else note)(
        "leaked_targets",
        f"column {names} of the inputs",
        f"column {names} is the target itself, or a multiple of it: there is nothing to learn but "
        "to copy it",
        f"simple models reach {honest:.2f} without it",
        remedy=f"leave {names} out"
        if measured.recipe.inputs is not None
        else f"x = np.delete(x, {columns}, axis=1)"
        if x.ndim == 2
        else f"x = np.delete(x.reshape(len(x), -1), {columns}, axis=1)",
    )


def one_sided_ids(measured: Measurements) -> Iterator[Finding]:
    """Ids that stand on one side alone of the pairs that a network ranks."""
    if not measured.skill.takes_sides:
        return
    for found in one_sided(AtStart(measured.recipe, *measured.initial)):
        column, other = map(measured.recipe.column, (found.column, found.other))
        yield fault(
            "leaked_targets",
            f"{found.table}, column {column} of the inputs",
            f"columns {column} and {other} are looked up in the same table, {found.table}; column "
            f"{other} holds ids up to {found.whole - 1}, column {column} none from {found.end} on: "
            "those stand on one side alone, which tells the answer whatever else a row says",
            f"ids below {found.end} in column {column}, below {found.whole} in column {other}",
            healthy="ids over the whole table in both columns",
            remedy=f"draw column {column} from all ids: rng.integers(0, {found.whole}, rows)",
            confidence=0.9,
        )


def between(name: str, x: np.ndarray, held: np.ndarray) -> Iterator[Finding]:
    """Rows that were drawn between training rows, or are copies of them with a little noise."""
    around = neighbours(x, held)
    if around is None:
        return
    for which, words, remedy in (
        (around.between, "lie on a line between two training rows", "over-sample (SMOTE) after"),
        (around.dust, "are training rows with a trace of noise", "augment after"),
    ):
        share = float(which.mean())
        if share > bound("leak"):
            yield note(
                "repeated_rows",
                f"{name} rows",
                f"{share:.0%} of the {name} rows {words}: {name} measures memory",
                f"{share:.0%}",
                healthy=f"below {bound('leak'):.0%}",
                remedy=f"{remedy} the split, and only the training rows",
            )


def beside(name: str, x: np.ndarray, held: np.ndarray) -> Iterator[Finding]:
    """Windows of a series that were dealt to the splits at random, though they overlap."""
    share = interleaved(x, held)
    if share > bound("leak"):
        yield note(
            "repeated_rows",
            f"{name} rows",
            f"{share:.0%} of the {name} rows are windows of a series that stand between two "
            "training windows: what is asked of them stands among the training inputs",
            f"{share:.0%}",
            healthy="none but those at the border",
            remedy="cut the series in time before windows are made: x[:cut], x[cut + steps:]",
        )


def in_groups(
    measured: Measurements, name: str, x: np.ndarray, held: np.ndarray
) -> Iterator[Finding]:
    """Rows of one group in both splits, where the nearest row of another group says far less."""
    shared = groups(x, measured.skill.target, held)
    if shared is None or shared.shared < bound("leak"):
        return
    if shared.nearest < bound("learnable"):
        return
    if shared.nearest_of_others < bound("failed") * shared.nearest - bound("gap"):
        yield note(
            "repeated_rows",
            f"{name} rows",
            f"column {measured.recipe.column(shared.column)} names groups that stand in training "
            f"and in {name}: the nearest training row answers with a skill of "
            f"{shared.nearest:.2f}, the nearest of another group with "
            f"{shared.nearest_of_others:.2f}",
            f"{shared.shared:.0%} of the {name} rows are of such a group",
            healthy="groups that stand in one split each, where new ones will be asked about",
            remedy="sklearn.model_selection.GroupShuffleSplit by that column, then leave it out",
        )
