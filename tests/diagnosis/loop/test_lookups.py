"""Numbers of rows in a batch, and the rows that they reach."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import TX

import nnref

GRAPHS, NODES = 8, 6


def joined(offsets, seed, filling=0):
    """Rings of six nodes as one graph: kinds of the nodes, ends of the edges, one target each."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(GRAPHS * NODES, 3)).astype(np.float32)
    ring = np.arange(NODES)
    first = np.arange(GRAPHS)[:, None] * NODES if offsets else np.zeros((GRAPHS, 1), int)
    senders, receivers = (first + ring).ravel(), (first + np.roll(ring, 1)).ravel()
    y = kinds.reshape(GRAPHS, -1).sum(1)
    kinds = np.concatenate([kinds, np.zeros((filling, 3), np.float32)])
    return {
        "kinds": jnp.asarray(kinds),
        "senders": jnp.asarray(senders),
        "receivers": jnp.asarray(receivers),
        "y": jnp.asarray(y),
    }


@jax.jit
def step(state, batch):
    def loss(params):
        nodes = jnp.tanh(batch["kinds"] @ params["own"])
        sent = nodes[batch["senders"]] @ params["sent"]
        nodes = nodes + jax.ops.segment_sum(sent, batch["receivers"], len(nodes))
        of_graphs = nodes[: GRAPHS * NODES].reshape(GRAPHS, NODES, -1).sum(1)
        return jnp.mean((of_graphs @ params["head"] - batch["y"]) ** 2)

    value, gradient = jax.value_and_grad(loss)(state["params"])
    updates, opt_state = TX.update(gradient, state["opt_state"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "opt_state": opt_state}, value


@pytest.mark.parametrize(
    ("offsets", "filling", "told"),
    [(False, 0, True), (True, 0, False), (True, 60, False)],
    ids=["from 0 in each graph", "of the batch", "of the batch, which is filled up"],
)
def test_edges_reach_the_nodes_of_all_graphs(offsets, filling, told):
    random = np.random.default_rng(0)
    shapes = {"own": (3, 4), "sent": (4, 4), "head": (4,)}
    params = {n: jnp.asarray(random.normal(size=s) / 2, jnp.float32) for n, s in shapes.items()}
    state = {"params": params, "opt_state": TX.init(params)}
    batches = [joined(offsets, seed, filling) for seed in range(5)]
    found = nnref.examine(step, state, batches, effort=0)
    ignored = [f for f in found.faults if f.cause == "inputs_ignored"]
    assert bool(ignored) == told
    assert all("from 6 on" in f.evidence and "senders" in f.where for f in ignored)
