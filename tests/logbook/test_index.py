"""The logbook as a whole: index, conditions, nearest attempts, differences, trees, remarks."""

import json
import os
import shutil
import time

import numpy as np
import orjson
import pytest

from nnref import cli
from nnref.errors import UserError
from nnref.logbook.index import (
    FILE,
    attempts,
    changes,
    entries,
    near,
    note,
    ordered,
    settings_of,
    tree,
    where,
)
from nnref.logbook.pages import digest, read_page

SETTINGS = {
    "about": "for the tests",
    "data": {"name": "xor", "seed": 0},
    "model": {"name": "mlp", "hidden": [4]},
    "clipping": None,
    "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
    "seeds": [0],
    "claim": [],
}
ADAM = {"name": "adam", "learning_rate": 0.5, "beta1": 0.9}


def write(logbook, name, identity, losses, seed=0, started="2026-11-20", end="", **settings):
    """A page as a run would leave it; no verdict where `losses` stop with None."""
    lines = [json.dumps(SETTINGS | settings, indent=2), f"// page 1 of {name}"]
    lines += [f"// identity: {identity}", f"// started: {started} 10:00:00 UTC", "// together: 0"]
    lines += ["// epoch train_loss valid_loss"]
    whole = losses[-1] is not None
    for epoch, loss in enumerate(losses if whole else losses[:-1]):
        lines.append(f"// {epoch} {loss} {loss}".replace("nan", "-"))
    lines += [f"// ending: {end}"] if end else []
    lines += ["// verdict: learned"] if whole else []
    path = logbook / name / f"{identity}-seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def sgd(rate):
    return {"name": "sgd", "learning_rate": rate, "momentum": 0.9}


@pytest.fixture
def logbook(tmp_path):
    """Four experiments: the first, two rates from it, and Adam; the second on two seeds."""
    folder = tmp_path / "logbook"
    write(folder, "xor", "aaaa", [0.7, 0.2, 0.3], started="2026-11-20")
    for seed, low in ((0, 0.1), (1, 0.02)):
        write(folder, "xor", "bbbb", [0.7, low], seed, "2026-11-21", optimizer=sgd(0.1))
    end = "diverged at epoch 3"
    write(folder, "xor", "cccc", [0.7, "nan"], started="2026-11-22", end=end, optimizer=sgd(50.0))
    write(folder, "xor", "dddd", [0.6, 0.5, None], started="2026-11-23", optimizer=ADAM)
    return folder


def test_every_page_is_an_entry(logbook):
    there, skipped = entries(logbook)
    assert skipped == []
    assert [(e.identity, e.seed) for e in there] == [
        ("aaaa", 0),
        ("bbbb", 0),
        ("bbbb", 1),
        ("cccc", 0),
        ("dddd", 0),
    ]
    first = there[0]
    assert (first.best, first.final, first.epochs) == (
        pytest.approx(0.2),
        {"train_loss": pytest.approx(0.3), "valid_loss": pytest.approx(0.3)},
        2,
    )
    assert first.settings["optimizer.learning_rate"] == 0.5
    assert not any(key.startswith(("about", "seeds", "claim")) for key in first.settings)
    assert [e.outcome for e in there] == [
        "valid_loss 0.3, 0.2 at best",
        "valid_loss 0.1",
        "valid_loss 0.02",
        "diverged at epoch 3",
        "cut short after epoch 1",
    ]


def test_a_run_that_kept_its_best_network_ends_with_that(logbook):
    path = write(logbook, "xor", "eeee", [0.7, 0.2, 0.4])
    path.write_text(path.read_text() + "// kept: 1\n")
    [entry] = where(entries(logbook)[0], ["identity=eeee"])
    assert entry.final["valid_loss"] == pytest.approx(0.2)


