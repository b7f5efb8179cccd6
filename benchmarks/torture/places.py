"""Logbooks that many processes write, that are full, or that may not be read or written."""

import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.torture.common import (
    COMMAND,
    ROOT,
    SMALL,
    SWEEP,
    Failures,
    called,
    results,
    written,
)
from nnref.logbook.pages import page_at

ROUNDS = f"""
import random, sys
sys.path.insert(0, {ROOT!r})
from benchmarks.torture.places import rounds_of
sys.exit(rounds_of(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
"""


def processes(count: int, rounds: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Runs, sweeps, `--again` and remarks of many processes: nothing is lost or unfinished."""
    logbook = folder / "logbook"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ROUNDS, str(draw.randrange(2**31)), str(rounds), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    said = [each.communicate()[0] for each in running]
    failures = [
        f"process {i}: {each.returncode}" for i, each in enumerate(running) if each.returncode
    ]
    noted = [line for text in said for line in text.splitlines() if line.startswith("remark ")]
    pages = [page for path in logbook.glob("*/*.json") if (page := page_at(path)) is not None]
    failures += [f"{page.path}: no verdict" for page in pages if not page.complete]
    kept = [note.partition(" ")[2] for page in pages for note in page.notes]
    remarks = sorted(note[note.index("remark ") :] for note in kept if "remark " in note)
    if remarks != sorted(noted):
        failures.append(f"{len(noted)} remarks were made, {len(remarks)} are there")
    if called("log", "--logbook", logbook)[0]:
        failures.append("nnref log")
    line = f"{count} processes, {rounds} rounds each: {len(pages)} pages, {len(noted)} remarks"
    return line, failures


def rounds_of(seed: int, rounds: int, place: str) -> int:
    """What one process does; it prints each remark that it has made, and gives the worst code."""
    draw, folder = random.Random(seed), Path(place)
    logbook, worst = folder / "logbook", 0
    for number in range(rounds):
        verb = draw.choice(("run", "again", "sweep", "note"))
        content = SMALL | {"epochs": 5, "seeds": [draw.randrange(4)]}
        path = written(folder, content | ({"sweep": SWEEP} if verb == "sweep" else {}), f"{seed}")
        path = path.rename(folder / f"{verb}.{seed}.json")
        pages = sorted(logbook.glob("*/*-seed*.json"))
        if verb == "note" and pages:
            remark = f"remark {seed} {number}"
            code, said = called("log", "note", draw.choice(pages), remark)
            if code == 0:
                print(remark)
        elif verb == "sweep":
            code, said = called("sweep", path, "--logbook", logbook)
        else:
            again = ["--again"] if verb == "again" else []
            code, said = called("run", path, "--logbook", logbook, *again)
        if code == 2 and "another process is writing" in said:
            code = 0  # said, and nothing was lost
        if code not in (0, 1):
            print(said, file=sys.stderr)
        worst = max(worst, 0 if code == 1 else abs(code))
    return worst


def disks(count: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Files that may not grow beyond a size: a sentence, and the same command goes on after it."""
    failures: Failures = []
    path, whole = written(folder, SMALL | {"epochs": 300}), folder / "whole"
    called("run", path, "--logbook", whole)
    expected, told = results(whole), 0
    largest = max(file.stat().st_size for file in whole.rglob("*") if file.suffix != ".png")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(count):
        logbook, size = folder / str(number), draw.randrange(largest)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            code, said = called("run", path, "--logbook", logbook)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        told += code == 2
        after, again = called("run", path, "--logbook", logbook)
        if code not in (0, 1, 2) or after not in (0, 1) or results(logbook) != expected:
            failures.append(f"{size} bytes: {code}, then {after}: {said[-300:]} {again[-300:]}")
        shutil.rmtree(logbook, ignore_errors=True)
    return f"{count} sizes of a full disk, {told} told; each run went on with room", failures


def rights(count: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Files and folders that may not be read or written: a sentence, and it goes on afterwards.

    Root may read and write everything; it is let go of that right by `setpriv`.
    """
    root = os.geteuid() == 0
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if root else []
    if root and shutil.which("setpriv") is None:
        return "0 rights taken away: root may do everything here, and there is no setpriv", []
    failures: Failures = []
    told = 0
    data = {"name": "file", "target": "b"}
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        table = place / "rows.csv"
        table.write_text("a,b\n" + "".join(f"{i % 2},{i % 3}\n" for i in range(30)))
        of = {"loss": "squared_error", "data": data | {"path": str(table)}}
        path, logbook = written(place, SMALL | of), place / "logbook"
        before, _ = called("run", path, "--logbook", logbook)
        expected = results(logbook)
        things = [path, table, *sorted(logbook.rglob("*")), logbook]
        thing, mode = things[number % len(things)], draw.choice((0o000, 0o000, 0o444, 0o555))
        usual = thing.stat().st_mode
        question = draw.choice((("run", path), ("run", path, "--again"), ("log",)))
        words = [*map(str, question), "--logbook", str(logbook)]
        thing.chmod(mode)
        try:
            asked = subprocess.run(
                [*bound, sys.executable, "-c", COMMAND, *words],
                capture_output=True,
                text=True,
            )
        finally:
            thing.chmod(usual)
        told += asked.returncode == 2
        after, said = called("run", path, "--logbook", logbook)
        if asked.returncode not in (0, 1, 2) or "Traceback" in asked.stderr:
            failures.append(f"{thing.name} {mode:o} {question[0]}: {asked.stderr[-600:]}")
        if after != before or results(logbook) != expected:
            failures.append(f"{thing.name} {mode:o} {question}: then {after}: {said[-300:]}")
        shutil.rmtree(place)
    return f"{count} rights to read or write taken away, {told} told; each run went on", failures
