"""A user's step, called on copies: arrays go in and arrays come out, whatever the state is."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from nnref.diagnosis.program.tracing import name_of
from nnref.errors import UserError
from nnref.training import checkpoint
from nnref.training.checkpoint import is_key

Arrays = dict[str, Any]  # the arrays of a state, by their path
KEYS = ("key", "rng", "seed")  # parts of the names that people give to the key of a step
STATES = ("state", "ts", "carry")  # names of a state that is handed over whole
METRIC = 1024  # numbers at most of a metric: one an inner step, or a device


class Parted(NamedTuple):
    """A state taken apart: its arrays, and the function that makes the same state of others."""

    arrays: Arrays
    rebuild: Callable[[Arrays], Any]


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array; numbers of Python are part of the program, as in a jit."""
    return isinstance(leaf, jax.Array | np.ndarray)


def has_modules(state: Any) -> bool:
    """Whether a state holds modules of NNX, which are changed in place and may share variables."""
    kinds = nnx.Module | nnx.Optimizer
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds))
    return any(isinstance(leaf, kinds) for leaf in leaves)


def parted(state: Any) -> Parted:
    """A state taken apart."""
    if has_modules(state):
        graph, tree = nnx.split(state)
        paths, structure = jax.tree_util.tree_flatten_with_path(tree)
        names = [name_of(path).removesuffix(".value") for path, _ in paths]
        arrays = {name: leaf for name, (_, leaf) in zip(names, paths, strict=True)}
        return Parted(
            arrays, lambda new: nnx.merge(graph, structure.unflatten([new[n] for n in names]))
        )
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    leaves = [(name_of(path), leaf) for path, leaf in paths]
    return Parted(
        {name: leaf for name, leaf in leaves if is_array(leaf)},
        lambda new: structure.unflatten([new.get(name, leaf) for name, leaf in leaves]),
    )


def copied(tree: Any, kinds: Any = jax.Array | np.ndarray) -> Any:
    """The same tree with arrays of its own: a step may give its buffers away, or write into them.

    Args:
        tree: with arrays.
        kinds: of arrays that are copied.
    """
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, kinds) else leaf, tree)


def given_away(tree: Any) -> bool:
    """Whether a call has used up the buffer of an array, as `donate_argnums` lets it."""
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(tree))


def alike(one: Any, other: Any) -> bool:
    """Whether two batches hold the same numbers."""
    a, b = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(a) == len(b) and all(
        np.shape(x) == np.shape(y)
        and is_array(x)
        and x.dtype == y.dtype
        and not is_key(x)
        and np.array_equal(np.asarray(x), np.asarray(y))
        for x, y in zip(a, b, strict=True)
    )


def on_host(arrays: Arrays) -> dict[str, np.ndarray]:
    """The numbers of arrays; of keys those that they are made of."""
    return {path: checkpoint.on_host(leaf) for path, leaf in arrays.items()}


# What a step gives back


