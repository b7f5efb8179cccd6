"""The traced program of a step: where the new state comes from, and which number is the loss."""

import inspect
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.loop.roles import in_common
from nnref.diagnosis.loop.stepping import Step, parted, scalars
from nnref.diagnosis.program.tracing import Operation, is_library, shortened, trace
from nnref.diagnosis.thresholds import bound

MOST = 12  # numbers that are tried for the loss
TIE = 1e-3  # by which two cosines are the same


class Program:
    """A step as a flat list of operations, traced with the arguments of a call."""

    def __init__(self, step: Step, call: Any) -> None:
        """Trace the step.

        Raises:
            Exception: where it cannot be traced as a whole.
        """
        batch = parted(call.batch)
        self.step, self.call, self.arguments = (
            step,
            call,
            (call.before.arrays, batch.arrays, call.key),
        )

        def pure(arrays: Any, numbers: Any, key: Any) -> Any:
            outcome = step(call.before, arrays, batch.rebuild(numbers), key)
            new = {path: leaf for path, leaf in outcome.state.arrays.items() if path in arrays}
            return new, dict(scalars(outcome.metrics))

        self.pure = pure
        self.trace = trace(pure, *self.arguments)
        ids = jax.tree.unflatten(jax.tree.structure(self.trace.result), self.trace.outputs)
        self.new: dict[str, int] = ids[0]
        self.metrics: dict[str, int] = ids[1]
        self.old = {self.trace.paths[value]: value for value in self.trace.arguments[0]}
        self.batch = list(self.trace.arguments[1])
        self.key = list(self.trace.arguments[2])
        self.sought: list[tuple[int, dict[str, np.ndarray]] | None] = []  # what `loss_of` found

    @property
    def leaves(self) -> list[Any]:
        """The arrays that the program was traced with."""
        return jax.tree.leaves(self.arguments)

    def passed_on(self, path: str) -> bool:
        """Whether a leaf goes through the step untouched, or is none of its state."""
        return path not in self.old or self.new.get(path) == self.old[path]

    def line_of(self, path: str) -> str:
        """The user's line that computes the new value of a leaf, "" where there is none."""
        value = self.new.get(path)
        for operation in reversed(self.trace.operations):
            if value in operation.outputs:
                return operation.where
        return ""

    @cached_property
    def dead(self) -> list[Operation]:
        """The operations whose results lead nowhere: neither to the state nor to a metric."""
        needed = self.trace.needed(self.trace.outputs)
        return [op for op in self.trace.operations if needed.isdisjoint(op.outputs)]

    def thrown_away(self, paths: list[str]) -> str:
        """The line of the last value of the shape of one of these leaves that leads nowhere."""
        used = {value for op in self.dead for value in op.inputs}
        shapes = {self.trace.shape(self.old[path]) for path in paths if path in self.old}
        moved = self.trace.reached(self.old[path] for path in paths if path in self.old)
        for operation in reversed(self.dead):
            (value, *_) = operation.outputs
            if (
                operation.where
                and value not in used
                and value in moved
                and self.trace.shape(value) in shapes
                and operation.name in ("add", "sub", "add_any", "mul", "select_n")
            ):
                return operation.where
        return next(filter(None, map(self.left_in_a_scan, paths)), "")

    def left_in_a_scan(self, path: str) -> str:
        """The line of a scan that gives a new value for a leaf, which nothing reads.

        Under a `jax.vmap` there is one for each row.
        """
        if path not in self.old:
            return ""
        old, shape = self.old[path], self.trace.shape(self.old[path])
        used = {value for op in self.trace.operations for value in op.inputs}
        unread = self.trace.reached([old]) - used - {*self.trace.outputs}
        for scan in [op for op in self.trace.operations if op.name == "scan" and op.where]:
            shapes = [self.trace.shape(value) for value in unread.intersection(scan.outputs)]
            if any(shape in (each, each[1:]) for each in shapes):
                return scan.where
        return ""

    @property
    def line(self) -> str:
        """The line where the step begins."""
        return line_of_function(self.step.function)

    # The loss

    @cached_property
    def candidates(self) -> list[int]:
        """Numbers that may be the loss: metrics, else what is computed for itself."""
        moved = self.trace.reached(v for v in self.old.values() if self.is_floating(v))
        named = [value for value in self.metrics.values() if value in moved]
        return named[:MOST] or self.unnamed

    @cached_property
    def unnamed(self) -> list[int]:
        """Numbers that lead nowhere, as a loss that is differentiated and not returned."""
        traced = self.trace
        state = [value for path, value in self.old.items() if self.is_floating(value)]
        from_state = traced.reached(state)
        used = {value for op in traced.operations for value in op.inputs}
        used |= set(self.new.values())  # sums of losses, say
        alone = [
            value
            for op in traced.operations
            for value in op.outputs
            if value in from_state
            and value not in used
            and traced.size(value) == 1
            and self.is_floating(value)
        ]
        return list(dict.fromkeys(alone))[:MOST]

    def is_floating(self, value: int) -> bool:
        """Whether a value is of floating point."""
        dtype = getattr(self.trace.avals[value], "dtype", np.int32)
        return bool(jnp.issubdtype(dtype, jnp.inexact))

    def gradients(self, call: Any) -> list[dict[str, np.ndarray]]:
        """The gradients of all candidates at a call, for the leaves of floating point."""
        rows = self.slopes(call.before.arrays, parted(call.batch).arrays, call.key)
        return [{path: np.asarray(leaf) for path, leaf in row.items()} for row in rows]

    @cached_property
    def slopes(self) -> Callable[..., Any]:
        """The gradients of all candidates at a state, compiled once.

        Each is taken alone: what is measured behind an update has infinite slopes, as of Adam's
        root of 0, which 0 times are NaN.
        """

        def slopes(state: Any, batch: Any, key: Any) -> Any:
            floating = {p: leaf for p, leaf in state.items() if self.is_floating(self.old[p])}

            def value(floating: Any, candidate: int) -> Any:
                leaves = jax.tree.leaves(({**state, **floating}, batch, key))
                (found,) = self.trace.evaluate(leaves, [candidate])
                return jnp.ravel(found)[0].astype(jnp.float32)

            return [jax.grad(value)(floating, candidate) for candidate in self.candidates]

        return jax.jit(slopes)

    def loss_of(self, loop: Any) -> tuple[int, dict[str, np.ndarray]] | None:
        """The number whose gradient the step follows, up or down, and this gradient.

        It is sought at the call that the program was traced with.
        """
        if not self.sought:
            self.sought.append(self.find_loss(loop))
        return self.sought[0]

    def find_loss(self, loop: Any) -> tuple[int, dict[str, np.ndarray]] | None:
        """See `loss_of`."""
        if loop.updates > len(loop.steps):
            return None  # several updates in a call, and no loss of them all
        found, named = self.followed(loop), self.candidates
        if not self.unnamed or named == self.unnamed:
            return found
        moved = next(iter(self.directions(loop)))
        missed = [p for p, move in moved.items() if found and move.any() and not found[1][p].any()]
        if found and not missed:
            return found
        # A metric may be one term of a sum that is not returned, and lead some leaves as it does.
        slopes = self.slopes
        self.candidates = [*named, *self.unnamed]
        del self.slopes  # of the candidates: they are compiled anew
        better = self.followed(loop)
        if better is None or better[0] in named:
            self.candidates, self.slopes = named, slopes
            return found
        return better

    def followed(self, loop: Any) -> tuple[int, dict[str, np.ndarray]] | None:
        """The candidate whose gradient the step follows best; of several, that of most leaves."""
        try:
            gradients = self.gradients(self.call)
        except Exception:  # a loop whose length is not known has no reverse
            return None
        directions = list(self.directions(loop))
        sizes = [
            max((follows(direction, gradient) for direction in directions), default=0.0)
            for gradient in gradients
        ]
        best = max(sizes, default=0.0)
        if best <= bound("follows"):
            return None
        alike = [place for place, size in enumerate(sizes) if size > best - TIE]
        place = max(alike, key=lambda at: sum(map(np.any, gradients[at].values())))
        return self.candidates[place], gradients[place]

    def directions(self, loop: Any) -> Iterator[dict[str, np.ndarray]]:
        """What is parallel to the gradient in a step: the move of the parameters, and of others.

        A moment moves by a share of the difference between the gradient and itself; a sum of
        gradients by the gradient. Both are trees like the parameters, each with a name of its own.
        """
        call = self.call
        before, after = (
            {
                p: np.asarray(leaf, np.float64)
                for p, leaf in part.arrays.items()
                if p in self.old and self.is_floating(self.old[p])
            }
            for part in (call.before, call.after)
        )
        moved = {
            p: after[p] - leaf
            for p, leaf in before.items()
            if p in after and after[p].shape == leaf.shape
        }
        own = [path for path in moved if path not in loop.optimizers]
        yield {path: moved[path] for path in own}
        for pairs in alongside(moved, own).values():
            for share in (0.0, 0.1, 1.0):
                yield {of: after[p] - (1 - share) * before[p] for p, of in pairs.items()}

    def loss_name(self, loop: Any) -> str | None:
        """The metric that is the loss."""
        found = self.loss_of(loop)
        return next((n for n, v in self.metrics.items() if found and v == found[0]), None)


