"""The proof of a cause: what the same training does without it, from several seeds."""

from dataclasses import replace
from operator import attrgetter

from nnref.diagnosis.findings import Finding
from nnref.diagnosis.judge.interventions import SEEDS
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.proof import Proof, curve
from nnref.diagnosis.run.changes import Trial
from nnref.diagnosis.thresholds import bound

# Causes about what stands behind the last layer: outputs and loss are exchanged to prove them.
HEAD = (
    "loss_broadcast",
    "loss_mismatch",
    "loss_axis_error",
    "double_softmax",
    "relu_output",
    "output_activation_missing",
    "output_activation_mismatch",
    "output_range_excludes_targets",
    "softmax_on_single_unit",
)

# Changes of a run that take a cause away; those of outputs and loss are in `HEAD`.
CURES: dict[str, tuple[str, ...]] = {
    "constant_initialization": ("initialization",),
    "dying_relu": ("initialization", "rate x0.1", "rate x0.01"),
    "excessive_regularization": ("penalty", "decay"),
    "exploding_gradients": ("initialization", "rate x0.1", "rate x0.01"),
    "gradient_ascent": ("turned",),
    "initialization_too_large": ("initialization",),
    "initialization_too_small": ("initialization",),
    "inputs_not_normalized": ("inputs", "inputs, rate x10", "inputs, rate x100"),
    "inputs_scaled_twice": ("inputs",),
    "learning_rate_too_high": ("rate x0.1", "rate x0.01"),
    "learning_rate_too_low": ("rate x10", "rate x100"),
    "loss_summed_over_batch": ("rate x0.1", "rate x0.01"),
    "targets_not_scaled": ("targets", "inputs and targets"),
    "undertrained": ("longer",),
    "vanishing_gradients": ("initialization",),
}


def proven(signals: Signals, faults: list[Finding]) -> list[Finding]:
    """Findings about outputs and loss, with the proof that the exchange of these gives."""
    soft = [f for f in faults if f.cause in HEAD and f.confidence < bound("hard")]
    trials = signals.exchanges.head if soft else {}
    best = max(trials.values(), key=attrgetter("skill"), default=None)
    if best is None or not signals.cured(best.name):
        return faults
    return [replace(f, proof=signals.proof(best)) if f in soft else f for f in faults]


def with_proof(signals: Signals, cause: Finding) -> Finding:
    """A fault with its proof from several seeds, also where it was certain without a further run.

    Outputs and loss are exchanged for it; of other causes only runs are asked that were made.
    """
    if cause.severity != "fault" or not signals.ran:
        return cause
    if cause.proof is not None:
        return cause if cause.proof.gain else repeated(signals, cause)
    if cause.cause in HEAD:
        trials = signals.exchanges.head
    elif "trials" in vars(signals.interventions):
        cures = CURES.get(cause.cause, ())
        trials = {name: trial for name, trial in signals.tried.items() if name in cures}
    else:
        return cause
    best = max(trials.values(), key=attrgetter("skill"), default=None)
    if best is None or best.skill < max(signals.reached, 0.0) + bound("gap"):
        return cause
    shown = repeated(signals, replace(cause, proof=signals.proof(best)))
    return shown if shown.confidence == cause.confidence else cause


def made(signals: Signals, name: str) -> Trial | None:
    """The further run of this name, where it was made."""
    quiet = vars(signals.interventions).get("quiet")
    if name == "quiet" or "trials" not in vars(signals.interventions):
        return quiet if name == "quiet" else signals.exchanges.head.get(name)
    return signals.tried.get(name)


def repeated(signals: Signals, cause: Finding) -> Finding:
    """A cause whose proof was made again from two other seeds, and less sure where that fails."""
    proof = cause.proof
    trial = made(signals, cause.edit)
    if trial is None or proof is None:
        return cause
    pairs = signals.interventions.repeated(trial)
    if not pairs:
        return cause
    before = (signals.reached, *(own.skill for own, _ in pairs))
    after = (trial.skill, *(changed.skill for _, changed in pairs))
    first = signals.measurements.recipe.seed
    curves = [
        curve(first + further, run is changed, run.losses)
        for further, (own, changed) in zip(SEEDS, pairs, strict=True)
        for run in (own, changed)
    ]
    whole = Proof(proof.words, proof.edit, before, after, (*proof.curves, *curves))
    assert whole.gain is not None, "of three seeds there is an interval"
    gain, low, high = whole.gain
    seeds = (
        f"; from three seeds, {min(before):.2f} to {max(before):.2f} without, {min(after):.2f} to "
        f"{max(after):.2f} with it: {gain:.2f} more, 95 % interval [{low:.2f}, {high:.2f}]"
    )
    holds = sorted(after)[1] > max(signals.reached, 0.0) + bound("gap")
    confidence = cause.confidence if holds else 0.5 * cause.confidence
    return replace(cause, proof=replace(whole, words=proof.words + seeds), confidence=confidence)
