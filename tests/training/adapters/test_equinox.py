"""Modules of Equinox, as training calls them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import KEY, X, Y, squared

import nnref

eqx = pytest.importorskip("equinox")


class Net(eqx.Module):
    norm: eqx.nn.BatchNorm
    weight: jax.Array

    def __init__(self, key):
        self.norm = eqx.nn.BatchNorm(3, axis_name="rows", mode="ema")
        self.weight = jax.random.normal(key, (1, 3))

    def __call__(self, x, state):
        x, state = self.norm(x, state)
        return self.weight @ x, state


@pytest.mark.parametrize("way", ["class", "instance", "function", "pair"])
def test_the_state_of_an_equinox_module_need_not_be_taken_out(way):
    make = eqx.nn.make_with_state(Net)
    model = {"class": Net, "instance": Net(KEY), "function": make, "pair": make(KEY)}[way]
    functions = nnref.Task(model=model, loss=squared, train=(X, Y)).functions
    params, state = functions.init(KEY)
    assert [leaf.shape for leaf in jax.tree.leaves(params)].count((3,)) == 2  # scale and shift
    _, after = functions.apply(params, state, X, KEY, True)
    assert any((a != b).any() for a, b in zip(state, after, strict=True))


def test_what_an_equinox_module_with_a_state_lacks_is_told():
    class Wide(Net):
        def __init__(self, width, key):
            super().__init__(key)

    stripped = eqx.nn.make_with_state(Net)(KEY)[0]
    for model, words in (
        (stripped, r"give both, model=\(model, state\)"),
        (eqx.nn.make_with_state(Wide), r"argument: 'width'; .* model=lambda key: eqx"),
    ):
        with pytest.raises(nnref.UserError, match=words):
            nnref.Task(model=model, loss=squared, train=(X, Y))


def test_layers_of_equinox_in_a_row_that_have_no_state_get_none():
    model = eqx.nn.Sequential([eqx.nn.Linear(3, 1, key=KEY), eqx.nn.Dropout(0.5)])
    functions = nnref.Task(model=model, loss=squared, train=(X, Y)).functions
    outputs, _ = functions.apply(*functions.init(KEY), X, KEY, True)
    assert outputs.shape == (64, 1)
    assert (outputs == 0).any()


def test_an_equinox_module_for_whole_batches_is_called_with_them():
    class Batched(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            return (x - x.mean(0, keepdims=True))[:, :2] @ self.weight

    model = Batched(jnp.ones((2, 1)))
    functions = nnref.Task(model=model, loss=squared, train=(X, Y)).functions
    outputs, _ = functions.apply(*functions.init(KEY), X, None, False)
    np.testing.assert_allclose(outputs, model(X), rtol=1e-6)
