"""Numbers of rows that are filled up with the number of a row."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import TX
from networks import line_of

import nnref

NODES, EDGES = 6, 30


def graphs(filling, seed):
    """Stars of unlike size around node 0, whose target is the sum of what its neighbours hold."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(32, NODES, 2)).astype(np.float32)
    senders = np.zeros((32, EDGES), np.int32)
    receivers = np.full((32, EDGES), filling, np.int32)
    y = np.zeros(32, np.float32)
    for row in range(32):
        size = rng.integers(2, NODES)
        senders[row, : size - 1], receivers[row, : size - 1] = np.arange(1, size), 0
        # Further ones that the target is not asked of.
        more = rng.integers(0, EDGES - size)
        senders[row, size - 1 :][:more], receivers[row, size - 1 :][:more] = 0, size - 1
        y[row] = kinds[row, 1:size, 0].sum()
    return {"kinds": kinds, "senders": senders, "receivers": receivers, "y": y}


def stepping(masked=False):
    @jax.jit
    def step(state, batch):
        def answer(params, kinds, senders, receivers):
            sent = (kinds @ params["sent"])[senders]
            if masked:
                sent = sent * (senders + receivers > 0)[:, None]
            inbox = jax.ops.segment_sum(sent, receivers, NODES)  # added up
            return (jnp.tanh(kinds @ params["own"]) @ params["head"] + inbox)[0, 0]

        def loss(params):
            parts = (batch[name] for name in ("kinds", "senders", "receivers"))
            answers = jax.vmap(lambda *p: answer(params, *p))(*parts)
            return jnp.mean((answers - batch["y"]) ** 2)

        value, slopes = jax.value_and_grad(loss)(state[0])
        updates, moments = TX.update(slopes, state[1])
        return (optax.apply_updates(state[0], updates), moments), value

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"own": (2, 8), "head": (8, 1), "sent": (2, 1)}
    params = {
        name: 0.3 * jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return step, (params, TX.init(params))


@pytest.mark.parametrize(
    ("filling", "masked", "counts"), [(0, False, True), (NODES, False, False), (0, True, False)]
)
def test_edges_that_fill_up_a_graph_and_lead_to_node_0(filling, masked, counts):
    batches = [graphs(filling, seed) for seed in range(8)]
    found = nnref.examine(*stepping(masked), batches, effort=0).found
    causes = [f.cause for f in found if f.severity == "fault"]
    assert causes == ["padding_counts"] * counts
    if counts:
        assert found[0].where.startswith("batch, receivers; ")
        assert found[0].where.endswith(f"test_filled_up.py:{line_of(__file__, 'added up')}")
        assert "of receivers are zeros behind the last one" in found[0].evidence
