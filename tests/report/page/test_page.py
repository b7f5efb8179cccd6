"""What a report says of runs: figures, curves, layers, answers; and that the page is safe."""

import re
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest
from logbooks import EXPERIMENT, write_page

from nnref.cli import main
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.logbook import pages
from nnref.logbook.pages import page_at
from nnref.report.page import network
from nnref.report.page.about_networks import NOT_ASKED, answer_blocks, layer_panels, network_of
from nnref.report.page.about_runs import headline, panels_of, report_of
from nnref.report.page.blocks import Chart, Line, Table, View, Words
from nnref.report.page.curves import chart_of, clipped_chart, drawn_seeds, medians, places, rates
from nnref.report.page.document import LIMIT, html
from nnref.report.page.panels import Panel, inline, save
from nnref.report.page.subjects import MOST, Subject, subjects
from nnref.report.rates import rate_of_run
from nnref.studies import run as runs
from nnref.training import train
from nnref.training.setup import bind, from_experiment

DONE = {"all_seeds": "valid_loss went from 1 to 0.2", "verdict": "well"}
FALL = {"train_loss": [1.0, 0.5, 0.1], "valid_loss": [1.0, 0.6, 0.2]}


def subject_of(*paths):
    return Subject([page_at(path) for path in paths])


# --- what is shown ------------------------------------------------------------------------------


@pytest.fixture
def logbook(tmp_path):
    """Two experiments called `some`, the first with two seeds, and one called `other`."""
    for seed in (1, 0):
        write_page(tmp_path, "some", FALL, seed, facts=DONE)
    write_page(tmp_path, "some", FALL, facts=DONE, batch_size=2)
    write_page(tmp_path, "other", FALL, facts=DONE, epochs=9)
    return tmp_path


def test_a_name_stands_for_its_experiments_and_all_their_seeds(logbook):
    shown, told = subjects(["some"], logbook)
    assert told == []
    assert [subject.runs for subject in shown] == [["seed 0"], ["seed 0", "seed 1"]] or [
        subject.runs for subject in shown
    ] == [["seed 0", "seed 1"], ["seed 0"]]
    assert len({subject.label for subject in shown}) == 2
    assert all(subject.label == f"some {subject.identity}" for subject in shown)


def test_pages_of_one_experiment_stand_together(logbook):
    paths = sorted(map(str, (logbook / "some").glob("*.json")))
    shown, _ = subjects([*paths, paths[0], "other"], logbook)
    assert sorted(len(subject.pages) for subject in shown) == [1, 1, 2]
    assert [subject.label for subject in shown][-1] == "other"
    alone, _ = subjects(paths[:1], logbook)
    assert len(alone[0].pages) == 1


def test_an_identity_and_a_file_stand_for_one_experiment(logbook, tmp_path):
    experiment = Experiment(**EXPERIMENT | {"batch_size": 2})
    file = tmp_path / "mine.json"
    file.write_text(experiment.to_json())
    for given in (experiment.identity[:6], str(file)):
        (subject,), _ = subjects([given], logbook)
        assert subject.identity == experiment.identity


def test_what_was_never_run_is_refused_with_the_nearest_name(logbook):
    with pytest.raises(UserError, match=r'has no run of that name.*"other".* it has other, some'):
        subjects(["othr"], logbook)


def test_of_many_experiments_the_last_are_shown(tmp_path):
    for rate in range(1, MOST + 3):
        optimizer = {"name": "sgd", "learning_rate": float(rate)}
        write_page(tmp_path, "many", FALL, facts=DONE, optimizer=optimizer)
    shown, told = subjects(["many"], tmp_path)
    assert len(shown) == MOST
    assert told == [f"of {MOST + 2} experiments called many the {MOST} last ones"]
    write_page(tmp_path, "more", FALL, facts=DONE)
    shown, told = subjects(["many", "more"], tmp_path)
    assert len(shown) == MOST
    assert shown[-1].label == "more"
    assert told[-1] == f"of {MOST + 1} experiments the {MOST} last ones are shown"


