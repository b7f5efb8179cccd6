"""Speed of nnref beside PyTorch and Keras: the same work, side by side, in one run.

    python benchmarks/run.py            measure, print the tables, keep them in benchmarks/README.md
    python benchmarks/run.py --quick    see that it works: one repeat, nothing kept

Every contender starts from the same weights, makes the same updates from the same batches in the
same order, and records training and validation loss of every epoch. Before anything is timed their
curves are compared; where they do not agree, no ratio is printed.
"""

import argparse
import gc
import json
import os
import platform
import pty
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import nnref
from nnref.data import DataWarning
from nnref.experiment.experiment import Experiment, read
from nnref.studies.run import plan_of
from nnref.training import loop, probing
from nnref.training.compilation import compile_tiny_loops_whole
from nnref.training.setup import Setup, from_experiment
from nnref.training.task import Task

sys.path.insert(0, str(Path(__file__).parent))  # where a test loads this file by its path
from sweeps import measure_sweeps

PROJECT = Path(__file__).parent.parent
README = PROJECT / "benchmarks" / "README.md"
LAST = "## The last measurement\n"
PUBLIC_DOOR = "nnref.run"
PRIVATE = "private kernel"  # beneath PyTorch's optimizers; no target is measured against it

Curves = tuple[np.ndarray, np.ndarray]  # training and validation loss after each epoch
Contender = Callable[[], Callable[[], Curves]]  # prepares a run, gives the function to be timed

XOR = {
    "about": "XOR 2-4-1 (tanh), 2,000 full-batch steps of momentum SGD, validation after each",
    "data": "xor",
    "model": {"name": "mlp", "hidden": [4], "activation": "tanh"},
    "loss": "sigmoid_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
    "batch_size": 4,
    "epochs": 2000,
    "probes": "off",  # as nobody else measures layers
}
DIGITS = {
    "about": "digits 64-128-128-10 (relu), batch 32, Adam, 20 epochs, validation after each",
    "data": "digits",
    "model": {"name": "mlp", "hidden": [128, 128], "activation": "relu"},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.001},
    "batch_size": 32,
    "epochs": 20,
    "probes": "off",  # as nobody else measures layers
}
LSTM = {
    "about": "characters, 64 steps, LSTM of 128 units, batch 32, Adam, 4 epochs",
    "data": {"name": "python_topics", "window": 64, "valid": 0.05, "test": 0.8},
    "model": {
        "name": "recurrent",
        "cell": "lstm",
        "units": 128,
        "answer": "each",
        "embedding": 128,
    },
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.002},
    "batch_size": 32,
    "epochs": 4,
    "probes": "off",  # as nobody else measures layers
}
CONVNET = {
    "about": "images 28 x 28, conv 32, pool, conv 64, pool, dense 128, batch 128, Adam, 4 epochs",
    "data": {"name": "file", "path": "images.npz", "target": "digit", "valid": 0.07, "test": 0.0},
    "model": {"name": "convnet", "channels": [32, 64], "pool": 2, "hidden": [128]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.001},
    "batch_size": 128,
    "epochs": 4,
    "probes": "off",  # as nobody else measures layers
}


