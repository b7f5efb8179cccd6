"""What the arguments of a user's function mean, by their names, and how it is called with them."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from nnref.errors import UserError
from nnref.internals import parameters_of

# The names under which people pass what an argument of theirs may mean.
ROLES = {
    "state": {"state", "model_state", "net_state", "batch_stats", "stats", "variables", "carry"},
    "key": {"key", "rng", "rngs", "prng", "prng_key", "rng_key", "dropout_key", "dropout_rng", "k"},
    "train": {"train", "training", "is_training", "is_train", "train_mode"},
    "evaluate": {
        "deterministic",
        "evaluate",
        "eval",
        "inference",
        "is_eval",
        "eval_mode",
        "use_running_average",
    },
}
MODES = ROLES["train"] | ROLES["evaluate"]
KNOWN = {name: role for role, names in ROLES.items() for name in names}


class Passed(NamedTuple):
    """An argument that is passed: what it means, and its name where it goes by name."""

    role: str
    name: str = ""


def required(function: Callable[..., Any]) -> list[str]:
    """The names of the arguments by place that have no default."""
    parameters = parameters_of(function) or []
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind in places]


def inputs_of(function: Callable[..., Any], before: int, x: Any) -> dict[str, str]:
    """Which argument takes which part of the inputs, where each takes one: `f(a, b)`, not `f(x)`.

    Args:
        function: of the user.
        before: its first arguments that are no inputs, such as the parameters.
        x: rows; a tuple or a dict for several inputs.
    """
    names = [name for name in required(function) if name == "k" or name not in KNOWN][before:]
    if len(names) < 2:
        return {}
    if isinstance(x, Mapping):
        return {name: f"x.{name}" for name in names} if set(names) <= set(x) else {}
    if isinstance(x, tuple | list) and len(x) == len(names):
        return {name: f"x.{i}" for i, name in enumerate(names)}
    return {}


def roles_of(
    function: Callable[..., Any],
    positional: Iterable[str],
    what: str,
    inputs: Mapping[str, str] | None = None,
    left: Collection[str] = (),
) -> list[Passed]:
    """What is passed to a function, in order; arguments that keep their default are left out.

    Args:
        function: of the user.
        positional: the roles of arguments that go by place, whatever they are called.
        what: the function in words, for an error.
        inputs: roles that are known by the name of the argument, as `inputs_of` gives them.
        left: roles that keep their default where they have one.

    Raises:
        UserError: for an argument that has neither a known name nor a default.
    """
    inputs = inputs or {}
    known = {role.partition(".")[0] for role in inputs.values()}
    waiting = [role for role in positional if role not in known]
    parameters = parameters_of(function)
    if parameters is None:
        return [Passed(role) for role in waiting]
    passed, by_name = [], False
    for one in parameters:
        if one.kind is one.VAR_POSITIONAL:
            passed += [Passed(f"*{role}" if role == "x" else role) for role in waiting]
            waiting, by_name = [], True
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        role = inputs.get(one.name) or KNOWN.get(one.name, "")
        if role in left and one.default is not one.empty:
            by_name = True
            continue
        if not role and waiting and one.kind is not one.KEYWORD_ONLY:
            role = waiting.pop(0)
        if role:
            named = by_name or one.kind is one.KEYWORD_ONLY
            passed.append(Passed(role, one.name if named else ""))
        elif one.default is one.empty:
            passes = "; ".join(
                f"{role}: {', '.join(sorted(names))}" for role, names in ROLES.items()
            )
            raise UserError(
                f"{what}: the argument {one.name!r} has no default and no known name; beside "
                f"{' and '.join(positional)} nnref passes these ({passes}); several inputs go in "
                "as a tuple in the order of the arguments, or a dict by their names"
            )
        else:
            by_name = True  # it keeps its default, and what follows goes by name
    if waiting:
        raise UserError(f"{what} must take {' and '.join(positional)}; {waiting[-1]} is missing")
    return passed


def words(passed: Iterable[Passed]) -> set[str]:
    """The roles among arguments."""
    return {one.role for one in passed}


def called(
    function: Callable[..., Any], passed: Iterable[Passed], values: Mapping[str, Any]
) -> Any:
    """Call a function with the values that its arguments stand for.

    `values` has a value for each role; that of "x" serves its parts, too.
    """
    by_place, by_name = [], {}
    for role, name in passed:
        x = values.get("x")
        if role == "*x":
            by_place += x if isinstance(x, tuple | list) else [x]
            continue
        part = role.partition(".")[2]
        value = values[role] if not part else x[int(part) if isinstance(x, tuple | list) else part]  # pyright: ignore
        if name:
            by_name[name] = value
        else:
            by_place.append(value)
    return function(*by_place, **by_name)
