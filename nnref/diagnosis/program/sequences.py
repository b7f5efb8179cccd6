"""Steps of a sequence: which step of the targets an output is held against, and what it may see."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.data.targets import is_one_hot
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, beside
from nnref.diagnosis.program.attention import other_axis
from nnref.diagnosis.program.ignored import contents, filler_of
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.thresholds import bound

FEWEST = 4  # steps of what is called a sequence
ROWS = 8  # that a loss is asked with
KEY = jax.random.key(0)


def lag_of_loss(recipe: Recipe, outputs: tuple[int, ...]) -> int | None:
    """How many steps of the targets lie between an output and the target it is held against.

    0 where output t meets target t, 1 where the loss moves the targets by one itself. Found by
    changing one step of the targets: the gradient of one step of the outputs changes with it. None
    where that is not so, or the targets are no sequence of outputs of this shape.
    """
    y = np.asarray(recipe.train[1])[: min(ROWS, outputs[0])]
    if y.ndim < 2 or y.shape[1] < FEWEST or len(y) < 2 or outputs[1:2] != y.shape[1:2]:
        return None
    drawn = np.random.default_rng(0).uniform(0.2, 0.8, (len(y), *outputs[1:])).astype(np.float32)
    slopes = jax.jit(jax.grad(lambda o, y: jnp.asarray(recipe.loss(o, y)).sum()))
    step = y.shape[1] // 2
    other = np.array(y)
    other[:, step] = np.roll(y, 1, 0)[:, step]
    if np.array_equal(other, y):
        return None
    moved = np.asarray(slopes(drawn, other)) != np.asarray(slopes(drawn, y))
    steps = np.flatnonzero(np.moveaxis(moved, 1, 0).reshape(y.shape[1], -1).any(1))
    return step - int(steps[0]) if len(steps) == 1 else None


def lag_of_data(x: np.ndarray, y: np.ndarray) -> int | None:
    """By how many steps the inputs are ahead of the targets that are a copy of them, 0 to 3."""
    if y.ndim == x.ndim + 1 and is_one_hot(y):
        y = y.argmax(-1)
    if x.ndim < 2 or y.shape != x.shape or x.shape[1] < FEWEST:
        return None
    if np.mean(x[:, 1:] == x[:, :-1]) > bound("still steps"):
        return None
    steps = x.shape[1]
    for lag in range(min(4, steps - 1)):
        if np.mean(y[:, : steps - lag] == x[:, lag:]) >= bound("shift by one"):
            return lag
    return None


def aligned(recipe: Recipe) -> Recipe:
    """The same recipe with targets beside the outputs that they are for.

    A loss may move the targets by some steps itself, as those of language models do, that take the
    inputs for labels. What is scored must be moved, too. Labels that no output is for become -1.
    """
    x, y = (np.asarray(part) for part in recipe.train)
    if y.ndim != 2 or y.dtype.kind not in "iu" or len(x) < 2 or y.shape[1] < FEWEST:
        return recipe
    rows = recipe.rows or min(ROWS, len(x))

    def outputs(key: Any, x: Any) -> Any:
        params, state = recipe.init(key)
        return recipe.apply(params, state, x, key, False)[0]

    leaves = jax.tree.leaves(jax.eval_shape(outputs, jax.random.key(0), x[:rows]))
    lag = lag_of_loss(recipe, leaves[0].shape) if len(leaves) == 1 else None
    if not lag or lag < 0 or lag_of_data(x, y):
        return recipe

    def ahead(y: Any) -> Any:
        y = np.asarray(y)
        rest = np.full((len(y), lag), -1, np.int32)
        return np.concatenate([y[:, lag:].astype(np.int32), rest], 1)

    def loss(outputs: Any, y: Any) -> Any:
        return recipe.loss(outputs, jnp.concatenate([jnp.zeros_like(y[:, :lag]), y[:, :-lag]], 1))

    splits = {"train": recipe.train, "valid": recipe.valid, "test": recipe.test}
    moved = {k: (part[0], ahead(part[1])) for k, part in splits.items() if part is not None}
    return replace(recipe, loss=loss, setup=None, **moved)


def shifted_twice(start: AtStart) -> Iterator[Finding]:
    """Targets that are the inputs moved ahead already, under a loss that moves them once more."""
    if start.sample.outputs is None:
        return
    x, y = np.asarray(start.sample.x), np.asarray(start.sample.y)
    of_data = lag_of_data(x, y)
    of_loss = lag_of_loss(start.recipe, start.outputs.shape) if of_data else None
    if of_data and of_loss and of_loss > 0:
        targets = set(start.loss.arguments[1])
        cuts = [
            op.where
            for op in start.loss.operations
            if op.name in ("slice", "gather", "dynamic_slice") and targets & set(op.inputs)
        ]
        yield fault(
            "loss_mismatch",
            next(filter(None, cuts), start.loss_line),
            f"the targets are the inputs moved ahead by {of_data}, and the loss holds output t "
            f"against target t + {of_loss}: the network learns what comes {of_data + of_loss} "
            f"steps later, not {of_data}",
            f"moved by {of_data} and by {of_loss}",
            healthy="moved once",
            remedy="loss(outputs, y) without logits[:, :-1] and y[:, 1:], or y = x as targets",
            confidence=0.95,
        )


def places_given(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Parts of the inputs that equal the targets, place for place: in words, and as an index."""
    steps, every = y.shape[1], slice(None)
    if x.ndim == 3 and x.shape[2] == steps:
        yield from ((f"x[:, {i}]", (every, i)) for i in range(x.shape[1]))
    if x.ndim == 3 and x.shape[1] == steps:
        yield from ((f"x[:, :, {i}]", (every, every, i)) for i in range(x.shape[2]))
    if x.ndim == 2 and x.shape[1] > steps:
        for at in range(x.shape[1] - steps + 1):
            yield f"x[:, {at}:{at + steps}]", (every, slice(at, at + steps))


