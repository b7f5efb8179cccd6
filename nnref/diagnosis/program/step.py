"""A step and an evaluation, asked with a few numbers: state, keys, rows, updates, edges."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.data.targets import exclusive
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.program.at_start import Look, LossLook, drawn_like
from nnref.diagnosis.program.expectation import goal_of
from nnref.diagnosis.program.layers import products
from nnref.diagnosis.program.tracing import Operation
from nnref.internals import last_rows, reduced_axes

DRAWS = {"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"}


def statistics(look: Look) -> list[Finding]:
    """Running statistics that evaluation reads and training never writes."""
    training, evaluation = look.training, look.sample.trace
    new = training.outputs[1 + len(jax.tree.leaves(look.sample.outputs)) :]
    results = len(jax.tree.leaves(look.sample.outputs))
    read = evaluation.needed(evaluation.outputs[:results])
    written = training.needed(training.outputs[: 1 + results])
    still = [
        training.paths[old]
        for old, result, place in zip(
            training.arguments[1], new, evaluation.arguments[1], strict=False
        )
        if old == result and place in read and old not in written
    ]
    if not still or len(new) != len(training.arguments[1]):
        return []
    return [
        Finding(
            "batch_statistics_not_updated",
            "fault",
            ", ".join(still),
            f"evaluation reads {', '.join(still)}; training uses the batch instead, and hands them "
            "back as they came",
            measured="unchanged by a training step",
            healthy="a running mean of the batches",
            remedy="return the new state from apply and carry it to the next step",
        )
    ]


def randomness(look: Look) -> list[Finding]:
    """Random numbers in evaluation; random numbers that are the same at every step."""
    evaluation = look.sample.trace
    results = len(jax.tree.leaves(look.sample.outputs))
    found = []
    reading = evaluation.needed(evaluation.outputs[:results])
    drawn = [op for op in evaluation.operations if op.name in DRAWS and reading & set(op.outputs)]
    if drawn and look.subject.modes:
        found.append(
            Finding(
                "excessive_dropout",
                "note",
                drawn[-1].where,
                "evaluation draws random numbers: dropout or noise acts there too",
                measured="outputs depend on a key",
                healthy="evaluation is the same each time",
                remedy="leave dropout out where train is False",
                confidence=0.7,
            )
        )
    return found + one_draw(look)


def one_draw(look: Look | LossLook) -> list[Finding]:
    """Random numbers that are the same at every step."""
    training = look.training
    reading = training.needed(training.outputs[:1])
    fresh = training.reached(training.arguments[4] + training.arguments[1])
    stale = [
        op
        for op in training.operations
        if op.name in DRAWS and reading & set(op.outputs) and not fresh & set(op.inputs)
    ]
    if not stale:
        return []
    return [
        Finding(
            "excessive_dropout",
            "note",
            stale[-1].where,
            "the random numbers of training come from a key that never changes: the same units "
            "are dropped at every step",
            measured="no path from the step's key",
            healthy="another key at every step",
            remedy="take a key as argument, and draw with it",
            confidence=0.7,
        )
    ]


def mates(look: Look) -> list[Finding]:
    """Rows whose answer depends on the other rows of their batch, in evaluation."""
    s = look.sample
    if len(s.x) < 3 or s.answers is None:
        return []
    others = np.array(s.x)
    others[1:] = np.roll(np.asarray(s.x), 1, 0)[1:] + others.std(0).astype(others.dtype)
    apply = jax.jit(look.subject.apply, static_argnums=4)
    key = jax.random.key(0)
    first, second = (
        np.asarray(apply(look.params, look.state, x, key, False)[0], np.float64)[0]
        for x in (s.x, others)
    )
    scale = max(float(np.abs(look.answers).max()), 1e-30)
    moved = float(np.abs(first - second).max()) / scale
    if not moved > bound("mates"):
        return []
    rows = len(s.x)
    over_rows = [
        op
        for op in s.trace.operations
        if op.name in ("reduce_sum", "reduce_max")
        and 0 in reduced_axes(op.equation)
        and s.trace.shape(op.inputs[0])[:1] == (rows,)
        and any(
            before.name == "exp" and op.inputs[0] in before.outputs for before in s.trace.operations
        )
    ]
    return [
        Finding(
            "loss_axis_error",
            "fault" if over_rows else "note",
            over_rows[0].where if over_rows else look.last,
            "in evaluation the answer for a row changes with the other rows of its batch"
            + (": a softmax runs over the batch" if over_rows else ""),
            measured=f"by {moved:.2g} of the largest output",
            healthy="0",
            remedy="axis=-1 instead of axis=0"
            if over_rows
            else "use running statistics in evaluation",
            confidence=0.9 if over_rows else 0.5,
        )
    ]


def ahead(look: Look) -> list[Finding]:
    """Answers along a sequence that change with what comes later, where that is the target."""
    s, answers = look.sample, look.sample.answers
    x, y = np.asarray(s.x), np.asarray(s.y)
    if y.ndim == x.ndim + 1 and exclusive(y):
        y = y.argmax(-1)
    if answers is None or x.ndim < 2 or y.shape != x.shape or answers.shape[:2] != x.shape[:2]:
        return []
    steps = x.shape[1]
    following = np.mean(y[:, :-1] == x[:, 1:])
    if steps < 4 or following < bound("shift by one") or np.mean(x[:, 1:] == x[:, :-1]) > 0.5:
        return []
    half = steps // 2
    other = np.array(x)
    other[:, half:] = np.roll(x, 1, 0)[:, half:]
    apply = jax.jit(look.subject.apply, static_argnums=4)
    told = apply(look.params, look.state, other, jax.random.key(0), False)[0]
    moved = np.abs(np.asarray(jax.tree.leaves(told)[0], np.float64) - answers)[:, :half]
    share = float(moved.max()) / max(float(np.abs(answers).max()), 1e-30)
    if not share > bound("mates"):
        return []
    return [
        Finding(
            "leaked_targets",
            "fault",
            look.last,
            "each target is the next step of the inputs, and the answers before it change with "
            "it: the network reads what it is to tell, and knows nothing where that is not there",
            measured=f"by {share:.2g} of the largest output",
            healthy="0",
            remedy="a causal mask, jnp.tril(jnp.ones((steps, steps))), one direction, or padding "
            "on the left alone",
            confidence=0.95,
        )
    ]


def batch_scale(look: Look) -> list[Finding]:
    """A loss that grows with the batch."""
    s, loss = look.sample, look.subject.loss
    drawn = np.random.default_rng(0).uniform(0.2, 0.8, look.answers.shape).astype(np.float32)
    single = float(jnp.asarray(jax.jit(loss)(drawn, s.y)).sum())
    twice = jax.jit(loss)(np.concatenate([drawn, drawn]), np.concatenate([s.y, s.y]))
    ratio = float(jnp.asarray(twice).sum()) / single if single else 1.0
    if abs(ratio - 2) > 0.01:
        return []
    width = look.answers.shape[-1] if look.answers.ndim > 1 else 1
    wrong = axis_swapped(look, width)
    if wrong is not None:
        return [
            Finding(
                "loss_axis_error",
                "fault",
                wrong.where or look.loss_line,
                f"the loss sums over the rows of the batch and divides by the {width} outputs: the "
                "two axes are swapped",
                measured="repeating the batch doubles the loss",
                healthy="the same loss",
                remedy="jnp.mean(jnp.sum(..., axis=-1))",
                confidence=0.85,
            )
        ]
    rate, curvature = steepness(look)
    rows = min(look.subject.batch_size, len(look.subject.train[0]))
    unstable = rate * curvature > bound("curvature") and rows >= bound("summed rows")
    return [
        Finding(
            "loss_summed_over_batch",
            "fault" if unstable else "note",
            look.loss_line,
            f"repeating the batch doubles the loss: it is a sum over {rows} rows"
            + (
                f", and learning rate times curvature is {rate * curvature:.3g}; steps diverge "
                "above 2"
                if unstable
                else ""
            ),
            measured=f"{ratio:.3g} times the loss",
            healthy="the same loss",
            remedy="jnp.mean over the rows, not jnp.sum",
            confidence=0.9 if unstable else 0.4,
        )
    ]


def axis_swapped(look: Look, width: int) -> Operation | None:
    """A sum over the batch alone, the result of which is averaged over the outputs."""
    traced = look.loss
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
            divided = [
                float(traced.constants[place.inputs[1]])
                for place in traced.operations
                if place.name == "div"
                and place.inputs[0] in after
                and np.size(traced.constants.get(place.inputs[1], ())) == 1
            ]
            if any(by == width for by in divided) and len(look.sample.x) != width:
                return op
    return None


def steepness(look: Look) -> tuple[float, float]:
    """The rate of plain gradient steps, 0 where the optimizer takes others, and the curvature.

    The curvature is the largest of the loss of a batch, by power iteration on its Hessian, at the
    first parameters or at a tenth of them: what starts saturated is flat only where it starts.
    """
    subject = look.subject
    first, second = (-ratio_of(look.step(scale), drawn_like(look.params)) for scale in (1.0, 2.0))
    if first <= 0 or not np.isclose(second, 2 * first, rtol=1e-3):
        return 0.0, 0.0
    x, y = (np.asarray(part)[: subject.batch_size] for part in subject.train)
    key = jax.random.key(0)

    def loss(params: Any) -> Any:
        outputs, _ = subject.apply(params, look.state, x, key, True)
        return jnp.asarray(subject.loss(outputs, y)).sum()

    def curvature(params: Any) -> Any:
        def turn(_: Any, direction: Any) -> Any:
            unit = jax.tree.map(lambda leaf: leaf / length(direction), direction)
            return jax.jvp(jax.grad(loss), (params,), (unit,))[1]

        return length(jax.lax.fori_loop(0, 12, turn, drawn_like(params)))

    smaller = jax.tree.map(lambda leaf: leaf / 10, look.params)
    found = [float(jax.jit(curvature)(params)) for params in (look.params, smaller)]
    return first, max((c for c in found if np.isfinite(c)), default=0.0)


def length(tree: Any) -> Any:
    """The Euclidean norm of a tree."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def ratio_of(update: Any, gradient: Any) -> float:
    """The part of an update along a gradient, in units of the gradient."""
    pairs = list(zip(jax.tree.leaves(update), jax.tree.leaves(gradient), strict=True))
    along = sum(float(np.vdot(np.asarray(u, float), np.asarray(g, float))) for u, g in pairs)
    return along / max(sum(float((np.asarray(g, float) ** 2).sum()) for _, g in pairs), 1e-30)


