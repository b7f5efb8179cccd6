"""Results as plain values."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnref.report.plain import attributes, finite, plain


class Pair(NamedTuple):
    low: float
    high: np.float32


@dataclass
class Result:
    name: str
    pair: Pair
    losses: np.ndarray = field(repr=False)
    page: Path | None = None

    @property
    def sentence(self):
        return f"{self.name} it is"


RESULT = Result("a", Pair(1.0, np.float32(np.inf)), np.array([[1, 2], [3, np.nan]]), Path("p/q"))


def test_dataclasses_named_tuples_arrays_and_paths_become_json():
    expected = {"name": "a", "pair": {"low": 1.0, "high": None}}
    expected |= {"losses": [[1.0, 2.0], [3.0, None]], "page": "p/q"}
    assert plain(RESULT) == expected
    assert json.loads(json.dumps(plain((RESULT, 3, True)))) == [expected, 3, True]
    assert list(plain(RESULT)) == ["name", "pair", "losses", "page"], "in the order of the fields"


def test_numbers_keep_their_kind():
    values = plain([np.int64(3), np.float32(0.5), np.bool_(True), 2, None, np.arange(2)])
    assert values == [3, 0.5, True, 2, None, [0, 1]]
    assert [type(value) for value in values[:3]] == [int, float, bool]


def test_what_json_lacks_is_null_or_a_word():
    values = {1: [np.nan, np.inf, -np.inf, 1.0]}
    assert plain(values) == {"1": [None, None, None, 1.0]}
    assert plain(values, infinite=str) == {"1": ["nan", "inf", "-inf", 1.0]}
    assert [finite(value) for value in values[1]] == [None, None, None, 1.0]


def test_attributes_may_be_properties_and_come_in_the_order_asked_for():
    chosen = attributes(RESULT, "sentence", "name")
    assert list(chosen.items()) == [("sentence", "a it is"), ("name", "a")]
