"""The functions of a user, and Flax modules, as training calls them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.errors import InvalidRngError
from networks import KEY, LinenNorm, X, Y, apply, init, squared, task

import nnref
from nnref.training.adapters.models import fractions_of, optax_of
from nnref.training.adapters.plain import plain


def noisy(params, x, key, training):
    return apply(params, x) + training * jax.random.normal(key, (len(x), 1))


def deterministic(params, x, *, deterministic, rng=None):
    return apply(params, x) + (not deterministic)


def stateful(params, batch_stats, x, train=False):
    return apply(params, x), {"mean": batch_stats["mean"] + train}


@pytest.mark.parametrize(
    ("function", "random", "modes"),
    [(apply, False, False), (noisy, True, True), (deterministic, True, True)],
)
def test_common_signatures_are_called_as_they_want(function, random, modes):
    network = plain(init, function, X)
    params, state = network.init(KEY)
    evaluated, _ = network.apply(params, state, X, None, False)
    np.testing.assert_array_equal(evaluated, apply(params, X))
    trained, _ = network.apply(params, state, X, KEY, True)
    assert (network.random, network.modes) == (random, modes)
    assert np.abs(trained - evaluated).max() > 0.5 if modes else (trained == evaluated).all()


def test_state_goes_in_and_comes_out():
    network = plain(lambda key, x: (init(key), {"mean": x[0, 0]}), stateful, X)
    params, state = network.init(KEY)
    assert state["mean"] == X[0, 0]
    assert network.apply(params, state, X, KEY, True)[1]["mean"] == X[0, 0] + 1


def test_targets_may_come_first_and_rows_are_averaged():
    told = []

    def loss(y_true, y_pred):
        told.append((y_true, y_pred))
        return jnp.abs(y_pred)[:, 0]

    value = task(loss=loss).functions.loss(2 * jnp.ones((4, 1)), jnp.zeros((4, 1)))
    assert value == 2
    assert told[0][1][0, 0] == 2


class Norm(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))


@pytest.mark.parametrize(
    "model", [Norm(nnx.Rngs(0)), lambda rngs: Norm(rngs), LinenNorm()], ids=["nnx", "rngs", "linen"]
)
def test_a_flax_module_trains_evaluates_and_keeps_its_statistics(model):
    functions = nnref.Task(model=model, loss=squared, train=(X, Y)).functions
    params, state = functions.init(KEY)
    before = [np.array(leaf) for leaf in arrays((params, state))]
    outputs, after = functions.apply(params, state, X, KEY, True)
    dropped = float((outputs == 0).mean())
    assert 0.2 < dropped < 0.8
    moved = [not np.array_equal(*pair) for pair in zip(arrays(state), arrays(after), strict=True)]
    assert any(moved)
    evaluated, kept = functions.apply(params, state, X, None, False)
    assert (evaluated != 0).all()
    again, _ = functions.apply(params, kept, X, None, False)
    np.testing.assert_array_equal(evaluated, again)
    # Nothing of the user's is written to.
    for old, new in zip(before, arrays((params, state)), strict=True):
        np.testing.assert_array_equal(old, new)


def arrays(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


# --- each library in its own idiom ---------------------------------------------------------------


class Noisy(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(x + jax.random.normal(self.make_rng("noise"), x.shape))


def equinox_module():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        layer: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        drop: eqx.nn.Dropout
        steps: jax.Array

        def __init__(self, key):
            self.layer = eqx.nn.Linear(3, 4, key=key)
            self.norm = eqx.nn.BatchNorm(4, axis_name="rows", mode="ema")
            self.drop, self.steps = eqx.nn.Dropout(0.5), jnp.arange(3)

        def __call__(self, x, state, *, key):
            x, state = self.norm(self.layer(x), state)
            return self.drop(x, key=key), state

    return lambda key: eqx.nn.make_with_state(Net)(key)


def haiku_pair():
    hk = pytest.importorskip("haiku")

    def net(x, is_training):
        x = hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training)
        return hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x

    return hk.transform_with_state(net)


@pytest.mark.parametrize("made", [equinox_module, haiku_pair])
def test_a_network_with_a_state_drops_in_training_alone(made):
    functions = nnref.Task(model=made(), loss=squared, train=(X, Y)).functions
    assert functions.modes
    params, state = functions.init(KEY)
    outputs, after = jax.jit(functions.apply, static_argnums=4)(params, state, X, KEY, True)
    assert outputs.shape == (64, 4)
    assert 0.2 < float((outputs == 0).mean()) < 0.8
    assert jax.tree.structure(after) == jax.tree.structure(state)
    moved = [(a != b).any() for a, b in zip(arrays(state), arrays(after), strict=True)]
    assert any(moved)
    evaluated, kept = functions.apply(params, after, X, None, False)
    assert (evaluated != 0).all()
    for old, new in zip(arrays(after), arrays(kept), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("made", [equinox_module, haiku_pair])
def test_another_key_gives_another_start(made):
    functions = nnref.Task(model=made(), loss=squared, train=(X, Y)).functions
    one, other = (arrays(functions.init(jax.random.key(seed))[0]) for seed in (0, 1))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_what_is_no_fraction_is_no_parameter_of_an_equinox_module():
    functions = nnref.Task(model=equinox_module(), loss=squared, train=(X, Y)).functions
    params, _ = functions.init(KEY)
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(params))
    jax.grad(lambda p: functions.apply(p, functions.init(KEY)[1], X, KEY, True)[0].sum())(params)


@pytest.mark.parametrize("name", ["transform", "transform_with_state"])
def test_a_haiku_network_without_a_key_takes_none(name):
    hk = pytest.importorskip("haiku")
    model = hk.without_apply_rng(getattr(hk, name)(lambda x: hk.Linear(1)(x)))
    functions = nnref.Task(model=model, loss=squared, train=(X, Y)).functions
    outputs, _ = functions.apply(*functions.init(KEY), X, KEY, True)
    assert outputs.shape == (64, 1)
    assert not functions.random


def test_a_stream_of_linen_may_have_any_name():
    functions = nnref.Task(model=Noisy(), loss=squared, train=(X, Y)).functions
    network = functions.init(KEY)
    one, other = (functions.apply(*network, X, jax.random.key(s), True)[0] for s in (0, 1))
    assert (one != other).any()
    evaluated = functions.apply(*network, X, None, False)[0]
    np.testing.assert_array_equal(evaluated, functions.apply(*network, X, None, False)[0])


def test_dropout_that_nobody_turns_off_is_not_helped():
    class Dropping(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dropout(0.5)(x, deterministic=False)

    model = Dropping()
    functions = nnref.Task(model=model, loss=squared, train=(X, Y)).functions
    with pytest.raises(InvalidRngError):
        functions.apply(*functions.init(KEY), X, None, False)


def test_a_class_that_wants_more_says_what():
    class Net(nnx.Module):
        def __init__(self, width, *, rngs):
            self.layer = nnx.Linear(3, width, rngs=rngs)

    with pytest.raises(nnref.UserError, match=r"Net also takes width; .*lambda rngs: Net"):
        nnref.Task(model=Net, loss=squared, train=(X, Y))


def test_no_library_is_imported_that_no_model_is_of():
    code = (
        "import sys, nnref.training.setup, nnref.diagnosis.api; "
        "print({'equinox', 'keras', 'haiku', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_parameters_of_a_module_are_its_fractions_and_the_way_back():
    eqx = pytest.importorskip("equinox")
    mlp = eqx.nn.MLP(3, 1, 4, 1, key=KEY)
    params, whole = fractions_of(mlp)
    assert len(jax.tree.leaves(params)) == 4
    np.testing.assert_array_equal(whole(params)(X[0]), mlp(X[0]))
    params, whole = fractions_of({"w": 1.0, "steps": 3, "name": "relu"})
    assert jax.tree.leaves(params) == [1.0]
    assert whole({"w": 2.0, "steps": None, "name": None})["steps"] == 3


def test_an_optimizer_of_nnx_holds_one_of_optax():
    tx = optax.adam(1e-3)
    assert optax_of(nnx.Optimizer(Norm(nnx.Rngs(0)), tx, wrt=nnx.Param)) is tx
    assert optax_of(tx) is tx
