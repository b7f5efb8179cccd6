"""Clipping: what it keeps, what it bounds, what it counts, and how it trades with the rate."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnref.errors import UserError
from nnref.experiment.experiment import parse
from nnref.parts.chain import chain
from nnref.parts.clipping import CLIPPING, clipped_share
from nnref.parts.optimizers import OPTIMIZERS
from nnref.parts.schedules import constant

PARAMS = {"bias": np.array([0.0, 0.0, 0.5]), "kernel": np.array([[3.0, 0.0, 1.0], [4.0, 0.0, 1.0]])}

# XLA takes subnormal numbers for 0, so results must not become that small.
positive = st.floats(1e-100, 1e4)
numbers = positive | positive.map(lambda size: -size) | st.just(0.0)
gradients = st.fixed_dictionaries(
    {"bias": arrays(float, 3, elements=numbers), "kernel": arrays(float, (2, 3), elements=numbers)}
)
thresholds = st.floats(1e-3, 1e3)
members = pytest.mark.parametrize("name", CLIPPING)


@partial(jax.jit, static_argnums=0)
def clip(name, threshold, grads):
    clipping = CLIPPING[name](threshold=threshold)
    return clipping.update(grads, clipping.init(PARAMS), PARAMS)


def clipped(name, threshold, grads):
    """Clipped gradients and share, in float64."""
    with jax.enable_x64(True):
        kept, state = clip(name, threshold, grads)
        return jax.tree.map(np.asarray, kept), float(state.clipped)


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def not_at(threshold, *norms):
    """A norm that equals the threshold up to its last bit may count either way."""
    assume(all(abs(n - threshold) > 1e-12 * threshold for n in norms))


def unit_norms(kernel):
    return np.sqrt(np.sum(np.square(kernel), axis=0))


@members
@settings(max_examples=30, deadline=None)
@given(grads=gradients, threshold=thresholds)
def test_never_enlarges_never_turns_around_and_leaves_what_is_small(name, grads, threshold):
    kept, share = clipped(name, threshold, grads)
    assert 0 <= share <= 1
    for array, g in grads.items():
        assert np.all(np.abs(kept[array]) <= np.abs(g) * (1 + 1e-14))
        assert np.all(kept[array] * g >= 0)
    if share == 0:
        jax.tree.map(np.testing.assert_array_equal, kept, grads)


@settings(max_examples=30, deadline=None)
@given(grads=gradients, threshold=thresholds)
def test_global_norm_keeps_the_direction_and_ends_at_the_threshold(grads, threshold):
    length = norm(grads)
    not_at(threshold, length)
    kept, share = clipped("global_norm", threshold, grads)
    assert share == (length > threshold)
    assert norm(kept) == pytest.approx(min(length, threshold), rel=1e-12)
    factor = min(1, threshold / length) if length else 1
    for array, g in grads.items():
        np.testing.assert_allclose(kept[array], g * factor, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(grads=gradients, threshold=thresholds)
def test_array_norm_keeps_each_direction_and_counts_arrays(grads, threshold):
    not_at(threshold, *map(norm, grads.values()))
    kept, share = clipped("array_norm", threshold, grads)
    for array, g in grads.items():
        factor = min(1, threshold / norm(g)) if norm(g) else 1
        np.testing.assert_allclose(kept[array], g * factor, rtol=1e-12)
    assert share == np.mean([norm(g) > threshold for g in grads.values()])


@settings(max_examples=30, deadline=None)
@given(grads=gradients, threshold=thresholds)
def test_value_bounds_every_number_and_counts_numbers(grads, threshold):
    kept, share = clipped("value", threshold, grads)
    for array, g in grads.items():
        np.testing.assert_array_equal(kept[array], np.clip(g, -threshold, threshold))
    above = np.concatenate([np.ravel(np.abs(g) > threshold) for g in grads.values()])
    assert share == pytest.approx(np.mean(above), abs=1e-7)  # the share is kept in float32


@settings(max_examples=30, deadline=None)
@given(grads=gradients, threshold=thresholds)
def test_adaptive_bounds_each_unit_by_its_weights(grads, threshold):
    """Brock et al. 2021, equation 3; the second unit's weights are 0, and count as 1e-3."""
    weights, bias = np.array([5.0, 1e-3, np.sqrt(2)]), norm(grads["bias"])
    given_, allowed = unit_norms(grads["kernel"]), threshold * weights
    not_at(threshold, *(given_ / weights), bias / 0.5)
    kept, share = clipped("adaptive", threshold, grads)
    got = unit_norms(kept["kernel"])
    np.testing.assert_allclose(got, np.minimum(given_, allowed), rtol=1e-12)
    assert norm(kept["bias"]) == pytest.approx(min(bias, threshold * 0.5), rel=1e-12)
    assert share == np.mean([*(given_ > allowed), bias > threshold * 0.5])


def test_adaptive_takes_all_axes_of_a_kernel_but_the_last_as_the_unit():
    kernel = jnp.ones((3, 3, 2, 4))  # the 18 weights of a unit have the norm sqrt(18)
    one = jnp.zeros_like(kernel).at[1, 2, 0, 3].set(10.0)
    adaptive = CLIPPING["adaptive"](threshold=0.5)
    kept, state = adaptive.update(one, adaptive.init(kernel), kernel)
    np.testing.assert_allclose(kept, one * 0.05 * np.sqrt(18), rtol=1e-6)
    assert state.clipped == 0.25
    scalar = jnp.float32(2.0)
    assert adaptive.update(3 * scalar, adaptive.init(scalar), scalar)[0] == pytest.approx(1)


