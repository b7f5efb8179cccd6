"""A program with all small edits of the user's lines in it, trained with one of them at a time."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import CodeType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from nnref.diagnosis.one_edit.deciding import NONE, Edits
from nnref.diagnosis.one_edit.rewriting import SLOPE, Exchange, Site, codes_run, exchanged
from nnref.training.work import work_of

Arrays = dict[str, Any]
Batch = Callable[[int, int], Sequence[Any]]
TRACES = itertools.count()
STARTED = 2e-7  # seconds that an operation takes beside its arithmetic
CALLED = 2e-4  # and a step that is called from Python
LONGER = 100  # times as many questions as without an edit: then a loop has no end
LEARNING = 3  # batches that are made to see what may be edited


def apart(room: int) -> Any:
    """A context whose compiled functions are its own, as those made outside know of no edits."""
    return set_xla_metadata(nnref_edits=str(room))


def afresh() -> Any:
    """A context in which every function is traced anew."""
    return apart(next(TRACES))


def seconds_of(function: Callable[[], Any]) -> float:
    """What a call takes of the processor, however busy it is with others."""
    began = time.process_time()
    function()
    return time.process_time() - began


class Trained(NamedTuple):
    """A training whose functions are the user's.

    Attributes:
        start: the arrays before the first step of a run, by its seed.
        step: `step(arrays, batch, key)`, the arrays after a step.
        batch: the arrays of a batch, by its place in the run and the seed.
        score: the numbers of the evaluation of such arrays.
        key: from which those of the steps are drawn.
        supply: makes such a `batch` anew, where the user's functions make the batches; else None.
    """

    start: Callable[[int], Arrays]
    step: Callable[[Arrays, Sequence[Any], Any], Arrays]
    batch: Batch
    score: Callable[[Arrays], dict[str, float]]
    key: Any
    supply: Callable[[], Batch] | None = None


class Edited(NamedTuple):
    """An edit: its number, where it stands, and the expression that it writes there."""

    number: int
    site: Site
    text: str


class Ran(NamedTuple):
    """The user's functions of a step, of its batches, and of an evaluation.

    Those of the evaluation that give the score, one number, are apart: an edit of them would change
    what is counted.
    """

    step: set[CodeType]
    batches: set[CodeType]
    evaluation: set[CodeType]
    scoring: set[CodeType]
    descends: bool  # whether the evaluation itself takes gradients, as an attack does

    @property
    def training(self) -> set[CodeType]:
        """Those of the step and of the batches."""
        return self.step | self.batches


def functions_of(training: Trained) -> Ran:
    """The functions that a training runs.

    Raises:
        Exception: what they raise; or for a `while_loop`, which an edit might make endless.
    """
    start = training.start(0)
    with afresh():
        step = codes_run(
            lambda: jax.eval_shape(training.step, start, training.batch(0, 0), training.key)
        )
    with afresh():
        evaluation = codes_run(lambda: training.score(start))
    supply = training.supply
    # What a second batch runs is not compiled: an edit of it needs nothing traced anew.
    batches = codes_run(partial(supply(), 1, 0)) if supply else {}
    scoring = {code for code, sizes in evaluation.items() if 1 in sizes}
    if any("while_loop" in code.co_names for code in {*step, *batches, *evaluation}):
        raise ValueError("a while_loop, which an edit might make endless")
    descends = any(SLOPE in sizes for sizes in evaluation.values())
    return Ran(set(step), set(batches), set(evaluation) - scoring, scoring, descends)


def stands_in(edit: Edited, codes: set[CodeType]) -> CodeType | None:
    """Which of these functions the line of an edit stands in.

    Of functions within each other it is the innermost, which begins last.
    """
    around = [
        code
        for code in codes
        if code.co_filename == edit.site.file
        and any(line == edit.site.line for *_, line in code.co_lines())
    ]
    return max(around, key=lambda code: code.co_firstlineno, default=None)


class Scored:
    """An evaluation with edits in what it runs, compiled once for all of them."""

    def __init__(self, edits: Edits, ran: Ran, training: Trained) -> None:
        """Of the functions that ran."""
        self.edits, self.training, self.room = edits, training, next(TRACES)
        self.most = np.inf
        self.exchange = Exchange(ran.evaluation | ran.scoring)
        edits.sites = {**edits.sites, **self.exchange.sites}

    def score(self, number: int, arrays: Arrays) -> dict[str, float]:
        """The numbers of a state with an edit.

        Raises:
            Exception: what the evaluation raises.
        """
        with apart(self.room), self.exchange.made(self.edits), self.edits.making(number):
            self.edits.compiling, self.edits.most = True, self.most
            try:
                found = self.training.score(arrays)
            finally:
                self.edits.compiling, self.edits.most = False, np.inf
        if number == NONE:
            self.most = LONGER * (self.edits.asked + 1)
        return found


class Search:
    """The edits of a training, `all` of them, in one program."""

    def __init__(self, training: Trained, ran: Ran) -> None:
        """Trace and compile the step with all its edits.

        Raises:
            Exception: where it cannot be traced so.
        """
        self.training, self.edits, self.ran = training, Edits(), ran
        example = training.start(0), training.batch(0, 0)
        with afresh(), exchanged(ran.step, self.edits) as self.edits.sites:
            self.edits.learning = True
            traced = jax.jit(self.with_edit).trace(jnp.int32([NONE, 0, 0]), *example)
            self.edits.learning, self.edits.which = False, None
            self.work = work_of(traced.jaxpr.jaxpr, STARTED)[0] + CALLED  # of a step, in seconds
            self.compiled = traced.lower().compile()
        self.of_batches = self.learn_batches()
        self.all = [Edited(number, *which) for which, number in self.edits.numbers.items()]
        self.evaluation = Scored(self.edits, ran, training)
        # By the third call everything is compiled.
        scoring = partial(self.evaluation.score, NONE, example[0])
        self.scoring = min(seconds_of(scoring) for _ in range(3))

    def learn_batches(self) -> set[int]:
        """The numbers of the edits of what makes the batches, which are made while it runs."""
        self.most = 0  # questions of a batch
        self.makers = Exchange(self.ran.batches)
        self.edits.sites = {**self.edits.sites, **self.makers.sites}
        self.edits.met.clear()
        self.edits.learning = True
        began = time.process_time()
        with self.supplied(NONE) as batch:
            for place in range(LEARNING):
                batch(place, 0)
                self.most = max(self.most, LONGER * (self.edits.asked + 1))
        self.making = (time.process_time() - began) / LEARNING
        self.edits.learning = False
        return set(self.edits.met)

    @contextlib.contextmanager
    def supplied(self, number: int) -> Iterator[Batch]:
        """What makes the batches, with an edit of it."""
        if self.training.supply is None or not self.ran.batches:
            yield self.training.batch
            return
        with self.makers.made(self.edits):
            supply = self.training.supply()

            def batch(place: int, seed: int) -> Sequence[Any]:
                # What is made in turn may have to make all batches before this one.
                self.edits.most = np.inf if number == NONE else self.most * (place + 1)
                with self.edits.making(number):
                    return supply(place, seed)

            try:
                yield batch
            finally:
                self.edits.most = np.inf

    def with_edit(self, numbers: Any, arrays: Arrays, batch: Sequence[Any]) -> Arrays:
        """The step with an edit, by the numbers of the edit, of the seed and of the place."""
        self.edits.which, seed, place = numbers
        key = jax.random.fold_in(jax.random.fold_in(self.training.key, seed), place)
        return self.training.step(arrays, batch, key)

    def trained(
        self, number: int, steps: int, seed: int = 0, at: Arrays | None = None, begin: int = 0
    ) -> Arrays:
        """The arrays after steps with an edit, from the start or from where a run has come to.

        Raises:
            Exception: what the user's functions raise where the batches are others.
        """
        arrays = self.training.start(seed) if at is None else at
        edited = self.supplied(number) if number in self.of_batches else None
        with edited or contextlib.nullcontext(self.training.batch) as batch:
            for place in range(begin, begin + steps):
                whole = np.array([number, seed, place], np.int32)
                arrays = self.compiled(whole, arrays, batch(place, seed))
        return arrays

    def is_shared(self, edit: Edited) -> bool:
        """Whether the evaluation runs the line of an edit, in a function that gives no score."""
        return stands_in(edit, self.ran.training) in self.ran.evaluation

    def seconds(self, edit: Edited, steps: int) -> float:
        """What an edit costs beside its steps: its evaluation, and the batches that it changes."""
        return self.scoring + (steps * self.making if edit.number in self.of_batches else 0)

    def score(self, edit: Edited | None, arrays: Arrays) -> dict[str, float]:
        """The evaluation of a state, by functions that are edited where training ran them so."""
        made = edit is not None and self.is_shared(edit)
        return self.evaluation.score(edit.number if edit and made else NONE, arrays)


class OfEvaluation(Scored):
    """The edits of what an evaluation alone runs, `all` of them, but of functions that score."""

    def __init__(self, training: Trained, ran: Ran, arrays: Arrays) -> None:
        """Run the evaluation of a state once, to see what may be edited.

        What training runs, too, is left out: it was trained as it is.

        Raises:
            Exception: what it raises.
        """
        super().__init__(Edits(), ran, training)
        self.edits.learning = True
        self.score(NONE, arrays)
        self.edits.learning = False
        edits = [Edited(number, *which) for which, number in self.edits.numbers.items()]
        alone, of_all = ran.evaluation - ran.training, ran.evaluation | ran.scoring
        self.all = [edit for edit in edits if stands_in(edit, of_all) in alone]
        self.seconds = min(seconds_of(partial(self.score, NONE, arrays)) for _ in range(2))
