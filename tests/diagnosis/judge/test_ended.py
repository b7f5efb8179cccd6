"""What a user's own loop ended with, beside the run that is made here."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import learns, recipe

from nnref import UserError
from nnref.diagnosis.api import with_trained
from nnref.diagnosis.findings import Findings
from nnref.diagnosis.judge.ended import check, params_and_state
from nnref.diagnosis.judge.measurements import Measurements

RECIPE = recipe(learns, rows=48, optimizer=optax.adam(1e-2), batch_size=16, epochs=20)


def fitted():
    """Parameters as a loop in order ends with them."""
    params, state = RECIPE.init(jax.random.key(0))
    x, y = (jnp.asarray(part) for part in RECIPE.train)
    optimizer = optax.adam(3e-2)

    def step(carry, _):
        params, moments = carry
        gradient = jax.grad(lambda p: jnp.mean((learns(p, x) - y) ** 2))(params)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), None

    begun = params, optimizer.init(params)
    return jax.jit(lambda begun: jax.lax.scan(step, begun, length=400))(begun)[0][0], state


def test_a_loop_that_ends_where_it_began_and_one_that_ends_well():
    measured = Measurements(RECIPE)
    (found,) = check(measured, measured.initial[0], 0.9)
    assert found.cause == "parameters_not_updated"
    assert "the parameters that init gives" in found.evidence
    assert list(check(measured, fitted()[0], 0.9)) == []
    assert list(check(measured, fitted(), 0.9)) == []
    assert list(check(measured, measured.initial[0], 0.1)) == [], "nothing is learned here either"


def test_it_comes_first_in_the_answer():
    found = Findings(measures={"skill on training rows": 0.9}, learns=True)
    told = with_trained(found, RECIPE, jax.tree.map(np.zeros_like, fitted()[0]))
    assert told.faults[0].where == "your own loop"
    assert told.checked == ("what your loop ended with",)
    assert with_trained(found, RECIPE, None) is found


def test_other_parameters_are_refused():
    with pytest.raises(UserError, match=r"trained is a tree of 1 arrays; give .* \(4 arrays\)"):
        params_and_state(Measurements(RECIPE), {"w": np.ones(2)})
