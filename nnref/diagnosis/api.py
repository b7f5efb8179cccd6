"""What a user calls: a task, an experiment or a bare loss is diagnosed."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.data.trees import Layout
from nnref.diagnosis.findings import (
    Finding,
    Findings,
    as_note,
    fault,
    in_a_line,
    mistake,
    under_their_cause,
)
from nnref.diagnosis.judge import ended, predictions
from nnref.diagnosis.judge.edited import one_edit
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.judge import decide, impossible, learned, measures
from nnref.diagnosis.judge.measurements import Measurements, quietly
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.program import checks as program
from nnref.diagnosis.program.at_start import LossAtStart
from nnref.diagnosis.program.broken import broken, broken_program
from nnref.diagnosis.program.sequences import aligned
from nnref.diagnosis.recipe import Recipe, for_any_rows, no_penalty, one_array
from nnref.diagnosis.run import bare_loss
from nnref.diagnosis.run.history import diagnosed, history_of
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment, read
from nnref.training import setup
from nnref.training.adapters.losses import batch_loss
from nnref.training.adapters.models import fractions_of, optax_of
from nnref.training.compilation import usual_settings
from nnref.training.task import Functions, Task

KINDS = ("binary", "multiclass", "multilabel", "regression")
KEY = jax.random.key(0)
SECONDS = 30.0  # of `diagnose`, that are an effort of 1
DEFAULTS = {"optimizer": optax.adam(1e-3), "batch_size": 32, "epochs": 20, "penalty": None}
UNSURE = ("corrupted_labels", "insufficient_capacity", "no_signal")
CHECKED = ("the traced program", "the data", "the start", "a run as told")


@usual_settings()
def diagnose(
    task: Any = None,
    *,
    optimizer: Any = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    shuffle: bool = True,
    penalty: Callable[[Any], Any] | None = None,
    metric: Callable[[Any, Any], Any] | None = None,
    kind: str | None = None,
    loss: Callable[..., Any] | None = None,
    params: Any = None,
    batch: Any = None,
    history: Any = None,
    trained: Any = None,
    predict: Callable[[Any], Any] | None = None,
    unscale: Callable[[Any], Any] | None = None,
    effort: float = 1.0,
    seconds: float | None = None,
    progress: Callable[[str], None] = quietly,
) -> Findings:
    """Say why a network does not learn, or that nothing was found.

    Args:
        task: an `nnref.Task`, or an experiment, a path or not, which brings its own training.
        optimizer: of optax, NNX or Keras; by default a compiled model's, or Adam at 1e-3.
        batch_size: rows of a step, 32 by default; `epochs` are 20, or as a compiled model has it.
        shuffle: whether each epoch draws a new order.
        penalty: `penalty(params)`, what is added to the loss.
        metric: `metric(outputs, y)`, 1 where everything is right; accuracy or R² is asked if none
            is given, or one that counts errors.
        kind: "binary", "multiclass", "multilabel" or "regression", where the targets do not tell.
        loss: instead of a task: `loss(params, batch)`, `(params, batch, key)`, `(model, x, y)`.
        params: its parameters or its module; `batch` is `(x, y)`, or whatever it takes.
        history: losses of your own run, a list or a mapping with "loss" and "valid_loss", to be
            read beside this run.
        trained: what your loop ended with, `params` or `(params, state)`, held against this run.
        predict: `predict(x)`, your answers; `unscale(y)` gives scaled targets in their own unit.
        effort: of all runs together, counted in operations: 1 is a minute of an idle core at most.
        seconds: the same as seconds of an idle core for the run itself: 30 are an effort of 1.
        progress: called with what is being done, before it is done.

    Raises:
        UserError: for arguments that do not fit together.
    """
    if loss is not None or params is not None or batch is not None:
        if task is not None:
            raise UserError("diagnose: give a task, or loss, params and batch, not both")
        return diagnose_loss(loss, params, batch, optimizer)
    if getattr(task, "own_loss", False):
        return diagnose_own_loss(task, optimizer)
    effort = effort if seconds is None else seconds / SECONDS
    training = {"penalty": penalty, "optimizer": optimizer, "batch_size": batch_size}
    training |= {"epochs": epochs, "shuffle": shuffle, "kind": kind, "metric": metric}
    recipe = recipe_from(task, training)
    found = with_trained(diagnose_recipe(recipe, effort, history, progress), recipe, trained)
    runs = all(finding.cause != "broken_program" for finding in found.faults)
    return with_predictions(found, recipe, predict, unscale) if predict and runs else found


def recipe_from(task: Any, training: dict[str, Any]) -> Recipe:
    """The recipe of whatever `diagnose` takes; `training` says how a task is trained.

    Raises:
        UserError: for what is none of these.
    """
    if isinstance(task, Recipe):
        return task
    if isinstance(task, (str, Path, Experiment)):
        return from_experiment(task)
    if not isinstance(task, Task):
        raise UserError(
            f"diagnose: {type(task).__name__} is no task; give nnref.Task(init=, apply=, loss=, "
            "train=(x, y)), an experiment file, or loss=, params=, batch="
        )
    if not isinstance(task.functions, Functions):
        raise UserError(
            "diagnose: a module goes into nnref.Task(model=..., loss=..., train=(x, y))"
        )
    return recipe_of(task, task.functions, **training)


def recipe_of(task: Task, functions: Functions, **training: Any) -> Recipe:
    """The recipe of a task: its functions, its arrays, and how it is trained.

    What is None in `training` is as a compiled model says, or else as `DEFAULTS`.
    """
    chosen = {name: value for name, value in training.items() if value is not None}
    training = {**training, **DEFAULTS, **task.training, **chosen}
    training["optimizer"] = optax_of(training["optimizer"])
    training["penalty"] = training["penalty"] or functions.penalty or no_penalty
    training["metric"] = of_trees(training.get("metric"), task.targets)
    splits = {"valid": task.valid, "test": task.test}
    return Recipe(
        functions.init,
        functions.apply,
        functions.training_loss or functions.loss,
        train=arrays(task.train),
        random=functions.random,
        modes=functions.modes,
        restart=functions.restart,
        inputs=task.inputs,
        targets=task.targets,
        in_evaluation=functions.in_evaluation,
        **{name: arrays(split) for name, split in splits.items() if split is not None},
        **training,
    )


def of_trees(metric: Any, targets: Layout | None) -> Any:
    """A metric of outputs and targets, where these are a tree that lies in an array."""
    if metric is None or targets is None:
        return metric
    return lambda outputs, y: metric(outputs, targets.unpack(y))


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


def from_experiment(given: Any) -> Recipe:
    """The recipe of an experiment: its own functions, data, optimizer and length.

    Raises:
        UserError: for a mistake in the file, or data that are not here.
    """
    experiment = read(Path(given)) if isinstance(given, (str, Path)) else given
    task, build, _ = setup.from_experiment(experiment)
    hyperparameters = dict(experiment.hyperparameters)
    functions, optimizer = build(hyperparameters)
    return recipe_of(
        task,
        functions,
        optimizer=optimizer,
        batch_size=experiment.batch_size,
        epochs=experiment.epochs,
        shuffle=experiment.shuffle,
        evaluate_every=experiment.evaluate_every,
        stop=experiment.stop,
        seed=experiment.seeds[0],
        setup=build,
        hyperparameters=hyperparameters,
    )


def made_by(given: str) -> tuple[Any, dict[str, Any]]:
    """The task of `package.module:make_task` or `file.py:make_task`, and arguments of `diagnose`.

    Raises:
        UserError: for something that cannot be imported, or makes no task.
    """
    path, _, function = given.rpartition(":")
    folder, module = importable(path)
    sys.path.insert(0, str(folder))
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{given}: {error}; give package.module:function, or file.py:function"
        ) from None
    except Exception as error:  # whatever the user's module raises
        raise UserError(in_their_line(given, error)) from None
    finally:
        sys.path.pop(0)
    try:
        made = make()
    except UserError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise UserError(in_their_line(given, error)) from None
    task, arguments = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if isinstance(task, Task | Recipe) and isinstance(arguments, dict):
        return task, arguments
    raise UserError(
        f"{given} gave a {type(made).__name__}; it must give an nnref.Task, or a pair of one and a "
        "dict of further arguments of nnref.diagnose (optimizer, batch_size, epochs, ...)"
    )


def importable(path: str) -> tuple[Path, str]:
    """The folder to import a module from, and its name there; it may be given as a file."""
    file = Path(path)
    if file.suffix != ".py":
        return Path.cwd(), path
    if file.is_absolute() or ".." in file.parts:
        return file.parent.resolve(), file.stem
    return Path.cwd(), ".".join(file.with_suffix("").parts)


def in_their_line(given: str, error: Exception) -> str:
    """What a user's module raised before there was a task, and where."""
    found = broken(error)
    return f"{given}: {found.evidence} ({found.where})"


