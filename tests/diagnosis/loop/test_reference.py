"""The same loss in nnref's own loop, and when it is not asked."""

import jax
import jax.numpy as jnp
from loops import BATCHES, begun, drawn, network, plain

from nnref.diagnosis.loop import reference
from nnref.diagnosis.loop.running import Loop


def run(step, state):
    """A loop that has made its steps."""
    loop = Loop([step], state, BATCHES, None, jax.random.key(0), {}, 20)
    loop.run()
    return loop


@jax.jit
def game(state, batch):
    """The first lowers what both lose by, and the second raises it."""

    def loss(first, second):
        return jnp.mean((network(first, batch[0]) - network(second, batch[0])) ** 2)

    value, slope = jax.value_and_grad(loss)(state["first"], state["second"])
    first = jax.tree.map(lambda p, g: p - 0.1 * g, state["first"], slope)
    other, slope = jax.value_and_grad(lambda s: -loss(first, s))(state["second"])
    second = jax.tree.map(lambda p, g: p - 0.1 * g, state["second"], slope)
    return {"first": first, "second": second}, {"loss": value, "gain": other}


def test_a_game_of_two_is_not_held_against_a_loop_that_lowers_one_loss():
    assert reference.losses(run(game, {"first": drawn(0), "second": drawn(1)})) is None


def test_a_loop_of_one_loss_is():
    losses = reference.losses(run(plain, begun()))
    assert losses is not None
    assert len(losses) == 20
