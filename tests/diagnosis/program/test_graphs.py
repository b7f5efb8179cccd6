"""Graphs whose nodes get other numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import line_of

from nnref.data.trees import layout_of
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.graphs import blind_to_themselves, renumbered_nodes
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
    assert layout is not None

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


def in_one_array(pool, edges):
    """The same with what each node says in front of its edges, in one array."""

    def apply(params, state, x, key, train):
        nodes, near = x[..., :3], x[..., 3:]
        h = jnp.tanh((near @ nodes) @ params["a"])
        return pool(h, params) @ params["b"], state

    rows = np.concatenate([FEATURES, edges], axis=2)
    return Recipe(
        init,
        apply,
        lambda o, y: optax.softmax_cross_entropy_with_integer_labels(o, y).mean(),
        train=(rows.astype(np.float32), LABELS),
        optimizer=optax.sgd(0.1),
    )


def test_edges_that_are_columns_of_the_nodes_and_divided_by_their_number():
    joined = EDGES + np.eye(NODES)
    means = joined / joined.sum(2, keepdims=True)
    (found,) = renumbered_nodes(AtStart(in_one_array(over_features, means)))
    assert (found.cause, found.severity) == ("inputs_misread", "fault")
    assert not [*renumbered_nodes(AtStart(in_one_array(over_nodes, means)))]
    series = np.abs(RANDOM.normal(size=means.shape))  # numbers of steps, none of which is 0
    assert not [*renumbered_nodes(AtStart(in_one_array(over_features, series)))]


def test_distances_between_all_nodes_are_edges_of_another_kind():
    """They join every pair, by the same number in both directions."""
    apart = np.abs(FEATURES[:, :, None] - FEATURES[:, None]).sum(-1)
    (found,) = renumbered_nodes(AtStart(recipe(over_features, apart)))
    assert found.confidence == 0.85  # nothing tells whether their numbers mean something


def convolved(edges, rows):
    """A graph of many whose edges are given, or one that is captured and whose nodes are rows."""
    given = edges if rows is None else jnp.asarray(edges)
    layout = layout_of({"edges": EDGES, "nodes": FEATURES}, "x")
    assert layout is not None

    def layer(h, w, joined):
        degrees = joined.sum(-1, keepdims=True)
        return jnp.tanh((joined / jnp.sqrt(degrees * degrees.swapaxes(-1, -2))) @ h @ w)

    def apply(params, state, x, key, train):
        graph = {"edges": given, "nodes": x} if rows else layout.unpack(x)
        joined = graph["edges"] + (0 if rows else given) * jnp.eye(NODES)
        return layer(layer(graph["nodes"], params["a"], joined), params["b"], joined), state

    packed = FEATURES[0] if rows else layout.pack({"edges": RING, "nodes": FEATURES}, "x")
    return Recipe(
        init,
        apply,
        lambda o, y: optax.softmax_cross_entropy_with_integer_labels(o, y).mean(),
        train=(packed, LABELS[:NODES] if rows else np.repeat(LABELS[:, None], NODES, 1)),
        optimizer=optax.sgd(0.1),
        inputs=None if rows else layout,
        rows=rows,
        batch_size=NODES,
    )


RING = np.maximum(EDGES, np.roll(np.eye(NODES), 1, 0) + np.roll(np.eye(NODES), 1, 1))
RING = RING.astype(np.float32)  # nobody is alone


@pytest.mark.parametrize(
    ("edges", "rows", "told"),
    [
        (0.0, None, True),
        (1.0, None, False),  # with an edge from each node to itself
        (RING[0], NODES, True),
        (RING[0] + np.eye(NODES, dtype=np.float32), NODES, False),
    ],
    ids=["given", "given, and themselves", "captured", "captured, and themselves"],
)
def test_nodes_that_see_their_neighbours_alone(edges, rows, told):
    found = [*blind_to_themselves(AtStart(convolved(edges, rows)))]
    assert [finding.cause for finding in found] == ["inputs_ignored"] * told
    assert all("nothing of itself" in finding.evidence for finding in found)


@pytest.mark.parametrize(("numbered", "confidence"), [(False, 0.95), (True, 0.85)])
def test_numbers_of_nodes_may_mean_something_where_one_has_more_edges(numbered, confidence):
    """The first node is joined to most others in every graph, as a hub that has this name."""
    edges = EDGES.copy()
    if numbered:
        edges[:, 0, 2:] = edges[:, 2:, 0] = 1
    (found,) = renumbered_nodes(AtStart(in_one_array(over_features, edges)))
    assert found.confidence == confidence
