"""What the user's own run shows: numbers that are not finite, updates, units, labels."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.judge.trial_checks import scaled_inputs, summed_loss
from nnref.diagnosis.program.layers import Layer
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.program.updates import listed, of_the_schedule
from nnref.diagnosis.run.step_faults import (
    COMPUTED,
    GUARDS,
    climbing,
    first_nonfinite,
    zero_updates,
)
from nnref.diagnosis.run.trials import lengths
from nnref.diagnosis.thresholds import bound

FIRST_STEPS = 20  # whose updates are held against the gradient


def metric(signals: Signals) -> Iterator[Finding]:
    """A metric that finds nothing learned where accuracy or R² finds all of it."""
    behind = signals.reached < bound("failed") * signals.reference
    if not signals.known or not signals.finite or not behind:
        return
    recomputed = signals.measurements.recomputed
    if recomputed is not None and recomputed >= bound("learned") * signals.reference:
        word = "R²" if signals.measurements.skill.kind == "regression" else "accuracy"
        yield fault(
            "metric_mismatch",
            "metric",
            f"by your metric the network reaches {signals.reached:.2f}, by {word} recomputed from "
            f"its outputs {recomputed:.2f}, from 0 for the best constant answer to 1: the metric "
            "is wrong, the training is not",
            f"{signals.reached:.2f}",
            healthy=f"{recomputed:.2f}",
            confidence=0.8,
        )


def nonfinite(signals: Signals) -> Iterator[Finding]:
    """The first number that is not finite, and where it was born."""
    steps, start = signals.steps, signals.measurements.start
    if signals.finite:
        yield from nonfinite_outputs(signals)
        return
    huge = max(signals.input_scale) > bound("huge inputs")
    cure = signals.beyond_rate("inputs", "inputs, rate x10", "inputs, rate x100") if huge else None
    if cure:
        why = "the scale of the inputs alone drives the numbers beyond what is finite"
        yield scaled_inputs(signals, "inputs_not_normalized", why, trial=cure)
        return
    at = int(np.flatnonzero(~steps.finite.all(1))[0])
    born = COMPUTED[int(np.flatnonzero(~steps.finite[at])[0])]
    sizes = [level.size for level in start.levels]
    # What grows passes through huge numbers: NaN behind moderate ones is a division or a root.
    huge = next((i for i, size in enumerate(sizes) if size > bound("huge signal")), None)
    if huge is not None and (at == 0 or not signals.slower):
        yield fault(
            "exploding_gradients",
            signals.measurements.layers[huge].place,
            f"the first non-finite number is born in the {born} of step {at + 1}; before any step "
            "the signal grows from layer to layer",
            f"root mean square by layer {', '.join(f'{s:.3g}' for s in sizes)}",
            healthy="about 1 in every layer",
            remedy="use relu or tanh in the hidden layers",
        )
        return
    before, outputs = steps.loss[:at], steps.largest_output[:at]
    last = before[-1] if at else float("nan")
    weights = lengths(steps.weight[: at + 1])
    grew = at > 0 and (
        last > bound("growth") * max(np.min(before), 1e-30)
        or outputs[-1] > bound("growth") ** 2 * max(outputs[0], 1e-30)
        or weights[-1] > bound("growth") * weights[0]
    )
    leap = float(np.max(signals.update_ratios[at - 1])) if at else 0.0
    slower = signals.slower
    if grew or (leap > bound("leap") and slower):
        if slower and signals.sum_matters:
            yield summed_loss(signals, slower)
        yield first_nonfinite(
            born,
            at + 1,
            f"the last step moved the weights by {leap:.2g} of their length; loss {before[0]:.3g} "
            f"at first, {last:.3g} before",
            grew=True,
            proof=signals.proof(slower),
        )
        return
    largest = outputs[-1] if at else float("nan")
    moderate = f"loss {last:.3g}, largest output {largest:.3g}" if at else "the first step"
    seen = signals.measurements.birth
    if seen is not None and seen.schedule:
        yield of_the_schedule(seen.birth, seen.step)
        return
    birth = None if seen is None else seen.birth
    yield first_nonfinite(born, at + 1, moderate, grew=False, birth=birth)


def nonfinite_outputs(signals: Signals) -> Iterator[Finding]:
    """Outputs in evaluation that are not finite, though every step was."""
    leaves = jax.tree.leaves(signals.measurements.end.outputs)
    parts = [np.atleast_1d(leaf) for leaf in leaves]
    bad = max(float((~np.isfinite(p.reshape(len(p), -1)).all(1)).mean()) for p in parts)
    if bad:
        yield fault(
            "numerical_instability",
            "outputs",
            f"in evaluation {bad:.1%} of the rows get outputs that are not finite, "
            "though every step of the training was",
            "NaN or infinity",
            remedy=GUARDS["outputs"],
        )


def ascent(signals: Signals) -> Iterator[Finding]:
    """Updates along the gradient, of all parameters together or of some leaves alone.

    What decay moves has any angle to the gradient.
    """
    first = jax.tree.map(lambda part: part[:FIRST_STEPS], signals.steps)
    if len(first.cosine) < 2 or not np.isfinite(first.cosine).all():
        return  # one step alone may be one away, as of sharpness-aware optimizers
    products = first.cosine * first.update * first.gradient
    together = lengths(first.update) * lengths(first.gradient)
    whole = float(np.median(products.sum(1) / np.maximum(together, 1e-30)))
    if whole > bound("ascent"):
        yield climbing(whole)
        return
    paths = jax.tree.leaves_with_path(signals.measurements.initial[0])
    up = first.cosine.min(0) > bound("along")
    up &= np.array(signals.measurements.decay or [0.0] * len(paths)) == 0
    if up.any():
        names = [name_of(path) for (path, _), climbs in zip(paths, up, strict=True) if climbs]
        yield climbing(float(np.median(first.cosine[:, up])), listed(names), confidence=0.9)


def growing(signals: Signals) -> Iterator[Finding]:
    """A decay of the weights that has the wrong sign, so that each step makes them longer."""
    share, planned = signals.measurements.growth, signals.measurements.trainer.planned
    if share:
        times = np.exp(planned * np.log1p(share))
        yield fault(
            "gradient_ascent",
            "optimizer",
            f"where the gradient is 0, each step makes the weights {share:.2%} longer, {times:.3g} "
            f"times in {planned:,} steps: their decay has the wrong sign",
            f"{-share:.2%} of the weights taken away by a step",
            healthy="0 or above",
            remedy="optax.add_decayed_weights before optax.scale(-rate) in the chain, as in "
            "optax.adamw: what stands behind is neither turned round nor multiplied by the rate",
            confidence=0.95,
        )


def adrift(signals: Signals) -> Iterator[Finding]:
    """A note of leaves that move though no gradient ever reaches them."""
    steps, paths = signals.steps, jax.tree.leaves_with_path(signals.measurements.initial[0])
    moved = steps.update.any(0) & ~steps.gradient.any(0)
    if moved.any():
        names = [name_of(path) for (path, _), moves in zip(paths, moved, strict=True) if moves]
        yield note(
            "parameters_not_updated",
            listed(names),
            "no gradient ever reaches these, and they move: the optimizer adds to what it was "
            "shown, as a decay of the weights does",
            "gradient 0, update above 0",
            healthy="a gradient, or no update",
            remedy="optax.masked around what is added, or the parameters out of the optimizer",
        )


def updates(signals: Signals) -> Iterator[Finding]:
    """A gradient whose updates are zero, or too small for the precision of the parameters."""
    steps, measured = signals.steps, signals.measurements
    if (steps.gradient.sum(1) > 0).all() and not steps.update.any():
        yield zero_updates()
        return
    last = measured.run.snapshots[-1][1]  # where a rule to stop keeps the best network, another one
    before, after = (jax.tree.leaves(tree) for tree in (measured.initial[0], last))
    kernels = [i for i, leaf in enumerate(before) if leaf.ndim > 1 and steps.update[:, i].all()]
    still = [i for i in kernels if np.array_equal(before[i], after[i])]
    if still and len(still) > len(kernels) / 2:
        dtype = before[still[0]].dtype
        yield fault(
            "parameters_not_updated",
            "optimizer",
            f"every update of {len(still)} of {len(kernels)} kernels is rounded away: in {dtype} "
            "they end bit for bit where they began",
            f"updates of {np.median(signals.update_ratios[:, 0]):.1e} of the weights",
            healthy=f"above {float(jnp.finfo(dtype).eps):.0e} of them",
            remedy="parameters in float32; half precision for the activations alone",
        )


def symmetry(signals: Signals) -> Iterator[Finding]:
    """Units that start identical and stay so."""
    measured = signals.measurements
    for layer, level in zip(measured.layers[:-1], measured.start.levels, strict=False):
        kernel = kernel_of(measured.initial[0], layer)
        after = kernel_of(measured.run.params, layer)
        if kernel is None or after is None or kernel.shape[-1] < 2:
            continue
        columns = kernel.reshape(-1, kernel.shape[-1])
        if np.ptp(columns, axis=1).max() > 0:
            continue
        apart = np.ptp(after.reshape(columns.shape), axis=1).max()
        if apart <= bound("identical") * np.abs(after).max():
            yield fault(
                "constant_initialization",
                layer.place,
                f"all {level.units} units start with the same weights, so they get the same "
                "gradients and stay the same",
                f"{kernel.shape[-1]} identical columns",
            )
            return


def kernel_of(params: Any, layer: Layer) -> np.ndarray | None:
    """The kernel of a layer, by its path; None where it is no matrix."""
    for path, leaf in jax.tree.leaves_with_path(params):
        if name_of(path) == layer.parameters[0]:
            return np.asarray(leaf, float) if leaf.ndim > 1 else None
    return None


def faded(signals: Signals) -> Iterator[Finding]:
    """Updates that end long before the run, though there is a gradient: a schedule's end."""
    last, steps = signals.faded_at, len(signals.steps.loss)
    if last is not None:
        yield fault(
            "learning_rate_too_low",
            "optimizer",
            f"after step {last} of {steps} the updates are 0, though there is a gradient",
            f"{last / steps:.0%} of the run moves the weights",
            healthy="all of it",
            remedy="a schedule as long as the run, counted in steps: decay_steps = epochs * steps "
            "an epoch",
            confidence=0.8,
        )


