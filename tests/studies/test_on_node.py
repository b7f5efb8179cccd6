"""What a node does with a group that was sent: the same as who sent it, without Ray."""

import pickle

import numpy as np
import pytest
from small import ABLATION, NET, written

from nnref.errors import UserError
from nnref.experiment import sources
from nnref.studies import on_node, sweep
from nnref.studies.sweep_record import plan_sweep

CONTENT = ABLATION  # of `file`


def trained(group):
    return sweep.train_block(group, group.jobs, 3, {}, False, lambda epochs: False)


def test_a_group_that_was_sent_trains_alike(file, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("WIDTH = 3\n")
    (tmp_path / "mine.py").write_text(NET)
    written(file, CONTENT, model="mine.py:Net")
    [group, *_] = plan_sweep(file).groups
    ours = trained(group)
    (tmp_path / "mine.py").unlink()
    monkeypatch.setattr(sources, "SOURCES", sources.SOURCES.copy())
    packed = pickle.loads(pickle.dumps(on_node.packed(group)))
    sources.SOURCES.clear()
    theirs = trained(on_node.unpacked(packed, group.dataset))
    assert theirs.keys() == ours.keys()
    for job in ours:
        for name, values in ours[job].history.items():
            np.testing.assert_array_equal(theirs[job].history[name], values)


def test_a_group_keeps_the_size_of_its_blocks(file):
    [group, *_] = plan_sweep(file).groups
    group.together = 2
    assert on_node.unpacked(on_node.packed(group), group.dataset).together == 2


def test_other_versions_are_named():
    here = on_node.versions()
    on_node.refuse_others(here)
    with pytest.raises(UserError, match=r"jax [\d.]+, not 0\.9, and all nodes of a sweep must"):
        on_node.refuse_others(here | {"jax": "0.9"})
