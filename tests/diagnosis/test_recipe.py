"""A recipe: what training calls of it, and an `apply` that takes whole batches alone."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
from networks import KEY, X, Y, recipe_of, squared, task

from nnref.data.trees import layout_of
from nnref.diagnosis.recipe import Recipe, for_any_rows


def test_an_apply_for_whole_batches_alone_takes_any_number_of_rows():
    """Of a running sum that goes from batch to batch, its form written for 8 rows."""

    def apply(params, state, x, key, train):
        sums = state["sums"] + x @ params["w"]
        return {"sums": sums, "count": jnp.float32(1)}, {"sums": sums}

    def init(key):
        return {"w": jnp.ones((3, 1))}, {"sums": jnp.zeros((8, 1))}

    recipe = Recipe(init, apply, squared, train=(X, Y), optimizer=optax.sgd(0.1), batch_size=8)
    made = for_any_rows(recipe)
    assert made.rows == 8
    sums = X.sum(1, keepdims=True)
    for rows in (1, 8, 20):
        outputs, state = made.apply(*init(KEY), X[:rows], KEY, False)
        filled = np.concatenate([sums[:rows], np.repeat(sums[:1], -rows % 8, 0)])
        running = filled.reshape(-1, 8, 1).cumsum(0)
        np.testing.assert_allclose(
            outputs["sums"], running.reshape(-1, 1)[:rows], rtol=1e-5, atol=1e-6
        )  # sums of three numbers in another order
        np.testing.assert_allclose(state["sums"], running[-1], rtol=1e-5, atol=1e-6)
        assert outputs["count"] == 1
    assert for_any_rows(replace(recipe, apply=recipe_of(task()).apply)).rows is None


def test_a_state_begins_anew_only_where_there_is_a_restart():
    made = recipe_of(task())
    assert made.begun({}, 7) == 7
    assert replace(made, restart=lambda params, state: 0).begun({}, 7) == 0


def test_functions_are_those_of_the_recipe_where_no_setup_builds_them():
    made = recipe_of(task())
    functions, optimizer = made.build({})
    assert (functions.loss, functions.penalty, optimizer) == (made.loss, None, made.optimizer)
    penalty = lambda params: 0.5  # noqa: E731
    assert replace(made, penalty=penalty).build({})[0].penalty is penalty
    assert replace(made, setup=lambda numbers: numbers).build({"rate": 1}) == {"rate": 1}


def test_a_column_of_several_arrays_is_named_by_its_array():
    made = recipe_of(task())
    assert made.column(2) == "2"
    several = layout_of({"image": X, "age": X[:, :1]}, "x")
    assert replace(made, inputs=several).column(2) == "image[1]"
