"""A loss of parameters and a batch is stepped through by the trainer's own step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import line_of

import nnref
from nnref.diagnosis.program.at_start import LossAtStart
from nnref.diagnosis.run import bare_loss

X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
Y = X[:, :1] - 2 * X[:, 1:2]
KEY = jax.random.key(3)


def init(key):
    return {"w": 0.3 * jax.random.normal(key, (3, 1))}


def bare(params, batch):
    x, y = batch
    return jnp.mean((x @ params["w"] - y) ** 2)


def test_a_bare_loss_is_looked_at_and_says_what_was_not_possible():
    params = init(KEY) | {"unused": jnp.ones(2)}
    found = nnref.diagnose(loss=bare, params=params, batch=(X, Y), optimizer=optax.sgd(0.1))
    assert not found.faults
    assert [(note.cause, note.where) for note in found.notes] == [
        ("parameters_not_updated", "unused")
    ]
    assert any("train=(x, y)" in told for told in found.impossible)


@pytest.mark.parametrize(
    ("loss", "optimizer", "cause"),
    [
        (bare, optax.sgd(100.0), "learning_rate_too_high"),
        (bare, optax.sgd(0.0), "parameters_not_updated"),
        (lambda p, b, key: bare(jax.lax.stop_gradient(p), b), None, "gradient_blocked"),
        (lambda p, b: jnp.sqrt(bare(p, b) * 0), None, "numerical_instability"),
    ],
)
def test_faults_of_a_bare_loss(loss, optimizer, cause):
    found = nnref.diagnose(loss=loss, params=init(KEY), batch=(X, Y), optimizer=optimizer)
    assert [finding.cause for finding in found.faults] == [cause]


def drops_a_layer(params, batch, key):
    x, y = batch
    hidden = jnp.tanh(x @ params["u"])
    hidden = x
    return jnp.mean((hidden @ params["w"] - y) ** 2)


def with_one_draw(params, batch):
    x, y = batch
    return jnp.mean((x @ params["w"] * jax.random.bernoulli(KEY, 0.9, x[:, :1].shape) - y) ** 2)


@pytest.mark.parametrize(
    ("loss", "cause", "severity"),
    [
        (drops_a_layer, "parameters_not_updated", "fault"),
        (with_one_draw, "random_key_reused", "note"),
        (lambda p, b: bare({"w": by_hand(p["w"])}, b), "gradient_ascent", "fault"),
    ],
)
def test_the_program_of_a_bare_loss_is_read(loss, cause, severity):
    params = init(KEY) | ({"u": jnp.ones((3, 3))} if loss is drops_a_layer else {})
    found = nnref.diagnose(loss=loss, params=params, batch=(X, Y), optimizer=optax.sgd(0.01))
    assert (found[0].cause, found[0].severity) == (cause, severity)
    assert Path(__file__).name in found[0].where
    drawn = nnref.diagnose(
        loss=lambda p, b, key: bare(p, (b[0] * jax.random.bernoulli(key, 0.9, X.shape), b[1])),
        params=init(KEY),
        batch=(X, Y),
    )
    assert len(drawn) == 0


@jax.custom_jvp
def by_hand(w):
    return w


@by_hand.defjvp
def _(primals, tangents):
    return primals[0], -tangents[0]


def test_a_bare_loss_is_given_to_an_optimizer_that_looks_at_it():
    found = nnref.diagnose(loss=bare, params=init(KEY), batch=(X, Y), optimizer=optax.lbfgs())
    assert not found.faults


def root_of_nothing(params, batch):
    return bare(params, batch) + jnp.sqrt(0 * params["w"].sum())  # a root of zero


def test_the_line_of_a_bare_loss_that_gives_nan():
    (finding,) = nnref.diagnose(loss=root_of_nothing, params=init(KEY), batch=(X, Y))
    assert finding.cause == "numerical_instability"
    line = line_of(__file__, "a root of zero")
    assert f"{Path(__file__).name}:{line} (" in finding.where


def test_the_steps_are_those_of_a_loop_written_out():
    params, optimizer = init(KEY), optax.adam(0.01)
    steps, _ = bare_loss.steps_of(LossAtStart(bare, params, (X, Y), False), optimizer)
    opt_state = optimizer.init(params)
    for step in range(5):
        loss, gradient = jax.value_and_grad(bare)(params, (X, Y))
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        np.testing.assert_allclose(steps.loss[step], loss, rtol=1e-5)
        np.testing.assert_allclose(
            steps.gradient[step, 0], np.linalg.norm(gradient["w"]), rtol=1e-5
        )
        np.testing.assert_allclose(steps.update[step, 0], np.linalg.norm(updates["w"]), rtol=1e-5)
        params = optax.apply_updates(params, updates)
    assert len(steps.loss) == bare_loss.STEPS


def code_of(reduce):
    """A variational code of 40 columns: the divergence is a sum, the error is reduced."""

    def loss(params, batch, key):
        mean, spread = jnp.split(batch @ params["in"], 2, -1)
        z = mean + jnp.exp(spread / 2) * jax.random.normal(key, mean.shape)
        error = reduce((z @ params["out"] - batch) ** 2, -1).mean()
        divergence = 0.5 * jnp.sum(mean**2 + jnp.exp(spread) - 1 - spread, -1).mean()  # a sum
        return error + divergence

    return loss


@pytest.mark.parametrize(
    ("reduce", "causes"), [(jnp.mean, ["excessive_regularization"]), (jnp.sum, [])]
)
def test_a_term_that_the_steps_serve_alone(reduce, causes):
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 2)) / 2 @ random.normal(size=(2, 40))
    params = {"in": 0.3 * random.normal(size=(40, 8)), "out": 0.3 * random.normal(size=(4, 40))}
    batch, params = jax.tree.map(jnp.float32, (rows, params))
    found = nnref.diagnose(
        loss=code_of(reduce), params=params, batch=batch, optimizer=optax.adam(1e-2)
    )
    assert [finding.cause for finding in found.faults] == causes
    for finding in found.faults:
        assert finding.where.endswith(f":{line_of(__file__, 'a sum')}")


def test_a_task_with_a_bare_loss_keeps_the_names_of_its_arrays():
    batch = {"x": X, "done": (Y[:, 0] > 0).astype(np.float32)}
    task = nnref.Task(
        init=init,
        loss=lambda params, batch: bare(params, (batch[0]["x"], batch[1])),
        train=(batch, Y),
    )
    assert [finding.where.split(";")[0] for finding in nnref.diagnose(task).faults] == ["0.done"]


def sums_first(params, batch):
    x, y = batch
    margin = y * (x @ params["w"])
    return -jax.nn.log_sigmoid(jnp.sum(margin))  # of the whole batch


def each_row_first(params, batch):
    x, y = batch
    return -jnp.mean(jax.nn.log_sigmoid(y * (x @ params["w"])))


def square_of_a_mean(params, batch):
    return bare(params, batch) ** 2


TRUE = {"w": jnp.array([[1.0], [-2], [0]])}


@pytest.mark.parametrize(
    ("loss", "params", "causes"),
    [
        (sums_first, TRUE, ["gradient_blocked"]),  # flat from the first step on
        (sums_first, {"w": -TRUE["w"]}, ["gradient_blocked"]),  # and soon, from the other side
        (each_row_first, TRUE, []),
        (each_row_first, {"w": -TRUE["w"]}, []),
        (bare, TRUE, []),  # at its floor
        (square_of_a_mean, TRUE, []),
    ],
)
def test_a_sum_over_the_batch_that_saturates_a_function_leaves_no_slope(loss, params, causes):
    found = nnref.diagnose(loss=loss, params=params, batch=(X, Y), optimizer=optax.adam(0.1))
    assert [finding.cause for finding in found.faults] == causes
    for finding in found.faults:
        assert finding.where.endswith(f":{line_of(__file__, 'of the whole batch')}")
