"""Records of a sweep: its plan, and the ranking of its variants."""

import numpy as np
import pytest
from small import XOR_SWEEP, changed

from nnref.errors import UserError
from nnref.studies import sweep
from nnref.studies.sweep_record import plan_sweep

CONTENT = XOR_SWEEP  # of `file`: nine variants in two groups


def test_what_diverges_stops_nothing_else(file):
    swept = sweep.sweep(file, logbook=None)
    wild = [n for n, v in enumerate(swept.variants) if v.experiment.optimizer.learning_rate > 1]
    for number in range(9):
        for record in swept.of(number):
            assert record.diverged == (number in wild)
            assert (record.epochs < 100) == (number in wild)
    assert swept.diverged == 6
    assert swept.final(wild[0]) == np.inf
    assert set(swept.ranking[-3:]) == set(wild)
    assert swept.ranking[0] not in wild
    assert "6 of 18 runs diverged" in swept.sentence


HALVED = {
    "axes": {"optimizer.learning_rate": [1e30, 1e-3, 3e-3, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4]},
    "halving": {"rungs": [1, 3, 9]},
}


def test_halving_needs_validation(file):
    data = {"name": "spirals", "points": 10, "valid": 0.0, "test": 0.0}
    keys = {"data": data, "loss": "softmax_cross_entropy", "sweep": HALVED}
    with pytest.raises(UserError, match="survivors are chosen on the validation loss"):
        plan_sweep(changed(file, **keys))
