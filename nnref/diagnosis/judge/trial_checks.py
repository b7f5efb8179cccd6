"""What a training with one thing changed shows: scale, penalty, dropout, rate, length, width."""

from collections.abc import Iterator
from functools import partial
from operator import attrgetter

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.program.loss_facts import where_least
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.run.changes import Trial
from nnref.diagnosis.run.edits import BATCH, untrusted
from nnref.diagnosis.thresholds import bound

REACHED = 64  # rows whose outputs are asked for what they can be
FACTORS = (1.0, -1.0, 10.0, -10.0, 100.0, -100.0)  # on the parameters


def data_scale(signals: Signals) -> Iterator[Finding]:
    """Inputs and targets whose scale is the cause: scaling alone cures it.

    Where the history shows a loss that explodes, a rate that cures it as well is the cause.
    """
    cured = signals.beyond_rate if signals.jumps else signals.cured
    cure = cured("inputs")
    largest = max(signals.input_scale)
    small, huge = largest < bound("tiny inputs"), largest > bound("huge inputs")
    if huge and not cure and signals.saturated_first:
        cure = signals.helped("inputs")
    if huge and not cure and not signals.cured("rate x10", "rate x100"):
        cure = cured("inputs, rate x10", "inputs, rate x100")
    if cure and (small or huge):
        yield scaled_inputs(
            signals,
            "inputs_scaled_twice" if small else "inputs_not_normalized",
            "the scale of the inputs alone keeps the network behind",
            trial=cure,
        )
    cure = cured("targets") or (None if cure else cured("inputs and targets"))
    skill = signals.measurements.skill
    if cure and (skill.outputs is None or skill.row_by_row):  # times and events have no scale
        y = np.asarray(signals.measurements.recipe.train[1], float)
        yield fault(
            "targets_not_scaled",
            "targets",
            "the scale of the targets keeps the network behind",
            f"mean {y.mean():.3g}, deviation {y.std():.3g}",
            proof=signals.proof(cure),
        )


def scaled_inputs(
    signals: Signals, cause: str, evidence: str, confidence: float = 1.0, trial: Trial | None = None
) -> Finding:
    """Inputs whose scale is the cause, and the column that is farthest from unit scale."""
    columns, (mean, deviation) = signals.scales, signals.input_scale
    sizes = columns.deviation if deviation > mean else np.abs(columns.mean)
    return fault(
        cause,
        f"column {signals.measurements.recipe.column(int(sizes.argmax()))} of the inputs",
        evidence,
        f"mean up to {mean:.4g}, deviation up to {deviation:.4g}",
        confidence=confidence,
        proof=signals.proof(trial),
    )


def penalty(signals: Signals) -> Iterator[Finding]:
    """A penalty that outweighs the data."""
    cure, steps = signals.cured("penalty", "decay"), signals.steps
    if cure is None:
        return
    where, evidence, specific = "penalty", "the penalty outweighs the data", {}
    if not steps.penalty.any():
        where, evidence = "optimizer", "the weight decay outweighs the gradient"
        decay, added = signals.measurements.decay, signals.measurements.added
        measured = (
            f"every step takes {max(decay):.2%} of the weights away"
            if decay or added is None
            else f"at the first step {added.beside:.2g} times as long as what it is added to"
        )
        typed = f": {added.coefficient / 100:.2g} for {added.coefficient:.2g}" if added else ""
        specific = {
            "healthy": "far less than a step of the gradient gives them",
            "remedy": f"divide the weight decay by 100{typed}",
        }
    else:
        ratio = steps.penalty[-1] / max(abs(steps.loss[-1]), 1e-30)
        measured = f"penalty {ratio:.2g} times the data loss at the end"
        if np.nanmin(steps.penalty) < 0:
            evidence = "the penalty is negative: it rewards large weights"
            specific = {"remedy": "add the penalty to the loss, do not subtract it"}
    yield fault(
        "excessive_regularization", where, evidence, measured, proof=signals.proof(cure), **specific
    )


def noise(signals: Signals) -> Iterator[Finding]:
    """Dropout that leaves no signal: training without any goes most of the way."""
    quiet, base = signals.interventions.quiet, max(signals.reached, 0)
    if quiet is None or quiet.skill < base + bound("gap"):
        return
    goal = max(signals.attainable, quiet.skill)
    if quiet.skill < signals.reached + bound("cure") * (goal - base):
        return
    share = signals.measurements.noise
    yield fault(
        "excessive_dropout",
        "training mode",
        f"{share:.0%} of what tells the outputs of two rows apart is drawn at random",
        f"{share:.0%} of the variance of the outputs in training mode",
        proof=signals.proof(quiet),
    )


