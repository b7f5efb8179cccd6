"""Where a number that is not finite is born: the first operation that makes it of finite ones."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.program.tracing import Operation, trace


def birth(function: Callable[..., Any], *arguments: Any) -> Operation | None:
    """The first operation that gives NaN of numbers that are none; else that gives infinity.

    Infinities are often meant, as in a mask: they are looked for where there is no NaN.

    Args:
        function: of arrays and trees of them; of a gradient give the function of the gradient.
        arguments: for which its result is not finite.
    """
    traced = trace(function, *arguments)
    needed = traced.needed(traced.outputs)
    operations = [op for op in traced.operations if needed & set(op.outputs)]
    wanted = list(dict.fromkeys(v for op in operations for v in (*op.inputs, *op.outputs)))
    leaves = jax.tree.leaves(arguments)
    values = dict(zip(wanted, jax.device_get(traced.evaluate(leaves, wanted)), strict=True))
    for bad in (np.isnan, np.isinf):
        wrong = {v for v, value in values.items() if inexact(value) and bad(value).any()}
        for op in operations:
            if wrong & set(op.outputs) and not wrong & set(op.inputs):
                return op
    return None


def inexact(value: Any) -> bool:
    """Whether a value may hold something that is not finite."""
    return np.issubdtype(np.asarray(value).dtype, np.inexact)
