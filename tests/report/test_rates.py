"""The learning rate of a run, computed again."""

import numpy as np
from logbooks import EXPERIMENT

from nnref.experiment.experiment import Experiment
from nnref.report.pictures import rate_of_run
from nnref.training.setup import from_experiment


def test_the_rate_follows_its_schedule():
    experiment = Experiment(**EXPERIMENT | {"schedule": "cosine", "batch_size": 1, "epochs": 8})
    epochs, rate = rate_of_run(experiment, from_experiment(experiment)[1], np.zeros(0), 8)
    assert len(epochs) == 32, "four updates an epoch"
    np.testing.assert_allclose(rate, 0.25 * (1 + np.cos(np.pi * epochs / 8)), rtol=1e-5, atol=1e-7)
    epochs, _ = rate_of_run(experiment, from_experiment(experiment)[1], np.zeros(0), 3)
    assert epochs[-1] == 2.75, "a run that was cut short ends there"


def test_the_rate_falls_where_the_page_shows_a_plateau():
    schedule = {"name": "reduce_on_plateau", "patience_evaluations": 2, "factor": 0.1}
    experiment = Experiment(**EXPERIMENT | {"schedule": schedule, "epochs": 6})
    losses = np.array([9, 1, 2, 2, 0.5, 0.4, 0.3], np.float32)  # waits after epochs 2 and 3
    _, rate = rate_of_run(experiment, from_experiment(experiment)[1], losses, 6)
    np.testing.assert_allclose(rate, [0.5, 0.5, 0.5, 0.05, 0.05, 0.05], rtol=1e-6)