def silent_outputs(signals: Signals) -> Iterator[Finding]:
    """Outputs behind a ReLU that are 0 for every row, while their targets are not."""
    measured, start = signals.measurements, signals.exchanges.at_start
    if measured.skill.outputs is None or start.form != "values":
        return
    if start.range is None or not start.range.floor:
        return
    outputs, y = measured.skill.outputs_at(measured.run.params, measured.run.state)
    outputs, y = (np.asarray(each, float).reshape(len(y), -1) for each in (outputs, y))
    if outputs.shape != y.shape:
        return
    silent = (outputs == start.range.low).all(0) & (y.std(0) > bound("outside") * y.std())
    if silent.any():
        yield fault(
            "relu_output",
            start.last,
            f"{silent.sum()} of {len(silent)} outputs are {start.range.low:g} for every row, and "
            "their targets are not: below it the activation behind the last layer passes no "
            "gradient, and what starts there stays",
            f"outputs {', '.join(map(str, np.flatnonzero(silent)[:6]))}",
            healthy="outputs that follow their targets",
            remedy="no activation after the last layer, or jax.nn.softplus for what is positive",
            confidence=0.9,
        )


def statistics(signals: Signals) -> Iterator[Finding]:
    """Good in training mode, bad in evaluation, of a network with a state."""
    measured = signals.measurements
    states = (jax.tree.leaves(state) for state in (measured.initial[1], measured.run.state))
    moved = [not np.array_equal(one, other) for one, other in zip(*states, strict=True)]
    if not moved:
        return
    mode, end = signals.measurements.trained_in_mode.skill, signals.reached
    attainable = max(signals.reference, bound("good"))
    if mode < bound("learned") * attainable or end > bound("failed") * mode:
        return
    yield fault(
        "batch_statistics_not_updated",
        "state",
        f"the trained network reaches {mode:.2f} in training mode and {end:.2f} in evaluation, "
        "on the same rows; its state "
        + ("is that of the start" if not any(moved) else "moves, and not to what batches measure"),
        f"{end:.2f} of the way from a constant answer to a perfect one",
        healthy=f"about {mode:.2f}, as in training mode",
        remedy="" if not any(moved) else "a momentum of 0.9, so that they follow within the run",
    )


