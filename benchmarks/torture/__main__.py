"""Kills, torn pages, damaged files, many processes, full disks, made-up inputs: is anything lost?

    python -m benchmarks.torture --kills 200 --torn 40 --damaged 100 --disks 40 --rights 40

Everything is drawn from `--seed`, in a folder of its own, and harmless outside of it. A figure is
printed for each part; the exit code is 1 where anything was lost, wrong without a word, or ended in
a traceback. `make torture` runs it.
"""

import argparse
import contextlib
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import made_up_inputs, odd_tasks
from benchmarks.torture.common import Failures, called
from benchmarks.torture.damage import damaged, torn
from benchmarks.torture.kills import kills
from benchmarks.torture.places import disks, processes, rights
from nnref.training.compilation import drop_programs

COUNTS = {"kills": 200, "torn": 40, "damaged": 100, "processes": 16, "rounds": 20, "disks": 40}
COUNTS |= {"rights": 40, "inputs": 20_000, "tasks": 2_000}


# What one input may take.
CPU_SECONDS = 60
MEGABYTES = 4096


class Costs:
    """The dearest call, in seconds of the processor, and the memory that calls added at the peak.

    What was held before is not theirs: a process may have tested other things.
    """

    def __init__(self) -> None:
        self.seconds, self.failures, self.before = 0.0, Failures(), held()

    @contextlib.contextmanager
    def of(self, what: object) -> Iterator[None]:
        """Measure a call; it fails where it took more than an input may."""
        began = time.process_time()
        yield
        seconds = time.process_time() - began
        self.seconds = max(self.seconds, seconds)
        if seconds > CPU_SECONDS:
            self.failures.append(f"{what}: {seconds:.0f} s of the processor")

    def memory(self) -> Failures:
        """A failure where the calls have made this process hold more than one of them may."""
        more = held() - self.before
        return [f"{more} MB more were held than before"] if more > MEGABYTES else []

    def __str__(self) -> str:
        more = held() - self.before
        return f"at most {self.seconds:.1f} s of the processor each, {more} MB more at the peak"


def held() -> int:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def inputs(count: int, seed: int, folder: Path) -> tuple[str, Failures]:
    """Made-up experiments, sweeps, pages, tables, archives and command lines."""
    costs = Costs()

    def measured(*arguments: object) -> tuple[int, str]:
        with costs.of(arguments):
            return called(*arguments)

    codes, failures = made_up_inputs.asked(count, seed, folder, measured)
    parts = ", ".join(f"{number} with {code}" for code, number in sorted(codes.items()))
    line = f"{sum(codes.values())} made-up inputs ended: {parts}; {costs}"
    return line, failures + costs.failures + costs.memory()


def tasks(count: int, seed: int) -> tuple[str, Failures]:
    """Odd tasks through `nnref.diagnose`, several oddities in each."""
    failures, costs = Failures(), Costs()
    for number in range(count):
        names = odd_tasks.drawn(seed + number)
        with costs.of(names):
            _, own = odd_tasks.answer(names)
        failures += [f"{names}: {line[-400:]}" for line in own]
        if number % 20 == 0:
            drop_programs()  # they are kept for the next task, of which there is one for a user
    line = f"{count} odd tasks diagnosed; {costs}"
    return line, failures + costs.failures + costs.memory()


def parts(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Failures]]:
    """Each part that is asked for, in a folder of its own."""
    made: dict[str, Callable[[random.Random, Path], tuple[str, Failures]]] = {
        "kills": lambda draw, place: kills(options.kills, draw, place),
        "torn": lambda draw, place: torn(options.torn, draw, place),
        "damaged": lambda draw, place: damaged(options.damaged, draw, place),
        "processes": lambda draw, place: processes(options.processes, options.rounds, draw, place),
        "disks": lambda draw, place: disks(options.disks, draw, place),
        "rights": lambda draw, place: rights(options.rights, draw, place),
        "inputs": lambda draw, place: inputs(options.inputs, options.seed, place),
        "tasks": lambda draw, place: tasks(options.tasks, options.seed),
    }
    for name, part in made.items():
        if getattr(options, name):
            place = folder / name
            place.mkdir()
            yield part(random.Random(f"{options.seed} {name}"), place)


def main(arguments: list[str] | None = None) -> int:
    """Print a figure for each part; 1 where any has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    failed = 0
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        began = time.monotonic()
        for line, failures in parts(options, Path(place)):
            seconds, began = time.monotonic() - began, time.monotonic()
            print(f"{line}; {len(failures)} failures ({seconds:.0f} s)", flush=True)
            for failure in failures[:10]:
                print(f"  {failure}", flush=True)
            failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
