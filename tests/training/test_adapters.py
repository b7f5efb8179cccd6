"""The functions of a user, and Flax modules, as training calls them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import KEY, LinenNorm, X, Y, apply, init, squared, task

import nnref
from nnref.training.adapters import nnx_network, plain


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


def test_a_module_of_nnx_trains_in_the_modes_it_was_built_in():
    """Left in evaluation mode it stays there; a layer that says nothing is put into training."""

    class Noisy(nnx.Module):
        def __init__(self, rngs, deterministic):
            self.drop = nnx.Dropout(0.5, deterministic=deterministic, rngs=rngs)

        def __call__(self, x):
            return self.drop(x)

    def trained(module):
        network = nnx_network(lambda key: module)
        outputs, _ = network.apply(*network.init(KEY), jnp.ones((4, 50)), KEY, True)
        return np.asarray(outputs)

    built = Noisy(nnx.Rngs(0), False)
    assert (trained(built) == 0).any()
    built.eval()
    assert (trained(built) == 1).all()
    undecided = Noisy(nnx.Rngs(0), False)
    undecided.drop.deterministic = None
    assert (trained(undecided) == 0).any()
