"""Small networks and data that the tests of the diagnosis share."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import nnref
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.recipe import Recipe

BITS = (np.arange(12) % 2).astype(np.float32).reshape(-1, 1)


def line_of(file, text):
    """The line of a file that holds a text, and nothing else of it."""
    with open(file) as lines:
        return 1 + [line.split("#")[-1].strip() for line in lines].index(text)


def dense(key, *sizes):
    keys = jax.random.split(key, len(sizes))
    return {
        f"dense{i}": {
            "kernel": jax.random.normal(keys[i], (sizes[i], sizes[i + 1])) / sizes[i] ** 0.5,
            "bias": jnp.zeros(sizes[i + 1]),
        }
        for i in range(len(sizes) - 1)
    }


def affine(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def mean_squared_error(outputs, y):
    return jnp.mean((outputs - y) ** 2)


def recipe(network, sizes=(3, 5, 2), *, y=None, loss=mean_squared_error, rows=12, **others):
    """A network of parameters and rows, without state, key or modes."""
    x = np.random.default_rng(0).normal(size=(rows, sizes[0])).astype(np.float32)
    if y is None:
        y = np.tanh(x @ np.ones((sizes[0], sizes[-1]), np.float32))
    return Recipe(
        init=lambda key: (dense(key, *sizes), {}),
        apply=lambda params, state, x, key, train: (network(params, x), state),
        loss=loss,
        train=(x, y),
        **others,
    )


def learns(params, x):
    return affine(params["dense1"], jax.nn.relu(affine(params["dense0"], x)))


def softmax_cross_entropy(logits, y):
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), -1))


def binary_cross_entropy(p, y):
    p = jnp.clip(p, 1e-7, 1 - 1e-7)
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


def ends_in(activation):
    return lambda params, x: activation(learns(params, x))


def identity(z):
    return z


def ends(activation, y, loss, width=None, **others):
    width = width or (y.shape[-1] if y.ndim > 1 else 1)
    return recipe(ends_in(activation), (3, 5, width), y=y, loss=loss, **others)


def judged(check, asked):
    """Causes of the faults and notes of one check."""
    found = check(AtStart(asked))
    return [(finding.severity, finding.cause) for finding in found]


# --- a linear map of three columns, as a user writes it down -------------------------------------


X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
Y = X[:, :1] - 2 * X[:, 1:2]
KEY = jax.random.key(3)


def init(key):
    return {"w": 0.3 * jax.random.normal(key, (3, 1))}


def apply(params, x):
    return x @ params["w"]


def squared(outputs, y):
    return (outputs - y) ** 2


def task(**changes):
    return nnref.Task(**{"init": init, "apply": apply, "loss": squared, "train": (X, Y)} | changes)


def recipe_of(task):
    init, apply, loss, *_ = task.functions
    return Recipe(init, apply, loss, train=task.train, optimizer=optax.adam(0.1))


def linear():
    """The same, with plain gradient descent, as what the checks look at."""
    return replace(recipe_of(task()), optimizer=optax.sgd(0.05), epochs=5)


class LinenNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)
