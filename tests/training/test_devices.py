"""One run on several devices: the gradients and losses of a single one, whatever divides."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import XOR

import nnref
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.studies.groups import parse_sweep
from nnref.training import devices

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What eight devices have computed: a network with batch normalization, 200 steps."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    folder = tmp_path_factory.mktemp("devices")
    done = subprocess.run(
        [sys.executable, str(HERE / "on_eight_devices.py"), str(folder)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_gradient_of_an_uneven_batch_is_that_of_one_device(answers):
    apart = {each["gradient"]: each["apart"] for each in answers if "gradient" in each}
    assert set(apart) == {2, 4, 8}
    assert max(apart.values()) < 1e-6


def test_200_steps_have_the_losses_of_one_device(answers):
    """With the last batch of each epoch uneven; also after a move in the midst, and in a stream."""
    losses = {each["losses"]: each["values"] for each in answers if "losses" in each}
    expected = losses.pop(1)
    assert set(losses) == {2, "all", "4 shards, then 2 devices", "stream"}
    assert expected[0] > 1.1 * expected[-1]
    for values in losses.values():
        np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_parameters_and_optimizer_lie_in_shares(answers):
    shards = {each["shards"]: each["axes"] for each in answers if "shards" in each}
    for name in ("params", "opt_state"):  # of one run, (1, ...)
        assert [1, 2, 16, None, None, "data"] in shards[name]  # by its largest axis
        assert [1, 16, 3, None, "data"] in shards[name]
        assert [1, 3] in shards[name]  # three numbers do not divide by four


def test_more_devices_than_there_are():
    with pytest.raises(
        UserError, match=r"devices: 4 asked for, and there is 1 \(cpu\); XLA_FLAGS="
    ):
        nnref.run(Experiment(**XOR, devices=4), logbook=None)


def test_all_devices_of_one_are_no_mesh():
    assert devices.count_of("all") == 1
    assert devices.facts("all") == {}


def test_how_many_devices_is_no_part_of_the_identity():
    plain, many = Experiment(**XOR), Experiment(**XOR, devices="all", shard="params")
    assert many.identity == plain.identity
    assert many.structure == plain.structure
    assert '"devices": "all"' in many.to_json()


@pytest.mark.parametrize("devices", [0, -1, 2.0, "some"])
def test_what_is_no_number_of_devices(devices):
    with pytest.raises(UserError, match="devices"):
        Experiment(**XOR, devices=devices)


def test_a_sweep_is_refused():
    content = XOR | {"devices": 2, "sweep": {"axes": {"optimizer.learning_rate": [0.1, 0.2]}}}
    with pytest.raises(UserError, match="devices: the runs of a sweep"):
        parse_sweep(json.dumps(content))
