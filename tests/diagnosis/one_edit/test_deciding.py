"""One traced program with all edits in it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nnref.diagnosis.one_edit import deciding
from nnref.diagnosis.one_edit.deciding import Edits, alike, has_arrays
from nnref.diagnosis.one_edit.rewriting import codes_run, exchanged
from nnref.diagnosis.one_edit.search import afresh

TABLE = np.array([2.0, 3.0], np.float32)


@jax.jit
def scaled(a, b):
    width = TABLE.shape[0]
    return (a - b) * TABLE[:width]


def traced(function, *arguments):
    """The program with its edits, and these by their texts."""
    edits = Edits()
    with afresh():
        codes = codes_run(lambda: jax.eval_shape(function, *arguments))

    def with_edit(which, *arguments):
        edits.which = which
        return function(*arguments)

    with afresh(), exchanged(codes, edits) as edits.sites:
        edits.learning = True
        program = jax.jit(with_edit).lower(jnp.int32(-1), *arguments).compile()
    return program, {text: number for (_, text), number in edits.numbers.items()}


def test_every_edit_is_made_by_its_number():
    a, b = jnp.array([5.0, 7.0]), jnp.array([1.0, 2.0])
    program, numbers = traced(scaled, a, b)
    expected = {
        None: (a - b) * TABLE,
        "b - a": (b - a) * TABLE,
        "a + b": (a + b) * TABLE,
        "(a - b) * (1 - TABLE[:width])": (a - b) * (1 - TABLE),
    }
    for text, value in expected.items():
        number = -1 if text is None else numbers[text]
        np.testing.assert_allclose(program(np.int32(number), a, b), value)
    np.testing.assert_allclose(scaled(a, b), (a - b) * TABLE)  # compiled before, or now
    assert "TABLE" not in numbers  # an array of NumPy is a constant of the program


def test_the_arguments_of_a_function_may_be_exchanged_for_all_who_call_it():
    def over(order, demand, scale):
        """How much was ordered too much."""
        return scale * (order - demand)

    a, b = jnp.array([5.0, 7.0]), jnp.array([1.0, 2.0])
    program, numbers = traced(lambda a, b: over(a, b, 2.0), a, b)
    np.testing.assert_allclose(program(np.int32(-1), a, b), 2 * (a - b))
    number = numbers["over(demand, order, scale)"]
    np.testing.assert_allclose(program(np.int32(number), a, b), 2 * (b - a))
    assert "over(order, scale, demand)" not in numbers  # a number cannot stand for an array


def test_what_a_call_gives_is_turned_back_where_its_argument_was_turned():
    def summed(x):
        return jnp.cumsum(x)

    a = jnp.array([5.0, 7.0, 1.0])
    program, numbers = traced(lambda a: summed(a[::-1]), a)
    number = numbers["jnp.flip(summed(a[::-1]), 0)"]
    np.testing.assert_allclose(program(np.int32(number), a), jnp.cumsum(a[::-1])[::-1])


def test_gradients_follow_an_edit():
    def loss(a, b):
        return jnp.sum(jax.grad(lambda a: jnp.sum((a - b) ** 2))(a))

    a, b = jnp.array([5.0, 7.0]), jnp.array([1.0, 2.0])
    program, numbers = traced(loss, a, b)
    np.testing.assert_allclose(program(np.int32(numbers["a + b"]), a, b), 2 * (a + b).sum())
    np.testing.assert_allclose(program(np.int32(-1), a, b), 2 * (a - b).sum())


def test_an_edit_that_is_not_made_gives_no_nan():
    """The slope of b / a is infinite at 0, where that of a / b is 1 / b."""

    def slope(a, b):
        def loss(a):
            return jnp.sum(a / b)

        return jax.grad(loss)(a)

    a, b = jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0])
    program, numbers = traced(slope, a, b)
    assert "b / a" in numbers
    np.testing.assert_allclose(program(np.int32(-1), a, b), 1 / b)


def test_no_more_edits_than_one_program_may_hold(monkeypatch):
    monkeypatch.setattr(deciding, "MOST", 2)
    _, numbers = traced(scaled, jnp.ones(2), jnp.ones(2))
    assert len(numbers) == 2


def test_what_can_stand_in_the_place_of_a_value():
    tree = {"w": jnp.ones(3), "name": "a"}
    assert alike({"w": jnp.zeros(3), "name": "a"}, tree)
    assert not alike({"w": jnp.zeros(2), "name": "a"}, tree)
    assert not alike({"w": jnp.zeros(3), "name": "b"}, tree)
    assert not alike({"v": jnp.zeros(3), "name": "a"}, tree)
    assert not alike(jnp.ones(3, int), jnp.ones(3))
    assert not alike(tree, tree)
    assert has_arrays(tree, jax.Array)
    assert not has_arrays({"w": 3}, jax.Array)
    assert not has_arrays(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), jax.Array)
    assert not has_arrays(TABLE, jax.Array)
