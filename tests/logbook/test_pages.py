"""Pages: what stands on one, and how it is told from other files."""

import numpy as np
import pytest
from small import SPIRALS, pages

import nnref
from nnref.logbook.pages import FORMAT, page_paths, read_page

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
    assert page.text.splitlines()[-1].startswith("// verdict: valid_loss ")


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
