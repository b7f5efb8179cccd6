"""The traced program of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import BATCHES, TX, begun, drawn, network, plain, squares

from nnref.diagnosis.loop.program import cosine, follows, line_of_function
from nnref.diagnosis.loop.running import Loop


def looped(step, state, count=3):
    loop = Loop([step], state, BATCHES, None, jax.random.key(0), {}, count)
    loop.run()
    return loop


def test_the_loss_is_found_among_other_metrics_and_has_the_gradient_of_jax():
    @jax.jit
    def step(params, opt_state, x, y):
        def loss(params):
            return squares(params, x, y), network(params, x).mean()

        (value, mean), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = TX.update(gradient, opt_state, params)
        metrics = {"a": mean, "b": optax.tree.norm(params), "z": value}
        return optax.apply_updates(params, updates), opt_state, metrics

    loop = looped(step, begun())
    program = loop.programs[0]
    _, gradient = program.loss_of(loop)
    assert program.loss_name(loop) == "0.z"
    weights = {p.removeprefix("0."): leaf for p, leaf in loop.calls[0][1].before.arrays.items()}
    slope = jax.grad(squares)({name: weights[name] for name in drawn()}, *BATCHES[1])
    for name, leaf in slope.items():
        np.testing.assert_allclose(gradient[f"0.{name}"], leaf, rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_not_returned_is_found_where_it_is_computed():
    @jax.jit
    def step(params, opt_state, x, y):
        _, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    loop = looped(step, begun())
    assert loop.programs[0].loss_of(loop) is not None
    assert loop.programs[0].loss_name(loop) is None
    assert "loops.py:" in loop.loss_line()


def test_a_sum_that_is_not_returned_is_the_loss_and_not_the_term_that_is():
    """Of two networks that one loss trains, a metric may be the term of one of them alone."""

    @jax.jit
    def step(params, opt_state, x, y):
        def loss(nets):
            one, two = squares(nets["one"], x, y), squares(nets["two"], x, 1 - y)
            return one + two, two

        (_, two), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, {"two": two}

    nets = {"one": drawn(), "two": drawn(1)}
    loop = looped(step, (nets, TX.init(nets)))
    program = loop.programs[0]
    _, gradient = program.loss_of(loop)
    assert program.loss_name(loop) is None
    assert gradient["0.one.w1"].any()
    assert gradient["0.two.w1"].any()


def test_what_goes_through_a_step_untouched():
    loop = looped(plain, (*begun(),))
    assert not loop.programs[0].passed_on("0.w1")
    kept = looped(lambda state, batch: (state, plain(*state, *batch)[2]), begun())
    assert kept.programs[0].passed_on("0.w1")
    assert "loops.py:" in kept.programs[0].thrown_away(["0.w1"])
    assert line_of_function(plain).split(":")[0].endswith("loops.py")
    assert line_of_function(jnp.sin) == ""


def test_cosines():
    one, other = {"a": np.array([1.0, 0]), "b": np.ones(2)}, {"a": np.array([0, 2.0])}
    assert cosine(one, other) == 0
    assert cosine(one, {"b": -np.ones(2)}) == pytest.approx(-1)
    assert cosine(one, {}) == 0
    apart = {"a": np.ones(2), "b": np.ones(2)}
    assert follows(apart, {"a": np.ones(2), "b": -np.ones(2)}) == pytest.approx(1)


def test_a_metric_that_is_measured_behind_the_update_hides_no_loss():
    """The slope of Adam's root of a moment that is 0 is infinite, and 0 times that is NaN."""

    @jax.jit
    def step(params, opt_state, x, y):
        params, opt_state, value = plain(params, opt_state, jnp.maximum(x, 0) * 0, y)
        return params, opt_state, {"held_out": squares(params, x, y), "loss": value}

    loop = looped(step, begun())
    program = loop.programs[0]
    assert program is not None
    assert program.loss_name(loop) == "0.loss"


def test_a_loss_whose_gradients_are_added_up_is_found_before_any_update():
    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(state["params"], *batch)
        total = jax.tree.map(jnp.add, state["sum"], gradient)
        due = (state["n"] + 1) % 4 == 0
        params = jax.tree.map(lambda p, g: p - due * 0.1 * g, state["params"], total)
        total = jax.tree.map(lambda g: g * (1 - due), total)
        return {"params": params, "sum": total, "n": state["n"] + 1}, value

    state = {"params": drawn(), "sum": jax.tree.map(jnp.zeros_like, drawn()), "n": jnp.int32(0)}
    loop = looped(step, state)
    program = loop.programs[0]
    assert program is not None
    found = program.loss_of(loop)
    assert found is not None
    assert np.any(found[1]["params.w1"])
