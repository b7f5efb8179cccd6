"""Checks of the traced program: what the operations of a network and its loss do, never names.

Each check takes a recipe `AtStart` and gives findings. What a trace shows is read from the trace;
for the rest the functions are called with a few numbers.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from nnref.diagnosis.findings import Finding, in_a_line, is_mistake, mistake, upstream
from nnref.diagnosis.program.arithmetic import gradients, integers
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, SeveralOutputs
from nnref.diagnosis.program.attention import other_axis
from nnref.diagnosis.program.blocked import blocked, silent_terms, terms_of_the_batch
from nnref.diagnosis.program.broadcasts import broadcasts
from nnref.diagnosis.program.derivatives import derivatives
from nnref.diagnosis.program.edges import edges, edges_of_loss
from nnref.diagnosis.program.effect import without_effect
from nnref.diagnosis.program.graphs import blind_to_themselves, renumbered_nodes
from nnref.diagnosis.program.ignored import ignored, ignored_by_loss
from nnref.diagnosis.program.keys import drawn_twice, random_key, randomness
from nnref.diagnosis.program.lone_means import lone_means
from nnref.diagnosis.program.outputs import outputs
from nnref.diagnosis.program.partners import partners
from nnref.diagnosis.program.rows import (
    batch_dependence,
    one_target_counts,
    order_of_rows,
    uncounted,
)
from nnref.diagnosis.program.sequences import (
    future_leakage,
    given_away,
    order_of_steps,
    scattered_steps,
    shifted_twice,
)
from nnref.diagnosis.program.step import (
    batch_of_one,
    batch_scale,
    domain_errors,
    labels_below_zero,
    modes_of_layers,
    statistics,
    tables,
)
from nnref.diagnosis.program.survival import at_risk
from nnref.diagnosis.program.updates import optimizer
from nnref.diagnosis.program.wiring import between_layers, unused
from nnref.diagnosis.recipe import Recipe


def check(
    recipe: Recipe,
    params: Any = None,
    state: Any = None,
    impossible: list[str] | None = None,
    mistakes: list[str] | None = None,
) -> list[Finding]:
    """Findings of all checks of the program, the most upstream first.

    Args:
        recipe: what is diagnosed.
        params: to start from; by default those of `recipe.init` with key 0.
        state: that goes with them.
        impossible: takes a line for each check that these functions do not allow.
        mistakes: takes a line for each check in which nnref itself raised.
    """
    return asked(AtStart(recipe, params, state), CHECKS, impossible, mistakes)


def check_loss(
    start: LossAtStart, impossible: list[str], mistakes: list[str] | None = None
) -> list[Finding]:
    """Findings of those checks that a bare loss allows."""
    return asked(start, CHECKS_OF_A_LOSS, impossible, mistakes)


def asked(
    start: Any,
    checks: dict[str, Callable[[Any], Iterator[Finding]]],
    impossible: list[str] | None,
    mistakes: list[str] | None = None,
) -> list[Finding]:
    """Findings of some checks; `impossible` takes those that could not be asked, and why.

    `mistakes` takes those in which nnref itself raised.
    """
    findings: list[Finding] = []
    refused: dict[str, list[str]] = {}
    for name, check in checks.items():
        try:
            findings += list(check(start))
        except jax.errors.UnexpectedTracerError:
            raise
        except SeveralOutputs as error:
            refused.setdefault(str(error), []).append(name)
        except Exception as error:  # a user's function may refuse what it is asked
            if mistakes is not None and is_mistake(error):
                mistakes.append(f"{name}: {mistake(error)}")
                continue
            refused.setdefault(in_a_line(error), []).append(name)
    if impossible is not None:
        impossible += [f"{', '.join(names)}: {why}" for why, names in refused.items()]
    return upstream(findings)


CHECKS: dict[str, Callable[[AtStart], Iterator[Finding]]] = {
    "results that are used nowhere": unused,
    "ways that a gradient does not pass": blocked,
    "terms that no gradient lowers": silent_terms,
    "terms without a parameter": terms_of_the_batch,
    "layers that change the loss": without_effect,
    "inputs that are looked at": ignored,
    "something nonlinear between layers": between_layers,
    "outputs, targets and loss": outputs,
    "shapes that fill a matrix": broadcasts,
    "running statistics": statistics,
    "modes of layers": modes_of_layers,
    "batches of one row": batch_of_one,
    "random numbers": randomness,
    "kernels that start alike": drawn_twice,
    "rows of a batch by themselves": batch_dependence,
    "rows in any order": order_of_rows,
    "rows that count": uncounted,
    "targets that count": one_target_counts,
    "rows at risk": at_risk,
    "pairs of rows that are alike": partners,
    "weights of an attention": other_axis,
    "means of one number": lone_means,
    "steps of a sequence by those before them": future_leakage,
    "the order of the steps": order_of_steps,
    "steps that stay together": scattered_steps,
    "nodes of a graph by any number": renumbered_nodes,
    "nodes of a graph by themselves": blind_to_themselves,
    "targets that stand in the inputs": given_away,
    "targets that are moved once": shifted_twice,
    "labels below zero": labels_below_zero,
    "a loss that does not grow with the batch": batch_scale,
    "the direction of the updates": optimizer,
    "gradients against slopes of the loss": gradients,
    "slopes of the loss at its edges": edges,
    "derivatives in the loss": derivatives,
    "arithmetic with integers": integers,
    "guards of logarithms, roots and divisions": domain_errors,
    "indices into tables": tables,
}
CHECKS_OF_A_LOSS: dict[str, Callable[[LossAtStart], Iterator[Finding]]] = {
    "results that are used nowhere": unused,
    "ways that a gradient does not pass": blocked,
    "terms that no gradient lowers": silent_terms,
    "terms without a parameter": terms_of_the_batch,
    "shapes that fill a matrix": broadcasts,
    "means of one number": lone_means,
    "layers that change the loss": without_effect,
    "indices into tables": tables,
    "inputs that are looked at": ignored_by_loss,
    "rows of a batch by themselves": order_of_rows,
    "pairs of rows that are alike": partners,
    "random numbers": random_key,
    "kernels that start alike": drawn_twice,
    "gradients against slopes of the loss": gradients,
    "slopes of the loss at its edges": edges_of_loss,
    "derivatives in the loss": derivatives,
}
