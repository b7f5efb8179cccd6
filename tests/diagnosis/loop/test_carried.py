"""What a step changes, and what of it comes back."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from loops import BATCHES, TX, begun, drawn, faults, first, network, plain, squares
from networks import line_of

import nnref

MASKED = optax.chain(
    optax.adam(1e-2),
    optax.masked(optax.set_to_zero(), {"w1": True, "b1": True, "w2": False, "b2": False}),
)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 16, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


def in_place(model, optimizer, x, y):
    value, gradients = nnx.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
    optimizer.update(model, gradients)  # in place
    return value


def modules():
    model = Net(nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)


def test_a_module_changed_under_plain_jit_is_lost_at_its_line():
    found = first(jax.jit(in_place), modules())
    assert found.cause == "parameters_not_updated"
    assert found.where.endswith(f":{line_of(__file__, 'in place') - 0}")
    assert "nnx.jit" in found.remedy


@pytest.mark.parametrize("wrapped", [nnx.jit, lambda step: step])
def test_a_module_changed_under_its_own_jit_or_none_is_healthy(wrapped):
    state = modules()
    before = state[0].hidden.kernel[...].copy()
    assert faults(wrapped(in_place), state) == []
    assert (state[0].hidden.kernel[...] == before).all(), "the user's own module stays as it is"


@jax.jit
def forgets_the_optimizer(params, opt_state, x, y):
    value, gradient = jax.value_and_grad(squares)(params, x, y)
    updates, _ = TX.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


@jax.jit
def begins_anew(params, opt_state, x, y):
    value, gradient = jax.value_and_grad(squares)(params, x, y)
    updates, opt_state = TX.update(gradient, TX.init(params), params)
    return optax.apply_updates(params, updates), opt_state, value


@jax.jit
def returns_no_optimizer(params, opt_state, x, y):
    value, gradient = jax.value_and_grad(squares)(params, x, y)
    updates, _ = TX.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), value


@pytest.mark.parametrize("step", [forgets_the_optimizer, begins_anew, returns_no_optimizer])
def test_an_optimizer_that_does_not_go_on(step):
    assert faults(step, begun()) == ["state_not_carried"]


def test_an_optimizer_without_a_state_has_none_to_carry():
    sgd = optax.sgd(0.1)

    @jax.jit
    def step(params, opt_state, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, _ = sgd.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    assert faults(step, begun(sgd)) == []


@jax.jit
def throws_updates_away(params, opt_state, x, y):
    value, gradient = jax.value_and_grad(squares)(params, x, y)
    updates, opt_state = TX.update(gradient, opt_state, params)
    optax.apply_updates(params, updates)
    return params, opt_state, value


def test_updates_that_are_thrown_away():
    found = first(throws_updates_away, begun())
    assert found.cause == "parameters_not_updated"
    assert "test_carried.py:" in found.where


def test_a_step_that_returns_the_loss_alone():
    found = first(lambda state, batch: plain(*state, *batch)[2], begun())
    assert found.cause == "parameters_not_updated"
    assert "returns no state" in found.evidence


def frozen(optimizer):
    @jax.jit
    def step(params, opt_state, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return step, begun(optimizer)


def test_layers_that_are_frozen_on_purpose_are_no_fault():
    assert faults(*frozen(MASKED)) == []


def test_a_rate_of_0_moves_nothing():
    assert faults(*frozen(optax.adam(0.0))) == ["parameters_not_updated"]


def with_counter(counts):
    def rate(count):
        return 0.1 * 0.99**count

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(state["params"], *batch)
        scaled = jax.tree.map(lambda p, g: p - rate(state["epoch"]) * g, state["params"], gradient)
        return {"params": scaled, "epoch": state["epoch"] + counts}, value

    return step, {"params": drawn(), "epoch": jnp.int32(0)}


def test_a_schedule_whose_counter_stands():
    assert faults(*with_counter(0)) == ["state_not_carried"]
    assert faults(*with_counter(1)) == []


def test_parameters_that_come_back_in_half_the_bits():
    @jax.jit
    def step(params, opt_state, x, y):
        half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
        value, gradient = jax.value_and_grad(squares)(half, x, y)
        updates, opt_state = TX.update(gradient, opt_state, half)
        return optax.apply_updates(half, updates), opt_state, value

    @jax.jit
    def mixed(params, opt_state, x, y):
        def loss(params):
            return squares(jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), x, y)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    assert "precision_lost" in faults(step, begun())
    assert faults(mixed, begun()) == []
    assert len(BATCHES) == 8


@pytest.mark.parametrize(("follows", "causes"), [(0.0, ["state_not_carried"]), (0.1, [])])
def test_parameters_over_which_an_old_copy_is_loaded(follows, causes):
    @jax.jit
    def step(state, batch):
        params, moments, value = plain(state["params"], state["moments"], *batch)
        mean = jax.tree.map(lambda m, p: m + follows * (p - m), state["mean"], params)
        ends = (state["count"] + 1) % 7 == 0
        params = jax.tree.map(lambda p, m: jnp.where(ends, m, p), params, mean)
        state = {"params": params, "moments": moments, "mean": mean, "count": state["count"] + 1}
        return state, value

    params, moments = begun()
    state = {"params": params, "moments": moments, "mean": params, "count": jnp.int32(0)}
    assert faults(step, state) == causes


def two_networks(names, trained):
    """The sum of two networks of one form; the optimizer has those of these names."""

    @jax.jit
    def step(state, x, y):
        nets, opt_state = state
        own = {name: nets[name] for name in trained}

        def loss(own):
            return jnp.mean((sum(network(net, x) for net in {**nets, **own}.values()) - y) ** 2)

        value, gradient = jax.value_and_grad(loss)(own)
        updates, opt_state = TX.update(gradient, opt_state, own)
        moved: dict = optax.apply_updates(own, updates)  # type: ignore
        return (nets | moved, opt_state), value

    nets = {name: drawn(seed) for seed, name in enumerate(names)}
    return step, (nets, TX.init({name: nets[name] for name in trained}))


@pytest.mark.parametrize(
    ("names", "trained", "found"),
    [
        (("left", "right"), ("left",), ["nets.right"]),
        (("left", "right"), ("left", "right"), []),
        (("0", "1"), ("0",), []),  # as layers of one network, of which some are frozen
    ],
)
def test_a_network_that_the_optimizer_was_not_given_is_a_note(names, trained, found):
    step, state = two_networks(names, trained)
    answer = nnref.examine(step, state, BATCHES, effort=0)
    notes = [f for f in answer if "built alike" in f.evidence]
    assert [f.severity for f in notes] == ["note"] * len(found)
    assert not answer.faults
    assert all("right.w1" in f.where and "right.w2" in f.where for f in notes)


def resuming(kept, every=30):
    """A loop that is saved and loaded again every few steps, the optimizer's state too or not."""
    warm = optax.adam(optax.linear_schedule(0.0, 1e-2, 60))

    @jax.jit
    def step(state, x, y):
        params, opt_state, number = state
        again = (number > 0) & (number % every == 0)
        if not kept:
            fresh = warm.init(params)
            opt_state = jax.tree.map(lambda a, b: jnp.where(again, a, b), fresh, opt_state)
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, opt_state = warm.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, number + 1), value

    params = drawn()
    return step, (params, warm.init(params), jnp.int32(0))


