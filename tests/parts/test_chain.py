"""The chain of a step: its order, what is off, decay, projection and averages."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles.noisy_quadratic import (
    STEPS,
)

from nnref.errors import UserError
from nnref.parts.chain import chain, evaluation_params
from nnref.parts.clipping import global_norm
from nnref.parts.optimizers import OPTIMIZERS
from nnref.parts.schedules import constant, warmup

# --- the programs that the tests share ------------------------------------------------------------


# Hundreds of small programs: compiling them fast matters more than running them fast.
fast = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}


def jitted(function):
    return jax.jit(function, compiler_options=fast)


# --- against the papers' equations, in NumPy ------------------------------------------------------


def sgd(g, theta, alpha, *, momentum, dampening, nesterov):
    m = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta) * (1 - (dampening or 0))
        m = momentum * m + d
        theta = theta - alpha * (d + momentum * m if nesterov else m)
        yield theta


def told(case):
    name, arguments = case
    return f"{name}({','.join(f'{k}={v}' for k, v in arguments.items())})"


# --- conventions and limits -----------------------------------------------------------------------


def test_decay_is_decoupled_and_spares_biases():
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0])}
    nothing = jax.tree.map(jnp.zeros_like, params)
    half = lambda progress: jnp.float32(0.5)  # noqa: E731

    def after(everything, name="sgd"):
        optimizer = OPTIMIZERS[name](learning_rate=0.1)
        step = chain(optimizer, half, 1, 1, weight_decay=0.4, decay_everything=everything)
        updates, _ = jitted(step.update)(nothing, step.init(params), params)
        return jax.tree.map(np.add, params, updates)

    for name in ("sgd", "adam"):
        np.testing.assert_allclose(after(False, name)["kernel"], [[0.98, -1.96]], rtol=1e-6)
        np.testing.assert_allclose(after(False, name)["bias"], [3.0])
        np.testing.assert_allclose(after(True, name)["bias"], [2.94], rtol=1e-6)


# --- properties of all members at once ------------------------------------------------------------


def test_jit_compiles_a_chain_once_and_takes_the_state_away():
    traced = []
    schedule = partial(warmup, warmup_steps=2, then=constant)

    def step_of(numbers):
        return chain(OPTIMIZERS["schedule_free_adamw"](**numbers), schedule, 9, 3, global_norm())

    @partial(jax.jit, donate_argnums=(1, 2))
    def step(numbers, params, state):
        traced.append(1)
        updates, state = step_of(numbers).update(params, state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.ones((2, 3))}
    state = step_of({}).init(params)  # not jitted: its arrays must be its own all the same
    for rate in (0.1, 0.2, 0.3):
        params, state = step({"learning_rate": rate}, params, state)
    assert len(traced) == 1
    assert np.all(np.asarray(params["kernel"]) < 1)


# --- the chain ------------------------------------------------------------------------------------


def primitives(step, params):
    jaxpr = jax.make_jaxpr(lambda g, s, p: step.update(g, s, p))(params, step.init(params), params)
    return [str(equation.primitive) for equation in jaxpr.eqns]


def test_what_is_off_is_not_in_the_program():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    plain = primitives(chain(OPTIMIZERS["sgd"](), constant, 10, 5), params)
    by_hand = optax.chain(optax.trace(0.9), optax.scale_by_schedule(lambda step: -0.1))
    assert len(plain) <= len(primitives(by_hand, params))
    assert set(plain) <= {"mul", "add", "neg", "broadcast_in_dim"}
    for on in ({"weight_decay": 0.0}, {"projection": into_unit_box()}):
        assert len(primitives(chain(OPTIMIZERS["sgd"](), constant, 10, 5, **on), params)) > len(
            plain
        )


def test_order_of_the_chain():
    """Terms, clip, direction, decay, rate, minus: each seen through the ones after it."""
    params, grads = {"kernel": jnp.full((1, 1), 2.0)}, {"kernel": jnp.full((1, 1), 5.0)}
    l2 = optax.add_decayed_weights(10.0)  # 5 + 20, clipped to 1
    sgd = OPTIMIZERS["sgd"](learning_rate=0.1, momentum=0.9)
    quarter = lambda progress: jnp.float32(0.25)  # noqa: E731
    step = chain(sgd, quarter, 9, 3, l2, global_norm(threshold=1.0), weight_decay=0.5)
    state, update = step.init(params), jitted(step.update)
    updates, state = update(grads, state, params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.25 * (1 + 0.5 * 2), rtol=1e-6)
    updates, state = update(grads, state, params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.25 * (1.9 + 0.5 * 2), rtol=1e-6)


def test_schedule_knows_the_step_and_the_run():
    told = []

    def schedule(progress):
        told.append(progress)
        return progress.step / progress.steps

    step = chain(OPTIMIZERS["sgd"](learning_rate=1.0), schedule, 8, 4)
    params = {"w": jnp.ones(1)}
    state = step.init(params)
    for n in range(3):
        updates, state = step.update(params, state, params)
        np.testing.assert_allclose(updates["w"], -n / 8)
    assert {(p.steps, p.steps_per_epoch) for p in told} == {(8, 4)}


def into_unit_box():
    """A projection of the shape that chain takes: to where every number is in [-1, 1]."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(
            lambda u, w: jnp.clip(w + u, -1, 1) - w, updates, params
        )
    )


