"""What an expression could be instead: the slips that people make, and that still compute."""

import dataclasses
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.one_edit.rewriting import Site

ARRAYS = jax.Array | np.ndarray
Variant = tuple[str, Callable[[], Any]]  # the text that would stand there, and its value
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "@": operator.matmul,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OTHER = {"+": "-", "-": "+"}
COMPARED = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">", ">="),
    "<=": ("<", ">", ">="),
    ">": (">=", "<", "<="),
    ">=": (">", "<", "<="),
}
# Functions that are taken for one another; a mean and a sum differ by a weight, a setting.
EXCHANGED = {
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "minimum": "maximum",
    "argmax": "argmin",
    "argmin": "argmax",
    "softmax": "sigmoid",
    "sigmoid": "softmax",
    "log_softmax": "log_sigmoid",
    "any": "all",
    "all": "any",
    "sin": "cos",
    "cos": "sin",
    "uniform": "normal",
    "normal": "uniform",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
}
PURE = ("jax", "jaxlib", "numpy", "optax")  # libraries whose functions may be called once more
LIFTED = ("vmap", "grad", "jit", "scan", "remat", "checkpoint")  # these call a user's function


def is_float(value: Any) -> bool:
    """Whether a value is an array of floating point."""
    return jnp.issubdtype(value.dtype, jnp.floating)


def stopped(text: str) -> str:
    """The text of an expression through which no gradient passes."""
    return f"jax.lax.stop_gradient({text})"


def binary(site: Site, symbol: str, left: Any, right: Any) -> Iterator[Variant]:
    """Another sign or order, a factor left out or turned round, one side without its gradient.

    A term that is left out of a sum is regularization as often as a slip, and a factor that is a
    number is a setting: these stay.
    """
    a, b = site.parts
    apply = OPERATORS[symbol]
    arrays = isinstance(left, ARRAYS) and isinstance(right, ARRAYS)
    if symbol in "-/@":
        yield f"{b} {symbol} {a}", lambda: apply(right, left)
    if symbol in OTHER:
        yield f"{a} {OTHER[symbol]} {b}", lambda: OPERATORS[OTHER[symbol]](left, right)
    if symbol == "-":
        yield b, lambda: right  # 1 - x
    if symbol in "*/":
        yield f"-({a} {symbol} {b})", lambda: -apply(left, right)
    if symbol == "@":
        yield f"{a} @ {b}.T", lambda: left @ jnp.swapaxes(right, -1, -2)
        yield f"{a}.T @ {b}", lambda: jnp.swapaxes(left, -1, -2) @ right
    if symbol == "*" and arrays:
        yield a, lambda: left
        yield b, lambda: right
        yield f"{a} * (1 - {b})", lambda: left * (1 - right)
        yield f"(1 - {a}) * {b}", lambda: (1 - left) * right
    if symbol in "-*" and arrays:
        if is_float(left):
            yield f"{stopped(a)} {symbol} {b}", lambda: apply(jax.lax.stop_gradient(left), right)
        if is_float(right):
            yield f"{a} {symbol} {stopped(b)}", lambda: apply(left, jax.lax.stop_gradient(right))


def compared(site: Site, symbol: str, left: Any, right: Any) -> Iterator[Variant]:
    """Another comparison."""
    a, b = site.parts
    for other in COMPARED[symbol]:
        yield f"{a} {other} {b}", lambda other=other: OPERATORS[other](left, right)


def unary(site: Site, symbol: str, value: Any) -> Iterator[Variant]:
    """Without its sign."""
    yield site.parts[0], lambda: value


def name(site: Site, value: Any, *others: tuple[str, Any]) -> Iterator[Variant]:
    """Another name that has a value of the same form."""
    for text, other in reversed(others):
        yield text, lambda other=other: other
    if isinstance(value, ARRAYS) and value.dtype == np.bool_:
        yield f"~{site.text}", lambda: ~value


def kept(site: Site, word: str, away: Any) -> Iterator[Variant]:
    """What a call gives and is thrown away, in the place of an argument of the call."""
    yield word, lambda: away


