"""The part of a report about a sweep."""

import json

import numpy as np
import pytest
from logbooks import EXPERIMENT, write_page
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nnref.cli import main
from nnref.experiment.experiment import Experiment
from nnref.logbook.pages import read_sweep_page
from nnref.report.page.about_sweeps import (
    axes_of,
    losses_over,
    panels_over_axes,
    ranked,
    report_of_sweep,
    sweep_page,
)
from nnref.report.page.blocks import Chart, Report, Table, joined
from nnref.report.page.document import html
from nnref.report.page.panels import inline

ADAM = {"name": "adam", "beta1": 0.8}

LOSSES = {("sgd", 10.0): None, ("sgd", 0.1): 0.3, ("sgd", 1.0): 0.2} | {
    ("adam", 10.0): 0.7,
    ("adam", 0.1): 0.01,
}


def write_sweep(logbook, losses=LOSSES, name="many", complete=True):
    """The page of a sweep over optimizer and rate, and its losses: two seeds, three epochs."""
    head = Experiment(**EXPERIMENT).to_json()
    lines = [f"sweep page 1 of {name}", "identity: abcd", "started: 2026-11-23 10:00:00 UTC"]
    lines += ["runs: 5 variants on 2 seeds", "device: cpu cpu"]
    histories = np.full((len(losses), 2, 3), np.nan, np.float32)
    for number, ((optimizer, rate), loss) in enumerate(losses.items()):
        part = ADAM if optimizer == "adam" else optimizer
        settings = {"optimizer": part, "optimizer.learning_rate": rate}
        line = {"identity": f"{number}", "settings": settings, "valid_loss": loss}
        line |= {"best_valid_loss": loss, "diverged": 2 * (loss is None), "ending": ""}
        histories[number] = np.array([1, 0.5, loss or np.nan]) * [[0.5], [1.5]]
        lines += [f"variant {number}: {json.dumps(line)}"] if complete else []
    lines += ["verdict: the best of 5 variants is this", "note: 2026 <b>well</b>"] * complete
    path = logbook / name / "sweep-abcd.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "".join(f"// {line}\n" for line in lines))
    np.savez(path.with_suffix(".npz"), valid_loss=histories)
    return read_sweep_page(path)


def block(report, key, kind):
    return next(b for s in report.sections if s.key == key for b in s.blocks if type(b) is kind)


def test_losses_stand_at_their_place_on_the_axes(tmp_path):
    page = write_sweep(tmp_path)
    axes = axes_of(page)
    assert axes == {"optimizer.learning_rate": [0.1, 1.0, 10.0], "optimizer": ["sgd", ADAM]}
    expected = [[0.3, 0.01], [0.2, np.nan], [np.nan, 0.7]]
    np.testing.assert_array_equal(losses_over(page, axes), expected)
    one = {"optimizer.learning_rate": axes["optimizer.learning_rate"]}
    np.testing.assert_array_equal(losses_over(page, one), [0.01, 0.2, 0.7])


def test_two_axes_are_a_heat_map_and_one_is_a_curve(tmp_path):
    (two,) = panels_over_axes(write_sweep(tmp_path))
    assert "over optimizer.learning_rate and optimizer: from 0.01 to 0.7" in two.alt
    svg = inline(two).svg
    assert all(text in svg for text in ("adam beta1 0.8", ">0.01<", ">0.7<"))
    only = {key: loss for key, loss in LOSSES.items() if key[0] == "sgd"}
    (one,) = panels_over_axes(write_sweep(tmp_path, only))
    assert one.alt.endswith("over optimizer.learning_rate: 0.1: 0.3, 1: 0.2, 10: nan")
    assert "optimizer.learning_rate" in inline(one).svg


def test_a_third_axis_has_a_heat_map_for_each_of_its_values(tmp_path):
    page = write_sweep(tmp_path)
    for number, variant in enumerate(page.variants):
        variant["settings"] |= {"model.hidden": [[4], [4, 4, 4]][number % 2], "shuffle": number > 2}
    shallow, deep = panels_over_axes(page)
    assert shallow.title == "hidden [4]: validation loss, lowest over shuffle"
    assert deep.title == "hidden 3 × 4: validation loss, lowest over shuffle"
    assert "from 0.01 to 0.2" in shallow.alt
    assert "from 0.3 to 0.7" in deep.alt
    coldest, warmest = ("#440154", "#fde725")  # the ends of the colours are those of all losses

    def colours(panel):
        figure = Figure()
        axes = figure.subplots()
        panel.draw(axes)
        picture = axes.images[0]
        return {to_hex(c) for c in picture.to_rgba(picture.get_array()).reshape(-1, 4) if c[3]}

    assert coldest in colours(deep)
    assert coldest not in colours(shallow)
    assert warmest in colours(shallow)
    assert warmest not in colours(deep)
    names = {"shuffle", "model.hidden", "optimizer", "optimizer.learning_rate"}
    assert names == axes_of(page).keys()


