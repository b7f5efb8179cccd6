"""Where numbers that are not finite are born: the operation and the user's line."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.program.tracing import Operation, Trace, trace

# What such an operation is called, and what to type against it.
EDGES = {
    "div": ("a division by 0", "x / (y + 1e-6), or jnp.where(y == 0, 1, y) as the divisor"),
    "log": ("a logarithm of 0 or less", "jnp.log(jnp.clip(p, 1e-7, 1)), or a loss of logits"),
    "log1p": ("log1p of -1 or less", "jnp.log1p(jnp.maximum(x, 0))"),
    "sqrt": ("a root of 0 or less", "jnp.sqrt(jnp.maximum(x, 0) + 1e-12)"),
    "rsqrt": ("a reciprocal root of 0 or less", "jax.lax.rsqrt(x + 1e-6)"),
    "cbrt": ("a cube root of 0", "jnp.cbrt(x + 1e-12)"),
    "exp": ("an exponential that overflows", "x - x.max() in the exponent, or jax.nn.logsumexp"),
    "exp2": ("an exponential that overflows", "x - x.max() in the exponent, or jax.nn.logsumexp"),
    "pow": ("a power of 0 or less", "jnp.maximum(x, 1e-6) ** power"),
    "integer_pow": ("a power that overflows, or a negative one of 0", "x / (y + 1e-6)"),
    "acos": ("an arc cosine at its end", "jnp.arccos(jnp.clip(x, -1 + 1e-6, 1 - 1e-6))"),
    "asin": ("an arc sine at its end", "jnp.arcsin(jnp.clip(x, -1 + 1e-6, 1 - 1e-6))"),
    "atanh": ("artanh at its end", "jnp.arctanh(jnp.clip(x, -1 + 1e-6, 1 - 1e-6))"),
    "atan2": ("an angle of the origin", "jnp.arctan2(y, x + 1e-12)"),
    "sub": (
        "a difference of two infinities, as of a row that is masked as a whole",
        "jnp.finfo(x.dtype).min in the place of -jnp.inf, and a place of each row that is open",
    ),
    "mul": ("a product that overflows", ""),
    "dot_general": ("a product that overflows", ""),
    "convert_element_type": ("a number beyond the largest of its dtype", ""),
}
SLOPES = {"sqrt", "cbrt", "log", "log1p", "pow", "acos", "asin", "atanh", "atan2"}


class Birth(NamedTuple):
    """The operation that gives the first number that is not finite, of numbers that are."""

    operation: Operation
    name: str  # what happens there, as a clause
    remedy: str  # "" where nothing general can be said
    inputs: frozenset[int]  # the inputs of the program on which it depends

    @property
    def where(self) -> str:
        """File and line of the user's code, "" where there is none."""
        return self.operation.where


def birth_of(function: Callable[..., Any], *arguments: Any) -> Birth | None:
    """Where the first result of a function that is not finite is born; None if all are finite.

    An infinity that is written into the program, as in a mask, is not born there: what makes NaN of
    it is.

    Args:
        function: of arrays and trees of them.
        arguments: the values for which it is not finite.
    """
    traced = trace(function, *arguments)
    leaves = jax.tree.leaves(arguments)
    floating = [
        value
        for value in dict.fromkeys([*traced.constants, *traced.inputs, *computed(traced)])
        if jnp.issubdtype(getattr(traced.avals[value], "dtype", np.int32), jnp.inexact)
    ]

    def flags(leaves: Sequence[Any]) -> Any:
        values = traced.evaluate(leaves, floating)
        return jnp.stack([jnp.stack([jnp.isnan(v).any(), jnp.isinf(v).any()]) for v in values])

    flagged = np.asarray(jax.jit(flags)(leaves)) if floating else np.zeros((0, 2), bool)
    nan = {value for value, (is_nan, _) in zip(floating, flagged, strict=True) if is_nan}
    bad = nan | {value for value, (_, is_inf) in zip(floating, flagged, strict=True) if is_inf}
    makers = traced.makers
    for wanted in traced.outputs:
        if wanted in bad:
            operation = origin(wanted, makers, nan, bad)
            if operation is not None:
                return described(traced, operation)
    return None


def masked_by_product(function: Callable[..., Any], *arguments: Any) -> Birth | None:
    """The first product that masks NaN of the arguments by factors of 0, and so lets it through.

    All its NaN meets a factor of 0, and some other numbers do not. It may be one of the derivative:
    what is selected behind the arithmetic on NaN has a slope of 0, times NaN.

    Args:
        function: of arrays and trees of them.
        arguments: the values, some of which are NaN.
    """
    traced = trace(function, *arguments)
    needed = traced.needed(traced.outputs)
    products = [
        op for op in traced.operations if op.name == "mul" and not needed.isdisjoint(op.outputs)
    ]
    if not products:
        return None

    def flags(leaves: Sequence[Any]) -> Any:
        wanted = dict.fromkeys(value for op in products for value in op.inputs)
        values = dict(zip(wanted, traced.evaluate(leaves, list(wanted)), strict=True))
        return jnp.stack([masks(*(values[value] for value in op.inputs)) for op in products])

    flagged = np.asarray(jax.jit(flags)(jax.tree.leaves(arguments)))
    if not flagged.any():
        return None
    found = products[int(flagged.argmax())]
    return Birth(
        found,
        "a product of NaN and a mask: 0 times NaN is NaN",
        "select before any arithmetic, so that no gradient meets NaN either: "
        "error = jnp.where(mask, error, 0)",
        frozenset(traced.needed(found.inputs) & set(traced.inputs)),
    )


def masks(one: Any, other: Any) -> Any:
    """Whether all NaN of two factors meets a 0, and some other number meets none."""
    nan, zero = jnp.isnan(one) | jnp.isnan(other), (one == 0) | (other == 0)
    return nan.any() & (zero | ~nan).all() & (~zero & ~nan).any()


def computed(traced: Trace) -> list[int]:
    """All values that are computed, in their order."""
    return [out for operation in traced.operations for out in operation.outputs]


def origin(
    value: int, makers: dict[int, Operation], nan: set[int], bad: set[int]
) -> Operation | None:
    """The operation from which a value has its infinity or NaN, None for one that came in."""
    seen: set[int] = set()
    while True:
        operation = makers.get(value)
        if operation is None or value in seen:
            return None
        seen.add(value)
        ill = [v for v in operation.inputs if v in (nan if value in nan else bad)]
        if not ill and value in nan:
            # Of infinities: of those that were computed, not of those that are written down.
            for infinite in (v for v in operation.inputs if v in bad):
                earlier = origin(infinite, makers, nan, bad)
                if earlier is not None:
                    return earlier
        if not ill:
            return operation
        born = [v for v in ill if v in makers]
        if not born:
            return None
        value = born[0]


def described(traced: Trace, operation: Operation) -> Birth:
    """What happens at an operation, by its name, or by what it is the derivative of."""
    plain = f"an operation ({operation.name}) that gives NaN or infinity"
    name, remedy = EDGES.get(operation.name, (plain, ""))
    line = operation.where
    before = traced.operations[: traced.operations.index(operation)]
    forward = [op.name for op in before if line and op.where == line and op.name in SLOPES]
    if operation.name in ("div", "mul", "integer_pow", "rsqrt", "pow") and forward:
        of, remedy = EDGES[forward[-1]]
        name = f"the derivative of {of}"
    return Birth(
        operation, name, remedy, frozenset(traced.needed(operation.inputs) & set(traced.inputs))
    )
