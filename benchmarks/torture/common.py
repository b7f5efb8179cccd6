"""What every part of the torture needs: small experiments, commands, and what came out of them."""

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from nnref.cli import main as nnref
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
ROOT = str(Path(__file__).parents[2])
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
