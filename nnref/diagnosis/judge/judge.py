"""From signals to findings: which checks are asked, in which order, and what is cause or symptom.

To add a cause of a run: write one function from `Signals` to findings, and give it one row in
`CHECKS`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, Literal

import jax
import numpy as np

from nnref.diagnosis.data.references import COUNTS
from nnref.diagnosis.findings import Finding, as_fault, as_note, mistake, under_their_cause
from nnref.diagnosis.judge import data_checks, run_checks, signal_checks, trial_checks
from nnref.diagnosis.judge.proofs import HEAD, proven, repeated, with_proof
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.program.at_start import SeveralOutputs
from nnref.diagnosis.program.lone_means import NORM_OF_A_ROW
from nnref.diagnosis.program.sequences import ANOTHER_ANSWER
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.proof import curve
from nnref.diagnosis.run.changes import Trial
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError

When = Literal[
    "first",  # before all others: what it finds is the whole answer
    "always",  # whether the network learned or not
    "not learned",  # of a network that does not learn as well as simple models do
    "failed",  # of one that stays far behind them
    "unexplained",  # of one that failed, where no fault of the program is certain
    "data in order",  # of such a one, where the data have no fault
    "a change",  # of such a one, once enough of its run was seen; also of one that learned half
    "seen",  # of such a one, once enough of its run was seen
    "last",  # of such a one, where nothing else was found, one after the other
    "beside",  # beside whatever was found of a network that does not learn: notes
]

# The checks of a run, in order; a check is not asked where an earlier answer makes it useless.
CHECKS: tuple[tuple[Callable[[Signals], Iterator[Finding]], When], ...] = (
    (run_checks.metric, "first"),
    (run_checks.nonfinite, "not learned"),
    (run_checks.ascent, "not learned"),
    (run_checks.growing, "not learned"),
    (run_checks.updates, "not learned"),
    (run_checks.symmetry, "always"),
    (run_checks.silent_outputs, "not learned"),
    (trial_checks.sum_too_large, "not learned"),
    (run_checks.faded, "failed"),
    (signal_checks.perfect_answer, "failed"),
    (signal_checks.place_by_place, "failed"),
    (run_checks.statistics, "unexplained"),
    (signal_checks.in_time, "unexplained"),
    (signal_checks.in_depth, "unexplained"),
    (run_checks.flattened, "unexplained"),
    (run_checks.no_signal, "data in order"),
    (trial_checks.outweighed, "a change"),
    (trial_checks.turned, "a change"),
    (trial_checks.frozen, "a change"),
    (trial_checks.data_scale, "a change"),
    (trial_checks.penalty, "a change"),
    (trial_checks.noise, "a change"),
    (trial_checks.rate, "a change"),
    (run_checks.dying, "seen"),
    (trial_checks.huge_batch, "last"),
    (trial_checks.not_over, "last"),
    (trial_checks.beyond_reach, "last"),
    (trial_checks.another_start, "last"),
    (trial_checks.head, "last"),
    (run_checks.opposite, "last"),
    (trial_checks.activation, "last"),
    (trial_checks.trusted_optimizer, "last"),
    (trial_checks.capacity, "last"),
    (trial_checks.clipping, "beside"),
    (run_checks.adrift, "beside"),
    (signal_checks.first_loss, "beside"),
)

# Causes that are none where the same data, network and loss learn all there is by another rate,
# length or start.
REFUTED = ("wrong_gradient", "class_imbalance")

ENDLESS = 1e30  # a loss that falls beyond it has no least value

STRETCHES = 40  # of a run, over which measures of its layers are averaged

# Causes that the inputs show by themselves.
SCALES = ("inputs_not_normalized", "inputs_scaled_twice")

# Causes reported as notes, but promoted to the fault where no other fault is found. (A note that is
# less sure, as of a distance between raw outputs and classes, remains one.)
PROMOTED = ("loss_axis_error", "loss_mismatch", "inputs_ignored")


def asked(signals: Signals, *when: When) -> list[Finding]:
    """The findings of the checks of these rows, in the order of the table."""
    return [f for check, row in CHECKS if row in when for f in answers(check, signals)]


def answers(check: Callable[[Signals], Iterator[Finding]], signals: Signals) -> list[Finding]:
    """What a check finds; where it raises, the answer goes on without it and says so."""
    try:
        return list(check(signals))
    except SeveralOutputs:
        return []  # a check that wants one array of outputs and one of targets finds nothing here
    except (UserError, jax.errors.UnexpectedTracerError):
        raise
    except Exception as error:
        signals.mistakes.append(f"{check.__name__}: {mistake(error)}")
        return []


def decide(signals: Signals, structural: Iterable[Finding]) -> list[Finding]:
    """All findings: faults only where the network did not learn, the most upstream first.

    Args:
        signals: of the data, the program and the run.
        structural: findings of the checks of the program.
    """
    structural = [finding for finding in structural if not needs_no_order(signals, finding)]
    data = answers(on_data, signals)
    wrong, known = faults_and_notes(data)
    if any(finding.cause == "nonfinite_data" for finding in data):
        # Of rows that hold NaN, and are asked for all the same, neither score nor model is known.
        return [*under_their_cause(wrong or map(as_note, structural)), *known]
    if signals.learned and wrong:
        known += trial_checks.generalization(signals)
        faults = [*wrong, *filter(fault_even_if_it_learns, structural)]
        return [*under_their_cause(faults), *known, *map(as_note, structural)]
    findings = of_the_run(signals, structural, wrong)
    findings = [with_proof(signals, finding) for finding in findings]
    if signals.learned:
        return [*findings, *known, *trial_checks.generalization(signals)]
    beside = asked(signals, "beside")
    if any(finding.where == "clipping" for finding in findings):
        beside = [finding for finding in beside if finding.where != "clipping"]
    return [*findings, *known, *beside]


def needs_no_order(signals: Signals, finding: Finding) -> bool:
    """Whether a finding asks for an order of steps where the best simple model knows of none."""
    if (finding.cause, finding.healthy) != ("inputs_ignored", ANOTHER_ANSWER):
        return False
    name, skill = signals.measurements.reference.best
    return name == COUNTS and skill > bound("signal")


def on_data(signals: Signals) -> Iterator[Finding]:
    """What the data show before any network."""
    return data_checks.check(signals.measurements)


def of_the_run(signals: Signals, structural: list[Finding], wrong: list[Finding]) -> list[Finding]:
    """What program and run show, beside the faults of the data."""
    mistaken = asked(signals, "first")
    if mistaken:
        return [*mistaken, *map(as_note, structural)]
    if signals.learned:
        stays = [f for f in structural if fault_even_if_it_learns(f) or leaves_room(signals, f)]
        faults = [*asked(signals, "always"), *stays] or beyond_simple_models(signals)
        rest = [as_note(f) for f in structural if f not in stays]
        return [*under_their_cause(faults), *rest]
    program, notes = faults_and_notes(in_this_run(signals, finding) for finding in structural)
    certain = asked(signals, "always", "not learned")
    certain += asked(signals, "failed") if signals.failed else []
    if signals.hardly_begun:
        # A run of so few steps has shown nothing: what cannot work at all is all there is.
        hard = [finding for finding in program if finding.confidence >= bound("hard")]
        soft = [as_note(finding) for finding in program + wrong if finding not in hard]
        return [*under_their_cause(hard + certain), *soft, *notes]
    faults = wrong + program + certain
    if signals.failed:
        faults, notes = of_a_failed_run(signals, faults, program, wrong, notes)
        return [*by_effect(signals, proven(signals, faults)), *notes]
    if not faults and signals.known and signals.measurements.run.complete:
        changes = asked(signals, "a change") or answers(trial_checks.another_start, signals)
        helps = by_effect(signals, changes)
        return [*(f if plain(signals, f) else as_note(f) for f in helps), *notes]
    return [*under_their_cause(faults), *notes]


def beyond_simple_models(signals: Signals) -> list[Finding]:
    """What brings a run much farther that left simple models behind, on validation rows as well.

    Where these know next to nothing, as of numbers of users and films, they are no measure of what
    can be learned, and the network's own further runs are the only one.
    """
    validated = signals.measurements.validated
    if validated is None or not signals.unmeasured:
        return []
    gains = {
        name
        for name, trial in signals.trials.items()
        if trial.valid is not None and trial.valid - validated.skill > bound("plain gain")
    }
    return by_effect(signals, [f for f in asked(signals, "a change") if f.edit in gains])


def plain(signals: Signals, finding: Finding) -> bool:
    """Whether a change is the cause even of a run that learned a good part: it brings the rest.

    What helps such a run less, as a rate that suits it better, is worth knowing, and no fault. For
    the scale of the inputs half of that is enough: there the inputs speak for it as well.
    """
    gain = (finding.effect or 0.0) - max(signals.reached, 0.0)
    needed = bound("plain gain") / (2 if finding.cause in SCALES else 1)
    return gain > needed and finding.confidence > bound("soft")


def of_a_failed_run(
    signals: Signals,
    faults: list[Finding],
    program: list[Finding],
    wrong: list[Finding],
    notes: list[Finding],
) -> tuple[list[Finding], list[Finding]]:
    """All faults of a run that failed, and the notes that are none of them."""
    if any(finding.confidence >= bound("hard") for finding in program):
        # What cannot work needs no further runs, but for what may be no cause beside it.
        rare = [f for f in wrong if f.cause == "class_imbalance"]
        if rare and any(f.cause in HEAD for f in program) and signals.head_cures:
            faults, notes = [f for f in faults if f not in rare], [*map(as_note, rare), *notes]
        return faults, notes
    refuted = [f for f in faults if f.cause in REFUTED and signals.program_learns]
    notes = [*map(as_note, refuted), *notes]
    faults, wrong = ([f for f in each if f not in refuted] for each in (faults, wrong))
    faults = faults + asked(signals, "unexplained")
    # Class imbalance, for one, already explains why there is no signal.
    faults += [] if wrong else asked(signals, "data in order")
    seen = signals.measurements.run.complete or not signals.still_falls or signals.stands
    if not signals.finite or not seen:
        return faults, notes
    faults += asked(signals, "a change", "seen")
    if faults:
        return faults, notes
    promoted = [
        note for note in notes if note.cause in PROMOTED and note.confidence >= bound("promoted")
    ]
    rest = [note for note in notes if note not in promoted]
    return list(map(as_fault, promoted)) or last(signals), rest


def last(signals: Signals) -> list[Finding]:
    """What is asked where nothing else was found: the first answer is enough, as each trains anew.

    What no change was tried on, of that none is known not to help: then only the clip is named.
    """
    if not signals.tried:
        return list(map(as_fault, trial_checks.clipping(signals)))
    for check, row in CHECKS:
        findings = answers(check, signals) if row == "last" else []
        if findings:
            return findings
    _ = signals.exchanges.everything  # no cause, but it says whether to look at the layers
    return []


def by_effect(signals: Signals, faults: list[Finding]) -> list[Finding]:
    """Faults whose proof reaches as far as the best one does, and those that need none.

    The others are what also helps, but less: they follow as symptoms of it.
    """
    best = max((f.effect for f in faults if f.effect is not None), default=0.0)
    lesser = [f for f in faults if f.effect is not None and f.effect < best - bound("tie")]
    first = [f for f in faults if f not in lesser]
    if not first:
        return []
    (cause,) = under_their_cause(first)
    others = [f for f in lesser if f.cause != cause.cause]
    return [repeated(signals, replace(cause, symptoms=(*cause.symptoms, *others)[:3]))]


def faults_and_notes(findings: Iterable[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Faults and notes, each in their order."""
    findings = list(findings)
    faults = [finding for finding in findings if finding.severity == "fault"]
    return faults, [finding for finding in findings if finding.severity == "note"]


