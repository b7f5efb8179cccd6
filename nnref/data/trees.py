"""Rows that are trees: dicts and tuples of arrays as one array, and back."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.errors import UserError

Tree = Any
EXACT = 2**24  # whole numbers up to here are exact among fractions of single precision


class Layout(NamedTuple):
    """How a tree of arrays lies in one array, (rows, columns), whose columns are its numbers.

    A tree of one array keeps the shape of that array.
    """

    tree: Any
    names: tuple[str, ...]  # of its arrays
    shapes: tuple[tuple[int, ...], ...]  # of a row of each
    dtypes: tuple[Any, ...]

    @property
    def whole(self) -> bool:
        """Whether some of its arrays hold whole numbers, which no scaling may change."""
        return any(dtype.kind in "biu" for dtype in self.dtypes)

    @property
    def fractions(self) -> bool:
        """Whether some of its arrays hold fractions."""
        return any(dtype.kind not in "biu" for dtype in self.dtypes)

    @property
    def columns(self) -> list[str]:
        """What the columns are called: `image[3]`."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        pairs = zip(self.names, sizes, strict=True)
        return [f"{name}[{i}]" for name, size in pairs for i in range(size)]

    def pack(self, rows: Tree, what: str) -> np.ndarray:
        """Rows of this layout as one array.

        Raises:
            UserError: for rows of another layout, or whole numbers that fractions cannot hold.
        """
        here = layout_of(rows, what)
        if here is None or (here.tree, here.shapes) != (self.tree, self.shapes):
            given = "one array" if here is None else described(here)
            raise UserError(f"{what} is {given}; that of train is {described(self)}")
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(rows)]
        if len(leaves) == 1:
            return leaves[0]
        dtype = np.float32 if self.fractions else np.int32
        for leaf, name in zip(leaves, self.names, strict=True):
            if self.fractions and leaf.dtype.kind in "iu" and np.abs(leaf).max(initial=0) > EXACT:
                raise UserError(
                    f"{what}, {name!r} has whole numbers above 2^24; give their places: "
                    "np.unique(numbers, return_inverse=True)[1]"
                )
        return np.concatenate([leaf.reshape(len(leaf), -1).astype(dtype) for leaf in leaves], 1)

    def joined(self, rows: Tree) -> Any:
        """The same of a tree of JAX's arrays, while a program is traced."""
        leaves = jax.tree.leaves(rows)
        if len(leaves) == 1:
            return leaves[0]
        dtype = jnp.float32 if self.fractions else jnp.int32
        return jnp.concatenate([leaf.reshape(len(leaf), -1).astype(dtype) for leaf in leaves], 1)

    def unpack(self, packed: Any) -> Tree:
        """The tree of some rows."""
        if len(self.shapes) == 1:
            return jax.tree.unflatten(self.tree, [packed])
        if not self.fractions and not jnp.issubdtype(packed.dtype, jnp.integer):
            raise TypeError("rows of whole numbers take no fractions")
        leaves, at = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size = int(np.prod(shape))
            part = packed[:, at : at + size].reshape(len(packed), *shape)
            leaves.append(part != 0 if dtype.kind == "b" else part.astype(dtype))
            at += size
        return jax.tree.unflatten(self.tree, leaves)


def tree_of(rows: Any, what: str, count: int | None = None) -> Tree:
    """Rows as arrays, in a tree where they are several: a dict, or a tuple of arrays.

    A list of arrays is one array of rows, unless each of them has the `count` rows of the targets.

    Raises:
        UserError: for rows of different lengths.
    """
    if isinstance(rows, Mapping):
        return {name: tree_of(part, f"{what}, {name!r}", count) for name, part in rows.items()}
    if isinstance(rows, tuple) and hasattr(rows, "_fields"):
        return type(rows)(*(tree_of(part, what, count) for part in rows))
    if isinstance(rows, tuple) and all(is_rows(part) for part in rows):
        return tuple(tree_of(part, what, count) for part in rows)
    if isinstance(rows, list) and len(rows) != count:
        each = [len(part) if is_rows(part) else None for part in rows]
        if each and count is not None and each == [count] * len(rows):
            return tuple(tree_of(part, what, count) for part in rows)
    return as_array(rows, what)


def pair_of(name: str, rows: Any, whole: bool = False) -> tuple[Tree, Tree]:
    """Inputs and targets, arrays or trees of them, of what a user passes as rows.

    Without targets these are the inputs. With `whole` the rows, whatever they are, are the inputs
    of a loss that calls the network itself, and the targets serve nobody.

    Raises:
        UserError: for what is no pair.
    """
    if whole:
        x = tree_of(tuple(rows) if isinstance(rows, list) else rows, f"{name}")
        return x, np.zeros(len(jax.tree.leaves(x)[0]), np.float32)
    if not isinstance(rows, (tuple, list)) or len(rows) != 2:
        raise UserError(
            f"Task: {name} must be a pair (x, y), not {type(rows).__name__}; without targets it is "
            "(x, None)"
        )
    y = None if rows[1] is None else tree_of(rows[1], f"y of {name}")
    count = None if y is None else len(jax.tree.leaves(y)[0])
    x = tree_of(rows[0], f"x of {name}", count)
    return x, x if y is None else y


def is_rows(part: Any) -> bool:
    """Whether a part of a tuple is an array, or a tree of arrays."""
    return isinstance(part, Mapping | tuple) or getattr(part, "ndim", 0) > 0


def as_array(rows: Any, what: str) -> Any:
    """Rows as one array.

    Raises:
        UserError: for rows of different lengths.
    """
    if hasattr(rows, "shape"):
        return rows
    try:
        return np.asarray(rows)
    except ValueError:
        raise UserError(
            f"{what} has rows of different lengths; fill them up to the longest, and give "
            'the lengths or a mask beside them: {"tokens": ..., "mask": ...}'
        ) from None


def layout_of(rows: Tree, what: str) -> Layout | None:
    """The layout of a tree of rows; None for one array.

    Raises:
        UserError: for arrays of different lengths.
    """
    if not isinstance(rows, tuple | dict):
        return None
    leaves = jax.tree.leaves(rows)
    if not leaves or any(not leaf.ndim or len(leaf) != len(leaves[0]) for leaf in leaves):
        shapes = ", ".join(str(leaf.shape) for leaf in leaves) or "no array"
        raise UserError(f"{what} has arrays of shapes {shapes}; rows come first in each")
    paths = [path for path, _ in jax.tree.leaves_with_path(rows)]
    names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path in paths)
    dtypes = tuple(np.dtype(jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves)
    return Layout(jax.tree.structure(rows), names, tuple(leaf.shape[1:] for leaf in leaves), dtypes)


def described(layout: Layout) -> str:
    """A layout in words."""
    pairs = zip(layout.names, layout.shapes, strict=True)
    return ", ".join(f"{name} (rows, {', '.join(map(str, shape))})" for name, shape in pairs)
