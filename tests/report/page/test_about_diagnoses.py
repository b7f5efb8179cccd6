"""The page of a diagnosis: what it is made of, and that nothing of the findings is lost on it."""

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from diagnoses import FAULT, MEASURES, PROOF

from nnref.diagnosis.findings import Finding, Findings
from nnref.diagnosis.proof import curve
from nnref.report.page.about_diagnoses import page_of, report_of_diagnosis
from nnref.report.page.blocks import Bars, Chart, Code, Pictures


def fault(**changes):
    return replace(FAULT, **changes)


def blocks(found, kind):
    sections = report_of_diagnosis(found).sections
    return [block for section in sections for block in section.blocks if isinstance(block, kind)]


@pytest.mark.parametrize(
    ("found", "tone", "word"),
    [
        (Findings((fault(),), learns=False), "bad", "fault"),
        (Findings(learns=False), "bad", "not explained"),
        (Findings(learns=True), "good", "no fault"),
        (Findings(), "good", "no fault"),
        (Findings(mistakes=("a bug",)), "plain", "not looked at"),
    ],
)
def test_the_verdict_stands_first(found, tone, word):
    report = report_of_diagnosis(found)
    (head,) = report.headlines
    assert (head.tone, head.word, head.sentence) == (tone, word, found.headline)
    page = page_of(found)
    assert page.index(unescape(found.headline)) < page.index("<main>")


def test_the_run_is_drawn_beside_the_cured_one_seed_by_seed():
    found = Findings((fault(),), measures=MEASURES, learns=False)
    (chart,) = blocks(found, Chart)
    (view,) = chart.views
    assert sorted(line.label for line in view.lines) == [
        "as it is, seed 4",
        "as it is, seed 5",
        "with a tenth of the learning rate, seed 4",
        "with a tenth of the learning rate, seed 5",
    ]
    assert [line.label for line in view.main if not line.colour] == ["as it is, seed 4"]
    assert {line.values[-1] for line in view.lines} == {0.03, 0.01}
    assert view.log
    switched = {switch.tag for group in chart.switches for switch in group.switches}
    assert {tag for line in view.lines for tag in line.tags} <= switched
    seeds, tried = blocks(found, Bars)
    assert [(bar.label, bar.value) for bar in seeds.bars] == [
        ("seed 4, as it is", 0.1),
        ("seed 4, changed", 0.9),
        ("seed 5, as it is", 0.2),
        ("seed 5, changed", 0.8),
    ]
    assert seeds.note.startswith("0.70 more with the change; 95 % interval [-0.57, 1.97]")
    assert [bar.value for bar in tried.bars] == [0.1, 0.9, -0.2]


def test_losses_of_other_units_are_drawn_over_that_of_the_first_epoch():
    found = Findings((fault(proof=replace(PROOF, edit="loss")),))
    (chart,) = blocks(found, Chart)
    assert {line.values[0] for line in chart.views[0].lines} == {1.0}
    assert "over that of the first epoch" in chart.views[0].label


def test_without_a_proof_the_run_is_drawn_alone():
    found = Findings(measures=MEASURES, learns=True)
    (chart,) = blocks(found, Chart)
    (line,) = chart.views[0].lines
    assert (line.label, line.values) == ("as it is", [2.0, 1.0])
    shown = [switch.tag for group in chart.switches for switch in group.switches]
    assert list(line.tags) == shown


def test_the_users_own_line_is_shown_with_its_neighbours(tmp_path):
    program = tmp_path / "mine, too.py"
    program.write_text("a = 1\nloss = (o - y).mean()\nb = 2\n")
    line = tmp_path / "mine.py"
    line.write_text(program.read_text())
    (code,) = blocks(Findings((fault(where=f"the loss, {line}:2"),)), Code)
    assert code.title == f"{line}, line 2"
    assert code.text.splitlines()[:3] == [
        "     1  a = 1",
        "→    2  loss = (o - y).mean()",
        "     3  b = 2",
    ]
    assert blocks(Findings((fault(where=f"{line}:9"),)), Code) == []
    assert blocks(Findings((fault(where="ratio 1:2"),)), Code) == []


def test_layers_are_heat_maps_in_words_too():
    (pictures,) = blocks(Findings(measures=MEASURES), Pictures)
    gradient, update = pictures.images
    assert gradient.alt == "Gradient norm: dense.kernel from 1 to 3; out.kernel from 2 to nan"
    assert update.title == "Update / weight"
    assert blocks(Findings(), Pictures) == []


def test_nothing_is_lost_on_the_page_and_nothing_of_a_user_is_markup():
    symptom = Finding("dying_relu", "fault", "hidden", "no row activates it")
    note = Finding("class_imbalance", "note", "targets", "one class in 90 % of the rows")
    finding = fault(symptoms=(symptom,), measured="9 times", confidence=0.8)
    found = Findings((finding, note), ("the data",), ("validation",), MEASURES, False, ("a bug",))
    page = page_of(found)
    assert "<b> steps" not in page
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))
    for word in ("<b> steps", "9 times", "80% sure", "no row activates", "one class in 90 %"):
        assert word in text
    for word in ("it learns", "Looked at: the data.", "Not possible: validation.", "a bug", "0.90"):
        assert word in text
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    in_a_notebook = found._repr_html_()
    assert in_a_notebook.startswith("<iframe srcdoc='")
    framed = re.search(r"srcdoc='([^']*)'", in_a_notebook)[1]
    assert "headline bad" in unescape(framed)
    assert "<base href='about:srcdoc'>" in unescape(framed)


def test_a_proof_is_listed_in_json():
    found = Findings((fault(),), measures=MEASURES)
    proof = json.loads(json.dumps(found.to_json(), allow_nan=False))["found"][0]["proof"]
    assert (proof["edit"], proof["before"], proof["after"]) == ("rate x0.1", [0.1, 0.2], [0.9, 0.8])
    assert proof["gain"] == pytest.approx([0.7, -0.5706, 1.9706], abs=1e-4)  # t of 1 at 97.5 %
    assert proof["curves"][0]["losses"][0] == 3.0
    assert replace(PROOF, before=(0.1,), after=(0.9,)).gain is None


def test_long_curves_keep_their_ends_and_short_ones_everything():
    long = curve(0, False, np.arange(1.0, 1001.0))
    assert (long.epochs[0], long.epochs[-1], len(long.epochs)) == (1, 1000, 200)
    assert long.losses == tuple(map(float, long.epochs))
    assert curve(0, False, [2.0]).epochs == (1,)
    assert curve(0, False, []).epochs == ()
