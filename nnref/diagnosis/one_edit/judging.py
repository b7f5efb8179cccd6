"""Which edit cures: the user's own evaluation, much better from every seed."""

import linecache
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.one_edit.deciding import NONE
from nnref.diagnosis.one_edit.scale import Scale
from nnref.diagnosis.one_edit.search import (
    Arrays,
    Edited,
    OfEvaluation,
    Ran,
    Search,
    Trained,
)
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import on_host

FEWEST, MOST = 20, 100  # steps of the first run of each edit
SEEDS = 3
UNTRAINED = 4  # networks, of which an edit that changes what is counted makes each one better
EVALUATING = 10.0  # seconds for the evaluations and batches of first runs: others are left out
LEFT, FEW = 4, 2  # edits that are trained to the end at least, and for longer
LONG = 2  # times the seconds of the first runs, that these may take
SLOWER = 2, 10  # times the steps, by which a loop that is merely slower has learned
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
        """With so many seconds of a core for the runs of all edits.

        Where no best score is known, as of a density or a game, no edit is tried that evaluation
        runs as well: it may change what is counted.
        """
        self.search, self.scale, self.seconds = search, scale, seconds
        self.plain: dict[tuple[int, int], float] = {}  # errors without an edit, by steps and seed
        tried = [e for e in search.all if np.isfinite(scale.best) or not search.is_shared(e)]
        likeliest = sorted(tried, key=rank)
        each = max(len(likeliest), 1) * search.work
        self.steps = int(np.clip(seconds / (3 * each), FEWEST, MOST))
        costs = np.cumsum([search.seconds(edit, self.steps) for edit in likeliest])
        self.edits = [e for e, s in zip(likeliest, costs, strict=True) if s <= EVALUATING]

    def error(self, edit: Edited | None, arrays: Arrays | None) -> float:
        """The error of a state; that of none, and of what does not evaluate, is infinite.

        So is one that is better than the best: something else is counted.
        """
        try:
            error = np.inf if arrays is None else self.scale.error(self.search.score(edit, arrays))
        except Exception:
            return np.inf
        return error if error >= self.scale.best else np.inf

    def trained(self, edit: Edited, steps: int, seed: int = 0, **since: Any) -> Arrays | None:
        """The arrays after so many steps with an edit; None where its batches cannot be made."""
        try:
            return self.search.trained(edit.number, steps, seed, **since)
        except Exception:
            return None

    def changes_the_score(self, edit: Edited) -> bool:
        """Whether an edit makes the evaluation of untrained networks better, of every one."""
        return self.search.is_shared(edit) and all(
            self.scale.improves(error, self.error(edit, state)) for state, error in self.untrained
        )

    @cached_property
    def untrained(self) -> list[tuple[Arrays, float]]:
        """Networks before the first step, and their errors: the start, and others of its numbers.

        One alone says little: with an edit it is another network, better or worse by chance.
        """
        start = self.search.training.start(0)
        states = [start, *(exchanged(start, seed) for seed in range(1, UNTRAINED))]
        return [(state, self.error(None, state)) for state in states]

    def after(self, edit: Edited, steps: int, seed: int) -> float:
        """The error after so many steps with an edit."""
        return self.error(edit, self.trained(edit, steps, seed))

    def without(self, steps: int, seed: int = 0) -> float:
        """The error after so many steps without an edit; each run of these is made once."""
        if (steps, seed) not in self.plain:
            self.plain[steps, seed] = self.error(None, self.search.trained(NONE, steps, seed))
        return self.plain[steps, seed]

    def with_time(self, steps: int) -> float:
        """The error without an edit after as many times so many steps as there is work for."""
        least, most = SLOWER
        times = self.seconds / 4 / (steps * self.search.work)
        return self.without(int(steps * np.clip(times, least, most)))

    def on(self, runs: list[Run], steps: int, more: int) -> list[Run]:
        """Runs that go on, the best first."""
        further = [
            (edit, self.trained(edit, more, at=arrays, begin=steps)) for _, edit, arrays in runs
        ]
        ended = [(self.error(e, arrays), e, arrays) for e, arrays in further if arrays is not None]
        return sorted(ended, key=lambda run: run[0])

    def best(self) -> tuple[list[Run], int]:
        """The edits that are left when the worse two thirds have gone, again and again.

        So have those that are worse than none.
        Those with which the first steps lead to the same state are no edits, and one that makes an
        untrained network better changes the evaluation, and no more. Where the best one is better
        than none, and does not cure yet, the best ones are trained for longer.

        Returns:
            What is left, and the steps that it has made.
        """
        steps = self.steps
        same = self.search.trained(NONE, steps)
        runs: list[Run] = []
        for edit in self.edits:
            arrays = None if self.changes_the_score(edit) else self.trained(edit, steps)
            if arrays is not None and not identical(arrays, same):
                runs.append((self.error(edit, arrays), edit, arrays))
        runs.sort(key=lambda run: run[0])
        for _ in range(2):
            better = [run for run in runs if run[0] <= self.without(steps)]
            better = better[: max(len(runs) // 3, LEFT)]
            runs, steps = self.on(better, steps, 2 * steps), 3 * steps
        while runs:
            dear = 3 * steps * FEW * self.search.work > LONG * self.seconds
            if dear or not self.scale.improves(self.without(steps), runs[0][0]):
                break
            if self.scale.cures(self.with_time(steps), runs[0][0]):
                break
            runs, steps = self.on(runs[:FEW], steps, 2 * steps), 3 * steps
        return runs, steps

    def outcomes(self) -> list[Outcome]:
        """The edits that cure from every seed."""
        runs, self.made = self.best()
        first = self.without(self.made)
        curing = [run for run in runs if self.scale.cures(first, run[0])][:LEFT]
        # What is merely slower gets there with more steps.
        if not curing or not self.scale.cures(self.with_time(self.made), runs[0][0]):
            return []
        without, found = [self.without(self.made, seed) for seed in range(SEEDS)], []
        for error, edit, _ in curing:
            errors = [error, *(self.after(edit, self.made, seed) for seed in range(1, SEEDS))]
            outcome = Outcome(edit, without, errors)
            # Of runs that climb and fall one may stand well by chance: then it is less to gain.
            if outcome.gain > 0 and self.scale.cures(float(np.median(without)), max(errors)):
                found.append(outcome)
        return found


def the_best(found: list[Outcome]) -> list[Outcome]:
    """Edits that are about as good as the best one, the likeliest first."""
    best = max((outcome.gain for outcome in found), default=0.0)
    close = [outcome for outcome in found if outcome.gain > bound("as good an edit") * best]
    return sorted(close, key=lambda outcome: (rank(outcome.edit), -outcome.gain))


def exchanged(arrays: Arrays, seed: int) -> Arrays:
    """The same arrays with the numbers of each in another order: a network that knows nothing."""
    random = np.random.default_rng(seed)

    def other(leaf: Any) -> Any:
        if not jax.dtypes.issubdtype(leaf.dtype, np.inexact):
            return leaf
        return leaf.ravel()[random.permutation(leaf.size)].reshape(leaf.shape)

    return jax.tree.map(other, arrays)


def identical(one: Arrays, other: Arrays) -> bool:
    """Whether two states hold the same numbers."""
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(
            *(map(on_host, jax.tree.leaves(arrays)) for arrays in (one, other)), strict=True
        )
    )


def rank(edit: Edited) -> float:
    """How seldom an edit is what was meant: names that are alike first, stopped gradients last."""
    if "stop_gradient" in edit.text:
        return 3
    if edit.site.columns[0] == edit.site.columns[1]:
        return 1  # a function's arguments exchanged: an expression that does the same is nearer
    if edit.site.text.startswith("_"):
        return 0  # what is thrown away
    if "1 - " in edit.text and "1 -" not in edit.site.text:
        return 2
    if edit.text.isidentifier() and edit.site.text.isidentifier():
        return 2 - 2 * SequenceMatcher(None, edit.text, edit.site.text).ratio()
    return 0 if len(edit.text) >= len(edit.site.text) else 1


def cured(training: Trained, ran: Ran, scale: Scale, seconds: float) -> Cure | None:
    """The edit of one expression with which a training learns that does not, if there is one.

    Args:
        training: what is trained, of the user's functions.
        ran: those of them that run.
        scale: the number of its evaluation that judges.
        seconds: of an idle core, that the first runs of all edits may take: counted, not timed.
    """
    search = Search(training, ran)
    if not search.all:
        return None
    judge = Judge(search, scale, seconds)
    found = judge.outcomes()
    close = the_best(found)
    evidence = f"the medians of {SEEDS} runs, and it holds in each"
    return said(scale, len(search.all), judge.made, evidence, *close) if close else None


def of_evaluation(
    training: Trained,
    ran: Ran,
    scale: Scale,
    start: Arrays,
    end: Arrays,
    steps: int,
) -> Cure | None:
    """The edit of what the evaluation alone runs, with which what was learned is seen.

    It leaves the state before the first step as bad as it is: else it would change what is counted,
    as where inputs are made hard on purpose, and are so no more.

    Args:
        training: whose evaluation it is.
        ran: the functions that run.
        scale: the number of it that judges.
        start: the state before the first step.
        end: the state after the last one.
        steps: how many there were.
    """
    if np.isinf(scale.best) or ran.descends:
        return None  # what is counted may be anything, or rows may be made hard on purpose
    search = OfEvaluation(training, ran, end)
    without, untrained = (scale.error(training.score(state)) for state in (end, start))
    found = []
    for edit in sorted(search.all, key=rank)[: int(EVALUATING / search.seconds)]:
        try:
            error = scale.error(search.score(edit.number, end))
            if error < scale.best or not scale.cures(without, error):
                continue
            if not scale.improves(untrained, scale.error(search.score(edit.number, start))):
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
