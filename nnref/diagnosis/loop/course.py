"""The course of a state over the steps of a loop, whether they are made here or recorded."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.roles import beneath, copies, of_optimizers, partners, roles_of
from nnref.diagnosis.loop.stepping import Parted

Arrays = dict[str, np.ndarray]


class Course:
    """States one after the other, how far each leaf moves between them, and what the leaves are."""

    programs: list[Program | None]  # of the steps, None for those that are not known
    states: list[Arrays]  # the first one, and those that are known of the others
    moves: Arrays  # the length by which each leaf moves in each turn, (turns,)
    turns: int
    comes_back: bool  # whether a state is given back at all
    last: dict[str, Any]  # the arrays at the end, where they lie

    def __init__(self, state: Any, start: Parted, given: dict[str, str]) -> None:
        """Begin with a state, taken apart, and the roles that are given by hand."""
        self.state, self.start, self.given = state, start, given

    def line(self, place: int = 0) -> str:
        """The line where a step begins, "" where it is not known."""
        del place
        return ""

    @cached_property
    def roles(self) -> dict[str, str]:
        """The role of each leaf of the state."""
        return roles_of(self) | self.given

    @cached_property
    def optimizers(self) -> set[str]:
        """The leaves that are an optimizer's."""
        roots = of_optimizers(self.state)
        return {path for path in self.start.arrays if beneath(path, roots)}

    @cached_property
    def moments(self) -> dict[str, str]:
        """The leaves of optimizers that are of the shape of parameters, each with its own."""
        own = [path for path in self.floating() if path in self.optimizers]
        others = [path for path in self.floating() if path not in self.optimizers]
        shapes = {path: leaf.shape for path, leaf in self.states[0].items()}
        slopes = [gradient for *_, gradient in self.losses_of_steps()]
        moved = {
            path: (
                any(np.any(slope.get(path, 0)) for slope in slopes),
                float(np.nansum(self.moves[path])),
            )
            for path in others
        }
        return partners(own, others, shapes, moved)

    def losses_of_steps(self) -> Iterator[tuple[int, Program, int, Arrays]]:
        """Each step whose loss is known: its place, program and loss, and the gradient of this."""
        for place, program in enumerate(self.programs):
            found = program and program.loss_of(self)
            if program and found:
                yield place, program, *found

    @property
    def one_loss(self) -> tuple[Program, int, Arrays] | None:
        """Program, loss and gradient of a loop of one step; None for several, or none known."""
        known = next(self.losses_of_steps(), None) if len(self.programs) == 1 else None
        return known and known[1:]

    @cached_property
    def updates(self) -> int:
        """How many updates of the parameters a turn makes, as the optimizer counts them."""
        steps = [1]
        for path in self.optimizers & set(self.states[0]):
            leaf = self.states[0][path]
            if leaf.size == 1 and not inexact(leaf):
                turns = [int(a[path].ravel()[0]) - int(b[path].ravel()[0]) for b, a in self.pairs]
                steps.append(int(np.median(turns)))
        return max(steps)

    @cached_property
    def copies(self) -> dict[str, str]:
        """The slow copies of parameters, each with what it follows."""
        return copies(self)

    def of(self, role: str) -> list[str]:
        """The leaves that have a role."""
        return [path for path, found in self.roles.items() if found == role]

    @property
    def pairs(self) -> Iterable[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """The states before and after each turn."""
        return zip(self.states, self.states[1:], strict=False)

    def stands(self, path: str) -> bool:
        """Whether a leaf is the same after every step."""
        return not self.moves[path].any()

    def moved(self) -> np.ndarray:
        """The length by which each turn moves all parameters together, (turns,)."""
        moves = [self.moves[path] for path in self.of("parameter")]
        return np.linalg.norm(moves, axis=0) if moves else np.zeros(self.turns)

    def floating(self) -> list[str]:
        """The leaves of floating point."""
        return [path for path, leaf in self.states[0].items() if inexact(leaf)]

    def line_of(self, path: str) -> str:
        """The user's line that computes the new value of a leaf, else where the step begins."""
        lines = [p.line_of(path) for p in self.programs if p and not p.passed_on(path)]
        return next(filter(None, lines), self.line())


def inexact(leaf: np.ndarray) -> bool:
    """Whether an array is of floating point."""
    return bool(jnp.issubdtype(leaf.dtype, np.inexact))


def distance(before: np.ndarray | None, after: np.ndarray | None) -> float:
    """The length of the change of an array, infinite where it has another shape."""
    if before is None or after is None or before.shape != after.shape:
        return np.inf if after is not None else 0.0
    if np.array_equal(before, after, equal_nan=inexact(before)):
        return 0.0
    with np.errstate(all="ignore"):
        change = after.astype(np.float64) - before.astype(np.float64)
        return float(np.linalg.norm(change.ravel())) or float(np.finfo(float).tiny)
