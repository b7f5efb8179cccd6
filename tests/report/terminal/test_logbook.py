"""The logbook on the terminal."""

import numpy as np

from nnref.report.terminal.logbook import sparkline


def test_a_spark_line_is_logarithmic_and_newest_at_the_right():
    assert sparkline(np.array([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]), 20) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.geomspace(1, 1e-6, 1000), 4) == "█▆▃▁"
    assert sparkline(np.array([np.nan, 1.0, np.inf, 0.0]), 4) == "▁"
    assert sparkline(np.array([np.nan]), 4) == ""
    assert sparkline(np.ones(3), 0) == ""
