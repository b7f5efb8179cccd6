"""Times until an event: which rows a partial likelihood holds against the one that has the event.

Cox (1972): a row that has its event at time t competes with those at risk, still there at t.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart

ROWS = 8  # of a probe, each with a time of its own


def at_risk(start: AtStart) -> Iterator[Finding]:
    """Rows that have left already, in the place of those still at risk, behind each event."""
    recipe, y = start.recipe, np.asarray(start.recipe.train[1])
    first = start.one_output
    if first.size != len(first) or y.ndim != 2 or y.shape[1] != 2:
        return
    flags = [np.array_equal(np.unique(column), (0, 1)) for column in y.T]
    if sum(flags) != 1:
        return
    event = flags.index(True)
    times = np.unique(y[:, 1 - event])
    if len(times) < ROWS:
        return
    order = np.random.default_rng(0).permutation(ROWS)
    rows = np.zeros((ROWS, 2), y.dtype)
    rows[:, 1 - event] = times[np.linspace(0, len(times) - 1, ROWS).round().astype(int)][order]
    shape = (ROWS, *first.shape[1:])
    outputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    slopes = jax.jit(jax.grad(lambda o, y: jnp.asarray(recipe.loss(o, y)).sum()))
    earlier = later = 0
    for row in np.flatnonzero((order > 1) & (order < ROWS - 2)):
        alone = rows.copy()
        alone[row, event] = 1
        beside = np.asarray(slopes(outputs, jnp.asarray(alone))).reshape(ROWS) != 0
        earlier += np.sum(beside & (order < order[row]))
        later += np.sum(beside & (order > order[row]))
    if earlier and not later:
        yield fault(
            "loss_mismatch",
            start.loss_line,
            "the loss holds a row that has its event against those that had left before, and not "
            "against those who are still at risk: the times are sorted the other way round",
            "all rows of the risk sets have earlier times",
            healthy="rows whose time is as late or later",
            remedy="order = jnp.argsort(-time) before a running sum of exp(risk)",
            confidence=0.95,
        )
