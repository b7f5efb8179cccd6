"""Losses as people write them, and the metrics that a set-up is judged by."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.mutants.setup import nothing

# Real targets


def mean_squared_error(outputs, y):
    return jnp.mean((outputs - y) ** 2)


def optax_squared(outputs, y):
    return optax.squared_error(outputs, y).mean()


def half_sum_of_squares(outputs, y):
    """Over the targets of a row; the mean over rows."""
    return 0.5 * jnp.sum(jnp.square(y - outputs), axis=-1).mean()


def huber(outputs, y):
    return jnp.mean(optax.losses.huber_loss(outputs, y, delta=1.0))


# Two classes, as zeros and ones of shape (rows, 1), and labels that do not exclude each other


def optax_logistic(logits, y):
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


def logistic_by_margin(logits, y):
    """log(1 + exp(-margin))."""
    return jnp.mean(jnp.logaddexp(0.0, -(2 * y - 1) * logits))


def softplus_form(logits, y):
    return (jax.nn.softplus(logits) - y * logits).mean()


def clipped_likelihood(p, y):
    """Minus the mean log-likelihood of probabilities."""
    p = jnp.clip(p, 1e-6, 1 - 1e-6)
    return -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)).mean()


# Classes that exclude each other, as integers or as rows with a single one


def optax_integers(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def picked_log_softmax(logits, labels):
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(log_p, labels[..., None], axis=-1).mean()


def log_sum_exp(logits, labels):
    true = (logits * jax.nn.one_hot(labels, logits.shape[-1])).sum(-1)
    return jnp.mean(jax.scipy.special.logsumexp(logits, axis=-1) - true)


def picked_probability(p, labels):
    own = jnp.sum(p * jax.nn.one_hot(labels, p.shape[-1]), axis=-1)
    return -jnp.mean(jnp.log(own + 1e-7))


def optax_one_hot(logits, targets):
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))


def smoothed(logits, targets):
    """Label smoothing of 0.1 (Szegedy et al. 2016)."""
    soft = optax.smooth_labels(targets, 0.1)
    return -(soft * jax.nn.log_softmax(logits)).sum(-1).mean()


def categorical(p, targets):
    return -jnp.mean(jnp.sum(targets * jnp.log(jnp.clip(p, 1e-7, 1.0)), axis=1))


# Codes


def evidence_bound(outputs, x):
    """Squared error in units of a noise of 0.3, and the divergence from a normal code."""
    made, mean, log_var = outputs
    error = jnp.sum((made - x) ** 2, -1) / (2 * 0.3**2)
    divergence = 0.5 * jnp.sum(jnp.exp(log_var) + mean**2 - 1 - log_var, -1)
    return jnp.mean(error + divergence)


def softmax(logits):
    return jax.nn.softmax(logits, axis=-1)


# For each kind of targets: the loss, and what the network has to end with.
REAL = {
    "mean_squared_error": (mean_squared_error, nothing),
    "optax_squared": (optax_squared, nothing),
    "half_sum_of_squares": (half_sum_of_squares, nothing),
    "huber": (huber, nothing),
}
YES_OR_NO = {
    "optax_logistic": (optax_logistic, nothing),
    "logistic_by_margin": (logistic_by_margin, nothing),
    "softplus_form": (softplus_form, nothing),
    "clipped_likelihood": (clipped_likelihood, jax.nn.sigmoid),
}
INTEGERS = {
    "optax_integers": (optax_integers, nothing),
    "picked_log_softmax": (picked_log_softmax, nothing),
    "log_sum_exp": (log_sum_exp, nothing),
    "picked_probability": (picked_probability, softmax),
}
ONE_HOT = {
    "optax_one_hot": (optax_one_hot, nothing),
    "smoothed": (smoothed, nothing),
    "categorical": (categorical, softmax),
}
CODES = {"evidence_bound": (evidence_bound, nothing)}
PROBABILITIES = ("clipped_likelihood", "picked_probability", "categorical")


# Metrics


def r_squared(outputs, y):
    """The mean over targets of 1 - squared error / variance."""
    return jnp.mean(1 - ((y - outputs) ** 2).mean(0) / (y.var(0) + 1e-12))


def r_squared_of_made(outputs, y):
    return r_squared(outputs[0], y)


def sign_accuracy(outputs, y):
    return jnp.mean((outputs > 0) == (y > 0.5))


def half_accuracy(outputs, y):
    return ((outputs > 0.5) == (y > 0.5)).mean()


def class_accuracy(outputs, labels):
    return (jnp.argmax(outputs, -1) == labels).mean()


def one_hot_accuracy(outputs, targets):
    return jnp.mean(jnp.argmax(outputs, axis=-1) == jnp.argmax(targets, axis=-1))


def chance(kind, y):
    """The metric of the best constant answer."""
    if kind == "regression":
        return 0.0
    if kind in ("multiclass", "next"):
        labels = y.argmax(-1) if y.ndim == 2 and kind == "multiclass" else y
        counts = np.bincount(labels.reshape(-1))
        return float(counts.max() / counts.sum())
    return float(np.maximum(y.mean(0), 1 - y.mean(0)).mean())
