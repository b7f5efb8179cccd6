"""Seconds of an epoch on one device, on two of one process, and on two processes of one device.

    python tools/devices.py [--rounds 3]

The devices are shares of this machine's processor. The forms take turns; printed is the median.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from nnref.cli import main as nnref
from nnref.report.terminal import terminal
from nnref.training import loop

SHAPES = {
    "digits_mlp, batches of 32": ["digits_mlp", "--epochs", "200"],
    "digits_mlp, batches of 512": ["digits_mlp", "--epochs", "1000", "--set", "batch_size=512"],
    "digits_convnet, batches of 32": ["digits_convnet", "--epochs", "6"],
    "digits_convnet, batches of 512": [
        "digits_convnet",
        "--epochs",
        "6",
        "--set",
        "batch_size=512",
    ],
}
FORMS = {"one device": (1, 1), "two devices": (1, 2), "two processes": (2, 1)}
COMMON = ["--no-logbook", "--seed", "0", "--set", "claim=[]", "--set", "probes=off"]


class Timer(terminal.TerminalListener):
    """Times the epochs after the first chunk, in which the program was compiled."""

    first: tuple[float, int] | None = None
    last = 0.0, 0

    def hears(self, chunk: loop.Chunk) -> None:
        """Note when so many epochs were done."""
        self.last = time.perf_counter(), chunk.first + len(chunk.active)
        if self.first is None and chunk.first > 0:
            self.first = self.last

    def ends(self) -> None:
        """Print the seconds of an epoch."""
        assert self.first is not None, "at least two chunks were trained"
        (began, before), (ended, after) = self.first, self.last
        print(f"epoch {(ended - began) / (after - before)}", flush=True)


def timed(shape: list[str], processes: int, devices: int) -> float:
    """Seconds of an epoch of an experiment, in processes of their own."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [*shape, *COMMON, *(["--set", "devices=all"] if devices > 1 else [])]
    started = []
    for index in range(processes):
        several = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(processes)]
        several += ["--process", str(index)]
        started.append(
            subprocess.Popen(
                [sys.executable, __file__, "--train", *words, *(several if processes > 1 else [])],
                env=os.environ | {"XLA_FLAGS": flags},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    said = [each.communicate()[0] for each in started]
    return next(float(line.split()[1]) for line in said[0].splitlines() if line[:6] == "epoch ")


def main() -> int:
    """Measure, and print a row for each experiment."""
    if sys.argv[1:2] == ["--train"]:
        changed: Any = terminal
        changed.TerminalListener = Timer
        return nnref(["run", *sys.argv[2:]])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"milliseconds of an epoch, median of {rounds}; load {os.getloadavg()[0]:.1f}")
    print(f"{'':32}" + "".join(f"{name:>16}" for name in FORMS), flush=True)
    for name, shape in SHAPES.items():
        found: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(rounds):
            for form, sizes in FORMS.items():
                found[form].append(1000 * timed(shape, *sizes))
        cells = "".join(f"{statistics.median(times):16.2f}" for times in found.values())
        print(f"{name:32}{cells}  load {os.getloadavg()[0]:.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
