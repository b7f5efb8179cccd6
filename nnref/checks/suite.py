"""All properties at once: `nnref.check(task)`, one line of a test."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from nnref.checks import network, rows
from nnref.checks.subject import DoesNotHold, NotApplicable, Subject, subject
from nnref.training.compilation import usual_settings

Call = Callable[..., dict[str, Any]]
NETWORK: dict[str, Call] = {
    "loss_at_start": network.loss_at_start,
    "loss_fits_outputs": network.loss_fits_outputs,
    "signal_at_start": network.signal_at_start,
    "gradients_match_finite_differences": network.gradients_match_finite_differences,
    "all_parameters_train": network.all_parameters_train,
    "no_dead_units_at_start": network.no_dead_units_at_start,
    "rows_are_independent": network.rows_are_independent,
    "is_causal": network.is_causal,
    "train_and_eval_modes_differ_only_as_told": network.train_and_eval_modes_differ_only_as_told,
    "padding_is_ignored": network.padding_is_ignored,
    "loss_is_a_mean": network.loss_is_a_mean,
    "key_matters": network.key_matters,
    "same_seed_same_bits": network.same_seed_same_bits,
    "survives_extreme_batches": network.survives_extreme_batches,
    "overfits_one_batch": network.overfits_one_batch,
}
# What only some networks are to have: unless it is a fault, it is no news of the others.
ONLY_ASKED = {
    "is_causal": "steps may look ahead",
    "padding_is_ignored": "what is 0 may count",
}
LEARNS: dict[str, Call] = {"learns": network.learns}


@dataclass(frozen=True)
class Checked:
    """What was checked and holds, with its figures; what could not be asked, and why.

    `notes` are worth knowing and keep no network from learning: a text for each property.
    """

    held: dict[str, dict[str, Any]]
    skipped: dict[str, str]
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name:<42} {in_figures(measured)}" for name, measured in self.held.items()]
        lines += [f"{name:<42} not asked: {why}" for name, why in self.skipped.items()]
        return "\n".join([*lines, *(f"note: {text}" for text in self.notes.values())])


def in_figures(measured: dict[str, Any]) -> str:
    """What was measured, in a line."""
    parts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in measured.items()]
    return ", ".join(parts[:4]) + (", ..." if len(parts) > 4 else "")


@usual_settings()
def check(task: Any = None, *, strict: bool = False, **arguments: Any) -> Checked:
    """Check every property of a network and its data that can be asked.

    What is odd and keeps no network from learning, such as a softmax before a loss that takes one
    itself, is warned of and noted.

    Args:
        task: an `nnref.Task`, an experiment or its path, "package.module:make_task", or
            "file.py:make_task".
        strict: raise for notes as well.
        arguments: instead of a task, those of `nnref.Task`; and those of `nnref.diagnose` that say
            how it is trained.

    Returns:
        What holds, with its figures, what could not be asked, and what is worth knowing.

    Raises:
        AssertionError: the text of the first finding that keeps such a network from learning.
        UserError: for arguments that do not fit together.
    """
    asked = subject(task, **arguments)
    checked = Checked({}, {}, {})
    with np.errstate(all="ignore"):
        for name, call in calls_of(asked, NETWORK).items():
            try:
                checked.held[name] = call(strict=True)
            except NotApplicable as error:
                checked.skipped[name] = str(error).partition(": ")[2]
            except DoesNotHold as odd:
                if strict or odd.finding.severity == "fault":
                    raise
                if name in ONLY_ASKED:
                    checked.skipped[name] = f"{ONLY_ASKED[name]}, unless you ask it alone"
                    continue
                checked.held[name], checked.notes[name] = odd.measured, str(odd)
                warnings.warn(str(odd), stacklevel=3)
    return checked


def calls_of(asked: Subject, properties: dict[str, Call]) -> dict[str, Call]:
    """The properties of the data, and then these of the network, as calls of `strict` alone."""
    return of_rows(asked) | {name: partial(ask, asked) for name, ask in properties.items()}


def of_rows(asked: Subject) -> dict[str, Call]:
    """The properties of the data that there are, as calls of `strict` alone."""
    recipe = asked.recipe
    calls: dict[str, Call] = {"data_summary": lambda strict: rows.data_summary(recipe.train)}
    target = asked.measured.skill.target if np.isfinite(recipe.train[1]).all() else None
    if target is not None and asked.measured.skill.fits and not asked.measured.skill.costs:
        kind = asked.measured.skill.kind
        calls["labels_belong_to_rows"] = partial(
            rows.labels_belong_to_rows, recipe.train, recipe.valid, kind=kind
        )
    for name, part in (("validation", recipe.valid), ("test", recipe.test)):
        if part is not None and part[0].shape[1:] == recipe.train[0].shape[1:]:
            for ask in (rows.data_splits_are_disjoint, rows.train_statistics_only):
                calls[f"{ask.__name__}, {name}"] = partial(ask, recipe.train, part)
    return calls
