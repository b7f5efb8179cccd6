"""Metrics: figures for people, exact at any batch size.

A metric is a pair. `count(outputs, targets)` gives sums over a batch; the sums of batches are added
up; `value(sums)` makes the figure of the whole. The mean of the batches' own figures would be
wrong wherever the last batch is smaller, and for most metrics everywhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Metric(NamedTuple):
    """Sums of a batch, and the figure that sums stand for."""

    count: Callable[[Array, Array], Any]
    value: Callable[[Any], Array]
    larger_is_better: bool


def accuracy(decide: Callable[[Array], Array]) -> Metric:
    """Share of examples whose decided class is the target's.

    Args:
        decide: turns outputs `(batch, width)` into classes, `(batch,)`, or yes-or-no answers,
            `(batch, 1)`. Targets have the shape of the answers, or are one-hot rows.
    """

    def count(outputs: Array, targets: Array) -> tuple[Array, Array]:
        answers = decide(outputs)
        if targets.ndim > answers.ndim:
            targets = jnp.argmax(targets, axis=-1)
        right = answers.astype(jnp.float32) == targets.astype(jnp.float32)
        return jnp.sum(right, dtype=jnp.float32), jnp.float32(right.size)

    return Metric(count, lambda sums: sums[0] / sums[1], larger_is_better=True)


def r2(decide: Callable[[Array], Array]) -> Metric:
    """Coefficient of determination: 1 - sum (y - f)^2 / sum (y - mean y)^2, over all outputs.

    0 is what the constant mean reaches; each output column has a mean of its own.

    Args:
        decide: unused, values are their own answer.
    """

    def count(outputs: Array, targets: Array) -> tuple[Array, Array, Array, Array]:
        residual = jnp.sum(jnp.square(targets - outputs))
        n = jnp.float32(len(targets))
        return residual, n, jnp.sum(targets, axis=0), jnp.sum(jnp.square(targets), axis=0)

    def value(sums: tuple[Array, Array, Array, Array]) -> Array:
        residual, n, total, squares = sums
        return 1.0 - residual / jnp.sum(squares - jnp.square(total) / n)

    return Metric(count, value, larger_is_better=True)


METRICS = {
    "accuracy": accuracy,
    "r2": r2,
}
