"""Regularization piece by piece, of a user's own task as of an experiment file.

What a task brings itself can be switched off from outside: the network is trained in evaluation
mode, the penalty is left out of the loss, and the optimizer is shown no weights to decay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

from nnref.diagnosis.api import recipe_from, refuse
from nnref.diagnosis.program.decay import decays
from nnref.diagnosis.recipe import Recipe, no_penalty
from nnref.diagnosis.run.changes import Change, changed
from nnref.errors import UserError
from nnref.experiment.claims import Stop
from nnref.experiment.experiment import Experiment
from nnref.logbook.verdicts import Record
from nnref.parts import regularizers
from nnref.parts.regularizers import Regularization, augment
from nnref.studies.listeners import SweepListener
from nnref.studies.regularize import (
    OFF,
    PIECES,
    STOP,
    TOGETHER,
    Regularized,
    refuse_few,
    refuse_rows,
    regularized,
)
from nnref.studies.regularize import regularize as regularize_experiment
from nnref.studies.resuming import history_of
from nnref.studies.run import test_measures, trained_record
from nnref.training import loop
from nnref.training.compilation import usual_settings
from nnref.training.task import Functions, Task
from nnref.training.train import Plan

DRAWS, PENALTY, DECAY = "training mode", "penalty", "weight decay"
INSIDE = {  # usual pieces that cannot be added from outside, and where they belong
    "dropout": "it stands between layers; build it into the network",
    "normalization": "it stands between layers; build it into the network",
    "label_smoothing": "it belongs to the loss; write it there",
    "weight_decay": "it needs the rate of the step; give optax.adamw, say",
}


def regularize(
    given: Any,
    *,
    optimizer: Any = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    shuffle: bool | None = None,
    penalty: Callable[[Any], Any] | None = None,
    name: str | None = None,
    seeds: int = 10,
    logbook: str | Path | None = "logbook",
    listener: SweepListener | None = None,
    progress: Callable[[str], None] | None = None,
) -> Regularized:
    """Switch all regularization off, and each piece on again: alone, and then together.

    The pieces are those of the experiment or the task; where it has none, the usual ones at usual
    strengths. Of a task they are what its network draws in training, `penalty`, and the decay of
    its optimizer.

    Args:
        given: an `nnref.Task`; or an experiment, or the path of its file, which says how it is
            trained. What it sweeps is left out.
        optimizer: of optax; Adam at 1e-3 by default. This and the next four are of a task alone.
        batch_size: rows of a step, 32 by default.
        epochs: 20 by default.
        shuffle: whether each epoch draws a new order, as it does by default.
        penalty: `penalty(params)`, what is added to the loss.
        name: of the study; that of the file by default.
        seeds: how many, the same for every piece and none of the file's.
        logbook: folder of the page of an experiment; what it has is not run again.
        listener: hears how the runs of an experiment go.
        progress: called with the name of each piece of a task before it is trained.

    Raises:
        UserError: for mistakes in the file or the arguments, or too few seeds.
    """
    how = {"optimizer": optimizer, "batch_size": batch_size, "epochs": epochs}
    how |= {"shuffle": shuffle, "penalty": penalty}
    if isinstance(given, (str, Path, Experiment)):
        extra = [word for word, value in how.items() if value is not None]
        if extra:
            raise UserError(f"regularize: {extra[0]} is given by the experiment; leave it out")
        return regularize_experiment(
            given, name=name, seeds=seeds, logbook=logbook, listener=listener
        )
    if getattr(given, "own_loss", False):
        raise UserError(
            "regularize: this task's loss calls the network itself, so that no piece can be told "
            "from the rest; give loss(outputs, y)"
        )
    how["shuffle"] = shuffle is None or shuffle
    recipe = recipe_from(given, {**how, "kind": None, "metric": None})
    refuse(recipe)
    return regularize_recipe(recipe, name or "task", seeds, progress or (lambda piece: None))


@usual_settings()
def regularize_recipe(
    recipe: Recipe, name: str, seeds: int, progress: Callable[[str], None]
) -> Regularized:
    """The same of a recipe: a program for each piece, in which all seeds are trained."""
    own = own_pieces(recipe)
    pieces, refused = pieces_of(recipe, own)
    if not pieces:
        raise UserError(f"regularize: no piece fits: {'; '.join(refused.values())}")
    on: dict[str, dict[str, Any]] = {OFF: {}} | {p: {p: v} for p, v in pieces.items()}
    on |= {TOGETHER: pieces} if len(pieces) > 1 else {}
    refuse_few(seeds, len(on) - 1)
    records = {}
    for label, chosen in on.items():
        progress(label)
        records[label] = trained(WithPieces(recipe, own, chosen), tuple(range(seeds)))
    splits = {"test": recipe.test, "valid": recipe.valid}
    metric = next((f"{split}_loss" for split, rows in splits.items() if rows), "train_loss")
    strengths = {label: pieces.get(label) for label in on}
    return regularized(name, metric, True, records, strengths, refused)


class OwnPieces(NamedTuple):
    """Whether a task has pieces of its own, and whether its network draws what must stay on."""

    draws: bool
    penalty: bool
    decays: bool
    stays: bool


def own_pieces(recipe: Recipe) -> OwnPieces:
    """The regularization of a task's own."""
    params, state = jax.eval_shape(recipe.init, jax.random.key(0))
    draws = recipe.random and recipe.modes
    moded = bool(jax.tree.leaves(state))
    return OwnPieces(
        draws and not moded,
        recipe.penalty is not no_penalty,
        decays(recipe.optimizer, params),
        draws and moded,
    )


