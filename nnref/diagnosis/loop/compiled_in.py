"""Numbers of Python that change from step to step, and that a compiled function does not see.

`jax.jit` runs the Python of a function once, and keeps what attributes, globals and generators of
NumPy were then.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Call, Loop
from nnref.diagnosis.program.tracing import Operation
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import on_host


def compiled_in(loop: Loop) -> Iterator[Finding]:
    """A step that gives something else from the same state once it is compiled anew.

    What differs from call to call in any case, as a step does that draws numbers of its own, is
    not asked. Nor is a step that is compiled as a whole: no Python runs beside it.
    """
    if all(hasattr(step.function, "lower") for step in loop.steps):
        return
    last, programs = len(loop.calls[0]) - 1, loop.programs
    places = [p for p in range(len(loop.steps)) if not hasattr(loop.steps[p].function, "lower")]
    before = {place: (loop.again(place, last), loop.again(place, last)) for place in places}
    jax.clear_caches()
    for place, (one, other) in before.items():
        anew = loop.again(place, last)
        apart = difference(loop, one, anew)
        if difference(loop, one, other) or apart < bound("compiled in"):
            continue
        old, new = programs[place], loop.program(place)
        found = changed(old, new) if old and new else None
        where, values = found or (loop.line(place), ())
        kept = ": it is {:.4g} there, and is {:.4g} by now".format(*values) if values else ""
        yield fault(
            "value_compiled_in",
            where,
            f"compiled anew behind {last} steps, the step gives another update from the same "
            f"state, key and batch. What was compiled at the first call keeps a value of Python "
            f"that changes since{kept}",
            f"{apart:.2g} of the update",
            confidence=0.95,
        )
        return


def difference(loop: Loop, one: Call, other: Call) -> float:
    """How far two updates of the same parameters are apart, as a share of the longer one."""
    a, b = (
        np.concatenate([np.ravel(part) for part in call.change(loop.of("parameter")).values()])
        if loop.of("parameter")
        else np.zeros(1)
        for call in (one, other)
    )
    longest = max(np.linalg.norm(a), np.linalg.norm(b))
    return float(np.linalg.norm(a - b) / longest) if np.isfinite(longest) and longest else 0.0


def changed(old: Program, new: Program) -> tuple[str, tuple[float, ...]] | None:
    """The first line at which two programs differ, and the number that does; None for none."""
    for before, after in zip(old.trace.operations, new.trace.operations, strict=False):
        pairs = zip(constants(old, before), constants(new, after), strict=False)
        numbers = next(((a, b) for a, b in pairs if not np.array_equal(a, b)), None)
        if before.name != after.name or numbers is not None:
            return after.where, tuple(each.item() for each in numbers or () if each.size == 1)
    return None


def constants(program: Program, operation: Operation) -> list[Any]:
    """The numbers that are compiled into an operation."""
    known = program.trace.constants
    return [on_host(known[value]) for value in operation.inputs if value in known]