def refuse(recipe: Recipe) -> None:
    """What no training can be made of.

    Raises:
        UserError: what was given, and what is allowed.
    """
    rows = len(recipe.train[0])
    if rows < 2:
        raise UserError(f"diagnose: {rows} training row; two different ones are the least")
    for name, part in zip(("inputs", "targets"), recipe.train, strict=True):
        if not part.size:
            raise UserError(f"diagnose: the {name} have shape {part.shape}: no row holds a number")
    for name, given in (("batch_size", recipe.batch_size), ("epochs", recipe.epochs)):
        if not isinstance(given, int | np.integer) or given < 1:
            raise UserError(f"diagnose: {name} is {given!r}; it is a whole number from 1 up")
    if recipe.kind not in (None, *KINDS):
        raise UserError(f"diagnose: kind is {recipe.kind!r}; it is one of {', '.join(KINDS)}")
    if not all(callable(getattr(recipe.optimizer, part, None)) for part in ("init", "update")):
        raise UserError(
            f"diagnose: optimizer is {recipe.optimizer!r}, no optax transformation; give "
            "optax.adam(1e-3), say"
        )


def diagnose_recipe(
    recipe: Recipe,
    effort: float = 1.0,
    history: Any = None,
    progress: Callable[[str], None] = quietly,
) -> Findings:
    """Look at a recipe, train it as told, and say what keeps it from learning.

    Raises:
        UserError: for what no training can be made of.
    """
    refuse(recipe)
    if not 0 < effort < math.inf:
        raise UserError(f"diagnose: effort is {effort:g}; it is above 0, and 1 the default")
    own = None if history is None else diagnosed(history_of(history))
    # A network that diverges is what this is about: its infinities are findings, not warnings.
    with np.errstate(all="ignore"):
        found = looked_at(recipe, effort, progress)
    return found if own is None else beside(found, own)


