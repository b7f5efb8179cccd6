"""What goes wrong little by little: sums never cleared, rates that melt, updates rounded away."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.course import Course
from nnref.diagnosis.loop.program import Program, cosine
from nnref.diagnosis.loop.roles import partners, share
from nnref.diagnosis.loop.running import Call, Loop
from nnref.diagnosis.loop.stepping import Arrays, parted
from nnref.diagnosis.program.tracing import Trace
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.thresholds import bound

LEAST = 6  # turns that tell a trend, and numbers that tell a direction
ADDED = {"add", "add_any", "sub", "convert_element_type"}


def piling(loop: Course) -> Iterator[Finding]:
    """Gradients that are added up between updates, and that no update sets back to zero.

    A sum of gradients has the shapes of the parameters and begins at 0. It moves in turns in which
    the parameters rest, and after an update it is 0 again; or it is of one turn alone.
    """
    weights = [p for p in loop.of("parameter") if loop.moves[p].any()]
    if not weights:
        return
    moving = np.any([loop.moves[p] > 0 for p in weights], axis=0)
    first = loop.states[0]
    sums = [
        path
        for path in loop.floating()
        if path not in weights
        and path not in loop.optimizers
        and first[path].ndim
        and not first[path].any()
        and any(first[path].shape == first[p].shape for p in weights)
        and loop.moves[path][~moving].all()
        and loop.moves[path].any()
    ]
    updates = np.flatnonzero(moving)
    if moving.all():
        sums = sums_for_updates(loop, sums, weights)
    if not sums or len(updates) < 2:
        return
    kept = [p for p in sums if all(loop.states[number + 1][p].any() for number in updates)]
    if len(kept) == len(sums):
        yield fault(
            "wrong_gradient",
            f"{listed(kept)}; {loop.line_of(kept[0])}",
            f"{listed(kept)} add up gradients, and after {len(updates)} updates they were never "
            "set back: each update descends all gradients since the first step",
            f"{len(updates)} updates, and none clears the sum",
            healthy="0 after each update",
            remedy="gradients = jax.tree.map(jnp.zeros_like, gradients) behind each update, or "
            "optax.MultiSteps(optimizer, every_k_schedule=4)",
            confidence=0.9,
        )


def sums_for_updates(loop: Course, sums: list[str], weights: list[str]) -> list[str]:
    """Those sums to which a step adds the gradient of its loss, and by which it moves parameters.

    A momentum forgets, so that it is no sum. Where parameters are not moved but computed anew of
    the first ones and a sum, as in dual averaging, it is meant.
    """
    if not loop.one_loss:
        return []
    program, _, gradient = loop.one_loss
    traced, new, old = program.trace, program.new, program.old

    def moved(path: str, names: set[str]) -> bool:
        """Whether a leaf is what it was and something that is added."""
        if path not in old:
            return False
        through = traced.reached([old[path]], lambda op: op.name in names)
        return new.get(path) in through - {old[path]}

    own = [path for path in weights if moved(path, ADDED | {"mul"})]
    ends = {new[path] for path in own}
    shapes = {path: leaf.shape for path, leaf in loop.states[0].items()}
    added = [path for path in sums if moved(path, ADDED) and ends & traced.reached([old[path]])]
    of = partners(added, own, shapes, dict.fromkeys(own, 0))
    change = {of[path]: moved for path, moved in program.call.change(of).items()}
    size = sum(part.size for part in change.values())
    return list(of) if size > LEAST and cosine(change, gradient) > 1 - bound("copied") else []


def melting(loop: Course) -> Iterator[Finding]:
    """A rate in the optimizer's state that shrinks by the same factor in every turn, and fast."""
    for path in loop.optimizers & set(loop.floating()):
        rates = np.array([state[path].ravel()[0] for state in loop.states if path in state], float)
        if loop.states[0][path].size > 1 or len(rates) <= LEAST or (rates <= 0).any():
            continue
        if "rate" not in path.rpartition(".")[2]:
            continue
        factors = rates[1:] / rates[:-1]
        left = rates[-1] / rates[0]
        if factors.max() < 1 and np.ptp(factors) < bound("even steps") and left < bound("melted"):
            half = np.log(0.5) / np.log(factors.mean())
            yield fault(
                "learning_rate_too_low",
                f"{path}; {loop.line_of(path)}",
                f"the learning rate is {factors.mean():.3g} times that of the step before, each "
                f"time: halved within {half:.0f} steps, it is {left:.2g} of what it was after "
                f"{len(factors)}",
                f"{rates[0]:.3g} at first, {rates[-1]:.3g} after {len(factors)} steps",
                healthy="a decay over the epochs of the run",
                remedy="change the rate once an epoch, outside of the loop over batches, or give "
                "optax.exponential_decay the steps of an epoch as transition_steps",
                confidence=0.8,
            )
            return


