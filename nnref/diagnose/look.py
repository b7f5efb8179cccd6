"""What several checks want to know of a subject at its start, each found once."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnose.answers import (
    Expectation,
    Kind,
    Range,
    Sample,
    expectation_of,
    kind_of,
    range_of,
    sample,
)
from nnref.diagnose.subject import Subject
from nnref.diagnose.tracing import Trace, trace


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
    def training(self) -> Trace:
        """The program of a loss in training: arguments parameters, state, rows, targets, key.

        Its results are the loss, without penalty, then the outputs, then the new state.
        """

        def objective(params: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
            outputs, state = self.subject.apply(params, state, x, key, True)
            return jnp.asarray(self.subject.loss(outputs, y)).sum(), outputs, state

        s = self.sample
        return trace(objective, self.params, self.state, s.x, s.y, jax.random.key(0))

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
            return optimizer.update(gradient, optimizer.init(params), params)[0]

        jitted = jax.jit(first)
        return lambda scale: jitted(self.params, scale)

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


def drawn_like(params: Any) -> Any:
    """A tree of drawn numbers of order 1, the same each time."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=np.shape(leaf)), leaf.dtype), params
    )