def given_away(start: AtStart) -> Iterator[Finding]:
    """Targets that stand in a part of the inputs, place for place, where each output reads them."""
    x, y = (np.asarray(part) for part in start.recipe.train)
    if y.ndim == 3 and is_one_hot(y):
        y = y.argmax(-1)
    if y.ndim != 2 or y.shape[1] < FEWEST - 1 or (y == y[:1]).all():
        return
    outputs = start.sample.outputs
    if outputs is None or outputs.shape[1:2] != y.shape[1:]:
        return
    for name, part in places_given(x, y):
        if np.mean(x[part] == y) < bound("shift by one"):
            continue
        rows = np.array(start.sample.x)
        step = y.shape[1] // 2
        place = rows[part]  # a view
        place[:, step] = np.roll(place[:, step], 1, 0)
        key = jax.random.key(0)
        tree, _ = start.network(start.params, start.state, rows, key, False)
        moved = np.abs(np.asarray(jax.tree.leaves(tree)[0], np.float64) - outputs)[:, step]
        share = float(moved.max()) / max(float(np.abs(outputs).max()), 1e-30)
        if share > bound("batch dependence"):
            yield fault(
                "leaked_targets",
                f"{name}, {start.last}",
                f"{name} is the targets, place for place, and the output at a place changes with "
                "what stands there: the network copies what it is to predict",
                f"by {share:.2g} of the largest output",
                healthy="0",
                remedy="what is fed moves to the right by one, behind a start token: "
                "fed = jnp.concatenate([start, y[:, :-1]], axis=1)",
                confidence=0.95,
            )
            return


def seen_ahead(start: AtStart, outputs: np.ndarray) -> float:
    """By how much of the largest output those of early steps change with later steps.

    Args:
        start: the recipe.
        outputs: of its sample, (rows, steps, ...).
    """
    x = np.asarray(start.sample.x)
    half = x.shape[1] // 2
    other = np.array(x)
    other[:, half:] = np.roll(x, 1, 0)[:, half:]
    tree, _ = start.network(start.params, start.state, other, jax.random.key(0), False)
    moved = np.abs(np.asarray(jax.tree.leaves(tree)[0], np.float64) - outputs)[:, :half]
    return float(moved.max()) / max(float(np.abs(outputs).max()), 1e-30)


def future_leakage(start: AtStart) -> Iterator[Finding]:
    """Outputs along a sequence that change with what comes later, where that is the target."""
    s, outputs = start.sample, start.sample.outputs
    x, y = np.asarray(s.x), np.asarray(s.y)
    # Where a loss moves the targets itself they are moved already: the last one asks for nothing.
    known = y[:, :-1] if y.ndim == 2 and y.shape == x.shape and (y[:, -1] == -1).all() else None
    following = lag_of_data(x, y if known is None else np.concatenate([known, x[:, -1:]], 1))
    if outputs is None or following != 1 or outputs.shape[:2] != x.shape[:2]:
        return
    share = seen_ahead(start, outputs)
    if share > bound("batch dependence"):
        through = next(other_axis(start), None)
        yield fault(
            "leaked_targets",
            start.last if through is None else through.where,
            "each target is the next step of the inputs, and the outputs before it change with "
            "it: the network reads what it is to predict, and knows nothing where that is missing"
            + ("" if through is None else ". The weights of its attention sum to 1 over queries"),
            f"by {share:.2g} of the largest output",
            healthy="0",
            remedy="a causal mask, jnp.tril(jnp.ones((steps, steps))), one direction, or padding "
            "on the left alone"
            if through is None
            else through.remedy,
            confidence=0.95,
        )


