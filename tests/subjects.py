"""Subjects of a report, from pages written by hand."""

import jax
from logbooks import write_page

from nnref.logbook.pages import page_at
from nnref.report.page.subjects import ExperimentPages
from nnref.studies import run as runs
from nnref.training.setup import from_experiment

DONE = {"all_seeds": "valid_loss went from 1 to 0.2", "verdict": "well"}

FALL = {"train_loss": [1.0, 0.5, 0.1], "valid_loss": [1.0, 0.6, 0.2]}


def subject_of(*paths):
    return ExperimentPages([page_at(path) for path in paths])


def untrained(tmp_path, **keys):
    """A network as it starts, and its page."""
    subject = subject_of(write_page(tmp_path, "some", FALL, facts=DONE, **keys))
    experiment = subject.experiment
    task, setup, dataset = from_experiment(experiment)
    params, state = task.functions.init(jax.random.key(0))
    page = subject.pages[0]
    return subject, runs.Trained(page, experiment, task, setup, dataset, params, state)
