"""Small experiments, sweeps and an ablation that several tests run, and a kill in the middle."""

import json
from functools import partial

import numpy as np
import pytest

import nnref
from nnref.studies import listeners
from nnref.training import loop

# A model of a user, with what it imports beside it.
NET = """
from beside import WIDTH
from flax import nnx

class Net(nnx.Module):
    def __init__(self, inputs, outputs, *, rngs: nnx.Rngs):
        self.layer = nnx.Linear(*inputs, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, outputs, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.tanh(self.layer(x)))
"""

SPIRALS = {
    "about": "for the tests",
    "data": {"name": "spirals", "points": 20, "valid": 0.3, "test": 0.2},
    "model": {"name": "mlp", "hidden": [5]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.01},
    "batch_size": 8,
    "epochs": 6,
    "seeds": [0, 1],
}

XOR = {
    "about": "for the tests",
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
    "batch_size": 4,
    "epochs": 400,
    "seeds": {"count": 6},
    "claim": {"metric": "train_accuracy", "at_least": 1.0, "in": 3, "of": 6},
}

RATES = [0.1, 1.0, 1e30]  # the last one diverges: the loss is a square
XOR_SWEEP = {
    "about": "for the tests",
    "data": "xor",
    "model": {"name": "mlp", "hidden": [3], "activation": "relu"},
    "loss": "squared_error",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 100,
    "seeds": [0, 3],
    "sweep": {
        "axes": {
            "optimizer": ["sgd", {"name": "adam", "beta1": {"values": [0.8, 0.9]}}],
            "optimizer.learning_rate": RATES,
        }
    },
}

ABLATION = {
    "about": "for the tests",
    "data": {"name": "spirals", "points": 20, "valid": 0.3, "test": 0.2},
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "softmax_cross_entropy",
    "optimizer": "sgd",
    "batch_size": 28,
    "epochs": 30,
    "seeds": [0, 1],
    "sweep": {
        "axes": {
            "optimizer": ["sgd", {"name": "sgd", "momentum": 0.9}],
            "optimizer.learning_rate": [1.0, 1e-3, 1e-4],
        },
        "target": {"metric": "valid_loss", "at_most": 1.18},
    },
}


def pages(logbook, name="small"):
    """The files of the pages of a name."""
    return sorted((logbook / name).glob("*.json"))


def written(path, content, **keys):
    """Write a content with other keys into a file."""
    path.write_text(json.dumps(content | keys))
    return path


changed = partial(written, content=XOR_SWEEP)


def same_records(a, b):
    """Holds the records of two sweeps against each other, to the last bit."""
    assert a.keys() == b.keys()
    for job, record in a.items():
        assert record.ending == b[job].ending
        assert record.history.keys() == b[job].history.keys()
        for name, values in record.history.items():
            np.testing.assert_array_equal(values, b[job].history[name])


class CutShort(listeners.Listener):
    """Dies, as by a kill, when an epoch has been written."""

    def __init__(self, epoch):
        self.epoch = epoch

    def hears(self, chunk):
        if chunk.first >= self.epoch:
            raise RuntimeError("killed")


def run_killed(file, logbook, monkeypatch, epoch=3):
    """Leave the pages of a run that was killed when an epoch had been written, one a chunk."""
    monkeypatch.setattr(loop, "ROWS_BEFORE_TIMING", 0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHUNK", 0.0)
    with pytest.raises(RuntimeError, match="killed"):
        nnref.run(file, logbook=logbook, listener=CutShort(epoch))
