"""Whether a network says which of two parts of a row stands first, as in ranking by pairs."""

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.trees import Layout
from nnref.diagnosis.program.at_start import AtStart, beside
from nnref.diagnosis.program.layers import products
from nnref.diagnosis.program.step import indices_into
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.thresholds import bound
from nnref.internals import last_rows

ROWS = 16  # that are asked about
PARTS = 8  # columns at most of which each pair is exchanged
MANY = 200  # rows at least, of which none by chance keeps below an id


class OneSided(NamedTuple):
    """Two columns that are looked up in one table, of which one keeps below an id."""

    table: str
    column: int  # that does so
    end: int  # the first id that it never holds
    other: int  # the column of all ids
    whole: int  # one more than the last of them


def takes_sides(recipe: Recipe) -> bool:
    """Whether the outputs change sides where two parts of a row change places.

    So does a difference of two scores, which changes its sign, and a score for each of several
    candidates. Such a network can give no constant but 0: that the first one is the better one is
    its target in every row, and which row holds which two is what it learns from.
    """
    x = np.asarray(recipe.train[0])[:ROWS]
    params, state = jax.jit(recipe.init)(jax.random.key(0))
    params, network = beside(params, 1.0, 0), jax.jit(recipe.apply, static_argnums=4)

    def answer(rows: np.ndarray) -> np.ndarray | None:
        leaves = jax.tree.leaves(network(params, state, jnp.asarray(rows), None, False)[0])
        by_row = len(leaves) == 1 and np.shape(leaves[0])[:1] == (len(x),)
        return np.asarray(leaves[0], float).reshape(len(x), -1) if by_row else None

    outputs = answer(x)
    if outputs is None or not np.isfinite(outputs).all():
        return False
    size = 1e-4 * np.abs(outputs).max()
    for exchanged in exchanges(x, recipe.inputs):
        other = answer(exchanged)
        if other is None or np.allclose(outputs, other, atol=size):
            continue
        sorts = (np.sort(each, axis=1) for each in (outputs, other))
        if np.allclose(outputs, -other, atol=size) or np.allclose(*sorts, atol=size):
            return True
    return False


def exchanges(x: np.ndarray, layout: Layout | None) -> Iterator[np.ndarray]:
    """Rows in which two parts of the same shape have changed places: columns, arrays or halves."""
    parts = [(at, at + 1) for at in range(x.shape[1] if x.ndim > 1 else 0)]
    if layout is not None and len(layout.shapes) > 1:
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in layout.shapes)]).tolist()
        parts = list(zip(ends, ends[1:], strict=False))
    elif len(parts) > PARTS and len(parts) % 2 == 0:
        parts = [(0, len(parts) // 2), (len(parts) // 2, len(parts))]
    if len(parts) > PARTS:
        return
    for number, (start, end) in enumerate(parts):
        for other, stop in parts[number + 1 :]:
            if stop - other == end - start:
                exchanged = x.copy()
                exchanged[:, start:end], exchanged[:, other:stop] = (
                    x[:, other:stop],
                    x[:, start:end],
                )
                yield exchanged


def one_sided(start: AtStart) -> Iterator[OneSided]:
    """Columns that hold ids from a short beginning of a table, beside one that holds all alike.

    Both are used evenly, so that it is no matter of what is frequent, and the column of all ids
    holds those of the beginning, too: two kinds of nodes may share a table.
    """
    x, traced = np.asarray(start.recipe.train[0]), start.sample.trace
    if x.ndim != 2 or x.shape[1] > PARTS or len(x) < MANY:
        return
    columns: dict[str, list[int]] = {}
    for op in [op for op, *_ in products(traced) if op.name == "gather"]:
        names = [
            traced.paths[v] for v in traced.arguments[0] if op.inputs[0] in traced.reached([v])
        ]
        if len(names) != 1 or len(last_rows(op.equation)) != 1:
            continue
        ids = indices_into(start, op, 1)[:, 0]
        asked = [c for c, of in enumerate(x[: len(ids)].T) if np.array_equal(of, ids)]
        columns.setdefault(names[0], []).extend(asked)
    for table, places in columns.items():
        for one, other in permutations(sorted(set(places)), 2):
            end, whole = (int(x[:, place].max()) + 1 for place in (one, other))
            below = float(np.mean(x[:, other] < end))
            alike = uneven(x[:, one], end), uneven(x[:, other], whole)
            if (
                end < bound("one side") * whole
                and max(alike) < bound("even")
                and 2 * below > end / whole
            ):
                yield OneSided(table, one, end, other, whole)


def uneven(ids: np.ndarray, end: int) -> float:
    """The largest distance of the shares of ids up to each one from those of ids drawn evenly."""
    drawn = (np.sort(ids) + 0.5) / end
    return float(np.abs(drawn - np.linspace(0, 1, len(ids))).max())
