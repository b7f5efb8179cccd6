"""The doors of the package: what `import nnref` offers, and what opening one of them does."""

import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from small import SPIRALS, XOR_SWEEP

import nnref


def test_every_door_is_listed():
    assert set(nnref.__all__) == set(nnref.DOORS)
    assert {"run", "sweep", "ablate", "lr_range", "crawl", "diagnose"} <= set(nnref.__all__)


@pytest.mark.parametrize("name", nnref.DOORS)
def test_a_door_leads_to_what_its_module_defines(name):
    assert getattr(nnref, name) is getattr(import_module(nnref.DOORS[name]), name)


def test_a_name_that_is_no_door_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'sweeps'"):
        nnref.sweeps  # noqa: B018


def test_a_sweep_from_python(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(XOR_SWEEP | {"epochs": 5}))
    result = nnref.sweep(path, logbook=None)
    assert len(result.variants) == 9
    assert np.isfinite(result.final(result.ranking[0]))


def test_rates_and_growth_from_python(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SPIRALS))
    rates = nnref.lr_range(path, low=1e-3, high=1.0, count=3, seeds=2, epochs=1)
    assert rates.losses.shape == (2, 3)
    grown = nnref.crawl(path, widest=2, deepest=1)
    assert [rung.name for rung in grown.rungs] == ["linear", "1", "2"]


def test_an_ablation_from_python_wants_alternatives(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SPIRALS | {"sweep": {"axes": {"batch_size": [8]}}}))
    with pytest.raises(nnref.UserError, match="one alternative alone is not compared"):
        nnref.ablate(path, logbook=None)


@pytest.mark.parametrize("flags", ["", "--xla_backend_extra_options=mine"])
def test_the_first_study_sets_the_options_of_xla_once(flags):
    """Before JAX starts, and never over the options of the user."""
    code = (
        "import os, nnref; before = os.environ['XLA_FLAGS']; nnref.sweep; nnref.run; "
        "print(before); print(os.environ['XLA_FLAGS'])"
    )
    before, after = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert before == flags, "importing nnref alone changes nothing"
    assert after.count("xla_backend_extra_options") == 1
    assert ("small_while_loop" in after) == (not flags)