# --- the verdict --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "tone", "word"),
    [
        ({"all_seeds": "the claim held: x <= 1", "verdict": "v"}, "good", "the claim held"),
        (
            {"all_seeds": "the claim did not hold: x", "verdict": "v"},
            "bad",
            "the claim did not hold",
        ),
        (DONE, "plain", "ended"),
        (DONE | {"ending": "diverged at epoch 2, step 3: x"}, "bad", "diverged"),
        ({}, "plain", "not ended"),
    ],
)
def test_the_verdict_comes_first(tmp_path, facts, tone, word):
    told = headline(subject_of(write_page(tmp_path, "some", FALL, facts=facts)))
    assert (told.tone, told.word) == (tone, word)
    assert not told.sentence.startswith("the claim")
    if not facts:
        assert "epoch 2 of 4" in told.sentence


def test_seeds_of_several_calls_are_judged_together(tmp_path):
    claim = {"metric": "valid_loss", "at_most": 0.3, "in": 2, "of": 2}
    paths = [
        write_page(tmp_path, "some", FALL, seed, facts=DONE | {"all_seeds": f"{seed}"}, claim=claim)
        for seed in range(2)
    ]
    assert subject_of(*paths).outcome[:2] == ("good", "the claim held")
    assert subject_of(paths[0]).outcome[2] == "0"


def test_figures_of_every_run_and_over_them(tmp_path):
    ends = (0.2, 0.4, 0.1)
    paths = [
        write_page(tmp_path, "some", FALL | {"valid_loss": [1.0, 0.15, end]}, seed, facts=DONE)
        for seed, end in enumerate(ends)
    ]
    report = report_of([subject_of(*paths)], [NOT_ASKED])
    over, each = next(s for s in report.sections if s.key == "figures").blocks
    assert isinstance(over, Table)
    assert isinstance(each, Table)
    assert over.columns[2:4] == ["validation loss", "lowest validation loss"]
    assert [row[2] for row in over.rows] == ["0.2", "0.1", "0.4"]
    assert [row[2:4] for row in each.rows] == [["0.2", "0.15"], ["0.4", "0.15"], ["0.1", "0.1"]]
    assert dict(report.headlines[0].facts)["validation loss in the end, median"] == "0.2"


def test_a_run_that_has_just_begun_is_shown_all_the_same(tmp_path):
    begun = write_page(tmp_path, "some", dict.fromkeys(FALL, []))
    subject = subject_of(begun)
    text = html(report_of([subject], [NOT_ASKED]))
    assert "1 of 1 pages have no line of measures" in text
    assert "Curves" not in text
    with pytest.raises(UserError, match="no line of measures yet"):
        panels_of([subject], [NOT_ASKED])
    both = subject_of(begun, write_page(tmp_path, "some", FALL, 1, facts=DONE))
    assert "1 of 2 pages have no line" in html(report_of([both], [NOT_ASKED]))
    assert "1 of 2 runs went on to epoch 0 of 4" in both.outcome[2]


def test_what_differs_and_what_came_of_it(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL, facts=DONE))
    better = FALL | {"valid_loss": [1.0, 0.03, 0.05]}
    b = subject_of(write_page(tmp_path, "b", better, facts=DONE, batch_size=2, optimizer=ADAM))
    (section,) = (s for s in report_of([a, b], [NOT_ASKED] * 2).sections if s.key == "differences")
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert [list(row) for row in table.rows] == [
        ["batch_size", "4", "2"],
        ["optimizer", "sgd", "adam"],
        ["→ validation loss in the end, median", "0.2", "0.05"],
        ["→ validation loss lowest, median", "0.2", "0.03"],
    ]


ADAM = {"name": "adam", "learning_rate": 0.5}


# --- curves -------------------------------------------------------------------------------------


def test_a_long_history_keeps_its_spikes_its_first_and_its_last_epoch():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 5000))
    values[1, 1234], values[2, 4321], values[0, 7] = 50, -50, np.inf
    kept = places([values], 100)
    assert {0, 1234, 4321, 4999} <= set(kept)
    assert len(kept) <= 102
    assert list(kept) == sorted(set(kept))
    assert list(places([values[:, :80]], 100)) == list(range(80))


def test_epochs_without_a_value_are_not_drawn():
    seldom = np.full((1, 1000), np.nan)
    seldom[0, ::100] = 1.0
    assert list(places([seldom], 40)) == list(range(0, 1000, 100))


