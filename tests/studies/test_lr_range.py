"""Ranges of learning rates, on problems whose answer is known."""

import json
from functools import partial

import numpy as np
import pytest
from small import XOR, written

from nnref import cli
from nnref.errors import UserError
from nnref.studies.lr_range import last_stable, lr_range, range_of

CONTENT = XOR
changed = partial(written, content=XOR)


def test_gradient_descent_is_stable_up_to_two_over_the_curvature(tmp_path):
    # A linear model without bias on one feature: the loss is a parabola of curvature 2 mean(x^2).
    x = np.array([0.5, -1.0, 1.5, 2.0], np.float32)
    np.savez(tmp_path / "line.npz", x=x[:, None], y=3 * x)
    data = {"name": "file", "path": str(tmp_path / "line.npz"), "target": "y"}
    data |= {"valid": 0.0, "test": 0.0, "standardized": False}
    path = changed(
        tmp_path / "line.json",
        data=data,
        model={"name": "linear", "use_bias": False},
        loss="squared_error",
        optimizer="sgd",
        schedule="cosine",
        claim=[],
    )
    # After 100 steps many rates are at the minimum but for rounding; after three only one is near.
    result = lr_range(path, low=1e-2, high=10.0, count=61, seeds=4, epochs=3)
    curvature, apart = 2 * np.mean(x**2), result.rates[1] / result.rates[0]
    assert result.stable.estimate < 2 / curvature < result.stable.estimate * apart
    assert 1 / curvature / apart < result.steepest.estimate < 1 / curvature * apart
    assert lr_range(path, low=1e-2, high=10.0, count=61, seeds=4).steps == 100
    assert result.losses.shape == (4, 61)
    assert np.all(np.diff(result.rates) > 0)
    assert not result.warnings


@pytest.mark.parametrize(
    ("losses", "last"),
    [
        ([0.9, 0.5, 0.1, 0.8, 1.2, 0.3], 3),  # what is stable beyond a gap was luck
        ([0.9, 0.5, 0.1, 0.2, 0.3, 0.4], 5),
        ([0.9, 0.5, 0.1, np.inf, np.inf, np.inf], 2),
        ([1.1, 1.2, 1.3, 1.4, 1.5, 1.6], 0),
    ],
)
def test_stable_is_what_falls_up_to_the_first_that_does_not(losses, last):
    assert last_stable(np.array(losses), 1.0, int(np.argmin(losses))) == last


def test_the_interval_is_over_seeds_and_the_edges_are_told():
    rates = np.array([0.1, 1.0, 10.0])
    falls = np.array([[0.9, 0.5, 2.0], [0.9, 0.2, 2.0], [0.9, 0.8, 0.1], [0.9, 0.3, 2.0]])
    result = range_of("x", rates, falls, np.ones(4), 100)
    assert result.steepest.low == 1
    assert 1 <= result.steepest.estimate < 10
    assert result.steepest.high > 1
    assert not result.warnings
    assert (
        "--high"
        in range_of("x", rates, falls[:, [0, 1, 1]] / [1, 1, 2], np.ones(4), 100).warnings[0]
    )
    low = range_of("x", rates, np.array([[0.1, 0.5, 2.0]] * 4), np.ones(4), 100)
    assert "--low" in low.warnings[0]
    told = range_of("x", rates, falls + 1, np.ones(4), 100).warnings
    assert "at no rate did the loss fall" in told[-1]


@pytest.mark.parametrize(
    "wrong", [{"low": 0.0}, {"low": 2.0, "high": 1.0}, {"count": 2}, {"seeds": 1}]
)
def test_a_range_that_is_none_is_refused(file, wrong):
    with pytest.raises(UserError, match="allowed are rates above 0"):
        lr_range(file, **wrong)


def test_the_command_draws_a_picture(file, tmp_path, capsys):
    picture = tmp_path / "range.svg"
    given = ["--count", "5", "--seeds", "2", "--epochs", "20", "-o", str(picture)]
    assert cli.main(["lr-range", str(file), *given]) == 0
    assert "after 20 steps the loss is lowest at a learning rate of" in capsys.readouterr().out
    assert "learning rate" in picture.read_text()
    assert cli.main(["lr-range", str(file), *given, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["rates"]) == len(result["losses"][0]) == 5
    assert cli.main(["lr-range", str(file), "-o", "x.txt"]) == 2
