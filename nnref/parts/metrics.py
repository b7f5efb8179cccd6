"""Metrics: figures for people, exact at any batch size.

The mean of the figures of the batches would be wrong wherever the last batch is smaller, and for
most metrics everywhere: so a metric adds up sums over batches, and makes its figure of the whole.

A member of the family takes how outputs are read: `answer(outputs)`, the classes (batch, ...) or
values that outputs (batch, ..., width) stand for; `classes`, the number K of classes, 0 for values;
`log_probabilities(outputs)`, natural logarithms for all classes, None where the loss has none. What
needs classes, or probabilities, raises a UserError without them. Keyword-only arguments are the
schema, as everywhere.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nnref.bounds import Count
from nnref.errors import UserError

Array = jax.Array
Answer = Callable[[Array], Array]
LogProbabilities = Callable[[Array], Array] | None


def add_up(batches: Any) -> Any:
    """The sums of all batches together, from those of each, stacked as leading axis."""
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), batches)


class Metric(NamedTuple):
    """A figure for people, in three steps, and which of two figures is the better one."""

    count: Callable[[Array, Array], Any]  # (outputs, targets) of a batch -> its sums
    value: Callable[[Any], Array]  # sums -> the figure
    larger_is_better: bool  # for early stopping, the network that is kept, and comparisons
    total: Callable[[Any], Any] = add_up  # sums of several batches, stacked -> those of all
    scalar: bool = True  # else it is taken once, at the end, not epoch by epoch


def is_loss(measure: str) -> bool:
    """Whether a measure of the history is the loss of a split, such as `valid_loss`."""
    return measure.partition("_")[2] == "loss"


def lower_is_better(measure: str, metrics: Mapping[str, Metric]) -> bool:
    """Whether a smaller value of a measure of the history is the better one.

    A measure is called `{split}_loss` or `{split}_{metric}`. A metric says so itself, whatever its
    name; of a loss the smaller value is better; of all else, like `clipped`, the larger one.
    """
    name = measure.partition("_")[2]
    return not metrics[name].larger_is_better if name in metrics else is_loss(measure)


# --- classes ------------------------------------------------------------------------------------


def labels_of(targets: Array, answers: Array) -> Array:
    """Classes that targets stand for, of the shape of the answers.

    Targets are classes already; one column, in which class 1 is what lies above 0 (0 and 1, or
    -1 and 1); or one-hot rows.
    """
    if targets.ndim == answers.ndim:
        return targets.astype(answers.dtype)
    if targets.shape[-1] == 1:
        return (targets[..., 0] > 0).astype(answers.dtype)
    return jnp.argmax(targets, axis=-1).astype(answers.dtype)


def accuracy(
    answer: Answer, classes: int = 0, log_probabilities: LogProbabilities = None
) -> Metric:
    """Accuracy: the share of examples whose decided class is the target's.

    With unequal classes the largest one alone sets its floor; see `balanced_accuracy`.
    """

    def count(outputs: Array, targets: Array) -> tuple[Array, Array]:
        answers = answer(outputs)
        return counted(answers == labels_of(targets, answers))

    return Metric(count, ratio, larger_is_better=True)


def counted(right: Array) -> tuple[Array, Array]:
    """How many are right, and how many there are: in float32 a sum stops at 16.8 million."""
    return jnp.sum(right, dtype=jnp.int32), jnp.int32(right.size)


def ratio(sums: tuple[Array, Array]) -> Array:
    """A sum over examples, divided by their number."""
    return sums[0] / sums[1]


def balanced_accuracy(
    answer: Answer, classes: int, log_probabilities: LogProbabilities = None
) -> Metric:
    """Balanced accuracy: the mean over classes of the share of a class that is found.

    mean_k (right_k / number_k) over the classes that occur (Brodersen et al. 2010). A constant
    answer scores 1/K however unequal the classes are.
    """
    refuse_values("balanced_accuracy", classes)

    def value(counts: Array) -> Array:
        number = jnp.sum(counts, axis=1)
        shares = jnp.diagonal(counts) / jnp.maximum(number, 1)
        return jnp.sum(shares) / jnp.sum(number > 0)

    return Metric(confusion_matrix(answer, classes).count, value, larger_is_better=True)


def confusion_matrix(
    answer: Answer, classes: int, log_probabilities: LogProbabilities = None
) -> Metric:
    """Confusion matrix: how often class i (row) was answered with class j (column).

    A matrix, integers (classes, classes); rows sum to the number of examples of their class.
    """
    refuse_values("confusion_matrix", classes)

    def count(outputs: Array, targets: Array) -> Array:
        answers = answer(outputs)
        cells = labels_of(targets, answers) * classes + answers
        return jnp.bincount(cells.reshape(-1), length=classes**2).reshape(classes, classes)

    return Metric(count, lambda counts: counts, larger_is_better=True, scalar=False)


def top_k(
    answer: Answer, classes: int, log_probabilities: LogProbabilities = None, *, k: Count = 5
) -> Metric:
    """Top-k accuracy: the share of examples whose class is among the k largest outputs.

    Of equal outputs the first ones count as larger, so that k = 1 is `accuracy` and a network that
    gives every class the same output does not score 1.

    Args:
        k: how many guesses are allowed; fewer than there are classes.
    """
    refuse_values("top_k", classes)
    if k >= classes:
        raise UserError(
            f"top_k: the first {k} of {classes} classes are all of them; k must be below {classes}"
        )

    def count(outputs: Array, targets: Array) -> tuple[Array, Array]:
        if outputs.shape[-1] == 1:  # two classes told apart by one output: k can only be 1
            return accuracy(answer).count(outputs, targets)
        labels = labels_of(targets, jnp.argmax(outputs, axis=-1))
        own = jnp.take_along_axis(outputs, labels[..., None], axis=-1)
        places = jnp.arange(classes).reshape((1,) * labels.ndim + (-1,))
        # Counted, not sorted, which takes ten times as long. "Not up to", so that NaN is ahead.
        ahead = ~(outputs <= own) | ((outputs == own) & (places < labels[..., None]))
        return counted(jnp.sum(ahead, axis=-1) < k)

    return Metric(count, ratio, larger_is_better=True)


def perplexity(answer: Answer, classes: int, log_probabilities: LogProbabilities = None) -> Metric:
    """Perplexity: exp of the mean of -log p(class), the number of equally likely choices.

    From 1, certain and right, over K, a blind guess, to infinity (Jelinek et al. 1977). The mean
    is over all answers of all examples; neither class weights nor label smoothing enter.
    """
    count = nats("perplexity", answer, classes, log_probabilities)
    return Metric(count, lambda sums: jnp.exp(ratio(sums)), larger_is_better=False)


def bits_per_character(
    answer: Answer, classes: int, log_probabilities: LogProbabilities = None
) -> Metric:
    """Bits per character: the mean of -log2 p(class), log2 of the perplexity.

    What an ideal code driven by the network would need for each answer (Shannon 1951).
    """
    count = nats("bits_per_character", answer, classes, log_probabilities)
    return Metric(count, lambda sums: ratio(sums) / math.log(2), larger_is_better=False)


def nats(
    name: str, answer: Answer, classes: int, log_probabilities: LogProbabilities
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Sum of -log p(class), and the number of answers."""
    refuse_values(name, classes)
    if log_probabilities is None:
        raise UserError(
            f"{name}: this loss gives classes no probabilities; use softmax_cross_entropy or "
            "sigmoid_cross_entropy"
        )

    def count(outputs: Array, targets: Array) -> tuple[Array, Array]:
        log_p = log_probabilities(outputs)
        labels = labels_of(targets, log_p[..., 0])
        chosen = jnp.take_along_axis(log_p, labels[..., None].astype(jnp.int32), axis=-1)
        return -jnp.sum(chosen), jnp.asarray(labels.size, chosen.dtype)

    return count


