"""A few rows of a recipe, its outputs for them, and the program that makes these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.targets import is_distribution, is_sharp
from nnref.diagnosis.program.layers import Layer, forward, layers_of
from nnref.diagnosis.program.tracing import Trace
from nnref.diagnosis.recipe import Recipe

ROWS = 8  # of a probe

# Outputs as a function of a value of the last layer, and the shape of this value.
Tail = tuple[Callable[[Any], Any], tuple[int, ...]]


@dataclass(frozen=True)
class Sample:
    """A recipe at its start, with a few rows.

    `tail` and `after_product` give the outputs for what the last layer makes, where they depend on
    nothing else of the data; None otherwise.
    """

    recipe: Recipe
    params: Any
    state: Any
    x: Any
    y: Any
    tree: Any  # of the outputs
    trace: Trace  # in evaluation mode
    layers: list[Layer]

    @property
    def outputs(self) -> np.ndarray | None:
        """The outputs, where they are one array with the rows first."""
        leaves = jax.tree.leaves(self.tree)
        if len(leaves) != 1 or np.shape(leaves[0])[:1] != (len(self.x),):
            return None
        return np.asarray(leaves[0], np.float64)

    @property
    def tail(self) -> Tail | None:
        """The outputs as a function of the last pre-activations, and the shape of these."""
        return self.outputs_from("before")

    @property
    def after_product(self) -> Tail | None:
        """The same as a function of the last product, before it is shifted or normalized."""
        return self.outputs_from("product")

    def outputs_from(self, place: Literal["before", "product"]) -> Tail | None:
        """The outputs as a function of a value of the last layer, and the shape of this."""
        outputs = self.trace.outputs[: len(jax.tree.leaves(self.tree))]
        layers = [layer for layer in self.layers if not layer.looped]
        if not layers or len(outputs) != 1:
            return None
        cut = layers[-1].before if place == "before" else layers[-1].product
        data = set(self.trace.arguments[2])
        if data & self.trace.needed(outputs, [cut]) or cut not in self.trace.needed(outputs):
            return None
        leaves = jax.tree.leaves((self.params, self.state, self.x, jax.random.key(0)))
        dtype = self.trace.avals[cut].dtype

        def tail(z: Any) -> Any:
            return self.trace.evaluate(leaves, outputs, {cut: jnp.asarray(z, dtype)})[0]

        return tail, self.trace.shape(cut)


def sample(
    recipe: Recipe, params: Any, state: Any, rows: int = ROWS, *, pairs: bool = False
) -> Sample:
    """A few rows of a recipe, chosen over the whole range of its targets.

    By `pairs` each stands beside the one whose target is next to its own: the same one, of classes.
    """
    x, y = recipe.train
    rows = recipe.rows or rows
    order = np.argsort(target_order(y), kind="stable")
    places = np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)
    if pairs and rows > 1:
        places[1::2] = (places[:-1:2] + 1) % len(order)
    chosen = order[places]
    x, y = np.asarray(x)[chosen], np.asarray(y)[chosen]
    traced = forward(recipe, params, state, x)
    outputs, _ = jax.jit(recipe.apply, static_argnums=4)(params, state, x, jax.random.key(0), False)
    return Sample(recipe, params, state, x, y, outputs, traced, layers_of(traced))


def target_order(y: Any) -> np.ndarray:
    """A number for each row by which to sort: the class of a one-hot row, or the first target."""
    flat = np.asarray(y, np.float64).reshape(len(y), -1)
    return flat.argmax(1) if is_distribution(np.asarray(y)) and is_sharp(y) else flat[:, 0]
