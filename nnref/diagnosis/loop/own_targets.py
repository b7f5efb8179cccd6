"""Targets that the network is given beside its inputs: whether an output sees its own one.

A part of a batch enters a step at two kinds of places. Where it meets parameters alone, as in the
lookup of an embedding, it is an input; where it meets what the network made, it is a target. The
two uses are changed one without the other.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.program.at_start import LossAtStart
from nnref.diagnosis.program.keys import draws
from nnref.diagnosis.program.sequences import FEWEST
from nnref.diagnosis.program.tracing import LOOPS, Operation
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import is_key

STEPS = 8  # of a sequence that are asked
NORMAL = {"erf_inv"}  # of uniform numbers: how JAX draws normal ones


class TwoUses:
    """A part of the batch, whole numbers (rows, steps), and its two uses in a loss.

    `inputs` and `targets` are the operations where what is computed of the part alone, `alone`,
    meets parameters, and where it meets what the network made.
    """

    def __init__(
        self, program: Program, loss: int, part: int, weights: list[int], leaves: list[Any]
    ) -> None:
        """Find the uses, in a step with these arguments."""
        traced = self.traced = program.trace
        self.program, self.part, self.loss = program, part, loss
        needed = traced.needed([loss])
        learned, data = traced.reached(weights), traced.reached(program.batch)
        drawn = [value for op in draws(traced, [loss]) for value in op.outputs]
        others = traced.reached([*program.old.values(), *program.key, *drawn])
        self.alone = traced.reached([part]) - others
        self.inputs: list[Operation] = []
        self.targets: list[int] = []  # places of operations
        for place, op in enumerate(traced.operations):
            beside = set(op.inputs) - self.alone
            if beside == set(op.inputs) or needed.isdisjoint(op.outputs):
                continue
            if beside & learned - data:
                self.inputs.append(op)
            elif beside & learned and op.name not in LOOPS:
                self.targets.append(place)
        self.leaves, self.at = leaves, traced.inputs.index(part)

    @property
    def is_sequence(self) -> bool:
        """Whether the part holds sequences."""
        return holds_sequences(self.leaves[self.at])

    @cached_property
    def y(self) -> np.ndarray:
        """The part, (rows, steps)."""
        return np.asarray(self.leaves[self.at])

    @cached_property
    def others(self) -> np.ndarray:
        """Other values for it."""
        return other_values(self.y)

    def values_at(self, operations: list[Operation]) -> list[int]:
        """The values of the part alone that operations take, each once."""
        taken = (value for op in operations for value in op.inputs if value in self.alone)
        return list(dict.fromkeys(taken))

    @cached_property
    def wanted(self) -> list[int]:
        """The values that are taken as targets."""
        return self.values_at([self.traced.operations[place] for place in self.targets])

    def leaves_with(self, y: Any) -> list[Any]:
        """The arguments of the step, with another part of the batch."""
        return [y if i == self.at else leaf for i, leaf in enumerate(self.leaves)]

    def steps(self, operations: list[Operation], step: int) -> set[int]:
        """The steps at which operations take what stands at a step."""
        y, values, found = self.y, self.values_at(operations), set()
        both = (y, self.changed(y, step))
        pairs = (self.traced.evaluate(self.leaves_with(part), values) for part in both)
        for before, after in zip(*pairs, strict=True):
            moved = np.asarray(before) != np.asarray(after)
            if moved.ndim > 1 and moved.shape[1] == len(y) and along_one_step(moved):
                moved = moved.swapaxes(0, 1)  # the steps come first, as a loop over them takes them
            if moved.any() and len(moved) % len(y) == 0:
                rest = moved.shape[1:] if len(moved) == len(y) else (-1, *moved.shape[1:])
                moved = moved.reshape(len(y), *rest).any(0)
                found.add(int(np.argwhere(moved)[0][0]))
        return found

    @cached_property
    def of_both(self) -> Any:
        """The loss as a function of the part as the network takes it, and as the loss does."""
        operations, avals = list(self.traced.operations), list(self.traced.avals)
        new = {value: len(avals) + i for i, value in enumerate(self.wanted)}
        for place in self.targets:
            inputs = tuple(new.get(value, value) for value in operations[place].inputs)
            operations[place] = operations[place]._replace(inputs=inputs)
        avals += [avals[value] for value in self.wanted]
        twice = replace(self.traced, operations=operations, avals=avals)

        def loss(seen: Any, wanted: Any) -> Any:
            targets = self.traced.evaluate(self.leaves_with(wanted), self.wanted)
            given = dict(zip(new.values(), targets, strict=True))
            (value,) = twice.evaluate(self.leaves_with(seen), [self.loss], given)
            return jnp.ravel(value)[0].astype(jnp.float32)

        return jax.jit(loss)

    def share_seen(self) -> float:
        """The share of steps whose outputs change with their own target, of those that count.

        The loss is changed by another target of a step, by another input in its place, and by
        both: what these two bring together is not the sum, where the output knows its target. A
        loss in which two targets do not add up either is not told.
        """
        y, loss = self.y, lambda seen, wanted: float(self.of_both(seen, wanted))
        begin, seen = loss(y, y), []
        size = max(abs(begin), 1e-30) * 4 * float(np.finfo(np.float32).eps)
        steps = np.unique(np.linspace(0, y.shape[1] - 1, STEPS + 2).astype(int))[1:-1]
        one, two = (self.changed(y, int(step)) for step in steps[:2])
        for step in steps:
            other = self.changed(y, int(step))
            beside = two if step == steps[0] else one
            apart = loss(y, other) - begin
            if abs(apart) <= 10 * size:
                continue  # a step that does not count
            both = self.changed(beside, int(step))
            own = abs(loss(y, both) - loss(y, beside) - apart)
            if own > bound("batch dependence") * abs(apart) + size:
                continue
            together = abs(loss(other, other) - loss(other, y) - apart)
            seen.append(together > 10 * (bound("batch dependence") * abs(apart) + size))
        return float(np.mean(seen)) if seen else 0.0

    def changed(self, y: np.ndarray, step: int) -> np.ndarray:
        """The part with other values at a step."""
        other = np.array(y)
        other[:, step] = self.others[:, step]
        return other


def holds_sequences(leaf: Any) -> bool:
    """Whether an array holds whole numbers, (rows, steps).

    Two rows of many numbers are pairs, as the ends of edges are, and no two sequences.
    """
    whole = not is_key(leaf) and jnp.issubdtype(leaf.dtype, jnp.integer)
    return bool(whole and leaf.ndim == 2 and min(leaf.shape) >= FEWEST)


class Copy(NamedTuple):
    """A part of the batch, (rows, steps), that stands again as the targets of the same steps."""

    program: Program
    loss: int
    given: int
    wanted: int
    leaves: list[Any]

    @property
    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """What the network is given, and what its outputs are held against."""
        given, wanted = (
            np.asarray(self.leaves[self.program.trace.inputs.index(part)])
            for part in (self.given, self.wanted)
        )
        return given, wanted

    @property
    def in_place(self) -> bool:
        """Whether targets that count are what is given at their own places."""
        given, wanted = self.values
        counts = np.isin(wanted, given)
        return bool(counts.mean() > 0.1 and (given == wanted)[counts].all())

    def knows(self, lag: int) -> bool:
        """Whether the outputs of most steps change with what is given `lag` steps later.

        The loss is changed by another target of a step, by another input at the place in question,
        and by both: where the output does not change, these two add up.
        """
        (given, wanted), traced = self.values, self.program.trace
        at = [traced.inputs.index(part) for part in (self.given, self.wanted)]

        @jax.jit
        def loss(given: Any, wanted: Any) -> Any:
            leaves = list(self.leaves)
            leaves[at[0]], leaves[at[1]] = given, wanted
            return jnp.ravel(traced.evaluate(leaves, [self.loss])[0])[0]

        begin, others, knowing = float(loss(given, wanted)), other_values(given), []
        size = max(abs(begin), 1e-30) * 40 * float(np.finfo(np.float32).eps)
        for step in range(given.shape[1] - 1):
            counts = wanted[:, step] == given[:, step]
            seen, asked = np.array(given), np.array(wanted)
            asked[counts, step] = others[counts, step]
            seen[:, step + lag] = others[:, step + lag]
            apart = float(loss(given, asked)) - begin
            if abs(apart) > size:
                both = float(loss(seen, asked)) - float(loss(seen, wanted))
                knowing.append(abs(both - apart) > bound("batch dependence") * abs(apart) + size)
        return bool(knowing) and float(np.mean(knowing)) > bound("mostly")


def along_one_step(moved: np.ndarray) -> bool:
    """Whether what has moved lies at one place of the first axis."""
    return int(moved.reshape(len(moved), -1).any(1).sum()) == 1


def other_values(y: np.ndarray) -> np.ndarray:
    """Another value at each place, of those that there are; what rows end with stays, and is none.

    Where that pads the rows, a change of it would change which places count.
    """
    values, ends = np.unique(y), np.unique(y[:, -1], return_counts=True)
    filler = ends[0][ends[1].argmax()]
    rest = values[values != filler] if len(values) > 2 else values
    after = rest[(np.searchsorted(rest, y) + 1) % len(rest)]
    return np.where(np.isin(y, rest), after, y).astype(y.dtype)


def sees_itself(loop: Loop) -> Iterator[Finding]:
    """Sequences in which the output of a step changes with the very target it is held against.

    Where inputs and targets of a step are one and the same, and nothing else is given, as to an
    autoencoder, it is meant; and where a sequence is given twice, as to an encoder and a decoder.
    What random numbers hide from the network, as a mask does, counts as not given.
    """
    for place, program, loss, _ in loop.losses_of_steps():
        state = program.arguments[0]
        state = {path: loop.calls[place][-1].before.arrays.get(path, state[path]) for path in state}
        own = [p for p in loop.floating() if p in program.old and p not in loop.optimizers]
        weights = [program.old[path] for path in own]
        leaves = jax.tree.leaves((state, *program.arguments[1:]))
        parts = [TwoUses(program, loss, part, weights, leaves) for part in program.batch]
        fed = [uses for uses in parts if uses.inputs]
        yield from not_shifted(fed, [uses for uses in parts if uses.targets and not uses.inputs])
        for uses in fed:
            if not uses.is_sequence or not uses.targets:
                continue
            middle = uses.y.shape[1] // 2
            given = uses.steps(uses.inputs, middle)
            held = uses.steps([program.trace.operations[at] for at in uses.targets], middle)
            if len(given) != 1 or not held or (len(fed) == 1 and given <= held):
                continue
            share = uses.share_seen()
            if share > bound("mostly"):
                yield leaked(uses, share, shifted=not given <= held)
                return


def not_shifted(fed: list[TwoUses], held: list[TwoUses]) -> Iterator[Finding]:
    """Targets that are the inputs of their own steps, of a network that sees no later ones.

    A network that sees all steps may be an autoencoder, or have some of them hidden.
    """
    for given, wanted in product(fed, held):
        if not (given.is_sequence and wanted.is_sequence and given.y.shape == wanted.y.shape):
            continue
        copy = Copy(given.program, given.loss, given.part, wanted.part, given.leaves)
        if copy.in_place and copy.knows(0) and not copy.knows(1):
            one, other = (uses.traced.paths[uses.part] for uses in (given, wanted))
            yield fault(
                "leaked_targets",
                " from ".join(dict.fromkeys(given.inputs[0].frames[:3])),
                f"part {other} of the batch is part {one} again, place for place: each step is "
                "held against what it is given itself, and no step sees the next. It learns to "
                "hand on, and knows nothing where it has to go on by itself",
                "equal at each place that counts",
                healthy="the next one",
                remedy=f"{other}[:, :-1] = {one}[:, 1:], or outputs[:, :-1] against {other}[:, 1:]",
                confidence=0.95,
            )
            return


def leaked(uses: TwoUses, share: float, shifted: bool) -> Finding:
    """Targets that the network is given."""
    name = uses.traced.paths[uses.part]
    what = f"part {name} of the batch" if name else "the batch"
    lines = next((op.frames for op in uses.inputs if op.frames), ())
    return fault(
        "leaked_targets",
        " from ".join(dict.fromkeys(lines[:3])),
        f"the network is given {what}, and the loss holds its outputs against it: the output of a "
        "step changes with the very target it is held against, so that the network copies it, and "
        "knows nothing where it has to go on by itself",
        f"at {share:.0%} of the steps",
        healthy="at none",
        remedy="a causal mask, jnp.tril(jnp.ones((steps, steps), bool)), so that a step sees what "
        "came before"
        if shifted
        else "what is given moves to the right by one, behind a start token: "
        "given = jnp.concatenate([jnp.full((len(y), 1), START), y[:, :-1]], axis=1)",
        confidence=0.95,
    )


def asked_for_its_input(start: LossAtStart) -> Iterator[Finding]:
    """A network that is given noisy rows, and whose answer is held against these same numbers.

    To hand them on is a perfect answer, and what the noise hides is not learned. Without noise it
    would be an autoencoder.
    """
    traced = start.training
    parameters, data = traced.arguments[0], traced.arguments[2]
    answers, read = traced.reached(parameters), traced.reached(data)
    needed = traced.needed(traced.outputs[:1])
    noise = [out for op in traced.operations if op.name in NORMAL for out in op.outputs]
    drawn = traced.reached(noise)
    rows = [value for value in data if traced.avals[value].dtype.kind == "f"]
    for op in traced.operations:
        if op.name != "sub" or len(op.inputs) != 2 or needed.isdisjoint(op.outputs):
            continue
        held = [value for value in op.inputs if value not in answers]
        if len(held) != 1 or held[0] not in drawn & read:
            continue
        (value,) = held
        (answer,) = set(op.inputs) - {value}
        made_of = traced.needed([value])
        sources = [each for each in (*rows, *noise) if each in made_of]
        beside = traced.reached(sources, lambda other, value=value: value not in other.outputs)
        if answer in answers and answer not in beside and answer in traced.reached([value]):
            yield fault(
                "leaked_targets",
                op.where or start.loss_line,
                "the loss holds the answer against the noisy rows that the network was given: to "
                "hand them on is a perfect answer, and nothing needs to be learned",
                "the target is the input",
                healthy="the noise, or the rows without it",
                remedy="jnp.mean((outputs - noise) ** 2), where outputs are to say the noise",
                confidence=0.9,
            )
            return