def alongside(
    leaves: dict[str, np.ndarray], own: list[str]
) -> dict[tuple[str, str], dict[str, str]]:
    """The leaves of trees that are like another one, each with its leaf there, by both trees."""
    trees: dict[tuple[str, str], dict[str, str]] = {}
    for path, leaf in leaves.items():
        for other in own:
            shared = in_common(path, other)
            if other != path and shared and leaf.shape == leaves[other].shape:
                names = path.split("."), other.split(".")
                one, two = (".".join(name[: len(name) - shared]) for name in names)
                trees.setdefault((one, two), {})[path] = other
    return trees


def follows(direction: dict[str, np.ndarray], gradient: dict[str, np.ndarray]) -> float:
    """How far a step goes along a gradient, up or down: as a whole, or leaf by leaf.

    Leaves that an optimizer treats unlike each other, as a mask has it, follow one by one.
    """
    leaves = [
        abs(cosine({path: direction[path]}, gradient))
        for path in direction
        if np.size(direction[path]) > 1 and np.any(direction[path]) and np.any(gradient.get(path))
    ]
    apart = float(np.mean(leaves)) if leaves else 0.0
    return max(abs(cosine(direction, gradient)), apart)


def cosine(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The cosine of the angle between two trees, over the leaves that both have."""
    shared = [p for p in one if p in other and np.shape(one[p]) == np.shape(other[p])]
    if not shared:
        return 0.0
    a, b = (np.concatenate([np.ravel(t[p]) for p in shared]).astype(float) for t in (one, other))
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if np.isfinite(size) and size > 0 else 0.0


def line_of_function(function: Callable[..., Any]) -> str:
    """File and line where a function is defined, behind whatever wraps it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or is_library(code.co_filename):
        return ""
    return f"{shortened(code.co_filename)}:{code.co_firstlineno}"
