"""Shapes that fill a matrix, told from pairs of rows that are meant."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import affine, dense, line_of

from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.birth import birth_of
from nnref.diagnosis.program.broadcasts import broadcasts, promotions
from nnref.diagnosis.program.step import tables
from nnref.diagnosis.recipe import Recipe

HERE = Path(__file__).name
X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
Y = X[:, :1]


def loss_of(params, batch):
    x, y = batch
    return jnp.mean((affine(params, x) - y) ** 2)  # the difference


def contrastive(params, batch):
    x, y = batch
    z = affine(params, x)
    apart = (z - z.T) ** 2
    return jnp.mean(jnp.where(y == y.T, apart, jnp.exp(-apart)))


def started(loss, y):
    return LossAtStart(loss, dense(jax.random.key(0), 3, 1)["dense0"], (X, y), False)


@pytest.mark.parametrize("y", [Y.T, Y[:, 0]])
def test_targets_along_another_axis(y):
    (finding,) = broadcasts(started(loss_of, y))
    assert (finding.severity, finding.cause) == ("fault", "loss_broadcast")
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'the difference')}")
    assert "(30, 1)" in finding.evidence
    assert str(y.shape) in finding.evidence


@pytest.mark.parametrize(("loss", "y"), [(loss_of, Y), (contrastive, Y), (contrastive, Y > 0)])
def test_rows_beside_their_targets_and_pairs_of_rows(loss, y):
    assert list(broadcasts(started(loss, y))) == []


def of_one_class(z, y):
    """Distances of the rows of one class; the mask is written for classes in one axis."""
    apart = jnp.sum((z[:, None] - z[None]) ** 2, -1)
    return jnp.mean(jnp.where(jnp.expand_dims(y, 0) == jnp.expand_dims(y, 1), apart, 0))


def of_one_class_however_given(z, y):
    return of_one_class(z, y.reshape(-1))


def numbered(z, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y, 1))  # of a column alone


def test_classes_as_a_column_make_another_loss_than_in_one_axis():
    classes = (np.arange(30) % 3).astype(np.int32)

    def told(loss, y):
        kernel = dense(jax.random.key(0), 3, 3)["dense0"]
        recipe = Recipe(
            init=lambda key: (kernel, {}),
            apply=lambda params, state, x, key, train: (affine(params, x), state),
            loss=loss,
            train=(X, y),
        )
        return [finding.cause for finding in broadcasts(AtStart(recipe))]

    assert told(of_one_class, classes[:, None]) == ["loss_broadcast"]
    assert told(of_one_class, classes) == []
    assert told(of_one_class_however_given, classes[:, None]) == []
    assert told(numbered, classes[:, None]) == []


def weighed(weights):
    """Squared errors of columns, each times its weight; `weights` of the column of all weights."""

    def loss(params, batch):
        x, y = batch
        outputs = affine(params, x)
        errors = (outputs - y) ** 2
        return jnp.mean(errors * weights(jax.nn.sigmoid(outputs)))  # the weights

    return started(loss, Y)


def test_weights_without_the_axis_of_the_errors_that_they_belong_to():
    """Both sides come of the network, so no data are held against the output of another row."""
    (finding,) = broadcasts(weighed(lambda weights: weights[:, 0]))
    assert (finding.severity, finding.cause) == ("fault", "loss_broadcast")
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'the weights')}")
    assert "(30, 1) and (30,) meet in mul and give (30, 30)" in finding.evidence


def pairs(difference):
    """A loss of all pairs of rows, whose outputs are one number each."""

    def loss(params, batch):
        x, y = batch
        return jnp.mean((difference(affine(params, x)[:, 0]) - difference(y[:, 0])) ** 2)

    return started(loss, Y)


def by_name(a):
    column = a.reshape(-1, 1)
    return column - a


@pytest.mark.parametrize(
    "start",
    [
        weighed(lambda weights: weights),
        weighed(lambda weights: weights.T),
        weighed(lambda weights: weights[:, 0][None]),
        pairs(lambda a: a[:, None] - a[None, :]),
        pairs(lambda a: a[None, :] - a[:, None]),
        pairs(lambda a: a[:, None] - a),
        pairs(lambda a: a - a[:, None]),
        pairs(by_name),
        pairs(lambda a: a[:, None] * jnp.tanh(a)),
        pairs(lambda a: jnp.outer(a, jnp.tanh(a))),
    ],
)
def test_weights_of_one_shape_and_pairs_of_rows_that_are_written(start):
    assert list(promotions(start.training, {30})) == []


STEPS = np.random.default_rng(1).normal(size=(5, 30, 3)).astype(np.float32)


def by_steps(loss):
    """A loss of outputs, (150, 1), and data, (5, 30), of 5 steps of 30 rows."""

    def of_batch(params, batch):
        x, y = batch
        return loss(affine(params, x.reshape(-1, 3)), y)

    params = dense(jax.random.key(0), 3, 1)["dense0"]
    return LossAtStart(of_batch, params, (STEPS, STEPS[..., 0]), False)


def of_returns(values, y):
    returns = y.reshape(-1, 1)
    weights = jax.nn.sigmoid(y).reshape(-1)
    return (weights * (returns - values[:, 0]) ** 2).mean()  # returns against values


def kernel(values, y):
    """The mean of a Gaussian kernel of outputs and data, the distances from a product."""
    other = y.reshape(-1, 1)
    squares = (other**2).reshape(-1, 1)
    norms = (values[:, 0]) ** 2
    return jnp.exp(-(squares + norms - 2 * other @ values.T)).mean()


def hinge(values, y):
    """Each output is to be below each of the data."""
    bounds = y.reshape(-1)[:, None]
    outputs = values[:, 0]
    return jax.nn.relu(outputs - bounds).mean()


def ramp(values, y):
    """Weights of places, which the data have no part in."""
    places = jnp.linspace(0, 1, 150).reshape(-1, 1)
    return (places * values[:, 0]).mean() + y.mean()


def nearest(values, y):
    """The distance of each output to the nearest of the data: not all pairs are summed."""
    column = y.reshape(-1, 1)
    return jnp.abs(column - values[:, 0]).min(0).mean()


def test_a_square_behind_a_reshape_of_steps_and_rows():
    (finding,) = promotions(by_steps(of_returns).training, {5})
    assert (finding.severity, finding.cause) == ("fault", "loss_broadcast")
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'returns against values')}")
    assert "(150, 1) and (150,) meet in sub and give (150, 150)" in finding.evidence


@pytest.mark.parametrize("loss", [kernel, hinge, ramp, nearest])
def test_squares_that_are_meant_behind_a_reshape(loss):
    assert list(promotions(by_steps(loss).training, {5})) == []


def test_a_kernel_of_as_many_rows_as_the_batch_has():
    assert list(promotions(by_steps(kernel).training, {150})) == []


@pytest.mark.parametrize(("words", "causes"), [(9, ["inputs_ignored"]), (5, [])])
def test_a_table_that_is_too_short_in_a_bare_loss(words, causes):
    x = np.arange(20) % words
    start = LossAtStart(lambda p, x: jnp.mean(p[x] ** 2), np.ones((5, 2), np.float32), x, False)
    assert [f.cause for f in tables(start)] == causes


def test_the_operation_that_gives_nan_is_not_the_mask_before_it():
    def masked(x):
        hidden = jnp.where(x > 0, x, -jnp.inf)
        return (0 * jnp.exp(hidden) + jnp.log(x)).sum()

    assert birth_of(masked, np.float32([1.0, -1.0])).operation.name == "log"
    assert birth_of(lambda x: 1 / x, np.float32([0.0])).operation.name == "div"
    assert birth_of(lambda x: x + 1, np.float32([0.0])) is None
