"""Schedules: what share of the learning rate holds at a step.

A schedule gives a factor in [0, 1] that multiplies the rate, so that shape and size of the rate
are two separate tumblers. Positional is `progress`, where the run stands; a step may be a whole
array of steps, for drawing. The first update has step 0 and gets the factor at 0; the factor at the
end of the run, step T, is the one after the last update.

Spans say their unit in the name of their key: `..._steps`, `..._epochs` or `..._share`, a share of
the run. Exactly one of the three is given; epochs and shares are rounded to whole updates.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from nnref.bounds import Count, MemberOf, NonNegative, Positive, Probability
from nnref.errors import UserError

Array = jax.Array
Tree = Any
Schedule = Callable[["Progress"], Array]


class Progress(NamedTuple):
    """Where a run stands."""

    step: Array  # updates made before this one, a traced integer
    steps: int | Array  # updates of the whole run
    steps_per_epoch: int
    reductions: int | Array = 0  # how often a plateau has been seen, see reduce_on_plateau


def position(progress: Progress) -> Array:
    """The step as a floating point number, in float64 where that is on."""
    return jnp.asarray(progress.step).astype(float)


def share_done(progress: Progress) -> Array:
    """The share t/T of the run that is done, in [0, 1]."""
    return jnp.minimum(position(progress) / progress.steps, 1.0)


def whole_updates(progress: Progress, **spans: Any) -> Any:
    """A span in updates: the one that is not None, a number or several, in the unit of its key.

    Raises:
        UserError: unless exactly one is not None.
    """
    keys = [key for key, span in spans.items() if span is not None]
    if len(keys) != 1:
        raise UserError(
            f"schedule: {' and '.join(keys) or 'no span'} given; "
            f"give exactly one of {', '.join(spans)}"
        )
    key, span = keys[0], spans[keys[0]]
    if isinstance(span, tuple):
        return [whole_updates(progress, **{key: each}) for each in span]
    unit = {"steps": 1, "epochs": progress.steps_per_epoch, "share": progress.steps}
    return jnp.round(jnp.asarray(span, float) * unit[key.rpartition("_")[2]])


def times(t: Array, span: Array) -> Array:
    """How many whole spans lie before t: floor(t / span), exact where t is a multiple.

    A compiled quotient may fall short of a whole number by its last bit; products of whole numbers
    are exact, so they decide.
    """
    guess = jnp.floor(t / span)
    return guess + (t >= (guess + 1) * span) - (t < guess * span)


def constant(progress: Progress) -> Array:
    """The same rate throughout: 1."""
    return jnp.ones_like(progress.step, dtype=float)


def linear(progress: Progress, *, final: Probability = 0.0) -> Array:
    """A straight line from 1 down to `final`: 1 - (1 - final) t/T.

    t/T is the share of the run that is done.

    Args:
        final: factor at the end of the run.
    """
    return 1.0 - (1.0 - final) * share_done(progress)


def polynomial(progress: Progress, *, power: Positive = 2.0, final: Probability = 0.0) -> Array:
    """A power from 1 down to `final`: final + (1 - final) (1 - t/T)^power.

    t/T is the share of the run that is done. A power of 1 is `linear`.

    Args:
        power: how much steeper the fall is at first.
        final: factor at the end of the run.
    """
    return final + (1.0 - final) * (1.0 - share_done(progress)) ** power


def step(
    progress: Progress,
    *,
    factor: Probability = 0.1,
    every_steps: Count | None = None,
    every_epochs: Positive | None = None,
    every_share: Positive | None = None,
) -> Array:
    """Down by `factor` at equal distances: factor^floor(t / every).

    Args:
        factor: what multiplies the rate each time.
        every_steps: distance, in updates.
        every_epochs: distance, in epochs.
        every_share: distance, as a share of the run.
    """
    every = whole_updates(
        progress, every_steps=every_steps, every_epochs=every_epochs, every_share=every_share
    )
    return factor ** times(position(progress), jnp.maximum(every, 1.0))


def multi_step(
    progress: Progress,
    *,
    factor: Probability = 0.1,
    at_steps: tuple[Count, ...] | None = None,
    at_epochs: tuple[Positive, ...] | None = None,
    at_share: tuple[Probability, ...] | None = None,
) -> Array:
    """Down by `factor` at given places: factor^(number of places passed).

    At epoch 100 means: after 100 epochs, so the update that follows is the first one reduced.

    Args:
        factor: what multiplies the rate each time.
        at_steps: places, in updates.
        at_epochs: places, in epochs.
        at_share: places, as shares of the run.
    """
    places = whole_updates(progress, at_steps=at_steps, at_epochs=at_epochs, at_share=at_share)
    passed = sum((position(progress) >= place).astype(float) for place in places)
    return factor ** jnp.asarray(passed)


def exponential(
    progress: Progress,
    *,
    factor: Probability = 0.1,
    every_steps: Count | None = None,
    every_epochs: Positive | None = None,
    every_share: Positive | None = None,
) -> Array:
    """Exponential decay, the smooth form of `step`: factor^(t / every).

    Args:
        factor: what the rate is multiplied with over each distance.
        every_steps: distance, in updates.
        every_epochs: distance, in epochs.
        every_share: distance, as a share of the run.
    """
    every = whole_updates(
        progress, every_steps=every_steps, every_epochs=every_epochs, every_share=every_share
    )
    return factor ** (position(progress) / jnp.maximum(every, 1.0))


def half_cosine(share: Array) -> Array:
    """From 1 at share 0 to 0 at share 1, level at both ends."""
    return 0.5 * (1.0 + jnp.cos(jnp.pi * share))


def cosine(progress: Progress, *, final: Probability = 0.0) -> Array:
    """Half a cosine from 1 down to `final`: final + (1 - final) (1 + cos(pi t/T)) / 2.

    t/T is the share of the run that is done (Loshchilov and Hutter 2017, eq. 5, one cycle).

    Args:
        final: factor at the end of the run.
    """
    return final + (1.0 - final) * half_cosine(share_done(progress))


def cosine_restarts(
    progress: Progress,
    *,
    first_steps: Count | None = None,
    first_epochs: Positive | None = None,
    first_share: Positive | None = None,
    growth: Count = 1,
    final: Probability = 0.0,
) -> Array:
    """Half cosines one after the other, SGDR: final + (1 - final) (1 + cos(pi t_i/T_i)) / 2.

    Cycle i has T_i = T_0 growth^i updates, t_i of which are done; each starts again at 1
    (Loshchilov and Hutter 2017, equation 5 and section 3).

    Pitfall: unless a cycle ends with the run, the last rate is a high one. Cycles end together with
    the run for T_0 = 1/n of it (growth 1) or 1/(2^n - 1) (growth 2).

    Args:
        first_steps: T_0, in updates.
        first_epochs: T_0, in epochs.
        first_share: T_0, as a share of the run.
        growth: how many times longer each cycle is than the one before.
        final: factor at the end of each cycle.
    """
    first = whole_updates(
        progress, first_steps=first_steps, first_epochs=first_epochs, first_share=first_share
    )
    first, t = jnp.maximum(first, 1.0), position(progress)
    if growth == 1:
        start, length = times(t, first) * first, first
    else:
        # Cycle i starts at T_0 (g^i - 1) / (g - 1). The logarithm may miss by one, the start not.
        def start_of(i: Array) -> Array:
            return first * jnp.round((float(growth) ** i - 1.0) / (growth - 1.0))

        i = jnp.floor(jnp.log1p(t * (growth - 1.0) / first) / jnp.log(float(growth)))
        i = i + (t >= start_of(i + 1.0)) - (t < start_of(i))
        start, length = start_of(i), first * jnp.round(float(growth) ** i)
    return final + (1.0 - final) * half_cosine((t - start) / length)


def one_cycle(
    progress: Progress,
    *,
    rise_share: Probability = 0.3,
    initial: Probability = 0.04,
    final: Probability = 4e-6,
    shape: Literal["cosine", "linear"] = "cosine",
) -> Array:
    """Up to 1 and far down again: `initial` -> 1 over the rise, 1 -> `final` over the rest.

    Smith and Topin 2018, section 3 (1cycle), with PyTorch's defaults: a rise over 30 % of the run
    from 1/25, a fall to 1/25 of 1e-4. The paper moves linearly and swings momentum the other way;
    momentum is constant here.

    Args:
        rise_share: share of the run until the peak.
        initial: factor at the first update.
        final: factor at the end of the run.
        shape: of rise and fall.
    """
    t = position(progress)
    peak = jnp.round(jnp.asarray(rise_share, float) * progress.steps)
    rise = t / jnp.maximum(peak, 1.0)
    fall = jnp.clip((t - peak) / jnp.maximum(progress.steps - peak, 1.0), 0.0, 1.0)
    height = half_cosine if shape == "cosine" else lambda share: 1.0 - share
    return jnp.where(
        t < peak,
        initial + (1.0 - initial) * height(1.0 - rise),
        final + (1.0 - final) * height(fall),
    )


def inverse_square_root(progress: Progress, *, timescale_steps: Count = 1) -> Array:
    """Inverse square root: sqrt(s / (s + t)).

    With s = 1 this is 1/sqrt(t) counted from 1, the rate of the regret bounds. Behind a warm-up of
    s steps it is Vaswani et al. 2017, equation 3, with the peak as 1.

    Args:
        timescale_steps: s, the updates after which the rate has fallen to 1/sqrt(2).
    """
    return jnp.sqrt(timescale_steps / (timescale_steps + position(progress)))


def reduce_on_plateau(
    progress: Progress,
    *,
    factor: Probability = 0.1,
    patience_evaluations: Count = 10,
    threshold: NonNegative = 1e-4,
    final: Probability = 0.0,
) -> Array:
    """Down by `factor` each time the validation loss stops falling: max(final, factor^reductions).

    A reduction follows `patience_evaluations` evaluations in a row none of which is below
    best - threshold |best|; then the count starts again. How often that has happened is kept in the
    optimizer's state (`PlateauState`), which `observe` gives the loss to.

    Needs validation data. PyTorch's scheduler waits for one evaluation more than its patience.

    Args:
        factor: what multiplies the rate each time.
        patience_evaluations: evaluations without a new best that are waited for.
        threshold: how much lower than the best a new best is, relative to it.
        final: the factor never falls below this.
    """
    del patience_evaluations, threshold  # of the memory: see PlateauState
    reduced = jnp.maximum(factor ** jnp.asarray(progress.reductions, float), final)
    return reduced * constant(progress)  # of the shape of the steps


# --- the state of a schedule --------------------------------------------------------------------


class PlateauState(NamedTuple):
    """What `reduce_on_plateau` remembers, with the rule it goes by."""

    best: Array  # lowest validation loss so far
    waited: Array  # evaluations since then, or since the last reduction
    reductions: Array
    patience: Array
    threshold: Array


class RateState(NamedTuple):
    """Where the schedule stands, with what it remembers."""

    step: Array
    plateau: PlateauState | None


def plateau(schedule: Callable[..., Any]) -> PlateauState | None:
    """What a schedule remembers at first if it is, or leads to, `reduce_on_plateau`; else None."""
    # The signature of a partial function has its bound arguments as defaults.
    bound = {name: p.default for name, p in inspect.signature(schedule).parameters.items()}
    if getattr(schedule, "func", schedule) is reduce_on_plateau:
        return PlateauState(
            best=jnp.asarray(jnp.inf, float),
            waited=jnp.int32(0),
            reductions=jnp.int32(0),
            patience=jnp.int32(bound["patience_evaluations"]),
            threshold=jnp.asarray(bound["threshold"], float),
        )
    parts = [a for a in bound.values() if callable(a) and a is not inspect.Parameter.empty]
    return next((memory for part in parts if (memory := plateau(part)) is not None), None)


def observe(opt_state: Tree, valid_loss: Array) -> Tree:
    """The state of the whole chain after a schedule in it has seen the validation loss.

    Without such a schedule it is the same; so it is for NaN, where an epoch had no evaluation.
    """

    def seen(state: Any) -> Any:
        if not isinstance(state, PlateauState):
            return state
        margin = state.threshold * jnp.where(jnp.isinf(state.best), 0.0, jnp.abs(state.best))
        improved = valid_loss < state.best - margin
        waited = jnp.where(improved, 0, state.waited + ~jnp.isnan(valid_loss))
        over = waited >= state.patience
        return state._replace(
            best=jnp.where(improved, valid_loss, state.best).astype(state.best.dtype),
            waited=jnp.where(over, 0, waited),
            reductions=state.reductions + over,
        )

    return jax.tree.map(seen, opt_state, is_leaf=lambda s: isinstance(s, PlateauState))


# --- the family -----------------------------------------------------------------------------------

SHAPES = {
    "constant": constant,
    "linear": linear,
    "polynomial": polynomial,
    "step": step,
    "multi_step": multi_step,
    "exponential": exponential,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "inverse_square_root": inverse_square_root,
    "reduce_on_plateau": reduce_on_plateau,
}


def warmup(
    progress: Progress,
    *,
    warmup_steps: Count | None = None,
    warmup_epochs: Positive | None = None,
    warmup_share: Probability | None = None,
    initial: Probability = 0.0,
    then: Annotated[Schedule, MemberOf("schedule", SHAPES)] = constant,
) -> Array:
    """A line up to 1, then any other schedule: update number n of w has initial + (1-initial) n/w.

    The last update of the warm-up has the factor 1 and is step 0 of `then`, which counts its steps,
    epochs and shares from there to the end of the run (Goyal et al. 2017, section 2.2, gradual
    warm-up).

    Args:
        warmup_steps: w, in updates.
        warmup_epochs: w, in epochs.
        warmup_share: w, as a share of the run.
        initial: the factor that the line starts from, one step before the first update.
        then: what follows.
    """
    width = whole_updates(
        progress, warmup_steps=warmup_steps, warmup_epochs=warmup_epochs, warmup_share=warmup_share
    )
    width = jnp.maximum(width, 1.0)
    t = position(progress)
    line = initial + (1.0 - initial) * jnp.minimum((t + 1.0) / width, 1.0)
    passed = width - 1.0
    after = progress._replace(
        step=jnp.maximum(t - passed, 0.0), steps=jnp.maximum(progress.steps - passed, 1.0)
    )
    return line * then(after)


SCHEDULES = {**SHAPES, "warmup": warmup}
