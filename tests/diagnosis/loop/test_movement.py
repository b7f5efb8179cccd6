"""Which way the steps go, and how far."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import BATCHES, TX, X, Y, begun, drawn, faults, first, network, squares
from networks import line_of

import nnref


def stepping(optimizer, loss=squares, sign=1.0, name=None):
    @jax.jit
    def step(params, opt_state, x, y):
        value, gradient = jax.value_and_grad(loss)(params, x, y)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = jax.tree.map(lambda p, u: p + sign * u, params, updates)
        return params, opt_state, {name: value} if name else value

    return step, begun(optimizer)


def test_updates_that_are_subtracted_once_more():
    assert "gradient_ascent" in faults(*stepping(optax.adam(1e-2), sign=-1.0))
    assert faults(*stepping(optax.adam(1e-2))) == []


def test_what_is_called_a_score_is_meant_to_rise():
    def score(params, x, y):
        return 1 / (1 + squares(params, x, y))

    assert faults(*stepping(optax.adam(1e-2), score, sign=-1.0, name="score")) == []


def test_a_mask_that_hands_raw_gradients_through_names_what_climbs():
    mask = {"w1": False, "b1": False, "w2": True, "b2": True}
    found = first(*stepping(optax.masked(optax.sgd(1e-2), mask)))
    assert found.cause == "gradient_ascent"
    assert "w1" in found.where
    assert "multi_transform" in found.remedy


@pytest.mark.parametrize("better", [True, False])
def test_a_loss_that_climbs_is_no_fault_where_the_evaluation_gets_better(better):
    """A loss of another scale each time, as that of a policy which earns more."""
    step, state = stepping(optax.adam(1e-2))
    count = iter(range(10**6))

    def counted(state, batch):
        *after, value = step(*state, *batch)
        return tuple(after), value * 1.2 ** next(count)

    def error(state):
        """Mean squared error."""
        return float(squares(state[0] if better else begun()[0], *BATCHES[0]))

    found = nnref.examine(counted, state, BATCHES, error, effort=0).found
    (climbs,) = [f for f in found if f.cause == "learning_rate_too_high"]
    assert (climbs.severity == "note") == better


def test_a_gradient_that_is_nothing_but_rounding_climbs_nowhere():
    def loss(params, x, y):
        return squares(params | {"b2": 0.0}, x, y) + 1e-8 * params["b2"].sum()

    mask = {"w1": True, "b1": True, "w2": True, "b2": False}
    assert faults(*stepping(optax.masked(optax.sgd(1e-2), mask), loss)) == []


def test_a_schedule_that_counts_epochs_fades_before_the_run_is_over():
    fast = optax.adam(optax.linear_schedule(1e-2, 0.0, 5))
    slow = optax.adam(optax.linear_schedule(1e-2, 0.0, 40))
    assert faults(*stepping(fast)) == ["learning_rate_too_low"]
    assert faults(*stepping(slow)) == []
    steps = optax.adam(optax.exponential_decay(1e-2, 10, 0.1, staircase=True))  # ends behind 40
    assert faults(*stepping(steps)) == ["learning_rate_too_low"]
    gentle = optax.adam(optax.exponential_decay(1e-2, 10, 0.7, staircase=True))
    assert faults(*stepping(gentle)) == []


def accumulating(inside=1, behind: int | str = 1, told=1):
    """The gradients of four batches, each divided by one number and their sum by another."""

    @jax.jit
    def step(params, batch):
        def one(total, part):
            loss, gradient = jax.value_and_grad(squares)(params, *part)
            return jax.tree.map(lambda t, g: t + g / inside, total, gradient), loss / told

        zeros = jax.tree.map(jnp.zeros_like, params)
        total, losses = jax.lax.scan(one, zeros, batch)
        by = len(batch[0]) if isinstance(behind, str) else behind
        return jax.tree.map(lambda p, g: p - 0.02 * g / by, params, total), losses.sum()

    return step, drawn(), [(X.reshape(2, 4, 16, 2)[i], Y.reshape(2, 4, 16, 1)[i]) for i in (0, 1)]


def test_accumulated_batches_that_are_summed():
    assert faults(*accumulating()) == ["loss_summed_over_batch"]
    assert faults(*accumulating(behind="their number")) == []


def test_accumulated_batches_that_are_divided_by_a_number_of_the_program():
    assert faults(*accumulating(behind=4)) == []
    assert faults(*accumulating(inside=4)) == []
    assert faults(*accumulating(told=4)) == ["loss_summed_over_batch"]  # the loss that is told
    assert faults(*accumulating(behind=3)) == ["loss_summed_over_batch"]  # another number


def test_a_rate_that_is_far_too_high():
    assert "learning_rate_too_high" in faults(*stepping(optax.sgd(3.0)))


def test_a_number_that_is_not_finite_is_named_with_its_line():
    def entropy(params, x, y):
        return -jnp.mean(jnp.log(jnp.maximum(network(params, x) * 0, 0)))  # a logarithm of 0

    def guarded(params, x, y):
        return -jnp.mean(jnp.log(jax.nn.sigmoid(network(params, x)) + 1e-6))

    found = first(*stepping(optax.adam(1e-2), entropy))
    assert found.cause == "numerical_instability"
    assert "test_movement.py:" in found.where
    assert faults(*stepping(optax.adam(1e-2), guarded)) == []


@pytest.mark.parametrize(("rate", "cause"), [(1e-10, ["learning_rate_too_low"]), (1e-3, [])])
def test_steps_that_are_too_short(rate, cause):
    assert faults(*stepping(optax.sgd(rate))) == cause


def scaled(clips_first):
    """A step with a loss scale, which is divided by before a clip, or after it."""
    scale = 2.0**13

    def within(gradient, limit):
        length = optax.tree.norm(gradient)
        factor = jnp.minimum(1.0, limit / length)  # of the clip
        return jax.tree.map(lambda g: g * factor, gradient)

    @jax.jit
    def step(params, x, y):
        value, gradient = jax.value_and_grad(lambda p: scale * squares(p, x, y))(params)
        if clips_first:
            gradient = within(gradient, 1.0)
        gradient = jax.tree.map(lambda g: g / scale, gradient)
        if not clips_first:
            gradient = within(gradient, 1.0)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), value / scale

    return step, drawn()


def test_a_clip_before_the_loss_scale_is_gone_leaves_next_to_nothing():
    found = first(*scaled(clips_first=True))
    assert found.cause == "learning_rate_too_low"
    assert found.where.endswith(f"test_movement.py:{line_of(__file__, 'of the clip')}")
    assert "times as long it goes to" in found.evidence
    assert faults(*scaled(clips_first=False)) == []


def test_short_updates_of_a_loss_that_longer_ones_would_not_lower_are_no_fault():
    def noise(params, x, y):
        return 1 + 1e-3 * squares(params, x, y)

    assert faults(*stepping(optax.sgd(0.05), noise)) == []


@pytest.mark.parametrize(("order", "causes"), [((1, 0), ["wrong_gradient"]), ((0, 1), [])])
def test_gradients_in_another_order_than_the_parameters(order, causes):
    """Two tables of one shape, whose gradients argnums gives in an order of its own."""
    draw = np.random.default_rng(0)
    one, two = (draw.normal(size=(12, 4)).astype(np.float32) for _ in range(2))
    optimizer = optax.adam(1e-2)

    def loss(a, b, i, j, mark):
        return jnp.mean((jnp.sum(a[i] * b[j], 1) - mark) ** 2)

    @jax.jit
    def step(state, batch):
        (a, b), moments = state
        gradients = jax.grad(loss, argnums=order)(a, b, *batch)
        updates, moments = optimizer.update(tuple(gradients), moments)
        return (optax.apply_updates((a, b), updates), moments), loss(a, b, *batch)

    def batches(number):
        i, j = np.random.default_rng(number).integers(0, 12, (2, 16))
        return i, j, np.sum(one[i] * two[j], 1)

    start = tuple(map(jnp.asarray, draw.normal(size=(2, 12, 4)).astype(np.float32)))
    assert faults(step, (start, optimizer.init(start)), batches) == causes


@pytest.mark.parametrize(
    ("counts", "causes"), [("batches", ["learning_rate_too_low"]), ("updates", [])]
)
def test_a_schedule_in_updates_whose_counter_counts_batches(counts, causes):
    """Eight batches make an update; the schedule is over after 25 updates, or 25 batches."""
    schedule = optax.linear_schedule(1e-2, 1e-2 if counts == "updates" else 0.0, 120)
    inner = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    optimizer = optax.MultiSteps(inner, every_k_schedule=8)

    @jax.jit
    def step(state, batch):
        params, moments, count = state
        value, gradient = jax.value_and_grad(squares)(params, *batch)
        moments.inner_opt_state.hyperparams["learning_rate"] = schedule(count)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments, count + 1), value

    state = drawn(), optimizer.init(drawn()), jnp.int32(0)
    assert faults(step, state, BATCHES) == causes


HOLED = [(x, np.where(y > 0.8, np.nan, y)) for x, y in BATCHES]


def over_holes(loss):
    """A step of a loss of errors and of what is known."""

    @jax.jit
    def step(params, moments, x, y):
        def value(params):
            return loss(network(params, x) - y, ~jnp.isnan(y))

        value, gradient = jax.value_and_grad(value)(params)
        updates, moments = TX.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    return step


def test_nan_of_a_batch_is_followed_to_the_product_that_should_mask_it():
    multiplied = over_holes(lambda error, known: jnp.sum(error**2 * known) / known.sum())
    found = first(multiplied, begun(), HOLED)
    assert found.cause == "nonfinite_data"
    assert "test_movement.py" in found.where
    assert "jnp.where(mask, error, 0)" in found.remedy
    found = first(over_holes(lambda error, known: jnp.mean(error**2)), begun(), HOLED)
    assert found.cause == "nonfinite_data"
    assert found.where.startswith("batch ")
    selected = over_holes(lambda error, known: jnp.mean(jnp.where(known, error, 0) ** 2))
    assert faults(selected, begun(), HOLED, effort=0.1) == []
