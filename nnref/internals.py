"""What nnref uses of the insides of JAX, XLA and Flax: all of it stands here, and nowhere else.

These are no promises of the libraries, and they do change: from JAX 0.11 on a scan no longer says
how many values it carries. So each function has a test in `tests/test_internals.py`, which says by
name what changed, and with which version. All were seen in jax 0.10.2 and 0.12.0.1, flax 0.12.8 and
0.12.12.
"""

import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax._src import source_info_util  # the only way to hand on where an operation was written
from jax._src.core import trace_state_clean
from jax.core import Tracer
from jax.extend import core

Tree = Any
Equation = Any  # an operation of a traced program (`jax.extend.core.JaxprEqn`)


# --- XLA's options for its CPU backend

# Bytes of state up to which the body of a loop becomes one function; to be set in XLA_FLAGS.
WHOLE_LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold"
# A call of a library keeps a loop in pieces. So neither YNNPACK, which takes products together with
# what is around them, nor Eigen's threads are to have the products of a tiny network. From jaxlib
# 0.12 on that alone is not enough: products need the form of `parts/models/layers.product` as well.
WITHOUT_LIBRARIES = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_multi_thread_eigen": False,
}


# --- JAX's cache of compiled programs


def keep_entries_whole() -> None:
    """Let an entry of JAX's compilation cache have its name only once it is written whole.

    JAX writes it under that name. A process that is killed meanwhile leaves a part, which is never
    replaced: every later process warns of it, and compiles that program anew.
    """
    from jax._src.lru_cache import _CACHE_SUFFIX, LRUCache

    put = LRUCache.put
    if put.__module__ == __name__:
        return

    def put_whole(self: Any, key: str, value: bytes) -> None:
        path = Path(str(self.path)) / f"{key}{_CACHE_SUFFIX}"
        if not key or self.eviction_enabled or not path.parent.is_dir():
            put(self, key, value)
        elif not path.exists():
            half = path.with_name(f"{key}.{os.getpid()}.half")
            half.write_bytes(value)
            half.replace(path)

    LRUCache.put = put_whole


# --- the programs that JAX traces


def is_traced(value: Any) -> bool:
    """Whether a value stands for one that is known only when the compiled program runs."""
    return isinstance(value, Tracer)


def is_tracing() -> bool:
    """Whether a program is being made of what runs now, as `jax.jit` makes one."""
    return not trace_state_clean()


def is_of_a_plain_program(value: Any) -> bool:
    """Whether a traced value is one of a program as `jax.jit` traces it.

    One row of a `jax.vmap`, or what is being differentiated, is none.
    """
    return is_traced(value) and type(value).__name__ == "DynamicJaxprTracer"


def is_differentiated(value: Any) -> bool:
    """Whether a value is one that `jax.grad` follows."""
    return is_traced(value) and type(value).__name__ in ("JVPTracer", "LinearizeTracer")


def is_literal(atom: Any) -> bool:
    """Whether an input of an equation is a number written into the program, not a variable."""
    return isinstance(atom, core.Literal)


def bodies(equation: Equation) -> list[core.ClosedJaxpr]:
    """The programs that an equation runs: the function of a call, the branches of a condition."""
    values = [v if isinstance(v, tuple) else (v,) for v in equation.params.values()]
    inner = [part for parts in values for part in parts]
    # What a jitted function closes over stands in the closed program alone.
    closed = [p for p in inner if isinstance(p, core.ClosedJaxpr)]
    return closed or [core.ClosedJaxpr(p, ()) for p in inner if isinstance(p, core.Jaxpr)]


class Scan(NamedTuple):
    """A scan. Its inputs are `consts` constants, then `carry` carried values, then stacked ones."""

    length: int
    reverse: bool
    consts: int
    carry: int


def scan_of(equation: Equation) -> Scan:
    """How a scan uses its inputs, read from shapes: outside, what is stacked has one axis more."""
    (body,) = bodies(equation)

    def same_rank(outside: Any, inside: Any) -> int:
        pairs = zip(outside, inside, strict=True)
        return sum(len(out.aval.shape) == len(own.aval.shape) for out, own in pairs)

    carry = same_rank(equation.outvars, body.jaxpr.outvars)
    consts = same_rank(equation.invars, body.jaxpr.invars) - carry
    return Scan(equation.params["length"], equation.params["reverse"], consts, carry)


