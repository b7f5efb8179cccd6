"""A loop as it runs: some steps on copies of the state, and what each call was given and gave."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.loop.course import Course, distance
from nnref.diagnosis.loop.program import Program, line_of_function
from nnref.diagnosis.loop.stepping import (
    Arrays,
    Parted,
    Step,
    alike,
    copied,
    given_away,
    is_array,
    numbers,
    on_host,
    parted,
)
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError

KEPT = 2**28  # bytes of states that are kept: with a large one fewer steps are made
FURTHER = 200  # turns that are made beyond those that were looked at
BYTES = 2**28  # of batches, that these take at most
FEWEST = 6  # steps that are made of any state
MANY = 100  # operations of a step that run one by one, from which on it is compiled as one
ROUNDING = 1e-4  # by which a compiled step may differ from one that is not
key_of = jax.jit(jax.random.fold_in)  # of a key and the number of a call


class Theirs(Exception):
    """What a function of the user's has raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Call(NamedTuple):
    """One call of a step: what it was given, and what it gave."""

    before: Parted
    after: Parted
    batch: Any
    key: Any
    metrics: dict[str, float]
    missing: tuple[Any, ...]  # parts of the state that it did not give back
    comes_back: bool

    def change(self, paths: Iterable[str]) -> dict[str, np.ndarray]:
        """What the call has added to these arrays of the state, to those that keep their shape."""
        before, after = self.before.arrays, self.after.arrays
        return {
            path: np.asarray(after[path], float) - np.asarray(before[path], float)
            for path in paths
            if np.shape(after[path]) == np.shape(before[path])
        }


def is_drawn(batches: Any) -> bool:
    """Whether batches are a function of the number of the step."""
    return callable(batches) and not hasattr(batches, "__iter__")


def made(batches: Any) -> Any:
    """The batches that a function without arguments makes, as a generator does; else as given."""
    try:
        alone = is_drawn(batches) and not inspect.signature(batches).parameters
    except (TypeError, ValueError):  # of a function of C nothing is known
        return batches
    return batches() if alone else batches


def batches_of(batches: Any, count: int) -> list[Any]:
    """The batches of the first steps; those of an iterable that is shorter are used again.

    Raises:
        UserError: for what gives no batch.
    """
    if batches is None:
        return []
    if is_drawn(batches):
        return [batches(number) for number in range(count)]
    if not isinstance(batches, Iterable) or isinstance(batches, dict | str) or is_array(batches):
        raise UserError(
            f"examine: batches is a {type(batches).__name__}; give an iterable of batches, as "
            "[(x, y), ...], a function that makes one, or a function of the number of the step"
        )
    taken = list(islice(iter(batches), count))
    if not taken:
        raise UserError("examine: batches is empty; one batch is the least")
    return taken


class Further(NamedTuple):
    """The state after further turns, the length of all parameters' move in each, and the losses."""

    state: Parted
    lengths: np.ndarray
    losses: np.ndarray