def test_a_sweep_of_words_and_one_where_all_diverged_are_drawn(tmp_path):
    words = {("sgd", 1.0): 0.2, ("adam", 1.0): 0.1}
    assert "adam beta1 0.8" in inline(panels_over_axes(write_sweep(tmp_path, words))[0]).svg
    lost = dict.fromkeys(LOSSES)
    assert "<svg" in html(report_of_sweep(write_sweep(tmp_path, lost)))


def test_variants_are_ranked_and_the_best_are_drawn(tmp_path):
    report = report_of_sweep(write_sweep(tmp_path))
    assert report.headlines[0].sentence == "the best of 5 variants is this"
    assert dict(report.headlines[0].facts)["runs that diverged"] == "2"
    rows = block(report, "variants", Table).rows
    assert [row[3] for row in rows] == ["0.01", "0.2", "0.3", "0.7", "–"]
    assert rows[0][:3] == ["1", "0.1", "adam beta1 0.8"]
    assert rows[-1][5] == "2"
    lines = block(report, "courses", Chart).views[0].lines
    assert [line.values for line in lines] == [
        [1, 0.5, 0.01],
        [1, 0.5, 0.2],
        [1, 0.5, 0.3],
        [1, 0.5, 0.7],
    ], "medians over the seeds"
    text = html(report)
    assert "<b>" not in text
    assert "2026 &lt;b&gt;well" in text


def test_what_halving_dropped_stands_behind_what_went_on(tmp_path):
    page = write_sweep(tmp_path)
    for number, epoch in ((2, 9), (3, 3), (4, 3)):
        page.variants[number]["ending"] = f"dropped after epoch {epoch}: 2 variants were better"
    assert ranked(page) == [1, 2, 4, 3, 0]


def test_a_sweep_without_its_losses_or_its_end_is_shown_all_the_same(tmp_path):
    page = write_sweep(tmp_path)
    page.path.with_suffix(".npz").unlink()
    assert "sweep-abcd.npz cannot be read" in html(report_of_sweep(page))
    begun = report_of_sweep(write_sweep(tmp_path, complete=False))
    assert begun.headlines[0].word == "not ended"
    assert [section.key for section in begun.sections] == ["experiment", "machine"]


def test_a_name_without_runs_stands_for_its_sweep(tmp_path):
    page = write_sweep(tmp_path)
    for given in ("many", "experiments/many.json", str(page.path)):
        assert sweep_page(given, tmp_path) == page
    assert sweep_page("other", tmp_path) is None
    run = write_page(tmp_path, "many", {"train_loss": [1.0]})
    assert sweep_page("many", tmp_path) is None
    assert sweep_page(str(run), tmp_path) is None


def test_reports_of_several_kinds_stand_on_one_page(tmp_path):
    report = report_of_sweep(write_sweep(tmp_path))
    both = joined([report, report])
    keys = [section.key for section in both.sections]
    assert len(keys) == len(set(keys)) == 2 * len(report.sections)
    assert len(both.headlines) == 2
    assert joined([report]) is report
    assert isinstance(both, Report)


@pytest.mark.parametrize("command", ["report", "plot"])
def test_the_commands_take_sweeps_and_runs(tmp_path, capsys, command):
    logbook = tmp_path / "logbook"
    write_sweep(logbook)
    write_page(logbook, "run", {"train_loss": [1.0, 0.5]})
    output = tmp_path / {"report": "r.html", "plot": "p.svg"}[command]
    base = ["--logbook", str(logbook), "--no-network", "-o", str(output)]
    assert main([command, "many", *base]) == 0
    alone = output.read_text()
    assert main([command, "many", "run", *base]) == 0
    assert len(output.read_text()) > len(alone)
    assert "adam beta1 0.8" in alone
    write_sweep(logbook, complete=False)
    assert main([command, "many", *base]) == {"report": 0, "plot": 2}[command]
