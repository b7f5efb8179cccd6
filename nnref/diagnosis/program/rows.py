"""Rows of a batch by themselves: no answer may change with the other rows, or with its place.

One row is exchanged, or all are moved, and every value of the traced program is followed: the
operation at fault is the first whose inputs are row by row, and whose result is not.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.diagnosis.program.keys import draws
from nnref.diagnosis.program.layers import forward
from nnref.diagnosis.program.tracing import Operation, Trace
from nnref.diagnosis.thresholds import bound
from nnref.internals import last_rows, reduced_axes
from nnref.training.checkpoint import is_key

MANY = 64  # of targets, to see which of them count
ROWS = 7  # prime, so that an axis of as many numbers, or a multiple, is that of the rows
CHANGED = 1  # the row that is exchanged
REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax"}
Holds = Callable[[np.ndarray, np.ndarray], bool]  # of a value before and after


def batch_dependence(start: AtStart) -> Iterator[Finding]:
    """Rows whose outputs depend on the other rows of their batch, or on their place in it."""
    recipe = start.recipe
    if len(start.sample.x) < 3 or recipe.restart is not None:
        return
    params = beside(start.params, 1.0, 0)
    for train in (False, True) if recipe.modes else (False,):
        if suspicious(start, params, train):
            mixing = list(in_mode(start, params, train))
            if mixing:
                yield from mixing
                return


def suspicious(start: AtStart, params: Any, train: bool) -> bool:
    """Whether outputs change as those of rows by themselves do not: a look without following."""
    x = np.asarray(start.sample.x)

    def outputs(x: np.ndarray) -> list[np.ndarray]:
        key = jax.random.key(0)
        return list(
            map(numbers, jax.tree.leaves(start.network(params, start.state, x, key, train)[0]))
        )

    before = outputs(x)
    for other, holds in (
        (exchanged(x), one_row_moves(len(x))),
        (np.roll(x, 1, 0), rows_move(np.roll(np.arange(len(x)), 1))),
    ):
        if not all(map(holds, before, outputs(other))):
            return True
    return False


def exchanged(x: np.ndarray) -> np.ndarray:
    """The same rows but for one."""
    other = np.array(x)
    other[CHANGED] = x[CHANGED + 1]
    if x.dtype.kind == "f":
        other[CHANGED] += x.std(0)
    return other


def in_mode(start: AtStart, params: Any, train: bool) -> Iterator[Finding]:
    """What mixes the rows in training, or in evaluation."""
    recipe, data = start.recipe, np.asarray(start.recipe.train[0])
    rows = recipe.rows or min(ROWS, len(data))
    x = data[np.linspace(0, len(data) - 1, rows).round().astype(int)]
    traced = forward(recipe, params, start.state, x, train=train)
    results = traced.outputs[: len(traced.outputs) - len(jax.tree.leaves(start.state))]
    if train and traced.reached(traced.arguments[2]) & set(traced.outputs[len(results) :]):
        return  # statistics of the batch, and meant so
    if any(traced.shape(value).count(rows) > 1 for value in results):
        return  # rows against rows, and meant so
    followed = Followed(traced, params, start.state, x, results)
    mixing = list(of_others(followed, start, train))
    if not mixing and not draws(traced, results) and recipe.rows is None:
        mixing = list(of_place(followed, train))
    yield from mixing


class Followed:
    """The values of a traced network for some rows, and for others in their place."""

    def __init__(self, traced: Trace, params: Any, state: Any, x: Any, results: list[int]) -> None:
        self.traced, self.x, self.results = traced, x, results
        rows = [value for argument in traced.arguments[2:-1] for value in argument]
        moving = traced.reached(rows) & traced.needed(results)
        self.operations = [op for op in traced.operations if moving & set(op.outputs)]
        self.wanted = list(
            dict.fromkeys([*rows, *(v for op in self.operations for v in op.outputs)])
        )
        evaluate = jax.jit(
            lambda x: traced.evaluate(
                jax.tree.leaves((params, state, x, jax.random.key(0))), self.wanted
            )
        )
        self.evaluate = lambda x: dict(
            zip(self.wanted, map(numbers, jax.device_get(evaluate(x))), strict=True)
        )
        self.before = self.evaluate(x)

    def broken(self, x: np.ndarray, holds: Holds) -> tuple[Operation | None, float] | None:
        """The first operation whose inputs hold and whose result does not, for other rows.

        With it the largest change of an output for its size. None where all outputs hold.
        """
        after = self.evaluate(x)
        fine = {v: holds(self.before[v], after[v]) for v in self.wanted}
        outputs = [v for v in self.results if v in fine]
        if all(fine[value] for value in outputs):
            return None
        size = max(
            float(np.max(np.abs(self.before[v] - after[v]), initial=0))
            / max(float(np.max(np.abs(self.before[v]), initial=0)), 1e-30)
            for v in outputs
            if not fine[v]
        )
        first = next(
            (
                op
                for op in self.operations
                if all(fine.get(v, True) for v in op.inputs)
                and not all(fine.get(v, True) for v in op.outputs)
            ),
            None,
        )
        return first, size


def numbers(value: Any) -> np.ndarray:
    """An array in double precision; keys are left out."""
    value = np.asarray(value) if not hasattr(value, "dtype") else value
    if is_key(value):
        return np.zeros(0)
    return np.asarray(value, np.float64)


def alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where two arrays are the same but for rounding."""
    size = max(float(np.max(np.abs(first[np.isfinite(first)]), initial=0)), 1e-30)
    with np.errstate(invalid="ignore"):
        close = np.abs(first - second) <= bound("batch dependence") * size
    return close | (first == second) | (np.isnan(first) & np.isnan(second))