def rate(signals: Signals) -> Iterator[Finding]:
    """Steps too large or too small for the run."""
    low, high = signals.slower, signals.cured("rate x10", "rate x100")
    longer, planned = signals.cured("longer"), signals.measurements.run.planned
    update = f"update {signals.update_ratio:.1e} of the weights a step"
    if low and signals.overshoots and not (high and high.skill > low.skill):
        if signals.sum_matters:
            yield summed_loss(signals, low)
        yield fault(
            "learning_rate_too_high",
            "optimizer",
            "the steps overshoot",
            update,
            remedy=f"divide the learning rate by {1 / low.change.rate:.0f}",
            proof=signals.proof(low),
        )
    elif not high and not longer and signals.stands:
        yield fault(
            "learning_rate_too_low",
            "optimizer",
            "all steps of the run together hardly move the weights",
            f"{signals.distance:.1e} of their length in {planned} steps",
        )
    elif longer and (
        planned < bound("few steps") or not high or high.skill < longer.skill - bound("tie")
    ):
        yield fault(
            "undertrained",
            "epochs",
            "the run ends before the network has learned",
            f"{len(signals.steps.loss)} steps, {update}",
            proof=signals.proof(longer),
        )
    elif high and signals.faded_at is None:  # of a schedule that has ended, its length is told
        yield fault(
            "learning_rate_too_low",
            "optimizer",
            "the steps are too small for the run",
            f"{len(signals.steps.loss)} steps, {update}",
            remedy=f"multiply the learning rate by {high.change.rate:.0f}",
            proof=signals.proof(high),
        )


def summed_loss(signals: Signals, slower: Trial) -> Finding:
    """The loss as a sum over rows, and a smaller rate that cures it."""
    batch = signals.measurements.trainer.batch
    return fault(
        "loss_summed_over_batch",
        signals.exchanges.at_start.loss_line,
        f"the loss is a sum over rows, so every step is {batch} times as large",
        "a batch repeated has twice the loss",
        proof=signals.proof(slower),
    )


def sum_too_large(signals: Signals) -> Iterator[Finding]:
    """A sum over rows whose first steps leap, of a network that a smaller rate helps."""
    if signals.finite and signals.sum_matters and signals.jumps:
        slower = signals.helped("rate x0.1")
        if slower:
            yield summed_loss(signals, slower)


def huge_batch(signals: Signals) -> Iterator[Finding]:
    """Batches so large that the run has few steps, where smaller ones cure."""
    cure = signals.cured(*signals.exchanges.batch)
    if cure is not None:
        planned, batch = signals.measurements.run.planned, signals.measurements.trainer.batch
        yield fault(
            "undertrained",
            "batch size",
            "the batches are so large that the run ends before the network has learned",
            f"{planned} steps of {batch} rows",
            healthy="more steps, of fewer rows",
            remedy=f"batch_size={BATCH}",
            confidence=0.8,
            proof=signals.proof(cure),
        )


def not_over(signals: Signals) -> Iterator[Finding]:
    """A run that stays behind simple models and is not over: so little says only where to look."""
    planned = signals.measurements.run.planned
    further = signals.helped("longer") if signals.still_falls else None
    if further or planned < bound("few steps"):
        yield fault(
            "undertrained",
            "epochs",
            "the loss still falls at the end" if further else "the run is a few steps long",
            f"{planned} steps",
            remedy="ten times the epochs",
            confidence=0.5,
            proof=signals.proof(further),
        )
    elif max(signals.input_scale) > bound("huge inputs") and signals.saturated_first:
        yield scaled_inputs(
            signals,
            "inputs_not_normalized",
            "most units of the first layer have lost their slope before any step, and no "
            f"change alone helps{signals.batches_in_words}",
            confidence=0.5,
        )


