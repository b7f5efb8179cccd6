"""A step and an evaluation tried with a few numbers: state, the batch, updates, domains."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside, drawn_like
from nnref.diagnosis.program.expectation import goal_of
from nnref.diagnosis.program.layers import products
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.diagnosis.thresholds import bound
from nnref.internals import last_rows, reduced_axes

FEW_ROWS = 2  # of a batch, up to which a normalization over it may leave nothing
SEVERAL = 16  # rows of labels that a loss is asked about


def statistics(start: AtStart) -> Iterator[Finding]:
    """Running statistics that evaluation reads and training never writes."""
    training, evaluation = start.training, start.sample.trace
    results = len(jax.tree.leaves(start.sample.tree))
    new = training.outputs[1 + results :]
    read = evaluation.needed(evaluation.outputs[:results])
    written = training.needed(training.outputs[: 1 + results])
    still = [
        training.paths[old]
        for old, result, place in zip(
            training.arguments[1], new, evaluation.arguments[1], strict=False
        )
        if old == result and place in read and old not in written
    ]
    if still and len(new) == len(training.arguments[1]):
        yield fault(
            "batch_statistics_not_updated",
            ", ".join(still),
            f"evaluation reads {', '.join(still)}; training uses the batch instead, and hands them "
            "back as they came",
            "unchanged by a training step",
        )
    elif len(new) == len(training.arguments[1]):
        yield from never_measured(start, new)


def never_measured(start: AtStart, new: list[int]) -> Iterator[Finding]:
    """Statistics that training itself normalizes by, that never change, and are still 0 and 1.

    Those of a network that was trained before are others, and may be frozen.
    """
    training = start.training
    read = training.needed(training.outputs[:1])
    still = [
        (training.paths[old], old, np.asarray(leaf))
        for old, result, leaf in zip(
            training.arguments[1], new, jax.tree.leaves(start.state), strict=True
        )
        if old == result and old in read and np.ndim(leaf)
    ]
    for path, old, leaf in still:
        root = root_of(training, old)
        if root and (leaf == 1).all() and any((other == 0).all() for _, _, other in still):
            yield divides_by_one(path, root.where, 0.9)
            return


def modes_of_layers(start: AtStart) -> Iterator[Finding]:
    """Layers that were handed over in evaluation mode, and are trained in it as they are."""
    layers = start.recipe.in_evaluation
    if layers:
        yield note(
            "training_in_evaluation_mode",
            ", ".join(layers),
            "the module was handed over with layers in evaluation mode, and they are trained in it",
        )


def root_of(traced: Trace, value: int) -> Operation | None:
    """The root of a running variance: what a normalization divides by."""
    passes = {"add", "broadcast_in_dim", "reshape", "max", "convert_element_type", "squeeze"}
    reached = traced.reached([value], lambda op: op.name in passes)
    roots = (
        op for op in traced.operations if op.name in ("rsqrt", "sqrt") and reached & set(op.inputs)
    )
    return next(roots, None)


def divides_by_one(path: str, where: str, confidence: float) -> Finding:
    """A running deviation that is 1 at every step, as it was made."""
    return fault(
        "batch_statistics_not_updated",
        f"{path}, {where}" if where else path,
        f"training divides by the running deviation {path}, which is 1 at every step, and hands it "
        "back as it came: nothing is normalized, training mode is evaluation mode",
        "unchanged by every step",
        remedy="training=True in the call of training (model.train() in NNX), and the new state "
        "carried to the next step",
        confidence=confidence,
    )


def batch_of_one(start: AtStart) -> Iterator[Finding]:
    """Batches so small that in training nothing is left of their rows: a mean of one is the row."""
    recipe, x = start.recipe, np.asarray(start.recipe.train[0])
    size = min(recipe.batch_size, len(x))
    if not recipe.modes or recipe.rows is not None or size > FEW_ROWS or len(x) < 4 * size:
        return
    batches = x[: 4 * size].reshape(4, size, *x.shape[1:])
    params = beside(start.params, 1.0, 0)

    def differ(train: bool) -> bool:
        """Whether another batch gives other outputs."""
        each = [
            np.asarray(jax.tree.leaves(start.network(params, start.state, rows, key, train)[0])[0])
            for rows in batches
        ]
        return not all(np.allclose(each[0], other, rtol=1e-4, atol=1e-5) for other in each[1:])

    key = jax.random.key(0)
    if differ(False) and not differ(True):
        yield fault(
            "inputs_ignored",
            f"batch_size={size}; {start.last}",
            f"in training mode, and batches of {size} row{'s' * (size > 1)}, the outputs are the "
            "same whatever the rows are: a row without the mean of its batch is nothing",
            "equal outputs for four batches",
            remedy="batch_size=32, or a normalization that takes each row by itself: LayerNorm, "
            "GroupNorm",
            confidence=0.95,
        )


def labels_below_zero(start: AtStart) -> Iterator[Finding]:
    """Labels such as -1, for what has none, that a loss counts from the end as a class."""
    rows = np.flatnonzero((start.targets.reshape(len(start.targets), -1) < 0).any(1))[:SEVERAL]
    y, width = start.targets[rows], start.width
    if not len(rows) or not np.issubdtype(y.dtype, np.integer) or width < 2 or y.min() < -width:
        return
    draw = np.random.default_rng(0).normal(size=(2, len(rows), *start.outputs.shape[1:]))
    one, other = draw.astype(np.float32)
    loss = jax.jit(start.recipe.loss)
    from_the_end = np.where(y < 0, y + width, y)
    same = np.allclose(loss(one, y), loss(one, from_the_end), rtol=1e-5)
    counted = not np.allclose(loss(one, y), loss(other, y), rtol=1e-5)
    if same and counted and not np.array_equal(loss(one, y), loss(one, np.where(y < 0, 0, y))):
        share = float((start.targets < 0).mean())
        yield fault(
            "loss_mismatch",
            start.loss_line,
            f"{share:.0%} of the labels are below 0, such as {y.min()}, and the loss counts them "
            f"from the end, as class {int(from_the_end[y < 0].max())}",
            f"the same loss with {y.min()} and {int(y.min()) + width}",
            healthy="labels that are left out",
            remedy="mask = y >= 0; jnp.sum(each * mask) / mask.sum()",
            confidence=0.95,
        )


def batch_scale(start: AtStart) -> Iterator[Finding]:
    """A loss that grows with the batch."""
    s, loss = start.sample, start.recipe.loss
    drawn = np.random.default_rng(0).uniform(0.2, 0.8, start.outputs.shape).astype(np.float32)
    single = float(jnp.asarray(jax.jit(loss)(drawn, s.y)).sum())
    twice = jax.jit(loss)(np.concatenate([drawn, drawn]), np.concatenate([s.y, s.y]))
    ratio = float(jnp.asarray(twice).sum()) / single if single else 1.0
    if abs(ratio - 2) > bound("twice the loss"):
        return
    swapped = axis_swapped(start)
    if swapped is not None:
        yield fault(
            "loss_axis_error",
            swapped.where or start.loss_line,
            f"the loss sums over the rows of the batch and divides by the {start.width} outputs: "
            "the two axes are swapped",
            "repeating the batch doubles the loss",
            healthy="the same loss",
            remedy="jnp.mean(jnp.sum(..., axis=-1))",
            confidence=0.85,
        )
        return
    rate, curvature = steepness(start)
    rows = min(start.recipe.batch_size, len(start.recipe.train[0]))
    unstable = rate * curvature > bound("curvature") and rows >= bound("summed rows")
    diverges = (
        f", and learning rate times curvature is {rate * curvature:.3g}; steps diverge above "
        f"{bound('curvature'):g}"
    )
    yield (fault if unstable else note)(
        "loss_summed_over_batch",
        start.loss_line,
        f"repeating the batch doubles the loss: it is a sum over {rows} rows"
        + (diverges if unstable else ""),
        f"{ratio:.3g} times the loss",
        confidence=0.9 if unstable else 0.4,
    )


def axis_swapped(start: AtStart) -> Operation | None:
    """A sum over the batch alone, the result of which is averaged over the outputs."""
    traced, width = start.loss, start.width
    outputs = traced.reached(traced.arguments[0])
    if width < 2:
        return None
    for op in traced.operations:
        inner = traced.shape(op.inputs[0]) if op.inputs else ()
        if (
            op.name == "reduce_sum"
            and op.inputs[0] in outputs
            and len(inner) > 1
            and reduced_axes(op.equation) == (0,)
            and traced.shape(op.outputs[0])[-1:] == (width,)
        ):
            after = traced.reached(op.outputs)
            divisors = [
                float(traced.constants[other.inputs[1]])
                for other in traced.operations
                if other.name == "div"
                and other.inputs[0] in after
                and np.size(traced.constants.get(other.inputs[1], ())) == 1
            ]
            if width in divisors and len(start.sample.x) != width:
                return op
    return None


def steepness(start: AtStart) -> tuple[float, float]:
    """The rate of plain gradient steps, 0 where the optimizer takes others, and the curvature.

    The curvature is the largest of the loss of a batch, by power iteration on its Hessian, at the
    first parameters or at a tenth of them: what starts saturated is flat only where it starts.
    """
    recipe = start.recipe
    first, second = (-ratio_of(start.step(scale), drawn_like(start.params)) for scale in (1.0, 2.0))
    if first <= 0 or not np.isclose(second, 2 * first, rtol=1e-3):
        return 0.0, 0.0
    x, y = (np.asarray(part)[: recipe.batch_size] for part in recipe.train)
    key = jax.random.key(0)

    def loss(params: Any) -> Any:
        outputs, _ = recipe.apply(params, start.state, x, key, True)
        return jnp.asarray(recipe.loss(outputs, y)).sum()

    def curvature(params: Any) -> Any:
        def turn(_: Any, direction: Any) -> Any:
            unit = jax.tree.map(lambda leaf: leaf / length(direction), direction)
            return jax.jvp(jax.grad(loss), (params,), (unit,))[1]

        return length(jax.lax.fori_loop(0, 12, turn, drawn_like(params)))

    smaller = jax.tree.map(lambda leaf: leaf / 10, start.params)
    curvatures = [float(jax.jit(curvature)(params)) for params in (start.params, smaller)]
    return first, max((c for c in curvatures if np.isfinite(c)), default=0.0)


def length(tree: Any) -> Any:
    """The Euclidean norm of a tree."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def ratio_of(update: Any, gradient: Any) -> float:
    """The part of an update along a gradient, in units of the gradient."""
    pairs = list(zip(jax.tree.leaves(update), jax.tree.leaves(gradient), strict=True))
    product = sum(float(np.vdot(np.asarray(u, float), np.asarray(g, float))) for u, g in pairs)
    return product / max(sum(float((np.asarray(g, float) ** 2).sum()) for _, g in pairs), 1e-30)