def arranged(value: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """An array with the axis of the rows first, for every axis that may be theirs."""
    for axis, size in enumerate(value.shape):
        if size and size % rows == 0:
            moved = np.moveaxis(value, axis, 0)
            rest = moved.shape[1:]
            yield moved.reshape(rows, -1)
            if size > rows:  # rows folded together with something that stands before them
                yield np.moveaxis(moved.reshape(size // rows, rows, *rest), 1, 0).reshape(rows, -1)


def one_row_moves(rows: int) -> Holds:
    """Whether nothing changes but what belongs to the exchanged row."""

    def holds(before: np.ndarray, after: np.ndarray) -> bool:
        moved = ~alike(before, after)
        return not moved.any() or any(
            not np.delete(each, CHANGED, axis=0).any() for each in arranged(moved, rows)
        )

    return holds


def rows_move(order: np.ndarray) -> Holds:
    """Whether a value moves with the rows, or is the same for any order of them."""
    rows = len(order)

    def holds(before: np.ndarray, after: np.ndarray) -> bool:
        if alike(before, after).all():
            return True
        pairs = zip(arranged(before, rows), arranged(after, rows), strict=True)
        return any(alike(a[order], b).all() for a, b in pairs)

    return holds


def of_others(followed: Followed, start: AtStart, train: bool) -> Iterator[Finding]:
    """Outputs that change with another row of the batch."""
    rows = len(followed.x)
    broken = followed.broken(exchanged(followed.x), one_row_moves(rows))
    if broken is None:
        return
    operation, size = broken
    name = operation.name if operation else ""
    softmax = softmax_over_rows(followed.traced, rows)
    mean = name in REDUCTIONS and not softmax
    if train and mean:
        return  # a normalization over the batch, without a state
    mode = "training" if train else "evaluation"
    evidence = "a softmax runs over the batch" if softmax else f"{name} brings the rows together"
    severe = not mean and start.recipe.rows is None
    yield (fault if severe else note)(
        "loss_axis_error",
        (softmax or operation or followed.operations[-1]).where or start.last,
        f"in {mode} the output for a row changes with the other rows of its batch: {evidence}",
        f"by {size:.2g} of the largest output",
        healthy="0",
        remedy="axis=-1 instead of axis=0"
        if softmax
        else "use running statistics in evaluation"
        if mean
        else "the rows first, and every axis of this line counted from there: x.swapaxes(0, 1)",
        confidence=0.9 if severe else 0.5,
    )


def of_place(followed: Followed, train: bool) -> Iterator[Finding]:
    """Outputs that change with the place of their row in the batch."""
    rows = len(followed.x)
    order = np.roll(np.arange(rows), 1)
    broken = followed.broken(followed.x[order], rows_move(order))
    if broken is None:
        return
    operation, size = broken
    shapes = [followed.traced.shape(v) for v in operation.inputs] if operation else []
    yield fault(
        "loss_axis_error",
        operation.where if operation else "apply",
        f"in {'training' if train else 'evaluation'} the answer for a row changes with the place "
        "of the row in its batch"
        + (
            f": {operation.name} of {' and '.join(map(str, shapes))} (of {rows} rows) gives every "
            "place something of its own"
            if operation
            else ""
        ),
        f"by {size:.2g} of the largest output",
        healthy="0",
        remedy="what differs from step to step goes along the steps: positions[None, :steps] "
        "instead of positions[:rows, None]",
        confidence=0.95,
    )


def softmax_over_rows(traced: Trace, rows: int) -> Operation | None:
    """The reduction over the rows of a batch that a softmax over them has."""
    exponentials = {out for op in traced.operations if op.name == "exp" for out in op.outputs}
    for op in traced.operations:
        if (
            op.name in ("reduce_sum", "reduce_max")
            and 0 in reduced_axes(op.equation)
            and traced.shape(op.inputs[0])[:1] == (rows,)
            and op.inputs[0] in exponentials
        ):
            return op
    return None


def order_of_rows(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """A loss that changes with the order of its rows.

    In a bare loss by what is added to them in order; in any loss by a sum that runs from row to
    row, as over those at risk, while nothing in the batch is sorted.
    """
    params, state, *batch = start.arguments
    leaves, tree = jax.tree.flatten(batch)
    rows = np.shape(leaves[0])[0] if leaves and np.ndim(leaves[0]) else 0
    arrays = [np.asarray(leaf) for leaf in leaves]
    if rows < 3 or not all(leaf.shape[:1] == (rows,) for leaf in arrays):
        return
    traced = start.training
    loss = traced.outputs[:1]
    running = any(op.name.startswith("cum") for op in traced.operations)
    if draws(traced, loss) or not (running or isinstance(start, LossAtStart)):
        return
    remembered = traced.needed(loss).intersection(traced.arguments[1])
    if any(len(s) > 1 and s[0] == rows for s in map(traced.shape, remembered)):
        return  # each row has a state of its own, which is carried on
    order = np.arange(rows)[::-1]
    followed = Followed(traced, beside(params, 1.0, 0), state, batch, loss)
    backwards = jax.tree.unflatten(tree, [leaf[order] for leaf in arrays])
    broken = followed.broken(backwards, rows_move(order))
    operation = broken[0] if broken else None
    if not broken or operation is None:
        return
    shapes = " and ".join(str(traced.shape(value)) for value in operation.inputs)
    if operation.name.startswith("cum") and not sorted_batches(start):
        yield fault(
            "loss_axis_error",
            operation.where,
            f"{operation.name} of {shapes} runs from row to row in the order in which they come, "
            "and nothing in the batch is sorted: with each order the loss is another one",
            f"by {broken[1]:.2g} of the loss",
            healthy="0",
            remedy="sort the rows first by what the sum runs along, as times: "
            "order = jnp.argsort(-time)",
            confidence=0.85,
        )
    elif operation.name in ("add", "sub", "mul") and isinstance(start, LossAtStart):
        yield note(
            "loss_axis_error",
            operation.where,
            f"the loss changes with the order of the rows of the batch: {operation.name} of "
            f"{shapes} gives every row something of its own",
            f"by {broken[1]:.2g} of the loss",
            healthy="0",
            remedy="what differs from step to step goes along the steps, not along the rows",
            confidence=0.5,
        )


def sorted_batches(start: AtStart | LossAtStart) -> bool:
    """Whether something in a batch is in order, as training has it.

    The few rows that a program is traced with are spread over the targets, and in their order.
    """
    if isinstance(start, LossAtStart):
        return any(is_sorted(np.asarray(leaf)) for leaf in jax.tree.leaves(start.arguments[2:]))
    recipe = start.recipe
    batch = (np.asarray(part)[: recipe.batch_size] for part in recipe.train)
    return not recipe.shuffle and any(map(is_sorted, batch))


def is_sorted(rows: np.ndarray) -> bool:
    """Whether a column rises or falls from row to row, and by more than one step.

    Few rows of two values, as of a flag, stand in order by chance.
    """
    steps = np.diff(rows.reshape(len(rows), -1).astype(np.float64), axis=0)
    in_order = np.all(steps >= 0, 0) | np.all(steps <= 0, 0)
    return bool((in_order & (np.count_nonzero(steps, 0) > 1)).any())


def uncounted(start: AtStart) -> Iterator[Finding]:
    """Rows of every batch whose outputs the loss does not look at, whatever their targets are.

    Rows that their targets leave out, as those without a label, move with these.
    """
    outputs, y = start.outputs, np.asarray(start.sample.y)
    if len(outputs) <= ROWS or len(y) != len(outputs):
        return
    slopes = jax.jit(jax.grad(lambda o, y: jnp.asarray(start.recipe.loss(o, y)).sum()))
    draws = np.random.default_rng(0).normal(size=(2, *outputs.shape)).astype(np.float32)

    def silent(y: np.ndarray) -> np.ndarray:
        return ~np.any([np.asarray(slopes(o, y)).reshape(len(o), -1) for o in draws], axis=(0, 2))

    rows = silent(y)
    if bound("mostly") < rows.mean() < 1 and np.array_equal(
        rows, silent(np.roll(y, len(y) // 2, 0))
    ):
        yield rows_dropped(
            start.loss_line,
            f"of {len(rows)} rows the loss looks at {np.sum(~rows)}, at the same places of every "
            "batch: the others may answer what they will, as where a column of 0 and 1 is taken "
            "for the numbers of rows",
            f"gradient exactly 0 for {rows.mean():.0%} of the rows",
        )
    else:
        yield from flags_for_numbers(start)


def one_target_counts(start: AtStart) -> Iterator[Finding]:
    """Targets of which a loss looks at those of one value alone, as of padding.

    So it is where a mask stands the other way round: what is real counts nothing.
    """
    recipe, first = start.recipe, start.one_output
    places = np.random.default_rng(0).permutation(len(recipe.train[1]))[:MANY]
    y = np.asarray(recipe.train[1])[places]
    slopes = jax.jit(jax.grad(lambda o: jnp.asarray(recipe.loss(o, jnp.asarray(y))).sum()))
    shape = (2, len(y), *first.shape[1:])
    draws = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    looked_at = np.any([np.asarray(slopes(o)) != 0 for o in draws], axis=0)
    parts = [y] if recipe.targets is None else jax.tree.leaves(recipe.targets.unpack(y))
    beside = [np.asarray(p) for p in parts if np.shape(p) == looked_at.shape[: np.ndim(p)]]
    counts = [looked_at.any(tuple(range(part.ndim, looked_at.ndim))) for part in beside]
    each = [(np.unique(p[c]), np.unique(p[~c])) for p, c in zip(beside, counts, strict=True)]
    differ = [left_out.size >= bound("several values") for _, left_out in each]
    if any(differ) and all(seen.size == 1 for (seen, _), d in zip(each, differ, strict=True) if d):
        at = differ.index(True)
        (value,), left_out = each[at]
        yield fault(
            "loss_mismatch",
            start.loss_line,
            f"of {counts[at].size} targets the loss looks at {counts[at].sum()}, each of which is "
            f"{value:g}; those that it leaves out have {left_out.size} values: the same answer "
            "everywhere is the best one",
            f"gradient exactly 0 for {1 - counts[at].mean():.0%} of the targets",
            healthy="a loss of the targets that differ",
            remedy="a mask of 1 where targets are real: mask = tokens != padding, and "
            "jnp.sum(loss * mask) / jnp.sum(mask)",
            confidence=0.95,
        )


def flags_for_numbers(start: AtStart) -> Iterator[Finding]:
    """A column of 0 and 1 by which outputs are taken as by the numbers of their rows."""
    traced, rows = start.loss, len(start.outputs)
    of_outputs, of_targets = (traced.reached(argument) for argument in traced.arguments)
    leaves = jax.tree.leaves((start.sample.tree, start.sample.y))
    for op in traced.operations:
        if op.name != "gather" or op.inputs[0] not in of_outputs or op.inputs[1] in of_outputs:
            continue
        if op.inputs[1] not in of_targets or last_rows(op.equation) != (rows - 1,):
            continue
        (numbers_of_rows,) = traced.evaluate(leaves, [op.inputs[1]])
        if traced.shape(op.inputs[0])[0] == rows and np.isin(numbers_of_rows, (0, 1)).all():
            yield rows_dropped(
                op.where or start.loss_line,
                "a column of 0 and 1 is taken for the numbers of rows: what was to choose those "
                "that count takes the first two again and again",
                f"rows 0 and 1, {np.size(numbers_of_rows)} times",
            )
            return


def rows_dropped(where: str, evidence: str, measured: str) -> Finding:
    """Rows that a loss does not look at."""
    return fault(
        "rows_dropped",
        where,
        evidence,
        measured,
        healthy="every row, or those that the targets leave",
        remedy="a mask: jnp.where(event == 1, term, 0), or term * event, not term[event]",
        confidence=0.9,
    )
