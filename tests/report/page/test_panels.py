"""Panels: still pictures, alone and in one file."""

from matplotlib.figure import Figure

from nnref.report.page.about_runs import report_of
from nnref.report.page.blocks import (
    Chart,
    Heading,
    Image,
    Line,
    Panel,
    Pictures,
    Report,
    Section,
    View,
)
from nnref.report.page.panels import intervals_panel, panels_in, save
from nnref.studies.statistics import Interval


def test_pictures_come_as_one_file(trained_digits, tmp_path):
    subject, net = trained_digits
    panels = panels_in(report_of([subject], [net]))
    titles = [panel.title for panel in panels]
    assert titles[:2] == ["loss", "accuracy"]
    assert titles[-1] == "Confusion matrix"
    assert save(panels, "a $title", tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    svg = save(panels, "a $title", tmp_path / "p.svg").read_text()
    assert all(title in svg for title in titles)
    assert "a $title" in svg


def test_the_pictures_of_a_report_have_its_titles():
    def chart(*names):
        return Chart("alt", "epoch", [View(name, [0.0], [Line("a", [1.0], 0)]) for name in names])

    still = Panel("Confusion matrix", "alt", lambda axes: None)
    pixels = Image("no panel", uri="data:image/png;base64,")
    sections = [
        Section("rate", "Learning rate", [chart("rate")]),
        Section("curves", "Curves", [chart("loss", "accuracy"), Heading("Clipped"), chart("c")]),
        Section("answers", "Answers", [Pictures([still, pixels]), Heading("b"), Pictures([still])]),
    ]
    assert [panel.title for panel in panels_in(Report("two runs", [], sections))] == [
        *("Learning rate", "loss", "accuracy", "Clipped"),
        *("Confusion matrix", "b: Confusion matrix"),
    ]


def test_of_differences_the_legend_says_which_are_sure():
    """Blue and filled beside 0, grey on it; the axis is not logarithmic, whatever the numbers."""
    differences = [Interval(-1.0, -2.0, -0.5), Interval(0.1, -0.1, 0.3), Interval(9.0, 0.1, 90.0)]
    panel = intervals_panel("loss", ["dropout", "l2", "l1"], differences, sure=[True, False, True])
    axes = Figure().subplots()
    panel.draw(axes)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["a difference", "none can be claimed"]
    points = {
        line.get_label(): list(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"
    }
    assert points == {"a difference": [0, 2], "none can be claimed": [1]}
    assert axes.get_xscale() == "linear"
    tuned = intervals_panel("loss", ["sgd"], [Interval(1.0, 0.5, 2.0)], [None])
    axes = Figure().subplots()
    tuned.draw(axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tuned"]
