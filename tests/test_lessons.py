"""Lessons: what each must have, and four of them run as notebooks; `make lessons` runs all."""

import re
import sys
from pathlib import Path

import pytest

import nnref
from nnref.experiment.experiment import read

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "lessons").glob("[0-9]*.md"))
PARTS = ["Question", "Predict", "What came out", "Exercise", "Answer", "The claim"]
QUICK = ["01_a_line", "02_one_hidden_layer", "03_initializers", "05_rates"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_lesson_is_complete(page):
    text = page.read_text(encoding="utf-8")
    parts = re.findall(
        r"^\*\*(Question|Predict|What came out|Exercise|Answer|The claim)", text, re.M
    )
    assert parts == ["Question", "Predict", "What came out", "Exercise", "Answer", "The claim"]
    code = "".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    assert len(code.splitlines()) <= 150
    assert ".verdict.held" in code
    assert page.with_suffix(".png").exists()
    named = re.findall(r"`(\w+)`", text.split("**The claim")[1])
    claims = [read(ROOT / "experiments" / f"{name}.json").claim for name in named]
    assert claims
    assert all(claims)


def test_the_list_of_lessons_is_whole():
    listed = (ROOT / "docs" / "lessons" / "index.md").read_text(encoding="utf-8")
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [p.name for p in PAGES if p.name not in listed or f"lessons/{p.name}" not in site] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_lesson_runs_as_a_notebook_and_shows_a_picture(name, tmp_path, monkeypatch):
    pytest.importorskip("nbclient", reason="notebooks cannot be run: nbclient is not installed")
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setenv("PYTHONPATH", str(Path(nnref.__file__).parents[1]))
    from lessons import executed, picture

    made = picture(executed(ROOT / "docs" / "lessons" / f"{name}.md", tmp_path))
    assert made is not None
    assert made.startswith(b"\x89PNG")
    assert not list(tmp_path.iterdir())
    del sys.modules["lessons"]