def domain_errors(start: AtStart) -> Iterator[Finding]:
    """Logarithms, roots and divisions that outputs within reach carry to the edge."""
    tail, y, outputs = start.sample.tail, start.sample.y, start.outputs
    goal = goal_of(y, start.form, outputs.shape)
    if tail is None or goal is None or start.form == "values" and not binary(y):
        return
    make, shape = tail
    if shape != outputs.shape:
        return
    sizes = np.array([2.0, 10.0, 20.0, 50.0, 120.0, 500.0])
    stack = sizes.reshape(-1, *[1] * outputs.ndim) * (2 * goal - 1)
    stack = np.concatenate([stack, -stack]).astype(np.float32)

    def loss(z: Any) -> Any:
        return jnp.asarray(start.recipe.loss(make(z), y)).sum().astype(jnp.float32)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(stack)
    fine = np.isfinite(values) & np.isfinite(slopes).reshape(len(stack), -1).all(1)
    fine = fine.reshape(2, -1).all(0)
    if fine.all() or not fine[0]:
        return
    first = sizes[~fine][0]
    line, name = edge(start, make, stack[np.flatnonzero(~fine)[0]])
    yield note(
        "numerical_instability",
        line or start.loss_line,
        f"where the last layer gives {first:g} the loss or its gradient is not finite"
        + (f": {name} meets the edge of its domain" if name else ""),
        f"finite up to {sizes[fine][-1]:g}",
        healthy=f"finite at {sizes[-1]:g}",
        remedy="a loss of logits (optax.softmax_cross_entropy, "
        "optax.sigmoid_binary_cross_entropy), or jnp.clip(p, 1e-7, 1 - 1e-7)",
        confidence=0.6 if first <= bound("domain") else 0.3,
    )


