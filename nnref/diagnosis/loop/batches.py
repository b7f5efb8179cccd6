"""The batches of a loop: whether they differ, what they hold, and whether all are used."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.data.references import references
from nnref.diagnosis.data.targets import Target
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.loop.evaluation import Evaluation, one_number
from nnref.diagnosis.loop.program import line_of_function
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import alike, copied, is_array, on_host, parted
from nnref.diagnosis.program.ignored import WHICH_COUNT
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import is_key

SEVERAL = 8  # rows of a batch that would hold several classes if they were shuffled


def each_update(loop: Loop) -> int:
    """How many batches an update of the parameters is made of; 1 where their number changes."""
    at = np.flatnonzero(loop.moved())
    gaps = np.unique(np.diff(at, prepend=-1))
    return int(gaps[0]) if len(loop.steps) == 1 and len(at) > 1 and len(gaps) == 1 else 1


def lost_batches(loop: Loop) -> Iterator[Finding]:
    """Batches whose gradients should add up to one update, of which the last one alone counts."""
    count = each_update(loop)
    if count == 1 or not loop.batches:
        return
    calls, step = loop.calls[0][:count], loop.steps[0]
    others = [other for other in loop.batches if not alike(other, calls[0].batch)]
    if not others:
        return

    def ended(batches: list[Any]) -> dict[str, np.ndarray]:
        state = calls[0].before
        for call, batch in zip(calls, batches, strict=True):
            state = loop.call(step, state, batch, call.key).after
        return on_host({path: state.arrays[path] for path in loop.of("parameter")})

    own = [call.batch for call in calls]
    one, again, other = map(ended, (own, own, [*others[:1] * (count - 1), own[-1]]))
    if not equal(one, again) or not equal(one, other):
        return
    kept = [
        path
        for path in loop.floating()
        if path not in one and loop.moves[path][: count - 1].any() and loop.states[0][path].ndim
    ]
    yield fault(
        "state_not_carried",
        f"{listed(kept)}; {loop.line_of(kept[0])}" if kept else loop.line(),
        f"the parameters move with every {count}th batch, and what the {count - 1} before it held "
        "has no part in it: their gradients are thrown away",
        f"1 of {count} batches",
        healthy="the mean over all of them",
        remedy="add each gradient to what has been gathered, and set that to 0 behind the update "
        "alone, or optax.MultiSteps",
        confidence=0.95,
    )


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether arrays are the same to the last bit."""
    return all(np.array_equal(leaf, other[path], equal_nan=True) for path, leaf in one.items())


def few_rows(loop: Loop) -> Iterator[Finding]:
    """Batches that draw from fewer rows than one of them holds, of measured numbers.

    Of a world of a few cells the rows repeat, too; but there no column has a number for each.
    """
    rows: set[bytes] = set()
    counts: list[int] = []
    columns: list[np.ndarray] = []
    for batch in loop.batches:
        leaves = [leaf for leaf in jax.tree.leaves(batch) if is_array(leaf) and not is_key(leaf)]
        sizes = {np.shape(leaf)[:1] for leaf in leaves}
        if len(sizes) != 1 or sizes == {()}:
            return
        parts = [np.asarray(leaf) for leaf in leaves]
        fractions = [p.reshape(len(p), -1) for p in parts if p.dtype.kind == "f" and p.size]
        columns.append(np.concatenate([np.zeros((len(parts[0]), 1)), *fractions], 1))
        counts.append(len(parts[0]))
        rows |= {b"".join(p[i].tobytes() for p in parts) for i in range(counts[-1])}
    if len(counts) < 2 or len(rows) >= min(counts):
        return
    values = max(len(np.unique(column)) for column in np.concatenate(columns).T)
    if values > bound("measured") * len(rows):
        yield fault(
            "repeated_rows",
            "batches",
            f"{len(counts)} batches of {min(counts)} rows hold {len(rows)} different rows in all: "
            "each stands several times in every batch, as where what is gathered is one list that "
            "was emptied and filled again",
            f"{len(rows)} different rows",
            healthy=f"at least the {min(counts)} of a batch",
            remedy="a new list or a copy for each part that is gathered: kept.append(list(rows))",
            confidence=0.85,
        )


