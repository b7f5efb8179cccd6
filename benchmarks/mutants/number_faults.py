"""Faults of arithmetic: numbers at the edge of what they can be, and slopes of something else."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mutants import losses
from benchmarks.mutants.planting import Fault, classes, wired, with_rows

# Numbers at the edge


def unsafe_root(setup, draw):
    """Distances of rows whose targets are unknown: the root's slope at 0 times 0."""
    if setup.data.kind != "regression" or setup.data.outputs < 2 or setup.family == "vae":
        return None

    def loss(o, y, epsilon):
        known = (y[:, :1] > -1.5).astype(o.dtype)  # as if a low value were a missing one
        return jnp.mean(jnp.sqrt(jnp.sum(known * (o - y) ** 2, -1) + epsilon))

    healthy = replace(setup, loss=lambda o, y: loss(o, y, 1e-6))
    return healthy, replace(setup, loss=lambda o, y: loss(o, y, 0.0))


def blank_rows(setup, draw):
    """Each row is divided by its own spread, and a few rows are blank."""
    if setup.data.form not in ("image", "sequence", "table"):
        return None
    if setup.data.form == "table" and setup.source != "digit_table":
        return None

    def change(x, y):
        x = x.copy()
        x[draw.random(len(x)) < 0.01] = 0
        return x, y

    some = with_rows(setup, change, "train")
    if not (some.data.train[0].reshape(len(some.data.train[0]), -1) == 0).all(1).any():
        return None

    def by_row(epsilon):
        def look(x):
            axes = tuple(range(1, x.ndim))
            return (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + epsilon)

        return look

    return replace(some, look=by_row(1e-3)), replace(some, look=by_row(0.0))


def naive_softmax(setup, draw):
    """exp of logits as they are, of inputs that make some of them large."""
    if not classes(setup) or setup.loss_name not in ("optax_integers", "log_sum_exp"):
        return None
    if setup.data.form not in ("table", "image"):
        return None

    def loss(o, y):
        p = jnp.exp(o * 30) / jnp.exp(o * 30).sum(-1, keepdims=True)
        return -jnp.mean(jnp.log(p[jnp.arange(len(y)), y]))

    return replace(setup, loss=lambda o, y: setup.loss(o * 30, y)), replace(setup, loss=loss)


def logarithm_of_outputs(setup, draw):
    """The error of logarithms, of outputs that may be negative."""
    if setup.data.kind != "regression" or setup.data.outputs != 1 or setup.data.form == "codes":
        return None
    healthy = with_rows(setup, lambda x, y: (x, np.exp(y / 2)))
    return healthy, replace(healthy, loss=lambda o, y: jnp.mean((jnp.log1p(o) - jnp.log1p(y)) ** 2))


# Gradients that are not the slope


@jax.custom_vjp
def backward_square(o, y):
    return jnp.mean((o - y) ** 2)


backward_square.defvjp(
    lambda o, y: (backward_square(o, y), (o, y)),
    lambda kept, g: (2 * g * (kept[1] - kept[0]) / kept[0].size, None),
)


def own_loss_gradient(setup, draw):
    """A derivative written by hand, its difference the wrong way round."""
    if setup.data.kind != "regression" or setup.family == "vae":
        return None
    healthy = replace(setup, loss=losses.mean_squared_error, loss_name="mean_squared_error")
    return healthy, replace(healthy, loss=backward_square)


@jax.custom_vjp
def wrong_relu(x):
    return jnp.maximum(x, 0)


wrong_relu.defvjp(lambda x: (wrong_relu(x), x), lambda x, g: (g * (x < 0),))


@jax.custom_vjp
def wrong_tanh(x):
    return jnp.tanh(x)


# The derivative is 1 - y² of the output y; here it is that of the input, which turns its sign.
wrong_tanh.defvjp(lambda x: (wrong_tanh(x), x), lambda x, g: (g * (1 - 4 * x**2),))


def own_relu_gradient(setup, draw):
    if setup.family not in ("mlp", "conv", "bag", "autoencoder", "siamese"):
        return None
    return wired(setup, activation=jax.nn.relu), wired(setup, activation=wrong_relu)


def own_tanh_gradient(setup, draw):
    if setup.family not in ("mlp", "conv", "bag", "autoencoder", "siamese"):
        return None
    return wired(setup, activation=jnp.tanh), wired(setup, activation=wrong_tanh)


NUMBER_FAULTS = [
    Fault("numerical_instability", "root", unsafe_root, where="loss"),
    Fault("numerical_instability", "blank_rows", blank_rows, where="inputs"),
    Fault("numerical_instability", "naive_softmax", naive_softmax, where="loss"),
    Fault(
        "numerical_instability", "logarithm", logarithm_of_outputs, ("loss_mismatch",), where="loss"
    ),
    Fault("wrong_gradient", "loss", own_loss_gradient, ("gradient_ascent",), where="loss"),
    Fault(
        "wrong_gradient", "relu", own_relu_gradient, ("hidden_activation_mismatch",), where="hidden"
    ),
    Fault(
        "wrong_gradient", "tanh", own_tanh_gradient, ("hidden_activation_mismatch",), where="hidden"
    ),
]
