"""What an expression could be instead: the slips that people make, and that still compute."""

import dataclasses
import inspect
import operator
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

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
OTHER = {"+": "-", "-": "+", "*": "/", "/": "*"}
COMPARED = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">", ">="),
    "<=": ("<", ">", ">="),
    ">": (">=", "<", "<="),
    ">=": (">", "<", "<="),
}
# Functions that are taken for one another. A mean and a sum of everything differ by a weight, which
# is a setting; along an axis they may make one term of a loss outweigh another.
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
    "tile": "repeat",
    "repeat": "tile",
    "sin": "cos",
    "cos": "sin",
    "uniform": "normal",
    "normal": "uniform",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
}
PURE = ("jax", "jaxlib", "numpy", "optax")  # libraries whose functions may be called once more
# `x[:, ::-1]` and `jnp.flip(x, 1)`.
TURNED = re.compile(r"\[((?:\s*:\s*,)*)\s*::\s*-1\s*\]|\bflip\([^()]*,\s*(?:axis\s*=\s*)?(\d)\)")
MOST_AXES = 4  # of an array whose axes are exchanged
LIFTED = ("vmap", "grad", "jit", "scan", "remat", "checkpoint")  # these call a user's function


def is_float(value: Any) -> bool:
    """Whether a value is an array of floating point."""
    return jnp.issubdtype(value.dtype, jnp.floating)


def is_share(text: str, value: Any) -> bool:
    """Whether a value is a share that has a name, which may be taken for what is left of 1."""
    return text.isidentifier() and isinstance(value, float) and 0 < value < 1 and value != 0.5


def stopped(text: str) -> str:
    """The text of an expression through which no gradient passes."""
    return f"jax.lax.stop_gradient({text})"


def binary(site: Site, symbol: str, left: Any, right: Any) -> Iterator[Variant]:
    """Another sign or order, a factor left out or turned round, one side without its gradient.

    A term that is left out of a sum is regularization as often as a slip, and a factor that is a
    number is a setting: these stay, but such a factor may be meant as a divisor.
    """
    a, b = site.parts
    apply = OPERATORS[symbol]
    arrays = isinstance(left, ARRAYS) and isinstance(right, ARRAYS)
    if symbol in "-/@":
        yield f"{b} {symbol} {a}", lambda: apply(right, left)
    if is_share(a, left):
        yield f"(1 - {a}) {symbol} {b}", lambda: apply(1 - left, right)
    if is_share(b, right):
        yield f"{a} {symbol} (1 - {b})", lambda: apply(left, 1 - right)
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
    """Another name that has a value of the same form; a square matrix turned."""
    for text, other in reversed(others):
        yield text, lambda other=other: other
    if isinstance(value, ARRAYS) and value.dtype == np.bool_:
        yield f"~{site.text}", lambda: ~value
    if isinstance(value, ARRAYS) and value.ndim == 2 and value.shape[0] == value.shape[1]:
        yield f"{site.text}.T", lambda: value.T


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
    """The places next to a place and at the ends, or parts of the same length next to a part."""
    if isinstance(part, int):
        part %= size
        places = {part - 1, part + 1, 0, size - 1} - {part}
        return sorted(place for place in places if 0 <= place < size)
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


def turned(site: Site, value: Any, axis: int) -> Iterator[Variant]:
    """What a call gives turned back along an axis along which its argument was turned.

    Of a pair, as `jax.lax.scan` gives, it is the second one.
    """
    if isinstance(value, ARRAYS) and value.ndim > axis:
        text = f"jnp.flip({site.text}, {axis})"
        yield text, lambda: jnp.flip(value, axis)
    elif isinstance(value, tuple) and len(value) == 2 and has_axis(value[1], axis):
        text = f"({site.text})[1] turned round by jnp.flip(..., {axis})"
        yield text, lambda: (value[0], jax.tree.map(lambda leaf: jnp.flip(leaf, axis), value[1]))


def has_axis(tree: Any, axis: int) -> bool:
    """Whether a tree holds arrays, all with such an axis."""
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(isinstance(x, ARRAYS) and x.ndim > axis for x in leaves)


def axis_turned(texts: tuple[str, ...]) -> int | None:
    """The axis along which one of these expressions is turned round, None where none is."""
    for text in texts:
        found = TURNED.search(text)
        if found:
            return int(found[2]) if found[2] else found[1].count(",")
    return None


