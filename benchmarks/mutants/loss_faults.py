"""Faults of the last layer and of the loss."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mutants import losses
from benchmarks.mutants.planting import (
    PLAIN_STEPS,
    Fault,
    classes,
    one_target,
    stepped,
    wired,
    with_rows,
)

# Shapes


def first_output(setup, draw):
    """Outputs (rows,) against targets (rows, 1)."""
    if not one_target(setup):
        return None
    return replace(setup, loss=lambda o, y: setup.loss(o[:, 0], y))


def flat_targets(setup, draw):
    """Outputs (rows, 1) against targets (rows,)."""
    if not one_target(setup) or setup.loss_name == "half_sum_of_squares":
        return None
    return replace(setup, loss=lambda o, y: setup.loss(o, y.ravel()))


def targets_of_one_axis(setup, draw):
    """The file's targets are (rows,); only the healthy loss drops the outputs' second axis."""
    if not one_target(setup) or setup.loss_name == "half_sum_of_squares":
        return None
    flat = with_rows(setup, lambda x, y: (x, y[:, 0]))
    flat = replace(flat, metric=lambda o, y: setup.metric(o[:, 0], y))
    return replace(flat, loss=lambda o, y: setup.loss(jnp.squeeze(o, -1), y)), flat


def softmax_over_rows(setup, draw):
    if setup.loss_name not in ("optax_integers", "picked_log_softmax", "log_sum_exp"):
        return None
    if setup.data.kind != "multiclass":
        return None

    def loss(logits, y):
        log_p = jax.nn.log_softmax(logits, axis=0)
        return -jnp.mean(log_p[jnp.arange(len(y)), y])

    return replace(setup, loss=loss)


def probabilities_over_rows(setup, draw):
    if setup.loss_name not in ("categorical", "picked_probability") or not classes(setup):
        return None
    return wired(setup, final=lambda logits: jax.nn.softmax(logits, axis=0))


def loss_of_means(setup, draw):
    """Averages over rows before the error is squared."""
    if setup.data.kind != "regression" or setup.family == "vae":
        return None
    return replace(setup, loss=lambda o, y: jnp.sum((o.mean(0) - y.mean(0)) ** 2))


def one_for_all_targets(setup, draw):
    """(rows, 1) against (rows, targets)."""
    if setup.loss_name not in ("mean_squared_error", "half_sum_of_squares"):
        return None
    if setup.data.outputs < 2 or setup.family == "autoencoder":
        return None
    return wired(setup, outputs=1)


def one_unit_for_classes(setup, draw):
    """A logistic unit for class numbers."""
    if not classes(setup) or setup.data.train[1].ndim != 1:
        return None
    changed = replace(
        setup,
        loss=lambda o, y: losses.optax_logistic(o, y[:, None]),
        metric=lambda o, y: jnp.mean((o[:, 0] > 0) == y),
    )
    return wired(changed, outputs=1, final=lambda o: o)


def one_unit_broadcast(setup, draw):
    """(rows, 1) against rows with a single one: softmax of one value."""
    if setup.loss_name != "optax_one_hot":
        return None
    return wired(setup, outputs=1)


def a_class_too_few(setup, draw):
    """Classes are counted from 1, so that the last one has no unit."""
    if not classes(setup) or setup.data.train[1].ndim != 1:
        return None
    return wired(setup, outputs=max(2, setup.data.outputs // 2))


# Activations of the last layer


def softmax_of_one(setup, draw):
    if not one_target(setup):
        return None
    if setup.data.kind == "binary" and setup.loss_name != "clipped_likelihood":
        return None
    return wired(setup, final=losses.softmax)


def softmax_twice(setup, draw):
    """Slopes shrink by the number of classes, for which adaptive steps would make up."""
    if not classes(setup) or setup.loss_name in (*losses.PROBABILITIES, "smoothed"):
        return None
    if setup.data.outputs < 5 or setup.family == "conv":
        return None
    healthy = stepped(setup, name="sgd", rate=float(draw.uniform(0.04, 0.08)), schedule=None)
    return healthy, wired(healthy, final=losses.softmax)


def sigmoid_before_logistic(setup, draw):
    if setup.data.kind not in ("binary", "multilabel"):
        return None
    if setup.loss_name == "clipped_likelihood":
        return None
    return wired(setup, final=jax.nn.sigmoid)


def no_sigmoid(setup, draw):
    if setup.loss_name != "clipped_likelihood":
        return None
    return wired(setup, final=lambda o: o)


def no_softmax(setup, draw):
    if setup.loss_name not in ("picked_probability", "categorical"):
        return None
    return wired(setup, final=lambda o: o)


def relu_values(setup, draw):
    if setup.data.kind != "regression":
        return None
    return wired(setup, final=jax.nn.relu)


def relu_logits(setup, draw):
    if setup.data.kind not in ("binary", "multilabel", "multiclass"):
        return None
    if setup.loss_name in losses.PROBABILITIES:
        return None
    return wired(setup, final=jax.nn.relu)


def wide_targets(setup, scale):
    return with_rows(setup, lambda x, y: (x, y * np.float32(scale)))


def logistic_values(setup, draw):
    if setup.data.kind != "regression":
        return None
    return wired(setup, final=jax.nn.sigmoid)


def tanh_values(setup, draw):
    if setup.data.kind != "regression" or setup.data.form == "codes":
        return None
    healthy = wide_targets(setup, draw.uniform(3, 5))
    return healthy, wired(healthy, final=jnp.tanh)


def softmax_values(setup, draw):
    if setup.data.kind != "regression" or setup.data.outputs < 2:
        return None
    return wired(setup, final=losses.softmax)


def softmax_of_tags(setup, draw):
    if setup.data.kind != "multilabel" or setup.loss_name != "clipped_likelihood":
        return None
    return wired(setup, final=losses.softmax)


def sigmoid_of_classes(setup, draw):
    if setup.loss_name not in ("picked_probability", "categorical"):
        return None
    return wired(setup, final=jax.nn.sigmoid)


# Losses of something else


def percentage(setup, draw):
    if setup.data.kind != "regression" or setup.family == "vae":
        return None
    return replace(setup, loss=lambda o, y: jnp.mean(jnp.abs((y - o) / (jnp.abs(y) + 1e-3))))


def signed_error(setup, draw):
    if setup.data.kind != "regression" or setup.family == "vae":
        return None
    return replace(setup, loss=lambda o, y: jnp.mean(y - o))


def logistic_of_values(setup, draw):
    if setup.data.kind != "regression" or setup.family == "vae":
        return None
    return replace(setup, loss=losses.optax_logistic)


def cosine(setup, draw):
    """The direction of outputs, which of one output is its sign."""
    if setup.data.kind != "regression" or setup.data.outputs != 1:
        return None
    healthy = with_rows(setup, lambda x, y: (x, y + np.float32(3)))

    def loss(o, y):
        lengths = jnp.linalg.norm(o, axis=-1) * jnp.linalg.norm(y, axis=-1)
        return 1 - jnp.mean((o * y).sum(-1) / (lengths + 1e-6))

    return healthy, replace(healthy, loss=loss)


def only_ones(setup, draw):
    """The term of the zeros was forgotten."""
    if setup.data.kind not in ("binary", "multilabel"):
        return None
    if setup.loss_name == "clipped_likelihood":
        return replace(setup, loss=lambda p, y: -jnp.mean(y * jnp.log(jnp.clip(p, 1e-6, 1))))
    return replace(setup, loss=lambda o, y: -(y * jax.nn.log_sigmoid(o)).mean())


def number_of_class(setup, draw):
    """The squared distance to the class's number, one output against all."""
    if not classes(setup) or setup.data.train[1].ndim != 1:
        return None
    return replace(setup, loss=lambda o, y: jnp.mean((o - y[:, None]) ** 2))


