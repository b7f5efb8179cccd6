"""Who decides which expression is edited: one traced program holds all edits, by their number."""

import contextlib
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nnref.diagnosis.one_edit import variants
from nnref.diagnosis.one_edit.rewriting import Site, is_users
from nnref.diagnosis.one_edit.variants import ARRAYS, Variant
from nnref.internals import is_tracing

NONE = -1  # the number of no edit
MOST = 400  # edits of one program
ROUNDING = 1e-4  # by which a compiled function may differ from what it was


class Endless(Exception):
    """A loop of Python that goes on and on with an edit."""


class Edits:
    """The edits of a program.

    `which` is the number of the one that is made, traced or plain; with None the functions are as
    they were. `learning` says whether edits that are new get a number; `met` are those that could
    be made since it was emptied. A compiled program reads the number from `held` when it runs, so
    that it is compiled once for all edits. With `compiling` the user's functions that run are
    compiled, where they give the same so.
    """

    def __init__(self) -> None:
        self.which: Any = None
        self.site: Site | None = None  # of the edit of that number
        self.asked, self.most = 0, np.inf  # times since an edit was made, and how many may be
        self.compiling = False
        self.programs: dict[FunctionType, Callable[..., Any] | None] = {}
        self.held = jax.new_ref(jnp.int32(NONE))
        self.learning = False
        self.sites: dict[str, list[Site]] = {}
        self.numbers: dict[tuple[Site, str], int] = {}
        self.met: set[int] = set()

    @contextlib.contextmanager
    def making(self, number: int) -> Iterator[None]:
        """As long as the context lasts the edit of this number is made."""
        self.which, self.asked = number, 0
        self.site = next((site for (site, _), n in self.numbers.items() if n == number), None)
        self.held[...] = jnp.int32(number)
        try:
            yield
        finally:
            self.which = None

    @property
    def plain(self) -> bool:
        """Whether what runs now is no program that is traced."""
        return isinstance(self.which, int) and not is_tracing()

    def decided(self, site: Site, value: Any, others: Iterator[Variant]) -> Any:
        """A value, or what stands in its place where an edit of this site is made."""
        plain, branches = self.plain, {}
        for text, other in others:
            number = self.numbers.get((site, text))
            if not self.learning and (number is None or plain and number != self.which):
                continue
            try:
                if not alike(other() if plain else jax.eval_shape(other), value):
                    continue
            except Exception:  # no edit: it does not compute
                continue
            if number is None and len(self.numbers) >= MOST:
                continue
            number = self.numbers.setdefault((site, text), len(self.numbers))
            self.met.add(number)
            if plain and number == self.which:
                return other()
            branches[number] = other
        if plain or not branches:
            return value
        which = self.held[...] if isinstance(self.which, int) else self.which
        return switched(which, branches, value)

    def may_edit(self, site: Site, value: Any) -> bool:
        """Whether a value may be another one.

        Where all edits are traced an array of NumPy is a constant, which a traced one would not be.

        Raises:
            Endless: if it was asked more often than it may be.
        """
        if self.which is None:
            return False
        if not self.plain:
            return has_arrays(value, jax.Array)
        self.asked += 1
        if self.asked > self.most:
            raise Endless
        return (self.learning or site == self.site) and has_arrays(value, ARRAYS)

    def binary(self, file: str, at: int, symbol: str, left: Any, right: Any) -> Any:
        value = variants.OPERATORS[symbol](left, right)
        return self.of(file, at, value, "binary", symbol, left, right)

    def compared(self, file: str, at: int, symbol: str, left: Any, right: Any) -> Any:
        value = variants.OPERATORS[symbol](left, right)
        return self.of(file, at, value, "compared", symbol, left, right)

    def unary(self, file: str, at: int, symbol: str, value: Any) -> Any:
        return self.of(file, at, -value if symbol == "-" else ~value, "unary", symbol, value)

    def name(self, file: str, at: int, value: Any, *others: tuple[str, Any]) -> Any:
        return self.of(file, at, value, "name", value, *others)

    def kept(self, file: str, at: int, word: str, value: Any, away: Any) -> Any:
        return self.of(file, at, value, "kept", word, away)

    def item(self, file: str, at: int, value: Any, index: Any) -> Any:
        return self.of(file, at, value[index], "item", value, index)

    def attribute(self, file: str, at: int, value: Any, word: str) -> Any:
        return self.of(file, at, getattr(value, word), "attribute", value, word)

    def ordered(self, file: str, at: int, values: tuple[Any, ...]) -> Any:
        return self.of(file, at, values, "ordered", values)

    def called(self, file: str, at: int, function: Any, *arguments: Any, **words: Any) -> Any:
        site = self.sites[file][at]
        if len(arguments) > 1 and self.may_edit(site, arguments):
            others = variants.ordered(site, arguments, site.parts[0])
            arguments = self.decided(site, arguments, others)
        value = self.result(function, arguments, words)
        axis = variants.axis_turned(site.parts[1:])
        if axis is not None:
            value = self.of(file, at, value, "turned", value, axis)
        return self.of(file, at, value, "called", function, arguments, words)

    def entered(self, file: str, at: int, values: tuple[Any, ...]) -> Any:
        site = self.sites[file][at]
        if not self.may_edit(site, values):
            return values
        return self.decided(site, values, variants.ordered(site, values, site.parts[0]))

    def result(self, function: Any, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        """What a call gives; a user's function that closes over nothing is compiled once."""
        plain = isinstance(function, FunctionType) and function.__closure__ is None
        if not (self.compiling and self.plain and plain and is_users(function.__code__)) or words:
            return function(*arguments, **words)
        if function not in self.programs:
            self.compiling = False
            value, self.programs[function] = compiled_alike(function, arguments)
            self.compiling = True
            return value
        program = self.programs[function]
        try:
            return function(*arguments) if program is None else program(*arguments)
        except Exception:  # for other arguments it cannot be compiled
            self.programs[function] = None
            return function(*arguments)

    def of(self, file: str, at: int, value: Any, kind: str, *parts: Any) -> Any:
        """What an expression of a kind is."""
        site = self.sites[file][at]
        if not self.may_edit(site, value):
            return value
        return self.decided(site, value, variants.KINDS[kind](site, *parts))


def compiled_alike(function: FunctionType, arguments: Any) -> tuple[Any, Any]:
    """What a function gives, and its compiled form where that gives the same, else None."""
    value, program = function(*arguments), jax.jit(function)
    try:
        again = program(*arguments)
        same = jax.tree.structure(again) == jax.tree.structure(value) and all(
            type(a) is type(b) and np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
            for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(value), strict=True)
        )
    except Exception:  # it asks for values, as `float` does
        return value, None
    return value, program if same else None


