"""Graphs: the numbers of their nodes say nothing, and no answer may change with them."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import jax
import numpy as np

from nnref.data.trees import Layout
from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, beside
from nnref.diagnosis.program.layers import forward
from nnref.diagnosis.program.rows import Followed, Holds, alike, numbers
from nnref.diagnosis.thresholds import bound

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
    edges = [leaf for leaf in map(np.asarray, leaves) if edge_columns(leaf) is not None]
    if not edges or len(packed) < GRAPHS:
        return
    nodes = edges[0].shape[1]
    order = np.random.default_rng(0).permutation(nodes)
    moved = [renumbered(np.asarray(leaf), order) for leaf in leaves]
    other = moved[0] if layout is None else layout.joined(jax.tree.unflatten(tree, moved))
    params = beside(start.params, 1.0, 0)
    holds = nodes_move(order)
    after = start.network(params, start.state, other, jax.random.key(0), False)[0]
    before = start.network(params, start.state, packed, jax.random.key(0), False)[0]
    pairs = zip(*(map(numbers, jax.tree.leaves(each)) for each in (before, after)), strict=True)
    if all(holds(*pair) for pair in pairs):
        return
    traced = forward(recipe, params, start.state, packed, train=False)
    results = traced.outputs[: len(traced.outputs) - len(jax.tree.leaves(start.state))]
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
        confidence=0.95 if in_any_order(data, layout) else 0.85,
    )


def in_any_order(data: np.ndarray, layout: Layout | None) -> bool:
    """Whether nodes of one number have no more edges, over all graphs, than those of another.

    Where they have, as the regions of a brain or the first atoms of a molecule, a number may mean
    something. The mean edges of the numbers are held against their spread among the graphs.
    """
    leaves = jax.tree.leaves(data if layout is None else layout.unpack(data))
    pairs = [(leaf, edge_columns(leaf)) for leaf in map(np.asarray, leaves)]
    degrees = next((leaf[:, :, at] != 0).sum(2) for leaf, at in pairs if at is not None)
    within = degrees.var(0, ddof=1).mean() / len(degrees)
    return bool(degrees.mean(0).var(ddof=1) < bound("any order") * within)


def edge_columns(leaf: np.ndarray) -> slice | None:
    """Where an array, (rows, nodes, columns), holds a matrix of edges for each row.

    That may be the whole of it, or its first or last columns, beside what each node says.
    """
    if leaf.ndim != 3 or not FEWEST <= leaf.shape[1] <= leaf.shape[2]:
        return None
    nodes, columns = leaf.shape[1:]
    places = slice(0, nodes), slice(columns - nodes, columns)
    return next((place for place in places if are_edges(leaf[:, :, place])), None)


def are_edges(square: np.ndarray) -> bool:
    """Whether squares, one a row, are edges, each in both directions, and not the same in all rows.

    Their weights may be divided by the edges of a node, and then differ by direction.
    """
    whole = np.array_equal(square, square.swapaxes(1, 2)) and (square >= 0).all()
    seen = square if whole else square != 0
    ends = np.diagonal(seen, axis1=1, axis2=2)
    alike = (ends == ends.flat[0]).all() and (seen != seen[:1]).any()
    return bool(alike and (whole or few_both_ways(square)))


def renumbered(leaf: np.ndarray, order: np.ndarray) -> np.ndarray:
    """An array of graphs, its first axis that of the rows, with its nodes in another order."""
    if leaf.shape[1:2] != order.shape:
        return leaf
    of_ends, place = leaf.take(order, 1), edge_columns(leaf)
    if place is None:
        return of_ends
    of_ends[:, :, place] = of_ends[:, :, place].take(order, 2)
    return of_ends


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


def blind_to_themselves(start: AtStart) -> Iterator[Finding]:
    """Nodes of a graph that see their neighbours, and nothing of themselves.

    All edges are taken away, which leave the diagonal as it is: what each node says must still
    reach an output. Edges are few numbers of a symmetric square with nothing on its diagonal,
    given or captured, and whatever is made of them with the same places.
    """
    if start.sample.outputs is None:
        return
    x = np.asarray(start.sample.x)
    params = beside(start.params, 1.0, 0)
    traced = start.sample.trace
    rows = [value for argument in traced.arguments[2:-1] for value in argument]
    weights = traced.reached([value for argument in traced.arguments[:2] for value in argument])
    squares = [
        value
        for value in (
            *rows,
            *traced.constants,
            *(v for op in traced.operations for v in op.outputs),
        )
        if value not in weights and traced.shape(value)[-2:] == traced.shape(value)[-1:] * 2
        if len(traced.shape(value)) > 1 and traced.shape(value)[-1] >= FEWEST
    ]
    results = traced.outputs[: len(jax.tree.leaves(start.sample.tree))]

    def evaluated(x: np.ndarray, wanted: list[int], given: dict[int, Any]) -> list[np.ndarray]:
        leaves = jax.tree.leaves((params, start.state, x, jax.random.key(0)))
        return [numbers(value) for value in traced.evaluate(leaves, wanted, given)]

    pairs = zip(squares, evaluated(x, squares, {}), strict=True)
    edges = {value: number for value, number in pairs if joins_few(number)}
    uses = [op for op in traced.operations if op.where and edges.keys() & set(op.inputs)]
    if not edges or not uses:
        return
    whole = {v: number.astype(traced.avals[v].dtype) for v, number in edges.items()}
    none = {value: np.zeros_like(number) for value, number in whole.items()}
    other = np.roll(x, 1, axis=0)  # what other nodes say; the edges stay
    changed = [
        not all(map(np.array_equal, *(evaluated(rows, results, given) for rows in (x, other))))
        for given in (whole, none)
    ]
    if changed == [True, False]:
        yield fault(
            "inputs_ignored",
            uses[-1].where,
            "with the edges of the graph taken away no output depends on what its node says: a "
            "node sees its neighbours, and nothing of itself",
            "0 without edges",
            healthy="what a node says reaches its own output",
            remedy="edges + jnp.eye(nodes) before the degrees are taken, or a layer of the node's "
            "own beside that of its neighbours",
            confidence=0.8,
        )


def joins_few(square: np.ndarray) -> bool:
    """Whether numbers, (..., nodes, nodes), are edges: few, both ways, and none to itself."""
    return not np.diagonal(square, axis1=-2, axis2=-1).any() and few_both_ways(square)


def few_both_ways(square: np.ndarray) -> bool:
    """Whether few numbers, (..., nodes, nodes), are not 0, and then none is so in one direction."""
    there = square != 0
    both = np.array_equal(there, there.swapaxes(-1, -2))
    return bool(both and 0 < there.mean() < bound("few edges") and (square >= 0).all())
