"""A loss of parameters and a batch, without its network: a few steps on that batch."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import LossAtStart, beside
from nnref.diagnosis.program.birth import birth_of
from nnref.diagnosis.program.blocked import lost_slope
from nnref.diagnosis.program.terms import outweighed, terms
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.run.step_faults import first_nonfinite, zero_updates
from nnref.diagnosis.run.trials import StepMeasures, by_leaf, lengths
from nnref.diagnosis.thresholds import bound
from nnref.parts.chain import updated
from nnref.training.task import Functions
from nnref.training.train import TrainState, train_step

STEPS = 200


def steps_of(start: LossAtStart, optimizer: Any) -> tuple[StepMeasures, Any]:
    """The measures of the first steps on the one batch, (steps, ...), and where they lead.

    Args:
        start: the loss, its parameters and its batch.
        optimizer: any optax transformation.
    """
    params, none, batch, _ = start.arguments

    def value(params: Any, state: Any, batch: Any, key: Any, train: bool) -> tuple[Any, Any]:
        return start.objective(params, state, batch, (), key)[0], state

    # The outputs of this network are its loss, whatever the targets.
    functions = Functions(lambda key: (params, none), value, lambda loss, targets: loss)
    no_targets = jnp.zeros(1)

    def step(state: TrainState, key: Any) -> tuple[TrainState, StepMeasures]:
        state, sums = train_step(functions, optimizer, state, batch, no_targets, key, by_leaf)
        return state, sums["probes"]

    def steps(params: Any) -> tuple[StepMeasures, Any]:
        key, goes_on = jax.random.key(0), jnp.bool_(True)
        begun = TrainState(
            params, none, optimizer.init(params), key, goes_on, jnp.float32(0), jnp.int32(0), None
        )
        state, measures = jax.lax.scan(step, begun, jax.random.split(key, STEPS))
        return measures, state.params

    return jax.device_get(jax.jit(steps)(params))


def line_of_birth(start: LossAtStart, optimizer: Any, at: int) -> str:
    """The line of the operation that gives the first number that is not finite, in a step.

    Args:
        start: the loss, its parameters and its batch.
        optimizer: that took the steps before.
        at: how many of these there were.
    """
    params, state, batch, targets = start.arguments
    keys = jax.random.split(jax.random.key(0), STEPS)

    def value(params: Any, key: Any) -> Any:
        return start.objective(params, state, batch, targets, key)[0]

    def step(carry: Any, key: Any) -> tuple[Any, None]:
        params, opt_state = carry
        gradient = jax.grad(value)(params, key)
        updates, opt_state = updated(optimizer, gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    begun = params, optimizer.init(params)
    before = jax.jit(lambda carry: jax.lax.scan(step, carry, keys[:at])[0][0])(begun)
    for function in (value, jax.grad(value)):
        birth = birth_of(function, before, keys[at])
        if birth is not None and birth.where:
            return f"{birth.where} ({birth.operation.name})"
    return ""


def check(
    start: LossAtStart, optimizer: Any, steps: StepMeasures, end: Any, known: set[str]
) -> Iterator[Finding]:
    """The faults that these steps to an end show, beside the causes that are known."""
    loss, params = steps.loss, start.arguments[0]
    if not steps.finite.all():
        at = int(np.flatnonzero(~steps.finite.all(1))[0])
        # The outputs of a bare loss are the loss.
        born = ("loss", "loss", "gradient", "update")[int(np.flatnonzero(~steps.finite[at])[0])]
        grew = at > 1 and loss[at - 1] > bound("growth") * abs(loss[0])
        line = "" if grew or born == "update" else line_of_birth(start, optimizer, at)
        measured = f"loss {loss[0]:.3g} at first"
        yield first_nonfinite(born, at + 1, measured, grew=grew, where=line or born)
        return
    flat = [] if "gradient_blocked" in known else list(flattened(start, steps, end))
    if flat:
        yield from flat
        return
    paths = [name_of(path) for path, _ in jax.tree.leaves_with_path(params)]
    silent = [name for name, norms in zip(paths, steps.gradient.T, strict=True) if not norms.any()]
    if len(silent) == len(paths) and at_its_floor(start):
        return
    if silent and known.isdisjoint({"parameters_not_updated", "gradient_blocked"}):
        yield (fault if len(silent) == len(paths) else note)(
            "parameters_not_updated",
            ", ".join(silent[:4]) + (" ..." if len(silent) > 4 else ""),
            "no gradient reaches these parameters at any step",
            "gradient exactly 0",
            healthy="above 0",
            remedy="look for stop_gradient, rounding, argmax or a result that is never used",
        )
        if len(silent) == len(paths):
            return
    if not steps.update.any():
        yield zero_updates()
    elif loss[-1] > loss[0]:
        yield fault(
            "learning_rate_too_high",
            "optimizer",
            f"{len(loss)} steps on one batch raise its loss from {loss[0]:.3g}",
            f"{loss[-1]:.3g}",
            healthy="a loss that falls on a batch that is seen again and again",
            confidence=0.7,
        )
    else:
        first, last = (terms(start, point, start.arguments[1]) for point in (params, end))
        data, others = (sum(t.value for t in last if t.of_targets == of) for of in (True, False))
        found = outweighed(first, last) if abs(others) < bound("served") * data else None
        yield from [found] if found else []


def nearby(params: Any) -> Any:
    """Parameters so near that only what is flat stays as it is."""
    return jax.tree.map(
        lambda a, b: a + (bound("small change") * (b - a)).astype(a.dtype),
        params,
        beside(params, 1.0, 1),
    )


def at_its_floor(start: LossAtStart) -> bool:
    """Whether a loss without a gradient rises beside the parameters, and has one there."""
    params, state, batch, targets = start.arguments

    def value(params: Any) -> Any:
        return start.objective(params, state, batch, targets, jax.random.key(0))[0]

    both = jax.jit(jax.value_and_grad(value))
    (here, _), (there, gradient) = both(params), both(nearby(params))
    return bool(there > here and any(np.any(leaf) for leaf in jax.tree.leaves(gradient)))


def flattened(start: LossAtStart, steps: StepMeasures, end: Any) -> Iterator[Finding]:
    """A loss of the whole batch that is flat, from its first steps to its last and beside it.

    A loss at its floor is flat at one place alone, unless its slope was lost on the way.
    """
    slopes, few = lengths(steps.gradient), int(bound("few steps"))
    size = max(float(np.abs(steps.loss).max()), 1.0)
    # Times the weights it is what the loss changes by where they do.
    if slopes[few:].max() * max(lengths(steps.weight)[-1], 1.0) > bound("felt") * size:
        return
    lost = [lost_slope(start, point) for point in (end, nearby(end))]
    if lost[0] is None or lost[1] is None:
        return
    where, number = lost[0]
    yield fault(
        "gradient_blocked",
        where,
        f"the slope is lost in this line: a number of the whole batch, {number:.3g}, is put "
        "through a function that is flat there, and next to no gradient is left for any parameter",
        f"a gradient of {slopes[few:].max():.2g}; loss {steps.loss[0]:.3g} at first, "
        f"{steps.loss[-1]:.3g} after {len(steps.loss)} steps",
        healthy="a slope for every row that is answered wrongly",
        remedy="the function of each row, then their mean: jnp.mean(jax.nn.log_sigmoid(margin)), "
        "not jax.nn.log_sigmoid(jnp.sum(margin))",
        confidence=0.9,
    )
