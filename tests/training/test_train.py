"""The training program, held against plain Python loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fits import built, fitted, plan_of

from nnref.experiment.claims import Stop
from nnref.training import train
from nnref.training.task import Functions


def plain_loop(experiment, task, setup, seed):
    """The same training, a step at a time, without scan, vmap or chunks."""
    functions, optimizer = setup(experiment.hyperparameters)
    plan = plan_of(experiment)
    data = {"train": task.train, "valid": task.valid}
    state, _ = train.start(setup, plan, experiment.hyperparameters, seed, data)
    x, y = task.train
    step = jax.jit(partial(train.train_step, functions, optimizer))
    losses, valid = [], []
    for epoch in range(1, plan.epochs + 1):
        key = jax.random.fold_in(state.key, epoch)
        order = np.asarray(jax.random.permutation(key, len(x)))
        total = 0.0
        for number, first in enumerate(range(0, len(x), plan.batch_size), 1):
            rows = order[first : first + plan.batch_size]
            state, sums = step(state, x[rows], y[rows], jax.random.fold_in(key, number))
            total += float(sums["loss"])
        losses.append(total / len(x))
        outputs, _ = functions.apply(state.params, state.model_state, task.valid.x, None, False)
        valid.append(float(functions.loss(outputs, task.valid.y)))
    return np.array(losses), np.array(valid), state


@pytest.fixture(scope="module")
def small():
    return built()


def test_scanned_epochs_equal_a_plain_loop(small):
    experiment, task, setup = small
    assert len(task.train.x) % experiment.batch_size, "the last batch must be a shorter one"
    history, chunks = fitted(experiment, task, setup)
    losses, valid, state = plain_loop(experiment, task, setup, 0)
    # float32 sums in another order: a few units in the last place, grown over 36 Adam steps.
    np.testing.assert_allclose(history["train_loss"][1:, 0], losses, rtol=1e-5)
    np.testing.assert_allclose(history["valid_loss"][1:, 0], valid, rtol=1e-5)
    for scanned, plain in zip(
        jax.tree.leaves(chunks[-1].states.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_allclose(scanned[0], plain, rtol=1e-4, atol=1e-6)


def test_every_example_is_seen_once_an_epoch():
    """The last, shorter batch too: with a loss that adds up the inputs, nothing is missing."""
    x = jnp.arange(1.0, 12.0)[:, None]

    def functions(numbers):
        return Functions(
            init=lambda key: ({"w": jnp.zeros(())}, {}),
            apply=lambda params, state, x, key, training: (x + 0 * params["w"], state),
            loss=lambda outputs, y: jnp.mean(outputs),
        ), optax.sgd(0.0)

    state, _ = train.start(functions, train.Plan(4, 1), {}, 0, {})
    _, row = train.train_epoch(*functions({}), state, (x, x), jnp.int32(1), 4)
    assert float(row["train_loss"]) == pytest.approx(x.mean())


def test_a_carried_state_goes_from_batch_to_batch_and_starts_anew():
    """Outputs are the sum of all rows before: of this split alone, in training and evaluation."""
    x = jnp.arange(1.0, 7.0)[:, None]

    def apply(params, state, x, key, training):
        seen = state + jnp.sum(x)
        return state + 0 * params["w"] + 0 * x, seen

    def functions(numbers):
        return Functions(
            init=lambda key: ({"w": jnp.zeros(())}, jnp.float32(100)),
            apply=apply,
            loss=lambda outputs, y: jnp.mean(outputs),
            restart=lambda params, state: jnp.zeros_like(state),
        ), optax.sgd(0.0)

    plan, data = train.Plan(2, 2, shuffle=False), {"train": (x, x), "valid": (x[:4], x[:4])}
    before = (0 + (1 + 2) + (1 + 2 + 3 + 4)) / 3
    state, row = train.start(functions, plan, {}, 0, data)
    assert float(row["train_loss"]) == pytest.approx(before)
    for epoch in (1, 2):
        state, row = train.one_epoch(functions, plan, {}, state, data, jnp.int32(epoch))
        assert float(row["train_loss"]) == pytest.approx(before)
        assert float(row["valid_loss"]) == pytest.approx((0 + 3) / 2)
        assert float(state.model_state) == 21, "validation leaves the state of training alone"


@pytest.mark.parametrize("rows", [1, 3, 8, 11, 16])
def test_evaluation_is_exact_at_any_batch_size(small, rows):
    experiment, task, setup = small
    functions, _ = setup(experiment.hyperparameters)
    params, model_state = functions.init(jax.random.key(3))
    whole = train.evaluate(functions, params, model_state, task.valid, "valid", 10_000)
    parts = train.evaluate(functions, params, model_state, task.valid, "valid", rows)
    assert whole.keys() == parts.keys() == {"valid_loss", "valid_accuracy"}
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6)


def test_validation_comes_every_so_many_epochs_and_at_the_end():
    history, _ = fitted(*built(evaluate_every=4))
    measured = ~np.isnan(history["valid_loss"][:, 0])
    assert np.flatnonzero(measured).tolist() == [0, 4, 6]
    every, _ = fitted(*built())
    np.testing.assert_allclose(
        history["valid_loss"][measured], every["valid_loss"][measured], rtol=1e-6
    )


def test_a_run_without_validation_data_has_only_training_measures():
    history, _ = fitted(*built(data={"name": "spirals", "points": 20, "valid": 0, "test": 0}))
    assert set(history) == {"train_loss", "train_accuracy"}


# --- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "figures", "stops_at"),
    [
        (Stop(at_most=0.5), [0.9, 0.6, 0.5, 0.1], 3),
        (Stop(metric="valid_accuracy", at_least=0.9), [0.1, 0.95], 2),
        (Stop(patience=2), [0.9, 0.5, 0.6, 0.7, 0.1], 4),
        (Stop(patience=2), [0.9, 0.5, float("nan"), 0.6, 0.4, 0.5], None),
        (Stop(metric="valid_accuracy", patience=1), [0.5, 0.6, 0.6], 3),
        (Stop(patience=3, at_most=0.2), [0.5, 0.2], 2),
    ],
)
def test_when_a_run_stops(stop, figures, stops_at):
    rising = stop.metric.endswith("accuracy")
    state = train.TrainState(
        {}, {}, {}, None, None, jnp.float32(-jnp.inf if rising else jnp.inf), jnp.int32(0), None
    )
    stopped = None
    for number, figure in enumerate(figures, 1):
        done, best, waited = train.should_stop(stop, state, jnp.float32(figure), not rising)
        state = state._replace(best=best, waited=waited)
        if done and stopped is None:
            stopped = number
    assert stopped == stops_at


def test_a_step_moves_against_the_gradient():
    """On a quadratic, one step of plain descent is known in closed form."""
    functions = Functions(
        init=lambda key: ({"w": jnp.float32(3.0)}, {}),
        apply=lambda params, state, x, key, training: (params["w"] * x, state),
        loss=lambda outputs, y: jnp.mean(jnp.square(outputs - y)),
    )
    state, _ = train.start(lambda numbers: (functions, optax.sgd(0.1)), train.Plan(2, 1), {}, 0, {})
    x, y = jnp.array([[1.0], [2.0]]), jnp.array([[2.0], [4.0]])
    after, sums = train.train_step(functions, optax.sgd(0.1), state, x, y, None)
    # dl/dw = mean 2 x (w x - y) = (2*1*1 + 2*2*2) / 2 = 5
    assert float(after.params["w"]) == pytest.approx(3.0 - 0.1 * 5.0)
    assert float(sums["loss"]) == pytest.approx(2 * (1 + 4) / 2)