def in_this_run(signals: Signals, finding: Finding) -> Finding:
    """A finding of the program, as severe as this run shows it to be.

    A missing nonlinearity is a fault only if nonlinear reference models beat the linear one.
    Outputs that may be negative under a logarithm are a fault where numbers were not finite.
    """
    if finding.cause == "hidden_activation_missing":
        skills = signals.measurements.reference.skills
        bent = max((skill for name, skill in skills.items() if name != "linear"), default=1.0)
        needed = bent > skills.get("linear", 0.0) + bound("gap")
        return finding if needed else as_note(finding)
    if finding.cause == "output_activation_missing" and not signals.finite:
        return as_fault(finding)
    return finding


def fault_even_if_it_learns(finding: Finding) -> bool:
    """Whether it is a mistake even where the network learns: a layer never used, a leak.

    So are rows whose outputs no loss looks at: the loss of the others falls without them; and raw
    outputs where shares are asked for: the loss falls below that of a perfect answer; and answers
    that change with the numbers of nodes which come in any order, or rows that are divided by the
    norm of all.
    """
    causes = (
        "leaked_targets",
        "output_activation_missing",
        "parameters_not_updated",
        "rows_dropped",
        "softmax_on_single_unit",
    )
    sure = finding.severity == "fault" and finding.confidence >= bound("hard")
    in_any_order = finding.cause == "inputs_misread" and finding.confidence > bound("hard")
    return sure and (finding.cause in causes or in_any_order or finding.healthy == NORM_OF_A_ROW)