class Loop(Course):
    """A user's loop: its steps in turn, the calls that were made of them, and their programs."""

    def __init__(
        self,
        steps: Sequence[Callable[..., Any]],
        state: Any,
        batches: Any,
        evaluate: Callable[[Any], Any] | None,
        key: Any,
        roles: dict[str, str],
        count: int,
    ) -> None:
        """Take the loop apart; `run` makes the steps."""
        super().__init__(state, parted(state), roles)
        self.evaluate, self.key = evaluate, key
        size = sum(getattr(leaf, "nbytes", 8) for leaf in self.start.arrays.values())
        self.count = max(min(count, KEPT // max(size * len(steps), 1)), min(FEWEST, count))
        self.given_batches, batches = batches, made(batches)
        self.batches = batches_of(batches, self.count)
        self.drawn = batches if is_drawn(batches) else None
        self.later: dict[int, Any] = {}  # batches that were drawn beyond those
        first = self.batches[0] if self.batches else ()
        self.steps = [Step(step, state, first, batches is not None) for step in steps]
        self.gives_away = False  # whether a step has used up the buffers that it was given
        self.written: Any = jax.Array | np.ndarray  # the kinds of arrays that a call may change
        self.measures: dict[str, Any] = {}  # what questions have measured, for the answer
        self.calls: list[list[Call]] = []  # of each step, in its turns

    def batch(self, number: int) -> Any:
        """The batch of a step; beyond those that were looked at it is drawn, or they come again."""
        if self.drawn is not None and number >= len(self.batches):
            if number not in self.later:
                self.later[number] = self.drawn(number)
            return self.later[number]
        return self.batches[number % len(self.batches)] if self.batches else ()

    @cached_property
    def one_batch(self) -> bool:
        """Whether several batches are one and the same."""
        first, *others = self.batches or [()]
        return len(others) > 2 and all(alike(first, other) for other in others)

    @cached_property
    def shuffled_anew(self) -> bool:
        """Whether another epoch begins with other rows."""
        again = made(self.given_batches)
        if not isinstance(again, Iterable) or iter(again) is self.given_batches:
            return False  # of a function of the step, or an iterator, there is no other epoch
        first = self.batches[0], next(iter(again), self.batches[0])
        return not alike(*([*filter(is_array, jax.tree.leaves(batch))] for batch in first))

    def run(self) -> None:
        """Make the steps, and trace them.

        Raises:
            Theirs: what they raise.
        """
        state = Parted(copied(self.start.arrays), self.start.rebuild)
        self.calls = [[] for _ in self.steps]
        for number in range(self.count):
            for place, step in enumerate(self.steps):
                key = key_of(self.key, number * len(self.steps) + place)
                make = self.call if number else self.first_call
                call = make(step, state, self.batch(number), key)
                self.calls[place].append(call)
                state = call.after
        if not self.gives_away:
            self.written = np.ndarray  # to copy all others takes longer than a small step
        self.start, self.last = self.calls[0][0].before, state.arrays
        self.turns, self.comes_back = self.count, self.calls[0][0].comes_back
        after = [on_host(call.after.arrays) for call in self.calls[-1]]
        self.states = [on_host(self.start.arrays), *after]
        self.moves = {
            path: np.array([distance(b.get(path), a.get(path)) for b, a in self.pairs])
            for path in self.states[0]
        }
        self.programs = [self.program(place) for place in range(len(self.steps))]

    def first_call(self, step: Step, state: Parted, batch: Any, key: Any) -> Call:
        """The first call of a step, in the first way of taking its arguments that runs.

        Raises:
            Theirs: what the likeliest way raises, where none runs.
        """
        errors = []
        for way in step.ways:
            step.way = way
            try:
                return self.call(step, state, batch, key)
            except Theirs as error:
                errors.append(error)
        step.way = step.ways[0]
        raise errors[0]

    def call(self, step: Step, state: Parted, batch: Any, key: Any) -> Call:
        """One call of a step, on copies of its arguments.

        Raises:
            Theirs: what it raises.
        """
        try:
            arrays, rows = copied((state.arrays, batch), self.written)
            outcome = step(state, arrays, rows, key)
            metrics = numbers(jax.block_until_ready(outcome.metrics))
            jax.block_until_ready(list(outcome.state.arrays.values()))
            self.gives_away |= given_away((arrays, rows))
        except Exception as error:
            raise Theirs(error) from error
        new = outcome.state.arrays.keys() - state.arrays.keys()
        state = with_numbers(state, new) if new else state
        kept = Parted({**state.arrays, **outcome.state.arrays}, outcome.state.rebuild)
        return Call(state, kept, batch, key, metrics, outcome.missing, outcome.comes_back)

    @cached_property
    def further(self) -> Further:
        """More turns: where they lead, how far each moves the parameters, and the losses."""
        state, lengths, losses = self.calls[-1][-1].after, [], []
        name, weights = self.loss_name(), self.of("parameter")
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self.batch(0)) if is_array(leaf))
        after = [np.asarray(state.arrays[path], float).ravel() for path in weights]
        for number in range(self.count, self.count + min(FURTHER, BYTES // max(size, 1))):
            before = after
            for place, step in enumerate(self.steps):
                key = key_of(self.key, number * len(self.steps) + place)
                make = self.compiled[place] or partial(self.call, step)
                call = make(state, self.batch(number), key)
                state = call.after
                if name is not None and not place:
                    losses.append(call.metrics.get(name, np.nan))
            after = [np.asarray(state.arrays[path], float).ravel() for path in weights]
            moves = [float(np.linalg.norm(a - b)) for a, b in zip(after, before, strict=True)]
            lengths.append(float(np.linalg.norm(moves)))
        return Further(state, np.array(lengths), np.array(losses))

    @cached_property
    def compiled(self) -> list[Callable[..., Call] | None]:
        """Each step that runs operation by operation, as one program, where that gives the same."""
        return [self.as_one(place) for place in range(len(self.steps))]

    def as_one(self, place: int) -> Callable[..., Call] | None:
        """A step as one program, if it is none and if all calls that were made come out the same.

        They would not where the step counts, draws or decides outside of what is traced.
        """
        program = self.programs[place]
        if program is None or program.trace.calls < MANY:
            return None
        run = jax.jit(program.pure)

        def call(state: Parted, batch: Any, key: Any) -> Call:
            new, metrics = run(state.arrays, parted(batch).arrays, key)
            after = Parted({**state.arrays, **new}, state.rebuild)
            return Call(state, after, batch, key, numbers(metrics), (), self.comes_back)

        for made in self.calls[place]:
            if len(parted(made.batch).arrays) < len(jax.tree.leaves(made.batch)):
                return None  # a number of Python may be another one each time
            again = call(made.before, made.batch, made.key)
            # Of small updates rounding hides what differs, unless they are compared themselves.
            same = same_arrays(again.after.arrays, made.after.arrays)
            if not same or self.apart(again, made) > bound("compiled in"):
                return None
        return call

    def fall(self) -> tuple[np.ndarray, float, float] | None:
        """The losses of all turns, further ones too, and their median at first and at last.

        None where no loss is known.
        """
        loss = self.loss()
        if loss is None:
            return None
        losses = np.concatenate([loss, self.further.losses])
        return losses, float(np.median(losses[:5])), float(np.median(losses[-5:]))

    def again(self, place: int, number: int = 0, batch: Any = None) -> Call:
        """A call that was made, made again, or the same with another batch."""
        made = self.calls[place][number]
        batch = made.batch if batch is None else batch
        return self.call(self.steps[place], made.before, batch, made.key)

    def apart(self, one: Call, other: Call) -> float:
        """How far two updates of the parameters are apart, as a share of the longer one."""
        weights = self.of("parameter")
        a, b = (
            np.concatenate([np.ravel(part) for part in call.change(weights).values()] or [[0.0]])
            for call in (one, other)
        )
        longest = max(np.linalg.norm(a), np.linalg.norm(b))
        return float(np.linalg.norm(a - b) / longest) if np.isfinite(longest) and longest else 0.0

    def program(self, place: int) -> Program | None:
        """The traced program of a step, None where it cannot be traced as a whole."""
        calls = self.calls[place]
        try:
            return Program(self.steps[place], calls[min(1, len(calls) - 1)])
        except Exception:  # float(loss) within a step, say
            return None

    def line(self, place: int = 0) -> str:
        """The line where a step begins."""
        return line_of_function(self.steps[place].function)

    def loss_line(self, place: int = 0) -> str:
        """The user's line that computes the loss, else where the step begins."""
        program = self.programs[place]
        found = program and program.loss_of(self)
        if program and found:
            for operation in program.trace.operations:
                if found[0] in operation.outputs and operation.where:
                    return operation.where
        return self.line(place)

    def loss_name(self, place: int = 0) -> str | None:
        """What the loss of a step is called among its metrics, None where none is known."""
        program = self.programs[place]
        names = list(self.calls[place][0].metrics)
        name = program.loss_name(self) if program else None
        if name is None:
            named = [n for n in names if "loss" in n.lower()]
            name = named[0] if named else names[0] if len(names) == 1 else None
        return name if name in names else None

    def loss(self, place: int = 0) -> np.ndarray | None:
        """The loss of each call of a step as its metrics tell it, None where they do not."""
        name = self.loss_name(place)
        if name is None:
            return None
        return np.array([call.metrics.get(name, np.nan) for call in self.calls[place]])


def same_arrays(one: Arrays, other: Arrays) -> bool:
    """Whether two states differ by no more than rounding."""
    a, b = on_host(one), on_host(other)
    return a.keys() == b.keys() and all(
        np.shape(a[path]) == np.shape(b[path])
        and np.allclose(a[path], b[path], rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
        for path in a
    )


def with_numbers(state: Parted, paths: Iterable[str]) -> Parted:
    """The same state where some numbers of Python, as the step of a TrainState, are arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(state.rebuild(state.arrays))
    numbers = {name_of(path): leaf for path, leaf in leaves if isinstance(leaf, int | float)}
    new = {path: jnp.asarray(numbers[path]) for path in paths if path in numbers}
    return Parted({**state.arrays, **new}, state.rebuild)
