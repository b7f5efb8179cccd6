"""Losses: how wrong each example of a batch is.

A loss takes `outputs` (batch, ...), the predictions or logits of a network, and `targets` of the
same shape, and gives one number for each example, (batch,), of which the trainer takes the mean.
Losses of values are in units of the target, or its square, losses of classes in nats. f is the
output, z the logit, y the target. Losses of classes also take `smoothing`, the share s of the
target that is spread over all answers; the trainer gives it in training only.

Every loss raises a UserError for shapes that do not fit, while the program is traced, and for
targets that it cannot mean, where their values can be read: in `TargetKind.encode`, and wherever
the loss is called outside a traced program.
"""

import inspect
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nnref.bounds import NonNegative, Positive
from nnref.errors import UserError
from nnref.parts.target_kinds import (
    check_known,
    rate,
    refuse_labels,
    refuse_negative,
    refuse_no_distribution,
    refuse_no_probability,
    refuse_not_signs,
)

Array = jax.Array
Smoothing = float | Array | None


# --- values -------------------------------------------------------------------------------------


def squared_error(outputs: Array, targets: Array) -> Array:
    """Squared error: l = mean over outputs of (f - y)^2. No factor 1/2.

    Its minimum is the mean of the targets (Gauss 1809). One outlier can outweigh all the rest.
    """
    return mean_of(jnp.square(outputs - matched("squared_error", outputs, targets)))


def absolute_error(outputs: Array, targets: Array) -> Array:
    """Absolute error: l = mean over outputs of |f - y|.

    Its minimum is the median of the targets, which outliers do not move (Laplace 1774). The
    gradient keeps its size down to f = y, where it is set to 0: with a constant learning rate the
    last digits never settle.
    """
    return mean_of(jnp.abs(outputs - matched("absolute_error", outputs, targets)))


def huber(outputs: Array, targets: Array, *, delta: Positive = 1.0) -> Array:
    """Huber's loss: e^2/2 where |e| <= delta, else delta (|e| - delta/2), with e = f - y.

    Quadratic near the target and linear far from it (Huber 1964, "Robust estimation of a location
    parameter"). Mean over outputs. Delta has the unit of the target: for targets that are not
    standardized, 1 may be far too small or too large. Near the target half of `squared_error`.

    Args:
        delta: residual at which the quadratic goes over into its tangent.
    """
    distance = jnp.abs(outputs - matched("huber", outputs, targets))
    near = jnp.minimum(distance, delta)
    return mean_of(near * near / 2 + delta * (distance - near))


def log_cosh(outputs: Array, targets: Array) -> Array:
    """Log-cosh: l = mean over outputs of log cosh(e), with e = f - y.

    About e^2/2 near the target, |e| - log 2 far from it, with a gradient tanh(e) that is smooth
    everywhere (Green 1990 as a penalty). It turns linear at a residual of about 1.
    """
    e = outputs - matched("log_cosh", outputs, targets)
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
    """
    return sum_of(matched("linear", outputs, targets) * outputs)


def poisson(outputs: Array, targets: Array, *, full: bool = False) -> Array:
    """Poisson's negative log-likelihood of counts: l = mean over outputs of exp(z) - y z.

    The output z is the logarithm of the expected count (Nelder and Wedderburn 1972, log link), y a
    count of 0 or more. Without the term log y!, which no weight can change, the loss of a perfect
    prediction is not 0 and may be negative. Beyond z = 40, that is 2e17 events, the exponential
    goes on as its tangent: one wild output gives a large gradient instead of infinity.

    Args:
        full: add log y!, so that the loss is the whole negative log-likelihood in nats.
    """
    y = matched("poisson", outputs, targets)
    check_known(refuse_negative, targets)
    nats = rate(outputs) - y * outputs
    return mean_of(nats + jax.scipy.special.gammaln(y + 1) if full else nats)


# --- classes ------------------------------------------------------------------------------------


def hinge(outputs: Array, targets: Array) -> Array:
    """Hinge: l = sum over outputs of max(0, 1 - y f), with y = -1 or 1.

    The loss of support vector machines (Cortes and Vapnik 1995). Examples that are right by a
    margin of 1 have no gradient at all: once all are, learning stops. The output is a score and
    no logit; it has no probability.
    """
    y = matched("hinge", outputs, targets)
    check_known(refuse_not_signs, targets)
    return sum_of(jax.nn.relu(1 - y * outputs))


def sigmoid_cross_entropy(outputs: Array, targets: Array, smoothing: Smoothing = None) -> Array:
    """Cross entropy of independent yes-or-no answers, from logits, in nats, summed over outputs.

    l = -y log s(z) - (1 - y) log(1 - s(z)) with s the logistic sigmoid and y the probability of
    yes, from 0 to 1 (Good 1952; Bishop 2006, equation 4.90), computed from z so that no logarithm
    sees 0. A sigmoid before this loss would be a second one.
    """
    y = matched("sigmoid_cross_entropy", outputs, targets)
    check_known(refuse_no_probability, targets)
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

    l = -sum_k w_k y_k log softmax(z)_k, y being the one-hot row of an integer label, or a row of
    probabilities as it is (Bridle 1990); the mean over what axes there are between batch and
    classes. Label smoothing replaces y by (1 - s) y + s/K (Szegedy et al. 2016, section 7). A
    softmax before this loss would be a second one.

    With class weights the trainer's mean still divides by the number of examples, where PyTorch
    divides by the sum of their weights: weights whose mean over the training examples is 1 keep
    the loss in scale, and a batch's composition does not change the step.

    Args:
        class_weights: w, one for each class in the order of the classes; none for equal ones.
    """
    y = distribution(outputs, targets)
    if smoothing is not None:
        y = (1 - smoothing) * y + smoothing / outputs.shape[-1]
    if class_weights is not None:
        if len(class_weights) != outputs.shape[-1]:
            raise UserError(
                f"loss.class_weights: {len(class_weights)} weights given for {outputs.shape[-1]} "
                "classes; give one for each, in their order"
            )
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
    return jax.nn.one_hot(targets, classes, dtype=outputs.dtype)


# --- what they share ------------------------------------------------------------------------------


def matched(name: str, outputs: Array, targets: Array) -> Array:
    """Targets in the dtype of the outputs; shapes that would broadcast are refused."""
    if outputs.shape != targets.shape or outputs.ndim == 0:
        raise UserError(
            f"loss: {name} takes outputs and targets of one shape (batch, ...), these have "
            f"{outputs.shape} and {targets.shape}; reshape one of them"
        )
    return targets.astype(outputs.dtype)


def mean_of(errors: Array) -> Array:
    """Mean over all axes but the batch."""
    return jnp.mean(errors, axis=tuple(range(1, errors.ndim)))


def sum_of(errors: Array) -> Array:
    """Sum over all axes but the batch."""
    return jnp.sum(errors, axis=tuple(range(1, errors.ndim)))


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
