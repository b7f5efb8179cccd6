"""What planting a fault has in common: the row of the table, and the parts that are replaced."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from benchmarks.mutants.data import Rows
from benchmarks.mutants.setup import Setup

REAL_INPUTS = ("table", "image", "sequence", "pairs")
PLAIN_STEPS = ("sgd", "momentum", "nesterov")


@dataclass(frozen=True)
class Fault:
    """A cause, one way to bring it about, and how an answer is judged.

    `plant(setup, draw)` gives the faulty set-up, or the healthy one that it needs and the faulty
    one, or None where it does not apply. `accept` are causes with the same observable signal.
    `judged` names the rows whose metric tells whether it bites: `last` is the last step of fresh
    rows. `where` is the part of the program that holds it.
    """

    cause: str
    way: str
    plant: Callable[[Setup, np.random.Generator], Any]
    accept: tuple[str, ...] = ()
    judged: str = "train"
    where: str = ""


def wired(setup: Setup, **changes: Any) -> Setup:
    return replace(setup, wiring=replace(setup.wiring, **changes))


def stepped(setup: Setup, **changes: Any) -> Setup:
    return replace(setup, steps=replace(setup.steps, **changes))


def with_rows(setup: Setup, change: Callable[..., Rows], *names: str) -> Setup:
    """`change(x, y)` in the splits of these names, or in all."""
    names = names or ("train", "valid", "fresh")
    rows = {name: change(*getattr(setup.data, name)) for name in names}
    return replace(setup, data=replace(setup.data, **rows))


def classes(setup: Setup) -> bool:
    return setup.data.kind == "multiclass"


def labels(y: np.ndarray) -> np.ndarray:
    """Integers, in whatever form the labels are."""
    return y.argmax(1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1).astype(int)


def one_target(setup: Setup) -> bool:
    return setup.data.kind in ("regression", "binary") and setup.data.outputs == 1


def kernels(params: Any, change: Callable[[jax.Array], jax.Array]) -> Any:
    """Every array of two axes or more, changed."""
    return jax.tree.map(lambda leaf: change(leaf) if leaf.ndim > 1 else leaf, params)