def test_the_index_is_used_where_pages_have_not_changed(logbook):
    entries(logbook)
    index = json.loads((logbook / FILE).read_text())
    index["pages"]["xor/aaaa-seed0.json"]["entry"]["verdict"] = "from the index"
    (logbook / FILE).write_text(json.dumps(index))
    assert entries(logbook)[0][0].verdict == "learned", "an index that was changed is not believed"
    index["sha256"] = digest(orjson.dumps(index["pages"]))
    (logbook / FILE).write_text(json.dumps(index))
    assert entries(logbook)[0][0].verdict == "from the index"
    page = logbook / "xor" / "aaaa-seed0.json"
    page.write_text(page.read_text() + "// note: changed\n")
    assert entries(logbook)[0][0].verdict == "learned", "the pages are the truth"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"format": 99, "pages": {}}', '{"format": 3, "pages": [1]}']
)
def test_an_index_is_rebuilt(logbook, damage):
    before = entries(logbook)
    (logbook / FILE).write_text(damage)
    assert entries(logbook) == before
    (logbook / FILE).unlink()
    assert entries(logbook) == before
    shutil.rmtree(logbook / "xor")
    assert entries(logbook) == ([], [])


def test_what_is_no_page_is_skipped_with_a_word(logbook):
    folder = logbook / "xor"
    (folder / "mine.json").write_text("{}")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00")
    newer = (folder / "aaaa-seed0.json").read_text().replace("// page 1 of", "// page 9 of")
    (folder / "ffff-seed0.json").write_text(newer)
    half = (folder / "bbbb-seed0.json").read_text()[:40] + "\n// page 1 of xor\n"
    (folder / "bbbb-seed0.json").write_text(half)
    there, skipped = entries(logbook)
    assert len(there) == 4
    assert sorted(told.split("/")[-1].split(":")[0] for told in skipped) == [
        "bbbb-seed0.json",
        "bytes.json",
        "ffff-seed0.json",
        "mine.json",
    ]
    assert any("written by a newer nnref" in told for told in skipped)


def test_a_torn_last_line_is_left_out(logbook):
    page = logbook / "xor" / "dddd-seed0.json"
    page.write_text(page.read_text() + "// 2 0.1 0.")
    [entry] = where(entries(logbook)[0], ["identity=dddd"])
    assert (entry.epochs, entry.best) == (1, pytest.approx(0.5))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder; a logbook begins with the first"):
        entries(tmp_path / "nowhere")


def test_an_index_that_cannot_be_written_is_done_without(logbook, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "no")

    monkeypatch.setattr("pathlib.Path.write_bytes", refused)
    assert len(entries(logbook)[0]) == 5
    assert not (logbook / FILE).exists()


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["optimizer.name=adam"], "d"),
        (["optimizer.name != adam"], "abbc"),
        (["valid_loss<0.1"], "b"),
        (["valid_loss <= 0.3", "seed=0"], "ab"),
        (["best_valid_loss<0.25"], "abb"),
        (["optimizer.learning_rate>=0.5"], "acd"),
        (["model.hidden=[4]"], "abbcd"),
        (["name>3"], ""),
        (["verdict==learned", "epochs>1"], "a"),
    ],
)
def test_conditions(logbook, conditions, found):
    there = where(entries(logbook)[0], conditions)
    assert "".join(entry.identity[0] for entry in there) == found


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("valid_loss", 'a key, one of = != < <= > >=, and a value, as in "valid_loss<0.1"'),
        ("valid_los<1", 'no run has "valid_los"; did you mean "valid_loss"'),
        ("xyz<1", 'no run has "xyz"; they have .*optimizer.name.*, valid_loss'),
    ],
)
def test_conditions_that_mean_nothing(logbook, condition, text):
    with pytest.raises(UserError, match=text):
        where(entries(logbook)[0], [condition])