def outline(tree: Any) -> list[tuple[Any, ...]]:
    """What two trees must share to be taken for the same part of a state."""
    return [
        (name_of(path), np.shape(leaf) if is_array(leaf) else (), kind_of(leaf))
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def kind_of(leaf: Any) -> str:
    """Floating point, integer, key or something else."""
    leaf = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
    if not is_array(leaf):
        return {float: "float", int: "integer", bool: "integer"}.get(type(leaf), "other")
    return kind_of_numbers(leaf.dtype)


@lru_cache
def kind_of_numbers(dtype: Any) -> str:
    """The same of a dtype."""
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return "key"
    return "float" if jax.dtypes.issubdtype(dtype, np.inexact) else "integer"


def paths_of(tree: Any) -> list[str]:
    """The paths of the leaves of a tree."""
    return [name_of(path) for path, _ in jax.tree.leaves_with_path(tree)]


class Returned(NamedTuple):
    """The state in the result of a step, the rest of the result, and what of the state lacks."""

    state: Any
    metrics: Any
    missing: tuple[Any, ...] = ()  # places of a tuple, or names of a dict


def returned(result: Any, state: Any) -> Returned | None:
    """The new state in the result of a step, None where no part of it looks like the state.

    A state that is a tuple or a dict may come back in part: what lacks is the same as before.
    """
    alike = outline(state)
    parts = list(result) if isinstance(result, tuple | list) else []
    pairs = [(result, None), *((part, parts[:i] + parts[i + 1 :]) for i, part in enumerate(parts))]
    for part, rest in pairs:
        if outline(part) == alike:
            return Returned(part, rest)
    for part, rest in pairs:
        if len(alike) > 1 and paths_of(part) == paths_of(state):
            return Returned(part, rest)
    if isinstance(state, tuple | list) and not hasattr(state, "_fields"):
        return in_places(parts or [result], state)
    if isinstance(state, dict):
        return by_name(pairs, state)
    return None


def in_places(parts: list[Any], state: Any) -> Returned | None:
    """A state that is a tuple, found part by part among the parts of a result."""
    rest, new, missing = list(parts), [], []
    for place, old in enumerate(state):
        at = next((i for i, part in enumerate(rest) if outline(part) == outline(old)), None)
        if at is None or not outline(old):
            missing += [place] if outline(old) else []
            new.append(old)
        else:
            new.append(rest.pop(at))
    if len(rest) == len(parts):
        return None
    return Returned(type(state)(new), rest, tuple(missing))


def by_name(pairs: list[tuple[Any, Any]], state: dict[Any, Any]) -> Returned | None:
    """A state that is a dict, of which a result holds some names."""
    for part, rest in pairs:
        if isinstance(part, Mapping):
            same = {k: v for k, v in part.items() if k in state and outline(v) == outline(state[k])}
            if same:
                others = {k: v for k, v in part.items() if k not in same}
                missing = tuple(k for k in state if k not in same and outline(state[k]))
                return Returned(state | same, [others, rest], missing)
    return None


# How a step is called


class Way(NamedTuple):
    """How a step takes its arguments: whole, or part by part; and whether a key comes last."""

    spread_state: bool = False
    spread_batch: bool = False
    keyed: bool = False
    batched: bool = True

    def arguments(self, state: Any, batch: Any, key: Any) -> list[Any]:
        """The arguments of a call."""
        first = list(state) if self.spread_state else [state]
        second = list(batch) if self.spread_batch else [batch] if self.batched else []
        return [*first, *second, *([key] if self.keyed else [])]


def ways_of(step: Callable[..., Any], state: Any, batch: Any, batched: bool) -> list[Way]:
    """How a step may take state, batch and key, by the number and the names of its parameters.

    Where several ways fit, the likeliest comes first.

    Raises:
        UserError: where it takes others.
    """
    try:
        parameters = list(inspect.signature(step).parameters.values())
    except (TypeError, ValueError):
        return [Way(batched=batched)]
    needed = [p for p in parameters if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
    if any(p.kind == p.VAR_POSITIONAL for p in parameters) and not needed:
        return [Way(batched=batched)]
    names = [parameter.name for parameter in needed]
    keyed = bool(names) and any(word in names[-1].lower() for word in KEYS)
    states = [False, *([True] if isinstance(state, tuple | list) else [])]
    batches = [False, *([True] if isinstance(batch, tuple | list) and batched else [])]
    if names and any(names[0].lower().endswith(word) for word in STATES):
        states.sort()
        ordered = [(s, b) for s in states for b in batches]
    else:
        ordered = [(s, b) for b in batches for s in states]
    ways = [
        Way(s, b, last, batched)
        for last in dict.fromkeys([keyed, False, True])
        for s, b in ordered
        if (len(state) if s else 1) + (len(batch) if b else int(batched)) + last == len(needed)
    ]
    if ways:
        return ways
    raise UserError(
        f"examine: step takes ({', '.join(names)}); it is called as step(state, batch) or "
        "step(state, batch, key), where a state or a batch that is a tuple may also stand part by "
        "part: step(params, opt_state, x, y). Write lambda state, batch: ... around another one"
    )


class StepOutcome(NamedTuple):
    """What a call of a step gives."""

    state: Parted
    metrics: Any
    missing: tuple[Any, ...]
    comes_back: bool  # whether a state was returned, or changed in place


class Step:
    """A user's step as a function of a state that is taken apart; it can be traced."""

    def __init__(self, function: Callable[..., Any], state: Any, batch: Any, batched: bool) -> None:
        """Find out how the step takes its arguments."""
        if not callable(function):
            raise UserError(f"examine: step is {function!r}; give a function step(state, batch)")
        self.function = function
        self.ways = ways_of(function, state, batch, batched)
        self.way = self.ways[0]

    def __call__(self, state: Parted, arrays: Arrays, batch: Any, key: Any) -> StepOutcome:
        """Call the step on arrays in the place of those of a state.

        Raises:
            Exception: what the user's function raises.
        """
        whole = state.rebuild(arrays)
        result = self.function(*self.way.arguments(whole, batch, key))
        found = returned(result, whole)
        if found is not None:
            return StepOutcome(parted(found.state), found.metrics, found.missing, True)
        after = parted(whole)
        changed = any(after.arrays.get(path) is not leaf for path, leaf in arrays.items())
        return StepOutcome(after, result, (), changed or has_modules(whole))


def numbers(metrics: Any) -> dict[str, float]:
    """The metrics that are numbers, by their path; several of one kind are averaged."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(metrics):
        if kind_of(leaf) in ("float", "integer") and np.size(leaf) <= METRIC:
            found[name_of(path)] = float(np.mean(np.asarray(leaf, np.float64)))
    return found


def scalars(metrics: Any) -> Iterable[tuple[str, Any]]:
    """The metrics that are one number of floating point, by their path."""
    for path, leaf in jax.tree.leaves_with_path(metrics):
        if kind_of(leaf) == "float" and np.size(leaf) == 1:
            yield name_of(path), leaf
