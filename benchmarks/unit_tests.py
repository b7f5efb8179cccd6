"""How many planted faults a file of unit tests catches that was written for the healthy twin.

    python -m benchmarks.unit_tests --faults 30 --report caught.jsonl

Of a few healthy set-ups (`benchmarks/mutants`) `nnref unit-tests` writes a file each; it must pass
for the healthy one. Then one fault at a time is planted, and the same file is run.
"""

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import benchmarks.unit_tests as here
from benchmarks.diagnose_faults import recipe_of
from benchmarks.mutants.draw import draw_setup, generator
from benchmarks.mutants.faults import FAULTS
from benchmarks.mutants.program import program_of
from nnref.checks.writing import unit_tests
from nnref.diagnosis.recipe import Recipe
from nnref.errors import UserError
from nnref.training.compilation import use_cache

TASK = "benchmarks.unit_tests:make_task"
TURNS = 4  # set-ups that share the faults
setup = None  # the one that `make_task` makes a task of


def make_task() -> Recipe:
    return recipe_of(program_of(here.setup))


def failing(path: Path) -> tuple[str, float]:
    """The first test of a file that fails, "" where all pass, and the seconds of the process."""
    failed = []

    class Listener:
        def pytest_runtest_logreport(self, report):
            if report.failed:
                failed.append(report.nodeid.rpartition("::")[2])

    began = time.process_time()
    options = [
        "-q",
        "-x",
        "--no-header",
        "--no-summary",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
    ]
    pytest.main([str(path), *options], plugins=[Listener()])
    return (failed[0] if failed else ""), time.process_time() - began


def faults_of(healthy, draw, known):
    """Faults that apply to a set-up as it is, one of each cause, in a drawn order."""
    for place in draw.permutation(len(FAULTS)):
        fault = FAULTS[int(place)]
        faulty = None if fault.cause in known else fault.plant(healthy, draw)
        if faulty is not None and not isinstance(faulty, tuple):
            known.add(fault.cause)
            yield fault, faulty


def healthy_ones(folder: Path, first: int):
    """Set-ups for which a file can be written, and the file: those whose properties hold."""
    seed = first
    while True:
        here.setup = draw_setup(generator(seed, 17))
        path = folder / f"test_{seed}.py"  # a module of another name each time
        try:
            unit_tests(TASK, path)
        except UserError as error:
            print(f"seed {seed}: {str(error).splitlines()[-1]}")
        else:
            yield seed, path, here.setup
        seed += 1


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--faults", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--report", type=Path, default=Path("unit_tests.jsonl"))
    asked = options.parse_args()
    use_cache()
    lines, known = [], set()
    with TemporaryDirectory() as folder, asked.report.open("w") as report:
        for seed, path, healthy in healthy_ones(Path(folder), asked.seed):
            name, seconds = failing(path)
            about = f"seed {seed}, {healthy.source}, {healthy.family}"
            print(f"{about}: healthy {name or 'passes'}, {seconds:.0f} s", flush=True)
            report.write(json.dumps({"seed": seed, "healthy": name, "seconds": seconds}) + "\n")
            if name:
                continue
            each = faults_of(healthy, generator(seed, 18), known)
            for fault, here.setup in islice(each, -(-asked.faults // TURNS)):
                name, seconds = failing(path)
                lines.append({"seed": seed, "cause": fault.cause, "way": fault.way, "caught": name})
                report.write(json.dumps(lines[-1] | {"seconds": seconds}) + "\n")
                report.flush()
            if len(lines) >= asked.faults:
                break
    caught = sum(bool(line["caught"]) for line in lines)
    print(f"{caught} of {len(lines)} faults are caught")


if __name__ == "__main__":
    main()