@dataclass(frozen=True)
class Work:
    """What every contender does: an experiment, and what nnref draws for it at random."""

    experiment: Experiment
    path: Path  # of its file
    tolerance: float  # |difference| of two losses / (loss + 1e-3) that rounding may cause
    target: float  # the public door is to be this many times as fast as the best of PyTorch
    task: Task
    setup: Setup
    params: dict[str, Any]  # the first weights, as the model names them
    orders: np.ndarray  # rows of the training data, (epochs, rows)

    @property
    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Kernel (fan_in, fan_out) and bias of every layer, for networks that have no others."""
        leaves = jax.tree.leaves(self.params)
        kernels, biases = ([leaf for leaf in leaves if leaf.ndim == n] for n in (2, 1))
        return list(zip(kernels, biases, strict=True))

    @property
    def updates(self) -> int:
        """Updates of the whole run."""
        return self.setup.steps


def work(content: Mapping[str, Any], folder: Path, *, tolerance: float, target: float) -> Work:
    """An experiment with the first weights and the batches that nnref draws from its seed."""
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(content))
    experiment = read(path)
    task, setup, _ = from_experiment(experiment)
    seed, plan = first_seed(experiment), plan_of(experiment)
    states, _ = loop.start_runs(setup, plan, experiment.hyperparameters, seed, on(task))
    params = jax.tree.map(lambda leaf: np.array(leaf[0]), states.params)
    rows = len(task.train.x)
    epochs = np.arange(1, experiment.epochs + 1)
    if experiment.batch_size < rows:
        keys = jax.vmap(lambda epoch: jax.random.fold_in(states.key[0], epoch))(epochs)
        orders = np.array(jax.vmap(lambda key: jax.random.permutation(key, rows))(keys))
    else:
        orders = np.tile(np.arange(rows), (len(epochs), 1))
    return Work(experiment, path, tolerance, target, task, setup, params, orders)


def digits_as_large_as_mnist(folder: Path) -> dict[str, Any]:
    """The convolutional network's experiment, on scikit-learn's digits enlarged to 28 x 28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    path = folder / CONVNET["data"]["path"]
    images = np.pad(np.kron(digits.images, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
    np.savez(path, x=images[..., None].astype(np.float32), digit=digits.target)
    return CONVNET | {"data": CONVNET["data"] | {"path": str(path)}}


def first_seed(experiment: Experiment) -> np.ndarray:
    return np.asarray(experiment.seeds[:1], np.uint32)


def on(task: Task) -> dict[str, Any]:
    """The data on the device, as the trainer puts it there."""
    return jax.device_put({"train": tuple(task.train), "valid": tuple(task.valid)})


# --- contenders ---------------------------------------------------------------------------------


def public_door(work: Work, logbook: Path) -> Contender:
    """Everything that a user's call does: file, data, training, history, pages of the logbook."""

    number = count()

    def prepare() -> Callable[[], Curves]:
        folder = logbook / str(next(number))  # or the lookup of earlier runs would grow

        def run() -> Curves:
            history = nnref.run(work.path, logbook=folder).history
            return history["train_loss"][0, 1:], history["valid_loss"][0, 1:]

        return run

    return prepare


def bare_program(work: Work, program: Callable[..., Any] = loop.train_chunk) -> Contender:
    """The compiled program alone, data on the device, from the seed to the history on the host."""
    hyperparameters, epochs = work.experiment.hyperparameters, work.experiment.epochs
    seed, plan, data = first_seed(work.experiment), plan_of(work.experiment), on(work.task)
    data |= jax.device_put(probing.probe_data(plan, work.task))

    def run() -> Curves:
        states, _ = loop.start_runs(work.setup, plan, hyperparameters, seed, data)
        ends = np.int32(1), np.int32(epochs)
        _, history, _ = program(work.setup, plan, epochs, hyperparameters, states, data, *ends)
        history = jax.device_get(history)
        return history["train_loss"][:, 0], history["valid_loss"][:, 0]

    return lambda: run


def contenders(work: Work, logbook: Path) -> tuple[dict[str, Contender], dict[str, str]]:
    """Everybody who is installed, and of the others why they are not there."""
    absent = {}
    there = {PUBLIC_DOOR: public_door(work, logbook), "nnref, the bare program": bare_program(work)}
    try:
        import pytorch

        there |= pytorch.variants(work, cores())
    except ImportError as error:
        absent["PyTorch"] = f"not measured: {error}"
    if work.experiment.model.name != "mlp":
        return there, absent | {"Keras on JAX": "not measured: only written for an MLP"}
    try:
        import keras_on_jax

        there[f"Keras {version('keras')} on JAX"] = keras_on_jax.contender(work)
    except ImportError as error:
        absent["Keras on JAX"] = f"not measured: {error}"
    return there, absent


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- agreement, then time -----------------------------------------------------------------------


def disagreement(work: Work, curves: Mapping[str, Curves]) -> dict[str, float]:
    """The largest relative difference of each contender's losses from those of `nnref.run`.

    Close to zero a loss is compared with 1e-3, or the rounding of its last digits would count.
    """
    expected = curves[PUBLIC_DOOR]
    return {name: max(map(largest_difference, each, expected)) for name, each in curves.items()}


def largest_difference(given: np.ndarray, ours: np.ndarray) -> float:
    """Of two curves, relative; infinite where one has other epochs or is not finite."""
    if given.shape != ours.shape or not np.isfinite([given, ours]).all():
        return float("inf")
    return float(np.max(np.abs(given - ours) / (np.abs(ours) + 1e-3)))


LONG_ENOUGH = 0.1  # seconds; what takes less is repeated and its mean taken


def seconds(there: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of a run; every round gives each contender a turn."""
    taken: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(rounds):
        for name, prepare in there.items():
            gc.collect()
            time.sleep(0.05)  # the threads of the one before spin a little before they sleep
            runs, spent = 0, 0.0
            while spent < LONG_ENOUGH:
                run = prepare()
                began = time.perf_counter()
                run()
                spent += time.perf_counter() - began
                runs += 1
            taken[name].append(spent / runs)
    return taken


@dataclass(frozen=True)
class Result:
    """A table, and whether the target beneath it was reached; None where it was not judged."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    target: str
    held: bool | None


def measure(work: Work, rounds: int, logbook: Path, console: Console) -> Result:
    """Compare the curves, and where they agree, the times."""
    there, absent = contenders(work, logbook)
    console.print(f"{work.experiment.about}: comparing the curves", style="dim")
    # This run also compiles, and warms every cache.
    curves = {name: prepare()() for name, prepare in there.items()}
    apart = disagreement(work, curves)
    agree = max(apart.values()) <= work.tolerance
    title = f"{work.experiment.about} ({work.updates:,} updates)"
    if not agree:
        columns = ("", "largest difference of a loss")
        rows = [(name, f"{value:.1e}") for name, value in apart.items()]
        why = f"loss curves must agree to {work.tolerance:g}: they do not, so nothing is compared"
        return Result(title, columns, rows, why, None)
    console.print(f"{work.experiment.about}: measuring", style="dim")
    taken = seconds(there, rounds)
    medians = {name: median(values) for name, values in taken.items()}
    torch = {name: m for name, m in medians.items() if name.startswith("PyTorch")}
    best = min((m for name, m in torch.items() if PRIVATE not in name), default=None)
    beneath = [m for name, m in torch.items() if PRIVATE in name]
    columns = ("", "ms, median", "fastest", "slowest", "µs an update", "times", "difference")
    rows = [
        (
            name,
            f"{1e3 * medians[name]:.1f}",
            f"{1e3 * min(values):.1f}",
            f"{1e3 * max(values):.1f}",
            f"{1e6 * medians[name] / work.updates:.1f}",
            f"{best / medians[name]:.2f}" if best else "-",
            f"{apart[name]:.0e}",
        )
        for name, values in taken.items()
    ]
    rows += [(name, why, *[""] * (len(columns) - 2)) for name, why in absent.items()]
    ratio = best / medians[PUBLIC_DOOR] if best else float("nan")
    target = f"{PUBLIC_DOOR} at least {work.target:g} times as fast as the best of PyTorch: "
    target += f"{ratio:.1f} times" if best else "PyTorch is not there"
    if beneath:
        target += (
            f" ({min(beneath) / medians[PUBLIC_DOOR]:.1f} times its {PRIVATE} called directly)"
        )
    return Result(title, columns, rows, target, ratio >= work.target if best else None)


# --- tiny loops ---------------------------------------------------------------------------------

WHOLE = 1.5  # times as fast as in pieces, at least: three to eight times where the options work


def whole_and_in_pieces(work: Work, rounds: int, console: Console) -> Result:
    """The loop over a tiny network as one piece of machine code, beside the same with options off.

    Nothing else would tell that XLA still accepts the options and does nothing with them.
    """
    console.print(f"{work.experiment.about}: measuring the loop whole and in pieces", style="dim")
    there = {
        "one piece of machine code": bare_program(work, loop.chunk_program(tiny=True)),
        "in pieces, the options off": bare_program(work, loop.chunk_program(tiny=False)),
    }
    for prepare in there.values():
        prepare()()  # compiles
    taken = seconds(there, rounds)
    columns = ("", "µs an epoch, median", "fastest", "slowest")
    epochs = work.experiment.epochs
    rows = [
        (name, *(f"{1e6 * f(values) / epochs:.2f}" for f in (median, min, max)))
        for name, values in taken.items()
    ]
    whole, pieces = map(median, taken.values())
    target = f"at least {WHOLE:g} times as fast in one piece: {pieces / whole:.1f} times"
    return Result("XOR: the loop over epochs", columns, rows, target, pieces >= WHOLE * whole)


# --- probes -------------------------------------------------------------------------------------

PROBES = {"epoch": 1.05, "step": 1.30}  # times a run without them, at most


def cost_of_probes(works: list[Work], rounds: int, folder: Path, console: Console) -> Result:
    """Whole runs that measure their layers, beside the same runs without."""
    rows, ratios = [], []
    for work in works:
        console.print(f"{work.experiment.about}: measuring with probes", style="dim")
        there = {}
        for often in ("off", *PROBES):
            path = folder / f"{work.path.stem}-{often}.json"
            path.write_text(work.experiment.replaced({"probes": often}).to_json())
            there[often] = public_door(replace(work, path=path), folder / path.stem)
            there[often]()()  # compiles
        medians = {often: median(values) for often, values in seconds(there, rounds).items()}
        each = {often: medians[often] / medians["off"] for often in PROBES}
        ratios.append(each)
        cells = (f"{medians['off'] * 1e3:.1f}", *(f"{ratio:.2f}" for ratio in each.values()))
        rows.append((work.experiment.about, *cells))
    target = ", ".join(f"{often}: at most {most:.2f} times" for often, most in PROBES.items())
    held = all(each[often] <= most for each in ratios for often, most in PROBES.items())
    columns = ("", "ms without", *(f"times, {often}" for often in PROBES))
    return Result("Probes: every layer measured", columns, rows, target, held)


# --- the whole process --------------------------------------------------------------------------

COMMAND = ("run", "experiments/xor_small.json")
IMPORTS = "import jax, optax, flax.nnx"
VERDICT_TO_IMPORTS = 2 / 0.85  # within 2 s where the bare imports take 0.85 s
VERDICTS = (b"the claim held", b"the claim did not hold")


def whole_process(rounds: int, folder: Path, console: Console) -> Result:
    """From the call of the command to its verdict on a terminal, beside a bare import."""
    command = [str(Path(sys.executable).with_name("nnref")), *COMMAND]
    bare = [sys.executable, "-c", IMPORTS]
    surroundings = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}

    def once(number: int) -> dict[str, float]:
        logbook = folder / f"logbook-{number}"
        verdict, end = on_a_terminal([*command, "--logbook", str(logbook)], surroundings)
        return {
            f"nnref {COMMAND[0]} xor_small, to the verdict": verdict,
            "the same, to the end of the process (picture)": end,
            IMPORTS: on_a_terminal(bare, surroundings)[1],
        }

    console.print("the whole process: measuring", style="dim")
    once(0)  # compiles
    taken = [once(number) for number in range(1, rounds + 1)]
    columns = ("", "s, median", "fastest", "slowest")
    rows = []
    for name in taken[0]:
        values = [each[name] for each in taken]
        rows.append((name, *(f"{f(values):.2f}" for f in (median, min, max))))
    verdict = median(next(iter(each.values())) for each in taken)
    imports = median(each[IMPORTS] for each in taken)
    most = VERDICT_TO_IMPORTS * imports
    target = (
        f"verdict within {VERDICT_TO_IMPORTS:.2f} times the imports, {most:.2f} s: {verdict:.2f} s"
    )
    held = verdict <= most
    return Result("The whole process, compiled programs cached", columns, rows, target, held)


def on_a_terminal(command: list[str], surroundings: Mapping[str, str]) -> tuple[float, float]:
    """Seconds until a command shows its verdict on a terminal, and until it ends.

    A terminal, because it is shown more there (a bar, colours), and because output to a pipe may
    wait in a buffer.
    """
    ours, theirs = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=PROJECT, env=dict(surroundings)
    )
    os.close(theirs)
    shown, verdict = b"", float("nan")
    while True:
        try:
            more = os.read(ours, 1 << 16)
        except OSError:  # Linux tells the end of a terminal so
            break
        if not more:
            break
        shown += more
        if verdict != verdict and any(words in shown for words in VERDICTS):
            verdict = time.perf_counter() - began
    code = process.wait()
    end = time.perf_counter() - began
    os.close(ours)
    if code:
        raise SystemExit(f"{' '.join(command)} failed ({code}):\n{shown.decode(errors='replace')}")
    return verdict, end


# --- what is shown and kept ---------------------------------------------------------------------


def word(result: Result) -> str:
    return {True: "held", False: "NOT HELD", None: "not judged"}[result.held]


def show(result: Result, console: Console) -> None:
    """A table on the terminal, with its target beneath."""
    table = Table(title=result.title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(result.columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in result.rows:
        table.add_row(*row)
    console.print()
    console.print(table)
    console.print(f"target: {result.target} – {word(result)}", highlight=False, style="bold")


def machine() -> str:
    """The machine and the versions, in a sentence or two."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x[:10] == "model name"), model)
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:  # no Linux
        system = f"{platform.system()} {platform.release()}"
    packages = ["jax", "jaxlib", "flax", "optax", "numpy", "torch", "keras"]
    versions = ", ".join(f"{name} {installed(name)}" for name in packages)
    device = jax.devices()[0]
    return (
        f"{model}, {cores()} cores, {system}, {platform.machine()}; "
        f"JAX on {device.platform} ({device.device_kind}). "
        f"Python {platform.python_version()}, nnref {nnref.__version__}, {versions}."
    )


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def keep(results: list[Result], rounds: int, load: float) -> None:
    """Replace the last measurement in the README."""
    when = f"{time.strftime('%Y-%m-%d')}, load average {load:.1f} before"
    written = [LAST, f"{machine()}\nMedians of {rounds}; {when}.\n"]
    for result in results:
        lines = [result.columns, (":--", *["--:"] * (len(result.columns) - 1)), *result.rows]
        written.append(f"### {result.title}\n")
        written.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n")
        written.append(f"Target: {result.target} – **{word(result)}**.\n")
    text = README.read_text(encoding="utf-8")
    README.write_text(text.partition(LAST)[0] + "\n".join(written), encoding="utf-8")


def main() -> int:
    """Measure everything; 1 where curves do not agree."""
    parser = argparse.ArgumentParser(description="Speed of nnref beside PyTorch and Keras.")
    parser.add_argument("--quick", action="store_true", help="one repeat, nothing kept")
    parser.add_argument("--rounds", type=int, default=7, help="repeats of each, at least 5")
    options = parser.parse_args()
    rounds = 1 if options.quick else max(5, options.rounds)
    console = Console(width=None if sys.stdout.isatty() else 120)
    warnings.simplefilter("ignore", DataWarning)  # the little text that is trained on lacks letters
    compile_tiny_loops_whole()  # as `nnref.run` does, where it is the first to use JAX
    load = os.getloadavg()[0]
    if load > 0.5:
        console.print(f"the machine is busy (load average {load:.1f}): times will be too long")
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Eight hundred updates of Adam make much of little: Keras, which corrects the bias in
        # another order of operations, ends 0.01 apart. Wrong batches stand apart by 0.1 and more.
        convnet = digits_as_large_as_mnist(folder)
        works = ((XOR, 1e-3, 60), (DIGITS, 2e-2, 4), (LSTM, 1e-3, 0.6), (convnet, 1e-2, 0.6))
        measured = []
        for content, tolerance, target in works:
            measured.append(work(content, folder, tolerance=tolerance, target=target))
            results.append(measure(measured[-1], rounds, folder / "logbook", console))
            show(results[-1], console)
        results.append(whole_and_in_pieces(measured[0], rounds, console))
        show(results[-1], console)
        results.append(cost_of_probes(measured, rounds, folder, console))
        show(results[-1], console)
        for name, sizes in (("xor_small", (64, 1024)), ("digits_mlp", (64,))):
            results.append(measure_sweeps(name, sizes, rounds, work))
            show(results[-1], console)
        results.append(whole_process(rounds, folder, console))
        show(results[-1], console)
    console.print(f"\n{machine()}", highlight=False)
    if not options.quick:
        keep(results, rounds, load)
        console.print(f"kept in {README.relative_to(PROJECT)}", highlight=False)
    return 1 if any(result.columns[1].startswith("largest") for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