def refuse_values(name: str, classes: int) -> None:
    """Raise where targets are no classes."""
    if classes < 2:
        raise UserError(f"{name}: tells classes apart, the targets are real values; use r2")


# --- values -------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """What R2 needs of some examples; the last three fields have one entry a column of targets."""

    residual: Array  # sum (y - f)^2, over all columns
    number: Array  # of examples
    origin: Array  # one target, from which the mean is measured
    mean: Array  # mean of y - origin
    squares: Array  # sum (y - mean y)^2


def r2(answer: Answer, classes: int = 0, log_probabilities: LogProbabilities = None) -> Metric:
    """Coefficient of determination: 1 - sum (y - f)^2 / sum (y - mean y)^2, over all outputs.

    1 is perfect, 0 is what the constant mean reaches, below 0 is worse than that (Wright 1921).
    Each output column has a mean of its own. NaN where the targets do not vary.

    The squares of each batch are taken about its own mean and put together by the rule of Chan,
    Golub and LeVeque (1979), with means measured from one of the targets: in float32
    sum y^2 - (sum y)^2 / n loses every digit once the mean is some thousand deviations.
    """

    def count(outputs: Array, targets: Array) -> Moments:
        residual = jnp.sum(jnp.square(targets - answer(outputs)))
        origin = targets[0]
        away = targets - origin[None]
        mean = jnp.mean(away, axis=0)
        squares = jnp.sum(jnp.square(away - mean[None]), axis=0)
        return Moments(residual, jnp.asarray(len(targets), mean.dtype), origin, mean, squares)

    def total(batches: Moments) -> Moments:
        number = batches.number.reshape(-1, *(1,) * (batches.mean.ndim - 1))
        origin = batches.origin[0]
        means = batches.origin - origin[None] + batches.mean
        mean = jnp.sum(number * means, axis=0) / jnp.sum(number)
        between = number * jnp.square(means - mean[None])
        squares = jnp.sum(batches.squares + between, axis=0)
        return Moments(jnp.sum(batches.residual), jnp.sum(batches.number), origin, mean, squares)

    def value(moments: Moments) -> Array:
        squares = jnp.sum(moments.squares)
        return jnp.where(squares > 0, 1 - moments.residual / squares, jnp.nan)

    return Metric(count, value, larger_is_better=True, total=total)


def mean_absolute_error(
    answer: Answer, classes: int = 0, log_probabilities: LogProbabilities = None
) -> Metric:
    """Mean absolute error: the mean of |y - f| over all outputs, in units of the target."""

    def count(outputs: Array, targets: Array) -> tuple[Array, Array]:
        distance = jnp.abs(targets - answer(outputs))
        return jnp.sum(distance), jnp.asarray(distance.size, distance.dtype)

    return Metric(count, ratio, larger_is_better=False)


METRICS = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "top_k": top_k,
    "perplexity": perplexity,
    "bits_per_character": bits_per_character,
    "confusion_matrix": confusion_matrix,
    "r2": r2,
    "mean_absolute_error": mean_absolute_error,
}

METRICS_OF: Mapping[str, tuple[str, ...]] = {"classes": ("accuracy",), "values": ("r2",)}
"""What a run records where its file names no metrics, by what its targets are."""