def flattened(signals: Signals) -> Iterator[Finding]:
    """A softmax as the activation of a hidden layer."""
    for layer in signals.measurements.layers[:-1]:
        if layer.activation == "softmax" and not layer.weighs:
            yield fault(
                "hidden_activation_mismatch",
                layer.place,
                "a softmax between layers: its units share one unit of signal, and the more "
                "there are, the less each of them carries",
                "softmax",
                confidence=0.7,
            )
            return


def dying(signals: Signals) -> Iterator[Finding]:
    """Layers without a living unit."""
    start, end = signals.measurements.start, signals.measurements.end
    for i, layer in enumerate(signals.measurements.layers[:-1]):
        if end.levels[i].dead < bound("dead"):
            continue
        when = ", from the start"
        if start.levels[i].dead < bound("dead"):
            first, last = signals.death_of(i)
            leap = float(np.max(signals.update_ratios[first:last], initial=0.0))
            when = f": they died between steps {first} and {last}"
            if leap > bound("leap") and not signals.slower:
                yield fault(
                    "learning_rate_too_high",
                    "optimizer",
                    f"a step between {first} and {last} moved the weights by {leap:.2g} of "
                    f"their length, and {layer.name} was dead",
                    f"{leap:.2g} of the weights in one step",
                    remedy="divide the learning rate by 10, or clip the gradient",
                    confidence=0.7,
                )
        yield fault(
            "dying_relu",
            layer.place,
            f"no row activates any unit of this layer{when}",
            f"{end.levels[i].dead:.0%} of {end.levels[i].units} units dead",
        )
        return