class Called(NamedTuple):
    """A call of a library's function: its texts, and what it is given.

    Attributes:
        name: of the function, without the room that it is from.
        own: the array whose method it is, else None.
        texts: those of the function and of its arguments.
    """

    name: str
    own: Any
    texts: tuple[str, ...]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    words: dict[str, Any]

    @property
    def array(self) -> Any:
        """What is computed with: the array whose method it is, or the first argument."""
        first = self.own if self.own is not None else next(iter(self.arguments), None)
        return first[0] if isinstance(first, list | tuple) and first else first

    @property
    def text(self) -> str:
        """The text of that array."""
        return self.texts[0].rpartition(".")[0] if self.own is not None else self.texts[1]

    def of(self, array: Any) -> Any:
        """The same of another array."""
        if self.own is not None:
            return getattr(array, self.name)(*self.arguments, **self.words)
        return self.function(array, *self.arguments[1:], **self.words)

    def written(self, text: str) -> str:
        """The text of the same call of another array."""
        texts = (text, *self.texts[2:]) if self.own is None else self.texts[1:]
        words = [f"{word}={value!r}" for word, value in self.words.items()]
        before = f"{text}.{self.name}" if self.own is not None else self.texts[0]
        return f"{before}({', '.join([*texts, *words])})"

    def given(self, place: int, text: str, value: Any) -> Variant:
        """The call with another argument."""
        texts, arguments = list(self.texts[1:]), list(self.arguments)
        texts[place : place + 1], arguments[place : place + 1] = [text], [value]
        new = self._replace(texts=(self.texts[0], *texts), arguments=tuple(arguments))
        text = new.written(new.text)
        return text, lambda: self.function(*arguments, **self.words)


ALONG = {"mean": "sum", "sum": "mean"}


def called(
    site: Site, function: Any, arguments: tuple[Any, ...], words: dict[str, Any]
) -> Iterator[Variant]:
    """Without the call, another axis or order, another function of its kind, the other share."""
    own: Any = getattr(function, "__self__", None)
    own = own if isinstance(own, ARRAYS) else None
    # A method of an array is called `_max`.
    name = getattr(function, "__name__", "").lstrip("_")
    home = "jax" if own is not None else getattr(function, "__module__", "")
    home = str(home or type(function).__module__).split(".")[0]
    if home not in PURE or name in LIFTED or len(site.parts) != len(arguments) + 1:
        return  # f(*arguments) has no text of each
    call = Called(name, own, site.parts, function, arguments, words)
    arrays = [i for i, each in enumerate(arguments) if isinstance(each, ARRAYS)]
    if len(arrays) == 1 and home in ("jax", "jaxlib"):
        yield site.parts[1:][arrays[0]], lambda: arguments[arrays[0]]
    for place, given in enumerate(arguments):
        if isinstance(given, float) and 0 < given < 1:
            yield call.given(place, f"1 - {site.parts[1:][place]}", 1 - given)
    if isinstance(call.array, ARRAYS) and call.array.ndim:
        yield from along(call)
        yield from in_order(call)
    parted = "axis" in words or len(arguments) > (own is None)
    other = EXCHANGED.get(name) or (ALONG.get(name) if parted else None)
    for room in (own, jnp, jax.nn, jax.random):
        instead = getattr(room, other, None) if other and room is not None else None
        if instead is not None:
            text = f"{site.parts[0].rpartition('.')[0]}.{other}"
            yield (
                call._replace(texts=(text, *site.parts[1:]), name=str(other)).written(call.text),
                lambda instead=instead: instead(*arguments, **words),
            )
            return


def along(call: Called) -> Iterator[Variant]:
    """A function along another axis."""
    try:
        parameters = inspect.signature(call.function).parameters
    except (TypeError, ValueError):  # a universal function of NumPy, say
        return
    if "axis" not in parameters:
        return
    place = [*parameters].index("axis")
    positional = place < len(call.arguments)
    default = call.words.get("axis", parameters["axis"].default)
    axis = call.arguments[place] if positional else default
    if not isinstance(axis, int) or isinstance(axis, bool):
        return
    for other in [a for a in range(call.array.ndim) if a != axis % call.array.ndim]:
        if positional:
            yield call.given(place, str(other), other)
        else:
            new = call._replace(words=call.words | {"axis": other})
            yield (
                new.written(call.text),
                lambda new=new: new.function(*new.arguments, **new.words),
            )


def in_order(call: Called) -> Iterator[Variant]:
    """Sums from the other end, the other way to sort, ranks; axes exchanged and not only cut."""
    x, text = call.array, call.text
    if call.name in ("cumsum", "cumprod"):
        axis = call.words.get("axis", 0)
        turned = f"jnp.flip({call.written(f'jnp.flip({text}, {axis})')}, {axis})"
        yield turned, lambda: jnp.flip(call.of(jnp.flip(x, axis)), axis)
    if call.name in ("sort", "argsort"):
        yield call.written(f"-{text}"), lambda: call.of(-x)
    if call.name == "argsort":
        yield call.written(call.written(text)), lambda: call.of(call.of(x))
    if call.name != "reshape" or x.ndim < 2:
        return
    shape = jnp.shape(call.of(x))
    if not 2 <= len(shape) <= MOST_AXES or x.ndim > MOST_AXES:
        return
    for i, j in combinations(range(len(shape)), 2):
        cut = list(shape)
        cut[i], cut[j] = cut[j], cut[i]
        yield (
            f"{text}.reshape({', '.join(map(str, cut))}).swapaxes({i}, {j})",
            lambda i=i, j=j, cut=tuple(cut): x.reshape(cut).swapaxes(i, j),
        )
    for i, j in combinations(range(x.ndim), 2):
        yield (
            call.written(f"{text}.swapaxes({i}, {j})"),
            lambda i=i, j=j: call.of(x.swapaxes(i, j)),
        )


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
    "turned": turned,
}