@pytest.mark.parametrize("name", ["sgd", "schedule_free_sgd"])
def test_projection_holds_where_it_trains_and_where_it_is_evaluated(name):
    step = chain(OPTIMIZERS[name](learning_rate=0.7), constant, 50, 5, projection=into_unit_box())
    params = {"w": np.array([0.9, -0.2], np.float32)}
    state, update = step.init(params), jitted(step.update)
    for n in range(20):
        grads = {"w": np.float32([-1.0, 1.0]) * (1 if n % 7 else -0.5)}
        updates, state = update(grads, state, params)
        params = {"w": params["w"] + np.asarray(updates["w"])}
        for point in (params, evaluation_params(state, params)):
            assert np.max(np.abs(point["w"])) <= 1 + 1e-6
    # Both are pushed to a corner, and get there.
    np.testing.assert_allclose(params["w"], [1, -1], atol=0.2)


class Averaged(NamedTuple):
    average: dict


def test_is_evaluated_at_the_last_average():
    params = {"w": jnp.ones(2)}
    plain = chain(OPTIMIZERS["adam"](), constant, 5, 5)
    assert evaluation_params(plain.init(params), params) is params

    def keep_mean(decay):
        def update(updates, state, params=None):
            moved = optax.apply_updates(params, updates)
            mean = jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, state.average, moved)
            return updates, state._replace(average=mean)

        return optax.GradientTransformation(lambda params: Averaged(params), update)

    averaged = chain(
        OPTIMIZERS["sgd"](learning_rate=1.0), constant, 5, 5, averaging=keep_mean(0.75)
    )
    state = averaged.init(params)
    _, state = averaged.update(params, state, params)
    np.testing.assert_allclose(evaluation_params(state, params)["w"], 0.75)


# --- errors in words ------------------------------------------------------------------------------


def told_by(make: Callable[[], object]):
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def test_contradictions_are_told():
    text = told_by(lambda: OPTIMIZERS["sgd"](nesterov=True, dampening=0.1))
    assert text == "optimizer sgd: nesterov has no dampening; drop one of the two"
    adamw, free = OPTIMIZERS["adamw"](), OPTIMIZERS["schedule_free_sgd"]()
    text = told_by(lambda: chain(adamw, constant, 1, 1, weight_decay=0.1))
    assert text == "optimizer.weight_decay and regularization.weight_decay are both given; keep one"
    text = told_by(lambda: chain(free, constant, 1, 1, averaging=optax.identity()))
    assert text.startswith("regularization.average given; this optimizer is evaluated at its own")
