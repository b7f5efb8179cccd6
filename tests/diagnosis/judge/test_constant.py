"""The best constant answer against closed forms and scipy, in double precision."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import entr

from nnref.diagnosis.judge import constant
from nnref.diagnosis.judge.constant import least_constant_loss

ROWS = 256


def regression(random, scale):
    """Targets of this scale, skewed or not, on an offset or not, one column or more."""
    width = int(random.integers(1, 4))
    draw = random.normal if random.random() < 0.5 else random.standard_exponential
    y = draw(size=(ROWS, width)) + random.choice([0.0, 0.0, 3.0, 100.0])
    return (scale * y).astype(np.float32)


def positive(random, scale):
    return (scale * random.standard_exponential((ROWS, 2))).astype(np.float32)


def flags(random, scale):
    share = random.uniform(0.05, 0.95, int(random.integers(1, 4)))
    return (random.random((ROWS, len(share))) < share).astype(np.float32)


def classes(random, scale):
    return random.choice(7, ROWS, p=random.dirichlet(np.ones(7))).astype(np.int32)


def one_hot(random, scale):
    return np.eye(7, dtype=np.float32)[classes(random, scale)]


def smoothed(random, scale):
    return (0.9 * one_hot(random, scale) + 0.1 / 7).astype(np.float32)


def signs(random, scale):
    return 2 * flags(random, scale) - 1


def masked(random, scale):
    y = regression(random, scale)
    return np.where(random.random(y.shape) < 0.3, np.nan, y).astype(np.float32)


def like(y):
    return np.zeros(y.shape, np.float32)


def seven(y):
    return np.zeros((len(y), 7), np.float32)


def tree(y):
    return {"mean": like(y), "logvar": like(y)}


def entropy(shares):
    return entr(shares).sum(-1).mean()


def huber(error):
    size = np.abs(error)
    return np.where(size < 1, error**2 / 2, size - 0.5)


def least_huber(y):
    """Column by column: it is convex."""
    least = [
        minimize_scalar(
            lambda z, part=part: huber(part - z).mean(),
            bounds=(part.min(), part.max()),
            method="bounded",
            options={"xatol": 1e-9 * float(np.ptp(part))},
        ).fun
        for part in y.T
    ]
    return np.mean(least)


def pinball(z, y):
    return jnp.maximum(0.9 * (y - z), 0.1 * (z - y)).mean()


def least_pinball(y):
    error = y - np.quantile(y, 0.9, axis=0, method="inverted_cdf")
    return np.maximum(0.9 * error, -0.1 * error).mean()


def of_probabilities(p, y):
    return -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)).mean()


def least_logistic(y):
    share = y.mean(0)
    return entropy(np.stack([share, 1 - share], -1))


def least_hinge(y):
    """Piecewise linear: least where it bends, at a margin of 1 on either side."""
    return np.min([np.maximum(1 - z * y, 0).mean(0) for z in (-1, 1)], axis=0).mean()


def gaussian(outputs, y):
    """The negative logarithm of the likelihood, up to a constant."""
    mean, logvar = outputs["mean"], outputs["logvar"]
    return (logvar + (y - mean) ** 2 * jnp.exp(-logvar)).mean() / 2


def of_masked(z, y):
    asked = ~jnp.isnan(y)
    return jnp.where(asked, (z - jnp.where(asked, y, 0)) ** 2, 0).sum() / asked.sum()


def least_masked(y):
    return np.nansum((y - np.nanmean(y, 0)) ** 2) / np.isfinite(y).sum()


def dice(z, y):
    p = jax.nn.sigmoid(z)
    return 1 - 2 * (p * y).sum() / (p + y).sum()


def least_dice(y):
    """Some columns are answered with 1 and the others with 0: which of them is tried."""
    share = y.mean(0)
    tried = np.array(list(product([0.0, 1.0], repeat=len(share))))
    return (1 - 2 * tried @ share / (tried.sum(1) + share.sum())).min()


# By name: targets, outputs, the loss, and the least loss of a constant answer.
LOSSES = {
    "squared": (regression, like, lambda z, y: ((z - y) ** 2).mean(), lambda y: y.var(0).mean()),
    "absolute": (
        regression,
        like,
        lambda z, y: jnp.abs(z - y).mean(),
        lambda y: np.abs(y - np.median(y, 0)).mean(),
    ),
    "huber": (regression, like, lambda z, y: optax.huber_loss(z, y).mean(), least_huber),
    "pinball": (regression, like, pinball, least_pinball),
    "summed": (
        regression,
        like,
        lambda z, y: ((z - y) ** 2).sum(),
        lambda y: y.var(0).sum() * len(y),
    ),
    "masked": (masked, like, of_masked, least_masked),
    "gaussian": (regression, tree, gaussian, lambda y: (np.log(y.var(0)) + 1).mean() / 2),
    "rmsle": (
        positive,
        like,
        lambda z, y: jnp.sqrt(jnp.mean((jnp.log1p(z) - jnp.log1p(y)) ** 2)),
        lambda y: np.sqrt(np.log1p(y).var(0).mean()),
    ),
    "poisson": (
        positive,
        like,
        lambda z, y: (jnp.exp(z) - y * z).mean(),
        lambda y: (y.mean(0) * (1 - np.log(y.mean(0)))).mean(),
    ),
    "logits": (
        flags,
        like,
        lambda z, y: optax.sigmoid_binary_cross_entropy(z, y).mean(),
        least_logistic,
    ),
    "probabilities": (flags, like, of_probabilities, least_logistic),
    "clipped probabilities": (
        flags,
        like,
        lambda p, y: of_probabilities(jnp.clip(p, 1e-6, 1 - 1e-6), y),
        least_logistic,
    ),
    "softmax": (
        classes,
        seven,
        lambda z, y: optax.softmax_cross_entropy_with_integer_labels(z, y).mean(),
        lambda y: entropy(np.bincount(y) / len(y)),
    ),
    "one-hot": (
        one_hot,
        like,
        lambda z, y: optax.softmax_cross_entropy(z, y).mean(),
        lambda y: entropy(y.mean(0)),
    ),
    "smoothed": (
        smoothed,
        like,
        lambda z, y: optax.softmax_cross_entropy(z, y).mean(),
        lambda y: entropy(y.mean(0)),
    ),
    "hinge": (signs, like, lambda z, y: jnp.maximum(1 - z * y, 0).mean(), least_hinge),
    "dice": (flags, like, dice, least_dice),
}
OF_UNIT_SCALE = {flags, classes, one_hot, smoothed, signs}  # there the loss is what is scaled


@pytest.mark.parametrize("name", LOSSES)
def test_least_loss_of_a_constant_answer_over_ten_orders_of_magnitude(name):
    targets, outputs, loss, least = LOSSES[name]
    for draw in range(12):
        random = np.random.default_rng([draw, *map(ord, name)])
        scale = np.float32(10 ** random.uniform(-4, 6))
        y = targets(random, scale)
        factor = scale if targets in OF_UNIT_SCALE else np.float32(1)
        measured = least_constant_loss(lambda z, y, by=factor: by * loss(z, y), outputs(y), y)
        exact = y.astype(np.float64) if y.dtype.kind == "f" else y
        right = float(factor) * float(least(exact))
        assert measured == pytest.approx(right, rel=0.01, abs=1e-8 * float(factor)), (draw, scale)


def test_starts_and_descent_reach_the_answer_without_each_other(monkeypatch):
    """What one of them cannot know, as the units of an unusual loss, the other finds."""
    y = np.float32(152_000 + 3 * np.random.default_rng(0).normal(size=(ROWS, 1)))
    monkeypatch.setattr(constant, "starts_of", lambda y, first: [np.zeros(first.shape)])
    assert least_constant_loss(gaussian, tree(y), y) == pytest.approx(
        LOSSES["gaussian"][3](y), 0.01
    )
    monkeypatch.undo()
    monkeypatch.setattr(constant, "TURNS", 1)
    share = y > 152_000
    least = least_constant_loss(LOSSES["probabilities"][2], like(share), share)
    assert least == pytest.approx(least_logistic(share), 0.01)


def test_outputs_without_rows_and_answers_that_are_never_finite():
    y = np.arange(8, dtype=np.float32)
    outputs = {"each": np.zeros(8, np.float32), "all": np.float32(0)}
    both = lambda z, y: jnp.mean((z["each"] + z["all"] - y) ** 2) + (z["all"] - 3) ** 2  # noqa: E731
    assert least_constant_loss(both, outputs, y) == pytest.approx(y.var(), rel=1e-4)
    assert least_constant_loss(lambda z, y: jnp.log(-(z**2)).sum(), y, y) == np.inf


def test_many_outputs_are_answered_in_the_memory_of_a_few():
    """Images: one descent at a time, from the starts that are best."""
    y = np.random.default_rng(0).random((64, 64, 64, 3)).astype(np.float32)
    squared = LOSSES["squared"][2]
    assert least_constant_loss(squared, like(y), y) == pytest.approx(y.var(0).mean(), rel=1e-4)


def test_outputs_of_one_number_a_row_beside_targets_of_two():
    """A class and a distance, told together; of the distances the mean is best, 4.5 and 8.25."""
    y = np.stack([np.arange(10) % 2, np.arange(10.0)], 1)
    outputs = {"kind": np.zeros((10, 2)), "distance": np.zeros(10)}

    def loss(outputs, y):
        labels = y[:, 0].astype(int)
        kind = optax.softmax_cross_entropy_with_integer_labels(outputs["kind"], labels).mean()
        return kind + jnp.mean((outputs["distance"] - y[:, 1]) ** 2)

    assert least_constant_loss(loss, outputs, y) == pytest.approx(np.log(2) + 8.25, rel=1e-3)