def has_arrays(value: Any, kinds: Any) -> bool:
    """Whether a value is an array of some kinds, or a tree with such; modules of NNX are not."""
    if isinstance(value, kinds):
        return True
    if not isinstance(value, dict | tuple | list) and not hasattr(value, "__dataclass_fields__"):
        return False
    return not isinstance(value, nnx.Module) and any(
        isinstance(leaf, kinds) for leaf in jax.tree.leaves(value)
    )


def alike(one: Any, other: Any) -> bool:
    """Whether one value can stand in the place of the other: the same tree, shapes and dtypes."""
    if one is other:
        return False
    a, b = jax.tree.leaves(one), jax.tree.leaves(other)
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(
        (hasattr(x, "dtype") and x.shape == y.shape and x.dtype == y.dtype)
        if isinstance(y, ARRAYS)
        else x is y or same_number(x, y)
        for x, y in zip(a, b, strict=True)
    )


def same_number(one: Any, other: Any) -> bool:
    """Whether a number of Python is the other one; of traced ones no more is known than the kind.

    Numbers are never exchanged, only what stands beside them.
    """
    if isinstance(one, jax.ShapeDtypeStruct) and isinstance(other, int | float):
        kind = jnp.floating if isinstance(other, float) else jnp.integer
        return one.shape == () and one.weak_type and jnp.issubdtype(one.dtype, kind)
    return isinstance(one, int | float | str) and one == other


def switched(which: Any, branches: dict[int, Callable[[], Any]], value: Any) -> Any:
    """A value, or that of the branch whose number is `which`: no other is run, nor its gradient.

    A choice between results that are all computed would give NaN as a gradient wherever one of
    those that are not chosen has none.
    """
    leaves, structure = jax.tree.flatten(value)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def arrays_of(tree: Any) -> list[jax.Array]:
        found = jax.tree.leaves(tree)
        return [jnp.asarray(found[place], leaves[place].dtype) for place in places]

    index = jnp.int32(0)
    for place, number in enumerate(branches):
        index = jnp.where(which == number, place + 1, index)
    runs = [lambda: arrays_of(value)]
    runs += [lambda other=other: arrays_of(other()) for other in branches.values()]
    for place, leaf in zip(places, jax.lax.switch(index, runs), strict=True):
        leaves[place] = leaf
    return jax.tree.unflatten(structure, leaves)