def test_lines_have_the_values_of_the_pages_and_their_median(tmp_path):
    paths = [
        write_page(tmp_path, "some", {"train_loss": [4.0, low], "valid_loss": [4.0, high]}, seed)
        for seed, (low, high) in enumerate([(1, 5), (2, np.nan), (3, 7)])
    ]
    chart = chart_of([subject_of(*paths)], {"loss": ["train_loss", "valid_loss"]}, "Losses")
    lines = {line.label: line for line in chart.views[0].lines}
    assert lines["training, seed 1"].values == [4, 2]
    assert lines["validation, seed 1"].values == [4, None]
    assert lines["training, median"].values == [4, 2]
    assert lines["validation, median"].values == [4, 6]
    assert chart.views[0].log
    assert "training, median 2" in chart.alt
    tags = {switch.tag for group in chart.switches for switch in group.switches}
    assert {tag for line in lines.values() for tag in line.tags} == tags, "a switch for every tag"


def test_runs_of_different_length_share_a_chart(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL))
    b = subject_of(write_page(tmp_path, "b", {"train_loss": [0.0, 2.0]}))
    chart = chart_of([a, b], {"loss": ["train_loss", "valid_loss"]}, "Losses")
    values = {line.label: line.values for line in chart.views[0].lines}
    assert values == {
        "a training": [1, 0.5, 0.1],
        "a validation": [1, 0.6, 0.2],
        "b training": [0, 2, None],
    }
    assert not chart.views[0].log, "a loss of 0 has no logarithm"


def test_who_clips_nothing_has_no_line_among_those_who_clip(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL))
    b = subject_of(
        *(write_page(tmp_path, "b", FALL | {"clipped": [np.nan, 1, 0.5]}, k) for k in (0, 1))
    )
    assert clipped_chart([a]) is None
    chart = clipped_chart([a, b])
    assert chart is not None
    assert {line.colour for line in chart.views[0].lines} == {1}, "its colour everywhere"
    assert chart.views[0].x == [1, 2], "before the first step nothing is clipped"
    assert [group.legend for group in chart.switches] == ["lines", "runs of b"]


def test_medians_are_over_what_is_known():
    values = np.array([[1, np.nan, np.nan], [3, 5, np.nan], [8, np.nan, np.nan]])
    assert np.array_equal(medians(values), [3, 5, np.nan], equal_nan=True)


def test_of_many_seeds_some_of_every_rank_are_drawn(tmp_path):
    ends = np.random.default_rng(0).permutation(60)
    subject = subject_of(
        *(
            write_page(tmp_path, "some", {"train_loss": [99.0, float(end)]}, seed)
            for seed, end in enumerate(ends)
        )
    )
    drawn = drawn_seeds(subject)
    ranks = sorted(ends[drawn])
    assert len(drawn) == 24
    assert (ranks[0], ranks[-1]) == (0, 59)
    assert max(np.diff(ranks)) <= 3
    chart = chart_of([subject], {"loss": ["train_loss"]}, "Loss")
    assert "Of 60 runs of some 24 are drawn" in chart.note
    assert chart.views[0].main[0].values == [99, 29.5], "the median is that of all"


def test_a_table_of_a_line_has_its_ends():
    view = View("v", list(range(101)), [Line("a", [float(k) for k in range(101)], 0)])
    rows = view.rows()
    assert (rows[0], rows[-1], len(rows)) == (["0", "0"], ["100", "100"], 12)
    assert View("v", [7], [Line("a", [None], 0)]).rows() == [["7", "–"]]


# --- the learning rate --------------------------------------------------------------------------


def test_the_rate_follows_its_schedule():
    experiment = Experiment(**EXPERIMENT | {"schedule": "cosine", "batch_size": 1, "epochs": 8})
    epochs, rate = rate_of_run(experiment, from_experiment(experiment)[1], np.zeros(0), 8)
    assert len(epochs) == 32, "four updates an epoch"
    np.testing.assert_allclose(rate, 0.25 * (1 + np.cos(np.pi * epochs / 8)), rtol=1e-5, atol=1e-7)
    epochs, _ = rate_of_run(experiment, from_experiment(experiment)[1], np.zeros(0), 3)
    assert epochs[-1] == 2.75, "a run that was cut short ends there"


def test_the_rate_falls_where_the_page_shows_a_plateau():
    schedule = {"name": "reduce_on_plateau", "patience_evaluations": 2, "factor": 0.1}
    experiment = Experiment(**EXPERIMENT | {"schedule": schedule, "epochs": 6})
    losses = np.array([9, 1, 2, 2, 0.5, 0.4, 0.3], np.float32)  # waits after epochs 2 and 3
    _, rate = rate_of_run(experiment, from_experiment(experiment)[1], losses, 6)
    np.testing.assert_allclose(rate, [0.5, 0.5, 0.5, 0.05, 0.05, 0.05], rtol=1e-6)


