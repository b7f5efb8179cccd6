"""What several checks want to know of a subject at its start, each found once."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.program.expectation import (
    Expectation,
    Kind,
    Range,
    Sample,
    expectation_of,
    kind_of,
    range_of,
    row_by_row,
    sample,
)
from nnref.diagnosis.program.tracing import Trace, trace
from nnref.diagnosis.recipe import Subject, updated


class Severally(ValueError):
    """Outputs that a check of one array of answers cannot look at."""


class Look:
    """A subject at its start, with what several checks want to know of it."""

    def __init__(self, subject: Subject, params: Any = None, state: Any = None) -> None:
        """Start the subject, unless parameters and state are given."""
        self.subject = subject
        if params is None:
            params, state = jax.jit(subject.init)(jax.random.key(0))
        self.params, self.state = params, state

    @cached_property
    def sample(self) -> Sample:
        """A few rows, in evaluation mode."""
        return sample(self.subject, self.params, self.state)

    @property
    def answers(self) -> np.ndarray:
        """The outputs of the sample.

        Raises:
            Severally: where they are not one array.
        """
        answers = self.sample.answers
        if answers is None:
            raise Severally("the outputs are not one array with the rows first")
        return answers

    @cached_property
    def kind(self) -> Kind:
        """What the targets are."""
        return kind_of(self.subject.train[1], self.answers, self.subject.kind)

    @cached_property
    def range(self) -> Range | None:
        """What the answers can be."""
        return range_of(*self.sample.tail) if self.sample.tail else None

    @cached_property
    def expectation(self) -> Expectation:
        """What the loss expects of them."""
        return expectation_of(self.subject.loss, self.sample.y, self.kind, self.answers.shape)

    @cached_property
    def row_by_row(self) -> bool:
        """Whether the loss holds each answer against its target, not rows against each other."""
        return row_by_row(self.subject.loss, self.answers[:4], self.sample.y[:4])

    @property
    def given(self) -> tuple[Any, Any, Any, Any]:
        """What a step takes beside a key: parameters, state, rows, targets."""
        return self.params, self.state, self.sample.x, self.sample.y

    def objective(self, params: Any, state: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any, Any]:
        """The loss in training, without penalty; the outputs; the new state."""
        outputs, state = self.subject.apply(params, state, x, key, True)
        return jnp.asarray(self.subject.loss(outputs, y)).sum(), outputs, state

    @cached_property
    def training(self) -> Trace:
        """The program of `objective`: its arguments, its results."""
        return trace(self.objective, *self.given, jax.random.key(0))

    @cached_property
    def loss(self) -> Trace:
        """The program of the loss alone: arguments outputs, targets."""
        return trace(self.subject.loss, self.sample.outputs, self.sample.y)

    @cached_property
    def step(self) -> Callable[[float], Any]:
        """The first update of the optimizer for a drawn gradient times a scale."""
        optimizer = self.subject.optimizer
        if optimizer is None:
            return lambda scale: jax.tree.map(jnp.zeros_like, self.params)

        def first(params: Any, scale: Any) -> Any:
            drawn = drawn_like(params)
            gradient = jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), drawn)
            return updated(optimizer, gradient, optimizer.init(params), params)[0]

        jitted = jax.jit(first)
        return lambda scale: jitted(self.params, scale)

    @property
    def waits(self) -> bool:
        """Whether the optimizer moves later where its first update is 0, as a warm-up does."""
        optimizer, params = self.subject.optimizer, self.params
        drawn = drawn_like(params)

        def turn(state: Any, _: None) -> tuple[Any, Any]:
            updates, state = updated(optimizer, drawn, state, params)
            return state, jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(updates)])

        first = optimizer.init(params)
        return bool(jax.jit(lambda s: jax.lax.scan(turn, s, length=100)[1])(first).any())

    @property
    def last(self) -> str:
        """Where the answers are made."""
        found = self.sample.layers
        return f"{found[-1].name}, {found[-1].where}" if found else "output"

    @property
    def loss_line(self) -> str:
        """Where the loss is made."""
        lines = [op.where for op in self.loss.operations if op.where]
        return lines[-1] if lines else "loss"


class LossLook:
    """The same of a bare `loss(params, batch, key)`: less can be asked of it.

    Rows are the batch, whatever it is; there are no targets, outputs and state.
    """

    last = loss_line = "loss"

    def __init__(self, loss: Callable[..., Any], params: Any, batch: Any, keyed: bool) -> None:
        """Take a loss of parameters and batch, and of a key where it is keyed."""
        self.loss, self.keyed = loss, keyed
        self.given = params, {}, batch, ()

    def objective(self, params: Any, state: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any, Any]:
        """The loss, no outputs, no state."""
        given = (params, x, key) if self.keyed else (params, x)
        return jnp.mean(self.loss(*given)), (), ()

    @cached_property
    def training(self) -> Trace:
        """See `Look.training`."""
        return trace(self.objective, *self.given, jax.random.key(0))


def drawn_like(params: Any) -> Any:
    """A tree of drawn numbers of order 1, the same each time."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=np.shape(leaf)), leaf.dtype), params
    )
