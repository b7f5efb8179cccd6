"""Which experiments a report is about, and how they ended."""

import pytest
from logbooks import EXPERIMENT, write_page
from subjects import DONE, FALL, subject_of

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.report.page.subjects import MOST, subjects_of


def test_a_name_stands_for_its_experiments_and_all_their_seeds(logbook):
    shown, told = subjects_of(["some"], logbook)
    assert told == []
    assert [subject.runs for subject in shown] == [["seed 0"], ["seed 0", "seed 1"]] or [
        subject.runs for subject in shown
    ] == [["seed 0", "seed 1"], ["seed 0"]]
    assert len({subject.label for subject in shown}) == 2
    assert all(subject.label == f"some {subject.identity}" for subject in shown)


def test_pages_of_one_experiment_stand_together(logbook):
    paths = sorted(map(str, (logbook / "some").glob("*.json")))
    shown, _ = subjects_of([*paths, paths[0], "other"], logbook)
    assert sorted(len(subject.pages) for subject in shown) == [1, 1, 2]
    assert [subject.label for subject in shown][-1] == "other"
    alone, _ = subjects_of(paths[:1], logbook)
    assert len(alone[0].pages) == 1


def test_an_identity_and_a_file_stand_for_one_experiment(logbook, tmp_path):
    experiment = Experiment(**EXPERIMENT | {"batch_size": 2})
    file = tmp_path / "mine.json"
    file.write_text(experiment.to_json())
    for given in (experiment.identity[:6], str(file)):
        (subject,), _ = subjects_of([given], logbook)
        assert subject.identity == experiment.identity


def test_what_was_never_run_is_refused_with_the_nearest_name(logbook):
    with pytest.raises(UserError, match=r'has no run of that name.*"other".* it has other, some'):
        subjects_of(["othr"], logbook)


def test_of_many_experiments_the_last_are_shown(tmp_path):
    for rate in range(1, MOST + 3):
        optimizer = {"name": "sgd", "learning_rate": float(rate)}
        write_page(tmp_path, "many", FALL, facts=DONE, optimizer=optimizer)
    shown, told = subjects_of(["many"], tmp_path)
    assert len(shown) == MOST
    assert told == [f"of {MOST + 2} experiments called many the {MOST} last ones"]
    write_page(tmp_path, "more", FALL, facts=DONE)
    shown, told = subjects_of(["many", "more"], tmp_path)
    assert len(shown) == MOST
    assert shown[-1].label == "more"
    assert told[-1] == f"of {MOST + 1} experiments the {MOST} last ones are shown"


def test_seeds_of_several_calls_are_judged_together(tmp_path):
    claim = {"metric": "valid_loss", "at_most": 0.3, "in": 2, "of": 2}
    paths = [
        write_page(tmp_path, "some", FALL, seed, facts=DONE | {"all_seeds": f"{seed}"}, claim=claim)
        for seed in range(2)
    ]
    assert subject_of(*paths).outcome[:2] == ("good", "the claim held")
    assert subject_of(paths[0]).outcome[2] == "0"
