"""Two devices: gradients that are averaged over them, and gradients that are not."""

import json
import os
import subprocess
import sys

PROGRAM = """
import functools, json, jax, jax.numpy as jnp, numpy as np, optax, nnref
from jax.sharding import Mesh, PartitionSpec as P
from loops import TX, X, Y, begun, squares

def update(averaged, axis, params, opt_state, x, y):
    value, gradient = jax.value_and_grad(squares)(params, x, y)
    if averaged:
        gradient = jax.lax.pmean(gradient, axis)
    updates, opt_state = TX.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, jax.lax.pmean(value, axis)

def causes(step, state, batches):
    found = nnref.examine(step, state, batches, steps=8)
    assert not found.mistakes, found.mistakes
    return [[finding.cause, finding.where] for finding in found.faults]

told = {}
twice = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), begun())
apart = [(X[i : i + 32].reshape(2, 16, 2), Y[i : i + 32].reshape(2, 16, 1)) for i in (0, 32, 64)]
same = [(np.stack([x[0]] * 2), np.stack([y[0]] * 2)) for x, y in apart]
for name, averaged, rows in (("apart", False, apart), ("mean", True, apart), ("same", False, same)):
    step = jax.pmap(functools.partial(update, averaged, "i"), axis_name="i")
    told[f"pmap {name}"] = causes(step, twice, rows)
mesh = Mesh(np.array(jax.devices()), ("i",))
for averaged in (False, True):
    step = jax.jit(jax.shard_map(
        functools.partial(update, averaged, "i"),
        mesh=mesh, in_specs=(P(), P(), P("i"), P("i")), out_specs=P(), check_vma=False,
    ))
    whole = [(X[i : i + 32], Y[i : i + 32]) for i in (0, 32, 64)]
    told[f"shard_map {averaged}"] = causes(lambda s, b: step(*s, *b), begun(), whole)
print(json.dumps(told))
"""


def test_gradients_that_are_never_averaged_over_the_devices():
    """Under pmap and shard_map; averaged ones, and the same rows on both devices, are healthy."""
    flags = "--xla_force_host_platform_device_count=2"
    paths = os.pathsep.join([os.getcwd(), os.path.join(os.getcwd(), "tests")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [cause for cause, _ in told["pmap apart"]] == ["devices_disagree"]
    assert [cause for cause, _ in told["shard_map False"]] == ["devices_disagree"]
    assert told["pmap mean"] == told["pmap same"] == told["shard_map True"] == []
