"""All checks of a program: nothing of a healthy one, and a word where one cannot be asked."""

import dataclasses

import jax.numpy as jnp
from networks import learns, recipe

from nnref.diagnosis.program.checks import check


def test_a_healthy_program_gives_nothing():
    impossible = []
    assert check(recipe(learns), impossible=impossible) == []
    assert impossible == []


def test_a_check_that_is_impossible_is_said():
    def only_this_batch(outputs, y):
        return jnp.mean((outputs.reshape(8, 2) - y) ** 2)

    impossible = []
    check(recipe(learns, loss=only_this_batch), impossible=impossible)
    assert any("grow with the batch" in line for line in impossible)


def test_checks_that_want_one_array_say_so_once():
    def apply(params, state, x, key, train):
        return {"a": x @ params["dense0"]["kernel"], "b": x}, state

    made = recipe(lambda p, x: x, (3, 1))
    made = dataclasses.replace(made, apply=apply, loss=lambda o, y: jnp.mean((o["a"] - y) ** 2))
    said = []
    check(made, impossible=said)
    assert [line for line in said if "not one array" in line] == said
    assert len(said) == 1
