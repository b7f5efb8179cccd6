"""Pictures of runs and of schedules."""

import numpy as np
from finished_runs import EXPERIMENT, run_of

from nnref.experiment.experiment import Experiment
from nnref.report.pictures import draw_losses, draw_schedule


def test_pictures_are_drawn_for_one_seed_and_for_many(tmp_path):
    one, many = run_of([0.9, 0.5, 0.2]), run_of(*[[0.9, 0.5, np.nan]] * 30)
    for number, run in enumerate((one, many)):
        png = draw_losses(run, tmp_path / f"{number}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        svg = draw_losses(run, tmp_path / f"{number}.svg").read_text()
        assert svg.count("<path") > 10


def test_a_link_in_the_place_of_a_picture_is_replaced_and_not_followed(tmp_path):
    other, place = tmp_path / "other", tmp_path / "losses.png"
    other.write_text("of somebody else")
    place.symlink_to(other)
    draw_losses(run_of([0.9, 0.5, 0.2]), place)
    assert other.read_text() == "of somebody else"
    assert place.read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [place, other]


def test_a_picture_of_the_schedule(tmp_path):
    experiment = Experiment(**EXPERIMENT | {"schedule": "cosine"})
    assert draw_schedule(experiment, "some", tmp_path / "s.png").stat().st_size > 5000
