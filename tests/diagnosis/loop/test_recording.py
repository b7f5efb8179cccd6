"""A recorder beside a loop."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from loops import BATCHES, TX, begun, drawn, plain

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


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(UserError, match="nothing was recorded"):
        nnref.recording().diagnose()
    with pytest.raises(UserError, match="every is 0; it is a whole number from 1 up"):
        nnref.recording(every=0)


def test_recording_costs_little():
    """Measured: 1.7 % of the steps of a small MLP on a busy core; medians, as others run beside."""
    x, y = (np.concatenate([part] * 8) for part in BATCHES[0])
    record, (params, opt_state) = nnref.recording(), begun()
    steps, calls, kept = [], [], []
    for _ in range(1000):
        at = time.perf_counter()
        params, opt_state, value = plain(params, opt_state, x, y)
        jax.block_until_ready(value)
        stepped = time.perf_counter()
        due = record.calls % record.every == 0
        record((params, opt_state), loss=value)
        jax.block_until_ready(record.kept[-1])
        (kept if due else calls).append(time.perf_counter() - stepped)
        steps.append(stepped - at)
    assert (9 * np.median(calls) + np.median(kept)) / 10 < 0.15 * np.median(steps)
