"""The optimizer alone, leaf by leaf and step by step, on a gradient that is drawn once."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, drawn_like
from nnref.diagnosis.program.birth import Birth, birth_of
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.thresholds import bound
from nnref.parts.chain import updated

CUT = 4  # numbers that are kept of each axis: an optimizer treats all numbers of a leaf alike
FIRST = 100  # steps whose updates together are held against the gradient
BEYOND = 10  # lengths of the run, in which a warm-up should have ended
WORK = 40_000  # updates of leaves in all
MANY = 4  # names that are listed


class Walk(NamedTuple):
    """What an optimizer does with one gradient, again and again; its first updates move it."""

    names: list[str]  # of the leaves
    cosine: np.ndarray  # of the first updates together and the gradient, (leaves,)
    raw: np.ndarray  # whether the first update is the gradient itself, (leaves,)
    length: np.ndarray  # of each update, (steps, leaves)
    planned: int  # steps of the run


def listed(names: Sequence[str]) -> str:
    """Names of leaves in a line: `3 leaves: a, b, c`."""
    if len(names) == 1:
        return names[0]
    more = ", …" if len(names) > MANY else ""
    return f"{len(names)} leaves: {', '.join(names[:MANY])}{more}"


def walk(start: AtStart) -> Walk:
    """The optimizer's updates over the run and beyond, for leaves that are cut to a few numbers."""
    recipe = start.recipe
    planned = recipe.epochs * -(
        -len(recipe.train[0]) // min(recipe.batch_size, len(recipe.train[0]))
    )
    paths = jax.tree.leaves_with_path(start.params)
    steps = max(min(BEYOND * planned, WORK // max(len(paths), 1)), 2 * FIRST)

    def cut(leaf: Any) -> Any:
        return jnp.asarray(leaf)[tuple(slice(CUT) for _ in np.shape(leaf))]

    try:
        cosine, raw, length = steps_of(recipe.optimizer, jax.tree.map(cut, start.params), steps)
    except Exception:  # whatever an optimizer raises that holds arrays like the parameters
        cosine, raw, length = steps_of(recipe.optimizer, start.params, 2 * FIRST)
    return Walk([name_of(path) for path, _ in paths], cosine, raw, length, planned)


def steps_of(optimizer: Any, params: Any, steps: int) -> Any:
    """Cosine, whether it is the gradient, and length of the updates: see `Walk`."""
    gradient = drawn_like(params)

    def turn(carry: Any, number: Any) -> Any:
        state, total = carry
        at = jax.tree.map(jnp.add, params, total)  # some go away from where they are, and back
        update, state = updated(optimizer, gradient, state, at)
        total = jax.tree.map(lambda t, u: t + jnp.where(number < FIRST, u, 0), total, update)
        lengths = [jnp.linalg.norm(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(update)]
        same = [(u == g).all() for u, g in pairs(update, gradient)]
        return (state, total), (jnp.stack(lengths), jnp.stack(same))

    def run() -> Any:
        begun = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
        (_, total), (lengths, same) = jax.lax.scan(turn, begun, jnp.arange(steps))
        return [cosine_of(t, g) for t, g in pairs(total, gradient)], same[:FIRST].all(0), lengths

    return [np.asarray(part) for part in jax.device_get(jax.jit(run)())]


def pairs(one: Any, other: Any) -> Any:
    """The leaves of two trees side by side."""
    return zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)


def cosine_of(one: Any, other: Any) -> Any:
    """The cosine of the angle between two arrays, 0 where one of them is 0."""
    a, b = (jnp.ravel(part).astype(jnp.float32) for part in (one, other))
    return jnp.vdot(a, b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-30)


def optimizer(start: AtStart) -> Iterator[Finding]:
    """An optimizer that makes NaN, climbs, stands still, or warms up for longer than the run."""
    if start.recipe.optimizer is None:
        return
    ill = list(not_finite(start))
    if ill:
        yield from ill
        return
    walked = walk(start)
    if not np.isfinite(walked.length[: walked.planned]).all():
        yield from later_not_finite(start, walked)
        return
    moves = walked.length.any(0)
    up = moves & (walked.cosine > bound("ascent"))
    if up.any():
        yield climbing(walked, up, moves & ~up)
    if not walked.length[: walked.planned].any():
        later = np.flatnonzero(walked.length.any(1))
        yield fault(
            "parameters_not_updated",
            "optimizer",
            f"all {walked.planned} updates of the run are 0 for a gradient that is not"
            + (f": the first that moves is number {later[0] + 1}" if len(later) else ""),
            "update 0",
            remedy="check the learning rate, its schedule at step 0 and masks"
            if not len(later)
            else "a warm-up or an accumulation (MultiSteps) shorter than the run",
            confidence=0.4 if not len(later) else 0.9,
        )
    else:
        yield from rarely_or_late(walked)


def climbing(walked: Walk, up: np.ndarray, down: np.ndarray) -> Finding:
    """Leaves whose updates point along their gradient, all of them or some."""
    names = np.array(walked.names)
    measured = f"cosine of update and gradient {walked.cosine[up].min():+.2f}"
    if not down.any():
        return fault(
            "gradient_ascent",
            "optimizer",
            "the updates point along the gradient: the loss is climbed",
            measured,
            remedy="a positive learning rate, and one sign change: optax.scale(-rate)",
            confidence=0.95,
        )
    climb, descend = listed(names[up].tolist()), listed(names[down].tolist())
    measured += f", of the others {walked.cosine[down].max():+.2f}"
    if walked.raw[up].all():
        return fault(
            "gradient_ascent",
            climb,
            f"these climb: their update is the gradient itself, at rate 1, while {descend} "
            "descends. optax.masked hands on the gradients of what it masks out as they are; a "
            "change of sign would break the rest",
            measured,
            remedy='optax.multi_transform({"train": optimizer, "freeze": optax.set_to_zero()}, '
            "labels), or optax.chain(optax.masked(optimizer, mask), "
            "optax.masked(optax.set_to_zero(), inverse of the mask))",
            confidence=0.97,
        )
    return fault(
        "gradient_ascent",
        climb,
        f"these climb, their updates point along their gradient, while {descend} descends",
        measured,
        remedy="the sign change in the part of the optimizer that these leaves get alone",
        confidence=0.96,  # above that of a run that climbs as a whole, which has no names
    )


def rarely_or_late(walked: Walk) -> Iterator[Finding]:
    """Updates that are few, or that grow until long after the run."""
    length = np.sqrt((walked.length.astype(np.float64) ** 2).sum(1))
    inside = length[: walked.planned]
    moving = int((inside > 0).sum())
    if moving < min(bound("few steps"), walked.planned / 2):
        yield note(
            "undertrained",
            "optimizer",
            f"{moving} of the {walked.planned} steps of the run move the parameters: the updates "
            "between are 0",
            f"{moving} updates",
            healthy="an update at every step",
            remedy="fewer steps to accumulate over, a smaller batch, or more epochs",
            confidence=0.6,
        )
        return
    peak = int(length.argmax())
    seen = length[peak] > 0 and inside.max() < bound("of the peak") * length[peak]
    if seen and peak >= walked.planned:
        yield note(
            "learning_rate_too_low",
            "optimizer",
            f"the warm-up is longer than the run: its {walked.planned} steps reach "
            f"{inside.max() / length[peak]:.1%} of the longest update, that of step {peak + 1}",
            f"{inside.max() / length[peak]:.1%}",
            healthy="all of it",
            remedy="warm-up steps that are a tenth of the run's: epochs * steps an epoch / 10",
            confidence=0.6,
        )


def not_finite(start: AtStart) -> Iterator[Finding]:
    """Updates of NaN: of a schedule, or of an epsilon that a small gradient needs."""
    recipe, params = start.recipe, start.params
    for scale in (1.0, 0.0, 1e-6):
        update = start.step(scale)
        if all(np.isfinite(np.asarray(u, float)).all() for u in jax.tree.leaves(update)):
            continue

        def first(params: Any, gradient: Any, state: Any) -> Any:
            return updated(recipe.optimizer, gradient, state, params)[0]

        gradient = jax.tree.map(lambda g, by=scale: (by * g).astype(g.dtype), drawn_like(params))
        arguments = params, gradient, recipe.optimizer.init(params)
        birth = birth_of(first, *arguments)
        if birth is not None and of_schedule(birth, arguments):
            yield of_the_schedule(birth, 1)
            return
        dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
        yield fault(
            "numerical_instability",
            (birth.where if birth else "") or "optimizer",
            f"for gradients of {scale:g} in {', '.join(dtypes)} the first update is not finite: "
            + ("it meets " + birth.name if scale == 1 and birth else "")
            + ("the epsilon in its denominator is rounded to 0" if scale < 1 else ""),
            "NaN or infinity",
            remedy="parameters in float32, or a larger eps: optax.adam(rate, eps=1e-4)",
        )
        return


def later_not_finite(start: AtStart, walked: Walk) -> Iterator[Finding]:
    """A schedule that is not finite at a later step; what else is NaN there, the run shows."""
    optimizer, params = start.recipe.optimizer, start.params
    step = int(np.flatnonzero(~np.isfinite(walked.length).all(1))[0])
    gradient = drawn_like(params)

    def turn(_: Any, state: Any) -> Any:
        return updated(optimizer, gradient, state, params)[1]

    def before(state: Any) -> Any:
        return jax.lax.fori_loop(0, step, turn, state)

    def update(params: Any, gradient: Any, state: Any) -> Any:
        return updated(optimizer, gradient, state, params)[0]

    arguments = params, gradient, jax.jit(before)(optimizer.init(params))
    birth = birth_of(update, *arguments)
    if birth is not None and of_schedule(birth, arguments):
        yield of_the_schedule(birth, step + 1)


def of_schedule(birth: Birth, arguments: tuple[Any, Any, Any]) -> bool:
    """Whether neither parameters nor gradient have a part in it: the number of the step has."""
    params, gradient, _ = arguments
    return min(birth.inputs, default=0) >= len(jax.tree.leaves((params, gradient)))


def of_the_schedule(birth: Birth, step: int) -> Finding:
    """A learning rate, or another schedule, that is NaN at a step."""
    return fault(
        "numerical_instability",
        birth.where or "optimizer",
        f"the schedule of the optimizer is not finite at step {step}: it meets {birth.name}, "
        "whatever the gradient is",
        "NaN or infinity",
        healthy="finite at every step of the run",
        remedy="jnp.maximum(1, warmup_steps) as the divisor of a warm-up",
        confidence=0.95,
    )
