"""What a training with one thing changed shows: scale, penalty, dropout, rate, length, width."""

from collections.abc import Iterator

import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.findings import Finding, as_fault, fault, note
from nnref.diagnosis.judge.interventions import Trial
from nnref.diagnosis.judge.signals import Signals


def data_scale(signals: Signals) -> Iterator[Finding]:
    """Inputs and targets whose scale is the cause: scaling alone cures it.

    Where the history shows a loss that explodes, and a smaller rate cures it as well, it is the
    rate: the scale of the targets and of the gradient are one number to plain descent.
    """
    if signals.jumps and signals.slower:
        return
    cure = signals.cured("inputs")
    largest = max(signals.input_scale)
    small, huge = largest < bound("tiny inputs"), largest > bound("huge inputs")
    if huge and not cure and signals.saturated_first:
        cure = signals.helped("inputs")
    if huge and not cure and not signals.cured("rate x10", "rate x100"):
        cure = signals.cured("inputs, rate x10", "inputs, rate x100")
    if cure and (small or huge):
        yield scaled_inputs(
            signals,
            "inputs_scaled_twice" if small else "inputs_not_normalized",
            "the scale of the inputs alone keeps the network behind",
            proof=signals.proof(cure),
        )
    cure = signals.cured("targets") or (None if cure else signals.cured("inputs and targets"))
    if cure:
        y = np.asarray(signals.measurements.recipe.train[1], float)
        yield fault(
            "targets_not_scaled",
            "targets",
            "the scale of the targets keeps the network behind",
            f"mean {y.mean():.3g}, deviation {y.std():.3g}",
            proof=signals.proof(cure),
        )


def scaled_inputs(
    signals: Signals, cause: str, evidence: str, confidence: float = 1.0, proof: str = ""
) -> Finding:
    """Inputs whose scale is the cause, and the column that is farthest from unit scale."""
    columns, (mean, deviation) = signals.scales, signals.input_scale
    sizes = columns.deviation if deviation > mean else np.abs(columns.mean)
    return fault(
        cause,
        f"column {int(sizes.argmax())} of the inputs",
        evidence,
        f"mean up to {mean:.4g}, deviation up to {deviation:.4g}",
        confidence=confidence,
        proof=proof,
    )


def penalty(signals: Signals) -> Iterator[Finding]:
    """A penalty that outweighs the data."""
    cure, steps = signals.cured("penalty", "decay"), signals.steps
    if cure is None:
        return
    where, evidence, specific = "penalty", "the penalty outweighs the data", {}
    if not steps.penalty.any():
        where, evidence = "optimizer", "the weight decay outweighs the gradient"
        measured = f"every step takes {max(signals.measurements.decay):.2%} of the weights away"
        specific = {
            "healthy": "far less than a step of the gradient gives them",
            "remedy": "divide the weight decay by 100",
        }
    else:
        ratio = steps.penalty[-1] / max(abs(steps.loss[-1]), 1e-30)
        measured = f"penalty {ratio:.2g} times the data loss at the end"
        if np.nanmin(steps.penalty) < 0:
            evidence = "the penalty is negative: it rewards large weights"
            specific = {"remedy": "add the penalty to the loss, do not subtract it"}
    proof = signals.proof(cure)
    yield fault("excessive_regularization", where, evidence, measured, proof=proof, **specific)


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
    elif high:
        yield fault(
            "learning_rate_too_low",
            "optimizer",
            "the steps are too small for the run",
            f"{len(signals.steps.loss)} steps, {update}",
            proof=signals.proof(high),
        )


def summed_loss(signals: Signals, slower: Trial) -> Finding:
    """The loss as a sum over rows, and a smaller rate that cures it."""
    batch = signals.measurements.trainer.batch
    return fault(
        "loss_summed_over_batch",
        "loss",
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


def capacity(signals: Signals) -> Iterator[Finding]:
    """A network that stays behind simple models, and nothing tried cures it.

    What helps a little, or a run of few steps, still says where to look.
    """
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
    elif not signals.known or not signals.finite:
        return
    elif signals.share >= bound("learned"):
        yield from generalization(signals)
    elif max(signals.input_scale) > bound("huge inputs") and signals.saturated_first:
        yield scaled_inputs(
            signals,
            "inputs_not_normalized",
            "most units of the first layer have lost their slope before any step, and no "
            f"change alone helps{signals.batches_in_words}",
            confidence=0.5,
        )
    elif not signals.trials:  # what no change was tried on, none is known not to help
        yield from map(as_fault, clipping(signals))
    else:
        yield too_small_a_network(signals)


def too_small_a_network(signals: Signals) -> Finding:
    """A network behind simple models that no change of rate, length or scale helps."""
    measured = signals.measurements
    widths = [level.units for level in measured.start.levels[:-1]]
    name, best = measured.reference.best
    luck = signals.cured("initialization")
    return fault(
        "insufficient_capacity",
        measured.layers[int(np.argmin(widths))].place if widths else "the whole network",
        f"a simple model ({name}) reaches {best:.2f} on held-out rows, this network "
        f"{signals.reached:.2f} on its training rows, and no change of rate, length or scale "
        + ("helps; another start does: with so few units it takes luck" if luck else "helps")
        + signals.batches_in_words,
        f"narrowest layer of {min(widths)} units" if widths else "no hidden layer",
        confidence=0.4,
    )


def generalization(signals: Signals) -> Iterator[Finding]:
    """A note where the network is far worse on validation rows than on training rows.

    None where simple models do not carry over either: then it is the split.
    """
    validated, reached = signals.measurements.validated, signals.reached
    if validated is not None and validated.skill < bound("failed") * reached:
        splits = signals.measurements.splits
        numbers = None if splits is None else splits.numbers
        if numbers is not None and numbers.carries is False:
            return
        yield note(
            "overfitting",
            "validation rows",
            f"the network knows its training rows ({reached:.2f}) far better than the "
            f"validation rows ({validated.skill:.2f})",
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
