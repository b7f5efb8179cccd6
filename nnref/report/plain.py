"""Plain values: results as JSON can hold them, for the option --json."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any, infinite: Callable[[float], Any] = lambda _: None) -> Any:
    """A value as dicts, lists, text and numbers.

    Dataclasses and named tuples become dicts of their fields, arrays and tuples become lists, paths
    become text.

    Args:
        value: of these types, or already plain.
        infinite: what stands for NaN and the infinities, which JSON does not have; None by default.
    """
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
    else:
        names = getattr(value, "_fields", ())
    if names:
        value = attributes(value, *names)
    if isinstance(value, Mapping):
        return {str(key): plain(part, infinite) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part, infinite) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return infinite(value)
    return str(value) if isinstance(value, Path) else value


def attributes(thing: object, *names: str) -> dict[str, Any]:
    """Some attributes by name."""
    return {name: getattr(thing, name) for name in names}


def finite(value: float) -> float | None:
    """A number; None for NaN and the infinities."""
    return value if math.isfinite(value) else None
