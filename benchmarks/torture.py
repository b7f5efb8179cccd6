"""Kills, torn pages, damaged files, many processes, full disks, made-up inputs: is anything lost?

    python -m benchmarks.torture --kills 200 --torn 40 --damaged 100 --disks 40 --inputs 20000

Everything is drawn from `--seed`, in a folder of its own, and harmless outside of it. A figure is
printed for each part; the exit code is 1 where anything was lost, wrong without a word, or ended in
a traceback. `make torture` runs it.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import made_up_inputs, odd_tasks
from nnref.cli import main as nnref
from nnref.data import catalog, raw
from nnref.logbook.pages import page_at, probes_path, sweep_page_at

SMALL = {
    "about": "Small enough to be run a thousand times.",
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4]},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "batch_size": 4,
    "epochs": 20,
    "seeds": [0, 1],
}
SWEEP = {"axes": {"optimizer.learning_rate": [0.1, 0.2]}}
# Long enough to be killed in the middle.
LONG = SMALL | {"data": "digits", "loss": "softmax_cross_entropy", "batch_size": 32, "epochs": 150}
RATES = {"optimizer.learning_rate": [0.05, 0.1, 0.2, 0.4]}
STREAMED = {"name": "tfds", "dataset": "mnist", "valid": 0.2, "stream": True}
KILLED = {
    "single": LONG,
    "patience": LONG | {"stop": {"metric": "valid_loss", "patience": 60}},
    "sweep": LONG | {"sweep": {"axes": RATES, "halving": {"rungs": [1, 3]}}},
    "stream": LONG | {"data": STREAMED, "batch_size": 7, "epochs": 20},
    "devices": LONG | {"devices": 2},  # which `process` makes of the processor
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ROOT = str(Path(__file__).parents[1])
# A command whose checkpoints and chunks are short, so that a kill meets all of them.
COMMAND = f"""
import sys
sys.path.insert(0, {ROOT!r})
import nnref.studies.run as run
from nnref.cli import main
from nnref.training import loop, stream
run.SECONDS_BETWEEN_CHECKPOINTS = 0.5
loop.SECONDS_PER_CHUNK = 0.05
stream.GROUP_BATCHES = 3
sys.exit(main(sys.argv[1:]))
"""
ROUNDS = f"""
import random, sys
sys.path.insert(0, {ROOT!r})
from benchmarks.torture import rounds_of
sys.exit(rounds_of(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
"""

COUNTS = {"kills": 200, "torn": 40, "damaged": 100, "processes": 16, "rounds": 20, "disks": 40}
COUNTS |= {"inputs": 20_000, "tasks": 2_000}
Failures = list[str]


def called(*arguments: object) -> tuple[int, str]:
    """Exit code and output of a command in this process; -1 for what is no exit of a command."""
    out = io.StringIO()
    with contextlib.redirect_stdout(Lines(out)), contextlib.redirect_stderr(out):
        try:
            code = nnref([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        except BaseException:
            code = -1
            traceback.print_exc(file=out)
    return code, out.getvalue()


class Lines(io.StringIO):
    """An output that may be set up as a terminal's is."""

    def __init__(self, out: io.StringIO) -> None:
        super().__init__()
        self.write = out.write

    def reconfigure(self, **how: str) -> None:
        """What the command asks of the real one."""


def written(folder: Path, content: Any, name: str = "small") -> Path:
    """An experiment file."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def results(logbook: Path) -> dict[str, Any]:
    """What the complete pages of a logbook say came out, by their names without a number."""
    found: dict[str, Any] = {}
    for path in sorted(logbook.glob("*/*.json")):
        page, swept = page_at(path), sweep_page_at(path)
        if page is not None and page.complete:
            history = {name: values.tobytes() for name, values in page.history.items()}
            layers = probes_path(path)
            measures = layers.read_bytes() if layers.exists() else b""
            name = "-".join(path.stem.split("-")[:2])
            found[name] = history, measures, page.facts.get("verdict")
        elif swept is not None and swept.complete:
            found[path.stem.split("-")[0]] = swept.variants, swept.facts.get("verdict")
    return found


# --- kills ----------------------------------------------------------------------------------------


def kills(count: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Runs killed in the middle, and gone on with: bit for bit those that were not."""
    failures: Failures = []
    met = 0
    few_images(folder / "data")
    for place, (kind, content) in enumerate(KILLED.items()):
        share = len(range(place, count, len(KILLED)))
        if not share:
            continue
        path = written(folder, content, kind)
        verb = "sweep" if "sweep" in content else "run"
        whole = folder / kind / "whole"
        process(verb, path, whole).wait()
        expected = results(whole)
        for number in range(share):
            logbook = folder / kind / str(number)
            with_what = draw.choice(SIGNALS)
            running = process(verb, path, logbook)
            wait_until(running, logbook, draw.randrange(content["epochs"]), verb == "run")
            met += running.poll() is None
            running.send_signal(with_what)
            running.wait()
            code, _ = called("log", "--logbook", logbook) if logbook.is_dir() else (0, "")
            again = process(verb, path, logbook)
            ended = again.wait()
            if code != 0 or ended not in (0, 1) or results(logbook) != expected:
                failures.append(f"{kind} {number}, {with_what.name}: log {code}, again {ended}")
            shutil.rmtree(logbook, ignore_errors=True)
    return f"{count} runs killed, {met} of them while they trained", failures


def process(verb: str, path: Path, logbook: Path) -> "subprocess.Popen[bytes]":
    """A command of its own, which finds the images that `few_images` has prepared."""
    flags = os.environ.get("XLA_FLAGS", "")
    if path.stem == "devices":
        flags += " --xla_force_host_platform_device_count=2"
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, verb, str(path), "--logbook", str(logbook)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TFDS_DATA_DIR": str(path.parent / "data"), "XLA_FLAGS": flags},
    )


def few_images(place: Path, train: int = 100, test: int = 25) -> None:
    """Prepare so many noisy images under the name of MNIST, to be streamed."""
    label = np.arange(train + test) % 10
    noise = np.random.default_rng(0).normal(20 * label[:, None, None], 40, (len(label), 28, 28))
    images = zip(np.clip(noise, 0, 255).astype(np.uint8), label, strict=True)
    rows = [{"image": raw.png(image), "label": k} for image, k in images]
    splits = {"train": rows[:train], "test": rows[train:]}
    own = raw.OWN["mnist"]._replace(
        examples=lambda _: {name: iter(part) for name, part in splits.items()}
    )
    with (
        mock.patch.dict(raw.OWN, mnist=own),
        mock.patch.object(raw, "raw_files", return_value={}),
    ):
        catalog.prepare("mnist", place)


def wait_until(
    running: "subprocess.Popen[bytes]", logbook: Path, epoch: int, by_lines: bool
) -> None:
    """Wait until a run has written so many epochs; a sweep writes none, and has some time."""
    while running.poll() is None:
        pages = list(logbook.glob("*/*-seed*.json" if by_lines else "*/*.json"))
        if pages and by_lines and pages[0].read_bytes().count(b"\n// ") > epoch + 10:
            return
        if pages and not by_lines:
            time.sleep(epoch / LONG["epochs"])
            return
        time.sleep(0.002)


# --- torn pages and damaged files -----------------------------------------------------------------


def torn(count: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Pages cut or filled with zeros, as power loss leaves them: the run goes on to its losses."""
    failures: Failures = []
    path, whole = written(folder, SMALL), folder / "whole"
    called("run", path, "--logbook", whole)
    expected = results(whole)
    for number in range(count):
        logbook = folder / str(number)
        shutil.copytree(whole, logbook)
        (page, *_) = sorted(logbook.glob("*/*-seed0.json"))
        content = page.read_bytes()
        cut = draw.randrange(len(content))
        end = draw.choice((b"", b"/", b"// ", bytes(draw.randrange(1, 5000)), b"\n", b"// 3 0."))
        page.write_bytes(content[:cut] + end)
        code, said = called("run", path, "--logbook", logbook)
        log, _ = called("log", "--logbook", logbook)
        if code != 0 or log != 0 or results(logbook) != expected:
            failures.append(f"cut at {cut}, then {end[:8]!r}: run {code}, log {log}: {said[-300:]}")
        shutil.rmtree(logbook)
    return f"{count} torn pages: each readable, with the losses of the whole run", failures


def damaged(count: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Files of every kind with a changed byte, cut, emptied or of zeros: none is believed."""
    failures: Failures = []
    whole, rows = folder / "whole", folder / "rows.csv"
    path, sweep = written(folder, SMALL), written(folder, SMALL | {"sweep": SWEEP}, "sweep")
    rows.write_text("x1,x2\n0,1\n1,1\n")
    questions = (
        ("run", path, "--json"),
        ("log", "--json"),
        ("sweep", sweep, "--json"),
        ("predict", path, rows, "--json"),
    )

    def answers(logbook: Path) -> list[tuple[int, Any]]:
        told = [called(*question, "--logbook", logbook) for question in questions]
        return [(code, said.replace(str(logbook), "")) for code, said in told]

    answers(whole)  # it trains, and answers what is asked from then on
    expected, kinds = answers(whole), {}
    files = [file for file in sorted(whole.rglob("*")) if file.is_file() and file.suffix != ".png"]
    told = 0
    for number in range(count):
        logbook = folder / str(number)
        shutil.copytree(whole, logbook)
        file = logbook / files[number % len(files)].relative_to(whole)
        kinds[file.suffix or file.name] = kinds.get(file.suffix or file.name, 0) + 1
        content = bytearray(file.read_bytes())
        change = draw.choice(("flip", "cut", "empty", "zeros", "digit"))
        place = draw.randrange(len(content)) if content else 0
        if change in ("flip", "digit") and content:
            content[place] ^= 1 << draw.randrange(8) if change == "flip" else 1
        cut = {"cut": content[:place], "empty": b"", "zeros": bytes(len(content))}
        file.write_bytes(cut.get(change, content))
        for question, (code, said), wanted in zip(
            questions, answers(logbook), expected, strict=True
        ):
            told += code == 2
            if code not in (0, 1, 2) or (code != 2 and not same(question[0], said, wanted[1])):
                failures.append(f"{file.name} {change} at {place}: {question[0]} {code}: {said}")
                failures.append(f"  instead of {wanted}")
        shutil.rmtree(logbook)
    parts = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return (
        f"{count} damaged files ({parts}); {told} answers refused, no other one changed",
        failures,
    )


def same(question: str, said: str, wanted: str) -> bool:
    """Whether an answer has the same numbers; what is skipped or trained again may be told."""
    one, other = (numbers_in(text) for text in (said, wanted))
    if question == "log" and one is not None and other is not None:
        # A page that is refused is missing, and what was trained again has another one.
        return all(any(alike(entry, each) for each in other) for entry in one)
    return alike(one, other)


def alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same but for the last digits of their numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return one == other


def numbers_in(text: str) -> Any:
    """The JSON of an answer, without what is told of times and paths."""
    lines = [line for line in text.splitlines() if line[:1] in "[{"]
    if not lines:
        return None
    content = json.loads(lines[-1])
    if isinstance(content, list):  # pages that were cut short are told, and have no verdict
        content = [entry for entry in content if entry.get("verdict")]
    return without_passing(content)


def without_passing(content: Any) -> Any:
    """JSON without times, paths, and the sentence that is made of both."""
    passing = {"seconds", "picture", "already_run", "page", "pages", "started", "verdict"}
    if isinstance(content, dict):
        return {k: without_passing(v) for k, v in content.items() if k not in passing}
    return [*map(without_passing, content)] if isinstance(content, list) else content


# --- many processes in one logbook ----------------------------------------------------------------


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


# --- disks ----------------------------------------------------------------------------------------


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


# --- inputs and tasks -----------------------------------------------------------------------------


def inputs(count: int, seed: int, folder: Path) -> tuple[str, Failures]:
    """Made-up experiments, sweeps, pages, tables, archives and command lines."""
    codes, failures = made_up_inputs.asked(count, seed, folder, called)
    parts = ", ".join(f"{number} with {code}" for code, number in sorted(codes.items()))
    return f"{sum(codes.values())} made-up inputs ended: {parts}", failures


def tasks(count: int, seed: int) -> tuple[str, Failures]:
    """Odd tasks through `nnref.diagnose`, several oddities in each."""
    failures: Failures = []
    for number in range(count):
        names = odd_tasks.drawn(seed + number)
        _, own = odd_tasks.answer(names)
        failures += [f"{names}: {line[-400:]}" for line in own]
    return f"{count} odd tasks diagnosed", failures


# --- all of it ------------------------------------------------------------------------------------


def parts(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Failures]]:
    """Each part that is asked for, in a folder of its own."""
    made: dict[str, Callable[[random.Random, Path], tuple[str, Failures]]] = {
        "kills": lambda draw, place: kills(options.kills, draw, place),
        "torn": lambda draw, place: torn(options.torn, draw, place),
        "damaged": lambda draw, place: damaged(options.damaged, draw, place),
        "processes": lambda draw, place: processes(options.processes, options.rounds, draw, place),
        "disks": lambda draw, place: disks(options.disks, draw, place),
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
