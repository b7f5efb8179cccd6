"""Values of Python that change outside of a compiled function, which does not see them."""

import re
from functools import partial

import jax
import numpy as np
import optax
import pytest
from loops import TX, X, begun, faults, first, squares
from networks import line_of

RANDOM = np.random.default_rng(0)


class Trainer:
    """A penalty that rises, compiled in or handed over."""

    def __init__(self):
        self.penalty, self.calls = 0.0, 0
        self.fixed = jax.jit(lambda *each: self.updated(*each, self.penalty))  # compiled in
        self.handed = jax.jit(self.updated)

    def updated(self, params, opt_state, x, y, penalty):
        def loss(params):
            return squares(params, x, y) + penalty * optax.tree.norm(params)  # of the first call

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    def kept(self, params, opt_state, x, y):
        self.penalty += 0.01
        return self.fixed(params, opt_state, x, y)

    def given(self, params, opt_state, x, y):
        return self.handed(params, opt_state, x, y, 0.01 * int(opt_state[0].count))

    def counted(self, params, opt_state, x, y):
        self.calls += 1
        return self.handed(params, opt_state, x, y, 0.01 * self.calls)

    def drawn(self, params, opt_state, x, y):
        return self.handed(params, opt_state, x, y, RANDOM.uniform())


def test_a_number_that_changes_outside_of_a_compiled_function_is_told_with_its_line():
    found = first(Trainer().kept, begun())
    assert found.cause == "value_compiled_in"
    assert re.search(r"it is 0\.01 there, and 0\.4\d? at another step", found.evidence)
    assert found.where.endswith(f"test_compiled_in.py:{line_of(__file__, 'of the first call')}")


def test_it_may_be_compiled_into_a_loop():
    trainer = Trainer()

    @jax.jit
    def repeated(params, opt_state, x, y):
        def once(state, _):
            return trainer.updated(*state, x, y, trainer.penalty)[:2], 0.0

        return jax.lax.scan(once, (params, opt_state), None, length=2)[0]

    def step(params, opt_state, x, y):
        trainer.penalty += 0.01
        return repeated(params, opt_state, x, y)

    assert "value_compiled_in" in faults(step, begun())


@pytest.mark.parametrize(
    "step",
    [Trainer().given, Trainer().counted, Trainer().drawn, jax.jit(Trainer().updated)],
    ids=["by the count", "by a count of its own", "drawn", "compiled as a whole"],
)
def test_a_value_that_is_handed_over_is_seen(step):
    batches = [(X, np.zeros((len(X), 1), np.float32))]
    step = partial(step, penalty=0.0) if hasattr(step, "lower") else step
    assert "value_compiled_in" not in faults(step, begun(), batches)
