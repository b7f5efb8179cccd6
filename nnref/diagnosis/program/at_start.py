"""What several checks measure of a recipe before its first step, each once."""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.targets import Form
from nnref.diagnosis.program.expectation import (
    Expectation,
    Range,
    expectation_of,
    range_of,
    row_by_row,
)
from nnref.diagnosis.program.loss_facts import kind_of
from nnref.diagnosis.program.sample import Sample, sample
from nnref.diagnosis.program.tracing import Trace, trace
from nnref.diagnosis.recipe import Recipe
from nnref.parts.chain import updated


class SeveralOutputs(ValueError):
    """The model returns several arrays; this check needs one."""


class AtStart:
    """A recipe before its first step, with what several checks measure of it."""

    def __init__(self, recipe: Recipe, params: Any = None, state: Any = None) -> None:
        """Start the recipe, unless parameters and state are given."""
        self.recipe = recipe
        if params is None:
            params, state = jax.jit(recipe.init)(jax.random.key(0))
        self.params, self.state = params, state

    @cached_property
    def network(self) -> Callable[..., Any]:
        """`apply`, compiled: the same program for every check that asks as many rows of it."""
        return jax.jit(self.recipe.apply, static_argnums=4)

    @cached_property
    def sample(self) -> Sample:
        """A few rows, in evaluation mode.

        A loss of pairs, as of triplets, says nothing of rows whose targets all differ: it is asked
        of rows that have theirs in common.
        """
        few, y = sample(self.recipe, self.params, self.state), self.targets
        classes = np.issubdtype(y.dtype, np.integer) and y.ndim == 1
        alone = classes and 1 < len(np.unique(few.y)) == len(few.y) < len(y)
        if not alone or few.outputs is None or self.recipe.targets is not None:
            return few
        drawn = np.random.default_rng(0).normal(size=few.outputs.shape).astype(np.float32)
        if row_by_row(self.recipe.loss, drawn[:4], few.y[[0, 0, 1, 1]]):
            return few
        return sample(self.recipe, self.params, self.state, pairs=True)

    @property
    def outputs(self) -> np.ndarray:
        """The outputs of the sample, where the targets beside them are one array as well.

        Raises:
            SeveralOutputs: where one of them is several.
        """
        if self.recipe.targets is not None:
            raise SeveralOutputs("the targets are several arrays")
        return self.one_output

    @property
    def one_output(self) -> np.ndarray:
        """The outputs of the sample, whatever the targets are.

        Raises:
            SeveralOutputs: where they are not one array.
        """
        outputs = self.sample.outputs
        if outputs is None:
            raise SeveralOutputs("the outputs are not one array with the rows first")
        return outputs

    @property
    def width(self) -> int:
        """The units of the last axis of the outputs, 1 where there is none."""
        return self.outputs.shape[-1] if self.outputs.ndim > 1 else 1

    @cached_property
    def targets(self) -> np.ndarray:
        """The targets of all training rows."""
        return np.asarray(self.recipe.train[1])

    @cached_property
    def form(self) -> Form:
        """How the targets say what is asked: as classes, flags or values."""
        return kind_of(self.recipe, self.outputs, self.sample.y).form

    @cached_property
    def range(self) -> Range | None:
        """What the outputs can be."""
        return range_of(*self.sample.tail) if self.sample.tail else None

    @cached_property
    def expectation(self) -> Expectation:
        """What the loss expects of the outputs."""
        return expectation_of(self.recipe.loss, self.sample.y, self.form, self.outputs.shape)

    @cached_property
    def row_by_row(self) -> bool:
        """Whether the loss holds each output against its target, not rows against each other."""
        return row_by_row(self.recipe.loss, self.outputs[:4], self.sample.y[:4])

    @property
    def arguments(self) -> tuple[Any, Any, Any, Any]:
        """The arguments of a step beside a key: parameters, state, rows, targets."""
        return self.params, self.state, self.sample.x, self.sample.y

    def objective(self, params: Any, state: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any, Any]:
        """The loss in training, without penalty; the outputs; the new state."""
        outputs, state = self.recipe.apply(params, state, x, key, True)
        return jnp.asarray(self.recipe.loss(outputs, y)).sum(), outputs, state

    @cached_property
    def training(self) -> Trace:
        """The program of `objective`: its arguments, its results."""
        return trace(self.objective, *self.arguments, jax.random.key(0))

    @cached_property
    def loss(self) -> Trace:
        """The program of the loss alone: arguments outputs, targets."""
        return trace(self.recipe.loss, self.sample.tree, self.sample.y)

    @cached_property
    def step(self) -> Callable[[float], Any]:
        """The first update of the optimizer for a drawn gradient times a scale."""
        optimizer = self.recipe.optimizer
        if optimizer is None:
            return lambda scale: jax.tree.map(jnp.zeros_like, self.params)

        def first(params: Any, scale: Any) -> Any:
            drawn = drawn_like(params)
            gradient = jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), drawn)
            return updated(optimizer, gradient, optimizer.init(params), params)[0]

        jitted = jax.jit(first)
        return lambda scale: jitted(self.params, scale)

    @property
    def last(self) -> str:
        """The place of the last layer."""
        layers = self.sample.layers
        return layers[-1].place if layers else "output"

    @property
    def loss_line(self) -> str:
        """The last line of the loss."""
        lines = [op.where for op in self.loss.operations if op.where]
        return lines[-1] if lines else "loss"


class LossAtStart:
    """A bare `loss(params, batch, key)` before its first step: less can be asked of it.

    Rows are the batch, whatever it is; there are no targets, outputs and state.
    """

    last = loss_line = "loss"
    batches: Sequence[Any] = ()  # further ones of the same shapes, where there are any
    moved: Collection[str] = ()  # parameters that a gradient moves which is not that of this loss

    def __init__(self, loss: Callable[..., Any], params: Any, batch: Any, keyed: bool) -> None:
        """Take a loss of parameters and batch, and of a key where it is keyed."""
        self.loss, self.keyed = loss, keyed
        self.arguments = params, {}, batch, ()

    def objective(self, params: Any, state: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any, Any]:
        """The loss, no outputs, no state."""
        arguments = (params, x, key) if self.keyed else (params, x)
        return jnp.mean(self.loss(*arguments)), (), ()

    @cached_property
    def training(self) -> Trace:
        """See `AtStart.training`."""
        return trace(self.objective, *self.arguments, jax.random.key(0))


def drawn_like(params: Any) -> Any:
    """A tree of drawn numbers of order 1, the same each time."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=np.shape(leaf)), leaf.dtype), params
    )


def beside(params: Any, scale: float, seed: int) -> Any:
    """Parameters beside the given ones: a kernel that is 0 hides what stands before it."""
    random = np.random.default_rng(seed)

    def moved(leaf: Any) -> Any:
        if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating):
            return leaf
        values = np.asarray(leaf, np.float64)
        size = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
        noise = (0.3 * size if np.isfinite(size) and size else 0.1) * random.normal(
            size=values.shape
        )
        return jnp.asarray(scale * (values + noise), jnp.asarray(leaf).dtype)

    return jax.tree.map(moved, params)
