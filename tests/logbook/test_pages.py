"""Pages: what stands on one, and how it is told from other files."""

import numpy as np
import pytest
from small import SPIRALS, pages, run_killed

import nnref
from nnref.logbook.index import note
from nnref.logbook.pages import FORMAT, page_paths, probes_of, probes_path, read_page

CONTENT = SPIRALS  # of `file`, on two seeds


def test_a_page_is_the_experiment_and_what_came_of_it(file, logbook):
    run = nnref.run(file, logbook=logbook)
    assert [p.name for p in pages(logbook)] == [
        f"{run.experiment.identity}-seed{seed}.json" for seed in (0, 1)
    ]
    page = read_page(pages(logbook)[1])
    assert page.complete
    assert page.experiment.seeds == (1,)
    assert page.experiment.identity == run.experiment.identity
    assert page.facts.keys() >= {"started", "versions", "device", "commit", "data", "ended"}
    assert list(page.history) == ["train_loss", "valid_loss", "train_accuracy", "valid_accuracy"]
    for name, values in page.history.items():
        np.testing.assert_array_equal(values, run.history[name][1])
    verdict, seal = page.text.splitlines()[-2:]
    assert verdict.startswith("// verdict: valid_loss ")
    assert seal.startswith("// sha256: ")


def test_a_page_that_was_changed_is_told_and_remarks_change_nothing(file, logbook):
    nnref.run(file, logbook=logbook)
    path = pages(logbook)[0]
    note(path, "a remark", "2026-11-29")
    assert read_page(path).notes == ["2026-11-29 a remark"]
    text = path.read_text()
    loss = read_page(path).facts["verdict"].split()[1]
    path.write_text(text.replace(f"verdict: valid_loss {loss}", "verdict: valid_loss 0.0001"))
    with pytest.raises(nnref.UserError, match="changed after it was written"):
        read_page(path)


def test_measures_of_layers_that_are_not_those_of_the_page_are_not_believed(file, logbook):
    nnref.run(file, logbook=logbook)
    page = read_page(pages(logbook)[0])
    assert probes_of(page) is not None
    table = np.load(probes_path(page.path))
    table["step"][0] += 1
    np.save(probes_path(page.path), table)
    assert probes_of(page) is None
    probes_path(page.path).write_bytes(b"")
    assert probes_of(page) is None


@pytest.mark.parametrize("torn", ["\0\0\0", "/", "// 3 0.", "// 3 0.1\n\0\0"])
def test_a_page_torn_by_a_loss_of_power_goes_on(file, logbook, monkeypatch, torn):
    run_killed(file, logbook, monkeypatch)
    whole = nnref.run(file, logbook=None)
    for path in pages(logbook):
        path.write_text(path.read_text() + torn)
    nnref.run(file, logbook=logbook)
    for path, losses in zip(pages(logbook), whole.history["valid_loss"], strict=True):
        page = read_page(path)
        assert page.complete
        assert page.experiment.seeds
        np.testing.assert_array_equal(page.history["valid_loss"], losses)


def test_an_empty_page_blocks_nothing(file, logbook):
    run = nnref.run(file, logbook=logbook)
    for path in pages(logbook):
        path.write_text("")
    again = nnref.run(file, logbook=logbook)
    np.testing.assert_array_equal(again.history["valid_loss"], run.history["valid_loss"])
    assert len(pages(logbook)) == 4


@pytest.mark.parametrize("name", ["../out", "..", ".", "...json", "a\x1bb", "/etc"])
def test_a_name_leads_nowhere_else(tmp_path, name):
    page = tmp_path / "page.json"
    page.write_text(f"{{}}\n// page {FORMAT} of {name}\n")
    with pytest.raises(nnref.UserError, match="is no name of an experiment"):
        read_page(page)


@pytest.mark.parametrize("name", ["...json", "a\nb.json"])
def test_a_file_whose_name_is_no_name_is_refused(file, logbook, name):
    path = file.with_name(name)
    path.write_text(file.read_text())
    with pytest.raises(nnref.UserError, match="is no name of an experiment"):
        nnref.run(path, logbook=logbook)
    assert not logbook.exists()


def test_pages_are_told_from_other_files(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("{}\n// hello\n")
    with pytest.raises(nnref.UserError, match="not a page of a logbook"):
        read_page(other)
    other.write_text(f"{{}}\n// page {FORMAT + 1} of x\n")
    with pytest.raises(nnref.UserError, match="written by a newer nnref"):
        read_page(other)


def test_pages_of_one_run_are_in_the_order_of_their_numbers(tmp_path):
    names = ["ab-seed1.json", "ab-seed1-2.json", "ab-seed1-10.json", "ab-seed1-9.json"]
    for name in [*names, "ab-seed11.json", "abc-seed1.json", "ab-seed1.png"]:
        (tmp_path / name).touch()
    assert [path.name for path in page_paths(tmp_path, "ab", 1)] == [
        "ab-seed1.json",
        "ab-seed1-2.json",
        "ab-seed1-9.json",
        "ab-seed1-10.json",
    ]
