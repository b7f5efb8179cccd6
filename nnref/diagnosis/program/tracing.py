"""The traced program of a network: its operations in one flat list, their values on a batch."""

import os
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import flax
import jax
import numpy as np

from nnref import internals
from nnref.training.checkpoint import is_key

# Calls whose body stands in their place; what is done with a batch of it is another body.
OPENED = internals.CALLS - {"custom_vmap_call"}
LOOPS = {"scan", "while", "cond"}
UNROLLED = 32  # layers at most of a loop over stacked parameters whose turns are listed one by one
PRODUCTS = {"dot_general", "conv_general_dilated", "gather"}
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}

LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in {
        *(sysconfig.get_paths()[place] for place in ("stdlib", "purelib", "platlib")),
        *(os.path.dirname(module.__file__) for module in (jax, flax, np) if module.__file__),
    }
)
# The frames of the diagnosis, of the training, of the rows that it is given and of the call of an
# optimizer are hidden from a user's lines.
WINGS = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
CHAIN = ("parts", "chain.py")
OWN = tuple(
    os.path.join(WINGS, *at) for at in (("diagnosis", ""), ("training", ""), ("data", ""), CHAIN)
)


class Operation(NamedTuple):
    """A primitive of the program: numbers of the values that go in and come out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    equation: Any
    frames: tuple[str, ...]  # files and lines of the user's code, innermost first

    @property
    def where(self) -> str:
        """File and line."""
        return self.frames[0] if self.frames else ""


@dataclass
class Trace:
    """A program, flat: calls are opened, loops are single operations (or opened once).

    A loop over stacked parameters is a stack of layers: its turns are listed one by one.

    Values have numbers. `inputs` and `outputs` are those of the leaves of the arguments and of the
    result; `arguments[i]` are the inputs of argument i, `paths` the names of inputs in their
    argument; `constants` are literals and captured arrays.
    """

    operations: list[Operation] = field(default_factory=list)
    avals: list[Any] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    arguments: list[list[int]] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)
    constants: dict[int, Any] = field(default_factory=dict)
    by_hand: list[str] = field(default_factory=list)  # lines of derivatives that were given
    calls: int = 0  # operations that run one by one: a compiled function is one of them
    result: Any = None  # the tree of the result, with shapes for leaves

    def value(self, aval: Any) -> int:
        """The number of a new value."""
        self.avals.append(aval)
        return len(self.avals) - 1

    def size(self, value: int) -> int:
        """How many numbers a value holds."""
        return int(np.prod(getattr(self.avals[value], "shape", ())))

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(getattr(self.avals[value], "shape", ()))

    def reached(
        self, values: Iterable[int], through: Callable[[Operation], bool] = lambda _: True
    ) -> set[int]:
        """All values that depend on these, themselves included, by operations that let through."""
        reached = set(values)
        for operation in self.operations:
            if not reached.isdisjoint(operation.inputs) and through(operation):
                reached.update(operation.outputs)
        return reached

    def needed(self, values: Iterable[int], given: Iterable[int] = ()) -> set[int]:
        """All values on which these depend, themselves included; `given` need nothing."""
        needed, given = set(values), set(given)
        for operation in reversed(self.operations):
            outputs = needed.intersection(operation.outputs)
            if outputs - given:
                needed.update(operation.inputs)
        return needed

    @cached_property
    def makers(self) -> dict[int, Operation]:
        """The operation that gives each value; what is traced does not change any more."""
        return {out: op for op in self.operations for out in op.outputs}

    def consumers(self) -> dict[int, list[Operation]]:
        """The operations that take each value."""
        consumers: dict[int, list[Operation]] = {}
        for operation in self.operations:
            for value in dict.fromkeys(operation.inputs):
                consumers.setdefault(value, []).append(operation)
        return consumers

    def evaluate(
        self, leaves: Sequence[Any], wanted: Sequence[int], given: Mapping[int, Any] | None = None
    ) -> list[Any]:
        """The wanted values, for these leaves of the arguments; it can be jitted.

        `given` replaces values in the middle: what only they depend on is not computed.
        """
        values = {**self.constants, **dict(zip(self.inputs, leaves, strict=True)), **(given or {})}
        needed = self.needed(wanted, given or ())
        for operation in self.operations:
            if all(out in values or out not in needed for out in operation.outputs):
                continue
            arguments = [values[value] for value in operation.inputs]
            results = internals.evaluate(operation.equation, arguments)
            for out, result in zip(operation.outputs, results, strict=True):
                values.setdefault(out, result)
        return [values[value] for value in wanted]


def trace(function: Callable[..., Any], *arguments: Any, loops: bool = False) -> Trace:
    """The program of a function for arguments of these shapes.

    Args:
        function: of arrays and trees of them.
        arguments: arrays, or shapes of arrays.
        loops: open their bodies once too. The list then tells what is computed where, and cannot be
            evaluated.
    """
    program, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
    traced = Trace(calls=len(program.jaxpr.eqns), result=result)
    variables: dict[Any, int] = {}
    flat, _ = jax.tree_util.tree_flatten_with_path(arguments)
    traced.arguments = [[] for _ in arguments]
    for (path, _), variable in zip(flat, program.jaxpr.invars, strict=True):
        value = variables[variable] = traced.value(variable.aval)
        traced.inputs.append(value)
        traced.arguments[path[0].idx].append(value)  # pyright: ignore[reportAttributeAccessIssue]
        traced.paths[value] = name_of(path[1:])
    capture(traced, program, variables)
    append(traced, program.jaxpr, variables, (), False, loops)
    traced.outputs = [read(traced, variables, atom) for atom in program.jaxpr.outvars]
    return traced


def capture(traced: Trace, program: Any, variables: dict[Any, int]) -> None:
    """Constants of a closed program."""
    for variable, constant in zip(program.jaxpr.constvars, program.consts, strict=True):
        value = variables[variable] = traced.value(variable.aval)
        traced.constants[value] = constant


def read(traced: Trace, variables: dict[Any, int], atom: Any) -> int:
    """The number of a variable, or of a literal."""
    if not internals.is_literal(atom):
        return variables[atom]
    value = traced.value(atom.aval)
    traced.constants[value] = atom.val
    return value


def append(
    traced: Trace,
    program: Any,
    variables: dict[Any, int],
    outer: tuple[str, ...],
    library: bool,
    loops: bool,
) -> None:
    """Append the operations of a program.

    Args:
        traced: that they are appended to.
        program: a jaxpr.
        variables: numbers of its variables.
        outer: the lines of the call; a function is traced once for all its callers, so that only
            the call knows them.
        library: whether the program is one of a library.
        loops: whether bodies of loops are opened.
    """
    for equation in program.eqns:
        own = () if library and outer else places(equation)
        frames = (*own[:1], *outer) if outer else own
        name = equation.primitive.name
        inputs = [read(traced, variables, atom) for atom in equation.invars]
        bodies = internals.bodies(equation)
        if name in OPENED and [len(body.jaxpr.invars) for body in bodies] == [len(inputs)]:
            (body,) = bodies
            inner = dict(zip(body.jaxpr.invars, inputs, strict=True))
            capture(traced, body, inner)
            of_library = library or is_library(internals.function_file(body.jaxpr))
            if name.startswith("custom") and not of_library:
                traced.by_hand.extend(frames[:1])
            append(traced, body.jaxpr, inner, frames, of_library, loops)
            for variable, atom in zip(equation.outvars, body.jaxpr.outvars, strict=True):
                variables[variable] = read(traced, inner, atom)
            continue
        if name == "scan" and over_layers(traced, equation, inputs):
            outputs = unroll(traced, equation, inputs, frames, library, loops)
            variables.update(zip(equation.outvars, outputs, strict=True))
            continue
        if loops and name in LOOPS:
            for body in bodies:
                open_loop(traced, equation, body, inputs, frames)
        if not equation.outvars:
            continue  # it gives nothing, as a print
        outputs = [traced.value(variable.aval) for variable in equation.outvars]
        variables.update(zip(equation.outvars, outputs, strict=True))
        operation = Operation(name, tuple(inputs), tuple(outputs), equation, frames)
        traced.operations.append(operation)


def over_layers(traced: Trace, equation: Any, inputs: list[int]) -> bool:
    """Whether a scan runs over the parameters of a few layers, stacked, and gives what it carries.

    Data enter such a loop by what is carried alone.
    """
    scan = internals.scan_of(equation)
    first, *others = traced.arguments or [[]]
    if scan.length > UNROLLED or len(equation.outvars) != scan.carry:
        return False
    keys = {value for value in inputs if is_key(traced.avals[value])}
    stacked = set(inputs[scan.consts + scan.carry :]) - keys
    beside = traced.reached(value for argument in others for value in argument)
    return bool(stacked) and stacked <= traced.reached(first) and stacked.isdisjoint(beside)


def unroll(
    traced: Trace,
    equation: Any,
    inputs: list[int],
    frames: tuple[str, ...],
    library: bool,
    loops: bool,
) -> list[int]:
    """Append the turns of a scan one after the other: what is carried at its end."""
    scan, (body,) = internals.scan_of(equation), internals.bodies(equation)
    consts, carry, stacked = np.split(np.array(inputs, int), np.cumsum([scan.consts, scan.carry]))
    turns = range(scan.length)
    for turn in reversed(turns) if scan.reverse else turns:
        taken = []
        for stack in stacked.tolist():
            cut = jax.make_jaxpr(lambda whole, turn=turn: whole[turn])(traced.avals[stack])
            inner = {cut.jaxpr.invars[0]: stack}
            capture(traced, cut, inner)
            append(traced, cut.jaxpr, inner, frames, True, loops)
            taken.append(read(traced, inner, cut.jaxpr.outvars[0]))
        variables = dict(zip(body.jaxpr.invars, [*consts, *carry, *taken], strict=True))
        capture(traced, body, variables)
        append(traced, body.jaxpr, variables, frames, library, loops)
        carry = [read(traced, variables, atom) for atom in body.jaxpr.outvars]
    return list(carry)


def open_loop(
    traced: Trace, equation: Any, body: Any, inputs: list[int], frames: tuple[str, ...]
) -> None:
    """Append the body of a loop or a branch, fed from outside; what it gives leads nowhere.

    What is carried from turn to turn depends on all that goes in.
    """
    if equation.primitive.name == "cond":
        fed, carried = inputs[1:], range(0)
    elif equation.primitive.name == "while":
        of_condition, of_body = internals.while_constants(equation)
        fed = inputs[of_condition:]
        carried = range(of_body, len(fed))
    else:
        fed = inputs
        scan = internals.scan_of(equation)
        carried = range(scan.consts, scan.consts + scan.carry)
    if len(fed) != len(body.jaxpr.invars):
        return  # the condition of a while
    variables: dict[Any, int] = {}
    for i, variable in enumerate(body.jaxpr.invars):
        inside = variables[variable] = traced.value(variable.aval)
        outside = tuple(fed) if i in carried else (fed[i],)
        traced.operations.append(Operation("enter", outside, (inside,), equation, frames))
    capture(traced, body, variables)
    append(traced, body.jaxpr, variables, frames, False, True)


def is_library(file: str) -> bool:
    """Whether a file is nnref's, Python's or that of a library, so that no line of it is named."""
    return file.startswith((*LIBRARIES, *OWN, "<frozen"))


def places(equation: Any) -> tuple[str, ...]:
    """`file:line` of the lines outside of libraries that led to an operation, innermost first."""
    return tuple(
        f"{shortened(file)}:{line}"
        for file, line in internals.frames(equation)
        if not is_library(file)
    )


@lru_cache(maxsize=2**14)
def name_of(path: tuple[Any, ...]) -> str:
    """A place in a tree, as people write it: `dense.kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def shortened(file: str) -> str:
    """The path of a file, from the folder at work where it lies in it."""
    inside = file.startswith(os.path.join(os.getcwd(), ""))
    return os.path.relpath(file) if inside else file
