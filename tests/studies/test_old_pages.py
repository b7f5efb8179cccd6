"""Pages, checkpoints and sweeps that commit 5c25850 wrote: they open, go on and are told as then.

`tests/fixtures/make_old_pages.py` made them, and says how. Where this machine rounds as the one on
which they were made, losses are compared to the last bit.
"""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import nnref
from nnref import cli
from nnref.experiment.experiment import read
from nnref.logbook import writer
from nnref.logbook.index import FILE, everything
from nnref.logbook.pages import probes_of, read_page, sweep_page_at
from nnref.studies import listeners, sweep_page
from nnref.studies import run as runs
from nnref.studies.groups import read_sweep
from nnref.studies.sweep import sweep
from nnref.studies.sweep_record import SweepPlan, plan_sweep

FIXTURES = Path(__file__).parents[1] / "fixtures"
MEASURES = ["train_loss", "valid_loss", "train_accuracy", "valid_accuracy"]


@pytest.fixture
def logbook(tmp_path):
    """A copy of the old logbook."""
    return Path(shutil.copytree(FIXTURES / "logbook", tmp_path / "logbook"))


@pytest.fixture
def same_machine(logbook, monkeypatch):
    """Makes this machine and commit the ones of the old pages, which else would not go on."""
    facts = read_page(next(logbook.glob("spirals/*.json"))).facts
    old = {key: facts[key] for key in ("versions", "machine", "device", "commit")}
    monkeypatch.setattr(runs, "machine_facts", lambda: dict(old))
    monkeypatch.setattr(sweep_page, "machine_facts", lambda: dict(old))
    assert writer.machine_facts().keys() == old.keys()


def pages(logbook, name):
    return [read_page(path) for path in sorted((logbook / name).glob("*.json"))]


