"""What varies in a sweep: axes, alternatives, draws, and how mistakes are told."""

import json

import numpy as np
import pytest

from nnref.errors import UserError
from nnref.experiment.axes import DIGITS, value_in_words, variants
from nnref.experiment.experiment import Experiment, parse
from nnref.studies.groups import parse_sweep, read_sweep

SMALL = {
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 10,
}
PADAM = {"name": "padam", "convention": "authors", "p": {"grid": [0.1, 0.5, 3]}}


def file(axes, **keys):
    return json.dumps(SMALL | {"sweep": {"axes": axes} | keys}, indent=1)


def settings(axes):
    """Of each variant, as a dict."""
    _, found = parse_sweep(file(axes))
    return [{s.path: s.value for s in variant.settings} for variant in found]


def mistakes(axes, **keys):
    with pytest.raises(UserError) as error:
        parse_sweep(file(axes, **keys))
    return str(error.value).split("\n")


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ([0.1, 0.3], [0.1, 0.3]),
        ({"values": [0.1, 0.3]}, [0.1, 0.3]),
        ({"grid": [0.1, 0.3, 3]}, [0.1, 0.2, 0.3]),
        ({"log_grid": [1e-4, 1, 5]}, [1e-4, 1e-3, 1e-2, 0.1, 1]),
        ({"log_grid": [1, 0.1, 3]}, [1, 0.316228, 0.1]),
    ],
)
def test_values_of_an_axis(axis, values):
    assert [v["optimizer.learning_rate"] for v in settings({"optimizer.learning_rate": axis})] == (
        values
    )


@pytest.mark.parametrize("axis", [[8, 16, 32], {"log_grid": [8, 32, 3]}, {"grid": [8, 32, 4]}])
def test_between_whole_numbers_lie_whole_numbers(axis):
    found = [v["batch_size"] for v in settings({"batch_size": axis})]
    assert all(isinstance(value, int) for value in found)
    assert (found[0], found[-1]) == (8, 32)


def test_axes_are_crossed_and_the_last_changes_fastest():
    found = settings({"batch_size": [1, 2], "optimizer.momentum": [0.0, 0.9]})
    assert [tuple(v.values()) for v in found] == [(1, 0.0), (1, 0.9), (2, 0.0), (2, 0.9)]


def test_an_axis_inside_an_alternative_holds_for_it_alone():
    found = settings({"optimizer.learning_rate": [0.1, 1.0], "optimizer": ["sgd", PADAM]})
    assert [v["optimizer"] for v in found] == ["sgd"] * 2 + [
        {"name": "padam", "convention": "authors"}
    ] * 6
    assert [v.get("optimizer.p") for v in found] == [None] * 2 + [0.1, 0.1, 0.3, 0.3, 0.5, 0.5]
    _, there = parse_sweep(file({"optimizer": ["sgd", PADAM]}))
    assert [v.experiment.optimizer.name for v in there] == ["sgd", "padam", "padam", "padam"]
    assert there[2].experiment.optimizer.p == 0.3


def test_an_alternative_within_an_alternative():
    leaky = {"name": "leaky_relu", "slope": {"values": [0.1, 0.2]}}
    inner = {"name": "mlp", "hidden": [4], "activation": {"values": ["tanh", leaky]}}
    found = settings({"model": [inner, "linear"]})
    assert [v.get("model.activation.slope") for v in found] == [None, 0.1, 0.2, None]


def test_a_variant_is_the_experiment_of_a_file_of_its_own():
    _, found = parse_sweep(file({"optimizer": ["sgd", PADAM], "optimizer.learning_rate": [0.25]}))
    alone = {"name": "padam", "convention": "authors", "p": 0.3, "learning_rate": 0.25}
    assert found[2].experiment.identity == Experiment(**SMALL | {"optimizer": alone}).identity
    assert found[2].experiment.sweep is None
    assert (
        found[0].experiment.identity
        == parse(json.dumps(SMALL), {"optimizer": "sgd", "optimizer.learning_rate": 0.25}).identity
    )


def test_what_varies_decides_nothing_of_the_file_itself():
    base, _ = parse_sweep(file({"batch_size": [1, 2]}))
    assert base.identity == Experiment(**SMALL).identity
    assert parse(base.to_json()).sweep == base.sweep
    assert "sweep" not in Experiment(**SMALL).to_json()


def draws(**axis):
    low, high = next(value for value in axis.values() if isinstance(value, list))
    axis = {"count": 2000} | axis
    found, wrong = variants(Experiment(**SMALL | {"sweep": {"axes": {"x": axis}}}).sweep.axes)
    assert not wrong
    return low, high, np.array([settings[0].value for settings in found])


@pytest.mark.parametrize("kind", ["uniform", "log_uniform"])
def test_draws_are_spread_over_their_range(kind):
    scale = np.log if kind == "log_uniform" else np.asarray
    low, high, values = draws(**{kind: [0.01, 10.0]})
    share = (scale(values) - scale(low)) / (scale(high) - scale(low))
    assert share.min() >= -1e-5
    assert share.max() <= 1 + 1e-5
    # Four standard errors of the mean of a uniform number, and of its variance.
    assert abs(share.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / 2000)
    assert abs(share.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 2000)
    np.testing.assert_array_equal(values, draws(**{kind: [0.01, 10.0]})[2])
    assert not np.any(values == draws(**{kind: [0.01, 10.0]}, seed=1)[2])
    assert all(float(f"{value:.{DIGITS}g}") == value for value in values)


