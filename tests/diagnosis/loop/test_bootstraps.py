"""Q-learning beyond the end of an episode, and flags that say nothing about an end."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import TX, drawn, first, network
from networks import line_of

import nnref

RANDOM = np.random.default_rng(0)


def transitions():
    x = RANDOM.normal(size=(16, 2)).astype(np.float32)
    following = x + 0.1 * RANDOM.normal(size=(16, 2)).astype(np.float32)
    fell = (RANDOM.uniform(size=16) < 0.3).astype(np.float32)
    return {"x": x, "next": following, "reward": following[:, 0], "fell": fell}


BATCHES = [transitions() for _ in range(8)]


def learning(goal):
    """A step that learns what comes, of `goal(online, target, batch)`, (rows,)."""

    @jax.jit
    def step(state, batch):
        def loss(params):
            values = network(params, batch["x"])[:, 0]
            return jnp.mean((values - goal(params, state["target"], batch)) ** 2)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, opt = TX.update(gradient, state["opt"])
        params = optax.apply_updates(state["params"], updates)
        target = optax.incremental_update(params, state["target"], 0.05)
        return {"params": params, "target": target, "opt": opt}, {"loss": value}

    return step, {"params": drawn(), "target": drawn(), "opt": TX.init(drawn())}


def after(params, batch):
    return network(params, batch["next"])[:, 0]


def of_a_target(online, target, batch):
    return batch["reward"] + 0.9 * after(target, batch)  # of_a_target


def stopped(online, target, batch):
    return jax.lax.stop_gradient(0.9 * after(online, batch) + batch["reward"])  # stopped


def ending(online, target, batch):
    return batch["reward"] + 0.9 * (1 - batch["fell"]) * after(target, batch)


def chosen(online, target, batch):
    goal = batch["reward"] + 0.9 * after(target, batch)
    return jnp.where(batch["fell"] > 0, batch["reward"], goal)


def discounted(online, target, batch):
    """What is left of the answer is said by another part than the flags."""
    return batch["reward"] + batch["left"] * after(target, batch)


def differences(online, target, batch):
    """Pairs of rows, as of siblings, whose difference is learned: gradients pass both."""
    return batch["reward"] + after(online, batch)


def at_once(online, target, batch):
    return batch["reward"] + 0.1 * batch["next"][:, 1]


@pytest.mark.parametrize("goal", [of_a_target, stopped])
def test_targets_that_go_on_beyond_the_end_of_an_episode(goal):
    found = first(*learning(goal), BATCHES)
    assert (found.cause, found.severity) == ("inputs_ignored", "fault")
    assert found.where.endswith(f"test_bootstraps.py:{line_of(__file__, goal.__name__)}")
    assert "no step looks at fell" in found.evidence


def renamed(batch):
    return {"success" if name == "fell" else name: part for name, part in batch.items()}


def with_the_rest(batch):
    return batch | {"left": 0.9 * (1 - batch["fell"])}


def in_thirds(batch):
    return batch | {"fell": np.arange(16) % 3}


@pytest.mark.parametrize(
    ("goal", "batches"),
    [
        (ending, BATCHES),
        (chosen, BATCHES),
        (discounted, [with_the_rest(batch) for batch in BATCHES]),
        (differences, BATCHES),
        (at_once, BATCHES),
        (of_a_target, [renamed(batch) for batch in BATCHES]),
        (of_a_target, [in_thirds(batch) for batch in BATCHES]),
    ],
)
def test_ends_that_are_looked_at_and_flags_that_are_none(goal, batches):
    found = nnref.examine(*learning(goal), batches, effort=0)
    assert not found.mistakes
    assert "inputs_ignored" not in [finding.cause for finding in found.faults]


def limited(batch):
    return batch | {"truncated": RANDOM.uniform(size=16) < 0.3}


def both(online, target, batch):
    done = jnp.maximum(batch["fell"], batch["truncated"])
    return batch["reward"] + 0.9 * (1 - done) * after(target, batch)


def weighed(online, target, batch):
    """Rows that a limit has cut count for nothing at all: a mask, and no end."""
    return jnp.where(batch["truncated"], network(online, batch["x"])[:, 0], 0) + jnp.where(
        batch["truncated"], 0, ending(online, target, batch)
    )


def traced_back(online, target, batch):
    """A limit cuts what is handed back from later rows, as in GAE; the value after it counts."""
    goal = ending(online, target, batch)
    return goal + 0.5 * (1 - batch["truncated"]) * jnp.roll(jax.lax.stop_gradient(goal), -1)


def test_a_limit_of_time_that_is_taken_for_an_end():
    batches = [limited(batch) for batch in BATCHES]
    found = first(*learning(both), batches)
    assert (found.cause, found.severity) == ("loss_mismatch", "fault")
    assert "leaves out what a network says of next" in found.evidence
    for goal in (ending, weighed, traced_back):
        found = nnref.examine(*learning(goal), batches, effort=0)
        assert not found.mistakes
        assert not found.faults