def with_other_divisors(program: core.ClosedJaxpr, number: float) -> Iterator[core.ClosedJaxpr]:
    """A program once for each line that divides by a number, there by twice that number."""
    lines: dict[Any, None] = {}

    def rewritten(part: Any, wanted: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(rewritten(each, wanted) for each in part)
        if not isinstance(part, core.Jaxpr):  # one that is closed is the same from JAX 0.12 on
            closed = isinstance(part, core.ClosedJaxpr)
            return part.replace(jaxpr=rewritten(part.jaxpr, wanted)) if closed else part
        equations = []
        for equation in part.eqns:
            atoms: list[Any] = list(equation.invars)
            if equation.primitive.name == "div" and is_literal(atoms[1]) and atoms[1].val == number:
                line = tuple(frames(equation))
                lines.setdefault(line)
                if line == wanted:
                    atoms[1] = core.Literal(atoms[1].val * 2, atoms[1].aval)
            params = {name: rewritten(value, wanted) for name, value in equation.params.items()}
            equations.append(equation.replace(invars=atoms, params=params))
        return part.replace(eqns=equations)

    rewritten(program, None)
    for line in list(lines):
        yield rewritten(program, line)


def repetitions(equation: Equation) -> int:
    """How often an equation runs its bodies: the length of a scan, else 1 (of a `while`, too)."""
    return equation.params["length"] if equation.primitive.name == "scan" else 1


def while_constants(equation: Equation) -> tuple[int, int]:
    """The first inputs of a `while`: how many constants its condition and its body have."""
    return equation.params["cond_nconsts"], equation.params["body_nconsts"]


def summed_terms(equation: Equation, operand: int = 1) -> int:
    """The products of which each number that a matrix product or a convolution gives is the sum.

    Args:
        equation: a `dot_general` or a `conv_general_dilated`.
        operand: the input whose shape is read; of a convolution the kernel, 1.

    Returns:
        0 for every other operation.
    """
    shape, params = equation.invars[operand].aval.shape, equation.params
    if equation.primitive.name == "dot_general":
        contracted = params["dimension_numbers"][0][operand]
        return math.prod(shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        out_axis = params["dimension_numbers"].rhs_spec[0]
        return math.prod(shape) // shape[out_axis]
    return 0


def flops(equation: Equation) -> int:
    """Multiplications and additions of a matrix product or a convolution, 0 for all else."""
    if equation.primitive.name not in ("dot_general", "conv_general_dilated"):
        return 0
    return 2 * summed_terms(equation) * math.prod(equation.outvars[0].aval.shape)


def contracted_axes(equation: Equation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of both sides that a product of matrices sums over."""
    return equation.params["dimension_numbers"][0]


def reduced_axes(equation: Equation) -> tuple[int, ...]:
    """The axes that a sum or a maximum reduces."""
    return equation.params["axes"]


def last_rows(equation: Equation) -> tuple[int, ...]:
    """The largest index that a `gather` may be asked for, on each axis that it indexes."""
    table = equation.invars[0].aval.shape
    sizes = equation.params["slice_sizes"]
    axes = equation.params["dimension_numbers"].start_index_map
    return tuple(table[axis] - sizes[axis] for axis in axes)


def frames(equation: Equation) -> Iterator[tuple[str, int]]:
    """File and line of the calls that led to an equation, innermost first."""
    traceback = getattr(equation.source_info, "traceback", None)
    for frame in getattr(traceback, "frames", None) or ():
        yield frame.file_name, frame.line_num


def is_derivative(equation: Equation) -> bool:
    """Whether an operation was added by a derivative that the program takes itself."""
    return any(file.endswith("/interpreters/ad.py") for file, _ in frames(equation))


def name_scopes(equation: Equation) -> list[str]:
    """The names that `jax.named_scope` gave around an equation, outermost first."""
    return str(equation.source_info.name_stack).split("/")


def function_file(program: core.Jaxpr) -> str:
    """The file of the function that a program was traced from, "" where it is unknown."""
    return getattr(getattr(program, "debug_info", None), "func_filename", None) or ""


def evaluate(equation: Equation, values: list[Any]) -> list[Any]:
    """What an equation gives for values of its inputs; it can be jitted, and keeps its lines."""
    with source_info_util.user_context(equation.source_info.traceback):
        results = equation.primitive.bind(*values, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]


def place_of(equation: Equation) -> tuple[str, int, int, int, int] | None:
    """File, first line, last line and columns of the expression that an equation was traced from.

    None where it is unknown.
    """
    frame = source_info_util.user_frame(equation.source_info.traceback)
    if frame is None:
        return None
    columns = frame.start_column, frame.end_column
    return frame.file_name, frame.start_line, frame.end_line, *columns


CALLS = {
    *("jit", "pjit", "closed_call", "checkpoint", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vmap_call"),
}


def interpret(
    program: core.ClosedJaxpr, arrays: Sequence[Any], instead: Mapping[str, Callable[..., Any]]
) -> list[Any]:
    """What a program gives, calls taken apart and some operations replaced, by their names.

    A replacement is called with the inputs and the parameters of the operation.
    """
    inner = program.jaxpr
    values = dict(zip((*inner.constvars, *inner.invars), (*program.consts, *arrays), strict=True))

    def value_of(atom: Any) -> Any:
        return atom.val if is_literal(atom) else values[atom]

    for equation in inner.eqns:
        name, inputs = equation.primitive.name, [value_of(atom) for atom in equation.invars]
        if name in instead:
            results = [instead[name](*inputs, **equation.params)]
        elif name in CALLS:
            results = interpret(bodies(equation)[0], inputs, instead)
        else:
            results = evaluate(equation, inputs)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [value_of(atom) for atom in inner.outvars]


# --- the modules of Flax


def parameters_of(function: Any) -> list[inspect.Parameter] | None:
    """The arguments of a function or a class; None where Python does not know them.

    Of a class they are those of its `__init__`: the classes of NNX hide them behind `__call__`.
    """
    if isinstance(function, partial):
        inner = (parameters_of(function.func) or [])[len(function.args) :]
        return [one for one in inner if one.name not in function.keywords]
    try:
        if not isinstance(function, type):
            return list(inspect.signature(function).parameters.values())
        return list(inspect.signature(function.__init__).parameters.values())[1:]
    except (TypeError, ValueError):
        return None


def plain_arrays(state: Any) -> Tree:
    """The state of an NNX module as nested dicts of arrays.

    Differentiating through NNX's own variables loses updates of batch statistics.
    """
    return nnx.to_pure_dict(nnx.as_pure(state))


def counted_rngs(key: jax.Array) -> nnx.Rngs:
    """Streams "params" and "dropout" for a module that is built from a key.

    The n-th draw of "params" is `fold_in(key, n)`, as in NNX's own stream. There the counter is an
    array; counted in Python, a model is traced much faster.
    """
    streams, draws = nnx.Rngs(dropout=key), count()
    streams.params = lambda: jax.random.fold_in(key, next(draws))  # pyright: ignore
    return streams


# --- other libraries


def haiku_function(transformed: Any) -> Any:
    """The function that `hk.transform` was called with; what it gives has no signature."""
    return transformed.apply._original_fn


def keras_loss(model: Any) -> Any:
    """The loss of a compiled `keras.Model`, called with targets and outputs, or None.

    `compute_loss` is public, and adds the penalties of the weights that the model itself holds.
    """
    return getattr(model, "_compile_loss", None)


def keras_metrics(model: Any) -> tuple[Any, list[Any]]:
    """The metrics of a compiled `keras.Model` as one object, and as they were asked for, flat.

    The object is None where there are none. It is built when it is first asked, and then has the
    metrics themselves, in the same order.
    """
    asked = getattr(model, "_compile_metrics", None)
    return asked, jax.tree.leaves(getattr(asked, "_user_metrics", None))