def test_order(logbook):
    there = entries(logbook)[0]
    assert "".join(e.identity[0] for e in ordered(there, None, True)) == "dcbba"
    by_loss = [e.identity[0] for e in ordered(there, "valid_loss", False)]
    assert by_loss == ["b", "b", "a", "d", "c"]  # that without a value last
    assert [e.identity[0] for e in ordered(there, "valid_loss", True)] == ["d", "a", "b", "b", "c"]
    with pytest.raises(UserError, match='--sort: no run has "loss"'):
        ordered(there, "loss", False)


def test_a_swapped_component_is_one_change(logbook):
    a, *_, d = entries(logbook)[0]
    assert [str(change) for change in changes(a.settings, d.settings)] == ["optimizer sgd → adam"]
    clipped = a.settings | {"clipping.name": "value", "clipping.threshold": 1.0}
    clipped.pop("clipping")
    assert [str(change) for change in changes(a.settings, clipped)] == ["clipping null → value"]
    assert changes(a.settings, a.settings | {"a_new_argument": None}) == []
    wider = a.settings | {"model.hidden": [8, 8]}
    assert [str(change) for change in changes(a.settings, wider)] == ["model.hidden [4] → [8, 8]"]


def test_the_nearest_attempts_and_how_they_ended(logbook):
    there = entries(logbook)[0]
    found = near(there[0].settings, there)
    assert [(str(c[0]), attempt.outcome) for c, attempt in found] == [
        ("optimizer adam → sgd", "cut short after epoch 1 on 2026-11-23"),
        ("optimizer.learning_rate 50.0 → 0.5", "diverged at epoch 3 on 2026-11-22"),
        (
            "optimizer.learning_rate 0.1 → 0.5",
            "valid_loss 0.06, median of 2 seeds, on 2026-11-21",
        ),
    ]
    far = {"batch_size": 1, "epochs": 2, "shuffle": False}
    assert near(there[0].settings | far, there) == []
    two = near(there[0].settings | {"epochs": 2}, there)
    assert [len(c) for c, _ in two] == [1, 2, 2, 2]
    assert len(near(there[0].settings, there, limit=1)) == 1


def test_a_tree_of_single_changes(logbook):
    both = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5}
    write(logbook, "xor", "eeee", [0.7, 0.01], started="2026-11-24", optimizer=both)
    root = tree(entries(logbook)[0])
    assert root.attempt.entries[0].identity == "aaaa"
    below = {node.attempt.entries[0].identity: node for node in root.children}
    assert below.keys() == {"bbbb"}  # better than the first, so that the others stand below it
    names = {node.attempt.entries[0].identity for node in below["bbbb"].children}
    assert names == {"cccc", "dddd", "eeee"}
    [e] = [n for n in below["bbbb"].children if n.attempt.entries[0].identity == "eeee"]
    assert [str(change) for change in e.changes] == ["optimizer.momentum 0.9 → 0.5"]


def test_of_a_seed_that_was_run_twice_the_last_page_counts(logbook):
    again = write(logbook, "xor", "aaaa", [0.7, 0.05], started="2026-11-25")
    first = again.rename(again.with_name("aaaa-seed0-2.json"))
    assert first.exists()
    write(logbook, "xor", "aaaa", [0.7, 0.2], started="2026-11-20")
    best = {a.entries[0].identity: a.best for a in attempts(entries(logbook)[0])}
    assert best["aaaa"] == pytest.approx(0.05)


def test_a_note_is_a_line_more(logbook):
    page = logbook / "xor" / "aaaa-seed0.json"
    before = page.read_text()
    note(page, "try  a larger\nnetwork", "2026-11-23 10:00")
    note(page, "no", "2026-11-24 10:00")
    assert page.read_text() == before + (
        "// note: 2026-11-23 10:00 try a larger network\n// note: 2026-11-24 10:00 no\n"
    )
    assert entries(logbook)[0][0].notes == (
        "2026-11-23 10:00 try a larger network",
        "2026-11-24 10:00 no",
    )
    torn = logbook / "xor" / "dddd-seed0.json"
    torn.write_text(torn.read_text() + "// 2 0.1")
    note(torn, "cut", "today")
    assert read_page(torn).notes == ["today cut"]
    assert read_page(torn).epochs == 1
    with pytest.raises(UserError, match="an empty remark"):
        note(page, " \n", "today")
    with pytest.raises(UserError, match="not a page of a logbook"):
        note(logbook / FILE, "x", "today")
    with pytest.raises(UserError, match="No such file"):
        note(logbook / "none.json", "x", "today")


