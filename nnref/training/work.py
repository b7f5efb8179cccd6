"""The work of a traced program, counted before it runs: the same however busy a machine is."""

from typing import Any

import numpy as np

from nnref.internals import bodies, flops, repetitions

PRODUCTS = 2e10  # floating-point operations of products and convolutions in a second of a core
ELEMENTS = 1e9  # elements of other operations in a second


def nbytes(leaf: Any) -> int:
    """The bytes of an array, or of a description of one."""
    return int(np.prod(leaf.shape)) * getattr(leaf.dtype, "itemsize", 4)


def work_of(jaxpr: Any, started: float = 0.0) -> tuple[float, int]:
    """Seconds of a core, and bytes of all results, that a traced function takes; roughly.

    Args:
        jaxpr: the function; a loop counts its body as often as it runs, once where that is unknown,
            and of a condition the dearest branch counts.
        started: seconds that each operation takes beside its arithmetic.
    """
    seconds, memory = 0.0, 0
    for equation in jaxpr.eqns:
        inner, times = bodies(equation), repetitions(equation)
        works = [work_of(each.jaxpr, started) for each in inner]
        if equation.primitive.name == "cond":
            works = [max(works)]
        for more, results in works:
            seconds += times * more
            memory += times * results
        if inner:
            continue
        memory += sum(nbytes(var.aval) for var in equation.outvars)
        computed = flops(equation) / PRODUCTS
        elements = sum(var.aval.size for var in equation.outvars[:1])  # a print has none
        seconds += started + (computed or elements / ELEMENTS)
    return seconds, memory