def same_batch(loop: Loop) -> Iterator[Finding]:
    """One batch at every step: a fault where it is one buffer that others have been read into."""
    first, *others = loop.batches or [None]
    if loop.one_batch:
        arrays = [id(leaf) for leaf in jax.tree.leaves(first) if is_array(leaf)]
        buffer = bool(arrays) and all(
            other is not first and [id(leaf) for leaf in jax.tree.leaves(other)] == arrays
            for other in others
        )
        if buffer and loop.drawn:  # or all rows, handed out as they are
            kept, other = copied(loop.drawn(0)), loop.drawn(1)
            buffer = not alike(kept, other)
        by_heart = "" if buffer else learned_by_heart(loop)
        line = line_of_function(loop.drawn) if loop.drawn else ""
        yield (fault if buffer or by_heart else note)(
            "repeated_rows",
            f"batches; {line}" if line else "batches",
            f"the {len(loop.batches)} batches are one and the same{by_heart}: "
            + (
                "one buffer that a reader fills anew and hands out without a copy"
                if buffer
                else "a function of the step's number that does not use it, or an iterator that is "
                "made anew"
            ),
            "the same rows at every step",
            healthy="other rows at every step",
            remedy="yield x.copy(), y.copy()"
            if buffer
            else "rows that the number of the step decides, np.random.default_rng([seed, step]), "
            "or one iterator over the shuffled rows; where there are no other rows, more of them",
            confidence=0.9 if buffer else 0.8 if by_heart else 0.5,
        )


def learned_by_heart(loop: Loop) -> str:
    """In words, that the loss falls to a tenth while the evaluation hardly gains; else "".

    What an evaluation gains is a share of what is missing to 1 where it rises, of its first value
    where it falls. One that is as large as the loss at first is one, and worse where it rises.
    """
    fall = None if loop.evaluate is None else loop.fall()
    if fall is None or loop.evaluate is None:
        return ""
    (losses, first, last), seen = fall, Evaluation(loop, loop.evaluate)
    if not 0 <= last < bound("learned by a loop") * first or not one_number(seen):
        return ""
    ends = (loop.start, loop.further.state)
    before, after = (float(np.ravel(seen.of(state)[0])[0]) for state in ends)
    rises, least = after > before, bound("falls here")
    worse = rises and after > 1 and least < before / losses[0] < 1 / least
    if min(before, after) < 0 or (rises and after > 1 and not worse):
        return ""  # of a reward, say, nobody knows how much is little
    if not worse and abs(after - before) > bound("collapse") * (1 - before if rises else before):
        return ""
    return (
        f", and their rows are learned alone: after {len(losses)} steps the loss has fallen from "
        f"{first:.3g} to {last:.3g}, and the evaluation went from {before:.3g} to {after:.3g}"
    )


def one_class_a_batch(loop: Loop) -> Iterator[Finding]:
    """Updates of one value of a part each, while all batches together hold several."""
    parts: dict[str, list[np.ndarray]] = {}
    count = each_update(loop)
    for number, batch in enumerate(loop.batches):
        for path, leaf in parted(batch).arrays.items():
            if not is_key(leaf) and np.ndim(leaf) and np.size(leaf) == len(leaf):
                updates = parts.setdefault(path, [])
                if number % count == 0:
                    updates.append(np.empty(0, leaf.dtype))
                updates[-1] = np.append(updates[-1], np.asarray(leaf))
    for path, values in parts.items():
        kinds = len(np.unique(np.concatenate(values)))
        long = [value for value in values if len(value) >= SEVERAL]
        alone = np.mean([np.ptp(value.astype(float)) == 0 for value in long]) if long else 0.0
        by_kind = 1 < kinds <= len(values) / 2 and alone > 2 * alone_by_chance(long)
        if by_kind and alone > 1 - bound("failed") / 2:
            order = fault(
                "unshuffled_split",
                f"batches, {path}" if path else "batches",
                f"{alone:.0%} of the batches hold one value of {path or 'their targets'} alone, of "
                f"{kinds} that there are: the rows come class by class and are never shuffled, and "
                "what was learned last is all that stays",
                f"{alone:.0%} of the batches",
                healthy="every class in a batch",
                remedy="order = rng.permutation(len(x)) at the start of every epoch; "
                "x, y = x[order], y[order]",
                confidence=0.9,
            )
            yield told_by_nothing(loop, path, order) or order
            return


def alone_by_chance(updates: list[np.ndarray]) -> float:
    """The share of updates that would hold one value alone if their rows were drawn at random."""
    if not updates:
        return 0.0
    shares = np.unique(np.concatenate(updates), return_counts=True)[1]
    shares = shares / shares.sum()
    return float(np.mean([(shares ** len(update)).sum() for update in updates]))


