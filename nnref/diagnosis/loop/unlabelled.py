"""Parts of the batches that are targets, and hold rows which were never labelled."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.blanks import blank_rows, filled
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.judge.missing_checks import never_labelled
from nnref.diagnosis.loop.batches import different_rows
from nnref.diagnosis.loop.program import Program
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.stepping import parted
from nnref.training.checkpoint import is_key


def blanks(loop: Loop) -> Iterator[Finding]:
    """Targets that were filled in with one number where a label is missing, and count as others."""
    if not loop.one_loss or not loop.batches:
        return
    program, loss, _ = loop.one_loss
    pooled = different_rows(loop)
    for path in targets_of(program, loop):
        inputs = [
            part for other, part in pooled.items() if other != path and part.dtype.kind == "f"
        ]
        if path not in pooled or not inputs or blank_rows(pooled[path]) is None:
            continue
        blank = filled(inputs, pooled[path])
        if blank is not None and counts(loop, program, loss, path, blank.value):
            yield never_labelled(blank, f"batches, {path}")
            return


def targets_of(program: Program, loop: Loop) -> list[str]:
    """Parts of a batch that meet parameters only where these have met another part."""
    traced = program.trace
    weights = [program.old[path] for path in loop.of("parameter") if path in program.old]
    targets = []
    for value in program.batch:
        outputs = traced.reached([other for other in program.batch if other != value])
        outputs &= traced.reached(weights)
        alone = traced.reached([value]) - traced.reached(weights)
        met = {
            other
            for op in traced.operations
            if not alone.isdisjoint(op.inputs)
            for other in op.inputs
            if other not in alone and other in traced.reached(weights)
        }
        if met and met <= outputs:
            targets.append(traced.paths[value])
    return targets


def counts(loop: Loop, program: Program, loss: int, path: str, value: float) -> bool:
    """Whether rows with this one target have a gradient for every parameter that others have."""
    call = loop.calls[0][0]
    parts = parted(call.batch).arrays
    flat = np.asarray(parts[path]).reshape(len(parts[path]), -1)
    blank = (flat == value).all(1)
    if blank.all() or not blank.any():
        return False

    def slopes(rows: np.ndarray) -> dict[str, np.ndarray]:
        chosen = np.resize(np.flatnonzero(rows), len(rows))
        batch = {
            p: leaf if is_key(leaf) or not np.ndim(leaf) else jnp.asarray(leaf)[chosen]
            for p, leaf in parts.items()
        }
        gradients = program.slopes(call.before.arrays, batch, call.key)
        return jax.tree.map(np.asarray, gradients[program.candidates.index(loss)])

    of_blank, of_others = slopes(blank), slopes(~blank)
    return all(of_blank[p].any() for p, leaf in of_others.items() if leaf.any())