def test_random_axes_are_drawn_together_and_not_crossed():
    rate = {"log_uniform": [1e-3, 1.0], "count": 5}
    other = {"name": "padam", "convention": "authors", "p": {"uniform": [0.1, 0.5], "count": 5}}
    found = settings({"optimizer": ["sgd", other], "optimizer.learning_rate": rate})
    assert len(found) == 10
    first, second = found[:5], found[5:]
    assert [v["optimizer.learning_rate"] for v in first] == [
        v["optimizer.learning_rate"] for v in second
    ]
    shares = np.array([(v["optimizer.p"] - 0.1) / 0.4 for v in second])
    rates = np.array([np.log10(v["optimizer.learning_rate"]) / 3 + 1 for v in second])
    assert np.abs(shares - rates).max() > 0.1, "two axes, two streams of random numbers"
    told = mistakes({"optimizer.learning_rate": rate, "optimizer.momentum": {**rate, "count": 4}})
    assert "the same count" in told[0]


# --- mistakes -----------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once_where_it_stands():
    told = mistakes(
        {
            "optimizer": [
                {"name": "sgd", "momentum": 2},
                {"name": "padma"},
                {"name": "adam", "beta1": {"values": [0.9, 1.5]}},
            ],
            "optimizer.learning_rate": {"log_grid": [0.1, 1.0, 2]},
            "batch_size": [4, 0],
            "bach_size": [4],
        }
    )
    assert any(
        t.startswith("sweep.axes.optimizer.0.momentum (line ") and "2 given; allowed" in t
        for t in told
    )
    assert any(
        t.startswith("sweep.axes.optimizer.1 (line ") and 'did you mean "padam"' in t for t in told
    )
    assert any(t.startswith("sweep.axes.optimizer.2.beta1.1") and "1.5 given" in t for t in told)
    assert any(t.startswith("sweep.axes.batch_size.1 (line ") and "0 given" in t for t in told)
    assert any(
        t.startswith("sweep.axes.bach_size") and 'did you mean "batch_size"' in t for t in told
    )
    assert len(told) == len(set(told)) == 5


def test_a_mistake_of_the_file_is_told_with_those_of_the_axes():
    with pytest.raises(UserError) as error:
        parse_sweep(json.dumps(SMALL | {"epochs": 0, "sweep": {"axes": {"batch_size": [0]}}}))
    told = str(error.value).split("\n")
    assert [line.partition(" ")[0] for line in told] == ["epochs", "sweep.axes.batch_size.0"]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"batch_size": 3}, "an axis is a list of values, or an object with one of values, grid"),
        ({"batch_size": {"log_gird": [1, 2, 3]}}, 'did you mean "log_grid"?'),
        ({"batch_size": {"grid": [1, 2, 0]}}, "0 given; allowed is a number from 1"),
        ({"batch_size": {"grid": [1, 2, 10_000_000]}}, "10000000 given; allowed is a number"),
        (
            {path: list(range(1, 400)) for path in ("batch_size", "epochs")},
            "more than 100,000 variants",
        ),
        ({"optimizer.learning_rate": {"log_grid": [0, 1, 3]}}, "allowed is a number above 0"),
        ({"batch_size": {"grid": [1, 2, 2], "cuont": 3}}, "unknown key"),
        ({"batch_size": []}, "allowed are at least 1 entries"),
        ({}, "sweep.axes"),
        ([{"batch_size": [1]}], "allowed is an object, like {...}"),
        ({"seeds": [[0], [1]]}, "this does not vary"),
        ({"about": ["a", "b"]}, "this does not vary"),
        ({"epochs.more": [1]}, "epochs is 10, it has no keys"),
        ({"batch_size": [2, 2]}, "two variants are the same experiment"),
        (
            {"optimizer": [{"name": "sgd", "learning_rate": 1.0}], "optimizer.learning_rate": [2]},
            "sweep.axes.optimizer.0 gives it too; keep one",
        ),
        (
            {"optimizer": [{"name": "sgd", "momentum": {"valeus": [1], "grid": [0, 1]}}]},
            "sweep.axes.optimizer.0.momentum",
        ),
    ],
)
def test_single_mistakes(axes, said):
    assert said in "\n".join(mistakes(axes))


def test_halving_rises():
    assert (
        "longer than the one before" in mistakes({"batch_size": [1]}, halving={"rungs": [3, 1]})[0]
    )
    assert 'did you mean "halving"' in mistakes({"batch_size": [1]}, halvin={"rungs": [1, 3]})[0]


def test_a_file_without_a_sweep_says_what_to_write(tmp_path):
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(SMALL))
    with pytest.raises(UserError, match=r'plain.json: sweep: missing; .*"axes"'):
        read_sweep(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([32, 32, 32], "3 × 32"),
        ([32, 32], "[32, 32]"),
        (10.0, "10"),
        (1e-5, "1e-05"),
        ([], "[]"),
        ({}, "off"),
    ],
)
def test_values_are_told_in_short(given, said):
    assert value_in_words(given) == said
