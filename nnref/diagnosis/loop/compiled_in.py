"""Numbers of Python that change from step to step, and that a compiled function does not see.

`jax.jit` runs the Python of a function once, and keeps what attributes, globals and generators of
NumPy were then.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.one_edit.search import afresh
from nnref.diagnosis.program.tracing import Operation, Trace, trace
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import on_host


def compiled_in(loop: Loop) -> Iterator[Finding]:
    """A step that gives something else from the same state once it is traced and compiled anew.

    What differs from call to call in any case, as a step does that draws numbers of its own, is
    not asked. Nor is a step that is compiled as a whole: no Python runs beside it.
    """
    last = len(loop.calls[0]) - 1
    for place, (step, program) in enumerate(zip(loop.steps, loop.programs, strict=True)):
        if hasattr(step.function, "lower"):
            continue
        line, values = changed(program) if program else (loop.line(place), ())
        if not line:
            continue
        one, other = loop.again(place, last), loop.again(place, last)
        with afresh():
            anew = loop.again(place, last)
        apart = loop.apart(one, anew)
        if loop.apart(one, other) or apart < bound("compiled in"):
            continue
        kept = ": it is {:.4g} there, and {:.4g} at another step".format(*values) if values else ""
        yield fault(
            "value_compiled_in",
            line,
            f"compiled anew behind {last} steps, the step gives another update from the same "
            f"state, key and batch. What was compiled at the first call keeps a value of Python "
            f"that changes since{kept}",
            f"{apart:.2g} of the update",
            confidence=0.95,
        )
        return


def changed(program: Program) -> tuple[str, tuple[float, ...]]:
    """Where a program differs once it is traced anew, or "", and the number that does, if one."""
    old = trace(program.pure, *program.arguments, loops=True)
    with afresh():
        new = trace(program.pure, *program.arguments, loops=True)
    for before, after in zip(old.operations, new.operations, strict=False):
        pairs = zip(constants(old, before), constants(new, after), strict=False)
        two = next(((a, b) for a, b in pairs if not np.array_equal(a, b)), ())
        if before.name != after.name or two:
            single = bool(two) and all(each.size == 1 for each in two)
            return after.where or program.line, tuple(each.item() for each in two if single)
    longer = len(old.operations) != len(new.operations)
    return (program.line if longer else ""), ()


def constants(traced: Trace, operation: Operation) -> list[Any]:
    """The numbers that are compiled into an operation."""
    known = traced.constants
    return [on_host(known[value]) for value in operation.inputs if value in known]
