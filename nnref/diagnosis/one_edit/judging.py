"""Which edit cures: the user's own evaluation, much better from every seed."""

import linecache
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.one_edit.scale import Scale
from nnref.diagnosis.one_edit.search import (
    NONE,
    Arrays,
    Edited,
    Mode,
    OfEvaluation,
    Search,
    Trained,
)
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import is_key

FEWEST, MOST = 20, 100  # steps of the first run of each edit
SEEDS = 3
EVALUATING = 10.0  # seconds that the evaluations of the first runs may take: others are left out
LEFT, FEW = 4, 2  # edits that are trained to the end at least, and for longer
LONG = 2  # times the seconds of the first runs, that these may take
SLOWER = 2  # times the steps, by which a loop that is merely slower has learned
SHOWN = 3  # of those that are as good


Run = tuple[float, Edited, Arrays]  # the error of an edit, and the state that it has come to


class Outcome(NamedTuple):
    """The errors of an edit, and of none, from several orders of the batches."""

    edit: Edited
    without: list[float]
    errors: list[float]

    @property
    def gain(self) -> float:
        """The least that an edit takes away."""
        return min(a - b for a, b in zip(self.without, self.errors, strict=True))


class Cure(NamedTuple):
    """What is found: the error with the edit, and the finding."""

    error: float
    finding: Finding


