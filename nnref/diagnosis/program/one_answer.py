"""One answer for all rows that a loss takes for right, although their targets differ.

A loss of an angle, as of quaternions or embeddings, looks at directions. Where it holds the product
of output and target against 1, and nothing divides the outputs by their norm, a long output reaches
1 whatever its direction.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.expectation import goal_of
from nnref.diagnosis.thresholds import bound

TIMES = (1, 10, 100)  # the size of a target, that one answer for all rows may have


class Losses(NamedTuple):
    """Losses of a few rows, by what stands in the place of the outputs."""

    right: float  # the targets themselves
    others: float  # targets of other rows
    one: float  # one answer for all of them
    times: int  # how many times as large as a target this answer is


def one_answer(start: AtStart) -> Iterator[Finding]:
    """A loss that one answer for all rows brings as low as the right ones."""
    losses = losses_of(start)
    if losses is None:
        return
    differ = losses.others - losses.right
    if not abs(losses.one - losses.right) < bound("one answer") * differ:
        return
    longer = losses.times > 1
    yield fault(
        "loss_mismatch",
        start.loss_line,
        "one and the same output for all rows"
        + (f", {losses.times} times as long as a target," if longer else "")
        + f" has a loss of {losses.one:.3g}, right answers have {losses.right:.3g} and those of "
        f"other rows {losses.others:.3g}: "
        + (
            "the length of the outputs alone brings the loss down, whatever their direction"
            if longer
            else "the loss does not tell a right answer from one that is the same everywhere"
        ),
        f"{losses.one:.3g} for one output everywhere",
        healthy=f"nearer to {losses.others:.3g}",
        remedy="outputs / jnp.linalg.norm(outputs, axis=-1, keepdims=True) before the loss"
        if longer
        else "a loss that is least for the right answer alone, such as a squared error",
        confidence=0.95,
    )


def losses_of(start: AtStart) -> Losses | None:
    """What the loss of a few rows is for right answers, wrong ones, and one for all of them.

    The one answer is what the network makes of a last product of any size: where it divides by the
    norm, all answers have one length. None where outputs are not of the form of the targets, or
    depend on more than the last layer.
    """
    shape, tail, y = start.outputs.shape, start.sample.after_product, start.sample.y
    goal = goal_of(y, start.form, shape)
    if goal is None or start.width < 2 or tail is None or tail[1] != shape or not start.row_by_row:
        return None
    directions = [*goal, goal.mean(0), np.ones(shape[1:])]
    long = [np.broadcast_to(times * one, shape) for times in TIMES for one in directions]
    made = np.asarray(jax.jit(jax.vmap(tail[0]))(np.stack(long).astype(np.float32)))
    # A cross-entropy is lower for longer answers as well, if they are right.
    rolled = [times * goal for times in TIMES]
    rolled += [np.roll(goal, by, 0) for by in range(1, len(goal))]
    asked = np.concatenate([np.stack(rolled), made.reshape(-1, *shape)]).astype(np.float32)
    loss = jax.jit(jax.vmap(lambda outputs: jnp.asarray(start.recipe.loss(outputs, y)).sum()))
    losses = np.asarray(loss(asked), np.float64)
    right, others, one = np.split(losses, [len(TIMES), len(rolled)])
    right = float(np.min(right))
    if not np.isfinite([right, *others]).all() or not np.isfinite(one).any():
        return None
    best = int(np.nanargmin(np.where(np.isfinite(one), one, np.inf)))
    return Losses(right, float(others.mean()), one[best], TIMES[best // len(directions)])
