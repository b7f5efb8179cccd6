"""Modules of Flax NNX, split and merged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import KEY, X

from nnref.training.adapters.nnx import nnx_network


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


@pytest.mark.parametrize("flag", ["train", "training", "deterministic", "use_running_average"])
def test_a_module_may_be_told_the_mode(flag):
    space = {"nnx": nnx}
    exec(f"class Net(nnx.Module):\n def __call__(self, x, *, {flag}): return x * {flag}", space)
    network = nnx_network(lambda key: space["Net"]())
    trained, _ = network.apply(*network.init(KEY), X, KEY, True)
    evaluated, _ = network.apply(*network.init(KEY), X, None, False)
    on = flag in ("train", "training")
    np.testing.assert_array_equal(trained, X * on)
    np.testing.assert_array_equal(evaluated, X * (not on))


def test_every_stream_of_a_module_has_a_key_of_its_own():
    class Drawing(nnx.Module):
        def __init__(self):
            self.rngs = nnx.Rngs(noise=0, other=0)

        def __call__(self, x):
            return jax.random.normal(self.rngs.noise(), (2,)), jax.random.normal(self.rngs.other())

    network = nnx_network(lambda key: Drawing())
    begun = network.init(KEY)
    (noise, other), _ = network.apply(*begun, X, KEY, True)
    (again, _), _ = network.apply(*begun, X, jax.random.key(1), True)
    assert noise[0] != other
    assert (noise != again).any()


def test_several_inputs_go_to_their_arguments():
    class Two(nnx.Module):
        def __call__(self, left, right):
            return left - right

    network = nnx_network(lambda key: Two())
    outputs, _ = network.apply(*network.init(KEY), {"right": X, "left": 3 * X}, KEY, True)
    np.testing.assert_allclose(outputs, 2 * X, rtol=1e-6)


class Modes(nnx.Module):
    """Dropout and a norm by statistics."""

    def __init__(self, rngs, rate=0.5):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.norm(x))


class Told(Modes):
    """The same, told the mode in each call."""

    def __call__(self, x, train):
        return self.drop(self.norm(x, use_running_average=not train), deterministic=not train)


def test_layers_that_were_left_in_evaluation_mode_are_named():
    def named(module):
        module.eval()
        return nnx_network(lambda key: module).in_evaluation

    assert nnx_network(lambda key: Modes(nnx.Rngs(0))).in_evaluation == ()
    assert named(Modes(nnx.Rngs(0))) == ("drop (Dropout)", "norm (BatchNorm)")
    assert named(Modes(nnx.Rngs(0), rate=0.0)) == ("norm (BatchNorm)",)
    assert named(Told(nnx.Rngs(0))) == ()