ANOTHER_ANSWER = "another answer"  # healthy, where steps change their order


def order_of_steps(start: AtStart) -> Iterator[Finding]:
    """A note where the steps of a sequence may stand in any order, and the answer stays the same.

    It is the fault where nothing else is found and simple models find more, as behind an attention
    without positions.
    """
    x, params = np.asarray(start.sample.x), beside(start.params, 1.0, 0)
    if x.ndim < 2 or x.shape[1] < FEWEST or (x.ndim == 2 and x.dtype.kind == "f"):
        return

    def outputs(x: np.ndarray) -> np.ndarray:
        (leaf,) = jax.tree.leaves(start.network(params, start.state, x, KEY, False)[0])
        return np.asarray(leaf, np.float64)

    before, random = outputs(x), np.random.default_rng(0)
    size = np.abs(before).max(initial=1e-30)
    if np.ptp(before, axis=0).max(initial=0) < bound("batch dependence") * size:
        return  # the same answer to all rows
    along = before.ndim > 1 and before.shape[1] == x.shape[1]
    says = np.asarray(contents(x, filler_of(x)).reshape(*x.shape[:2], -1).any(2))
    for _ in range(3):
        order = reordered(says, random)
        after = outputs(taken(x, order))
        for same in (before, taken(before, order) if along else before):
            apart = np.abs(after - same)[says] if along else np.abs(after - same)
            if apart.max(initial=0) < bound("batch dependence") * size:
                break
        else:
            return
    yield note(
        "inputs_ignored",
        start.last,
        "the steps of the inputs may stand in any order, and the answer stays the same: nothing "
        "tells the network where a step stands",
        "0 in three orders",
        healthy=ANOTHER_ANSWER,
        remedy="add what tells the places to the embeddings: x + positions[:steps], or read the "
        "steps in order",
        confidence=0.5,
    )


def reordered(says: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An order of the steps of each row, (rows, steps), that leaves its filling where it stands.

    A place may be told there alone, and the network still not know where a step stands.
    """
    order = np.tile(np.arange(says.shape[1]), (len(says), 1))
    for row, mine in zip(order, says, strict=True):
        row[mine] = random.permutation(row[mine])
    return order


def taken(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Values, (rows, steps, ...), with the steps of each row in another order."""
    return values[np.arange(len(values))[:, None], order]


def scattered_steps(start: AtStart) -> Iterator[Finding]:
    """Outputs of neighbouring steps that see parts of the inputs that are no neighbours.

    So it is behind a reshape that should have been preceded by an exchange of axes: (bands, steps)
    cut into steps are pieces of bands.
    """
    x, outputs = np.asarray(start.sample.x), start.outputs
    steps = outputs.shape[1] if outputs.ndim > 1 else 0
    axes = [axis for axis, size in enumerate(x.shape) if axis and size == steps]
    if steps < 2 * FEWEST or len(axes) != 1 or x.dtype.kind != "f" or x.ndim < 3:
        return
    params, first = beside(start.params, 1.0, 0), steps // 2 - FEWEST // 2

    def of_step(x: Any, step: int) -> Any:
        (leaf,) = jax.tree.leaves(start.network(params, start.state, x, KEY, False)[0])
        return jnp.sum(jnp.take(leaf, step, axis=1))

    slopes = jax.jit(jax.grad(of_step))
    seen = []
    for step in range(first, first + FEWEST):
        moved = np.any(np.asarray(slopes(x, step)) != 0, axis=0)
        seen.append(np.roll(np.moveaxis(moved, axes[0] - 1, 0), steps // 2 - step, axis=0))
    if not all(part.any() for part in seen):
        return  # outputs that see nothing are another fault
    alike = [(a & b).sum() / (a | b).sum() for a, b in itertools.pairwise(seen)]
    if max(alike) < bound("alike steps"):
        yield fault(
            "inputs_misread",
            start.last,
            f"outputs of neighbouring steps look at parts of the inputs that have {max(alike):.0%} "
            f"in common, counted from their own step: the steps, axis {axes[0]}, were cut into "
            "pieces on the way",
            f"{max(alike):.0%} in common",
            healthy="the same places before and behind its own step for each",
            remedy="exchange the axes before the reshape: jnp.moveaxis(x, "
            f"{axes[0]}, 1).reshape(len(x), {steps}, -1), or keras.layers.Permute",
            confidence=0.9,
        )
