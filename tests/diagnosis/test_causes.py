"""The vocabulary of a diagnosis: its causes, their order, and every threshold."""

from pathlib import Path

from nnref.diagnosis.causes import THRESHOLDS


def test_the_page_of_the_diagnosis_has_every_threshold():
    page = Path("docs/diagnose.md").read_text()
    table = page.partition("## Every threshold")[2]
    rows = [f"| {name} | {value:g} | {why} |" for name, (value, why) in THRESHOLDS.items()]
    assert table.strip().splitlines()[2:] == rows