class Judge:
    """A search whose edits are judged by one number of the evaluation."""

    def __init__(self, search: Search, scale: Scale, seconds: float) -> None:
        """With so many seconds of a core for the runs of all edits."""
        self.search, self.scale, self.seconds = search, scale, seconds
        likeliest = sorted(search.all, key=rank)
        mode = search.mode
        costs = [mode.edited if search.is_shared(edit) else mode.plain for edit in likeliest]
        self.edits = [
            e for e, s in zip(likeliest, np.cumsum(costs), strict=True) if s <= EVALUATING
        ]
        each = max(len(self.edits), 1) * search.work
        self.steps = int(np.clip(seconds / (3 * each), FEWEST, MOST))

    def error(self, edit: Edited | None, arrays: Any) -> float:
        """The error of a state; that of what does not evaluate is infinite."""
        try:
            return self.scale.error(self.search.score(edit, arrays))
        except Exception:
            return np.inf

    def after(self, edit: Edited | None, steps: int, seed: int) -> float:
        """The error after so many steps."""
        number = NONE if edit is None else edit.number
        return self.error(edit, self.search.trained(number, steps, seed))

    def on(self, runs: list[Run], steps: int, more: int) -> list[Run]:
        """Runs that go on, the best first."""
        further = [
            (edit, self.search.trained(edit.number, more, at=arrays, begin=steps))
            for _, edit, arrays in runs
        ]
        ended = [(self.error(edit, arrays), edit, arrays) for edit, arrays in further]
        return sorted(ended, key=lambda run: run[0])

    def best(self) -> tuple[list[Run], int]:
        """The edits that are left when the worse two thirds have gone, again and again.

        Those with which the first steps lead to the same state are no edits. Where the best one is
        better than none, and does not cure yet, the best ones are trained for longer.

        Returns:
            What is left, and the steps that it has made.
        """
        steps = self.steps
        same = self.search.trained(NONE, steps)
        runs: list[Run] = []
        for edit in self.edits:
            arrays = self.search.trained(edit.number, steps)
            if not identical(arrays, same):
                runs.append((self.error(edit, arrays), edit, arrays))
        runs.sort(key=lambda run: run[0])
        for _ in range(2):
            runs, steps = self.on(runs[: max(len(runs) // 3, LEFT)], steps, 2 * steps), 3 * steps
        while runs:
            without = self.after(None, steps, 0)
            dear = 3 * steps * FEW * self.search.work > LONG * self.seconds
            if dear or not self.scale.improves(without, runs[0][0]):
                break
            if self.scale.cures(self.after(None, SLOWER * steps, 0), runs[0][0]):
                break
            runs, steps = self.on(runs[:FEW], steps, 2 * steps), 3 * steps
        return runs, steps

    def outcomes(self) -> list[Outcome]:
        """The edits that cure from every seed."""
        runs, self.made = self.best()
        first = self.after(None, self.made, 0)
        curing = [edit for error, edit, _ in runs if self.scale.cures(first, error)][:LEFT]
        # What is merely slower gets there with more steps.
        if not curing or not self.scale.cures(self.after(None, SLOWER * self.made, 0), runs[0][0]):
            return []
        without = [first, *(self.after(None, self.made, seed) for seed in range(1, SEEDS))]
        found = []
        for edit in curing:
            errors = [self.after(edit, self.made, seed) for seed in range(SEEDS)]
            # An edit that makes an untrained network good changes the evaluation, and no more.
            start = self.search.training.start(0)
            counted = self.scale.cures(self.error(None, start), self.error(edit, start))
            if not counted and all(map(self.scale.cures, without, errors)):
                found.append(Outcome(edit, without, errors))
        return found


def the_best(found: list[Outcome]) -> list[Outcome]:
    """Edits that are about as good as the best one, the likeliest first."""
    best = max((outcome.gain for outcome in found), default=0.0)
    close = [outcome for outcome in found if outcome.gain > bound("as good an edit") * best]
    return sorted(close, key=lambda outcome: (rank(outcome.edit), -outcome.gain))


def identical(one: Arrays, other: Arrays) -> bool:
    """Whether two states hold the same numbers."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(bool((numbers_of(a) == numbers_of(b)).all()) for a, b in pairs)


def numbers_of(leaf: Any) -> np.ndarray:
    """The numbers of an array; of a key those that it is made of; NaN as 0."""
    values = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    return np.nan_to_num(values) if values.dtype.kind == "f" else values


def rank(edit: Edited) -> float:
    """How seldom an edit is what was meant: names that are alike first, stopped gradients last."""
    if "stop_gradient" in edit.text:
        return 3
    if edit.site.text.startswith("_"):
        return 0  # what is thrown away
    if "1 - " in edit.text and "1 -" not in edit.site.text:
        return 2
    if edit.text.isidentifier() and edit.site.text.isidentifier():
        return 2 - 2 * SequenceMatcher(None, edit.text, edit.site.text).ratio()
    return 0 if len(edit.text) >= len(edit.site.text) else 1


def cured(trained: Trained, scale: Scale, seconds: float, mode: Mode | None = None) -> Cure | None:
    """The edit of one expression with which a training learns that does not, if there is one.

    Args:
        trained: what is trained, of the user's functions.
        scale: the number of its evaluation that judges.
        seconds: of an idle core, that the first runs of all edits may take: counted, not timed.
        mode: how the evaluation runs with an edit, where it is known.
    """
    search = Search(trained, mode)
    if not search.all:
        return None
    judge = Judge(search, scale, seconds)
    found = judge.outcomes()
    close = the_best(found)
    evidence = f"the medians of {SEEDS} runs, and it holds in each"
    return said(scale, len(search.all), judge.made, evidence, *close) if close else None


def of_evaluation(
    training: Trained,
    scale: Scale,
    start: Arrays,
    end: Arrays,
    steps: int,
    mode: Mode,
) -> Cure | None:
    """The edit of what the evaluation alone runs, with which what was learned is seen.

    It leaves the state before the first step as bad as it is: else it would change what is counted.

    Args:
        training: whose evaluation it is.
        scale: the number of it that judges.
        start: the state before the first step.
        end: the state after the last one.
        steps: how many there were.
        mode: how the evaluation runs with an edit.
    """
    search = OfEvaluation(training, end, mode)
    without, untrained = (scale.error(training.score(state)) for state in (end, start))
    found = []
    for edit in sorted(search.all, key=rank)[: int(EVALUATING / mode.edited)]:
        try:
            error = scale.error(search.score(edit, end))
            if not scale.cures(without, error):
                continue
            if not scale.cures(untrained, scale.error(search.score(edit, start))):
                found.append(Outcome(edit, [without], [error]))
        except Exception:  # no edit: it does not compute
            continue
    close = the_best(found)
    evidence = "the evaluation of one and the same state"
    return said(scale, len(search.all), steps, evidence, *close) if close else None


def said(
    scale: Scale, tried: int, steps: int, evidence: str, first: Outcome, *others: Outcome
) -> Cure:
    """What is found, in words."""
    site, name = first.edit.site, scale.name or "the evaluation"
    before, after = (
        f"{scale.value(float(np.median(errors))):.4g}" for errors in (first.without, first.errors)
    )
    also = [f"line {o.edit.site.line}: `{o.edit.text}` for `{o.edit.site.text}`" for o in others]
    finding = fault(
        "wrong_expression",
        f"{site.file}:{site.line}: {linecache.getline(site.file, site.line).strip()}",
        f"with `{first.edit.text}` in the place of `{site.text}`, {name} is {after} after "
        f"{steps} steps, and {before} without: {evidence}. {tried} small edits of your lines were "
        "tried" + (f"; as good: {'; '.join(also[:SHOWN])}" if also else ""),
        f"{name} {before}, with the edit {after}",
        remedy=f"{first.edit.text} instead of {site.text}",
        confidence=0.7,
    )
    return Cure(float(np.median(first.errors)), finding)
