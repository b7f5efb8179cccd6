"""What the leaves of a state are: parameters, moments, statistics, counters, keys, slow copies.

The optimizer's own are told by their types; the rest by what the step does with them.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx

from nnref.diagnosis.program.blocked import differentiable
from nnref.diagnosis.program.keys import DRAWS
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError
from nnref.training.checkpoint import is_key

ROLES = ("parameter", "moment", "statistic", "counter", "key", "target", "other")


def refuse(roles: Any, paths: Iterable[str]) -> dict[str, str]:
    """Roles that a user gives, by path.

    Raises:
        UserError: for a path that the state does not have, or a role that there is none of.
    """
    given = dict(roles or {})
    known = list(paths)
    for path, role in given.items():
        if path not in known:
            raise UserError(
                f"examine: roles name {path!r}, and the state has no such leaf; it has "
                f"{', '.join(known[:12])}{', …' if known[12:] else ''}"
            )
        if role not in ROLES:
            raise UserError(f"examine: {path} is {role!r}; a role is one of {', '.join(ROLES)}")
    return given


def of_optimizers(state: Any) -> set[str]:
    """The paths beneath which a state holds what is an optimizer's: of optax, or of NNX.

    One of NNX may have been taken apart, by `nnx.split`, into its variables.
    """

    def is_optimizers(node: Any) -> bool:
        of_optax = hasattr(node, "_fields") and type(node).__module__.startswith("optax")
        return of_optax or isinstance(node, nnx.Optimizer | nnx.OptState)

    found = jax.tree_util.tree_flatten_with_path(state, is_leaf=is_optimizers)[0]
    return {
        name_of(path) + (".opt_state" if isinstance(node, nnx.Optimizer) else "")
        for path, node in found
        if is_optimizers(node)
    }


def beneath(path: str, roots: Iterable[str]) -> bool:
    """Whether a path lies beneath one of these."""
    return any(not root or path == root or path.startswith(f"{root}.") for root in roots)


def in_common(one: str, other: str) -> int:
    """How many of their last components two paths share."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    return next(
        (i for i, (a, b) in enumerate(pairs) if a != b),
        min(map(len, (one.split("."), other.split(".")))),
    )


def partners(
    moments: Iterable[str], others: Iterable[str], shapes: dict[str, Any], moved: dict[str, Any]
) -> dict[str, str]:
    """The leaf of which each moment is: of the same shape, with the longest end in common.

    Of a network and its copy it is the one for which `moved`, what orders them, is larger.
    """
    found = {}
    others = list(others)
    for moment in moments:
        alike = [path for path in others if shapes[path] == shapes[moment]]
        ranked = sorted(
            alike, key=lambda path: (in_common(moment, path), moved[path]), reverse=True
        )
        if ranked and (in_common(moment, ranked[0]) or len(alike) == 1):
            found[moment] = ranked[0]
    return found


def but_for_one(one: str, other: str) -> bool:
    """Whether two paths differ in one component, as `target.w` and `online.w` do.

    The last one names what a leaf is within its layer, and may differ by a word that is put to it.
    A copy may also lie deeper, as `ema.params.w` and `params.w`.
    """
    a, b = one.split("."), other.split(".")
    if len(a) == len(b) + 1:
        return any(a[:i] + a[i + 1 :] == b for i in range(len(b)))
    differ = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    if len(a) != len(b) or len(differ) != 1:
        return False
    (at,) = differ
    return at < len(a) - 1 or a[at] in b[at] or b[at] in a[at] or len(a) == 1


def original_of(path: str, copy: str, other: str) -> str | None:
    """What stands to `other` as `path` does to `copy`; None for a path of another place.

    A copy `teacher.a.w` of `student.a.w` makes `student.b.v` the original of `teacher.b.v`.
    """
    parts, a, b = path.split("."), copy.split("."), other.split(".")
    at = next((i for i, pair in enumerate(zip(a, b, strict=False)) if len({*pair}) > 1), len(b))
    if at == len(a) - 1 or parts[: at + 1] != a[: at + 1]:
        return None
    return ".".join([*parts[:at], *(b[at : at + 1] if len(a) == len(b) else []), *parts[at + 1 :]])


def share(before: np.ndarray, after: np.ndarray, towards: np.ndarray) -> tuple[float, float]:
    """By which share of its distance to another array one has moved, and what that leaves open."""
    move, way = (np.ravel(part - before).astype(np.float64) for part in (after, towards))
    if not np.isfinite(move).all() or not np.isfinite(way).all() or not way.any():
        return 0.0, np.inf
    part = float(move @ way / (way @ way))
    left = float(np.linalg.norm(move - part * way) / max(float(np.linalg.norm(move)), 1e-30))
    return part, left


