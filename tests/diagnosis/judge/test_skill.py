"""How well outputs do: by a metric of the user, and what counts as a target at all."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import X, Y, linear, recipe_of, task

from nnref.diagnosis.judge.data_checks import constant_targets
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.recipe import Recipe


def test_a_metric_that_any_constant_satisfies_says_nothing_where_rows_meet_in_the_loss():
    def matched(outputs, y):
        return -jnp.mean(jnp.diag(jax.nn.log_softmax(outputs @ y.T)))

    def near(outputs, y):
        return jnp.mean(outputs[:, 0] <= outputs[:, 0].max())  # all are, always

    for loss, fits in ((matched, False), (lambda o, y: jnp.mean((o - y) ** 2), True)):
        measured = Measurements(replace(linear(), loss=loss, metric=near))
        assert measured.skill.fits == fits
        assert bool(measured.skill.metric.refused) == (not fits)


def test_embeddings_of_which_only_distances_count_answer_no_targets():
    """As many outputs as classes, and yet no output is the score of a class."""

    def apart(z, y):
        distance = jnp.sum((z[:, None] - z[None]) ** 2, -1)
        same = (y[:, None] == y[None]) * 1.0
        return jnp.mean(same * distance + (1 - same) * jnp.maximum(4 - distance, 0))

    def cross_entropy(z, y):
        return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()

    y = np.arange(64) % 3
    for loss, fits in ((apart, False), (cross_entropy, True)):
        recipe = Recipe(
            lambda key: ({"w": jax.random.normal(key, (3, 4))}, {}),
            lambda params, state, x, key, train: (x @ params["w"], state),
            loss,
            train=(X[:64], y),
        )
        assert Measurements(recipe).skill.fits == fits


def test_a_metric_of_the_users_is_held_against_what_it_gives_to_constants():
    """Balanced accuracy of one row in eight: a constant has a half, not seven eighths."""
    y = (np.arange(64) % 8 == 0).astype(np.float32)[:, None]
    x = np.concatenate([y, X], 1)

    def balanced(outputs, y):
        right = (outputs > 0) == (y > 0.5)
        return (right[y > 0.5].mean() + right[y < 0.5].mean()) / 2

    recipe = Recipe(
        lambda key: ({"w": jnp.zeros((4, 1)), "b": jnp.zeros(1)}, {}),
        lambda params, state, x, key, train: (x @ params["w"] + params["b"], state),
        lambda outputs, y: optax.sigmoid_binary_cross_entropy(outputs, y).mean(),
        train=(x, y),
        optimizer=optax.adam(0.1),
        kind="binary",
        metric=balanced,
    )
    measured = Measurements(recipe)
    half = {"w": jnp.zeros((4, 1)).at[0].set(2.0), "b": -jnp.ones(1)}
    assert measured.skill.outcome(half, {}).skill == 1
    assert measured.skill.outcome({**half, "w": jnp.zeros((4, 1))}, {}).skill == 0
    assert measured.skill.metric.most_of_constants(np.zeros((64, 1)), y) == 0.5
    assert measured.hardly_predicted == set()
    still = Measurements(replace(recipe, optimizer=optax.sgd(0.0)))
    assert still.hardly_predicted == {1}


def test_rows_are_looked_at_evenly_where_there_are_many():
    x = np.linspace(0, 1, 5000, dtype=np.float32)[:, None]
    made = recipe_of(task())
    recipe = replace(made, train=(x, x), init=lambda key: ({"w": jnp.ones((1, 1))}, {}))
    outputs, y = Measurements(recipe).skill.outputs_at({"w": jnp.ones((1, 1))}, {})
    np.testing.assert_array_equal(outputs, y)
    assert len(y) == 1024
    assert (y[0], y[-1]) == (0, 1)
    goes_on = replace(recipe, restart=lambda params, state: state)
    _, y = Measurements(goes_on).skill.outputs_at({"w": jnp.ones((1, 1))}, {})
    np.testing.assert_array_equal(y, x[:1024])


def product(outputs, y):
    return jnp.mean(outputs * y)


def test_costs_of_one_answer_to_all_rows_are_no_targets():
    """As in Reddi et al. 2018: a linear cost whose sign changes, and inputs that are all one."""
    same = np.ones_like(X)
    assert Measurements(recipe_of(task(loss=product, train=(same, Y)))).skill.costs
    for other in (
        task(loss=product),
        task(train=(same, Y)),
        task(loss=lambda outputs, y: jnp.mean(y), train=(same, Y)),
    ):
        assert not Measurements(recipe_of(other)).skill.costs


def test_a_metric_of_a_tree_of_outputs_is_held_against_the_mean_of_each():
    def two(params, x):
        return x @ params["w"], jnp.ones((len(x), 2))

    def metric(outputs, y):
        return 1 - jnp.mean((outputs[0] - y) ** 2) / jnp.var(y)

    made = task(apply=two, loss=lambda outputs, y: jnp.mean((outputs[0] - y) ** 2))
    recipe = replace(recipe_of(made), metric=metric, optimizer=optax.adam(0.1), epochs=40)
    assert Measurements(recipe).trained.skill > 0.95
    still = replace(recipe, optimizer=optax.sgd(0.0))
    assert Measurements(still).trained.skill < 0.5


def fits(loss, y, width):
    """Whether outputs of so many units count as answers to targets."""
    recipe = Recipe(
        lambda key: ({"w": jax.random.normal(key, (3, width))}, {}),
        lambda params, state, x, key, train: (x @ params["w"], state),
        loss,
        train=(X, y),
    )
    return Measurements(recipe).skill.fits


RETURNS = np.cumsum(np.random.default_rng(2).uniform(size=(64, 3)), 1).astype(np.float32)


def of_all_pairs(outputs, y):
    """Quantiles of drawn returns: each output is held against all that were drawn."""
    errors = y[:, None, :] - outputs[:, :, None]
    quantiles = (jnp.arange(outputs.shape[1]) + 0.5) / outputs.shape[1]
    return jnp.mean(jnp.abs(quantiles[:, None] - (errors < 0)) * jnp.abs(errors))


def test_targets_whose_order_does_not_count_are_not_compared_one_by_one():
    assert not fits(of_all_pairs, RETURNS, 3)
    assert fits(lambda outputs, y: jnp.mean((outputs - y) ** 2), RETURNS, 3)
    alike = np.repeat(RETURNS[:, :1], 3, 1)  # each row one number: there is no order to tell
    assert fits(lambda outputs, y: jnp.mean((outputs - y) ** 2), alike, 3)


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def angle(outputs, y):
    """Of two rotations: a quaternion and its opposite are the same one."""
    product = jnp.abs(jnp.sum(outputs * y, axis=-1))
    return jnp.mean(jnp.arccos(jnp.clip(product, 0, 1 - 1e-6)))


def test_what_costs_the_same_with_either_sign_is_not_compared_one_by_one():
    directions = np.asarray(unit(1 + X @ np.ones((3, 4)) * np.arange(4)), np.float32)
    assert not fits(angle, directions, 4)
    assert fits(lambda outputs, y: jnp.mean((outputs - y) ** 2), directions, 4)
    sparse = directions * (np.arange(len(X)) == len(X) - 1)[:, None]  # of 0 all distances are even
    assert fits(lambda outputs, y: jnp.mean((outputs - y) ** 2), sparse, 4)


def test_the_constant_has_the_length_that_all_outputs_have():
    y = np.asarray(unit(np.c_[np.ones(64), X[:64]]), np.float32)

    def constant_loss(ends):
        recipe = Recipe(
            lambda key: ({"w": jax.random.normal(key, (3, 4))}, {}),
            lambda params, state, x, key, train: (ends(x @ params["w"]), state),
            angle,
            train=(X[:64], y),
        )
        return Measurements(recipe).skill.constant_loss

    assert constant_loss(unit) > 0.2
    assert constant_loss(lambda z: z) < 0.01  # a long one


def test_distances_of_pairs_are_no_scores_of_their_labels():
    """A contrastive loss: pairs of a kind are to be near each other, others apart by 2 or more."""

    def contrastive(distance, y):
        return jnp.mean(y * distance**2 + (1 - y) * jnp.maximum(2 - distance, 0) ** 2)

    same = (Y > 0).astype(np.float32)
    assert not fits(contrastive, same, 1)
    assert fits(lambda outputs, y: optax.sigmoid_binary_cross_entropy(outputs, y).mean(), same, 1)


def test_a_loss_that_grows_with_the_number_of_rows_is_compared_at_one_number():
    """Among n rows at risk one answer for all costs log(n): 512 rows are no worse than 256."""

    def cox(risk, y):
        order = jnp.argsort(-y[:, 0])
        risk, event = risk[order, 0], y[order, 1]
        return jnp.sum((jax.lax.cumlogsumexp(risk) - risk) * event) / jnp.maximum(event.sum(), 1)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3)).astype(np.float32)
    time = rng.exponential(size=600) * np.exp(-2 * x[:, 0])
    y = np.stack([time, rng.uniform(size=600) < 0.7], 1).astype(np.float32)
    recipe = Recipe(
        lambda key: ({"w": jnp.zeros((3, 1))}, {}),
        lambda params, state, x, key, train: (x @ params["w"], state),
        cox,
        train=(x, y),
    )
    skill = Measurements(recipe).skill
    assert not skill.fits
    assert abs(skill.outcome({"w": jnp.zeros((3, 1))}, {}).skill) < 0.05
    assert skill.outcome({"w": jnp.array([[2.0], [0], [0]])}, {}).skill > 0.1
    some = x[:480], y[:480]  # more rows than 256, and fewer than twice as many
    assert abs(skill.outcome({"w": jnp.zeros((3, 1))}, {}, some).skill) < 0.05


def test_a_density_has_no_targets_and_learns_if_its_loss_falls():
    """Zeros stand in for them; it is held against its first answer, and no constant one."""

    def surprise(outputs, y):
        z, log_scale = outputs[:, :2], outputs[:, 2:]
        return jnp.mean(0.5 * jnp.sum(z**2, 1) - jnp.sum(log_scale, 1))

    def apply(params, state, x, key, train):
        scale = jnp.broadcast_to(params["log_scale"], x.shape)
        return jnp.concatenate([(x - params["mean"]) * jnp.exp(scale), scale], 1), state

    x = np.random.default_rng(0).normal([2.0, -1.0], 0.2, (400, 2)).astype(np.float32)
    recipe = Recipe(
        lambda key: ({"mean": jnp.zeros(2), "log_scale": jnp.zeros(2)}, {}),
        apply,
        surprise,
        train=(x, np.zeros(400, np.float32)),
        optimizer=optax.adam(0.05),
        epochs=30,
    )
    measured = Measurements(recipe)
    assert measured.skill.without_targets
    assert list(constant_targets(measured, recipe.train[1])) == []
    assert measured.trained.skill > 0.5
    assert abs(measured.skill.outcome(*measured.initial).skill) < 0.05
    read = Measurements(replace(recipe, loss=lambda o, y: surprise(o, y) + y.mean()))
    assert not read.skill.without_targets
    assert list(constant_targets(read, recipe.train[1]))


def of_a_class(name):
    """A network that names one class whatever it sees, and was trained on classes 0 and 1."""

    def apply(params, state, x, key, train):
        return jnp.zeros((len(x), 3)).at[:, name].set(1.0) + params["w"], state

    def loss(outputs, y):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()

    x, y = np.zeros((40, 2), np.float32), np.arange(40) % 2
    return Recipe(
        lambda key: ({"w": jnp.zeros(3)}, {}), apply, loss, train=(x, y), optimizer=optax.sgd(0.0)
    )


@pytest.mark.parametrize(
    ("asked", "named", "skill"), [(2, 1, 0.0), (2, 2, 1.0), (1, 0, None), (1, 1, None)]
)
def test_rows_of_one_class_are_scored_where_training_never_saw_it(asked, named, skill):
    rows = np.zeros((12, 2), np.float32), np.full(12, asked)
    outcome = Measurements(of_a_class(named)).outcome_on(rows)
    assert (None if outcome is None else outcome.skill) == skill


def test_one_hot_rows_of_one_class_are_targets_that_are_all_the_same():
    recipe = of_a_class(1)
    one_hot = np.eye(3, dtype=np.float32)
    recipe = replace(
        recipe,
        loss=lambda outputs, y: optax.softmax_cross_entropy(outputs, y).mean(),
        train=(recipe.train[0], one_hot[recipe.train[1]]),
    )
    x = np.zeros((12, 2), np.float32)
    assert Measurements(recipe).outcome_on((x, one_hot[np.full(12, 1)])) is None
    outcome = Measurements(recipe).outcome_on((x, one_hot[np.full(12, 2)]))
    assert outcome is not None
    assert outcome.skill == 0