def products(setup, draw):
    """Minus the value of the true class, without the normalization."""
    if not classes(setup) or setup.loss_name not in ("optax_one_hot", "smoothed"):
        return None
    return replace(setup, loss=lambda o, y: jnp.mean(jnp.sum(o * (1 - y), -1)))


# Sums and signs


def sum_over_rows(setup, draw):
    if setup.steps.name not in PLAIN_STEPS or setup.steps.clip is not None:
        return None
    return replace(setup, loss=lambda o, y: setup.loss(o, y) * len(y))


def sum_over_everything(setup, draw):
    """Over rows and targets, written out."""
    if setup.steps.name not in PLAIN_STEPS or setup.steps.clip is not None:
        return None
    if setup.data.kind != "regression" or setup.family == "vae":
        return None
    return replace(setup, loss=lambda o, y: jnp.sum((o - y) ** 2))


def log_likelihood(setup, draw):
    """The minus is missing."""
    return replace(setup, loss=lambda o, y: -setup.loss(o, y))


# Metrics


def accuracy_of_a_matrix(setup, draw):
    """(rows,) against (rows, 1)."""
    if setup.data.kind != "binary":
        return None
    bound = 0.5 if setup.loss_name == "clipped_likelihood" else 0.0
    return replace(setup, metric=lambda o, y: jnp.mean((o[:, 0] > bound) == (y > 0.5)))


def accuracy_of_real_values(setup, draw):
    if setup.data.kind != "regression" or setup.family == "vae":
        return None
    return replace(setup, metric=lambda o, y: jnp.mean(jnp.round(o, 3) == jnp.round(y, 3)))


def argmax_over_rows(setup, draw):
    """The row with the largest value of each class, instead of the class of each row."""
    if not classes(setup) or setup.data.train[1].ndim != 2:
        return None
    return replace(setup, metric=lambda o, y: jnp.mean(jnp.argmax(o, 0) == jnp.argmax(y, 0)))