def copies(loop: Any) -> dict[str, str]:
    """The slow copies among the leaves, each with the leaf that it follows or was made of.

    One that follows moves straight towards the other; one that stands has the other's first values.
    """
    first, others = loop.states[0], [p for p in loop.floating() if p not in loop.optimizers]
    led = set(loop.moments.values())
    found: dict[str, str] = {}
    for path in others:
        if path in led:
            continue
        for other in others:
            if first[path].shape != first[other].shape or not but_for_one(path, other):
                continue
            if (led and other not in led) or loop.stands(other):
                continue
            if (
                follows(loop, path, other)
                or copied_at_times(loop, path, other)
                or (loop.stands(path) and near(first[path], first[other]))
            ):
                found[path] = other
    roots = {tuple(p.split(".")[:1]) for p in found}
    for path in others:  # leaves that start alike everywhere, as biases do, go with their network
        if path not in found and path not in led and tuple(path.split(".")[:1]) in roots:
            twin = next(
                (
                    o
                    for o in led or others
                    if but_for_one(path, o) and first[o].shape == first[path].shape
                ),
                None,
            )
            if twin:
                found[path] = twin
    return found


def copied_at_times(loop: Any, path: str, other: str) -> bool:
    """Whether a step chooses between what a leaf was and what another one becomes."""
    return any(
        op.name == "select_n" and {program.old[path], program.new[other]} <= set(op.inputs[1:])
        for program in filter(None, loop.programs)
        if path in program.old and other in program.new
        for op in program.trace.operations
        if program.new.get(path) in op.outputs
    )


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether an array is a copy of another one that was made a few steps before; not of zeros."""
    away = np.linalg.norm(np.ravel(one - other).astype(np.float64))
    size = np.linalg.norm(np.ravel(other).astype(np.float64))
    return bool(np.ptp(one) > 0 and away < bound("same network") * size)


def follows(loop: Any, path: str, other: str) -> bool:
    """Whether a leaf mostly moves towards another one, or straight away from it."""
    hits = turns = 0
    for before, after in loop.pairs:
        if after[path].shape == before[path].shape and not np.array_equal(
            before[path], after[path]
        ):
            part, left = share(before[path], after[path], after[other])
            turns += 1
            away = part < 0 and left < bound("straight") and before[path].size > 1
            hits += (0 < part < 1 + bound("copied") and left < bound("towards")) or away
    return turns > 0 and hits >= turns / 2


def roles_of(loop: Any) -> dict[str, str]:
    """The role of each leaf of a loop's state."""
    found: dict[str, str] = {}
    programs = [program for program in loop.programs if program is not None]
    for path, leaf in loop.start.arrays.items():
        first = loop.states[0][path]
        if is_key(leaf) or (first.dtype == np.uint32 and drawn_from(path, programs)):
            found[path] = "key"
        elif np.issubdtype(first.dtype, np.integer):
            alike = first.size == 1 or (first.ndim == 1 and np.ptp(first) == 0)
            memory = any(filled(program, path) for program in programs if path in program.old)
            found[path] = "counter" if alike and not memory else "other"
        elif path in loop.optimizers:
            found[path] = "moment"
        elif path in loop.copies:
            found[path] = "target"
    led = set(loop.moments.values())
    for path in loop.states[0]:
        if path not in found:
            found[path] = behaviour(loop, path, programs, led)
    return found


def carried(program: Any, path: str, loss: int) -> bool:
    """Whether a leaf is what a recurrent network carries on, which no optimizer leads.

    An update looks at the targets, what is carried does not; or it has a row for each of the batch.
    """
    traced = program.trace
    looked_at = traced.needed([loss]) & set(program.batch)
    shape, rows = traced.shape(program.old[path]), {traced.shape(one)[:1] for one in looked_at}
    by_row = len(shape) > 1 and rows - {()} == {shape[:1]}
    return by_row or not looked_at <= traced.needed([program.new[path]])


def filled(program: Any, path: str) -> bool:
    """Whether a leaf is a memory: some of its places are written anew, and the others stay."""
    traced = program.trace
    same = traced.reached([program.old[path]], lambda op: op.name in ("convert_element_type",))
    return any(
        op.name in ("scatter", "dynamic_update_slice") and op.inputs[0] in same
        for op in traced.operations
        if program.new.get(path) in op.outputs
    )


def drawn_from(path: str, programs: list[Any]) -> bool:
    """Whether random numbers are drawn from a leaf."""
    return any(
        op.name in DRAWS
        for program in programs
        if path in program.old
        for reached in [program.trace.reached([program.old[path]])]
        for op in program.trace.operations
        if not reached.isdisjoint(op.inputs)
    )


def behaviour(loop: Any, path: str, programs: list[Any], led: set[str]) -> str:
    """What a leaf of floating point is by what the steps do with it."""
    if path in led:
        return "parameter"
    if led and not loop.states[0][path].ndim:
        return "other"  # a sum of losses, or a rate
    for program in programs:
        found = program.loss_of(loop)
        if found is None or path not in program.old:
            continue
        traced, (loss, _) = program.trace, found
        old, new = program.old[path], program.new.get(path)
        reached = traced.reached([old], differentiable(traced))
        apart = program.passed_on(path) or carried(program, path, loss) or filled(program, path)
        if loss in reached and not (led and apart):
            return "parameter"
        if old in traced.needed([loss]):
            return "other"
        weights = {program.new.get(other) for other in led or loop.floating()} - {new}
        if np.ndim(loop.states[0][path]) and weights & traced.reached([old]):
            return "moment"  # of an optimizer by hand: the parameters move by it, no loss reads it
        if new in traced.reached(program.batch) and np.ndim(loop.states[0][path]):
            return "statistic"
    known = any(program.loss_of(loop) for program in programs)
    return "other" if known or loop.stands(path) else "parameter"
