"""The part of a report about trained networks: layers and answers."""

import re

import jax
import numpy as np
from logbooks import write_page
from subjects import DONE, FALL, subject_of, untrained

from nnref.logbook import pages
from nnref.report.page import inspection
from nnref.report.page.about_networks import NOT_ASKED, answer_blocks, layer_panels, network_of
from nnref.report.page.about_runs import report_of
from nnref.report.page.document import LIMIT, html
from nnref.report.page.panels import inline


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


def test_the_page_of_a_network_has_pictures_of_it(trained_digits):
    subject, net = trained_digits
    text = html(report_of([subject], [net]))
    assert len(re.findall(r'src="data:image/png', text)) == inspection.MISTAKES
    assert 'aria-label="Confusion matrix: ' in text
    assert text.count("layers.0: weights") == 1
    assert "of 270 validation rows are answered wrongly" in text
    assert len(text) < LIMIT


def test_a_regression_shows_residuals(tmp_path):
    data = {"name": "adding", "steps": 4, "examples": 100}
    subject, net = untrained(tmp_path, data=data, loss="squared_error")
    answers = inspection.answers_of(net)
    values = inspection.predictions(net, answers)
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
