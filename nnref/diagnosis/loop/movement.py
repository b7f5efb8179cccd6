"""Which way the steps go, and how far: against the gradient, finite, of a size that learns."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from nnref import internals
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.loop.batches import each_update
from nnref.diagnosis.loop.course import Course
from nnref.diagnosis.loop.edited import gets_better
from nnref.diagnosis.loop.program import Program, cosine
from nnref.diagnosis.loop.running import Loop, Theirs
from nnref.diagnosis.loop.stepping import is_array, parted
from nnref.diagnosis.program.birth import birth_of, masked_by_product
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.run.step_faults import climbing, first_nonfinite
from nnref.diagnosis.thresholds import bound

REPEATS = 20  # steps on one batch
FADED = 4  # times the longest stand before, for which nothing has moved at the end
DIVISORS = 8  # lines that divide by the size of a batch, of those that are looked at
SEVERAL = 8  # numbers of which no two leaves have the signs in common by chance
UPWARD = ("reward", "return", "elbo", "likelihood", "objective", "score", "gain", "accuracy")


def nonfinite(loop: Loop) -> Iterator[Finding]:
    """The first number of the state that is not finite, and the line where it is born."""
    wrong = [
        (number, place)
        for number in range(len(loop.calls[0]))
        for place, calls in enumerate(loop.calls)
        if not all(finite(leaf) for leaf in calls[number].after.arrays.values())
    ]
    if not wrong:
        return
    number, place = wrong[0]
    call, program, loss = loop.calls[place][number], loop.programs[place], loop.loss(place)
    sizes = [weight(loop, state) for state in loop.states[: number + 1]]
    before = np.abs(loss[:number]) if loss is not None and number else np.zeros(1)
    grew = number > 1 and bool(
        sizes[-1] > bound("growth") * max(sizes[0], 1e-30)
        or before[-1] > bound("growth") * max(before[0], 1e-30)
    )
    birth = None
    arguments = call.before.arrays, parted(call.batch).arrays, call.key
    if program is not None and not grew:
        with suppress(Exception):  # a number of Python that is not what it was
            birth = birth_of(program.pure, *arguments)
            if birth is None and not all(map(finite, arguments[1].values())):
                yield of_the_batch(program, number, arguments)
                return
    yield first_nonfinite(
        "update",
        number + 1,
        f"loss {before[-1]:.4g} before, {before[0]:.4g} at first",
        grew=grew,
        birth=birth,
        where=(birth.where if birth else "") or loop.line(place),
        confidence=0.8,
    )


def of_the_batch(program: Program, number: int, arguments: tuple[Any, ...]) -> Finding:
    """Numbers of a batch that are not finite, and that a step carries into its state."""
    wrong = {path: leaf for path, leaf in arguments[1].items() if not finite(leaf)}
    masked = masked_by_product(program.pure, *arguments)
    counts = [int((~np.isfinite(np.asarray(leaf, float))).sum()) for leaf in wrong.values()]
    names = ", ".join(path or "a part" for path in wrong)
    return fault(
        "nonfinite_data",
        (masked.where if masked else "") or f"batch {number + 1}, {names}",
        f"{sum(counts)} numbers of batch {number + 1} ({names}) are NaN or infinite, and from its "
        "step on the state is not finite"
        + (f": they meet {masked.name}" if masked else ", of which no operation makes any"),
        f"{', '.join(map(str, counts))} numbers",
        remedy=masked.remedy if masked else "",
        confidence=0.9,
    )


def weight(course: Course, state: dict[str, np.ndarray]) -> float:
    """The length of all parameters together."""
    squares = [(state[p].astype(np.float64) ** 2).sum() for p in course.of("parameter")]
    return float(np.sqrt(sum(squares)))


def finite(leaf: Any) -> bool:
    """Whether an array holds no NaN and no infinity."""
    floating = is_array(leaf) and jax.dtypes.issubdtype(leaf.dtype, np.inexact)
    return not floating or bool(np.isfinite(np.asarray(leaf).astype(np.float32)).all())


def ascent(loop: Loop) -> Iterator[Finding]:
    """Parameters that move along the gradient of the loss that the step computes."""
    for place, program, loss, first in loop.losses_of_steps():
        if program.trace.by_hand:
            continue  # a derivative that the user gives, such as one that is turned round
        moved = [p for p in loop.of("parameter") if p in first and np.any(first[p])]
        call = loop.calls[place][0]
        try:
            gradients = program.gradients(call)
        except Exception:  # a start whose leaves are not those of later steps
            continue
        gradient = gradients.pop(program.candidates.index(loss))
        change = call.change(moved)
        angles = {
            p: cosine({p: change[p]}, gradient)
            for p in change
            if np.any(change[p]) and np.any(gradient[p])
        }
        up = [p for p, angle in angles.items() if angle > bound("climbs")]
        # What descends a loss of its own, as a generator beside its judge, may climb this one.
        own = [other for other in gradients for p in up if np.any(other.get(p, 0))]
        up = [p for p in up if all(cosine({p: change[p]}, g) > -bound("climbs") for g in own)]
        down = [p for p, angle in angles.items() if angle < -bound("climbs")]
        if not up or warm(loop):
            continue
        whole = cosine({p: change[p] for p in angles}, gradient)
        if not down and meant(loop, place, program.loss_name(loop)):
            continue
        sizes = {p: float(np.sqrt(np.mean(np.square(gradient[p])))) for p in angles}
        least = bound("cancels out") * max(sizes.values(), default=0.0)
        up = [p for p in up if not down or angles[p] > bound("climbs alone") and sizes[p] > least]
        if up and down:
            yield fault(
                "gradient_ascent",
                f"{listed(up)}; {loop.line_of(up[0])}",
                f"{listed(up)} move along the gradient of the loss and climb, while {listed(down)} "
                "descend",
                f"cosine {max(angles[p] for p in up):+.2f}, of the others "
                f"{min(angles[p] for p in down):+.2f}",
                remedy="one optimizer for all, or optax.multi_transform with optax.set_to_zero() "
                "for what is frozen: optax.masked hands on the gradients of the rest as they are",
                confidence=0.8,
            )
        elif up:
            yield climbing(whole, f"{listed(up)}; {loop.line_of(up[0])}", confidence=0.9)
        return


def crossed(loop: Loop) -> Iterator[Finding]:
    """Parameters that move along the gradient of others, which have the same shape."""
    for place, program in enumerate(loop.programs):
        if program is None or len(program.candidates) != 1:
            continue
        call = loop.calls[place][0]
        try:
            (gradient,) = program.gradients(call)
        except Exception:  # a loop whose length is not known has no reverse
            continue
        before = call.before.arrays
        moved = call.change(p for p in before if p in gradient and np.size(before[p]) >= SEVERAL)
        own = [path for path in loop.of("parameter") if path in moved]
        astray = [p for p in own if agreement(moved[p], gradient[p]) < bound("mostly")]
        pairs = [
            (path, other, angle)
            for path in astray
            for other in own
            if other != path and moved[path].shape == gradient[other].shape
            for angle in [agreement(moved[path], gradient[other])]
            if angle > 1 - bound("copied")
        ]
        if pairs:
            path, other, angle = pairs[0]
            yield fault(
                "wrong_gradient",
                f"{listed(list(dict.fromkeys(one for one, *_ in pairs)))}; {loop.line_of(path)}",
                f"{path} moves along the gradient of {other}, which has the same shape, and not "
                "along its own",
                f"{angle:.1%} of its numbers move as that of the other says",
                healthy="each parameter by its own gradient",
                remedy="gradients in the order of the parameters: argnums=(0, 1), or one tree for "
                "all of them",
                confidence=0.95,
            )
            return


def agreement(move: np.ndarray, gradient: np.ndarray) -> float:
    """How far the signs of a first step are those of a gradient, up or down, from 0 to 1.

    They are so for any optimizer that begins with empty moments, Adam too.
    """
    signs = np.sign(move) * np.sign(gradient)
    return float(abs(signs.sum()) / max(np.count_nonzero(move), 1))


def warm(loop: Loop) -> bool:
    """Whether the optimizer comes with moments: they, not this gradient, may lead the step."""
    return any(np.any(loop.states[0][path]) for path in loop.moments)


def meant(loop: Loop, place: int, name: str | None) -> bool:
    """Whether what is climbed may be meant to rise: it is called so, or is below 0."""
    if name is not None and any(word in name.lower() for word in UPWARD):
        return True
    values = [call.metrics.get(name, 0.0) for call in loop.calls[place]] if name is not None else []
    return "loss" not in (name or "") and (not values or min(values) < 0)


def summed(loop: Loop) -> Iterator[Finding]:
    """Updates that double where every row of the batch, or every part of it, stands twice."""
    if len(loop.steps) > 1 or not loop.batches:
        return
    first = loop.calls[0][0]
    leaves = [leaf for leaf in jax.tree.leaves(first.batch) if is_array(leaf)]
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves):
        return
    rows = {np.shape(leaf)[0] for leaf in leaves}
    if len(rows) > 1 or any(
        getattr(leaf, "sharding", None) and len(leaf.sharding.device_set) > 1
        for leaf in first.after.arrays.values()
    ):
        return
    twice = jax.tree.map(
        lambda leaf: np.concatenate([np.asarray(leaf)] * 2) if is_array(leaf) else leaf, first.batch
    )
    try:
        once, doubled, again = loop.again(0), loop.again(0, batch=twice), loop.again(0)
    except Theirs:  # a step for batches of this size alone
        return
    weights = [p for p in loop.of("parameter") if loop.moves[p].any()]
    ratios = {}
    for path in (*weights, *(m for m, of in loop.moments.items() if of in weights)):
        before, a, b, c = (
            part.arrays[path] for part in (first.before, once.after, doubled.after, again.after)
        )
        along = times(before, a, b) if np.array_equal(a, c) else None
        if along is not None:
            ratios[path] = along
    twos = [path for path, ratio in ratios.items() if abs(ratio - 2) < bound("twice the update")]
    if not twos or len(twos) < len([r for r in ratios.values() if r < 1.5]):
        return
    plain = any(path in weights for path in twos)
    (size,) = rows
    if divided_by_their_number(loop, twice, size, twos, once.after.arrays):
        return
    yield (fault if plain and size > 1 else note)(
        "loss_summed_over_batch",
        f"{listed(twos)}; {loop.loss_line()}",
        f"a batch whose {size} entries of the first axis stand twice makes updates twice as long: "
        "rows or accumulated batches are added up, and the step grows with their number",
        f"{np.median([ratios[p] for p in twos]):.3g} times the update",
        healthy="the same update",
        remedy="jnp.mean over the rows; gradients / number of accumulated batches",
        confidence=0.7 if plain else 0.4,
    )


def times(before: Any, once: Any, other: Any) -> float | None:
    """How many times as far another update goes the same way, None where it goes another one."""
    move, moved = (np.asarray(part, float) - np.asarray(before, float) for part in (once, other))
    if not np.any(move):
        return None
    along = float(np.vdot(moved, move) / np.vdot(move, move))
    off = np.linalg.norm(moved - along * move)
    return along if off < bound("straight") * np.linalg.norm(moved) else None


def divided_by_their_number(
    loop: Loop, twice: Any, size: int, paths: list[str], once: dict[str, Any]
) -> bool:
    """Whether a sum over a batch is divided by its size, a number that the program has written.

    Then the batch that stands twice makes the same update where this number is twice as large.
    """
    first = loop.calls[0][0]
    try:
        doubled = Program(loop.steps[0], first._replace(batch=twice))
        program, (new, _) = jax.make_jaxpr(doubled.pure, return_shape=True)(*doubled.arguments)
    except Exception:  # it cannot be traced as a whole
        return False
    for other in islice(internals.with_other_divisors(program, size), DIVISORS):
        leaves = jaxpr_as_fun(other)(*doubled.leaves)
        after = jax.tree.unflatten(jax.tree.structure(new), leaves[: len(new)])
        ratios = [times(first.before.arrays[p], once[p], after[p]) for p in paths]
        if all(r is not None and abs(r - 1) < bound("twice the update") for r in ratios):
            return True
    return False


def fading(loop: Loop) -> Iterator[Finding]:
    """Updates that become 0 long before the steps are over, as of a schedule that runs too fast."""
    length = loop.moved()
    # Where batches make only some updates, or these melt away, so few turns do not tell.
    if each_update(loop) > 1 or melts(length):
        length = np.concatenate([length, loop.further.lengths])
    if not length.any():
        return
    moving = np.flatnonzero(length > bound("faded") * np.nanmax(length, initial=0.0))
    last = int(moving[-1]) + 1 if len(moving) else 0
    rest = len(length) - last
    stand = int(np.max(np.diff(moving, prepend=-1), initial=REPEATS // FADED))
    ended = last <= len(length) / 2 or rest > FADED * stand
    if np.isfinite(length).all() and last > 1 and ended and not steady(loop):
        yield fault(
            "learning_rate_too_low",
            loop.line(),
            f"from step {last + 1} of {len(length)} on the updates are below "
            f"{bound('faded'):g} of the longest: a schedule is at its end, as one that counts "
            "epochs and is stepped with every batch",
            f"{last} steps that move",
            remedy="the decay_steps of the schedule in steps: epochs * batches an epoch",
            confidence=0.8,
        )


def melts(length: np.ndarray) -> bool:
    """Whether updates are shorter by a factor in each third of the turns, as those of no cosine."""
    first, second, third = (float(np.median(part)) for part in np.array_split(length, 3))
    return 0 < third < bound("fades") * second < bound("fades") ** 2 * first


def steady(loop: Loop) -> bool:
    """Whether the loss is at its floor, where nothing is left to move for."""
    loss = loop.loss()
    return loss is not None and abs(loss[-1]) < bound("at rest") * abs(loss[0])


def sizes(loop: Loop) -> Iterator[Finding]:
    """A loss that climbs over the steps, or on one batch that is shown again and again."""
    for place in range(len(loop.steps)):
        loss = loop.loss(place)
        if loss is None or len(loss) < REPEATS or not np.isfinite(loss).all() or loss[0] <= 0:
            continue
        end = float(np.median(loss[-len(loss) // 5 :]))
        if len(loop.steps) == 1 and end > bound("overshoot") * float(np.max(loss[:2])):
            # The loss of a policy is no error: that of a better one may be larger.
            better = gets_better(loop)
            yield (note if better else fault)(
                "learning_rate_too_high",
                loop.line(place),
                f"the loss climbs from {loss[0]:.3g} to {end:.3g} in {len(loss)} steps"
                + (", while the evaluation gets better" if better else ""),
                f"{end / loss[0]:.3g} times the first loss",
                healthy="falls",
                confidence=0.75,
            )
            return


def warming(length: np.ndarray) -> bool:
    """Whether steps become longer all the time, as those of a schedule at its beginning."""
    first, second = (float(np.median(part)) for part in np.array_split(length, 2))
    return second > 2 * first


def too_short(loop: Loop) -> Iterator[Finding]:
    """Steps that are a millionth of the weights, while the loss stands."""
    length, loss = loop.moved(), loop.loss()
    if not length.any() or loss is None or not np.isfinite(loss).all():
        return
    ratio = float(np.max(length[len(length) // 2 :]) / max(weight(loop, loop.states[-1]), 1e-30))
    first, *_, last = (float(np.median(part)) for part in np.array_split(loss, 5))
    if ratio < bound("slow step") and first - last < bound("fallen") * abs(first):
        warms = warming(length)
        tiny = ratio < bound("slow step") / 100 and not warms
        cure = "" if warms else longer_updates(loop, ratio, first)
        clip = squeezed(loop)
        clips = "; a clip acts on spikes alone, and behind the division by a loss scale"
        yield (fault if (tiny or cure) and len(loss) >= REPEATS else note)(
            "learning_rate_too_low",
            clip or loop.line(),
            f"the longest of the later updates is {ratio:.1e} of the weights, and the loss goes "
            f"from {first:.4g} to {last:.4g}{cure and f'; {cure}'}",
            f"{ratio:.1e}",
            healthy="about 1e-3",
            remedy=f"a larger learning rate{clips}" if clip else "",
            confidence=0.8 if cure else 0.6,
        )


def longer_updates(loop: Loop, ratio: float, start: float) -> str:
    """What the same steps do with every update so much longer as is usual, in words.

    Empty where that takes the loss no farther down. `ratio` is that of update and weights, and
    `start` the median of the first losses.
    """
    name, weights = loop.loss_name(), loop.of("parameter")
    if len(loop.steps) > 1 or name is None:
        return ""
    usual = 10.0 ** np.rint(np.log10(bound("healthy step") / ratio))
    for factor in (usual, 10 * usual):
        state, losses = loop.start, []
        for made in loop.calls[0]:
            call = loop.call(loop.steps[0], state, made.batch, made.key)
            before, after = state.arrays, call.after.arrays
            further = {
                p: before[p] + (factor * (after[p] - before[p])).astype(after[p].dtype)
                for p in weights
            }
            state = call.after._replace(arrays={**after, **further})
            losses.append(float(call.metrics[name]))
        end = float(np.median(losses[-len(losses) // 5 :]))
        if end < (1 - bound("fallen far")) * start:
            return f"with every update {factor:g} times as long it goes to {end:.4g} in as many"
    return ""


def squeezed(loop: Loop) -> str:
    """The line where a step multiplies its gradient by a factor far below 1, as a clip does."""
    for place, program in enumerate(loop.programs):
        found = program and program.loss_of(loop)
        if program is None or not found:
            continue
        traced = program.trace
        small = [
            op
            for op in traced.operations
            if op.name == "min" and op.where and traced.size(op.outputs[0]) == 1
        ]
        call = loop.calls[place][0]
        leaves = jax.tree.leaves((call.before.arrays, parted(call.batch).arrays, call.key))
        values = traced.evaluate(leaves, [op.outputs[0] for op in small])
        for op, value in zip(small, values, strict=True):
            if 0 < float(np.ravel(value)[0]) < bound("squeezed"):
                return op.where
    return ""