def beside(found: Findings, own: Findings) -> Findings:
    """What was found, and what a user's own history says that is not said yet.

    Where only the history has a fault, the functions are right, and the loop that made it is not.
    """
    said = {finding.cause for finding in found}
    findings = [
        replace(
            finding,
            where=f"your history, {finding.where}",
            evidence=finding.evidence
            + ("" if found.faults else "; the same functions learn here: look at your own loop"),
        )
        for finding in own
        if finding.cause not in said
    ]
    faults = [finding for finding in findings if finding.severity == "fault"]
    faults = faults or list(lost_in_the_loop(found, own))
    if found.faults:  # it is one run; what its history adds is no second cause
        findings = [replace(finding, severity="note") for finding in findings]
        faults = []
    rest = [finding for finding in findings if finding not in faults]
    return replace(
        found,
        found=(*under_their_cause(faults), *found, *rest),
        checked=(*found.checked, "your history"),
        measures={**found.measures, "your history": own.measures},
    )


def with_predictions(
    found: Findings,
    recipe: Recipe,
    predict: Callable[[Any], Any],
    unscale: Callable[[Any], Any] | None,
) -> Findings:
    """What was found, and whether the user's own predictions are in the unit of the targets."""
    kind, inputs = Measurements(recipe).skill.kind, recipe.inputs
    of_rows = predict if inputs is None else lambda x: predict(inputs.unpack(x))
    try:
        findings = tuple(predictions.check(of_rows, unscale, recipe.train, kind))
    except Exception as error:  # whatever the user's functions raise is a finding
        findings = (broken(error, "predict"),)
    return replace(found, found=(*findings, *found), checked=(*found.checked, "your predictions"))


def with_trained(found: Findings, recipe: Recipe, trained: Any) -> Findings:
    """What was found, and first of all whether the user's own loop ends below the run made here.

    Raises:
        UserError: for parameters that are not those of the task.
    """
    reached = found.measures.get("skill on training rows")
    if trained is None or reached is None:
        return found
    measured = Measurements(aligned(for_any_rows(one_array(recipe))))
    findings = tuple(ended.check(measured, trained, reached))
    checked = (*found.checked, "what your loop ended with")
    return replace(found, found=(*findings, *found), checked=checked)


def lost_in_the_loop(found: Findings, own: Findings) -> Iterator[Finding]:
    """A loss that stands in the user's loop, where the same functions learn here."""
    here, there = found.measures, own.measures
    if not found.learns or len(there) == 0 or there["steps"] < bound("few steps"):
        return
    falls_here = here["last loss"] < bound("falls here") * here["first loss"]
    falls_there = there["last_tenth"] < (1 - bound("fallen")) * there["first_tenth"]
    if falls_here and not falls_there and here["first loss"] > 0:
        yield fault(
            "parameters_not_updated",
            "your own loop",
            f"the loss of your loop is {there['first_loss']:.3g} at first, "
            f"{there['last_loss']:.3g} in the end; the same functions, trained here, go from "
            f"{here['first loss']:.3g} to {here['last loss']:.3g}: what a step changes is lost",
            f"{there['steps']} steps",
            remedy="return the new parameters, the new state and the new optimizer state from the "
            "jitted step and carry them on; a module of NNX changed in place needs nnx.jit",
            confidence=0.9,
        )