def test_a_constant_rate_is_a_sentence_and_another_a_chart(tmp_path):
    a = subject_of(write_page(tmp_path, "a", FALL))
    b = subject_of(write_page(tmp_path, "b", FALL, schedule="linear"))
    told = rates([a], [NOT_ASKED])
    assert isinstance(told, Words)
    assert told.text == "Constant: 0.5."
    chart = rates([a, b], [NOT_ASKED] * 2)
    assert isinstance(chart, Chart)
    assert [line.values[0] for line in chart.views[0].lines] == [0.5, 0.5]
    assert chart.views[0].lines[1].values[-1] == pytest.approx(0.375)
    assert chart.views[0].lines[0].values[-1] == 0.5


def test_without_data_the_rate_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("nnref.report.page.curves.from_experiment", refused)
    told = rates([subject_of(write_page(tmp_path, "a", FALL))], [NOT_ASKED])
    assert isinstance(told, Words)
    assert "no such data" in told.text


def refused(*_):
    raise UserError("no such data")


# --- layers over the run ------------------------------------------------------------------------


def probes_of_two_layers(page):
    """Gradient norms 1 and 3 in seed 0, 2 and 4 in seed 1; no layer has dead units."""
    (seed,) = page.experiment.seeds
    steps = np.arange(500)
    shape = (len(steps), 2)
    nothing = np.full(shape, np.nan, np.float32)
    return {
        "step": steps,
        "epoch": steps / 10,
        "layers": np.array(["first", "$second"]),
        "gradient_norm": np.tile(np.float32([1 + seed, 3 + seed]), (500, 1)),
        "weight_norm": np.linspace(0.1, 1, 1000, dtype=np.float32).reshape(shape),
        "update_ratio": nothing,
        "dead": nothing,
        "saturated": np.zeros(shape, np.float32),
    }


def test_heat_maps_show_the_median_of_the_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "probes_of", probes_of_two_layers)
    subject = subject_of(*(write_page(tmp_path, "some", FALL, seed) for seed in range(2)))
    panels, table, runs_seen = layer_panels(subject)
    assert [panel.title for panel in panels] == ["Gradient norm", "Weight norm", "Saturated units"]
    assert runs_seen == 2
    assert [row[:3] for row in table.rows] == [["first", "1.5", "1.5"], ["$second", "3.5", "3.5"]]
    keys = [section.key for section in report_of([subject], [NOT_ASKED]).sections]
    assert "layers" in keys
    svg = inline(panels[1]).svg
    assert "$second" in svg


def test_where_nothing_was_measured_there_are_no_heat_maps(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "probes_of", lambda page: None)
    subject = subject_of(write_page(tmp_path, "some", FALL))
    assert layer_panels(subject)[0] == []
    assert "layers" not in [s.key for s in report_of([subject], [NOT_ASKED]).sections]


# --- the network --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_digits(tmp_path_factory):
    """A run on digits that still makes mistakes, and its network."""
    folder = tmp_path_factory.mktemp("digits")
    keys = {"data": "digits", "loss": "softmax_cross_entropy", "batch_size": 32, "epochs": 1}
    experiment = Experiment(**EXPERIMENT | keys | {"seeds": [3]})
    (record,) = runs.run(experiment, logbook=folder).records
    subject = subject_of(record.page)
    net = network_of(subject)
    assert not isinstance(net, str), net
    return subject, net


def test_answers_are_those_that_the_page_has_in_its_last_line(trained_digits):
    subject, net = trained_digits
    answers = network.answers_of(net)
    wrong, worst = network.worst_mistakes(net, answers)
    last = {name: values[0, -1] for name, values in subject.history.items()}
    assert np.mean(answers.losses) == pytest.approx(last["valid_loss"], rel=1e-5)
    assert 1 - wrong / answers.rows == pytest.approx(last["valid_accuracy"], rel=1e-6)
    counts = network.confusion(net, answers)
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
    _, worst = network.worst_mistakes(net, network.answers_of(net))
    images = network.as_images(net, worst)
    assert images is not None
    raw = Experiment(**EXPERIMENT | {"data": {"name": "digits", "standardized": False}})
    ink = bind(raw, "data", {})().valid.x
    for mistake, image in zip(worst, images, strict=True):
        expected = ink[mistake.row].reshape(8, 8) * 255 / 16
        np.testing.assert_allclose(image, expected, atol=1)