def optimizer(look: Look) -> list[Finding]:
    """An optimizer that climbs, stands still, or makes NaN of a gradient of zero."""
    if look.subject.optimizer is None:
        return []
    along = ratio_of(look.step(1.0), drawn_like(look.params))
    found = []
    if along > 0 or (along == 0 and not look.waits):
        found.append(
            Finding(
                "gradient_ascent" if along > 0 else "parameters_not_updated",
                "fault",
                "optimizer",
                "the first update points along the gradient: the loss is climbed"
                if along > 0
                else "a hundred updates are 0 for a gradient that is not",
                measured=f"{along:+.3g} of the gradient",
                healthy="negative",
                remedy="a positive learning rate, and one sign change: optax.scale(-rate)"
                if along > 0
                else "check the learning rate, its schedule at step 0 and masks",
                confidence=0.95 if along > 0 else 0.4,
            )
        )
    for scale, said in ((0.0, "0"), (1e-6, "1e-6")):
        update = look.step(scale)
        if not all(np.isfinite(np.asarray(u, float)).all() for u in jax.tree.leaves(update)):
            dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(look.params)})
            found.append(
                Finding(
                    "numerical_instability",
                    "fault",
                    "optimizer",
                    f"for gradients of {said} in {', '.join(dtypes)} the first update is not "
                    "finite: the epsilon in its denominator is rounded to 0",
                    measured="NaN or infinity",
                    healthy="finite",
                    remedy="parameters in float32, or a larger eps: optax.adam(rate, eps=1e-4)",
                )
            )
            break
    return found


