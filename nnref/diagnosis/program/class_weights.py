"""How much a loss weighs each class, measured by its slopes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.thresholds import bound


class Weighed(NamedTuple):
    """The weights of the classes, their mean 1, and the output that says nothing."""

    weights: np.ndarray
    neutral: float


def class_weights(
    loss: Callable[[Any, Any], Any], output: tuple[int, ...], y: np.ndarray, answers: np.ndarray
) -> Weighed | None:
    """The weight of each class in a loss; None where all weigh the same, or it cannot be told.

    At outputs that say nothing, as logits of 0, the slope of a row differs from that of a row of
    another class by their weights alone. All stand in one batch, so that a division by the sum of
    the weights is the same for each.

    Args:
        loss: of outputs and targets.
        output: the shape of the outputs of a row.
        y: targets, (rows, ...).
        answers: the class of each row, (rows,); below 0 is none.
    """
    classes, first = np.unique(answers, return_index=True)
    first = first[classes >= 0]
    classes = classes[classes >= 0]
    size = int(np.prod(output))
    if len(classes) < 2 or (size == 1 and len(classes) > 2):
        return None
    # Logits of 0, equal probabilities, and for one number the middle of its two targets.
    neutral = [0.0, 0.5, float(np.mean(y[first], dtype=float))] if size == 1 else [0.0, 1 / size]
    slope = jax.jit(jax.grad(lambda outputs: jnp.asarray(loss(outputs, y[first])).sum()))
    found = []
    for value in neutral:
        slopes = slope(jnp.full((len(classes), *output), value, jnp.float32))
        sizes = np.linalg.norm(np.asarray(slopes, float).reshape(len(classes), -1), axis=1)
        if np.isfinite(sizes).all() and sizes.max() < bound("target weights") * sizes.min():
            weights = np.ones(int(classes.max()) + 1)
            weights[classes] = sizes / sizes.mean()
            found.append((Weighed(weights, value), sizes.max() / sizes.min()))
    if not found or min(ratio for _, ratio in found) < bound("weighs"):
        return None
    return found[0][0]
