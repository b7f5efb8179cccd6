"""What a user's own loop ended with, held against the run that is made here of their functions."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError


def params_and_state(measured: Measurements, trained: Any) -> tuple[Any, Any]:
    """The parameters and the state of a network: what is given, and the first state otherwise.

    Raises:
        UserError: for trees that are not those that `init` gives.
    """
    params, state = measured.initial
    wanted = jax.tree.structure(params)
    if jax.tree.structure(trained) == wanted:
        return trained, state
    pair = isinstance(trained, tuple | list) and len(trained) == 2
    if pair and jax.tree.structure(tuple(trained)) == jax.tree.structure((params, state)):
        return trained[0], trained[1]
    raise UserError(
        f"diagnose: trained is a tree of {len(jax.tree.leaves(trained))} arrays; give the "
        f"parameters as init gives them ({wanted.num_leaves} arrays), or (parameters, state)"
    )


def check(measured: Measurements, trained: Any, reached: float) -> Iterator[Finding]:
    """Where the user's loop ends below the run that is made here: a fault of the loop.

    Args:
        measured: the recipe.
        trained: the user's parameters, or these and the state.
        reached: the skill on training rows of the run that is made here.

    Raises:
        UserError: see `params_and_state`.
    """
    params, state = params_and_state(measured, trained)
    theirs = measured.skill.outcome(params, state).skill
    if reached < bound("learnable") or theirs > bound("failed") * reached:
        return
    figures = f"{theirs:.2f} on the training rows, and {reached:.2f} in the run that is made here"
    in_mode = measured.skill.outcome(params, state, train=True).skill if measured.moded else theirs
    if in_mode > bound("failed") * reached:
        yield fault(
            "batch_statistics_not_updated",
            "your own loop",
            "the parameters that your loop ended with are good by the statistics of their batch, "
            "and not by the running ones: these are not those of this network",
            f"{figures}; {in_mode:.2f} in training mode",
            confidence=0.9,
        )
        return
    first = measured.initial[0]
    moved = not all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(first)))
    yield fault(
        "parameters_not_updated",
        "your own loop",
        "the same functions learn here and not in your loop"
        + ("" if moved else "; it ended with the parameters that init gives"),
        figures,
        healthy="as good as the run that is made here",
        remedy="nnref.examine(step, state, batches) looks at the loop itself",
        confidence=0.9,
    )
