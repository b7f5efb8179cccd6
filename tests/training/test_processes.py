"""Processes that share a run: how they find each other, and that none is left when one dies."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import nnref
from nnref.errors import UserError
from nnref.logbook.pages import page_at
from nnref.training import processes
from nnref.training.processes import Address, Line, address_of, arrived, hello, join, welcomed

ROOT = str(Path(__file__).parents[2])
LOCAL = "127.0.0.1"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 1.0)


@pytest.fixture
def listener():
    with socket.create_server((LOCAL, 0)) as made:
        yield made


def place_of(listener):
    return Address(LOCAL, listener.getsockname()[1], socket.AF_INET)


def comes(listener, **differently):
    """Process 1 of 2 as it says hello, and what it is answered, in a list."""
    answers = []

    def come():
        line = Line(socket.create_connection(place_of(listener)[:2]))
        line.send(hello=hello(2, 1) | differently)
        answers.append(line.receive(5.0))
        line.close()

    thread = threading.Thread(target=come)
    thread.start()
    return thread, answers


@pytest.mark.parametrize("word", ["host", "host:", ":80", "host:port", "host:70000", "host:0"])
def test_an_address_that_is_none(word):
    with pytest.raises(UserError, match="allowed is host:port"):
        address_of(word)


def test_a_host_that_nobody_knows():
    with pytest.raises(UserError, match=r"--coordinator no\.such\.invalid:1234: "):
        address_of("no.such.invalid:1234")


@pytest.mark.parametrize("index", [2, -1])
def test_a_process_beyond_their_number(index):
    with pytest.raises(UserError, match=rf"--process {index}: allowed is 0 to 1, of --processes 2"):
        join(f"{LOCAL}:1234", 2, index)


def test_an_address_alone():
    with pytest.raises(UserError, match="give --processes and --process as well"):
        join(f"{LOCAL}:1234", None, None)


def test_a_port_in_use():
    with (
        socket.create_server(("", 0)) as taken,
        pytest.raises(UserError, match="address already in use; choose another port"),
    ):
        join(f"{LOCAL}:{taken.getsockname()[1]}", 2, 0)


def test_nobody_answers(listener):
    listener.close()
    with pytest.raises(UserError, match="nobody answered for 1 s; start process 0"):
        arrived(Address(LOCAL, 9, socket.AF_INET), 2, 1)


def test_a_process_that_does_not_come(listener):
    with pytest.raises(UserError, match="process 1, 2 of 3 did not come within 1 s"):
        welcomed(listener, 3)


def test_all_come_and_a_stranger_is_left_out(listener):
    with socket.create_connection(place_of(listener)[:2]) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        thread, answers = comes(listener)
        lines = welcomed(listener, 2)
    thread.join()
    assert list(lines) == [1]
    lines[1].close()
    assert answers == [{"go": True}]


@pytest.mark.parametrize(
    ("differently", "words"),
    [
        ({"versions": {**hello(2, 1)["versions"], "jax": "0.1"}}, "process 1 has jax 0.1, process"),
        ({"count": 3}, "process 1 has --processes 3, process 0 has 2"),
    ],
)
def test_another_version_or_number_is_refused_at_both_ends(listener, differently, words):
    thread, answers = comes(listener, **differently)
    with pytest.raises(UserError, match=words):
        welcomed(listener, 2)
    thread.join()
    assert words in answers[0]["failed"]


def test_values_come_in_the_order_of_the_processes_until_one_dies(listener, monkeypatch, capfd):
    codes, there = [], {}
    monkeypatch.setattr(processes, "leave", codes.append)
    monkeypatch.setattr(processes, "LEAVING", 0.1)
    thread = threading.Thread(target=lambda: there.update(arrived(place_of(listener), 2, 1)))
    thread.start()
    lines = welcomed(listener, 2)
    thread.join()
    zero, one = processes.Processes(0, 2, lines), processes.Processes(1, 2, there)
    found = []
    thread = threading.Thread(target=lambda: found.append(one.gathered("one")))
    thread.start()
    assert zero.gathered("zero") == ["zero", "one"]
    thread.join()
    assert found == [["zero", "one"]]
    there[0].connection.shutdown(socket.SHUT_RDWR)  # as the kernel does for a process that dies
    for line in (lines[1], there[0]):
        assert line.closed.wait(5)
    for each in (zero, one):
        assert each.leaving.wait(5)
    time.sleep(0.3)
    assert codes == [2, 2]
    said = capfd.readouterr().err
    assert "nnref: process 0 of this run has died" in said
    assert "nnref: process 1 of this run has died" in said
    lines[1].close()
    there[0].close()


# --- a whole run, of two processes with two devices each ------------------------------------------

RUN = {
    "data": {"name": "spirals", "points": 20, "valid": 0.3},  # 28 rows: 10, 10 and 8
    "model": {"name": "mlp", "hidden": [8]},
    "loss": "squared_error",
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
    "regularization": {"normalization": "batch"},
    "batch_size": 10,
    "epochs": 3000,
    "probes": "off",
    "metrics": [],
}
# Chunks and checkpoints so short that a kill is met with both.
COMMAND = f"""
import sys
sys.path.insert(0, {ROOT!r})
import nnref.studies.run as run
from nnref.cli import main
from nnref.training import loop
run.SECONDS_BETWEEN_CHECKPOINTS = 0.2
loop.SECONDS_PER_CHUNK = 0.02
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def running():
    """Processes that are ended with the test."""
    begun = []
    yield begun
    for each in begun:
        each.kill()
        each.communicate()