def different_rows(loop: Loop) -> dict[str, np.ndarray]:
    """The different rows of all batches, part by part; {} where parts have no rows in common."""
    rows: dict[bytes, tuple[np.ndarray, ...]] = {}
    paths: list[str] = []
    for batch in loop.batches:
        parts = parted(batch).arrays
        paths = [path for path, leaf in parts.items() if not is_key(leaf) and np.ndim(leaf)]
        leaves = [np.asarray(parts[path]) for path in paths]
        if len({leaf.shape[0] for leaf in leaves}) != 1:
            return {}
        for row in zip(*leaves, strict=True):
            rows.setdefault(b"".join(part.tobytes() for part in row), row)
    shapes = {tuple(np.shape(part) for part in row) for row in rows.values()}
    if len(shapes) != 1:
        return {}
    return dict(zip(paths, map(np.stack, zip(*rows.values(), strict=True)), strict=True))


def measured(
    pooled: dict[str, np.ndarray], targets: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """All inputs as a matrix, (rows, numbers), and the parts of a batch, for inputs that differ.

    None for inputs that are no measured numbers, for sequences, whose order simple models do not
    see, and for too few rows. An input that comes again counts once: it would be known by heart.
    """
    inputs = [leaf for path, leaf in pooled.items() if path not in targets]
    if not inputs or any(leaf.dtype.kind != "f" or leaf.ndim not in (2, 4) for leaf in inputs):
        return None
    x = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in inputs], 1)
    _, once = np.unique(x, axis=0, return_index=True)
    if len(once) < bound("rows for no signal"):
        return None
    return x[once], {path: leaf[once] for path, leaf in pooled.items()}


def told_by_nothing(loop: Loop, path: str, order: Finding) -> Finding | None:
    """Rows in the order of their classes whose inputs do not tell these: then order cures nothing.

    Simple models are asked of measured numbers, see `measured`.
    """
    found = measured(different_rows(loop), [path])
    if found is None:
        return None
    x, y = found[0], np.ravel(found[1][path])
    classes, labels = np.unique(y, return_inverse=True)
    reference = references(x, Target("multiclass", labels, len(classes)), shuffles=1)
    name, best = reference.best
    if best >= bound("signal"):
        return None
    drawn = max(reference.shuffled.values(), default=0.0)
    return fault(
        "corrupted_labels",
        order.where,
        f"the {len(x)} rows of all batches together say nothing about {path or 'their targets'}, "
        f"part of the batches: on rows held out {name} reaches {best:.2f}, and {drawn:.2f} where "
        "the targets are shuffled, from 0 for a constant answer to 1. Inputs and targets were put "
        "into another order one without the other",
        f"{best:.2f} of the way from a constant to perfect",
        healthy=f"above {bound('signal'):g}",
        remedy="shuffle the records before inputs and targets are taken from them, or both by one "
        "order = rng.permutation(len(x)); x, y = x[order], y[order]",
        confidence=0.8,
        symptoms=(order,),
    )


def unused_parts(loop: Loop) -> Iterator[Finding]:
    """Parts of a batch that say which numbers count, and that no step looks at."""
    if not loop.programs or any(program is None for program in loop.programs):
        return
    used: set[str] = set()
    named: set[str] = set()
    for program in filter(None, loop.programs):
        needed = program.trace.needed([*program.new.values(), *program.metrics.values()])
        paths = {value: program.trace.paths[value] for value in program.batch}
        used |= {path for value, path in paths.items() if value in needed}
        named |= set(paths.values())
    for path in sorted(named - used):
        name = path.rpartition(".")[2].lower()
        # A part of a tuple has no name; one that holds 0 and 1 says yes or no to each row.
        means = any(word in name for word in WHICH_COUNT) or (name.isdigit() and flags(loop, path))
        yield (fault if means else note)(
            "inputs_ignored",
            f"batch, {path}; {loop.line()}",
            f"no step looks at {path or 'the batch'}"
            + (", which says which rows or steps count" if means else ""),
            "nothing depends on it",
            remedy=f"multiply by {path} where the loss, or what comes after a step, is added up"
            if means
            else "use it, or leave it out of the batch",
            confidence=0.7 if means else 0.3,
        )


def flags(loop: Loop, path: str) -> bool:
    """Whether a part of the batches holds 0 and 1 for its rows, both of them."""
    parts = [parted(batch).arrays for batch in loop.batches]
    leaves = [part[path] for part in parts if path in part]
    values = [np.ravel(np.asarray(leaf)) for leaf in leaves if not is_key(leaf) and np.ndim(leaf)]
    return bool(values) and set(np.unique(np.concatenate(values)).tolist()) == {0, 1}