@pytest.mark.parametrize(("every", "kept"), [(30, False), (70, False), (30, True)])
def test_an_optimizer_that_begins_again_is_told_by_its_count(every, kept):
    """Also where that is beyond the steps that are looked at one by one."""
    found = faults(*resuming(kept, every))
    assert found == ([] if kept else ["state_not_carried"])


def test_what_counts_pieces_of_a_batch_goes_round():
    optimizer = optax.MultiSteps(optax.adam(1e-2), 4)

    @jax.jit
    def step(params, opt_state, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    params = drawn()
    assert "state_not_carried" not in faults(step, (params, optimizer.init(params)))


def remembering(handed_on):
    """A recurrent step over rows that go on; `handed_on(old, new)` is what the state keeps."""

    def loss(params, memory, x, y):
        new = jnp.tanh(x @ params["w1"] + params["b1"] + 0.5 * memory)
        outputs = new @ params["w2"] + params["b2"]
        return jnp.mean((outputs - y) ** 2), handed_on(memory, new)

    @jax.jit
    def step(state, batch):
        kept = state["memory"] * 0.9
        slope = jax.value_and_grad(loss, has_aux=True)
        (value, memory), gradient = slope(state["params"], kept, *batch)
        updates, opt = TX.update(gradient, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt": opt, "memory": memory}, value

    params, opt = begun()
    return step, {"params": params, "opt": opt, "memory": jnp.zeros((16, 16))}


def test_a_memory_that_is_never_written():
    found = first(*remembering(lambda old, new: old))
    assert found.cause == "inputs_ignored"
    assert "memory is read in each of" in found.evidence
    assert "inputs_ignored" not in faults(*remembering(lambda old, new: jax.lax.stop_gradient(new)))


@pytest.mark.parametrize(
    ("mask", "rate", "cause"),
    [(0.0, 1e-2, "gradient_blocked"), (1.0, 0.0, "parameters_not_updated")],
    ids=["a mask of zeros", "a rate of 0"],
)
def test_updates_of_0_are_those_of_a_loss_of_nothing_or_of_a_rate(mask, rate, cause):
    tx = optax.adam(rate)

    @jax.jit
    def step(state, batch):
        (params, opt_state), (x, y) = state, batch
        weights = mask * jnp.ones_like(y)

        def loss(params):
            error = (network(params, x) - y) ** 2
            return jnp.mean(weights * error)  # of nothing

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    found = first(step, begun(tx))
    assert found.cause == cause
    at = line_of(__file__, "of nothing")
    assert found.where.endswith(f"test_carried.py:{at}") == (cause == "gradient_blocked")
