"""A trained network looked at: its layers, its answers, its mistakes."""

import numpy as np
import pytest
from logbooks import EXPERIMENT
from subjects import untrained

from nnref.experiment.experiment import Experiment
from nnref.report.page import inspection
from nnref.studies import run as runs
from nnref.training import train
from nnref.training.setup import bind


def test_answers_are_those_that_the_page_has_in_its_last_line(trained_digits):
    subject, net = trained_digits
    answers = inspection.answers_of(net)
    wrong, worst = inspection.worst_mistakes(net, answers)
    last = {name: values[0, -1] for name, values in subject.history.items()}
    assert np.mean(answers.losses) == pytest.approx(last["valid_loss"], rel=1e-5)
    assert 1 - wrong / answers.rows == pytest.approx(last["valid_accuracy"], rel=1e-6)
    counts = inspection.confusion(net, answers)
    assert counts.sum() - np.trace(counts) == wrong > 12
    assert list(counts.sum(axis=1)) == list(np.bincount(net.dataset.splits["valid"].y))
    losses = [answers.losses[mistake.row] for mistake in worst]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == max(answers.losses)
    for mistake in worst:
        assert mistake.label == str(net.dataset.splits["valid"].y[mistake.row]) != mistake.answer
        assert mistake.probability is not None
        assert mistake.probability > 0.1, "of ten classes the largest"


def test_mistakes_are_shown_as_the_pixels_were(trained_digits):
    _, net = trained_digits
    _, worst = inspection.worst_mistakes(net, inspection.answers_of(net))
    images = inspection.as_images(net, worst)
    assert images is not None
    raw = Experiment(**EXPERIMENT | {"data": {"name": "digits", "standardized": False}})
    ink = bind(raw, "data", {})().valid.x
    for mistake, image in zip(worst, images, strict=True):
        expected = ink[mistake.row].reshape(8, 8) * 255 / 16
        np.testing.assert_allclose(image, expected, atol=1)


def test_layers_start_as_the_seed_says_and_end_as_trained(trained_digits):
    _, net = trained_digits
    hidden, output = inspection.layers_of(net)
    assert (hidden.name, output.name) == ("layers.0", "layers.1")
    np.testing.assert_array_equal(
        hidden.weights[1], np.asarray(net.params["layers"][0]["dense"]["kernel"]).ravel()
    )
    state, _ = train.start(
        net.setup, runs.plan_of(net.experiment), net.experiment.hyperparameters, 3, net.task.arrays
    )
    np.testing.assert_allclose(
        output.weights[0], np.asarray(state.params["layers"][1]["kernel"]).ravel(), rtol=1e-5
    )
    x = inspection.examples(net)
    assert len(x) == inspection.EXAMPLES
    kernel, bias = (net.params["layers"][0]["dense"][name] for name in ("kernel", "bias"))
    by_hand = np.tanh(x @ np.asarray(kernel) + np.asarray(bias))
    np.testing.assert_allclose(hidden.activations[1], by_hand.ravel(), atol=1e-5)


def test_some_of_many_numbers_come_from_all_over():
    values = inspection.some(np.arange(123_456).reshape(2, -1))
    assert inspection.NUMBERS / 2 <= len(values) <= inspection.NUMBERS
    assert values[-1] > 123_000
    assert list(inspection.some(np.arange(5))) == list(range(5))
    assert inspection.some(np.zeros(0)).shape == (0,)


def test_a_language_model_shows_what_it_writes(tmp_path):
    rhyme = "; ".join(f"<b>{number}</b> cats" for number in range(1000, 1120))
    (tmp_path / "rhyme.txt").write_text(rhyme)
    model = {"name": "recurrent", "cell": "gru", "units": 4, "embedding": 3, "answer": "each"}
    data = {"name": "text", "path": str(tmp_path / "rhyme.txt"), "window": 8, "streams": 4}
    keys = {"data": data, "model": model | {"streams": 4}, "loss": "softmax_cross_entropy"}
    _, net = untrained(tmp_path, **keys, shuffle=False)
    prompt, texts = inspection.samples_of(net, length=20)
    assert prompt == rhyme[round(len(rhyme) * 0.9) :][:40], "the last tenth is held out"
    assert [len(text) for text in texts] == [20, 20]
    outputs = inspection.activations(net, net.params, net.model_state, inspection.examples(net))
    assert list(outputs) == ["layers.0", "head"]
    kernels = inspection.kernels(net.params, outputs)
    assert kernels["layers.0"].size == 3 * 12 + 4 * 12, "both kernels of the cell"
    assert set(kernels) == {"embedding", "layers.0", "head"}


def test_values_are_shown_in_the_unit_of_the_targets():
    from types import SimpleNamespace

    values = np.array([[1.0], [-1.0]])
    for scaling, told in ((None, [1, -1]), ((np.array([5.0]), np.array([2.0])), [7, 3])):
        net = SimpleNamespace(dataset=SimpleNamespace(target_scaling=scaling))
        assert inspection.in_unit(net, values).ravel().tolist() == told
