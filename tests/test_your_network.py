"""What docs/your_network.md shows is run: every library healthy and broken, in its own idiom."""

import re
from pathlib import Path

import pytest

import nnref

PAGE = (Path(__file__).parents[1] / "docs" / "your_network.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SHARED = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
NEEDS = {"Equinox": "equinox", "Keras 3 on JAX": "keras", "Haiku": "haiku"}


def blocks(section, language="python"):
    return re.findall(rf"```{language}[^\n]*\n(.*?)```", SECTIONS[section], re.DOTALL)


@pytest.fixture
def keras_on_jax(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")


@pytest.mark.slow
@pytest.mark.usefixtures("keras_on_jax")
@pytest.mark.parametrize(
    "section",
    [
        "Flax NNX",
        "Flax Linen",
        "Equinox",
        "Keras 3 on JAX",
        "Haiku",
        "Several inputs, several targets, none",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_section_of_the_page_runs(section):
    if section in NEEDS:
        pytest.importorskip(NEEDS[section])
    names = {}
    for code in (SHARED, *blocks(section)):
        exec(compile(code, f"docs/your_network.md, {section}", "exec"), names)
    assert names["found"].mistakes == ()


def test_the_experiment_file_of_the_page_runs(tmp_path):
    section = "In an experiment file"
    (code,), (text,) = blocks(section), blocks(section, "json")
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "own.json").write_text(text)
    made = nnref.run(tmp_path / "own.json", logbook=tmp_path / "logbook")
    assert made.history["valid_loss"].shape == (1, 6)
    assert list((tmp_path / "logbook" / "own" / "sources").iterdir())
