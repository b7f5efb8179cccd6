"""The vocabulary of a diagnosis: its causes, their order, and every threshold."""

from typing import NamedTuple

# The vocabulary, upstream first: a cause stands before what it may bring about.
CAUSES = {
    "broken_program": "the program stops with an exception",
    "nonfinite_data": "the data hold NaN or infinity",
    "corrupted_labels": "labels do not belong to the rows, or were destroyed",
    "leaked_targets": "the inputs give the targets away",
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
    "wrong_gradient": "the gradient is not the slope of the loss",
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
    "repeated_rows": "rows stand more than once, or in more than one split",
    "overfitting": "good on the training rows, poor on others",
}
RANK = {cause: rank for rank, cause in enumerate(CAUSES)}


class Threshold(NamedTuple):
    """A bound of a check, and where it comes from."""

    value: float
    why: str


# Every bound of every check: a source, a law, or the calibration that set it. Skill is the share of
# the way from the best constant answer (0) to a perfect one (1).
THRESHOLDS: dict[str, Threshold] = {
    "signal": Threshold(
        0.1,
        "skill of a reference that shows a signal; three folds of 300 rows give "
        "a constant's skill within 0.06 on shuffled labels",
    ),
    "learned": Threshold(
        0.93, "share of a reference's skill: what noise in three folds leaves open"
    ),
    "failed": Threshold(
        0.67,
        "share of a reference's skill below which a run has not learned; "
        "healthy runs of our calibration end above 0.7",
    ),
    "collapse": Threshold(
        0.3, "validation skill over the reference's: less is memory, not learning"
    ),
    "cure": Threshold(0.5, "share of the gap to the best result that one change must close"),
    "gap": Threshold(0.1, "of skill: smaller gains are noise of one seed"),
    "growth": Threshold(10.0, "factor by which a diverging loss or weight outgrows its best"),
    "overshoot": Threshold(
        3.0, "loss over the first loss: a descent that climbs this far overshoots"
    ),
    "large step": Threshold(
        0.01,
        "length of an update over that of the weights: ten times the 1e-3 "
        "of a healthy run (Karpathy, CS231n notes, part 3)",
    ),
    "leap": Threshold(
        0.1,
        "the same, of the step before the first non-finite number: a hundred times a healthy one",
    ),
    "slow step": Threshold(1e-4, "the same, below: a tenth of a healthy run's"),
    "faded": Threshold(1e-4, "of the longest update: a cosine is there a hundredth before its end"),
    "travel": Threshold(
        0.05, "lengths of the weights that a whole run covers: what learns here covers 0.3 or more"
    ),
    "ascent": Threshold(0.1, "cosine of update and gradient: descent with any momentum is below 0"),
    "tiny inputs": Threshold(
        0.05,
        "largest mean and deviation of a column: first-layer signals "
        "twenty times below those that initializers assume",
    ),
    "huge inputs": Threshold(
        10.0,
        "the same, above: ten times what initializers assume; centimetres "
        "and counts below 10 train unscaled",
    ),
    "huge signal": Threshold(
        1e4, "root mean square of a layer's outputs: He starts give 1, squares overflow at 1e19"
    ),
    "exploding": Threshold(
        100.0,
        "first over last layer's gradient, or last over first signal, or an early over a late "
        "step's gradient; batch normalization gains 1.2 a layer (Yang 2019)",
    ),
    "decayed": Threshold(0.1, "share of the weights that decay alone takes in a run: less is mild"),
    "forgotten": Threshold(1e-2, "gradient of the first quarter of a sequence over the largest"),
    "vanishing": Threshold(
        0.03,
        "first over last layer's gradient: a logistic layer passes at most "
        "1/4, so three of them 1/64",
    ),
    "weak kernel": Threshold(
        0.71,
        "kernel deviation times sqrt(fan-in): half of the sqrt(2) of He et al. 2015",
    ),
    "falls": Threshold(0.02, "fall of the loss in the last fifth over that of the run before it"),
    "dying signal": Threshold(
        0.1, "last hidden over first hidden signal: a unit with a bias drowns it"
    ),
    "noise": Threshold(
        0.8,
        "share of the outputs' variance that dropout draws: rates of 0.5 in two layers give 0.5",
    ),
    "few steps": Threshold(20, "steps: what Adam at 1e-3 cannot move a weight by 0.02 in"),
    "hard": Threshold(0.9, "confidence of a program that cannot learn, whatever the rest is"),
    "soft": Threshold(0.6, "confidence of an output that one can learn with, slowly"),
    "tie": Threshold(0.05, "of skill: two runs that are equally good"),
    "strong kernel": Threshold(4.0, "the same: above, a layer multiplies the signal by 4 or more"),
    "dead": Threshold(
        1.0, "share of units that no row activates: one living unit lets signals pass"
    ),
    "summed rows": Threshold(8, "rows of a batch: with fewer, a sum hardly differs from a mean"),
    "lookup": Threshold(0.9, "skill of a table of the training rows: below, labels contradict"),
    "imbalance": Threshold(10.0, "most frequent over rarest class; ten digits by chance reach 1.3"),
    "leak": Threshold(0.02, "share of validation rows that are training rows"),
    "copies": Threshold(0.5, "share of different rows: tables of a few values repeat some"),
    "shift by one": Threshold(
        0.95, "of the targets that are the next inputs: all but the ends of a language model's"
    ),
    "unseen": Threshold(0.05, "share of validation rows whose class is not in training"),
    "histograms": Threshold(
        0.4, "share of rows that would have to change class between the splits"
    ),
    "sorted": Threshold(0.2, "changes of class from row to row, over what chance gives"),
    "out of range": Threshold(
        0.01, "share of the targets' variance that outputs cannot reach: less is rounding"
    ),
    "narrow": Threshold(
        4.0, "range of a bounded logit: e**4 to 1 is the most that two classes can differ"
    ),
    "told apart": Threshold(
        0.3, "share of the targets' range with one best answer: healthy losses have 0"
    ),
    "target weights": Threshold(
        1e4, "gradient of zeros over that of ones: class weights stay far below"
    ),
    "curved": Threshold(
        0.3,
        "of the variance, by which a curved fit beats an affine one: linear classifiers of "
        "healthy digits lose 0.16",
    ),
    "mates": Threshold(1e-3, "of the largest output: more than rounding in another order"),
    "slope": Threshold(
        0.05, "of the larger of two: central differences in double precision agree to 1e-6"
    ),
    "fractions": Threshold(
        0.01, "of the variance: integers that are kept as floating point lose none when cast"
    ),
    "curvature": Threshold(2.0, "rate times curvature: gradient descent on a parabola diverges"),
    "still falling": Threshold(
        0.15, "of the fall of a loss, from its eighth to its last tenth: an even fall has 0.22"
    ),
    "fallen": Threshold(0.1, "of the first loss: a smaller fall is no learning"),
    "turns": Threshold(0.9, "share of steps after which a loss turns; noise turns at 2/3 of them"),
    "turned": Threshold(1.2, "last over best validation loss"),
    "clipped": Threshold(0.9, "share of steps: a clip is meant for spikes"),
    "first loss": Threshold(
        10.0, "over the loss of a constant answer: an order of magnitude, not calibrated; a note"
    ),
    "rows for no signal": Threshold(100, "rows: with fewer, held-out skill is noise"),
}


def bound(name: str) -> float:
    """The value of a threshold."""
    return THRESHOLDS[name].value