def near(ours, theirs):
    """Equal but for what another machine, or another version of JAX, rounds differently."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


# --- reading ------------------------------------------------------------------------------------


def test_the_log_prints_what_it_printed(logbook, capsys):
    assert cli.main(["log", "--logbook", str(logbook)]) == 0
    assert capsys.readouterr().out == (FIXTURES / "log.txt").read_text()
    assert cli.main(["diff", "spirals", "spirals_cut_short", "--logbook", str(logbook)]) == 0
    assert capsys.readouterr().out == (FIXTURES / "diff.txt").read_text()


def test_the_old_index_and_the_pages_say_the_same(logbook):
    """Also where the old index stands beside pages that have not changed since."""
    old = json.loads((logbook / FILE).read_bytes())["pages"]
    for place, row in old.items():
        os.utime(logbook / place, ns=(row["stamp"][0], row["stamp"][0]))
    indexed, skipped = everything(logbook)
    assert skipped == []
    (logbook / FILE).unlink()
    assert everything(logbook) == (indexed, [])
    assert [entry.page for entry in indexed] == sorted(
        old, key=lambda place: old[place]["entry"]["started"]
    )
    for entry in indexed:
        then = old[entry.page]["entry"]
        for key in then.keys() - {"seed"}:
            expected = tuple(then[key]) if key == "notes" else then[key]
            assert getattr(entry, key) == expected
        # The old index had the number of seeds of a sweep in the field `seed`.
        assert (entry.seeds if entry.variants else entry.seed) == then["seed"]


def test_a_finished_page_has_its_losses_and_the_measures_of_its_layers(logbook):
    first, second = pages(logbook, "spirals")
    assert first.complete
    assert second.complete
    assert (first.epochs, second.epochs) == (12, 12)
    assert list(first.history) == MEASURES
    assert first.history["valid_loss"][-1] == np.float32(1.0809989)
    assert first.experiment.identity == first.facts["identity"] == "18a6774d74"
    assert first.together == (0, 1)
    measured = probes_of(first)
    assert measured is not None
    assert list(measured["layers"]) == ["layers.0", "layers.1"]
    assert np.isfinite(measured["gradient_norm"]).all()
    assert measured["epoch"][-1] > 10
    with pytest.raises(nnref.AlreadyRun, match="was run before, on 2026-11-28"):
        runs.resume(first.path)


def test_the_network_of_a_finished_page_is_read_from_its_checkpoint(logbook, monkeypatch):
    monkeypatch.setattr(runs, "train_seeds", None)  # what is kept must be enough
    trained = runs.trained(pages(logbook, "spirals")[1].path)
    x, y = trained.task.valid
    logits, _ = trained.task.functions.apply(trained.params, trained.model_state, x, None, False)
    loss = -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(len(y)), y])
    near(loss, trained.page.history["valid_loss"][-1])


def test_a_finished_sweep_is_known(logbook):
    plan = plan_sweep(FIXTURES / "rates.json")
    swept = sweep_page.known(plan, logbook)
    assert swept is not None
    page = sweep_page_at(swept.page)
    assert page is not None
    assert swept.sentence == page.facts["verdict"]
    assert len(page.variants) == 6
    for number, line in enumerate(page.variants):
        assert line["identity"] == plan.variants[number].experiment.identity
        assert line["diverged"] == sum(record.diverged for record in swept.of(number))
        if line["valid_loss"] is not None:
            assert swept.final(number) == pytest.approx(line["valid_loss"], rel=1e-5)
    again = sweep(plan, logbook=None)
    for job, record in again.records.items():
        near(swept.records[job].history["valid_loss"], record.history["valid_loss"])
        assert swept.records[job].ending == record.ending


def test_a_report_on_old_pages_has_their_figures(logbook, tmp_path):
    output = tmp_path / "report.html"
    names = ["spirals", "spirals_cut_short", "rates"]
    assert cli.main(["report", *names, "--logbook", str(logbook), "-o", str(output)]) == 0
    html = output.read_text()
    for page in pages(logbook, "spirals"):
        assert page.facts["all_seeds"].removesuffix(", median of 2 seeds") in html
        assert page.facts["started"] in html
    assert "layers.1" in html, "the measures of the layers, and the network itself"
    sentence = sweep_page_at(next((logbook / "rates").glob("*.json"))).facts["verdict"]
    assert sentence in html


# --- going on -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("same_machine")
def test_a_run_cut_short_goes_on_from_its_checkpoint(logbook):
    before = pages(logbook, "spirals_cut_short")
    whole = nnref.run(FIXTURES / "spirals.json", logbook=None)
    heard = []

    class Hear(listeners.Listener):
        def hears(self, chunk):
            heard.append(chunk.first)

    run = runs.resume(before[0].path, Hear())
    assert min(heard) == 6, "the checkpoint was taken"
    after = pages(logbook, "spirals_cut_short")
    old = pages(logbook, "spirals")
    for place, (page, then, finished) in enumerate(zip(after, before, old, strict=True)):
        assert page.complete
        assert page.text.startswith(then.text), "a page only grows"
        assert page.facts["verdict"].split()[0] == finished.facts["verdict"].split()[0]
        rounds_alike = all(
            np.array_equal(whole.history[name][place], finished.history[name]) for name in MEASURES
        )
        same = np.testing.assert_array_equal if rounds_alike else near
        for name in MEASURES:
            np.testing.assert_array_equal(page.history[name][:6], then.history[name])
            np.testing.assert_array_equal(page.history[name], run.history[name][place])
            same(page.history[name], whole.history[name][place])
            same(page.history[name], finished.history[name])
        measured, expected = probes_of(page), probes_of(finished)
        same(measured["step"], expected["step"])
        same(measured["weight_norm"], expected["weight_norm"])


@pytest.mark.usefixtures("same_machine")
def test_a_sweep_cut_short_goes_on_from_its_parts(logbook, tmp_path):
    plan = plan_sweep(shutil.copy(FIXTURES / "rates.json", tmp_path / "rates_cut_short.json"))
    old = sweep_page.known(plan_sweep(FIXTURES / "rates.json"), logbook)
    whole = sweep(plan, logbook=None)
    page = next((logbook / "rates_cut_short").glob("*.json"))
    before = page.read_text()
    swept = sweep(plan, logbook=logbook)
    assert swept.page == page
    assert page.read_text().startswith(before)
    assert swept.trained == 4, "the runs of the group that had not ended"
    assert not page.with_suffix(".parts").exists()
    rounds_alike = all(
        np.array_equal(record.history["valid_loss"], old.records[job].history["valid_loss"])
        for job, record in whole.records.items()
    )
    same = np.testing.assert_array_equal if rounds_alike else near
    for job, record in whole.records.items():
        assert swept.records[job].ending == record.ending == old.records[job].ending
        for name, values in record.history.items():
            same(swept.records[job].history[name], values)
            same(old.records[job].history[name], values)


# --- identities ---------------------------------------------------------------------------------

IDENTITIES = json.loads((FIXTURES / "identities.json").read_text())


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_shipped_experiment_has_the_identity_that_it_had(name):
    """A file that is changed on purpose is another experiment: it gets a new line, by hand."""
    path, expected = Path("experiments") / f"{name}.json", IDENTITIES[name]
    if isinstance(expected, str):
        assert read(path).identity == expected
        return
    experiment, variants = read_sweep(path)
    assert [variant.experiment.identity for variant in variants] == expected["variants"]
    assert SweepPlan(name, experiment, variants, (), experiment.seeds).identity == expected["sweep"]
