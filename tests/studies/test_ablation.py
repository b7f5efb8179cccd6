"""Comparisons: equal budgets, tuned on validation data, judged on fresh seeds and test data."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from small import ABLATION, written

from nnref import cli
from nnref.errors import UserError
from nnref.logbook.pages import read_sweep_page
from nnref.report.terminal.sweep import label
from nnref.studies import ablation, sweep, sweep_record
from nnref.studies.ablation import ablate, comparison_at
from nnref.studies.groups import Job
from nnref.studies.statistics import interquartile_mean

CONTENT = ABLATION


def changed(path, **keys):
    return written(path, ABLATION, sweep=ABLATION["sweep"] | keys)


def test_settings_are_chosen_on_validation_data_alone(compared):
    comparison, _, _ = compared
    assert not any(record.test for record in comparison.tuning.records.values())
    for each in comparison.alternatives:
        mine = [
            number
            for number, variant in enumerate(comparison.tuning.variants)
            if (variant.experiment.optimizer.momentum > 0) == ("momentum" in each.name)
        ]
        assert len(mine) == each.trials == 3
        best = min(mine, key=comparison.tuning.final)
        rate = comparison.tuning.variants[best].experiment.optimizer.learning_rate
        assert each.tuned.settings == f"learning_rate {rate:g}"
        assert (each.default is each.tuned) == (rate == 0.1)


def test_the_last_runs_are_on_fresh_seeds_and_test_data(compared):
    comparison, _, _ = compared
    assert comparison.seeds == tuple(range(2, 12))
    assert comparison.metric == "test_loss"
    assert len(comparison.final.variants) == 4, "tuned and at defaults"
    assert all(record.test for record in comparison.final.records.values())
    first = comparison.best
    place = next(
        n for n, v in enumerate(comparison.final.variants)
        if len(v.settings) == 2 and ablation.value_in_words(v.settings[0].value) == first.name
    )  # fmt: skip
    tests = [comparison.final.records[Job(place, seed)].test["test_loss"] for seed in range(2, 12)]
    np.testing.assert_array_equal(first.tuned.scores, tests)


def test_runs_of_two_alternatives_are_pairs(compared):
    comparison, _, _ = compared
    for seed in comparison.seeds:
        first = {record.history["valid_loss"][0] for record in comparison.final.records.values()
                 if record.seed == seed}  # fmt: skip
        assert len(first) == 1, "the same first weights, and the same rows"
    assert len({record.history["valid_loss"][0] for record in comparison.final.of(0)}) == 10


def test_figures_are_those_of_the_scores(compared):
    comparison, _, _ = compared
    best, other = comparison.alternatives
    assert best.tuned.middle.estimate == pytest.approx(interquartile_mean(best.tuned.scores))
    assert best.tuned.middle.estimate <= other.tuned.middle.estimate
    assert (best.difference, best.p) == (None, None)
    assert other.difference.estimate == pytest.approx(
        interquartile_mean(other.tuned.scores - best.tuned.scores)
    )
    share = np.mean(other.tuned.scores[:, None] > best.tuned.scores)
    assert other.improvement.estimate == pytest.approx(share, abs=0.01)
    assert other.default.settings == "learning_rate 0.1"
    thresholds, profiles = comparison.profiles
    assert profiles.shape == (2, len(thresholds))
    np.testing.assert_allclose(profiles[0], [np.mean(best.tuned.scores < t) for t in thresholds])


def test_steps_to_the_target_count_those_who_never_arrive(compared):
    comparison, _, _ = compared
    found = [one for each in comparison.alternatives for one in (each.tuned, each.default)]
    for result in found:
        assert np.isfinite(result.steps[1]) == (result.reached > 5)
        assert result.seconds == result.steps[1] * result.step
        assert 1e-7 < result.step < 0.9
    assert 0 < comparison.best.tuned.reached < 5
    assert any(0 < result.seconds < result.steps[1] < np.inf for result in found)


def test_steps_are_timed_once_and_stand_on_the_page(compared, monkeypatch):
    comparison, path, logbook = compared
    said = json.loads(read_sweep_page(comparison.final.page).facts["seconds_per_step"])
    assert {each.tuned.step for each in comparison.alternatives} <= set(said)
    monkeypatch.setattr("nnref.studies.comparison.seconds_of_step", None)
    again = ablate(path, logbook=logbook)
    assert [each.tuned.step for each in again.alternatives] == [
        each.tuned.step for each in comparison.alternatives
    ]


def test_the_same_comparison_again_trains_nothing(compared, monkeypatch, capsys):
    comparison, path, logbook = compared
    monkeypatch.setattr(sweep, "train_jobs", None)
    again = ablate(path, logbook=logbook)
    assert again.sentences == comparison.sentences
    np.testing.assert_array_equal(again.best.tuned.scores, comparison.best.tuned.scores)
    assert len(list((logbook / "small").glob("sweep-*.json"))) == 2
    # Another question to the same runs.
    other = ablate(changed(path, metric="test_accuracy"), logbook=logbook)
    assert other.best.tuned.middle.estimate >= other.alternatives[1].tuned.middle.estimate
    path.write_text(json.dumps(ABLATION))
    assert cli.main(["ablate", str(path), "--logbook", str(logbook)]) == 0
    told = capsys.readouterr().out
    assert "3 trials each on 2 seeds, then 10 fresh seeds" in told
    assert comparison.sentences[0].split()[0] in told
    assert cli.main(["ablate", str(path), "--logbook", str(logbook), "--json"]) == 0
    told = capsys.readouterr().out
    assert "Infinity" not in told
    assert "NaN" not in told
    assert json.loads(told)["alternatives"][1]["p"] == comparison.alternatives[1].p


def test_every_page_of_an_ablation_stands_for_the_whole(compared, tmp_path):
    comparison, _, _ = compared
    for page in (comparison.tuning.page, comparison.final.page):
        again = comparison_at(read_sweep_page(page))
        assert again.sentences == comparison.sentences
    # Without the last runs it is a sweep, and so is one that compares nothing.
    page = tmp_path / "logbook" / "small" / comparison.tuning.page.name
    page.parent.mkdir(parents=True)
    page.write_text(comparison.tuning.page.read_text())
    page.with_suffix(".npz").write_bytes(comparison.tuning.page.with_suffix(".npz").read_bytes())
    assert comparison_at(read_sweep_page(page)) is None
    page.with_suffix(".npz").unlink()
    assert comparison_at(read_sweep_page(page)) is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"axes": {"optimizer": ["sgd", {"name": "adam", "beta1": {"values": [0.8, 0.9]}}]}},
            "who is tried more often, wins more often; trials: sgd 1, adam 2",
        ),
        ({"axes": {"optimizer": ["sgd"]}}, "one alternative alone is not compared"),
        ({"compare": "optimiser"}, 'did you mean "optimizer"?'),
        ({"target": {"metric": "valid_loss"}}, "give at_least or at_most"),
        ({"fresh": 9}, "9 given; allowed is a number from 10 up"),
    ],
)
def test_what_is_no_fair_comparison_is_refused(file, keys, said):
    with pytest.raises(UserError) as error:
        ablate(changed(file, **keys), logbook=None)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "keys", [{"metric": "test_los"}, {"target": {"metric": "valid_los", "at_most": 1.0}}]
)
def test_a_measure_that_is_not_there_is_refused_before_anything_runs(file, keys, monkeypatch):
    monkeypatch.setattr(sweep, "train_jobs", None)
    with pytest.raises(UserError, match='_los" given; allowed: .* did you mean'):
        ablate(changed(file, **keys), logbook=None)


# --- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("adam", "adam"),
        (
            {"name": "padam", "convention": "paper", "p": {"grid": [0, 1, 2]}},
            "padam convention paper",
        ),
        ({}, "off"),
        ({"l2": {"log_uniform": [1, 2], "count": 3}}, "l2"),
        ({"normalization": "batch"}, "normalization batch"),
        (None, "null"),
        (32, "32"),
    ],
)
def test_an_alternative_is_named_without_what_is_tuned(value, name):
    assert ablation.name_of(value) == name


def test_pieces_with_a_strength_of_their_own_are_alternatives(file):
    rate = {"log_uniform": [0.01, 1.0], "count": 3}
    strength = {"log_uniform": [1e-4, 0.1], "count": 3}
    axes = {"regularization": [{}, {"l2": strength}], "optimizer.learning_rate": rate}
    plan = sweep_record.plan_sweep(changed(file, axes=axes))
    members = ablation.alternatives_of(plan, "regularization")
    assert members == {"off": [0, 1, 2], "l2": [3, 4, 5]}
    assert [label(group, plan.variants) for group in plan.groups] == ["all others", "l2"]
    assert ablation.at_defaults(plan, plan.variants[3], "regularization") is None


def test_what_halving_dropped_is_not_chosen_for_its_loss_of_long_ago():
    tuning = SimpleNamespace(ranking=[2, 0, 1])
    asked = SimpleNamespace(members={"a": [0, 2], "b": [1]})
    assert ablation.best_of(asked, tuning) == {"a": 2, "b": 1}