def started(path, logbook, index, port):
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    several = ("--coordinator", f"{LOCAL}:{port}", "--processes", "2", "--process", str(index))
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", str(path), "--logbook", str(logbook), *several],
        env=os.environ | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.create_server((LOCAL, 0)) as made:
        return made.getsockname()[1]


def wait_for_checkpoint(logbook, running):
    """Wait until a run has kept a state after its start."""
    while not any(int(path.name[6:]) for path in logbook.glob("*/checkpoints/*/epoch-*[0-9]")):
        assert all(each.poll() is None for each in running), [e.communicate() for e in running]
        time.sleep(0.02)


def test_a_process_dies_and_the_run_goes_on_alone(tmp_path, running):
    """Also that what two processes of two devices write are the losses of one device."""
    path, logbook, port = tmp_path / "small.json", tmp_path / "logbook", free_port()
    path.write_text(json.dumps(RUN))
    running += [started(path, logbook, index, port) for index in range(2)]
    wait_for_checkpoint(logbook, running)
    killed = time.monotonic()
    running[1].send_signal(signal.SIGKILL)
    _, said = running[0].communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert running[0].returncode == 2
    assert re.search(r"nnref: process 1 of this run has died.*; the same command goes on", said)
    (page,) = map(page_at, logbook.glob("small/*-seed0.json"))
    assert page.facts["devices"] == "4"
    assert not page.complete
    goes_on = nnref.run(path, logbook=logbook)
    assert (goes_on.records[0].page, goes_on.records[0].epochs) == (page.path, RUN["epochs"])
    ended = page_at(page.path)
    assert ended.facts["moved"] == "to 1 device(s)"
    expected = nnref.run(path, logbook=None).history
    for name, values in ended.history.items():
        np.testing.assert_allclose(values[:70], expected[name][0][:70], rtol=1e-5)  # 210 steps
        np.testing.assert_allclose(values, expected[name][0], rtol=1e-3)  # rounding adds up


def test_what_one_process_has_not_ends_both(tmp_path, running):
    port = free_port()
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        table = {"name": "file", "path": str(folder / "rows.csv"), "target": "y"}
        (folder / "small.json").write_text(json.dumps(RUN | {"data": table}))
        started_there = started(folder / "small.json", tmp_path / "logbook", index, port)
        running.append(started_there)
    rows = [f"{x},{x % 3}\n" for x in range(60)]
    (tmp_path / "0" / "rows.csv").write_text("x,y\n" + "".join(rows))
    for each in running:
        _, said = each.communicate(timeout=60)
        assert each.returncode == 2
        assert re.search(r"nnref: process 1: .*rows\.csv", said)
        assert "Traceback" not in said
    assert not (tmp_path / "logbook").exists()