def leaves_room(signals: Signals, finding: Finding) -> bool:
    """Whether rows that are mixed, or indices outside of their table, may hold a network back.

    They may where it learns no worse than simple models, which know nothing of what is mixed, and
    is far from right all the same.
    """
    sure = finding.severity == "fault" and finding.confidence >= bound("hard")
    outcomes = (signals.measurements.trained, signals.measurements.validated)
    least = min(outcome.skill for outcome in outcomes if outcome is not None)
    far = signals.measurements.skill.fits and least < bound("failed")
    return sure and far and finding.cause in ("loss_axis_error", "inputs_ignored")


def learned(signals: Signals) -> bool | None:
    """Whether the network learns as well as simple models and its own trials do.

    None where the data need no training, too little of the run was seen, or targets move along.
    """
    if not signals.ran or signals.hardly_begun:
        return None
    if signals.finite and signals.moving_target and not signals.runs_away:
        return None
    if signals.learned:
        return True
    if signals.known or not signals.finite or signals.collapsed:
        return False
    if not signals.measurements.skill.fits:
        # How far a loss can fall is not known: it learns if it falls, and with no change far more.
        best = bound("failed") * signals.best_trial
        return signals.reached > max(bound("of the constant"), best)
    # Simple models find nothing: then a network learns that no change of it does better than.
    return signals.reached > max(bound("signal"), bound("learned") * signals.best_trial)


