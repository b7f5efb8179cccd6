"""Losses do not depend on the version of JAX.

The kept curves come from jax 0.10.2 on an x86 CPU. To write them anew, with that version:

    python tests/training/test_versions.py
"""

import json
from pathlib import Path

import numpy as np
import pytest

import nnref
from nnref.experiment import parse

CURVES = Path(__file__).parents[1] / "fixtures" / "curves.json"
ADAM = {"name": "adam", "learning_rate": 0.002}
# Two hundred updates each; the second draws weights and the order of its batches.
EXPERIMENTS = {
    "xor": {
        "data": "xor",
        "model": {"name": "mlp", "hidden": [4]},
        "loss": "sigmoid_cross_entropy",
        "optimizer": ADAM | {"learning_rate": 0.02},
        "batch_size": 4,
        "epochs": 200,
    },
    "digits": {
        "data": "digits",
        "model": {"name": "mlp", "hidden": [32], "activation": "relu"},
        "loss": "softmax_cross_entropy",
        "optimizer": ADAM,
        "batch_size": 32,
        "epochs": 5,
    },
}


def curve(name: str) -> list[float]:
    """The training loss, of ten epochs at most, to seven digits."""
    experiment = parse(json.dumps(EXPERIMENTS[name] | {"seeds": [0], "probes": "off"}))
    losses = nnref.run(experiment, logbook=None).history["train_loss"][0, 1:]
    return [float(f"{loss:.7g}") for loss in losses[:: -(-len(losses) // 10)]]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_losses_are_those_of_another_version(name):
    kept = json.loads(CURVES.read_text(encoding="utf-8"))[name]
    np.testing.assert_allclose(curve(name), kept, rtol=1e-5)


if __name__ == "__main__":
    lines = ",\n".join(f'"{name}": {json.dumps(curve(name))}' for name in EXPERIMENTS)
    CURVES.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