def guards(look: Look) -> list[Finding]:
    """Logarithms, roots and divisions that answers within reach carry to the edge."""
    tail = look.sample.tail
    answers = look.answers
    goal = goal_of(look.sample.y, look.kind, answers.shape)
    if tail is None or goal is None or look.kind == "values" and not binary(look.sample.y):
        return []
    make, shape = tail
    if shape != answers.shape:
        return []
    sizes = np.array([2.0, 10.0, 20.0, 50.0, 120.0, 500.0])
    stack = sizes.reshape(-1, *[1] * answers.ndim) * (2 * goal - 1)
    stack = np.concatenate([stack, -stack]).astype(np.float32)

    def loss(z: Any) -> Any:
        return jnp.asarray(look.subject.loss(make(z), look.sample.y)).sum().astype(jnp.float32)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(stack)
    fine = np.isfinite(values) & np.isfinite(slopes).reshape(len(stack), -1).all(1)
    fine = fine.reshape(2, -1).all(0)
    if fine.all() or not fine[0]:
        return []
    first = sizes[~fine][0]
    line, name = edge(look, make, stack[np.flatnonzero(~fine)[0]])
    return [
        Finding(
            "numerical_instability",
            "note",
            line or look.loss_line,
            f"where the last layer gives {first:g} the loss or its gradient is not finite"
            + (f": {name} meets the edge of its domain" if name else ""),
            measured=f"finite up to {sizes[fine][-1]:g}",
            healthy="finite at 500",
            remedy="a loss of logits (optax.softmax_cross_entropy, "
            "optax.sigmoid_binary_cross_entropy), or jnp.clip(p, 1e-7, 1 - 1e-7)",
            confidence=0.6 if first <= 50 else 0.3,
        )
    ]