def pieces_of(recipe: Recipe, own: OwnPieces) -> tuple[dict[str, Any], dict[str, str]]:
    """The pieces of a task, or of one without any the usual ones; and those it cannot have."""
    refused = {}
    if own.stays:
        refused[DRAWS] = (
            "the network keeps running statistics in it, and stays in it throughout; what it draws "
            "there, such as dropout, is on in all runs"
        )
    named = {DRAWS: own.draws, PENALTY: own.penalty, DECAY: own.decays}
    pieces: dict[str, Any] = {piece: None for piece, is_on in named.items() if is_on}
    if pieces:
        return pieces, refused
    for piece, strength in (PIECES | {"early stopping": STOP}).items():
        why = INSIDE.get(piece) or cannot(recipe, piece, strength)
        if why:
            refused[piece] = why
        else:
            pieces[piece] = strength
    return pieces, refused


def cannot(recipe: Recipe, piece: str, strength: Any) -> str:
    """Why a usual piece does not fit these rows; "" where it does."""
    if piece == "early stopping":
        return "" if recipe.valid is not None else "there are no validation rows to watch"
    try:
        refuse_rows(Regularization(**{piece: strength}), recipe.train[0])
    except UserError as error:
        return str(error)
    return ""


@dataclass(frozen=True, eq=False)
class WithPieces:
    """Builds the functions and the optimizer of a task with some pieces of regularization on."""

    recipe: Recipe
    own: OwnPieces
    on: Mapping[str, Any]

    def __call__(
        self, hyperparameters: Mapping[str, Any]
    ) -> tuple[Functions, optax.GradientTransformation]:
        """Functions and optimizer."""
        functions, optimizer = self.recipe.build(hyperparameters)
        if self.own.decays and DECAY not in self.on:
            _, optimizer = changed(functions, optimizer, Change(penalty=0.0), True)
        if PENALTY not in self.on:
            functions = functions._replace(penalty=None)
        quiet = self.own.draws and DRAWS not in self.on
        usual = {name: self.on[name] for name in PIECES if name in self.on}
        terms = Regularization(**usual)

        def apply(params: Any, state: Any, x: Any, key: Any, train: bool) -> tuple[Any, Any]:
            if train:
                x = augment(terms, x, jax.random.fold_in(key, 2))
            return functions.apply(params, state, x, None if quiet else key, train and not quiet)

        after = []
        if terms.max_norm is not None:
            after.append(regularizers.max_norm(terms.max_norm))
        if terms.average is not None:
            after.append(regularizers.weight_average(terms.average))
        before = regularizers.gradient_terms(terms)
        if before or after:
            optimizer = optax.chain(*before, optimizer, *after)
        return functions._replace(apply=apply), optimizer

    @property
    def plan(self) -> Plan:
        """How it is trained."""
        stop = self.on.get("early stopping")
        return self.recipe.plan._replace(stop=None if stop is None else Stop(**stop))


def trained(setup: WithPieces, seeds: tuple[int, ...]) -> list[Record]:
    """The records of the runs with some pieces on, a run for each seed."""
    recipe, plan, (functions, _) = setup.recipe, setup.plan, setup({})
    task = Task(functions, train=recipe.train, valid=recipe.valid, test=recipe.test)
    chunks = list(loop.fit(setup, plan, {}, seeds, task))
    known = plan, -(-len(recipe.train[0]) // plan.batch_size), {}
    measured = {}
    if task.test is not None:
        measured = test_measures(setup, plan, {}, chunks[-1].states, task)
    records = []
    for run, seed in enumerate(seeds):
        test = {name: float(values[run]) for name, values in measured.items()}
        records.append(trained_record(*known, seed, *history_of(chunks, run), test))
    return records
