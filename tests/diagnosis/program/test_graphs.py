"""Graphs whose nodes get other numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import line_of

from nnref.data.trees import layout_of
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.graphs import renumbered_nodes
from nnref.diagnosis.recipe import Recipe

RANDOM = np.random.default_rng(0)
NODES = 9
UPPER = np.triu(RANDOM.random((20, NODES, NODES)) < 0.3, 1)
EDGES = (UPPER | UPPER.swapaxes(1, 2)).astype(np.float32)
FEATURES = RANDOM.normal(size=(20, NODES, 3)).astype(np.float32)
LABELS = RANDOM.integers(0, 2, 20)


def init(key):
    one, two = jax.random.split(key)
    return {"a": jax.random.normal(one, (3, 8)), "b": jax.random.normal(two, (8, 2))}, {}


def recipe(pool, edges=EDGES):
    rows = {"edges": edges, "nodes": FEATURES}
    layout = layout_of(rows, "x")

    def apply(params, state, x, key, train):
        graph = layout.unpack(x)
        h = jnp.tanh((graph["edges"] @ graph["nodes"] + graph["nodes"]) @ params["a"])
        return pool(h, params) @ params["b"][: pool(h, params).shape[-1]], state

    return Recipe(
        init,
        apply,
        lambda o, y: optax.softmax_cross_entropy_with_integer_labels(o, y).mean(),
        train=(layout.pack(rows, "x"), LABELS),
        optimizer=optax.sgd(0.1),
        inputs=layout,
    )


def over_features(h, params):
    return h.mean(-1)[:, :8]  # the wrong axis


def over_nodes(h, params):
    return h.mean(1)


def test_a_mean_over_features_leaves_a_number_for_each_node():
    (found,) = renumbered_nodes(AtStart(recipe(over_features)))
    assert (found.cause, found.severity) == ("inputs_misread", "fault")
    assert found.where.endswith(f"test_graphs.py:{line_of(__file__, 'the wrong axis')}")
    assert "the 9 nodes" in found.evidence


@pytest.mark.parametrize(
    ("pool", "edges"),
    [
        (over_nodes, EDGES),
        (over_features, np.repeat(EDGES[:1], 20, 0)),  # one graph, whose nodes have names
        (over_features, EDGES - 1),  # no matrix of edges
        (over_features, UPPER.astype(np.float32)),  # of directed ones the check says nothing
    ],
)
def test_means_over_nodes_and_what_is_no_graph_of_numbered_nodes(pool, edges):
    assert not [*renumbered_nodes(AtStart(recipe(pool, edges)))]
