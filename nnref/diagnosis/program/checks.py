"""Checks of the traced program: what the operations of a network and its loss do, never names.

Each check takes a `Look` at a subject and gives findings. What can be told by tracing is told by
tracing; the rest is asked of the functions with a few numbers.
"""

from collections.abc import Callable
from typing import Any

from nnref.diagnosis.findings import Finding, in_a_line, upstream
from nnref.diagnosis.program.arithmetic import gradients, integers
from nnref.diagnosis.program.at_start import Look, LossLook, Severally
from nnref.diagnosis.program.outputs import answers
from nnref.diagnosis.program.step import (
    ahead,
    batch_scale,
    guards,
    mates,
    one_draw,
    optimizer,
    randomness,
    statistics,
    tables,
)
from nnref.diagnosis.program.wiring import between_layers, blocked, unused
from nnref.diagnosis.recipe import Subject


def check(
    subject: Subject,
    params: Any = None,
    state: Any = None,
    impossible: list[str] | None = None,
) -> list[Finding]:
    """Findings of all checks of the program, the most upstream first.

    Args:
        subject: what is diagnosed.
        params: to start from; by default those of `subject.init` with key 0.
        state: that goes with them.
        impossible: takes a line for each check that these functions do not allow.
    """
    return asked(Look(subject, params, state), CHECKS, impossible)


def check_loss(look: LossLook, impossible: list[str]) -> list[Finding]:
    """Findings of those checks that a bare loss allows."""
    return asked(look, CHECKS_OF_A_LOSS, impossible)


def asked(
    look: Any, checks: dict[str, Callable[[Any], list[Finding]]], impossible: list[str] | None
) -> list[Finding]:
    """Findings of some checks; what a check cannot ask, is told by its reason."""
    found: list[Finding] = []
    refused: dict[str, list[str]] = {}
    for name, judge in checks.items():
        try:
            found += judge(look)
        except Severally as error:
            refused.setdefault(str(error), []).append(name)
        except Exception as error:  # a user's function may refuse what it is asked
            refused.setdefault(in_a_line(error), []).append(name)
    if impossible is not None:
        impossible += [f"{', '.join(names)}: {why}" for why, names in refused.items()]
    return upstream(found)


CHECKS: dict[str, Callable[[Look], list[Finding]]] = {
    "results that are used nowhere": unused,
    "ways that a gradient does not pass": blocked,
    "something nonlinear between layers": between_layers,
    "outputs, targets and loss": answers,
    "running statistics": statistics,
    "random numbers": randomness,
    "rows of a batch by themselves": mates,
    "steps of a sequence by those before them": ahead,
    "a loss that does not grow with the batch": batch_scale,
    "the direction of the updates": optimizer,
    "gradients against slopes of the loss": gradients,
    "arithmetic with integers": integers,
    "guards of logarithms, roots and divisions": guards,
    "indices into tables": tables,
}
CHECKS_OF_A_LOSS: dict[str, Callable[[LossLook], list[Finding]]] = {
    "results that are used nowhere": unused,
    "ways that a gradient does not pass": blocked,
    "random numbers": one_draw,
    "gradients against slopes of the loss": gradients,
}
