"""Adam and its relatives: limits in which one is another, and conventions told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trajectories import STEPS, directions, jitted, trajectory

from nnref.parts.chain import chain
from nnref.parts.optimizers import OPTIMIZERS
from nnref.parts.schedules import constant


def test_adam_without_correction_is_the_equation():
    gradients = np.random.default_rng(0).normal(0, 1, (50, 3)) * 10.0 ** np.arange(-2, 1)
    gradients[20] *= -100
    beta1, beta2, epsilon = 0.9, 0.99, 1e-3
    optimizer = OPTIMIZERS["adam"](beta1=beta1, beta2=beta2, epsilon=epsilon, bias_correction=False)
    with jax.enable_x64(True):
        w = jnp.zeros(3)
        state, update = optimizer.direction.init(w), jax.jit(optimizer.direction.update)
        m = v = np.zeros(3)
        for g in gradients:
            direction, state = update(jnp.asarray(g), state, w)
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            np.testing.assert_allclose(direction, m / (np.sqrt(v) + epsilon), rtol=1e-12)


@pytest.mark.parametrize(("convention", "c"), [("paper", 0.2371374), ("authors", 0.0749894)])
def test_first_step_of_padam(convention, c):
    g = np.array([1e-3, -0.5, 2.0, -30.0])
    first = directions(OPTIMIZERS["padam"](convention=convention, p=0.125), [g])[0]
    # The authors' epsilon of 1e-8 is 2e-4 of the root of the smallest v: hence rtol.
    rtol = 1e-6 if convention == "paper" else 1e-4
    np.testing.assert_allclose(first, c * np.sign(g) * np.abs(g) ** 0.75, rtol=rtol)


def test_padam_at_one_half_is_amsgrad():
    half, _ = trajectory("padam", convention="paper", learning_rate=0.01, p=0.5)
    paper, _ = trajectory("amsgrad", convention="paper", learning_rate=0.01, epsilon=0.0)
    np.testing.assert_allclose(half, paper, rtol=0, atol=1e-14)
    # The authors' form at 1/2 is Keras's AMSGrad: among the oracles.


def test_padam_at_zero_is_momentum_in_the_papers_form_only():
    zero, _ = trajectory("padam", convention="paper", learning_rate=0.5, p=0.0)
    momentum, _ = trajectory("sgd", learning_rate=0.05, momentum=0.9)
    np.testing.assert_allclose(zero, momentum, rtol=0, atol=1e-13)
    damped, _ = trajectory("sgd", learning_rate=0.5, momentum=0.9, dampening=0.9)
    np.testing.assert_allclose(zero, damped, rtol=0, atol=1e-13)
    authors, _ = trajectory("padam", convention="authors", learning_rate=0.5, p=0.0)
    assert np.max(np.abs(authors - momentum)) > 1


@pytest.mark.parametrize("convention", ["paper", "torch", "optax"])
def test_a_spike_tells_the_orders_of_amsgrad_apart(convention):
    """After one spike G at step 1 and no gradient since, v_hat keeps what the order made of it."""
    spike, steps = 40.0, 30
    optimizer = OPTIMIZERS["amsgrad"](convention=convention, epsilon=0.0)
    got = directions(optimizer, [[spike]] + [[0.0]] * (steps - 1))[:, 0]
    t = np.arange(1, steps + 1)
    m, corrected = 0.1 * 0.9 ** (t - 1), 1 - 0.9**t
    want = {
        "paper": m / np.sqrt(0.001),
        "torch": m / corrected / np.sqrt(0.001 / (1 - 0.999**t)),
        "optax": m / corrected,
    }
    np.testing.assert_allclose(got, want.pop(convention), rtol=1e-11)
    for other in want.values():
        assert np.max(np.abs(got / other - 1)) > 0.5


def test_adam_includes_momentum():
    """Choi et al. 2019: with a huge epsilon and its rate times it, Adam is momentum SGD."""
    t = np.arange(1, STEPS + 1)
    momentum, _ = trajectory("sgd", learning_rate=0.05, momentum=0.9)
    apart = []
    for epsilon in (1e6, 1e7, 1e8):
        factors = epsilon * (1 - 0.9**t) / (1 - 0.9)
        got, _ = trajectory("adam", factors, learning_rate=0.05, epsilon=epsilon)
        apart.append(np.max(np.abs(got - momentum)))
    assert apart[2] < 2e-6
    np.testing.assert_allclose(np.array(apart[:2]) / apart[1:], 10, rtol=0.01)


def test_l2_in_adams_gradient_is_not_adamw():
    with jax.enable_x64(True):
        params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0])}
        grads = {"kernel": jnp.array([[0.5, 0.1]]), "bias": jnp.array([1.0])}
        coupled = optax.add_decayed_weights(0.3)
        adam = OPTIMIZERS["adam"]()
        l2 = chain(adam, constant, 1, 1, coupled)
        w = chain(OPTIMIZERS["adamw"](weight_decay=0.3), constant, 1, 1)
        own, _ = jitted(w.update)(grads, w.init(params), params)
        other, _ = jitted(l2.update)(grads, l2.init(params), params)
        # Whatever the decay, Adam's first step is the sign of the gradient.
        np.testing.assert_allclose(other["kernel"], [[-1e-3, 1e-3]], rtol=1e-6)
        np.testing.assert_allclose(own["kernel"], [[-1.3e-3, -0.4e-3]], rtol=1e-6)
