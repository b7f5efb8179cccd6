"""A logbook and a trained network, for several files of tests."""

import pytest
from logbooks import EXPERIMENT, write_page
from subjects import DONE, FALL, subject_of

from nnref.experiment.experiment import Experiment
from nnref.report.page.about_networks import network_of
from nnref.studies import run as runs


@pytest.fixture
def logbook(tmp_path):
    """Two experiments called `some`, the first with two seeds, and one called `other`."""
    for seed in (1, 0):
        write_page(tmp_path, "some", FALL, seed, facts=DONE)
    write_page(tmp_path, "some", FALL, facts=DONE, batch_size=2)
    write_page(tmp_path, "other", FALL, facts=DONE, epochs=9)
    return tmp_path


@pytest.fixture(scope="session")
def trained_digits(tmp_path_factory):
    """A run on digits that still makes mistakes, and its network."""
    folder = tmp_path_factory.mktemp("digits")
    keys = {"data": "digits", "loss": "softmax_cross_entropy", "batch_size": 32, "epochs": 1}
    experiment = Experiment(**EXPERIMENT | keys | {"seeds": [3]})
    (record,) = runs.run(experiment, logbook=folder).records
    subject = subject_of(record.page)
    net = network_of(subject)
    assert not isinstance(net, str), net
    return subject, net
