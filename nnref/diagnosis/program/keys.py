"""Random numbers: from which key they are drawn, and whether that changes from step to step."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.blocked import differentiable
from nnref.diagnosis.program.tracing import Operation, Trace, trace
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import is_key, on_host

LEAST = 16  # numbers of a kernel that no two draws have in common by chance
DRAWS = {"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"}


def draws(traced: Trace, results: Iterable[int]) -> list[Operation]:
    """The operations that draw random numbers for these results."""
    reading = traced.needed(results)
    return [op for op in traced.operations if op.name in DRAWS and reading & set(op.outputs)]


def randomness(start: AtStart) -> Iterator[Finding]:
    """Random numbers in evaluation; random numbers that are the same at every step."""
    evaluation = start.sample.trace
    results = len(jax.tree.leaves(start.sample.tree))
    drawn = draws(evaluation, evaluation.outputs[:results])
    if drawn and start.recipe.modes:
        yield note(
            "excessive_dropout",
            drawn[-1].where,
            "evaluation draws random numbers: dropout or noise acts there too",
            "outputs depend on a key",
            healthy="evaluation is the same each time",
            remedy="leave dropout out where train is False",
            confidence=0.7,
        )
    yield from random_key(start)


def random_key(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Random numbers for the rows of a batch that are the same at every step.

    They count where another draw would change what they meet. Numbers that are no row's, such as
    random features, are meant to stay.
    """
    traced = start.training
    fresh = traced.reached(traced.arguments[4] + traced.arguments[2] + changing_state(start))
    stale = [op for op in draws(traced, traced.outputs[:1]) if not fresh & set(op.inputs)]
    stale = [op for op in stale if op in of_rows(start, stale)]
    if not stale:
        return
    share, adds = weight_of(start, stale)
    severe = share > bound("drawn")
    seeds = traced.needed(v for op in stale for v in op.inputs)
    made = [
        op.where
        for op in traced.operations
        if op.name == "random_seed" and op.where and seeds & set(op.outputs)
    ]
    yield (fault if severe else note)(
        "random_key_reused",
        (made or [op.where for op in stale])[-1] or start.loss_line,
        "the random numbers of training come from a key that never changes: each place of a batch "
        "gets the same ones at every step, and the network learns these",
        f"{share:.0%} of the variance of what they meet, and no path from the step's key",
        healthy="another key at every step",
        remedy="take a key as argument of apply, and draw with it: nnref, as a loop should, gives "
        "another one at every step",
        confidence=0.9 if adds else 0.6,
    )


