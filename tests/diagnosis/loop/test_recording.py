"""A recorder beside a loop."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from loops import BATCHES, TX, begun, drawn, plain, squares

import nnref
from nnref import UserError


def recorded(step, state, steps=60, **others):
    with nnref.recording(**others) as record:
        for number in range(steps):
            state, loss = step(state, BATCHES[number % 8])
            record(state, loss=loss)
    return record.diagnose()


def healthy(state, batch):
    params, opt_state, loss = plain(*state, *batch)
    return (params, opt_state), loss


def causes(found):
    return [(finding.severity, finding.cause) for finding in found.faults]


def test_a_healthy_loop_has_no_fault_and_its_losses_are_measured():
    found = recorded(healthy, begun())
    assert causes(found) == []
    assert found.measures["steps"] == 60
    assert found.measures["roles"]["0.w1"] == "parameter"


def test_buffers_that_a_step_gives_away_can_be_recorded():
    donated = jax.jit(healthy, donate_argnums=0)
    assert causes(recorded(donated, begun(), every=3)) == []


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (lambda state, batch: (state, healthy(state, batch)[1]), "parameters_not_updated"),
        (lambda s, b: ((healthy(s, b)[0][0], s[1]), healthy(s, b)[1]), "state_not_carried"),
        (lambda s, b: ((s[0], healthy(s, b)[0][1]), healthy(s, b)[1]), "parameters_not_updated"),
        (
            lambda s, b: ((jax.tree.map(lambda p: p / 0, s[0]), s[1]), jnp.float32(1)),
            "numerical_instability",
        ),
    ],
)
def test_what_is_wrong_in_a_recorded_loop(step, cause):
    assert ("fault", cause) in causes(recorded(step, begun()))


def test_a_target_that_stands_for_a_long_time():
    def step(state, batch):
        (params, opt_state), loss = healthy((state["net"], state["opt"]), batch)
        target = optax.incremental_update(params, state["target"], follows)
        return {"net": params, "opt": opt_state, "target": target}, loss

    state = {"net": drawn(), "opt": TX.init(drawn()), "target": drawn()}
    follows = 0.0
    assert causes(recorded(step, state, 220)) == [("fault", "target_stands")]
    follows = 0.05
    assert causes(recorded(step, state, 220)) == []


def test_modules_of_nnx_are_recorded():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)

    def step(model, optimizer, x, y):
        value, gradients = nnx.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.update(model, gradients)
        return value

    for jit, wanted in ((jax.jit, [("fault", "parameters_not_updated")]), (nnx.jit, [])):
        jitted = jit(step)
        assert causes(recorded(lambda s, b, j=jitted: (s, j(*s, *b)), (model, optimizer))) == wanted


def test_validation_that_turns_is_told():
    with nnref.recording() as record:
        for number in range(60):
            record(begun(), loss=1 / (number + 1), valid_loss=1 + (number - 20) ** 2 / 100)
    assert "overfitting" in [note.cause for note in record.diagnose().notes]


@pytest.mark.parametrize(
    ("rate", "cause"), [(1e-7, "learning_rate_too_low"), (-0.01, "gradient_ascent"), (0.05, None)]
)
def test_steps_that_are_recorded_with_their_gradients(rate, cause):
    optimizer, params = optax.sgd(rate), drawn()
    opt_state = optimizer.init(params)
    with nnref.recording() as record:
        for number in range(60):
            loss, gradients = jax.value_and_grad(squares)(params, *BATCHES[number % 8])
            updates, opt_state = optimizer.update(gradients, opt_state)
            params = optax.apply_updates(params, updates)
            record(params, loss=loss, gradients=gradients, updates=updates)
    assert causes(record.diagnose()) == [("fault", cause)] * (cause is not None)


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(UserError, match="trees of different forms"):
        nnref.recording()({}, loss=1.0, gradients={"w": 1.0}, updates=(1.0,))
    with pytest.raises(UserError, match="nothing was recorded"):
        nnref.recording().diagnose()
    with pytest.raises(UserError, match="every is 0; it is a whole number from 1 up"):
        nnref.recording(every=0)


def test_recording_costs_little():
    """The fastest of blocks of steps with and without it, in turns, as others run beside.

    Measured on two idle cores: 1 to 4 % of a step.
    """
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(32, 784)), jnp.float32)

    @jax.jit
    def step(params, opt_state):
        value, slope = jax.value_and_grad(lambda p: jnp.mean((rows @ p["w"] @ p["v"]) ** 2))(params)
        updates, opt_state = TX.update(slope, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    params = {"w": jnp.ones((784, 128)) / 784, "v": jnp.ones((128, 10)) / 128}
    opt_state, record, seconds = TX.init(params), nnref.recording(), {True: [], False: []}
    for number in range(40):
        recorded, begin = bool(number % 2), time.perf_counter()
        for _ in range(50):
            params, opt_state, value = step(params, opt_state)
            if recorded:
                record((params, opt_state), loss=value)
        jax.block_until_ready((params, record.kept[-1:]))
        seconds[recorded].append(time.perf_counter() - begin)
    assert min(seconds[True]) < 1.6 * min(seconds[False])