@members
def test_no_gradient_stays_none(name):
    nothing = jax.tree.map(np.zeros_like, PARAMS)
    kept, share = clipped(name, 0.5, nothing)
    jax.tree.map(np.testing.assert_array_equal, kept, nothing)
    assert share == 0


def test_a_norm_that_overflows_stops_the_step_instead_of_spoiling_it():
    g = {"w": jnp.full(4, 1e30, jnp.float32)}
    clipping = CLIPPING["global_norm"]()
    kept, state = clipping.update(g, clipping.init(g), g)
    np.testing.assert_array_equal(kept["w"], 0)
    assert state.clipped == 1


@members
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_keeps_shapes_and_dtypes(name, dtype):
    params = jax.tree.map(lambda w: jnp.asarray(w, dtype), PARAMS)

    def step(threshold, grads):
        clipping = CLIPPING[name](threshold=threshold)
        state = clipping.init(params)
        return grads, state, *clipping.update(grads, state, params)

    before, state, after, new_state = jax.eval_shape(step, jnp.float32(1), params)
    for a, b in zip(
        jax.tree.leaves((before, state)), jax.tree.leaves((after, new_state)), strict=True
    ):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


@members
def test_vmap_over_the_numbers_equals_one_at_a_time(name):
    grads = {"bias": np.array([1.0, -2.0, 3.0]), "kernel": np.full((2, 3), -4.0)}
    rows = np.array([0.1, 1.0, 5.0, 100.0])
    with jax.enable_x64(True):
        together, state = jax.vmap(lambda c: clip(name, c, grads))(rows)
    for row, threshold in enumerate(rows):
        alone, share = clipped(name, threshold, grads)
        jax.tree.map(lambda a, t: np.testing.assert_array_equal(t[row], a), alone, together)  # noqa: B023
        assert state.clipped[row] == np.float32(share)


def test_floor_of_adaptive_may_be_traced():
    grads = jax.tree.map(jnp.ones_like, PARAMS)

    def kept(floor):
        clipping = CLIPPING["adaptive"](threshold=0.1, floor=floor)
        return clipping.update(grads, clipping.init(PARAMS), PARAMS)[0]["kernel"]

    got = jax.vmap(kept)(jnp.array([1e-3, 1.0]))
    np.testing.assert_allclose(unit_norms(got[0])[1], 1e-4, rtol=1e-6)
    np.testing.assert_allclose(unit_norms(got[1])[1], 0.1, rtol=1e-6)


def run(k, rate, threshold, momentum):
    """60 steps on a noisy quadratic whose loss is multiplied by k; (parameters, shares clipped)."""
    sgd = OPTIMIZERS["sgd"](learning_rate=rate, momentum=momentum)
    step = chain(sgd, constant, 60, 60, CLIPPING["global_norm"](threshold=threshold))
    noise = jnp.asarray(np.random.default_rng(0).standard_cauchy((60, 5)))

    def one(carry, n):
        w, state = carry
        updates, state = step.update(k * (w + n), state, w)
        return (w + updates, state), (w + updates, clipped_share(state))

    w = jnp.ones(5)
    return jax.lax.scan(one, (w, step.init(w)), noise)[1]


def test_loss_times_k_is_rate_over_k_and_threshold_times_k():
    with jax.enable_x64(True):
        go = jax.jit(run)
        want, shares = go(1.0, 0.1, 2.0, 0.9)
        assert 0.2 < np.mean(shares) < 0.95  # some steps are clipped, some are not
        for k in (1e-3, 7.0, 1e4):
            got, same = go(k, 0.1 / k, 2.0 * k, 0.9)
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(same, shares)
            assert np.max(np.abs(go(k, 0.1 / k, 2.0, 0.9)[0] - want)) > 0.1


def test_share_is_found_in_the_state_of_a_chain():
    params = {"w": jnp.ones(3)}
    step = chain(OPTIMIZERS["adam"](), constant, 9, 3, CLIPPING["value"](threshold=0.5))
    state = step.init(params)
    assert clipped_share(state) == 0
    _, state = step.update({"w": jnp.array([0.1, -3.0, 0.4])}, state, params)
    assert clipped_share(state) == pytest.approx(1 / 3)
    without = chain(OPTIMIZERS["adam"](), constant, 9, 3)
    assert clipped_share(without.init(params)) is None


@pytest.mark.parametrize(
    ("clipping", "text"),
    [
        (
            "norm",
            'clipping (line 1): "norm" given; allowed: value, array_norm, global_norm, adaptive; '
            'did you mean "array_norm"?',
        ),
        (
            {"name": "value", "threshold": 0},
            "clipping.threshold (line 1): 0 given; allowed is a number above 0",
        ),
        (
            {"name": "global_norm", "treshold": 1.0},
            "clipping.treshold (line 1): unknown key; allowed: threshold; "
            'did you mean "threshold"?',
        ),
        (
            {"name": "adaptive", "floor": 0.0},
            "clipping.floor (line 1): 0.0 given; allowed is a number above 0",
        ),
    ],
)
def test_a_wrong_argument_is_told(clipping, text):
    content = {
        "data": "xor",
        "model": {"name": "mlp", "hidden": [4]},
        "loss": "sigmoid_cross_entropy",
        "optimizer": "sgd",
        "clipping": clipping,
        "batch_size": 4,
        "epochs": 10,
    }
    with pytest.raises(UserError) as error:
        parse(json.dumps(content))
    assert str(error.value) == text