def looked_at(recipe: Recipe, effort: float, progress: Callable[[str], None] = quietly) -> Findings:
    """All checks of a recipe, and the verdict.

    What a plain step of the user's functions raises is a finding; anything else that is raised is
    a mistake of nnref's own, and never told as theirs.
    """
    refused: list[str] = []
    structural: list[Finding] = []
    mistakes: list[str] = []
    cannot_run = broken_program(recipe)
    if cannot_run is not None:
        return Findings((cannot_run,), ("that the program runs",))
    try:
        measured = Measurements(aligned(for_any_rows(one_array(recipe))), effort, progress)
        progress("reading the program")
        structural = program.check(measured.recipe, *measured.initial, refused, mistakes)
        signals = Signals(measured, Interventions(measured), mistakes)
        progress("looking at the data")
        found = tuple(decide(signals, structural))
        faults = [finding for finding in found if finding.severity == "fault"]
        learns = learned(signals)
        if learns is not None and all(map(unsure, faults)):
            progress("trying small edits of your lines")
            cured = edited(measured, learns, refused)
            # What was made and seen to cure is the cause.
            found = (*cured, *map(as_note, found)) if cured else found
        checked = CHECKED if signals.ran else CHECKED[:-1]
        impossibles = (*refused, *impossible(signals))
        return Findings(found, checked, impossibles, measures(signals), learns, tuple(mistakes))
    except UserError:
        raise
    except jax.errors.UnexpectedTracerError as error:  # met where the function is compiled
        return Findings((broken(error),), ("that the program runs",))
    except Exception as error:
        found = tuple(under_their_cause(structural))
        return Findings(found, (), tuple(refused), mistakes=(*mistakes, mistake(error)))


def unsure(finding: Finding) -> bool:
    """Whether a fault says no more than that neither network nor simple models find anything."""
    return finding.cause in UNSURE and finding.proof is None


def edited(measured: Measurements, learns: bool, refused: list[str]) -> list[Finding]:
    """What small edits of the user's lines show; where they cannot be made, it is said so."""
    try:
        return one_edit(measured, learns)
    except Exception as error:
        refused.append(f"small edits of your lines: {in_a_line(error)}")
        return []


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
    params, whole = fractions_of(params)
    asked, keyed = batch_loss(loss, batch)
    start = LossAtStart(lambda p, b, k=KEY: asked(whole(p), b, k), params, batch, keyed)
    return look_at_loss(start, optimizer)


def diagnose_own_loss(task: Task, optimizer: Any) -> Findings:
    """The same of a task whose loss calls the network itself, on its training rows."""
    functions, layout = task.functions, task.inputs
    params, state = functions.init(KEY)

    def value(params: Any, batch: Any, key: Any = KEY) -> Any:
        rows = batch if layout is None else layout.joined(batch)
        return functions.apply(params, state, rows, key, True)[0]

    rows = jnp.asarray(task.train.x)
    rows = rows if layout is None else layout.unpack(rows)
    optimizer = task.training.get("optimizer") if optimizer is None else optimizer
    return look_at_loss(LossAtStart(value, params, rows, functions.random), optimizer)


def look_at_loss(start: LossAtStart, optimizer: Any) -> Findings:
    """The checks of a loss, and its steps."""
    params, _, batch, _ = start.arguments
    try:
        jax.eval_shape(
            jax.grad(lambda params: start.objective(params, {}, batch, (), KEY)[0]), params
        )
    except Exception as error:  # whatever the user's function raises is a finding
        return Findings((broken(error),), ("that the loss runs",))
    refused: list[str] = []
    mistakes: list[str] = []
    optimizer = optax_of(DEFAULTS["optimizer"] if optimizer is None else optimizer)
    steps, end = bare_loss.steps_of(start, optimizer)
    found = program.check_loss(start, refused, mistakes)
    found += bare_loss.check(start, optimizer, steps, end, {f.cause for f in found})
    checked = (*program.CHECKS_OF_A_LOSS, f"{bare_loss.STEPS} steps on the one batch")
    impossible = (
        *refused,
        "what the outputs are, and what the targets ask for: give nnref.Task(apply=..., loss=...)",
        "whether there is anything to learn: give train=(x, y)",
        "training against evaluation, validation: give a Task with both",
    )
    found = tuple(under_their_cause(found))
    return Findings(found, checked, impossible, mistakes=tuple(mistakes))
