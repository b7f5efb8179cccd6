"""Panels: still pictures, alone and in one file."""

from nnref.report.page.about_runs import report_of
from nnref.report.page.panels import panels_in, save


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
