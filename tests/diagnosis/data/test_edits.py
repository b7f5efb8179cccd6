"""Edits of a split: each of them undoes what was done to it, and nothing else does."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nnref.diagnosis.data.edits import cures
from nnref.diagnosis.data.splits import Splits

RANDOM = np.random.default_rng(0)
DIGITS, NAMES = load_digits(return_X_y=True)
DIGITS = (DIGITS / 16).astype(np.float32)
IMAGES = DIGITS.reshape(-1, 8, 8, 1)
COLORS = np.concatenate([IMAGES, IMAGES**2, np.roll(IMAGES, 2, 1)], -1)
TABLE = (RANDOM.normal(size=(600, 6)) * [1, 2, 5, 10, 20, 50]).astype(np.float32)
LINE = TABLE / TABLE.std(0) @ RANDOM.normal(size=(6, 3)) + 3
TOKENS = RANDOM.integers(0, 20, (600, 10))
NEXT = (TOKENS * 7) % 20


def names(x, y, held_x=None, held_y=None, kind="multiclass"):
    n = len(x) // 2
    held = x[n:] if held_x is None else held_x, y[n:] if held_y is None else held_y
    return cures(Splits((x[:n], y[:n]), held, kind))


def digits(change):
    return {"x": DIGITS, "y": NAMES, "held_x": change(DIGITS[898:])}


def images(change):
    return {"x": IMAGES, "y": NAMES, "held_x": change(IMAGES[898:])}


def colors(change):
    return {"x": COLORS, "y": NAMES, "held_x": change(COLORS[898:])}


def table(change):
    return {"x": TABLE, "y": LINE, "held_x": change(TABLE[300:]), "kind": "regression"}


def values(change):
    return {"x": TABLE, "y": LINE, "held_y": change(LINE[300:]), "kind": "regression"}


NUMBERS = RANDOM.permutation(10)
CASES = {
    "classes in another order": (
        {"x": DIGITS, "y": NAMES, "held_y": NUMBERS[NAMES[898:]]},
        "labels",
        f"yv = np.array({np.argsort(NUMBERS).tolist()})[yv]",
    ),
    "classes from 1": (
        {"x": DIGITS, "y": NAMES, "held_y": NAMES[898:] + 1},
        "labels",
        "yv = np.array([10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])[yv]",
    ),
    "classes of each place": (
        {"x": TOKENS, "y": NEXT, "held_y": (NEXT[300:] + 1) % 20, "kind": "places"},
        "labels",
        f"yv = np.array({[19, *range(19)]})[yv]",
    ),
    "values of the other sign": (values(np.negative), "targets", "yv = -yv"),
    "logarithms in training": (
        {"x": TABLE, "y": np.r_[LINE[:300, :1], np.exp(LINE[300:, :1])], "kind": "regression"},
        "targets",
        "yv = np.log(yv)",
    ),
    "values of another scale": (values(lambda y: 50 * y + 7), "targets", "yv = [0.0"),
    "columns of targets": (values(lambda y: y[:, [2, 0, 1]]), "targets", "yv = yv[:, [1, 2, 0]]"),
    "whole numbers for fractions": (digits(lambda x: x * 255), "scale", "xv = xv / 255"),
    "from -1 to 1": (digits(lambda x: 2 * x - 1), "scale", "xv = (xv + 1) / 2"),
    "dark for bright": (digits(lambda x: 1 - x), "scale", "xv = 1 - xv"),
    "columns scaled": (table(lambda x: x / x.std(0)), "scale", "xv = (raw_xv"),
    "upside down": (images(lambda x: x[:, ::-1]), "order", "xv = np.flip(xv, 1)"),
    "height for width": (
        images(lambda x: x.transpose(0, 2, 1, 3)),
        "order",
        "xv = xv.transpose(0, 2, 1, 3)",
    ),
    "height for width, flat": (
        digits(lambda x: x.reshape(-1, 8, 8).swapaxes(1, 2).reshape(-1, 64)),
        "order",
        "xv = xv.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(len(xv), -1)",
    ),
    "BGR": (colors(lambda x: x[..., ::-1]), "order", "xv = np.flip(xv, 3)"),
    "a reshape for a transpose": (
        {
            "x": COLORS.transpose(0, 3, 1, 2),
            "y": NAMES,
            "held_x": COLORS[898:].reshape(-1, 3, 8, 8),
        },
        "order",
        "xv = xv.reshape(len(xv), 8, 8, 3).transpose(0, 3, 1, 2)",
    ),
    "columns in another order": (
        table(lambda x: x[:, [3, 1, 0, 5, 4, 2]]),
        "order",
        "xv = xv[:, [2, 1, 5, 0, 4, 3]]",
    ),
    "tokens from 1": (
        {"x": TOKENS, "y": np.isin(TOKENS, [0, 3, 9, 15]).sum(1) > 2, "held_x": TOKENS[300:] + 1,
         "kind": "binary"},
        "scale",
        "xv = xv - 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_edit_that_undoes_it_comes_first(name):
    case, kind, remedy = CASES[name]
    best = names(**case)[0]
    assert (best.kind, best.remedy[: len(remedy)]) == (kind, remedy)
    assert best.skill > 0.5


def test_where_nothing_was_done_edits_that_do_harm_are_last():
    edits = names(COLORS, NAMES)
    assert edits[0].skill > 0.85
    assert edits[-1].skill < 0.2
    assert {edit.kind for edit in edits} == {"labels", "scale", "order"}


def test_noise_is_mended_by_no_edit():
    drawn = RANDOM.integers(0, 3, 600)
    assert names(TABLE, drawn, kind="multiclass")[0].skill < 0.2
    assert names(TABLE, RANDOM.normal(size=(600, 2)), kind="regression")[0].skill < 0.1