def another_start(signals: Signals) -> Iterator[Finding]:
    """A start whose exchange alone cures, and the kernel that is farthest from the other one."""
    cure = signals.cured("initialization")
    if cure is None:
        return
    own, other = (
        {
            name_of(path): float(np.sqrt(np.mean(np.square(np.asarray(leaf, float)))))
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (signals.measurements.initial[0], signals.interventions.he_start[0])
    )
    factors = {name: own[name] / max(size, 1e-30) for name, size in other.items()}
    name = max(factors, key=lambda name: abs(np.log(max(factors[name], 1e-30))))
    factor = factors[name]
    if 1 / bound("another start") < factor < bound("another start"):
        return  # what helps is luck
    yield fault(
        "initialization_too_large" if factor > 1 else "initialization_too_small",
        name,
        f"another start alone helps, and {name} starts {factor:.2g} times as large as there",
        f"root mean square {own[name]:.2g}",
        healthy=f"{other[name]:.2g}",
        confidence=0.8,
        proof=signals.proof(cure),
    )


def beyond_reach(signals: Signals) -> Iterator[Finding]:
    """Outputs that stay within bounds whatever the parameters are, and targets beyond these."""
    skill, recipe = signals.measurements.skill, signals.measurements.recipe
    if skill.kind != "regression" or skill.outputs is None or not skill.fits:
        return
    y = np.asarray(recipe.train[1], float)
    if where_least(recipe.loss, (2, *skill.outputs.shape[1:]), y) != "target":
        return  # what the loss asks for is no output that equals its target
    low, high = reach(signals)
    missing = y - np.clip(y, low, high)
    share = float(np.mean(np.abs(missing) > bound("outside") * max(float(y.std()), 1e-6)))
    if (missing**2).mean() > bound("out of range") * y.var():
        yield fault(
            "relu_output" if low == 0 and high == np.inf else "output_range_excludes_targets",
            signals.exchanges.at_start.last,
            f"whatever the parameters are, the outputs stay in [{low:.3g}, {high:.3g}], and "
            f"{share:.0%} of the targets, from {y.min():.3g} to {y.max():.3g}, lie outside",
            f"[{low:.3g}, {high:.3g}]",
            healthy=f"[{y.min():.3g}, {y.max():.3g}]",
            remedy="a layer without activation behind the last one, and targets of unit scale",
            confidence=0.9,
        )


def reach(signals: Signals) -> tuple[float, float]:
    """The lowest and the highest output at the parameters of the run, and at multiples of them.

    What is ten times as large at ten times the parameters has no bound.
    """
    measured = signals.measurements
    x = np.asarray(measured.recipe.train[0])[: measured.recipe.rows or REACHED]
    networks = measured.initial, (measured.run.params, measured.run.state)
    apply = jax.jit(lambda p, s, x: measured.recipe.apply(p, s, x, None, False)[0])
    lows, highs = [], []
    for factor in FACTORS:
        scaled = [(jax.tree.map(partial(np.multiply, factor), p), s) for p, s in networks]
        outputs = [np.nan_to_num(np.asarray(apply(p, s, x), float)) for p, s in scaled]
        lows.append(min(part.min() for part in outputs))
        highs.append(max(part.max() for part in outputs))
    low, high = min(lows), max(highs)
    return (
        -np.inf if low < 2 * min(lows[:-2]) and low < 0 else low,
        np.inf if high > 2 * max(highs[:-2]) and high > 0 else high,
    )


def frozen(signals: Signals) -> Iterator[Finding]:
    """Most parameters stand still under a gradient, and an optimizer that moves them cures most."""
    steps, leaves = signals.steps, jax.tree.leaves_with_path(signals.measurements.initial[0])
    still = ~steps.update.any(0) & (np.median(steps.gradient, 0) > 0)
    sizes = np.array([np.size(leaf) for _, leaf in leaves])
    if sizes[still].sum() < bound("mostly") * sizes.sum() or still.all():
        return
    cure = signals.cured(*signals.exchanges.optimizer)
    if cure is not None and cure.skill > signals.best_trial - bound("tie"):
        names = [name_of(path) for (path, _), stands in zip(leaves, still, strict=True) if stands]
        yield fault(
            "parameters_not_updated",
            ", ".join(names[:4]) + (", ..." if len(names) > 4 else ""),
            f"{sizes[still].sum() / sizes.sum():.0%} of the parameters have a gradient and are "
            "never moved: the optimizer leaves them out",
            "updates of 0",
            remedy="let the optimizer have all parameters, or start from ones that were trained",
            confidence=0.9,
            proof=signals.proof(cure),
        )


def outweighed(signals: Signals) -> Iterator[Finding]:
    """A term of the loss without targets that the training served alone; see `terms`."""
    if signals.reached > bound("signal"):
        return
    finding = signals.exchanges.outweighed
    if finding is not None:
        yield finding


def turned(signals: Signals) -> Iterator[Finding]:
    """A run that learns when it climbs: what is descended grows with what is wanted."""
    cure = signals.cured("turned")
    if cure is not None:
        yield fault(
            "loss_mismatch",
            signals.exchanges.at_start.loss_line,
            "the network learns when every update is turned round: the loss is of the wrong sign",
            f"{max(signals.reached, 0):.2f} as it is",
            remedy="a minus in front of what is to grow: loss = -log_likelihood",
            confidence=0.9,
            proof=signals.proof(cure),
        )


def head(signals: Signals) -> Iterator[Finding]:
    """Outputs or a loss whose exchange alone cures: which it was is what was exchanged."""
    start, cures = signals.exchanges.at_start, {n: signals.cured(n) for n in signals.exchanges.head}
    raw, both, loss = (cures.get(name) for name in ("outputs", "outputs and loss", "loss"))
    if raw or both:
        better = raw if raw and not (both and both.skill > raw.skill + bound("tie")) else both
        unit = start.range
        bounded = unit is not None and not unit.raw and start.form == "values"
        yield fault(
            "output_range_excludes_targets" if bounded else "output_activation_mismatch",
            start.last,
            "what stands behind the last layer keeps the network behind"
            + ("" if better is raw else ", and the loss that goes with it"),
            f"{max(signals.reached, 0):.2f} with it",
            confidence=0.7,
            proof=signals.proof(better),
        )
    elif loss:
        yield fault(
            "loss_mismatch",
            start.loss_line,
            "the loss keeps the network behind",
            f"{max(signals.reached, 0):.2f} with it",
            confidence=0.7,
            proof=signals.proof(loss),
        )


def activation(signals: Signals) -> Iterator[Finding]:
    """Hidden activations whose exchange for ReLU alone cures."""
    cure = signals.cured(*signals.exchanges.activation)
    if cure is not None:
        first = untrusted(signals.measurements.layers)[0]
        missing = not first.primitives
        yield fault(
            "hidden_activation_missing" if missing else "hidden_activation_mismatch",
            first.place,
            "the hidden activation keeps the network behind",
            first.activation or "none",
            confidence=0.7,
            proof=signals.proof(cure),
        )


def trusted_optimizer(signals: Signals) -> Iterator[Finding]:
    """An optimizer whose exchange alone cures, where no factor on its rate does."""
    cure = signals.cured(*signals.exchanges.optimizer)
    if cure is None:
        return
    overshoots = signals.overshoots
    rate = 1e-3 * cure.change.rate
    yield fault(
        "learning_rate_too_high" if overshoots else "learning_rate_too_low",
        "optimizer",
        "the steps of this optimizer "
        + ("overshoot" if overshoots else "go too little or the wrong way")
        + ", and no factor on its rate alone helps",
        f"update {signals.update_ratio:.1e} of the weights a step",
        remedy=f"optax.chain(optax.clip_by_global_norm(1.0), optax.adam({rate:g}))",
        confidence=0.6,
        proof=signals.proof(cure),
    )


def capacity(signals: Signals) -> Iterator[Finding]:
    """A network that stays behind simple models while one with wider layers does not."""
    if not signals.known or not signals.finite or signals.share >= bound("learned"):
        return
    trials = signals.exchanges.width
    same, wider = (
        max(
            (t for name, t in trials.items() if name.startswith(word)),
            key=attrgetter("skill"),
            default=None,
        )
        for word in ("same", "wider")
    )
    if same is None or wider is None:
        return
    measured = signals.measurements
    widths = [level.units for level in measured.start.levels[:-1]]
    behind = same.skill < bound("failed") * signals.reference
    if behind and wider.skill > max(same.skill, signals.reached) + bound("gap"):
        yield fault(
            "insufficient_capacity",
            measured.layers[int(np.argmin(widths))].place,
            f"a plain network of these widths reaches {same.skill:.2f} as well, and one of wider "
            f"layers {wider.skill:.2f}{signals.batches_in_words}",
            f"narrowest layer of {min(widths)} units",
            confidence=0.8,
            proof=signals.proof(wider),
        )


def generalization(signals: Signals) -> Iterator[Finding]:
    """A note where the network is far worse on validation rows than on training rows.

    None where simple models do not carry over either, as then it is the split; nor where they are
    no better there, as in a split of nearly one class.
    """
    validated, reached = signals.measurements.validated, signals.reached
    if validated is not None and validated.skill < bound("failed") * reached:
        splits = signals.measurements.splits
        numbers = None if splits is None else splits.numbers
        beside = 0.0 if numbers is None or not numbers.carries else numbers.of_all
        behind = numbers is not None and numbers.carries is False
        if behind or validated.skill >= bound("learned") * beside > 0:
            return
        yield note(
            "overfitting",
            "validation rows",
            f"the network knows its training rows ({reached:.2f}) far better than the "
            f"validation rows ({validated.skill:.2f})"
            + (f"; simple models carry over to them ({beside:.2f})" if beside > 0 else ""),
            f"a gap of {reached - validated.skill:.2f}",
        )


def clipping(signals: Signals) -> Iterator[Finding]:
    """A note where nearly every step is clipped: then the rate alone says little."""
    share = signals.measurements.clipped
    if share is not None and share > bound("clipped"):
        yield note(
            "learning_rate_too_low",
            "clipping",
            f"{share:.0%} of the steps are clipped: their length is the rate times the "
            "threshold, whatever the gradient says; under Adam the clip nearly cancels",
            f"{share:.0%}",
            healthy="spikes alone",
            remedy="a threshold at the 90th percentile of the norms",
            confidence=0.4,
        )
