"""Healthy networks: targets of every kind, a loss that fits them, and a network for these."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import nnref

REGRESSION = ("regression", "values")
NUMBERED = ("multiclass", "classes")
ONE_HOT = ("multiclass", "one-hot")

ROWS = 240
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, 3)).astype(np.float32)
SMOOTH = np.tanh(X[:, :1]) + np.sin(X[:, 1:2])  # between -2 and 2
NUMBER = X[:, :1] + X[:, 1:2]  # its sign and its thirds are classes
CLASSES = np.digitize(NUMBER[:, 0], [-0.6, 0.6])
EACH = np.sign(X) > 0  # a flag for each column
SEQUENCES = np.stack([X[:, :2], X[:, 1:]], 1)  # (rows, 2 places, 2)
PLACES = (SEQUENCES.sum(-1) > 0).astype(int)


def distances(error):
    return lambda o, y: jnp.mean(error(o - y))


def pinball(o, y):
    e = y - o
    return jnp.mean(jnp.maximum(0.8 * e, -0.2 * e))


def three_quantiles(o, y):
    e, tau = y - o, jnp.array([0.2, 0.5, 0.8])
    return jnp.mean(jnp.maximum(tau * e, (tau - 1) * e))


def gaussian(o, y):
    mean, log_deviation = o[:, :1], jnp.clip(o[:, 1:], -3, 3)
    return jnp.mean(0.5 * jnp.square((y - mean) / jnp.exp(log_deviation)) + log_deviation)


def poisson(o, y):
    return jnp.mean(jnp.exp(o) - y * o)


def log_cosh(o, y):
    return jnp.mean(optax.losses.log_cosh(o, jnp.asarray(y, jnp.float32)))


def bce(o, y):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(o, jnp.asarray(y, jnp.float32)))


def bce_of_probabilities(o, y):
    p = jnp.clip(jax.nn.sigmoid(o), 1e-6, 1 - 1e-6)
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


def softmax_of_indices(o, y):
    labels = jnp.asarray(y, jnp.int32).reshape(o.shape[:-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(o, labels))


def softmax_of_rows(o, y):
    return jnp.mean(optax.softmax_cross_entropy(o, jnp.asarray(y, jnp.float32)))


def hinge(o, y):
    return jnp.mean(jnp.maximum(0.0, 1 - y * o))


def against_each_column(o, y):
    return jnp.mean(jnp.square(o - y))


squared, absolute = distances(jnp.square), distances(jnp.abs)
huber = distances(optax.losses.huber_loss)
COUNTS = np.clip(np.round(8 + 4 * SMOOTH), 0, 40)
AGES = np.clip(np.round(40 + 12 * SMOOTH), 18, 65)
RATES = np.clip(np.round(np.exp(1 + 0.7 * SMOOTH)), 0, 40)
RATINGS = np.clip(np.round(3 + SMOOTH), 1, 5)
GREYS = np.round(4 + 2 * np.tanh(X[:, [0, 1, 2, 0]])).reshape(-1, 2, 2, 1)
MASKS = EACH[:, [0, 1, 2, 0]].reshape(-1, 2, 2, 1)
SIGNS = np.where(NUMBER > 0, 1, -1)
EYE = np.eye(3)[CLASSES]
CHANCES = 1 / (1 + np.exp(-NUMBER))
SOFT = np.asarray(jax.nn.softmax(X))

HEALTHY = {  # inputs, targets, loss; the kind of task that it is, and how the targets say so
    "ages, int32, squared": (X, AGES.astype(np.int32), squared, REGRESSION),
    "ages, int8 (N,), absolute": (X, AGES.astype(np.int8)[:, 0], absolute, REGRESSION),
    "counts, uint8, huber": (X, COUNTS.astype(np.uint8), huber, REGRESSION),
    "counts, float64, log-cosh": (X, COUNTS, log_cosh, REGRESSION),
    "counts, int32, poisson": (X, RATES.astype(np.int32), poisson, REGRESSION),
    "counts, int32, quantile": (X, COUNTS.astype(np.int32), pinball, REGRESSION),
    "counts, int32, 3 quantiles": (X, COUNTS.astype(np.int32), three_quantiles, REGRESSION),
    "counts, int32, gaussian": (X, COUNTS.astype(np.int32), gaussian, REGRESSION),
    "ratings, int32, squared": (X, RATINGS.astype(np.int32), squared, REGRESSION),
    "values, float32, squared": (X, SMOOTH.astype(np.float32), squared, REGRESSION),
    "wholes, int32 (N, k), squared": (X, np.round(9 * X).astype(np.int32), squared, REGRESSION),
    "greys, uint8 (N, 2, 2, 1), squared": (X, GREYS.astype(np.uint8), squared, REGRESSION),
    "chances, float32, logits": (X, CHANCES.astype(np.float32), bce, REGRESSION),
    "chances, float32, probabilities": (
        X,
        CHANCES.astype(np.float32),
        bce_of_probabilities,
        REGRESSION,
    ),
    "yes or no, bool, logits": (X, NUMBER > 0, bce, ("binary", "binary")),
    "yes or no, uint8 (N,), probabilities": (
        X,
        (NUMBER[:, 0] > 0).astype(np.uint8),
        bce_of_probabilities,
        ("binary", "binary"),
    ),
    "yes or no, int8, squared": (X, (NUMBER > 0).astype(np.int8), squared, ("binary", "binary")),
    "signs, int8, hinge": (X, SIGNS.astype(np.int8), hinge, ("binary", "values")),
    "signs, float32, squared": (X, SIGNS.astype(np.float32), squared, ("binary", "values")),
    "classes, int32, indices": (X, CLASSES.astype(np.int32), softmax_of_indices, NUMBERED),
    "classes, float32 (N, 1), indices": (
        X,
        CLASSES[:, None].astype(np.float32),
        softmax_of_indices,
        NUMBERED,
    ),
    "one-hot, float32, softmax": (X, EYE.astype(np.float32), softmax_of_rows, ONE_HOT),
    "one-hot, int8, squared": (X, EYE.astype(np.int8), squared, ONE_HOT),
    "one-hot, bool, softmax": (X, EYE > 0, softmax_of_rows, ONE_HOT),
    "soft labels, float32, softmax": (X, SOFT, softmax_of_rows, ONE_HOT),
    "soft labels, float32, squared": (X, SOFT, squared, REGRESSION),
    "flags, bool (N, k), logits": (X, EACH, bce, ("multilabel", "flags")),
    "masks, uint8 (N, 2, 2, 1), logits": (X, MASKS.astype(np.uint8), bce, ("multilabel", "binary")),
    "places, int32 (N, T)": (
        SEQUENCES,
        PLACES.astype(np.int32),
        softmax_of_indices,
        ("places", "classes"),
    ),
    "places, one-hot (N, T, k)": (
        SEQUENCES,
        np.eye(2)[PLACES].astype(np.float32),
        softmax_of_rows,
        ("places", "one-hot"),
    ),
}
# Units of the last layer, where the loss wants others than the targets have.
WIDTHS = {softmax_of_indices: 3, three_quantiles: 3, gaussian: 2, against_each_column: 3}


def task(x, y, loss, valid=True):
    """A multilayer perceptron with outputs of the shape that the loss wants."""
    shape = y.shape[1:]
    if loss in WIDTHS:
        shape = (2, 2) if x.ndim == 3 else (WIDTHS[loss],)
    width = int(np.prod(shape, dtype=int))
    if x.ndim == 3:
        width //= x.shape[1]  # the same layers at each place

    def init(key):
        first, second = jax.random.split(key)
        return {
            "a": jax.nn.initializers.he_normal()(first, (x.shape[-1], 32)),
            "b": jnp.zeros(32),
            "c": jax.nn.initializers.lecun_normal()(second, (32, width)),
            "d": jnp.zeros(width),
        }

    def apply(p, x):
        outputs = jax.nn.relu(x @ p["a"] + p["b"]) @ p["c"] + p["d"]
        return outputs.reshape(len(x), *shape)

    kept = slice(0, 180), slice(180, None)
    train, held = [(x[rows], y[rows]) for rows in kept]
    return nnref.Task(init=init, apply=apply, loss=loss, train=train, valid=held if valid else None)