def no_signal(signals: Signals) -> Iterator[Finding]:
    """Inputs that say nothing about the targets."""
    measured, trials = signals.measurements, signals.trials
    if signals.known or not signals.rows_can_tell or not signals.finite:
        return  # a network that has become NaN says nothing of its inputs
    valid = [trial.valid for trial in trials.values() if trial.valid is not None]
    validated = [] if measured.validated is None else [measured.validated.skill]
    best = max([*valid, *validated], default=signals.best_trial)
    if not valid and best >= bound("signal"):
        # What it learns of its training rows may be memory: held-out rows tell.
        best_trial = max(trials.values(), key=lambda trial: trial.skill)
        best = signals.interventions.held_out(best_trial)
    if best < bound("signal"):
        name = measured.reference.best[0]
        yield fault(
            "corrupted_labels",
            "targets",
            f"no model predicts held-out targets better than a constant: {name} reaches "
            f"{signals.reference:.2f}, and {measured.shuffled:.2f} where the targets are shuffled; "
            f"this network {best:.2f}",
            f"{max(best, signals.reference):.2f} of the way from a constant to perfect",
            healthy=f"above {bound('signal'):g}",
        )


def opposite(signals: Signals) -> Iterator[Finding]:
    """Two targets that mean the opposite of what the loss takes them for."""
    cure = signals.cured(*signals.exchanges.opposite)
    if cure is not None:
        low, high = (f"{value:g}" for value in np.unique(signals.measurements.recipe.train[1]))
        yield fault(
            "loss_mismatch",
            signals.exchanges.at_start.loss_line,
            f"with {low} and {high} exchanged in the targets the same training learns: the loss "
            "takes the one for the other, as a distance of pairs may",
            f"{cure.skill:.2f} with the targets exchanged",
            remedy=f"exchange {high} and {low} in the targets, or in the loss",
            confidence=0.8,
            proof=signals.proof(cure),
        )
