"""Crawl: networks grown from the linear model up."""

import json
from functools import partial

import numpy as np
import pytest
from small import XOR, written

from nnref import cli
from nnref.errors import UserError
from nnref.studies.crawl import Crawl, Rung, crawl

CONTENT = XOR
changed = partial(written, content=XOR)


def test_xor_needs_a_hidden_layer(file, capsys):
    result = crawl(file, widest=2, deepest=2)
    assert [rung.name for rung in result.rungs] == ["linear", "1", "2", "2-2"]
    assert [rung.parameters for rung in result.rungs] == [3, 5, 9, 15]
    # A line cannot part the four points; at best it says a half of everything.
    assert result.rungs[0].loss == pytest.approx(np.log(2), abs=1e-3)
    assert not result.rungs[0].held
    assert not result.rungs[1].held
    assert result.smallest is not None
    assert result.smallest.held
    assert result.smallest.parameters > 5
    assert cli.main(["crawl", str(file), "--widest", "2", "--deepest", "1"]) == 0
    assert "the smallest that reaches the claim: " in capsys.readouterr().out
    assert cli.main(["crawl", str(file), "--widest", "2", "--deepest", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"][0]["layers"] is None


def rung(layers, parameters, loss, held=None):
    return Rung(layers, parameters, loss, held, "")


def test_growing_is_enough_where_nothing_larger_helps_much():
    sizes = [rung(None, 3, 1.0), rung((1,), 5, 0.5), rung((2,), 9, 0.2), rung((4,), 17, 0.19)]
    assert Crawl("x", "valid_loss", tuple(sizes)).enough.name == "2"
    assert "there is no claim" in Crawl("x", "valid_loss", tuple(sizes)).sentence
    sizes.append(rung((4, 4), 37, 0.1, False))
    result = Crawl("x", "valid_loss", tuple(sizes))
    assert result.enough.name == "4-4"
    assert "none of these sizes reaches the claim" in result.sentence
    wild = Crawl("x", "valid_loss", (rung(None, 3, np.inf), rung((1,), 5, 1.0)))
    assert wild.enough.name == "1"


def test_what_does_not_grow_is_refused(file):
    with pytest.raises(UserError, match="only linear models and MLPs grow"):
        crawl(changed(file, model={"name": "convnet", "channels": [2]}))
    twin = {"metric": "train_loss", "twin": "other", "within": 0.1}
    with pytest.raises(UserError, match="about a twin"):
        crawl(changed(file, claim=twin))