def test_layers_start_as_the_seed_says_and_end_as_trained(trained_digits):
    _, net = trained_digits
    hidden, output = network.layers_of(net)
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
    x = network.examples(net)
    assert len(x) == network.EXAMPLES
    kernel, bias = (net.params["layers"][0]["dense"][name] for name in ("kernel", "bias"))
    by_hand = np.tanh(x @ np.asarray(kernel) + np.asarray(bias))
    np.testing.assert_allclose(hidden.activations[1], by_hand.ravel(), atol=1e-5)


def test_some_of_many_numbers_come_from_all_over():
    values = network.some(np.arange(123_456).reshape(2, -1))
    assert network.NUMBERS / 2 <= len(values) <= network.NUMBERS
    assert values[-1] > 123_000
    assert list(network.some(np.arange(5))) == list(range(5))
    assert network.some(np.zeros(0)).shape == (0,)


def test_the_page_of_a_network_has_pictures_of_it(trained_digits):
    subject, net = trained_digits
    text = html(report_of([subject], [net]))
    assert len(re.findall(r'src="data:image/png', text)) == network.MISTAKES
    assert 'aria-label="Confusion matrix: ' in text
    assert text.count("layers.0: weights") == 1
    assert "of 270 validation rows are answered wrongly" in text
    assert len(text) < LIMIT


def test_pictures_come_as_one_file(trained_digits, tmp_path):
    subject, net = trained_digits
    panels = panels_of([subject], [net])
    titles = [panel.title for panel in panels]
    assert titles[:2] == ["loss", "accuracy"]
    assert titles[-1] == "Confusion matrix"
    assert save(panels, "a $title", tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    svg = save(panels, "a $title", tmp_path / "p.svg").read_text()
    assert all(title in svg for title in titles)
    assert "a $title" in svg


def untrained(tmp_path, **keys):
    """A network as it starts, and its page."""
    subject = subject_of(write_page(tmp_path, "some", FALL, facts=DONE, **keys))
    experiment = subject.experiment
    task, setup, dataset = from_experiment(experiment)
    params, state = task.functions.init(jax.random.key(0))
    page = subject.pages[0]
    return subject, runs.Trained(page, experiment, task, setup, dataset, params, state)


def test_a_regression_shows_residuals(tmp_path):
    data = {"name": "adding", "steps": 4, "examples": 100}
    subject, net = untrained(tmp_path, data=data, loss="squared_error")
    answers = network.answers_of(net)
    values = network.predictions(net, answers)
    assert values is not None
    x, y = net.task.valid
    layers = jax.device_get(net.params)["layers"]
    h = np.tanh(x.reshape(len(x), -1) @ layers[0]["dense"]["kernel"])
    np.testing.assert_allclose(values, h @ layers[1]["kernel"], rtol=1e-4, atol=1e-6)
    blocks = answer_blocks(net)
    deviation = np.sqrt(np.mean((values - y) ** 2))
    assert f"off by {deviation:.4g} (root of the mean square)" in blocks[0].text
    assert len(blocks[1].images) == 2
    worst = np.argmax(np.abs(values - y))
    assert blocks[2].rows[0][:2] == [str(worst), f"{y[worst, 0]:.4g}"]


def test_a_language_model_shows_what_it_writes(tmp_path):
    rhyme = "; ".join(f"<b>{number}</b> cats" for number in range(1000, 1120))
    (tmp_path / "rhyme.txt").write_text(rhyme)
    model = {"name": "recurrent", "cell": "gru", "units": 4, "embedding": 3, "answer": "each"}
    data = {"name": "text", "path": str(tmp_path / "rhyme.txt"), "window": 8, "streams": 4}
    keys = {"data": data, "model": model | {"streams": 4}, "loss": "softmax_cross_entropy"}
    _, net = untrained(tmp_path, **keys, shuffle=False)
    prompt, texts = network.samples_of(net, length=20)
    assert prompt == rhyme[round(len(rhyme) * 0.9) :][:40], "the last tenth is held out"
    assert [len(text) for text in texts] == [20, 20]
    outputs = network.activations(net, net.params, net.model_state, network.examples(net))
    assert list(outputs) == ["layers.0", "head"]
    kernels = network.kernels(net.params, outputs)
    assert kernels["layers.0"].size == 3 * 12 + 4 * 12, "both kernels of the cell"
    assert set(kernels) == {"embedding", "layers.0", "head"}


def test_without_a_run_that_ended_well_there_is_no_network(tmp_path):
    cut = subject_of(write_page(tmp_path, "cut", FALL))
    ending = DONE | {"ending": "diverged at epoch 2, step 3: x"}
    diverged = subject_of(write_page(tmp_path, "diverged", FALL, facts=ending))
    for subject in (cut, diverged):
        told = network_of(subject)
        assert told == "no run has come to its end with finite numbers"
        assert told in html(report_of([subject], [told]))
    changed = DONE | {"data": "of before"}
    assert "data have changed" in str(
        network_of(subject_of(write_page(tmp_path, "old", FALL, facts=changed)))
    )


# --- the page -----------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Names and attributes of everything that opens, and the text between."""

    def __init__(self, text):
        super().__init__()
        self.opened, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.opened.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> $x_1$ {{ 7*7 }} \u2028"


def test_what_users_write_is_shown_and_never_run(tmp_path):
    page = write_page(tmp_path, "some", FALL, facts=DONE, about=HOSTILE, notes=[HOSTILE])
    page.write_text(page.read_text().replace("// page 1 of some", f"// page 1 of {HOSTILE}"))
    subject = subject_of(page)
    plain = Elements(html(report_of([subject_of(write_page(tmp_path, "p", FALL))], [NOT_ASKED])))
    hostile = Elements(html(report_of([subject, subject], [NOT_ASKED] * 2)))
    scripts = [tag for tag, _ in hostile.opened].count("script")
    assert scripts == [tag for tag, _ in plain.opened].count("script")
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in hostile.opened)
    assert sum(HOSTILE[:30] in words for words in hostile.words) >= 4
    panel = inline(Panel(HOSTILE, HOSTILE, lambda axes: axes.set_xlabel(HOSTILE) and None))
    assert "<script" not in panel.svg
    assert "$x_1$" in panel.svg


