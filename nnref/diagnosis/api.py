"""The doors: whatever somebody has becomes a subject, and is diagnosed."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.causes import bound
from nnref.diagnosis.findings import Finding, Findings, under_their_cause
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.judge import decide, impossible, measures
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.program import checks as program
from nnref.diagnosis.program.at_start import LossAtStart
from nnref.diagnosis.program.tracing import is_library, name_of
from nnref.diagnosis.recipe import Subject, for_any_rows, no_penalty, updated
from nnref.diagnosis.run.trials import norms
from nnref.diagnosis.run.watch import diagnose_history
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment, read
from nnref.training import setup
from nnref.training.task import Functions, Task

SECONDS = 30.0  # that the user's own run may take
BARE_STEPS = 200
KINDS = ("binary", "multiclass", "multilabel", "regression")
CHECKED = ("the traced program", "the data", "the start", "a run as told")


def diagnose(
    task: Any = None,
    *,
    optimizer: Any = None,
    batch_size: int = 32,
    epochs: int = 20,
    shuffle: bool = True,
    penalty: Callable[[Any], Any] | None = None,
    metric: Callable[[Any, Any], Any] | None = None,
    kind: str | None = None,
    loss: Callable[..., Any] | None = None,
    params: Any = None,
    batch: Any = None,
    history: Any = None,
    seconds: float = SECONDS,
) -> Findings:
    """Say why a network does not learn, or that nothing was found.

    Args:
        task: an `nnref.Task`, or an experiment (a path or an `nnref.Experiment`), which brings its
            own optimizer, batch size and epochs.
        optimizer: any optax transformation; Adam at 1e-3 if none is given.
        batch_size: rows of a step.
        epochs: passes over the training rows.
        shuffle: whether each epoch draws a new order.
        penalty: `penalty(params)`, what is added to the loss.
        metric: `metric(outputs, y)`, 1 where everything is right; accuracy or R² if none is given.
        kind: "binary", "multiclass", "multilabel" or "regression", where the targets do not tell.
        loss: instead of a task: `loss(params, batch)` or `loss(params, batch, key)`.
        params: its parameters.
        batch: `(x, y)`, or whatever it takes.
        history: of your own run, as `nnref.diagnose_history` takes it: it is read beside the run
            that is made here.
        seconds: that a run may take.

    Raises:
        UserError: for arguments that do not fit together.
    """
    if isinstance(task, Subject):
        return diagnose_subject(task, seconds, history)
    if loss is not None or params is not None or batch is not None:
        if task is not None:
            raise UserError("diagnose: give a task, or loss, params and batch, not both")
        return diagnose_loss(loss, params, batch, optimizer)
    if isinstance(task, (str, Path, Experiment)):
        return diagnose_subject(from_experiment(task), seconds, history)
    if not isinstance(task, Task):
        raise UserError(
            f"diagnose: {type(task).__name__} is no task; give nnref.Task(init=, apply=, loss=, "
            "train=(x, y)), an experiment file, or loss=, params=, batch="
        )
    functions = task.functions
    if not isinstance(functions, Functions):
        raise UserError(
            "diagnose: a module goes into nnref.Task(model=..., loss=..., train=(x, y))"
        )
    subject = Subject(
        functions.init,
        functions.apply,
        functions.training_loss or functions.loss,
        penalty or no_penalty,
        train=arrays(task.train),
        optimizer=optax.adam(1e-3) if optimizer is None else optimizer,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=shuffle,
        kind=kind,
        metric=metric,
        random=functions.random,
        modes=functions.modes,
        restart=functions.restart,
        **held_out(task),
    )
    return diagnose_subject(subject, seconds, history)


def arrays(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """A pair of NumPy arrays, in the precision that JAX computes in.

    Raises:
        UserError: for what is no number.
    """
    x, y = (np.asarray(part) for part in rows)
    for name, part in (("inputs", x), ("targets", y)):
        if part.dtype.kind not in "biufc" and not jnp.issubdtype(part.dtype, jnp.number):
            raise UserError(
                f"diagnose: {name} of dtype {part.dtype} are no numbers; for words, give their "
                "places: np.unique(y, return_inverse=True)[1]"
            )
    return np.asarray(jnp.asarray(x)), np.asarray(jnp.asarray(y))


def held_out(task: Task) -> dict[str, Any]:
    """The splits of a task that are not trained on, by name."""
    splits = {"valid": task.valid, "test": task.test}
    return {name: arrays(split) for name, split in splits.items() if split is not None}


def from_experiment(given: Any) -> Subject:
    """The subject of an experiment: its own functions, data, optimizer and length.

    Raises:
        UserError: for a mistake in the file, or data that are not here.
    """
    experiment = read(Path(given)) if isinstance(given, (str, Path)) else given
    task, build, _ = setup.from_experiment(experiment)
    functions, optimizer = build(dict(experiment.hyperparameters))
    return Subject(
        functions.init,
        functions.apply,
        functions.training_loss or functions.loss,
        train=arrays(task.train),
        optimizer=optimizer,
        batch_size=experiment.batch_size,
        epochs=experiment.epochs,
        shuffle=experiment.shuffle,
        hyperparameters=dict(experiment.hyperparameters),
        restart=functions.restart,
        **held_out(task),
    )


def made_by(given: str) -> tuple[Any, dict[str, Any]]:
    """The task that `package.module:make_task` makes, and further arguments of `diagnose`.

    Raises:
        UserError: for something that cannot be imported, or makes no task.
    """
    path, _, function = given.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(path), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{given}: {error}") from None
    finally:
        sys.path.pop(0)
    made = make()
    task, arguments = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if isinstance(task, Task | Subject) and isinstance(arguments, dict):
        return task, arguments
    raise UserError(
        f"{given} gave a {type(made).__name__}; it must give an nnref.Task, or a pair of one and a "
        "dict of further arguments of nnref.diagnose (optimizer, batch_size, epochs, ...)"
    )


def refuse(subject: Subject) -> None:
    """What no training can be made of.

    Raises:
        UserError: what was given, and what is allowed.
    """
    rows = len(subject.train[0])
    if rows < 2:
        raise UserError(f"diagnose: {rows} training row; two different ones are the least")
    for name, given in (("batch_size", subject.batch_size), ("epochs", subject.epochs)):
        if not isinstance(given, int | np.integer) or given < 1:
            raise UserError(f"diagnose: {name} is {given!r}; it is a whole number from 1 up")
    if subject.kind not in (None, *KINDS):
        raise UserError(f"diagnose: kind is {subject.kind!r}; it is one of {', '.join(KINDS)}")
    if not all(callable(getattr(subject.optimizer, part, None)) for part in ("init", "update")):
        raise UserError(
            f"diagnose: optimizer is {subject.optimizer!r}, no optax transformation; give "
            "optax.adam(1e-3), say"
        )


def diagnose_subject(subject: Subject, seconds: float = SECONDS, history: Any = None) -> Findings:
    """Look at a subject, train it as told, and say what keeps it from learning.

    Raises:
        UserError: for what no training can be made of.
    """
    refuse(subject)
    own = None if history is None else diagnose_history(history)
    # A network that diverges is what this is about: its infinities are findings, not warnings.
    with np.errstate(all="ignore"):
        found = looked_at(subject, seconds)
    return found if own is None else beside(found, own)


def beside(found: Findings, own: Findings) -> Findings:
    """What was found, and what a user's own history says that is not said yet.

    Where only the history has a fault, the functions are right, and the loop that made it is not.
    """
    said = {finding.cause for finding in found}
    told = [
        replace(
            finding,
            where=f"your history, {finding.where}",
            evidence=finding.evidence
            + ("" if found.faults else "; the same functions learn here: look at your own loop"),
        )
        for finding in own
        if finding.cause not in said
    ]
    faults = [finding for finding in told if finding.severity == "fault"]
    if found.faults:  # it is one run; what its history adds is no second cause
        told = [replace(finding, severity="note") for finding in told]
        faults = []
    rest = [finding for finding in told if finding not in faults]
    return replace(
        found,
        found=(*under_their_cause(faults), *found, *rest),
        checked=(*found.checked, "your history"),
        measures={**found.measures, "your history": own.measures},
    )


def looked_at(subject: Subject, seconds: float) -> Findings:
    """All checks of a subject, and the verdict."""
    try:
        measured = Measurements(for_any_rows(subject), seconds)
        _ = measured.start
        params, optimizer = measured.initial[0], measured.subject.optimizer
        state = jax.eval_shape(optimizer.init, params)
        jax.eval_shape(lambda *given: updated(optimizer, *given), params, state, params)
        jax.eval_shape(measured.subject.penalty, params)
        if measured.subject.valid is not None:
            x, y = measured.subject.valid
            _ = measured.skill.outcome(*measured.initial, (x[:8], y[:8]))
    except Exception as error:  # whatever the user's functions raise is what was found
        return Findings((broken(error),), ("that the program runs",))
    refused: list[str] = []
    structural = program.check(measured.subject, *measured.initial, refused)
    signals = Signals(measured, Interventions(measured))
    found = tuple(decide(signals, structural))
    checked = CHECKED if signals.ran else CHECKED[:-1]
    return Findings(found, checked, (*refused, *impossible(signals)), measures(signals))


def diagnose_loss(loss: Any, params: Any, batch: Any, optimizer: Any) -> Findings:
    """All that can be said of `loss(params, batch, key)`: whether a few steps lower it.

    Raises:
        UserError: for what is missing.
    """
    if loss is None or params is None or batch is None:
        missing = [
            w for w, v in (("loss", loss), ("params", params), ("batch", batch)) if v is None
        ]
        raise UserError(
            f"diagnose: {' and '.join(missing)} missing; loss(params, batch, key) needs all"
        )
    look = LossAtStart(loss, params, batch, bare_arguments(loss) > 2)
    _, none, x, y = look.arguments
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer

    def step(carry: Any, key: Any) -> Any:
        params, state = carry

        def at(params: Any) -> Any:
            return look.objective(params, none, x, y, key)[0]

        value, gradient = jax.value_and_grad(at)(params)
        updates, state = updated(optimizer, gradient, state, params, at, value)
        told = (value, norms(gradient), norms(updates), norms(params))
        return (optax.apply_updates(params, updates), state), told

    try:
        start = (params, optimizer.init(params))
        keys = jax.random.split(jax.random.key(0), BARE_STEPS)
        run = jax.jit(lambda start: jax.lax.scan(step, start, keys)[1])
        values, gradients, updates, _ = jax.device_get(run(start))
    except Exception as error:  # whatever the user's function raises is what was found
        return Findings((broken(error),), ("that the loss runs",))
    refused: list[str] = []
    found = program.check_loss(look, refused)
    found += bare_findings(params, values, gradients, updates, {f.cause for f in found})
    checked = (*program.CHECKS_OF_A_LOSS, f"{BARE_STEPS} steps on the one batch")
    impossible = (
        *refused,
        "what the outputs are, and what the targets ask for: give nnref.Task(apply=..., loss=...)",
        "whether there is anything to learn: give train=(x, y)",
        "training against evaluation, validation: give a Task with both",
    )
    return Findings(tuple(under_their_cause(found)), checked, impossible)


def bare_arguments(loss: Callable[..., Any]) -> int:
    """How many of params, batch and key a loss takes.

    Raises:
        UserError: where it takes others.
    """
    try:
        arguments = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return 3
    needed = [a for a in arguments if a.default is a.empty and a.kind <= a.POSITIONAL_OR_KEYWORD]
    if not 1 <= len(needed) <= 3:
        names = ", ".join(argument.name for argument in needed)
        raise UserError(f"diagnose: loss takes ({names}); it is called as loss(params, batch, key)")
    return len(needed)


def bare_findings(
    params: Any, values: Any, gradients: Any, updates: Any, known: set[str]
) -> Iterator[Finding]:
    """What a few steps on one batch show of a bare loss, beside the causes that are known."""
    paths = [name_of(path) for path, _ in jax.tree.leaves_with_path(params)]
    finite = np.isfinite(values) & np.isfinite(gradients).all(1)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        grew = at > 1 and values[at - 1] > bound("growth") * abs(values[0])
        born = "loss" if not np.isfinite(values[at]) else "gradient"
        yield Finding(
            "learning_rate_too_high" if grew else "numerical_instability",
            "fault",
            born,
            f"the first non-finite number is born in the {born} of step {at + 1}"
            + (", after a loss that grew" if grew else ", while everything before it is moderate"),
            measured=f"loss {values[0]:.3g} at first",
            healthy="finite",
            remedy="divide the learning rate by 10"
            if grew
            else "jnp.clip before jnp.log, / or sqrt",
        )
        return
    silent = [path for path, gradient in zip(paths, gradients.T, strict=True) if not gradient.any()]
    if silent and "parameters_not_updated" not in known:
        everything = len(silent) == len(paths)
        yield Finding(
            "parameters_not_updated",
            "fault" if everything else "note",
            ", ".join(silent[:4]) + (" ..." if len(silent) > 4 else ""),
            "no gradient reaches these parameters at any step",
            measured="gradient exactly 0",
            healthy="above 0",
            remedy="look for stop_gradient, rounding, argmax or a result that is never used",
        )
        if everything:
            return
    if not updates.any():
        yield Finding(
            "parameters_not_updated",
            "fault",
            "optimizer",
            "there is a gradient, and every update is exactly 0",
            remedy="a learning rate above 0",
        )
    elif values[-1] > values[0]:
        yield Finding(
            "learning_rate_too_high",
            "fault",
            "optimizer",
            f"{BARE_STEPS} steps on one batch raise its loss from {values[0]:.3g}",
            measured=f"{values[-1]:.3g}",
            healthy="a loss that falls on a batch that is seen again and again",
            remedy="divide the learning rate by 10",
            confidence=0.7,
        )


def broken(error: Exception) -> Finding:
    """A user's exception as a finding, with the user's own file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    rooms = str(Path(__file__).parents[1])
    mine = [f for f in frames if not is_library(f.filename) and not f.filename.startswith(rooms)]
    frame = (mine or frames)[-1]
    message = str(error).strip().splitlines() or [type(error).__name__]
    return Finding(
        "broken_program",
        "fault",
        f"{frame.filename}:{frame.lineno}",
        f"{type(error).__name__}: {message[0]}",
        measured=(frame.line or "").strip(),
    )
