"""What a property is asked of, and how an answer fails: an AssertionError with its finding."""

import inspect
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any, NamedTuple

import numpy as np

from nnref.diagnosis.api import made_by, recipe_from, refuse
from nnref.diagnosis.findings import Finding, upstream
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.sequences import aligned
from nnref.diagnosis.recipe import Recipe, for_any_rows
from nnref.errors import UserError
from nnref.training.task import Task

EFFORT = 0.5  # of a diagnosis: what a run of all properties may take
TASK = ("init", "apply", "model", "loss", "train", "valid", "test")  # what makes an `nnref.Task`


class NotApplicable(UserError):
    """A property that this network or these data cannot have."""


class DoesNotHold(AssertionError):
    """A property that does not hold: the finding against it, and what was measured."""

    def __init__(self, name: str, finding: Finding, measured: dict[str, Any]) -> None:
        """Say it in the words of the finding."""
        super().__init__(in_words(name, finding))
        self.finding, self.measured = finding, measured


class Answer(NamedTuple):
    """What was measured of a property, by name, and what speaks against it."""

    measured: dict[str, Any]
    findings: list[Finding]


class Subject:
    """A network, its data and its training, measured once for all properties."""

    def __init__(self, recipe: Recipe) -> None:
        """Take a recipe; nothing of it is asked yet."""
        refuse(recipe)
        self.recipe = aligned(for_any_rows(recipe))
        self.measured = Measurements(self.recipe, EFFORT)
        self.interventions = Interventions(self.measured)
        self.signals = Signals(self.measured, self.interventions)

    @cached_property
    def start(self) -> AtStart:
        """The network before its first step."""
        return AtStart(self.recipe, *self.measured.initial)

    def batch(self, number: int, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows of training, the same for the same number."""
        x, y = self.recipe.train
        order = np.random.default_rng(number).permutation(len(x))
        rows = self.recipe.rows or min(rows or self.recipe.batch_size, len(x))
        return x[order[:rows]], y[order[:rows]]


def subject(task: Any = None, **arguments: Any) -> Subject:
    """The subject of `nnref.checks`: what is measured of it is measured once.

    Args:
        task: an `nnref.Task`, an experiment or its path, "package.module:make_task", or
            "file.py:make_task".
        arguments: instead of a task, those of `nnref.Task`; beside it, those of `nnref.diagnose`
            that say how it is trained: optimizer, batch_size, epochs, shuffle, penalty, metric and
            kind.

    Raises:
        UserError: for what is none of these.
    """
    if isinstance(task, Subject):
        return task
    if isinstance(task, str) and ":" in task:
        task, others = made_by(task)
        arguments = others | arguments
    functions = {name: arguments.pop(name) for name in TASK if name in arguments}
    if task is not None and functions:
        raise UserError(f"checks: give a task, or {', '.join(functions)}, not both")
    task = Task(**functions) if task is None else task
    known = set(inspect.signature(Recipe).parameters)
    unknown = set(arguments) - known
    if unknown:
        raise UserError(f"checks: {', '.join(sorted(unknown))} is no argument of a training")
    return Subject(recipe_from(task, arguments))


def in_words(name: str, finding: Finding) -> str:
    """What an AssertionError says of a property."""
    lines = [f"{name}: {finding.evidence}", f"  where     {finding.where}"]
    for word in ("measured", "healthy", "remedy"):
        value = getattr(finding, word)
        lines += [f"  {word:<9} {value}"] if value else []
    return "\n".join(lines)


def settle(name: str, answer: Answer, strict: bool) -> dict[str, Any]:
    """What was measured, where nothing speaks against it.

    Raises:
        DoesNotHold: with the finding that does, faults first; for notes only where it is strict.
    """
    against = sorted(upstream(answer.findings), key=lambda finding: finding.severity != "fault")
    if against and (strict or against[0].severity == "fault"):
        raise DoesNotHold(name, against[0], answer.measured)
    return answer.measured


def checked(ask: Callable[..., Answer]) -> Callable[..., dict[str, Any]]:
    """A property of a subject as one calls it: with a task, or with the arguments of one.

    `strict=False` lets pass what is worth knowing and no fault.
    """
    own = set(inspect.signature(ask).parameters) - {"subject"}

    @wraps(ask)
    def asked(task: Any = None, *, strict: bool = True, **arguments: Any) -> dict[str, Any]:
        options = {name: arguments.pop(name) for name in own if name in arguments}
        with np.errstate(all="ignore"):
            return settle(ask.__name__, ask(subject(task, **arguments), **options), strict)

    asked.__signature__ = inspect.signature(ask)  # pyright: ignore[reportAttributeAccessIssue]
    return asked
