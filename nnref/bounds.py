"""The ranges that a number of an experiment may have, as types for signatures.

A family's function says `momentum: Fraction = 0.0` and with that the experiment file, its errors
and its JSON Schema know the range: it is written nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval
from pydantic import BeforeValidator, PlainSerializer

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, lt=1 - 2**-25)]
"""A share that stays below one in single precision: a momentum, a decay, a dropout rate."""
Probability = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Interval(ge=1, le=2**31 - 1)]
Few = Annotated[int, Interval(ge=1, le=100_000)]
"""How many values an axis of a sweep may have."""
Index = Annotated[int, Interval(ge=0, le=2**32 - 1)]
Counts = Annotated[
    tuple[Count, ...],
    BeforeValidator(
        lambda given: given if isinstance(given, list | tuple) else (given,),
        json_schema_input_type=Count | list[Count],
    ),
    PlainSerializer(lambda counts: counts[0] if len(counts) == 1 else counts),
]
"""One number for all of several things, or a list with one for each; in Python always a tuple."""


@dataclass(frozen=True)
class MemberOf:
    """Marks an argument that is itself a component: one of a family, with its own arguments.

    `activation: Annotated[Callable, MemberOf("activation", ACTIVATIONS)] = relu` is written in an
    experiment file as `"activation": "relu"` or `{"name": "relu", ...}`; the function receives the
    member with its keyword arguments bound.
    """

    kind: str
    family: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash(self.kind)
