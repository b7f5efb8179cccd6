"""The part of a report about an ablation, and the pictures of it."""

from dataclasses import replace

from nnref import cli
from nnref.report.page.about_ablations import report_of_comparison
from nnref.report.page.blocks import Chart, Table, Words
from nnref.report.page.document import html
from nnref.report.terminal.ablation import differences, results


def test_the_page_has_the_rows_of_the_terminal_and_the_pictures(compared, tmp_path, capsys):
    comparison, path, logbook = compared
    report = report_of_comparison(comparison)
    assert report.headlines[0].sentence == " ".join(comparison.sentences)
    blocks = {s.key: list(s.blocks) for s in report.sections}
    rows = next(block for block in blocks["alternatives"] if isinstance(block, Table)).rows
    assert [row[2:] for row in rows] == [list(row.figures) for row in results(comparison).rows]
    (table,) = blocks["differences"]
    assert [row[1:] for row in table.rows] == [r.figures for r in differences(comparison).rows]
    charts = {key: block for key, (block, *_) in blocks.items() if isinstance(block, Chart)}
    assert {"curves", "profiles", "sensitivity"} <= charts.keys()
    names = [each.name for each in comparison.alternatives]
    for chart in charts.values():
        assert [line.label for line in chart.views[0].lines][:2] == names or chart.alt.startswith(
            "validation loss of the best variants"
        )
    curve = charts["curves"].views[0].lines[0]
    ours = [float(f"{edge[-1]:.4g}") for edge in comparison.best.curve]
    assert [curve.low[-1], curve.values[-1], curve.high[-1]] == ours
    lines = charts["sensitivity"].views[0]
    assert lines.x == [1e-4, 1e-3, 1.0]
    assert lines.x_log
    ours = [comparison.tuning.final(number) for number in comparison.best.members]
    assert sorted(lines.lines[0].values) == [float(f"{loss:.4g}") for loss in sorted(ours)]
    shares = charts["profiles"].views[0].lines
    assert all(
        a <= b for line in shares for a, b in zip(line.values, line.values[1:], strict=False)
    )
    assert {"axes", "variants", "experiment"} <= blocks.keys(), "those of the tuning"
    output = tmp_path / "a.html"
    given = ["--logbook", str(logbook), "-o", str(output)]
    assert cli.main(["ablate", str(path), *given]) == 0
    written = output.read_text()
    assert cli.main(["report", "small", *given]) == 0
    ended = written.index("<footer>")
    assert output.read_text()[:ended].count("<svg") == written[:ended].count("<svg") == 2
    assert "Performance profiles" in output.read_text()
    capsys.readouterr()
    picture = str(tmp_path / "a.svg")
    assert cli.main(["plot", "small", "--logbook", str(logbook), "-o", picture]) == 0
    assert "Performance profiles" in (tmp_path / "a.svg").read_text()


def test_a_comparison_without_pages_is_shown_without_them(compared):
    comparison, _, _ = compared
    bare = replace(comparison, tuning=replace(comparison.tuning, page=None), warnings=("mind",))
    report = report_of_comparison(bare)
    assert [section.key for section in report.sections] == [
        *("alternatives", "differences", "warnings", "curves", "profiles", "sensitivity"),
    ]
    assert isinstance(report.sections[2].blocks[0], Words)
    assert "mind" in html(report)