def test_thousands_of_pages_are_listed_in_a_second(tmp_path):
    source = write(tmp_path, "many", "aaaa", list(np.linspace(1, 0.1, 50)))
    for number in range(3000):
        os.link(source, source.with_name(f"{number:04x}-seed0.json"))
    assert len(entries(tmp_path)[0]) == 3001
    began = time.process_time()
    assert len(entries(tmp_path)[0]) == 3001
    assert time.process_time() - began < 1


def said(capsys, *arguments):
    code = cli.main([*map(str, arguments)])
    return code, capsys.readouterr()


def test_the_commands(logbook, capsys):
    where_ = ("--logbook", logbook)
    code, told = said(capsys, "log", *where_, "--where", "valid_loss<0.1")
    assert code == 0
    assert told.out.splitlines()[1].split()[:3] == ["xor", "bbbb", "1"]
    code, told = said(capsys, "log", *where_, "--json")
    assert [row["identity"][0] for row in json.loads(told.out)] == list("abbcd")
    code, told = said(capsys, "log", "tree", "xor", *where_)
    assert "optimizer.learning_rate 0.5 → 0.1  bbbb  valid_loss 0.06, median of 2" in told.out
    assert "← best" in told.out.splitlines()[1]
    code, told = said(capsys, "log", *where_, "tree", "xorr")
    assert (code, told.err) == (
        2,
        f'nnref: {logbook} has no run of "xorr"; did you mean "xor"?; it has xor\n',
    )
    code, told = said(capsys, "diff", "aaaa", "bbbb", *where_)
    assert code == 0
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert "optimizer.learning_rate 0.5 0.1" in lines
    assert "valid_loss in the end 0.3 0.06 0.2" in lines
    assert "valid_loss at best 0.2 0.06 0.3" in lines
    code, told = said(capsys, "diff", "aaaa", logbook / "xor" / "cccc-seed0.json", *where_)
    assert "valid_loss in the end 0.3 inf -" in [" ".join(x.split()) for x in told.out.splitlines()]
    page = logbook / "xor" / "aaaa-seed0.json"
    assert said(capsys, "log", "note", page, "hm")[0] == 0
    assert page.read_text().endswith(" hm\n")


def test_before_a_run_its_nearest_predecessors_are_told(tmp_path, capsys):
    file, logbook = tmp_path / "a.json", tmp_path / "logbook"
    settings = {"data": "xor", "model": {"name": "mlp", "hidden": [2]}, "batch_size": 4}
    settings |= {"loss": "sigmoid_cross_entropy", "optimizer": "sgd", "epochs": 2}
    file.write_text(json.dumps(settings))
    _, told = said(capsys, "run", file, "--logbook", logbook)
    assert "tried before" not in told.out
    run = ("run", file, "--logbook", logbook, "--set", "optimizer.learning_rate=0.25")
    _, told = said(capsys, *run)
    first = told.out.splitlines()
    assert first[0] == "tried before, nearly the same:"
    assert first[1].startswith("  optimizer.learning_rate 0.1 (here 0.25) → valid_loss 0.")
    code, told = said(capsys, "log", "near", file, "--logbook", logbook)
    assert "optimizer.learning_rate 0.25 (here 0.1) → valid_loss" in told.out


def test_what_decides_no_loss_is_no_setting():
    text = '{"data": "xor", "devices": "all", "shard": "params", "about": "", "epochs": 3}'
    assert settings_of(text) == {"data": "xor", "epochs": 3}
