"""What is diagnosed: a user's functions, data and optimizer, brought to one form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def no_penalty(params: Any) -> float:
    """Of a loss that has no penalty."""
    return 0.0


@dataclass(frozen=True)
class Subject:
    """The user's functions in one form; nothing of the user's is changed in place.

    `init(key)` gives `(params, state)`; `apply(params, state, x, key, train)` gives `(outputs,
    state)`; `loss(outputs, y)` and `penalty(params)` are scalars, whose sum is descended. `train`
    and `valid` are `(x, y)`, rows first. `random` says whether `apply` draws random numbers at
    all, `modes` whether it knows training from evaluation.
    """

    init: Callable[[Any], tuple[Any, Any]]
    apply: Callable[[Any, Any, Any, Any, bool], tuple[Any, Any]]
    loss: Callable[[Any, Any], Any]
    penalty: Callable[[Any], Any] = no_penalty
    train: tuple[np.ndarray, np.ndarray] = field(kw_only=True)
    valid: tuple[np.ndarray, np.ndarray] | None = None
    optimizer: Any = None
    batch_size: int = 32
    epochs: int = 20
    shuffle: bool = True
    kind: str | None = None
    metric: Callable[[Any, Any], Any] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    random: bool = True
    modes: bool = True