def impossible(signals: Signals) -> Iterator[str]:
    """What could not be looked at, and what it would take."""
    measured = signals.measurements
    if not measured.layers:
        yield "layers: no product with a parameter was found in the traced program"
    if measured.recipe.valid is None:
        yield "validation, leaks and memory: give valid=(x, y)"
    if measured.skill.metric.refused:
        yield f"your metric: {measured.skill.metric.refused}"
    if vars(signals.interventions).get("trials") == {}:
        yield "changes of rate, length, scale, start: no work was left for them; give more effort"
    if signals.ran and signals.finite and not measured.run.complete:
        taken, planned = len(signals.steps.loss), measured.run.planned
        yield f"the whole run: {taken} of {planned} steps were taken; give more effort"


def all_trials(signals: Signals) -> list[Trial]:
    """Every further run that was made."""
    of_run = vars(signals.interventions)
    exchanged = vars(signals.exchanges) if "exchanges" in vars(signals) else {}
    names = (
        "head",
        "opposite",
        "padding",
        "activation",
        "batch",
        "optimizer",
        "everything",
        "width",
    )
    trials = [of_run.get("trials", {}), *(exchanged.get(name, {}) for name in names)]
    quiet = [of_run["quiet"]] if of_run.get("quiet") else []
    return [*(trial for each in trials for trial in each.values()), *quiet]


def measures(signals: Signals) -> dict[str, Any]:
    """The figures that the verdict rests on."""
    measured, tried = signals.measurements, vars(signals.interventions)
    if not signals.ran:
        return {}
    validated = measured.validated
    constant = vars(measured.skill).get("constant_loss")
    if constant is not None and abs(constant) > ENDLESS:
        constant = None
    return {
        "skill on training rows": signals.reached,
        "skill on validation rows": None if validated is None else validated.skill,
        "skill of simple models": dict(measured.reference.skills),
        "skill of simple models on shuffled targets": vars(measured).get("shuffled"),
        "skill on one batch by its rows": tried.get("overfit_one_batch", {}),
        "share of clipped steps": measured.clipped,
        "steps": len(signals.steps.loss),
        "loss of the best constant answer": constant,
        "first loss": float(signals.steps.loss[0]),
        "last loss": float(signals.steps.loss[-1]),
        "trials": {trial.name: trial.skill for trial in all_trials(signals)},
        "losses": asdict(curve(measured.recipe.seed, False, measured.run.losses)),
        "layers": over_the_run(signals),
    }


def over_the_run(signals: Signals) -> dict[str, Any]:
    """Gradient and update of each kernel, in the order of the data, over stretches of the run."""
    measured, steps = signals.measurements, signals.steps
    leaves = jax.tree.leaves_with_path(measured.initial[0])
    kernels = [(place, name_of(path)) for place, (path, leaf) in enumerate(leaves) if leaf.ndim > 1]
    met = [name for layer in measured.layers for name in layer.parameters]
    rank = {name: number for number, name in reversed([*enumerate(met)])}
    order = sorted(range(len(kernels)), key=lambda k: rank.get(kernels[k][1], len(met)))
    stretches = np.array_split(np.arange(len(steps.loss)), min(len(steps.loss), STRETCHES))
    gradient = steps.gradient[:, [kernels[k][0] for k in order]]

    def mean(values: np.ndarray) -> list[list[float]]:
        means = [values[stretch].mean(0) for stretch in stretches]
        return [[float(f"{value:.3g}") for value in row] for row in means]

    return {
        "names": [kernels[k][1] for k in order],
        "steps": [int(stretch[-1]) + 1 for stretch in stretches],
        "gradient": mean(gradient),
        "update": mean(signals.update_ratios[:, order]),
    }
