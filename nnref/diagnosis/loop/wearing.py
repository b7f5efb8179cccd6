"""What goes wrong little by little: sums never cleared, rates that melt, updates rounded away."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.loop.course import Course
from nnref.diagnosis.loop.program import cosine
from nnref.diagnosis.loop.roles import partners
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


def rounded_away(loop: Course) -> Iterator[Finding]:
    """Weights in half precision whose updates are smaller than what half precision can tell."""
    halves = [
        path
        for path in loop.of("parameter")
        if loop.states[0][path].dtype.itemsize == 2 and loop.states[0][path].ndim > 1
    ]
    still = {
        path: float(np.mean([np.mean(before[path] == after[path]) for before, after in loop.pairs]))
        for path in halves
    }
    lost = [path for path in halves if loop.moves[path].any() and still[path] > bound("lost")]
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
