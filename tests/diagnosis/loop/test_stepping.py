"""A user's step on copies: how it is called, and where the new state stands in its result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from loops import begun, faults, plain

from nnref import UserError
from nnref.diagnosis.loop.stepping import Step, Way, copied, parted, returned, ways_of

STATE, BATCH = (jnp.ones(2), {"m": jnp.zeros(3)}), (jnp.ones((4, 2)), jnp.ones(4))


@pytest.mark.parametrize(
    ("step", "way"),
    [
        (lambda state, batch: 0, Way()),
        (lambda state, batch, key: 0, Way(keyed=True)),
        (lambda state, x, y: 0, Way(spread_batch=True)),
        (lambda params, opt_state, batch: 0, Way(spread_state=True)),
        (lambda model, optimizer, batch: 0, Way(spread_state=True)),
        (lambda params, opt_state, x, y: 0, Way(True, True)),
        (lambda params, opt_state, x, y, rng: 0, Way(True, True, True)),
        (lambda state, batch, train=True: 0, Way()),
        (lambda *arguments: 0, Way()),
    ],
)
def test_how_a_step_takes_its_arguments(step, way):
    assert ways_of(step, STATE, BATCH, True)[0] == way
    assert len(way.arguments(STATE, BATCH, "key")) == 2 + sum(way[:3])


def test_a_state_that_is_a_tuple_may_stand_whole_before_the_parts_of_a_batch():
    ways = ways_of(lambda s, x, y: 0, (1, 2), BATCH, True)
    assert {Way(spread_state=True), Way(spread_batch=True)} < set(ways)
    assert faults(lambda s, x, y: plain(*s, x, y), begun(), steps=6) == []


def test_a_step_of_other_arguments_is_refused():
    with pytest.raises(UserError, match=r"step takes \(a\); .* lambda state, batch"):
        ways_of(lambda a: 0, STATE, BATCH, True)
    with pytest.raises(UserError, match="step is 3; give a function"):
        Step(3, STATE, BATCH, True)


def test_where_the_new_state_stands_in_a_result():
    new = jax.tree.map(lambda leaf: leaf + 1, STATE)
    loss = jnp.float32(1)
    for result in (new, (new, loss), (loss, new), (*new, loss), (loss, *new)):
        found = returned(result, STATE)
        assert found is not None
        assert found.missing == ()
        assert jax.tree.all(jax.tree.map(jnp.array_equal, found.state, new))
    partly = returned((new[0], loss), STATE)
    assert partly is not None
    assert partly.missing == (1,)
    assert returned(loss, STATE) is None
    named = returned(({"a": jnp.zeros(2)}, loss), {"a": jnp.ones(2), "b": jnp.ones(3)})
    assert named is not None
    assert named.missing == ("b",)


def test_a_state_is_copied_and_stays_as_it_is():
    state = begun()
    step = Step(jax.jit(plain, donate_argnums=(0, 1)), state, BATCH, True)
    whole = parted(state)
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    outcome = step(whole, copied(whole.arrays), (x, y), None)
    assert outcome.comes_back
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert set(outcome.state.arrays) == set(whole.arrays)


def test_modules_with_a_variable_in_common_are_taken_apart_and_put_together():
    class Tied(nnx.Module):
        def __init__(self):
            self.a = nnx.Param(jnp.ones(2))
            self.b = self.a

    whole = parted((Tied(), {"count": jnp.int32(0)}))
    assert set(whole.arrays) == {"0.a", "1.count"}
    model, rest = whole.rebuild({"0.a": jnp.zeros(2), "1.count": jnp.int32(4)})
    assert model.a is model.b
    assert int(rest["count"]) == 4