def test_nothing_on_the_page_comes_from_elsewhere(tmp_path):
    subject = subject_of(write_page(tmp_path, "some", FALL, facts=DONE))
    page = Elements(html(report_of([subject], [NOT_ASKED])))
    links = [attrs.get(key) for _, attrs in page.opened for key in ("src", "href", "xlink:href")]
    assert all(link.startswith(("#", "data:")) for link in links if link)
    policy = next(a["content"] for tag, a in page.opened if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "Permission is hereby granted" in "".join(page.words), "the licence of the charts"


def test_a_page_of_100000_epochs_and_twenty_seeds_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    subject = subject_of(write_page(tmp_path, "long", FALL, facts=DONE))
    losses = np.exp(rng.normal(size=(20, 100_001))).astype(np.float32)
    names = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy")
    for seed, row in enumerate(losses):
        page = page_at(write_page(tmp_path, "long", FALL, seed, facts=DONE))
        page.history.update(dict.fromkeys(names, row))
        subject.pages[seed : seed + 1] = [page]
    text = html(report_of([subject], [NOT_ASKED]))
    assert len(text) < LIMIT
    assert "Of 100,001 epochs at most" in text


def test_the_commands_write_what_they_say(logbook, tmp_path, capsys):
    base = ["--logbook", str(logbook), "--no-network"]
    page, picture = str(tmp_path / "new" / "r.html"), str(tmp_path / "p.svg")
    assert main(["report", "some", "other", "-o", page, *base]) == 0
    assert main(["plot", "other", "-o", picture, *base]) == 0
    assert capsys.readouterr().out.split() == [page, picture]
    assert "3 experiments" in Path(page).read_text()
    assert "<svg" in Path(picture).read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "some", "-o", "x.pdf"], "ends in .html"),
        (["plot", "some", "-o", "x.html"], "ends in .png or .svg"),
        (["report", "none"], "has no run of that name"),
        (["report", "some", "-o", "{folder}/r.html"], "r.html: is a directory"),
        (["plot", "some", "-o", "{folder}/p.svg"], "p.svg: is a directory"),
    ],
)
def test_mistakes_of_users(logbook, tmp_path, capsys, arguments, told):
    for name in ("r.html", "p.svg"):
        (tmp_path / "folders" / name).mkdir(parents=True)
    arguments = [each.format(folder=tmp_path / "folders") for each in arguments]
    assert main([*arguments, "--logbook", str(logbook), "--no-network"]) == 2
    assert told in capsys.readouterr().err
