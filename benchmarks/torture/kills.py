"""Runs killed in the middle, and gone on with."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.torture.common import LONG, Failures, called, process, results, written
from nnref.data import catalog, raw

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
