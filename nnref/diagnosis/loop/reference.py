"""The same loss over the same batches, in nnref's own loop: is it the loop, or the network?"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.loop.movement import warming, weight
from nnref.diagnosis.loop.program import Program, cosine
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import parted
from nnref.diagnosis.run.edits import trusted_optimizer
from nnref.diagnosis.thresholds import bound

TRUSTED = trusted_optimizer()


def losses(loop: Loop) -> np.ndarray | None:
    """The losses of the reference loop over the user's batches, None where it cannot be made.

    What of the state is neither parameter nor optimizer goes on as the user's own step has it.
    """
    if not loop.one_loss:
        return None
    program, loss, gradient = loop.one_loss
    if several_losses(loop, program, gradient):
        return None
    traced = program.trace
    arrays = loop.calls[0][0].before.arrays
    weights = {p: arrays[p] for p in loop.of("parameter") if np.any(gradient.get(p, 0))}
    rest = {p: leaf for p, leaf in arrays.items() if p not in weights}
    going = [p for p in rest if p in program.new]
    shapes = [leaf.shape for leaf in jax.tree.leaves(program.arguments[1])]

    def value(weights: Any, rest: Any, batch: Any, key: Any) -> tuple[Any, Any]:
        leaves = jax.tree.leaves(({**rest, **weights}, batch, key))
        first, *new = traced.evaluate(leaves, [loss, *(program.new[p] for p in going)])
        return first.reshape(()), {**rest, **dict(zip(going, new, strict=True))}

    @jax.jit
    def step(weights: Any, rest: Any, moments: Any, batch: Any, key: Any) -> Any:
        (first, rest), gradient = jax.value_and_grad(value, has_aux=True)(weights, rest, batch, key)
        updates, moments = TRUSTED.update(gradient, moments, weights)
        return optax.apply_updates(weights, updates), rest, moments, first

    moments, found_losses = TRUSTED.init(weights), []
    for call in loop.calls[0]:
        batch = parted(call.batch).arrays
        if [leaf.shape for leaf in jax.tree.leaves(batch)] != shapes:
            continue
        weights, rest, moments, first = step(weights, rest, moments, batch, call.key)
        found_losses.append(float(first))
    return np.array(found_losses)


def several_losses(loop: Loop, program: Program, slopes: dict[str, np.ndarray]) -> bool:
    """Whether some parameters climb this loss and descend another one, as in a game of two."""
    moves = program.call.change(loop.of("parameter"))
    others = program.gradients(program.call)  # kept, they would take a network's memory each
    return any(
        cosine({path: move}, slopes) > -bound("climbs")
        and cosine({path: move}, g) < -bound("climbs")
        for path, move in moves.items()
        for g in others
    )


def against_reference(loop: Loop) -> Iterator[Finding]:
    """A loss that stands in the user's loop and falls in nnref's, from the same start."""
    theirs = loop.loss()
    if theirs is None or len(theirs) < bound("few steps") or not np.isfinite(theirs).all():
        return
    if loop.optimizers and any(np.any(loop.states[0][p]) for p in loop.moments):
        return  # a loop that goes on: its loss has fallen before
    begun, ended = (float(np.median(part)) for part in (theirs[:5], theirs[-5:]))
    if ended < (1 - bound("fallen")) * begun:
        return
    ours = losses(loop)
    if ours is None or len(ours) < bound("few steps") or not np.isfinite(ours).all():
        return
    start, end = (float(np.median(part)) for part in (ours[:5], ours[-5:]))
    loop.measures["loss in nnref's own loop"] = (start, end)
    if start > 0 and end > (1 - bound("fallen")) * start:
        yield note(
            "no_signal",
            f"the loss; {loop.loss_line()}",
            f"over {len(ours)} steps the loss stays where it was, {begun:.3g} to {ended:.3g}, and "
            f"so it does under Adam at 1e-3 behind a clip, {start:.3g} to {end:.3g}: look at what "
            "the loss asks for, and whether anything in the inputs tells it",
            f"{ended:.3g} after {len(ours)} steps",
            confidence=0.5,
        )
    if start <= 0 or end > bound("falls here") * start:
        return
    ratio = float(np.median(loop.moved())) / max(weight(loop, loop.states[-1]), 1e-30)
    small = ratio < bound("slow step")
    yield (note if small and warming(loop.moved()) else fault)(
        "learning_rate_too_low" if small else "wrong_gradient",
        f"the loop; {loop.line()}",
        f"over {len(ours)} steps of these batches the loss goes from {begun:.3g} to {ended:.3g}; "
        f"the same loss under Adam at 1e-3 behind a clip goes from {start:.3g} to {end:.3g}: it is "
        "the loop, not the network",
        f"{ended:.3g} against {end:.3g}",
        healthy="a loss that falls as in a plain loop",
        remedy="a larger learning rate; a clip of gradients behind their unscaling, not before it"
        if small
        else "gradients of the loss that is returned, optax.adam(1e-3), and nothing between",
        confidence=0.6,
    )