def item(site: Site, value: Any, index: Any) -> Iterator[Variant]:
    """Another key of a dict, another place of a tuple, a place or a part beside it of an array."""
    whole = site.parts[0]
    if isinstance(value, dict):
        for key in [key for key in value if key != index]:
            yield f"{whole}[{key!r}]", lambda key=key: value[key]
    elif isinstance(value, tuple | list) and isinstance(index, int):
        for place in [place for place in range(len(value)) if place != index % len(value)]:
            yield f"{whole}[{place}]", lambda place=place: value[place]
    elif isinstance(value, ARRAYS):
        yield whole, lambda: value
        parts = index if isinstance(index, tuple) else (index,)
        if any(part is Ellipsis or part is None for part in parts) or len(parts) > value.ndim:
            return
        for place, part in enumerate(parts):
            for other in beside(part, value.shape[place]):
                new = (*parts[:place], other, *parts[place + 1 :])
                yield f"{whole}[{', '.join(map(text_of, new))}]", lambda new=new: value[new]


def beside(part: Any, size: int) -> list[Any]:
    """The places next to a place, or the parts of the same length next to a part."""
    if isinstance(part, int):
        part %= size
        return [place for place in (part - 1, part + 1) if 0 <= place < size]
    if not isinstance(part, slice) or part.step not in (None, 1):
        return []
    start, stop, _ = part.indices(size)
    return [
        slice(start + by or None, stop + by if stop + by < size else None)
        for by in (-1, 1)
        if start + by >= 0 and stop + by <= size
    ]


def text_of(part: Any) -> str:
    """An index as it is written."""
    if not isinstance(part, slice):
        return str(part) if isinstance(part, int) else "…"
    return f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"


def attribute(site: Site, value: Any, word: str) -> Iterator[Variant]:
    """Another field of a record; an array as it is for its transpose."""
    whole = site.parts[0]
    fields = getattr(value, "_fields", ())
    if dataclasses.is_dataclass(value):
        fields = tuple(field.name for field in dataclasses.fields(value))
    for other in [field for field in fields if field != word and word in fields]:
        yield f"{whole}.{other}", lambda other=other: getattr(value, other)
    if word in ("T", "mT") and isinstance(value, ARRAYS):
        yield whole, lambda: value


def ordered(site: Site, values: tuple[Any, ...], before: str = "") -> Iterator[Variant]:
    """Two neighbours exchanged, of a tuple or of the arguments of a call."""
    texts = site.parts[1:] if before else site.parts
    for i in range(len(values) - 1):
        if isinstance(values[i], ARRAYS | dict | tuple | list):
            new, order = list(texts), list(values)
            new[i : i + 2], order[i : i + 2] = new[i : i + 2][::-1], order[i : i + 2][::-1]
            text = f"{before}({', '.join(new)})" if before else ", ".join(new)
            yield text, lambda order=order: tuple(order)


def called(
    site: Site, function: Any, arguments: tuple[Any, ...], words: dict[str, Any]
) -> Iterator[Variant]:
    """Without the call, its arguments exchanged, another axis, another function of its kind."""
    f, *texts = site.parts
    arrays = [i for i, each in enumerate(arguments) if isinstance(each, ARRAYS)]
    bare = getattr(function, "__name__", "").lstrip("_")  # a method of an array is called `_max`
    own: Any = getattr(function, "__self__", None)
    home = str(getattr(function, "__module__", "") or type(function).__module__)
    if isinstance(own, ARRAYS):
        home, where = "jax", own
    else:
        where = None
    if home.split(".")[0] not in PURE or bare in LIFTED:
        return

    def written(new: list[str], f: str = f) -> str:
        named = [f"{word}={value!r}" for word, value in words.items()]
        return f"{f}({', '.join([*new, *named])})"

    if len(arrays) == 1 and home.split(".")[0] in ("jax", "jaxlib"):
        yield texts[arrays[0]], lambda: arguments[arrays[0]]
    first: Any = where if where is not None else arguments[0] if arguments else None
    first = first[0] if isinstance(first, list | tuple) and first else first
    count = first.ndim if isinstance(first, ARRAYS) else 0
    if isinstance(words.get("axis"), int) and count > 0:
        for axis in [a for a in range(count) if a != words["axis"] % count]:
            text = f"{f}({', '.join([*texts, f'axis={axis}'])})"
            yield text, lambda axis=axis: function(*arguments, **(words | {"axis": axis}))
    other = EXCHANGED.get(bare)
    for room in (where, jnp, jax.nn, jax.random):
        instead = getattr(room, other, None) if other and room is not None else None
        if instead is not None:
            yield (
                written(texts, f.rpartition(".")[0] + "." + (other or "")),
                lambda instead=instead: instead(*arguments, **words),
            )
            return


KINDS: dict[str, Callable[..., Iterator[Variant]]] = {
    "binary": binary,
    "compared": compared,
    "unary": unary,
    "name": name,
    "item": item,
    "attribute": attribute,
    "ordered": ordered,
    "kept": kept,
    "called": called,
}
