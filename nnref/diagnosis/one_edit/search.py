"""A program with all small edits of the user's lines in it, trained with one of them at a time."""

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import CodeType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from nnref.diagnosis.one_edit.deciding import Edits
from nnref.diagnosis.one_edit.rewriting import Site, codes_run, exchanged
from nnref.training.work import work_of

Arrays = dict[str, Any]
TRACES = itertools.count()
NONE = -1  # the number of no edit
STARTED = 2e-7  # seconds that an operation takes beside its arithmetic
CALLED = 2e-4  # and a step that is called from Python
SLOW = 2.0  # seconds of a call, most of which are not the first compilations
COMPILING = 0.5  # seconds that an evaluation takes to be compiled anew


def afresh() -> Any:
    """A context in which every function is traced anew, as compiled ones know nothing of edits."""
    return set_xla_metadata(nnref_edits=str(next(TRACES)))


class Mode(NamedTuple):
    """How an evaluation runs with an edit, and the seconds that it takes so, and without one."""

    context: Callable[[], Any]
    edited: float
    plain: float


def mode_of(score: Callable[[], Any]) -> Mode:
    """How an evaluation runs with an edit, of which its compiled functions do not know.

    They run uncompiled, which suits a few operations of many rows; or they are compiled anew for
    each edit, where there are many.
    """
    plain = seconds_of(score)
    with jax.disable_jit():
        first = seconds_of(score)
        uncompiled = first if first > SLOW else seconds_of(score)
    if uncompiled < plain + COMPILING:
        return Mode(jax.disable_jit, uncompiled, plain)
    return Mode(afresh, plain + COMPILING, plain)


def seconds_of(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


class Trained(NamedTuple):
    """A training whose functions are the user's.

    Attributes:
        start: the arrays before the first step of a run, by its seed.
        step: `step(arrays, batch, key)`, the arrays after a step.
        batch: the arrays of a batch, by its place in the run and the seed.
        score: the numbers of the evaluation of such arrays.
        key: from which those of the steps are drawn.
    """

    start: Callable[[int], Arrays]
    step: Callable[[Arrays, Sequence[Any], Any], Arrays]
    batch: Callable[[int, int], Sequence[Any]]
    score: Callable[[Arrays], dict[str, float]]
    key: Any


class Edited(NamedTuple):
    """An edit: its number, where it stands, and the expression that it writes there."""

    number: int
    site: Site
    text: str


class Ran(NamedTuple):
    """The user's functions that a step runs, and those of an evaluation that give no score."""

    step: set[CodeType]
    evaluation: set[CodeType]


def functions_of(training: Trained) -> Ran:
    """The functions that a training runs.

    Raises:
        Exception: what they raise.
    """
    start = training.start(0)
    with afresh():
        step = codes_run(
            lambda: jax.eval_shape(training.step, start, training.batch(0, 0), training.key)
        )
    with afresh():
        evaluation = codes_run(lambda: training.score(start))
    return Ran(set(step), {code for code, sizes in evaluation.items() if 1 not in sizes})


def score_with(
    edits: Edits, number: int, codes: set[CodeType], mode: Mode, score: Callable[[], Any]
) -> dict[str, float]:
    """An evaluation whose functions with these codes are edited."""
    with mode.context(), exchanged(codes, edits):
        edits.which = number
        try:
            return score()
        finally:
            edits.which = None


class Search:
    """The edits of a training, `all` of them, in one program."""

    def __init__(self, training: Trained, ran: Ran, mode: Mode) -> None:
        """Trace and compile the step with all its edits.

        Raises:
            Exception: where it cannot be traced so.
        """
        self.training, self.edits, self.mode = training, Edits(), mode
        self.codes, self.shared = ran.step, ran.step & ran.evaluation
        example = training.start(0), training.batch(0, 0), training.key
        with afresh(), exchanged(self.codes, self.edits) as self.edits.sites:
            self.edits.learning = True
            traced = jax.jit(self.with_edit).trace(jnp.int32(NONE), *example)
            self.edits.learning, self.edits.which = False, None
            self.work = work_of(traced.jaxpr.jaxpr, STARTED)[0] + CALLED  # of a step, in seconds
            self.compiled = traced.lower().compile()
        self.all = [Edited(number, *which) for which, number in self.edits.numbers.items()]

    def with_edit(self, which: Any, *arguments: Any) -> Arrays:
        """The step with an edit."""
        self.edits.which = which
        return self.training.step(*arguments)

    def trained(
        self, number: int, steps: int, seed: int = 0, at: Arrays | None = None, begin: int = 0
    ) -> Arrays:
        """The arrays after steps with an edit, from the start or from where a run has come to."""
        arrays = self.training.start(seed) if at is None else at
        for place in range(begin, begin + steps):
            key = jax.random.fold_in(jax.random.fold_in(self.training.key, seed), place)
            batch = self.training.batch(place, seed)
            arrays = self.compiled(np.int32(number), arrays, batch, key)
        return arrays

    def is_shared(self, edit: Edited) -> bool:
        """Whether the evaluation runs the line of an edit, in a function that gives no score."""
        around = [
            code
            for code in self.codes
            if code.co_filename == edit.site.file
            and any(line == edit.site.line for *_, line in code.co_lines())
        ]
        # Of functions within each other it is the innermost, which begins last.
        return bool(around) and max(around, key=lambda c: c.co_firstlineno) in self.shared

    def score(self, edit: Edited | None, arrays: Arrays) -> dict[str, float]:
        """The evaluation of a state, by functions that are edited where training ran them so."""
        if edit is None or not self.is_shared(edit):
            return self.training.score(arrays)
        score = partial(self.training.score, arrays)
        return score_with(self.edits, edit.number, self.shared, self.mode, score)


class OfEvaluation:
    """The edits of what an evaluation alone runs, `all` of them, but of functions that score."""

    def __init__(self, training: Trained, ran: Ran, mode: Mode, arrays: Arrays) -> None:
        """Run the evaluation of a state once, to see what may be edited.

        What the step runs, too, is left out: it was trained as it is.

        Raises:
            Exception: what it raises.
        """
        self.training, self.edits, self.mode = training, Edits(), mode
        self.codes = ran.evaluation - ran.step
        with jax.disable_jit(), exchanged(self.codes, self.edits) as self.edits.sites:
            self.edits.which, self.edits.learning = NONE, True
            training.score(arrays)
        self.edits.which, self.edits.learning = None, False
        self.all = [Edited(number, *which) for which, number in self.edits.numbers.items()]

    def score(self, edit: Edited, arrays: Arrays) -> dict[str, float]:
        """The evaluation of a state with an edit."""
        score = partial(self.training.score, arrays)
        return score_with(self.edits, edit.number, self.codes, self.mode, score)
