"""What a diagnosis says: findings, upstream causes first, each symptom under its cause."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

# The vocabulary, upstream first: a cause stands before what it may bring about.
CAUSES = {
    "broken_program": "the program stops with an exception",
    "nonfinite_data": "the data hold NaN or infinity",
    "corrupted_labels": "labels do not belong to the rows, or were destroyed",
    "no_signal": "the inputs say nothing about the targets",
    "unshuffled_split": "training and validation hold different classes",
    "class_imbalance": "rare classes drown in the frequent ones",
    "metric_mismatch": "the metric is wrong, the training is not",
    "loss_broadcast": "outputs and targets of unequal shapes fill a matrix in the loss",
    "loss_axis_error": "softmax or sum over the wrong axis",
    "softmax_on_single_unit": "softmax over one unit is the constant 1",
    "output_width_mismatch": "the number of outputs does not fit the targets",
    "double_softmax": "softmax before a loss that applies it again",
    "output_activation_missing": "the loss expects probabilities and gets raw values",
    "relu_output": "ReLU on the output",
    "output_range_excludes_targets": "a bounded output cannot reach the targets",
    "output_activation_mismatch": "the output activation does not fit the targets or the loss",
    "loss_mismatch": "the loss does not measure the task",
    "numerical_instability": "a logarithm, root or division at the edge of its domain",
    "gradient_ascent": "the updates climb",
    "parameters_not_updated": "parameters get no gradient, or their updates are thrown away",
    "batch_statistics_not_updated": "the running statistics stay at their start",
    "constant_initialization": "units start identical and stay so",
    "inputs_scaled_twice": "the inputs were normalized again",
    "inputs_not_normalized": "the inputs are far from unit scale",
    "targets_not_scaled": "the targets are of a huge scale",
    "hidden_activation_missing": "layers without a nonlinearity between them",
    "hidden_activation_mismatch": "an unsuitable hidden activation",
    "initialization_too_large": "the first outputs are enormous",
    "initialization_too_small": "the signal dies on its way to the output",
    "exploding_gradients": "the signal grows in depth",
    "vanishing_gradients": "the gradient dies on its way to the input",
    "excessive_regularization": "the penalty outweighs the data",
    "excessive_dropout": "dropout leaves no signal",
    "loss_summed_over_batch": "a sum where a mean is meant",
    "learning_rate_too_high": "steps overshoot",
    "dying_relu": "units that no row activates",
    "insufficient_capacity": "the network is too small",
    "learning_rate_too_low": "steps are too small for the run",
    "undertrained": "the run is too short",
    "overfitting": "good on the training rows, poor on others",
}
RANK = {cause: rank for rank, cause in enumerate(CAUSES)}


class Threshold(NamedTuple):
    """A bound of a check, and where it comes from."""

    value: float
    why: str


# Every bound of every check: a source, a law, or the calibration that set it.
THRESHOLDS: dict[str, Threshold] = {}


def bound(name: str) -> float:
    """The value of a threshold."""
    return THRESHOLDS[name].value


@dataclass(frozen=True)
class Finding:
    """One thing found: its cause, where, how it was measured, and what to type.

    `severity` is "fault" (it keeps the network from learning) or "note" (worth knowing).
    `confidence` in [0, 1] says how sure the check is that this is the cause. `proof` is what an
    intervention showed, once there was one.
    """

    cause: str
    severity: Literal["fault", "note"]
    where: str
    evidence: str
    measured: str = ""
    healthy: str = ""
    remedy: str = ""
    confidence: float = 1.0
    symptoms: tuple["Finding", ...] = ()
    proof: str | None = None

    def __post_init__(self) -> None:
        if self.cause not in CAUSES:
            raise ValueError(f"{self.cause!r} is no word of the vocabulary")


@dataclass(frozen=True)
class Findings:
    """All that a diagnosis says: faults and notes, what was checked, what could not be."""

    found: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    measures: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Any:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Finding:
        return self.found[index]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that keep the network from learning, the most upstream first."""
        return tuple(finding for finding in self.found if finding.severity == "fault")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings that do not."""
        return tuple(finding for finding in self.found if finding.severity == "note")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def upstream(findings: Iterable[Finding]) -> list[Finding]:
    """Faults before notes, causes before what they bring about, surer ones first among equals."""
    return sorted(findings, key=lambda f: (f.severity != "fault", RANK[f.cause], -f.confidence))
