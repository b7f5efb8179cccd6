"""A healthy and a broken model of every library, named by an experiment file: run and checked.

`docs/your_network.md`, which its own tests run, has both diagnosed.
"""

import json

import numpy as np
import pytest

import nnref

ROWS = """
import jax
import jax.numpy as jnp
import numpy as np

def rows():
    x = np.random.default_rng(0).normal(size=(160, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int32)
    return {"train": (x[:128], y[:128]), "valid": (x[128:], y[128:])}
"""
NNX = """
from flax import nnx

class Healthy(nnx.Module):
    def __init__(self, outputs, *, rngs):
        self.hidden, self.logits = nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, outputs, rngs=rngs)

    def __call__(self, x):
        return self.logits(nnx.relu(self.hidden(x)))

class Broken(Healthy):
    def __call__(self, x):
        return jnp.round(super().__call__(x))
"""
LINEN = """
from flax import linen

Healthy = linen.Sequential([linen.Dense(16), linen.relu, linen.Dense(2)])

class Broken(linen.Module):
    @linen.compact
    def __call__(self, x):
        return jnp.round(linen.Dense(2)(linen.relu(linen.Dense(16)(x))))
"""
EQUINOX = """
import equinox as eqx

class Rounded(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x):
        return jnp.round(self.net(x))

def Healthy(key):
    return eqx.nn.MLP(4, 2, 16, 1, key=key)

def Broken(key):
    return Rounded(Healthy(key))
"""
KERAS = """
import keras

layers = keras.layers
Healthy = keras.Sequential([keras.Input((4,)), layers.Dense(16, "relu"), layers.Dense(2)])
Broken = keras.Sequential([*Healthy.layers, layers.Lambda(keras.ops.round)])
Broken.build((None, 4))
"""
HAIKU = """
import haiku as hk

def net(x):
    return hk.nets.MLP([16, 2])(x)

Healthy = hk.transform(net)
Broken = hk.transform(lambda x: jnp.round(net(x)))
"""
CODE = {"flax.nnx": NNX, "flax.linen": LINEN, "equinox": EQUINOX, "keras": KERAS, "haiku": HAIKU}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", CODE)
def test_a_model_goes_through_every_door(library, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip(library)
    (tmp_path / "mine.py").write_text(ROWS + CODE[library])
    keys = {
        "data": "mine.py:rows",
        "loss": "softmax_cross_entropy",
        "optimizer": {"name": "adam", "learning_rate": 0.02},
        "batch_size": 32,
        "epochs": 8,
        "probes": "off",
    }
    for name in ("Healthy", "Broken"):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(keys | {"model": f"mine.py:{name}"}))
        history = nnref.run(path, logbook=None).history
        if name == "Healthy":
            assert history["valid_accuracy"][0, -1] > 0.85
            assert nnref.checks.all_parameters_train(path)
        else:
            assert np.ptp(history["train_loss"]) < 1e-5
            with pytest.raises(AssertionError, match="gradient"):
                nnref.checks.all_parameters_train(path)
