"""How JAX is set, and how XLA is told to compile."""

import itertools
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from nnref.experiment.experiment import parse
from nnref.internals import WHOLE_LOOPS
from nnref.studies.run import plan_of, run
from nnref.training import compilation, loop, probing
from nnref.training.compilation import (
    compile_tiny_loops_whole,
    drop_programs,
    tiny_options,
    usual_settings,
)
from nnref.training.setup import from_experiment


def chunk_in_hlo(hidden, optimizer="sgd"):
    """The optimized program of a chunk of epochs, and whether it counts as tiny."""
    content = {"data": "xor", "model": {"name": "mlp", "hidden": hidden}, "batch_size": 4}
    content |= {"loss": "sigmoid_cross_entropy", "optimizer": optimizer, "epochs": 9}
    experiment = parse(json.dumps(content))
    task, setup, _ = from_experiment(experiment)
    plan, numbers = plan_of(experiment), experiment.hyperparameters
    data = jax.tree.map(jax.numpy.asarray, task.arrays | probing.probe_data(plan, task))
    states, _ = loop.start_runs(setup, plan, numbers, np.array([0], np.uint32), data)
    program = loop.chunk_program(loop.is_tiny(states, data))
    lowered = program.lower(setup, plan, 9, numbers, states, data, np.int32(1), np.int32(9))
    return lowered.compile().as_text(), loop.is_tiny(states, data)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a matter of XLA's CPU backend")
@pytest.mark.parametrize("hidden", [[4], [3, 5]], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_loop_of_a_tiny_network_is_one_piece(hidden, optimizer):
    """XLA promises no such option: where it is gone, XOR takes five times as long."""
    seen = "internals.WHOLE_LOOPS and WITHOUT_LIBRARIES, as in jaxlib 0.10.2 and 0.12.0.1"
    hlo, tiny = chunk_in_hlo(hidden, optimizer)
    assert tiny
    assert tiny_options(), f"XLA knows an option no more: {seen}"
    assert "xla_cpu_small_call" in hlo, f"the loop is in pieces: {seen}"


def test_a_larger_network_is_compiled_as_usual():
    _, tiny = chunk_in_hlo([600])
    assert not tiny


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, f"{WHOLE_LOOPS}=16384"),
        ("--xla_dump_to=here", f"--xla_dump_to=here {WHOLE_LOOPS}=16384"),
        ("--xla_backend_extra_options=a=1", "--xla_backend_extra_options=a=1"),
        (f"{WHOLE_LOOPS}=16384", f"{WHOLE_LOOPS}=16384"),
    ],
)
def test_the_options_of_the_user_stay(monkeypatch, given, expected):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    compile_tiny_loops_whole()
    assert os.environ["XLA_FLAGS"] == expected


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(
        "nnref.training.compilation.WITHOUT_LIBRARIES", {"xla_cpu_no_such_option": ""}
    )
    assert tiny_options() == {}


def test_what_stops_a_users_own_lines_stops_no_run():
    content = {"data": "xor", "model": {"name": "mlp", "hidden": [3]}, "batch_size": 4}
    content |= {"loss": "sigmoid_cross_entropy", "optimizer": "adam", "epochs": 3}
    experiment = parse(json.dumps(content | {"regularization": {"l2": 0.1}}))
    as_usual = run(experiment, logbook=None).history
    with (
        jax.debug_nans(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.transfer_guard("disallow"),
        jax.disable_jit(),
    ):
        strict = run(experiment, logbook=None).history
    assert as_usual.keys() == strict.keys()
    for name, values in as_usual.items():
        np.testing.assert_array_equal(strict[name], values)


def test_programs_are_let_go_before_the_system_refuses_more(monkeypatch, tmp_path):
    """XLA's LLVM ends the process where it gets no further mapping."""
    traced = []
    double = jax.jit(lambda x: traced.append(x) or 2 * x)

    def programs_of(act):
        """How often the function is traced before and after it."""
        traced.clear()
        double(1.0)
        act()
        double(1.0)
        return len(traced)

    double(1.0)
    assert programs_of(drop_programs) == 0, "far from the limit"
    most = tmp_path / "max_map_count"
    monkeypatch.setattr(compilation, "MOST_MAPPINGS", most)
    assert programs_of(drop_programs) == 0, "a system that has no such limit"
    most.write_text("10")
    assert programs_of(drop_programs) == 1

    def call():
        with usual_settings():
            pass

    monkeypatch.setattr(compilation, "calls", itertools.count())
    assert [programs_of(call) for _ in range(compilation.LOOKS)] == [0] * 19 + [1]


def test_the_command_says_that_a_platform_is_not_there():
    ended = subprocess.run(
        [sys.executable, "-m", "nnref", "run", "xor_small", "--no-logbook"],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "nonsense"},
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("nnref: JAX_PLATFORMS=nonsense: ")
    assert ended.stderr.count("\n") == 1