def spread_of_a_matrix(setup, draw):
    """R² of (rows,) against (rows, 1)."""
    if setup.data.kind != "regression" or setup.data.outputs != 1:
        return None
    return replace(
        setup, metric=lambda o, y: 1 - jnp.mean((o[:, 0] - y) ** 2) / (jnp.var(y) + 1e-12)
    )


BOUNDED = ("output_activation_mismatch",)
UNNORMALIZED = ("output_activation_mismatch", "loss_mismatch")
RANGE = ("output_activation_mismatch", "output_range_excludes_targets")
LOSS_FAULTS = [
    Fault("loss_broadcast", "first_output", first_output, where="loss"),
    Fault("loss_broadcast", "flat_targets", flat_targets, where="loss"),
    Fault("loss_broadcast", "one_axis", targets_of_one_axis, where="loss"),
    Fault("loss_axis_error", "softmax", softmax_over_rows, ("loss_mismatch",), where="loss"),
    Fault("loss_axis_error", "final", probabilities_over_rows, (), where="last layer"),
    Fault("loss_axis_error", "means", loss_of_means, ("loss_mismatch",), where="loss"),
    Fault(
        "output_width_mismatch",
        "one_for_all",
        one_for_all_targets,
        ("loss_broadcast",),
        where="last layer",
    ),
    Fault(
        "output_width_mismatch",
        "one_unit",
        one_unit_for_classes,
        ("loss_mismatch",),
        where="last layer",
    ),
    Fault(
        "output_width_mismatch",
        "broadcast",
        one_unit_broadcast,
        ("softmax_on_single_unit", "loss_broadcast"),
        where="last layer",
    ),
    Fault(
        "output_width_mismatch",
        "too_few",
        a_class_too_few,
        ("numerical_instability",),
        where="last layer",
    ),
    Fault(
        "softmax_on_single_unit",
        "softmax",
        softmax_of_one,
        ("output_width_mismatch", *RANGE),
        where="last layer",
    ),
    Fault("double_softmax", "softmax", softmax_twice, UNNORMALIZED, where="last layer"),
    Fault(
        "output_activation_mismatch",
        "logistic_twice",
        sigmoid_before_logistic,
        ("double_softmax", "output_range_excludes_targets", "loss_mismatch"),
        where="last layer",
    ),
    Fault(
        "output_activation_mismatch",
        "softmax_of_tags",
        softmax_of_tags,
        ("loss_mismatch",),
        where="last layer",
    ),
    Fault(
        "output_activation_mismatch",
        "sigmoid_of_classes",
        sigmoid_of_classes,
        ("loss_mismatch",),
        where="last layer",
    ),
    Fault("output_activation_missing", "sigmoid", no_sigmoid, UNNORMALIZED, where="last layer"),
    Fault("output_activation_missing", "softmax", no_softmax, UNNORMALIZED, where="last layer"),
    Fault("relu_output", "values", relu_values, (*RANGE, "dying_relu"), where="last layer"),
    Fault("relu_output", "logits", relu_logits, (*RANGE, "dying_relu"), where="last layer"),
    Fault(
        "output_range_excludes_targets", "logistic", logistic_values, BOUNDED, where="last layer"
    ),
    Fault("output_range_excludes_targets", "tanh", tanh_values, BOUNDED, where="last layer"),
    Fault("output_range_excludes_targets", "softmax", softmax_values, BOUNDED, where="last layer"),
    Fault("loss_mismatch", "percentage", percentage, where="loss"),
    Fault("loss_mismatch", "signed", signed_error, ("gradient_ascent",), where="loss"),
    Fault("loss_mismatch", "logistic", logistic_of_values, where="loss"),
    Fault("loss_mismatch", "cosine", cosine, where="loss"),
    Fault("loss_mismatch", "only_ones", only_ones, where="loss"),
    Fault(
        "loss_mismatch",
        "class_number",
        number_of_class,
        ("loss_broadcast", "output_width_mismatch"),
        where="loss",
    ),
    Fault("loss_mismatch", "products", products, ("output_activation_missing",), where="loss"),
    Fault(
        "loss_summed_over_batch",
        "times_rows",
        sum_over_rows,
        ("learning_rate_too_high",),
        where="loss",
    ),
    Fault(
        "loss_summed_over_batch",
        "sum",
        sum_over_everything,
        ("learning_rate_too_high",),
        where="loss",
    ),
    Fault("gradient_ascent", "log_likelihood", log_likelihood, ("loss_mismatch",), where="loss"),
    Fault("metric_mismatch", "matrix", accuracy_of_a_matrix, where="metric"),
    Fault("metric_mismatch", "real_values", accuracy_of_real_values, where="metric"),
    Fault("metric_mismatch", "argmax_over_rows", argmax_over_rows, where="metric"),
    Fault("metric_mismatch", "spread", spread_of_a_matrix, where="metric"),
]
