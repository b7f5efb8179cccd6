"""The page of a look at data."""

import numpy as np
import pytest
from written import csv_file

from nnref.checks.data import Doubt, look
from nnref.data import DATA, DataWarning
from nnref.report.page.about_data import report_of_look
from nnref.report.page.document import html
from nnref.report.terminal.data import target_in_figures

rng = np.random.default_rng(0)
LINES = [f"{i},{v:.3f},{'red' if v > 0 else 'blue'}" for i, v in enumerate(rng.normal(size=300))]


@pytest.fixture
def path(tmp_path):
    return csv_file(tmp_path, "\n".join(["row,size,<colour>", *LINES]))


def test_the_page_has_columns_target_and_doubts(path):
    with pytest.warns(DataWarning) as told:
        dataset = DATA["file"](path=path, target="<colour>")
    text = html(report_of_look(look(dataset, (str(told[0].message),)), "table"))
    for words in ("numbers the rows", "&lt;colour&gt;", "skill of simple models", "at random"):
        assert words in text
    assert "<colour>" not in text  # what the file says is escaped
    assert text.count("<svg") >= 2


def test_a_doubt_stands_beside_its_rows(path):
    doubt = Doubt("equal rows", "2 rows are there twice", (3, 7), "keep one of them")
    with pytest.warns(DataWarning):
        seen = look(DATA["file"](path=path, target="<colour>"))
    assert "2 rows are there twice (rows 3, 7)" in html(
        report_of_look(seen._replace(doubts=(doubt,)), "table")
    )


def test_the_target_in_figures_keeps_its_unit(path):
    with pytest.warns(DataWarning):
        dataset = DATA["file"]("squared_error", path=path, target="size")
    figures = dict(target_in_figures(dataset))
    values = sorted(float(line.split(",")[1]) for line in LINES)
    assert values[0] <= float(figures["smallest"]) < float(figures["median"]) < values[-1] + 0.01
    assert float(figures["largest"]) == pytest.approx(values[-1], abs=0.5)