def drawn_twice(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Kernels that start as each other: they were drawn with one key.

    Those that get no gradient, as a copy for a target network, are meant so.
    """
    traced, loss = start.training, start.training.outputs[0]
    leaves = list(zip(traced.arguments[0], jax.tree.leaves(start.arguments[0]), strict=True))
    trained = [
        (traced.paths[value], np.asarray(leaf))
        for value, leaf in leaves
        if np.ndim(leaf) > 1
        and np.size(leaf) >= LEAST
        and np.ptp(leaf) > 0
        and loss in traced.reached([value], differentiable(traced))
    ]
    pairs = [
        (one, other)
        for place, (one, leaf) in enumerate(trained)
        for other, twin in trained[place + 1 :]
        if leaf.shape == twin.shape and np.array_equal(leaf, twin)
    ]
    if pairs:
        one, other = pairs[0]
        yield fault(
            "random_key_reused",
            f"{one}, {other}",
            f"{one} and {other} start with the same numbers: they were drawn with one key, and "
            "where they are used alike they stay the same",
            f"{len(pairs)} pairs of equal kernels",
            healthy="other numbers in each",
            remedy="one, two = jax.random.split(key), a key for each of them",
            confidence=0.9,
        )


def of_one_key(traced: Trace, leaves: list[Any]) -> list[Operation]:
    """The draws of several keys that are all the same one."""
    several = [op for op in draws(traced, traced.outputs) if traced.size(op.inputs[0]) > 1]
    keys = [op.inputs[0] for op in several if is_key(traced.avals[op.inputs[0]])]
    if len(keys) < len(several):
        return []
    values = [on_host(key) for key in traced.evaluate(leaves, keys)]
    flat = [value.reshape(-1, value.shape[-1]) for value in values]
    return [op for op, rows in zip(several, flat, strict=True) if (rows == rows[:1]).all()]


def changing_state(start: AtStart | LossAtStart) -> list[int]:
    """The leaves of the state that a training step does not hand back as they came."""
    traced = start.training
    old = traced.arguments[1]
    new = traced.outputs[len(traced.outputs) - len(old) :] if old else []
    return [value for value, result in zip(old, new, strict=True) if value != result]


def of_rows(start: AtStart | LossAtStart, stale: list[Operation]) -> list[Operation]:
    """Those draws that grow with the batch: numbers for each row."""
    params, state, x, y = start.arguments
    leaves = jax.tree.leaves(x)
    rows = np.shape(leaves[0])[0] if leaves and np.ndim(leaves[0]) else 0

    def with_fewer() -> Trace:
        less = one_row_less((x, y), rows)
        return trace(start.objective, params, state, *less, jax.random.key(0))

    return growing(start.training, stale, rows, with_fewer)


def one_row_less(batch: Any, rows: int) -> Any:
    """A batch without the last of its rows."""

    def less(leaf: Any) -> Any:
        return leaf[:-1] if np.ndim(leaf) and np.shape(leaf)[0] == rows else leaf

    return jax.tree.map(less, batch)


def growing(
    traced: Trace, stale: list[Operation], rows: int, with_fewer: Callable[[], Trace]
) -> list[Operation]:
    """Those draws that grow with the batch: numbers for each row.

    Args:
        traced: a program of a batch.
        stale: some of its draws.
        rows: of the batch; 0 for none.
        with_fewer: traces the same program with a row less, which it may refuse.
    """
    everyone = draws(traced, traced.outputs)
    try:
        other = with_fewer()
    except Exception:  # a function of whole batches alone
        return [op for op in stale if rows and traced.size(op.outputs[0]) % rows == 0]
    sizes = [other.size(op.outputs[0]) for op in draws(other, other.outputs)]
    if len(sizes) != len(everyone):
        return []
    return [
        op
        for op, size in zip(everyone, sizes, strict=True)
        if op in stale and traced.size(op.outputs[0]) != size
    ]


def weight_of(start: AtStart | LossAtStart, stale: list[Operation]) -> tuple[float, bool]:
    """How much of the variance of what drawn numbers meet is theirs; whether they are added.

    They meet the data where an operation takes both. Other numbers are drawn in their place.
    """
    traced = start.training
    drawn = {value for op in stale for value in op.outputs}
    noise = traced.reached(drawn)
    beside = traced.reached(traced.arguments[0] + traced.arguments[2])
    meeting = next(
        (
            op
            for op in traced.operations
            if noise & set(op.inputs) and any(v in beside and v not in noise for v in op.inputs)
        ),
        None,
    )
    if meeting is None:
        return 0.0, False
    leaves = jax.tree.leaves((*start.arguments, jax.random.key(0)))
    random = np.random.default_rng(0)

    def again() -> np.ndarray:
        values = {}
        for value in drawn:
            dtype = traced.avals[value].dtype
            bits = random.integers(0, np.iinfo(dtype).max, traced.shape(value), endpoint=True)
            values[value] = jnp.asarray(bits.astype(dtype))
        return np.asarray(traced.evaluate(leaves, [meeting.outputs[0]], values)[0], np.float64)

    values = np.stack([again() for _ in range(8)])
    total = values.var()
    adds = meeting.name in ("add", "sub", "add_any", "concatenate")
    return (float(values.var(0).mean() / total) if total > 0 else 0.0), adds