def binary(y: np.ndarray) -> bool:
    """Whether targets are zeros and ones alone."""
    return bool(np.isin(y, (0, 1)).all())


def edge(start: AtStart, make: Callable[[Any], Any], z: np.ndarray) -> tuple[str, str]:
    """Line and name of the first operation of the loss that gives something not finite."""
    traced = start.loss
    leaves = [make(z), *jax.tree.leaves(start.sample.y)]
    wanted = [op.outputs[0] for op in traced.operations]
    for op, value in zip(traced.operations, traced.evaluate(leaves, wanted), strict=True):
        if jnp.issubdtype(value.dtype, jnp.inexact) and not np.isfinite(value).all():
            return op.where, op.name
    return "", ""


def tables(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Indices into tables of parameters that lie outside of them."""
    traced = start.training if isinstance(start, LossAtStart) else start.sample.trace
    for op in [op for op, *_ in products(traced) if op.name == "gather"]:
        names = [
            traced.paths[v] for v in traced.arguments[0] if op.inputs[0] in traced.reached([v])
        ]
        limits = np.array(last_rows(op.equation))
        indices = indices_into(start, op, len(limits))
        outside = float(((indices < 0) | (indices > limits)).any(1).mean())
        if outside:
            yield fault(
                "inputs_ignored",
                op.where,
                f"{outside:.1%} of the indices into {', '.join(names)} lie outside its "
                f"{traced.shape(op.inputs[0])[0]} rows: they are clipped or become NaN "
                "without a word",
                f"indices {indices.min()} to {indices.max()}",
                healthy=f"0 to {limits[0]}",
                remedy=f"a table of {int(indices.max()) + 1} rows",
                confidence=0.9,
            )


def indices_into(start: AtStart | LossAtStart, op: Operation, axes: int) -> np.ndarray:
    """The indices with which training rows ask a table, (indices, axes)."""
    if isinstance(start, LossAtStart):
        leaves = jax.tree.leaves((*start.arguments, jax.random.key(0)))
        return np.asarray(start.training.evaluate(leaves, [op.inputs[1]])[0]).reshape(-1, axes)
    traced, rows = start.sample.trace, len(start.sample.x)

    def indices(x: Any) -> Any:
        leaves = jax.tree.leaves((start.params, start.state, x, jax.random.key(0)))
        return traced.evaluate(leaves, [op.inputs[1]])[0]

    x, compiled = np.asarray(start.recipe.train[0]), jax.jit(indices)
    batches = range(0, min(len(x), 256 * rows) - rows + 1, rows)
    return np.concatenate(
        [np.asarray(compiled(x[i : i + rows])).reshape(-1, axes) for i in batches]
    )
