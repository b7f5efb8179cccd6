"""What the arguments of a function mean, and what it is called with."""

import numpy as np
import pytest

from nnref import UserError
from nnref.training.adapters.arguments import Passed, called, inputs_of, roles_of

VALUES = {"x": 1, "key": 2, "train": True, "evaluate": False, "state": 3, "params": 4}


def test_what_follows_a_default_goes_by_name():
    def f(x, scale=10, train=False, *, rng):
        return x, scale, train, rng

    passed = roles_of(f, ("x",), "f")
    assert passed == [Passed("x"), Passed("train", "train"), Passed("key", "rng")]
    assert called(f, passed, VALUES) == (1, 10, True, 2)


@pytest.mark.parametrize("flag", ["deterministic", "inference", "use_running_average"])
def test_a_flag_of_evaluation_is_off_in_training(flag):
    space = {}
    exec(f"def f(x, *, {flag}): return {flag}", space)
    assert called(space["f"], roles_of(space["f"], ("x",), "f"), VALUES) is False


def test_several_inputs_go_by_place_and_by_name():
    def f(params, left, right, k=None):
        return left - right

    passed = roles_of(f, ("params", "x"), "f", inputs_of(f, 1, (1, 2)))
    assert called(f, passed, VALUES | {"x": (7, 4)}) == 3
    x = {"right": 4, "left": 7}
    passed = roles_of(f, ("params", "x"), "f", inputs_of(f, 1, x))
    assert called(f, passed, VALUES | {"x": x}) == 3


def test_a_key_of_attention_is_an_input():
    def attention(q, k, v):
        return q, k, v

    passed = roles_of(attention, ("x",), "f", inputs_of(attention, 0, (5, 6, 7)))
    assert called(attention, passed, VALUES | {"x": (5, 6, 7)}) == (5, 6, 7)


def test_one_argument_takes_the_whole_tree():
    assert inputs_of(lambda x: x, 0, (1, 2)) == {}
    assert inputs_of(lambda batch, train: 0, 0, {"a": 1, "b": 2}) == {}


def test_any_number_of_inputs_takes_each():
    def f(params, rng, *inputs):
        return inputs

    passed = roles_of(f, ("params", "x"), "f")
    assert called(f, passed, VALUES | {"x": (5, 6)}) == (5, 6)
    x = np.ones(3)
    assert called(f, passed, VALUES | {"x": x})[0] is x


def test_a_stranger_without_a_default_is_refused():
    with pytest.raises(UserError, match="'wings' has no default and no known name"):
        roles_of(lambda x, wings: x, ("x",), "f")
    with pytest.raises(UserError, match="x is missing"):
        roles_of(lambda params: 0, ("params", "x"), "f")