def binary(y: np.ndarray) -> bool:
    """Whether targets are zeros and ones alone."""
    return bool(np.isin(y, (0, 1)).all())


def edge(look: Look, make: Callable[[Any], Any], z: np.ndarray) -> tuple[str, str]:
    """Line and name of the first operation of the loss that gives something not finite."""
    traced = look.loss
    leaves = [make(z), *jax.tree.leaves(look.sample.y)]
    wanted = [op.outputs[0] for op in traced.operations]
    for op, value in zip(traced.operations, traced.evaluate(leaves, wanted), strict=True):
        if jnp.issubdtype(value.dtype, jnp.inexact) and not np.isfinite(value).all():
            return op.where, op.name
    return "", ""


def tables(look: Look) -> list[Finding]:
    """Rows of a table that are asked for and are not there."""
    subject = look.subject
    traced = look.sample.trace
    owners = [op for op, *_ in products(traced) if op.name == "gather"]
    found = []
    for op in owners:
        kept = [traced.paths[v] for v in traced.arguments[0] if op.inputs[0] in traced.reached([v])]
        rows_of_table = traced.shape(op.inputs[0])[0]
        limits = np.array(last_rows(op.equation))
        apply = jax.jit(
            lambda x, place=op.inputs[1]: traced.evaluate(
                jax.tree.leaves((look.params, look.state, x, jax.random.key(0))), [place]
            )[0]
        )
        rows = len(look.sample.x)
        x = np.asarray(subject.train[0])
        asked = np.concatenate(
            [
                np.asarray(apply(x[i : i + rows])).reshape(-1, len(limits))
                for i in range(0, min(len(x), 256 * rows) - rows + 1, rows)
            ]
        )
        outside = float(((asked < 0) | (asked > limits)).any(1).mean())
        if outside:
            found.append(
                Finding(
                    "insufficient_capacity",
                    "fault",
                    op.where,
                    f"{outside:.1%} of the indices into {', '.join(kept)} lie outside its "
                    f"{rows_of_table} rows: they are clipped or become NaN without a word",
                    measured=f"indices {asked.min()} to {asked.max()}",
                    healthy=f"0 to {limits[0]}",
                    remedy=f"a table of {int(asked.max()) + 1} rows",
                    confidence=0.9,
                )
            )
    return found