def halves(loop: Course) -> dict[str, float]:
    """Tables in half precision, with the share of their numbers that stay the same in a step."""
    return {
        path: float(np.mean([np.mean(before[path] == after[path]) for before, after in loop.pairs]))
        for path in loop.floating()
        if loop.states[0][path].dtype.itemsize == 2 and loop.states[0][path].ndim > 1
    }


def rounded_away(loop: Course) -> Iterator[Finding]:
    """Weights in half precision whose updates are smaller than what half precision can tell."""
    weights = loop.of("parameter")
    still = {path: left for path, left in halves(loop).items() if path in weights}
    lost = [path for path in still if loop.moves[path].any() and still[path] > bound("lost")]
    wide = [m for m, of in loop.moments.items() if of in lost and loop.moves[m].any()]
    if lost and (wide or not loop.moments):
        kind = jnp.dtype(loop.states[0][lost[0]].dtype).name
        yield fault(
            "numerical_instability",
            f"{listed(lost)}; {loop.line_of(lost[0])}",
            f"{listed(lost)} are kept in {kind}, and {max(still[p] for p in lost):.0%} of their "
            "numbers stay the same in a step: the updates are lost in rounding",
            f"{max(still[p] for p in lost):.0%} of the numbers of a kernel do not move",
            healthy="nearly all move",
            remedy="keep the parameters in float32 and cast a copy for the forward pass: "
            "params.astype(jnp.bfloat16) inside of the loss",
            confidence=0.9,
        )


def sums_rounded_away(loop: Loop) -> Iterator[Finding]:
    """Averages, moments and sums in half precision that do not get where each step moves them.

    What a step computes before it is rounded is asked of the same step with these arrays in
    float32. A copy that is written now and then also stands for most of the steps, and random
    rounding leaves most numbers as they are; both arrive.
    """
    weights = loop.of("parameter")
    still = [path for path, left in halves(loop).items() if left > bound("lost")]
    for place, program in enumerate(loop.programs):
        own = [p for p in still if p not in weights and program and not program.passed_on(p)]
        parts = arrived(loop, place, program, own) if program and own else {}
        lost = [path for path in own if parts[path] < bound("arrives")]
        if not lost:
            continue
        kind = jnp.dtype(loop.states[0][lost[0]].dtype).name
        part = min(parts[path] for path in lost)
        yield fault(
            "numerical_instability",
            f"{listed(lost)}; {loop.line_of(lost[0])}",
            f"kept in {kind}: {listed(lost)}. What a step adds is lost in rounding: after "
            f"{loop.turns} steps {max(part, 0.0):.0%} of the way is made that the same steps make "
            "in float32",
            f"{max(part, 0.0):.0%} of the way",
            healthy="all of it",
            remedy="keep what is added to in small shares in float32: "
            "jax.tree.map(lambda p: p.astype(jnp.float32), params)",
            confidence=0.9,
        )
        return


def arrived(loop: Loop, place: int, program: Program, paths: list[str]) -> dict[str, float]:
    """The share of the way on which the steps send leaves in half precision that these go.

    The way is the sum of the moves in float32, each from where the leaves are.
    """

    def widened(arrays: Arrays) -> Arrays:
        return {p: jnp.float32(leaf) if p in paths else leaf for p, leaf in arrays.items()}

    def leaves(call: Call) -> list[Any]:
        return jax.tree.leaves((widened(call.before.arrays), parted(call.batch).arrays, call.key))

    start = program.call.before
    start = start._replace(arrays=widened(start.arrays))
    wide = Program(program.step, program.call._replace(before=start))
    unrounded = [before_casts(wide.trace, wide.new[path]) for path in paths]
    moved = jax.jit(lambda leaves: wide.trace.evaluate(leaves, unrounded))
    shapes = [np.shape(leaf) for leaf in leaves(program.call)]
    shape = {path: np.shape(program.call.before.arrays[path]) for path in paths}
    went, way = ({path: np.zeros(shape[path]) for path in paths} for _ in range(2))
    for call in loop.calls[place]:
        given = leaves(call)
        if [np.shape(leaf) for leaf in given] != shapes:
            continue
        for path, new in zip(paths, moved(given), strict=True):
            before = np.asarray(call.before.arrays[path], float)
            went[path] += np.asarray(call.after.arrays[path], float) - before
            way[path] += np.asarray(new, float) - before
    return {
        path: share(np.zeros_like(end), went[path], end)[0] if np.any(end) else 1.0
        for path, end in way.items()
    }


def before_casts(traced: Trace, value: int) -> int:
    """A value before it was cast."""
    makers = traced.makers
    while value in makers and makers[value].name == "convert_element_type":
        (value,) = makers[value].inputs
    return value
