"""Graphs: the numbers of their nodes say nothing, and no answer may change with them."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, beside
from nnref.diagnosis.program.layers import forward
from nnref.diagnosis.program.rows import Followed, Holds, alike, numbers

GRAPHS = 7  # that are looked at: a prime, which no other axis should have
FEWEST = 4  # nodes of what is called a graph


def renumbered_nodes(start: AtStart) -> Iterator[Finding]:
    """An answer that changes when the nodes of a graph get other numbers.

    Graphs are rows with a symmetric matrix of edges each, which is another one from row to row.
    Where it is the same one, a node may be the same thing in all of them, such as a sensor.
    """
    recipe = start.recipe
    if recipe.rows is not None or start.sample.outputs is None:
        return
    data = np.asarray(recipe.train[0])
    packed = data[np.linspace(0, len(data) - 1, min(GRAPHS, len(data))).round().astype(int)]
    layout = recipe.inputs
    leaves, tree = jax.tree.flatten(packed if layout is None else layout.unpack(packed))
    edges = [leaf for leaf in map(np.asarray, leaves) if are_edges(leaf)]
    if not edges or len(packed) < GRAPHS:
        return
    nodes = edges[0].shape[1]
    order = np.random.default_rng(0).permutation(nodes)
    moved = [renumbered(np.asarray(leaf), order) for leaf in leaves]
    other = moved[0] if layout is None else layout.joined(jax.tree.unflatten(tree, moved))
    params = beside(start.params, 1.0, 0)
    traced = forward(recipe, params, start.state, packed, train=False)
    results = traced.outputs[: len(traced.outputs) - len(jax.tree.leaves(start.state))]
    holds = nodes_move(order)
    after = start.network(params, start.state, other, jax.random.key(0), False)[0]
    before = start.network(params, start.state, packed, jax.random.key(0), False)[0]
    pairs = zip(*(map(numbers, jax.tree.leaves(each)) for each in (before, after)), strict=True)
    if all(holds(*pair) for pair in pairs):
        return
    broken = Followed(traced, params, start.state, packed, results).broken(other, holds)
    if broken is None:
        return
    operation, size = broken
    yield fault(
        "inputs_misread",
        (operation.where if operation else "") or start.last,
        f"the answer changes when the {nodes} nodes of a graph get other numbers, which say "
        "nothing: here something is weighed or ordered node by node",
        f"by {size:.2g} of the largest output",
        healthy="0",
        remedy=f"mean, sum or largest over the axis of the {nodes} nodes, and weights for features "
        "alone",
        confidence=0.85,
    )


def are_edges(leaf: np.ndarray) -> bool:
    """Whether an array holds a matrix of edges for each row, and not the same one for all."""
    if leaf.ndim != 3 or leaf.shape[1] != leaf.shape[2] or leaf.shape[1] < FEWEST:
        return False
    whole = (leaf == leaf.swapaxes(1, 2)).all() and (leaf >= 0).all()
    ends = np.diagonal(leaf, axis1=1, axis2=2)
    return bool(whole and (ends == ends.flat[0]).all() and (leaf != leaf[:1]).any())


def renumbered(leaf: np.ndarray, order: np.ndarray) -> np.ndarray:
    """An array of graphs, its first axis that of the rows, with its nodes in another order."""
    if leaf.shape[1:2] != order.shape:
        return leaf
    of_ends = leaf.take(order, 1)
    return of_ends.take(order, 2) if are_edges(leaf) else of_ends


def nodes_move(order: np.ndarray) -> Holds:
    """Whether a value stays the same, or moves with the nodes along one or two of its axes."""

    def holds(before: np.ndarray, after: np.ndarray) -> bool:
        axes = [axis for axis, size in enumerate(before.shape) if size == len(order)]
        for count in range(min(len(axes), 3) + 1):
            for some in combinations(axes, count):
                moved: Any = before
                for axis in some:
                    moved = moved.take(order, axis)
                if alike(moved, after).all():
                    return True
        return False

    return holds
