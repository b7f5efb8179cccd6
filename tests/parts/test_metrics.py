"""Metrics: those of scikit-learn, whatever the size of the batches and of the last one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as oracle

from nnref.errors import UserError
from nnref.parts.metrics import METRICS, METRICS_OF, add_up, lower_is_better
from nnref.parts.target_kinds import TARGETS

pytestmark = pytest.mark.usefixtures("strict_ranks")

rng = np.random.default_rng(0)
ROWS = 50
LABELS = rng.choice(5, ROWS, p=[0.6, 0.2, 0.1, 0.1, 0.0])  # the last class never occurs
LOGITS = (rng.normal(0, 1, (ROWS, 5)) + 2 * np.eye(5)[LABELS]).astype(np.float32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True, dtype=np.float64)
GUESSES = LOGITS.argmax(1)
YES = rng.integers(0, 2, ROWS)
SCORES = (rng.normal(0, 1, (ROWS, 1)) + YES[:, None] - 0.3).astype(np.float32)
VALUES = rng.normal(2.0, 1.0, (ROWS, 3)).astype(np.float32)
PREDICTED = (VALUES + rng.normal(0, 0.5, (ROWS, 3))).astype(np.float32)

sizes = pytest.mark.parametrize("size", [1, 7, ROWS])


def figures(metrics, outputs, targets, size):
    """As the trainer does: sums of batches, the last one shorter, stacked and put together."""

    @jax.jit
    def count(outputs, targets):
        return {name: metric.count(outputs, targets) for name, metric in metrics.items()}

    @jax.jit
    def value(sums):
        return {name: metric.value(metric.total(sums[name])) for name, metric in metrics.items()}

    starts = range(0, len(outputs), size)
    sums = [count(outputs[i : i + size], targets[i : i + size]) for i in starts]
    return value(jax.tree.map(lambda *leaves: np.stack(leaves), *sums))


def figure(metric, outputs, targets, size=16):
    return np.asarray(figures({"": metric}, outputs, targets, size)[""])


def of(loss, name, classes, **arguments):
    kind = TARGETS[loss]
    answer = kind.decide if classes else kind.predict
    return METRICS[name](answer, classes, kind.log_probabilities, **arguments)


def top(k):
    return oracle.top_k_accuracy_score(LABELS, LOGITS, k=k, labels=range(5))


def surprise(p):
    return -np.log(p[np.arange(ROWS), LABELS]).mean()


SEEN = range(4)  # scikit-learn warns about the class that never occurs
CLASSES = {
    "accuracy": ({}, oracle.accuracy_score(LABELS, GUESSES)),
    "balanced_accuracy": ({}, np.mean([(k == GUESSES[k == LABELS]).mean() for k in SEEN])),
    "confusion_matrix": ({}, oracle.confusion_matrix(LABELS, GUESSES, labels=range(5))),
    "top_k, 1": ({"k": 1}, top(1)),
    "top_k, 2": ({"k": 2}, top(2)),
    "top_k, 4": ({"k": 4}, top(4)),
    "perplexity": ({}, np.exp(surprise(P))),
    "bits_per_character": ({}, surprise(P) / np.log(2)),
}


def test_every_metric_is_tested_and_those_recorded_exist():
    tested = {name.split(",")[0] for name in CLASSES} | {"r2", "mean_absolute_error"}
    assert tested == set(METRICS)
    assert {name for names in METRICS_OF.values() for name in names} <= set(METRICS)


MADE = {
    name: of("softmax_cross_entropy", name.split(",")[0], 5, **arguments)
    for name, (arguments, _) in CLASSES.items()
}


@sizes
def test_metrics_of_classes_are_exact_at_any_batch_size(size):
    for name, got in figures(MADE, LOGITS, LABELS, size).items():
        np.testing.assert_allclose(got, CLASSES[name][1], rtol=1e-6, err_msg=name)


def test_one_hot_targets_are_their_classes():
    rows = np.eye(5, dtype=np.float32)[LABELS]
    for name, got in figures(MADE, LOGITS, rows, 16).items():
        np.testing.assert_allclose(got, CLASSES[name][1], rtol=1e-6, err_msg=name)


def test_a_sequence_counts_as_its_steps():
    series = figures(MADE, LOGITS.reshape(10, 5, 5), LABELS.reshape(10, 5), 3)
    for name, got in series.items():
        np.testing.assert_allclose(got, CLASSES[name][1], rtol=1e-6, err_msg=name)


def test_two_classes_told_apart_by_one_output():
    guesses = SCORES[:, 0] > 0
    nats = oracle.log_loss(YES, 1 / (1 + np.exp(-SCORES[:, 0].astype(float))))
    expected = {
        "accuracy": oracle.accuracy_score(YES, guesses),
        "top_k": oracle.accuracy_score(YES, guesses),
        "balanced_accuracy": oracle.balanced_accuracy_score(YES, guesses),
        "confusion_matrix": oracle.confusion_matrix(YES, guesses),
        "perplexity": np.exp(nats),
    }
    for loss in ("sigmoid_cross_entropy", "hinge"):  # targets 0 and 1, and -1 and 1
        targets, _ = TARGETS[loss].encode(YES, 2)
        measured = {n for n in expected if loss != "hinge" or n != "perplexity"}
        metrics = {n: of(loss, n, 2, **({"k": 1} if n == "top_k" else {})) for n in measured}
        for name, got in figures(metrics, SCORES, targets, 7).items():
            np.testing.assert_allclose(got, expected[name], rtol=1e-6, err_msg=name)


def test_of_equal_outputs_the_first_counts_as_larger():
    z, labels = np.zeros((6, 3), np.float32), np.array([0, 1, 2, 0, 1, 1])
    for name, expected in (("accuracy", 2 / 6), ("top_k", 5 / 6)):
        arguments = {"k": 2} if name == "top_k" else {}
        metric = of("softmax_cross_entropy", name, 3, **arguments)
        np.testing.assert_allclose(figure(metric, z, labels), expected, rtol=1e-6)


def test_an_output_that_is_no_number_is_no_right_guess():
    z = np.array([[np.nan, 1, 0], [0, 1, np.nan], [0, 1, np.nan]], np.float32)
    metric = of("softmax_cross_entropy", "top_k", 3, k=2)
    assert figure(metric, z, np.array([0, 1, 0])) == np.float32(1 / 3)


def test_counts_go_on_beyond_what_float32_counts():
    metric = of("softmax_cross_entropy", "accuracy", 5)
    sums = metric.count(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf * 0 + 2**24, leaf * 0 + 1]), sums)
    assert [int(total) for total in metric.total(batches)] == [2**24 + 1] * 2


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "mean"), [(1, 1e3), (7, 0.0), (7, -1e6), (ROWS, 1e6)])
def test_r2_is_exact_at_any_batch_size_and_mean(size, mean):
    targets = (VALUES * [1, 3, 0.2] + mean).astype(np.float32)
    outputs = targets + (PREDICTED - VALUES)
    exact = (
        1
        - ((targets.astype(float) - outputs) ** 2).sum()
        / ((targets - targets.mean(0, dtype=float)) ** 2).sum()
    )
    metric = of("squared_error", "r2", 0)
    np.testing.assert_allclose(figure(metric, outputs, targets, size), exact, rtol=2e-6)


def test_r2_is_that_of_scikit_learn_for_one_column():
    metric = of("huber", "r2", 0)
    expected = oracle.r2_score(VALUES[:, 0], PREDICTED[:, 0])
    got = figure(metric, PREDICTED[:, :1], VALUES[:, :1])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_r2_of_epochs_put_together_in_two_steps_is_the_same():
    metric = of("squared_error", "r2", 0)
    count = jax.jit(metric.count)

    @jax.jit
    def together(*counts):
        return metric.total(jax.tree.map(lambda *leaves: jnp.stack(leaves), *counts))

    first, *others = (count(PREDICTED[i : i + 10], VALUES[i : i + 10]) for i in range(0, ROWS, 10))
    in_steps = metric.value(together(together(first), together(*others)))
    np.testing.assert_allclose(in_steps, metric.value(together(first, *others)), rtol=1e-6)


def test_r2_of_targets_that_do_not_vary_is_no_number():
    same = np.full((9, 1), 0.1, np.float32)
    assert np.isnan(figure(of("squared_error", "r2", 0), same + 1, same))


@sizes
def test_mean_absolute_error_is_exact_at_any_batch_size(size):
    metric = of("squared_error", "mean_absolute_error", 0)
    expected = oracle.mean_absolute_error(VALUES, PREDICTED)
    np.testing.assert_allclose(figure(metric, PREDICTED, VALUES, size), expected, rtol=1e-6)


def test_values_are_predicted_as_the_loss_reads_its_outputs():
    scores = {"r2": oracle.r2_score, "mean_absolute_error": oracle.mean_absolute_error}
    made = {name: of("poisson", name, 0) for name in scores}
    got = figures(made, PREDICTED.reshape(-1, 1), VALUES.reshape(-1, 1), 40)
    for name, score in scores.items():
        expected = score(VALUES.ravel(), np.exp(PREDICTED).ravel())
        np.testing.assert_allclose(got[name], expected, rtol=2e-6)  # exp in float32


# --- what a metric says of itself ---------------------------------------------------------------


def test_what_is_better_and_what_is_no_scalar():
    made = {name: of("softmax_cross_entropy", name, 9) for name in METRICS}
    smaller = {name for name, metric in made.items() if not metric.larger_is_better}
    assert smaller == {"perplexity", "bits_per_character", "mean_absolute_error"}
    assert {name for name, metric in made.items() if not metric.scalar} == {"confusion_matrix"}


def test_a_metric_says_itself_which_of_two_values_is_better():
    """Whatever the end of its name; only the loss is known by its name."""
    made = {name: of("softmax_cross_entropy", name, 9) for name in ("accuracy", "perplexity")}
    made["brier_score"] = made["perplexity"]
    made["share_without_error"] = made["accuracy"]
    lower = {name for name in made if lower_is_better(f"valid_{name}", made)}
    assert lower == {"perplexity", "brier_score"}
    assert lower_is_better("valid_loss", made)
    assert lower_is_better("train_loss", {})
    assert not lower_is_better("clipped", made)


def test_add_up_sums_every_leaf_over_the_batches():
    total = add_up({"a": jnp.ones((3, 2)), "b": jnp.arange(3)})
    np.testing.assert_array_equal(total["a"], [3, 3])
    assert total["b"] == 3


@pytest.mark.parametrize(
    ("loss", "name", "classes", "text"),
    [
        (
            "squared_error",
            "balanced_accuracy",
            0,
            "balanced_accuracy: tells classes apart, the targets are real values; use r2",
        ),
        (
            "squared_error",
            "confusion_matrix",
            0,
            "confusion_matrix: tells classes apart, the targets are real values; use r2",
        ),
        (
            "squared_error",
            "top_k",
            0,
            "top_k: tells classes apart, the targets are real values; use r2",
        ),
        (
            "squared_error",
            "perplexity",
            0,
            "perplexity: tells classes apart, the targets are real values; use r2",
        ),
        (
            "hinge",
            "bits_per_character",
            2,
            "bits_per_character: this loss gives classes no probabilities; use "
            "softmax_cross_entropy or sigmoid_cross_entropy",
        ),
        (
            "softmax_cross_entropy",
            "top_k",
            5,
            "top_k: the first 5 of 5 classes are all of them; k must be below 5",
        ),
    ],
)
def test_a_metric_refuses_what_it_cannot_measure(loss, name, classes, text):
    with pytest.raises(UserError) as error:
        of(loss, name, classes)
    assert str(error.value) == text
