"""The blocks of a report."""

from nnref.report.page.blocks import Line, View


def test_a_table_of_a_line_has_its_ends():
    view = View("v", list(range(101)), [Line("a", [float(k) for k in range(101)], 0)])
    rows = view.rows()
    assert (rows[0], rows[-1], len(rows)) == (["0", "0"], ["100", "100"], 12)
    assert View("v", [7], [Line("a", [None], 0)]).rows() == [["7", "–"]]
