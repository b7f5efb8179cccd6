"""Losses: how wrong each example of a batch is.

Positional are `outputs`, the network's predictions or logits with the batch as leading axis, and
`targets`; losses of classes also take `smoothing`, which the trainer gives in training only. The
result has shape `(batch,)`: the trainer takes its mean. f is the output, z the logit, y the target.

What a loss cannot mean, it refuses: shapes where the program is traced, values where they can be
read, that is in `TargetKind.encode` and wherever the loss is called outside a traced program.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.bounds import NonNegative, Positive
from nnref.errors import UserError
from nnref.internals import is_traced

Array = jax.Array
Smoothing = float | Array | None


# --- values -------------------------------------------------------------------------------------


def squared_error(outputs: Array, targets: Array) -> Array:
    """Squared error: l = mean over outputs of (f - y)^2. No factor 1/2.

    Its minimum is the mean of the targets (Gauss 1809). One outlier can outweigh all the rest.

    Args:
        outputs: predictions, (batch, ...).
        targets: of the same shape.

    Returns:
        (batch,), in squared units of the target.

    Raises:
        UserError: for shapes that differ; they would broadcast, each against every other.
    """
    return mean_of(jnp.square(residual("squared_error", outputs, targets)))


def absolute_error(outputs: Array, targets: Array) -> Array:
    """Absolute error: l = mean over outputs of |f - y|.

    Its minimum is the median of the targets, which outliers do not move (Laplace 1774). The
    gradient keeps its size down to f = y, where it is set to 0: with a constant learning rate the
    last digits never settle.

    Args:
        outputs: predictions, (batch, ...).
        targets: of the same shape.

    Returns:
        (batch,), in units of the target.

    Raises:
        UserError: for shapes that differ.
    """
    return mean_of(jnp.abs(residual("absolute_error", outputs, targets)))


def huber(outputs: Array, targets: Array, *, delta: Positive = 1.0) -> Array:
    """Huber's loss: e^2/2 where |e| <= delta, else delta (|e| - delta/2), with e = f - y.

    Quadratic near the target and linear far from it (Huber 1964, "Robust estimation of a location
    parameter"). Mean over outputs. Delta has the unit of the target: for targets
    that are not standardized, 1 may be far too small or too large. With the factor 1/2 it is half
    of `squared_error` near the target.

    Args:
        outputs: predictions, (batch, ...).
        targets: of the same shape.
        delta: residual at which the quadratic goes over into its tangent.

    Returns:
        (batch,).

    Raises:
        UserError: for shapes that differ.
    """
    distance = jnp.abs(residual("huber", outputs, targets))
    near = jnp.minimum(distance, delta)
    return mean_of(near * near / 2 + delta * (distance - near))


def log_cosh(outputs: Array, targets: Array) -> Array:
    """Log-cosh: l = mean over outputs of log cosh(e), with e = f - y.

    About e^2/2 near the target, |e| - log 2 far from it, with a gradient tanh(e) that is smooth
    everywhere (Green 1990 as a penalty). The scale at which it turns linear is 1 in units
    of the target.

    Args:
        outputs: predictions, (batch, ...).
        targets: of the same shape.

    Returns:
        (batch,).

    Raises:
        UserError: for shapes that differ.
    """
    e = residual("log_cosh", outputs, targets)
    # Near 0 the difference |e| - log 2 + ... would leave nothing but rounding: in float32 already
    # e = 1e-4 gives 0. There cosh^2 = 1 + sinh^2 keeps every digit.
    near = jnp.log1p(jnp.square(jnp.sinh(jnp.clip(e, -1, 1)))) / 2
    far = jnp.abs(e) + jnp.log1p(jnp.exp(-2 * jnp.abs(e))) - math.log(2)
    return mean_of(jnp.where(jnp.abs(e) < 1, near, far))


def linear(outputs: Array, targets: Array) -> Array:
    """Linear: l = sum over outputs of y f. Each target is the cost of a unit of its output.

    The loss of online linear optimization (Zinkevich 2003): the sequence of the targets is the
    sequence of the costs. It has no minimum. Without a bound on the weights, as that of
    `regularization.max_norm`, they run away.

    Args:
        outputs: decisions, (batch, ...).
        targets: costs, of the same shape.

    Returns:
        (batch,), of either sign.

    Raises:
        UserError: for shapes that differ.
    """
    refuse_shapes("linear", outputs, targets)
    return sum_of(targets.astype(outputs.dtype) * outputs)


LARGEST_LOG_RATE = 40.0


def poisson(outputs: Array, targets: Array, *, full: bool = False) -> Array:
    """Poisson's negative log-likelihood of counts: l = mean over outputs of exp(z) - y z.

    The output z is the logarithm of the expected count (Nelder and Wedderburn 1972, log link).
    Without the term log y!, which no weight can change, the loss of a perfect prediction is not 0
    and may be negative. Beyond z = 40, that is 2e17 events, the exponential goes on as its tangent:
    one wild output gives a large gradient instead of infinity.

    Args:
        outputs: logarithms of rates, (batch, ...).
        targets: counts, 0 or more, of the same shape.
        full: add log y!, so that the loss is the whole negative log-likelihood in nats.

    Returns:
        (batch,), in nats.

    Raises:
        UserError: for shapes that differ, or negative counts.
    """
    refuse_shapes("poisson", outputs, targets)
    check_known(refuse_negative, targets)
    y = targets.astype(outputs.dtype)
    nats = rate(outputs) - y * outputs
    return mean_of(nats + jax.scipy.special.gammaln(y + 1) if full else nats)


def rate(z: Array) -> Array:
    """The expected count exp(z), as its tangent beyond `LARGEST_LOG_RATE`."""
    near = jnp.where(z > LARGEST_LOG_RATE, LARGEST_LOG_RATE, z)
    return jnp.exp(near) * (1 + (z - near))


# --- classes ------------------------------------------------------------------------------------


def hinge(outputs: Array, targets: Array) -> Array:
    """Hinge: l = sum over outputs of max(0, 1 - y f), with y = -1 or 1.

    The loss of support vector machines (Cortes and Vapnik 1995). Examples that are right by a
    margin of 1 have no gradient at all: once all are, learning stops. The output is a score and
    no logit; it has no probability.

    Args:
        outputs: scores, (batch, ...).
        targets: -1 or 1, of the same shape.

    Returns:
        (batch,).

    Raises:
        UserError: for shapes that differ, or targets beside -1 and 1.
    """
    refuse_shapes("hinge", outputs, targets)
    check_known(refuse_not_signs, targets)
    return sum_of(jax.nn.relu(1 - targets.astype(outputs.dtype) * outputs))


def sigmoid_cross_entropy(outputs: Array, targets: Array, smoothing: Smoothing = None) -> Array:
    """Cross entropy of independent yes-or-no answers, from logits, in nats, summed over outputs.

    l = -y log s(z) - (1 - y) log(1 - s(z)) with s the logistic sigmoid (Good 1952; Bishop 2006,
    equation 4.90), computed from z so that no logarithm sees 0. A sigmoid before this loss
    would be a second one.

    Args:
        outputs: logits, (batch, ...).
        targets: probabilities of yes, from 0 to 1, of the same shape.
        smoothing: share s of the target that is spread over both answers: y <- (1 - s) y + s/2.

    Returns:
        (batch,), in nats.

    Raises:
        UserError: for shapes that differ, or targets below 0 or above 1.
    """
    refuse_shapes("sigmoid_cross_entropy", outputs, targets)
    check_known(refuse_no_probability, targets)
    y = targets.astype(outputs.dtype)
    if smoothing is not None:
        y = (1 - smoothing) * y + smoothing / 2
    yes, no = jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs)
    return sum_of(-y * yes - (1 - y) * no)


def softmax_cross_entropy(
    outputs: Array,
    targets: Array,
    smoothing: Smoothing = None,
    *,
    class_weights: tuple[NonNegative, ...] | None = None,
) -> Array:
    """Cross entropy of one class among K, from logits, in nats.

    l = -sum_k w_k y_k log softmax(z)_k, y being the one-hot row of a label, or a row of
    probabilities as it is (Bridle 1990). Label smoothing replaces y by (1 - s) y + s/K (Szegedy
    et al. 2016, section 7). A softmax before this loss would be a second one.

    With class weights the trainer's mean still divides by the number of examples, where PyTorch
    divides by the sum of their weights: weights whose mean over the training examples is 1 keep
    the loss in scale, and a batch's composition does not change the step.

    Args:
        outputs: logits, (batch, classes) or (batch, ..., classes).
        targets: integer classes of the shape without its last axis, or rows that sum to 1, of
            the same shape as the logits.
        smoothing: share s of the target that is spread over all classes.
        class_weights: w, one for each class in the order of the classes; none for equal ones.

    Returns:
        (batch,), in nats, the mean over the axes between batch and classes.

    Raises:
        UserError: for other shapes, labels that are no integers or lie beyond the width, rows that
            do not sum to 1, or a number of weights that is not the number of classes.
    """
    y = distribution(outputs, targets)
    if smoothing is not None:
        y = (1 - smoothing) * y + smoothing / outputs.shape[-1]
    if class_weights is not None:
        refuse_weights(class_weights, outputs.shape[-1])
        y = y * jnp.asarray(class_weights, outputs.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
    return mean_of(-jnp.sum(y * jax.nn.log_softmax(outputs), axis=-1))


def distribution(outputs: Array, targets: Array) -> Array:
    """Targets as rows of probabilities: labels one-hot, rows as they are.

    A product with one-hot rows is as fast as picking one logit, and twice as fast under `vmap`.
    """
    name, (*batch, classes) = "softmax_cross_entropy", outputs.shape
    if targets.shape == outputs.shape:
        check_known(refuse_no_distribution, targets)
        return targets.astype(outputs.dtype)
    if targets.shape != tuple(batch):
        raise UserError(
            f"loss: {name} takes, for outputs of shape {outputs.shape}, labels of shape "
            f"{tuple(batch)} or one-hot rows of shape {outputs.shape}, not {targets.shape}"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise UserError(f"loss: {name} takes integer labels, these have dtype {targets.dtype}")
    check_known(refuse_labels, targets, classes)
    places = jnp.arange(classes).reshape((1,) * len(batch) + (-1,))
    return (targets[..., None] == places).astype(outputs.dtype)


# --- the door -----------------------------------------------------------------------------------


def residual(name: str, outputs: Array, targets: Array) -> Array:
    """The residual e = f - y, for equal shapes only."""
    refuse_shapes(name, outputs, targets)
    return outputs - targets.astype(outputs.dtype)


def mean_of(errors: Array) -> Array:
    """Mean over all axes but the batch."""
    return jnp.mean(errors, axis=tuple(range(1, errors.ndim)))


def sum_of(errors: Array) -> Array:
    """Sum over all axes but the batch."""
    return jnp.sum(errors, axis=tuple(range(1, errors.ndim)))


def refuse_shapes(name: str, outputs: Array, targets: Array) -> None:
    """Raise where outputs and targets would broadcast, or have no batch axis."""
    if outputs.shape != targets.shape or outputs.ndim == 0:
        raise UserError(
            f"loss: {name} takes outputs and targets of one shape (batch, ...), these have "
            f"{outputs.shape} and {targets.shape}; reshape one of them"
        )


def check_known(refuse: Callable[..., None], targets: Any, *others: Any) -> None:
    """Call `refuse` on targets whose values can be read; in a traced program they cannot."""
    if not is_traced(targets):
        refuse(np.asarray(targets), *others)


def refuse_negative(counts: np.ndarray) -> None:
    """Raise for negative counts."""
    bad = counts < 0
    if bad.any():
        raise UserError(
            f"loss: poisson takes counts, {bad.sum()} of {bad.size} targets are negative, "
            f"down to {counts.min():g}; use squared_error for real values"
        )


def refuse_not_signs(targets: np.ndarray) -> None:
    """Raise for targets beside -1 and 1."""
    bad = (targets != 1) & (targets != -1)
    if bad.any():
        raise UserError(
            f"loss: hinge takes targets -1 and 1, {bad.sum()} of {bad.size} are others, "
            f"like {targets[bad][0]:g}; give two classes, or squared_error for real values"
        )


def refuse_no_probability(targets: np.ndarray) -> None:
    """Raise for targets below 0 or above 1."""
    bad = (targets < 0) | (targets > 1)
    if bad.any():
        raise UserError(
            f"loss: sigmoid_cross_entropy takes targets from 0 to 1, {bad.sum()} of {bad.size} "
            f"are not, from {targets.min():g} to {targets.max():g}; use squared_error for real "
            "values"
        )


def refuse_no_distribution(rows: np.ndarray) -> None:
    """Raise for rows that are no probabilities: below 0, or with a sum that is not 1."""
    if (rows < 0).any():
        raise UserError(
            f"loss: softmax_cross_entropy takes rows of probabilities, {(rows < 0).sum()} entries "
            f"are negative, down to {rows.min():g}"
        )
    sums = rows.sum(axis=-1, dtype=np.float64)
    bad = np.abs(sums - 1) > 1e-4  # float32 and files with five digits round their sums
    if bad.any():
        raise UserError(
            f"loss: softmax_cross_entropy takes one-hot rows that sum to 1, {bad.sum()} of "
            f"{bad.size} do not, like one with the sum {sums[bad][0]:g}; use sigmoid_cross_entropy "
            "where several classes may hold at once"
        )


def refuse_labels(labels: np.ndarray, classes: int) -> None:
    """Raise for labels beyond the width; inside a program they would be NaN, or wrap around."""
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        raise UserError(
            f"loss: {classes} classes have labels from 0 to {classes - 1}, {bad.sum()} of "
            f"{bad.size} lie beyond, like {labels[bad][0]}"
        )


def refuse_weights(weights: tuple[float, ...], classes: int) -> None:
    """Raise for another number of weights than of classes."""
    if len(weights) != classes:
        raise UserError(
            f"loss.class_weights: {len(weights)} weights given for {classes} classes; "
            "give one for each, in their order"
        )


def takes_smoothing(loss: Callable[..., Array]) -> bool:
    """Whether a loss knows label smoothing."""
    return "smoothing" in inspect.signature(loss).parameters


LOSSES = {
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "log_cosh": log_cosh,
    "linear": linear,
    "poisson": poisson,
    "hinge": hinge,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}
