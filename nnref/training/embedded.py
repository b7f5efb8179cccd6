"""Embedding: columns of numbered categories become vectors in front of a network, trained along.

As in Guo and Berkhahn (2016), "Entity embeddings of categorical variables", section 3: a category k
of a column becomes the row E[k] of a matrix, which is a parameter like all others.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nnref.training.probes import LayerCall
from nnref.training.task import Functions

Array = jax.Array
Tree = Any


class Embedding(NamedTuple):
    """The first columns of the inputs are numbers of categories; each has a matrix of vectors.

    Attributes:
        names: of these columns.
        shapes: of their matrices, (categories, width). The last row stands for the rare ones.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]

    def widened(self, columns: int) -> int:
        """How many numbers a network sees of a row of so many columns."""
        return columns - len(self.shapes) + sum(width for _, width in self.shapes)

    def init(self, key: Array) -> dict[str, Array]:
        """Vectors of about the length 1, as rows of a 1 and zeros are; that of the rare ones 0."""
        keys = jax.random.split(key, len(self.shapes))
        drawn = {}
        for name, shape, one in zip(self.names, self.shapes, keys, strict=True):
            vectors = jax.random.normal(one, shape) / math.sqrt(shape[1])
            drawn[name] = vectors.at[-1].set(0)
        return drawn

    def __call__(self, vectors: Mapping[str, Array], x: Array) -> Array:
        """Inputs (batch, columns) with vectors in the place of numbers, (batch, widened)."""
        numbers = x[:, : len(self.names)].astype(jnp.int32)
        looked_up = [vectors[name][numbers[:, place]] for place, name in enumerate(self.names)]
        return jnp.concatenate([*looked_up, x[:, len(self.names) :].astype(jnp.float32)], axis=1)


def embedded(functions: Functions, embedding: Embedding) -> Functions:
    """Functions of a network that sees vectors, as functions of the columns of a table.

    The parameters are `{"embedding": {column: vectors}, "network": those of the network}`.
    """

    def init(key: Array) -> tuple[Tree, Tree]:
        params, state = functions.init(key)
        vectors = embedding.init(jax.random.fold_in(key, len(embedding.names)))
        return {"embedding": vectors, "network": params}, state

    def apply(params: Tree, state: Tree, x: Array, key: Array | None, train: bool) -> Any:
        seen = embedding(params["embedding"], x)
        return functions.apply(params["network"], state, seen, key, train)

    def adapt(params: Tree, state: Tree, x: Array) -> tuple[Tree, Tree]:
        assert functions.adapt is not None, "only what is there is called"
        seen = embedding(params["embedding"], x)
        network, state = functions.adapt(params["network"], state, seen)
        return {**params, "network": network}, state

    def layers(params: Tree, state: Tree, x: Array) -> dict[str, LayerCall]:
        assert functions.layers is not None, "only what is there is called"
        calls = functions.layers(params["network"], state, embedding(params["embedding"], x))
        return {f"network.{name}": layer for name, layer in calls.items()}

    penalty = functions.penalty
    return functions._replace(
        init=init,
        apply=apply,
        adapt=functions.adapt and adapt,
        layers=functions.layers and layers,
        penalty=penalty and (lambda params: penalty(params["network"])),
    )
