"""Tables that pip packages ship, as they come: how many train from a file of six lines.

    pip install --no-deps --target tables \\
        palmerpenguins vega_datasets statsmodels lifelines plotly bokeh-sampledata
    python benchmarks/tables.py tables

What to predict, and with which loss, was written down before any table was tried. A table counts
where the run ends, and where the network of the last epoch is no worse on its validation rows than
a constant answer is counted apart.

    python benchmarks/tables.py --speed

reads a table of 100,000 rows and 50 columns with polars, and reads, checks, splits and standardizes
it with nnref, by turns and each in a process of its own: one of numbers, one of all kinds.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import nnref
from nnref.data import DATA, DataWarning

CLASSES, VALUES, COUNTS = "softmax_cross_entropy", "squared_error", "poisson"
# Package and file, column to predict, loss. The first nine are those of the issue.
TABLES = [
    ("palmerpenguins/data/penguins.csv", "species", CLASSES),
    ("palmerpenguins/data/penguins-raw.csv", "Body Mass (g)", VALUES),
    ("vega_datasets/_data/seattle-weather.csv", "weather", CLASSES),
    ("vega_datasets/_data/stocks.csv", "price", VALUES),
    ("vega_datasets/_data/la-riots.csv", "type", CLASSES),
    ("statsmodels/datasets/fair/fair.csv", "rate_marriage", VALUES),
    ("statsmodels/datasets/randhie/randhie.csv", "mdvis", COUNTS),
    ("statsmodels/datasets/anes96/anes96.csv", "vote", CLASSES),
    ("sklearn/datasets/data/iris.csv", "virginica", CLASSES),
    ("vega_datasets/_data/airports.csv", "longitude", VALUES),
    ("vega_datasets/_data/seattle-temps.csv", "temp", VALUES),
    ("vega_datasets/_data/iowa-electricity.csv", "net_generation", VALUES),
    ("vega_datasets/_data/us-employment.csv", "nonfarm", VALUES),
    ("plotly/package_data/datasets/gapminder.csv.gz", "lifeExp", VALUES),
    ("plotly/package_data/datasets/election.csv.gz", "winner", CLASSES),
    ("plotly/package_data/datasets/tips.csv.gz", "tip", VALUES),
    ("plotly/package_data/datasets/carshare.csv.gz", "car_hours", VALUES),
    ("plotly/package_data/datasets/wind.csv.gz", "frequency", VALUES),
    ("plotly/package_data/datasets/stocks.csv.gz", "MSFT", VALUES),
    ("lifelines/datasets/ACTG175.csv", "cd420", VALUES),
    ("lifelines/datasets/rossi.csv", "arrest", CLASSES),
    ("lifelines/datasets/gbsg2.csv", "cens", CLASSES),
    ("lifelines/datasets/lung.csv", "status", CLASSES),
    ("lifelines/datasets/dd.csv", "duration", COUNTS),
    ("lifelines/datasets/canadian_senators.csv", "diff_days", VALUES),
    ("lifelines/datasets/anderson.csv", "status", CLASSES),
    ("lifelines/datasets/lymph_node.csv", "censdead", CLASSES),
    ("bokeh_sampledata/_data/titanic_all.csv", "survived", CLASSES),
    ("bokeh_sampledata/_data/auto-mpg.csv", "mpg", VALUES),
    ("bokeh_sampledata/_data/auto-mpg2.csv", "class", CLASSES),
    ("bokeh_sampledata/_data/SampleSuperstore.csv.gz", "Profit", VALUES),
    ("bokeh_sampledata/_data/forensic_glass.csv", "type", CLASSES),
    ("bokeh_sampledata/_data/CGM.csv.gz", "glucose", VALUES),
    ("bokeh_sampledata/_data/elements.csv", "metal", CLASSES),
    ("bokeh_sampledata/_data/stocks.csv.gz", "Close", VALUES),
    ("bokeh_sampledata/_data/sprint.csv", "Time", VALUES),
    ("statsmodels/datasets/modechoice/modechoice.csv", "choice", CLASSES),
    ("statsmodels/datasets/spector/spector.csv", "GRADE", CLASSES),
    ("statsmodels/datasets/statecrime/statecrime.csv", "murder", VALUES),
    ("statsmodels/datasets/macrodata/macrodata.csv", "unemp", VALUES),
    ("statsmodels/datasets/danish_data/data.csv", "lrm", VALUES),
    ("statsmodels/datasets/co2/co2.csv", "co2", VALUES),
]
SIX_LINES = """{{"data": {{"name": "file", "path": {path}, "target": {target}}},
 "model": {{"name": "mlp", "hidden": [32]}},
 "loss": "{loss}",
 "optimizer": {{"name": "adam", "learning_rate": 0.005}},
 "batch_size": 64,
 "epochs": {epochs}}}
"""
STEPS = 1500  # of a run, about


class Outcome(NamedTuple):
    """What became of a table: a figure of the validation rows, or why there is none."""

    figure: str
    better: bool | None  # than a constant answer; None where nothing was trained
    told: list[str]  # the warnings
    seconds: float


def trained(path: Path, target: str, loss: str, folder: Path) -> Outcome:
    """A table by its file of six lines."""
    began = time.perf_counter()
    words = {"path": json.dumps(str(path)), "target": json.dumps(target), "loss": loss}
    experiment = folder / "table.json"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        try:
            rows = DATA["file"](loss, path=str(path), target=target).rows
            told.clear()
            epochs = max(1, STEPS // -(-rows // 64))
            experiment.write_text(SIX_LINES.format(**words, epochs=epochs))
            run = nnref.run(experiment, logbook=None)
        except nnref.UserError as error:
            return Outcome(f"refused: {error}", None, [], time.perf_counter() - began)
    last = {name: float(values[0, -1]) for name, values in run.history.items()}
    if loss == COUNTS:
        first = float(run.history["valid_loss"][0, 0])
        outcome, better = (
            f"loss {first:.3g} to {last['valid_loss']:.3g}",
            last["valid_loss"] < first,
        )
    elif "valid_accuracy" in last:
        y = np.asarray(run.task.valid.y)
        constant = np.bincount(y).max() / len(y)
        outcome = f"accuracy {last['valid_accuracy']:.2f} ({constant:.2f})"
        better = last["valid_accuracy"] >= constant
    else:
        outcome, better = f"R² {last['valid_r2']:.2f}", last["valid_r2"] > 0
    lines = [str(each.message).removeprefix("data: ") for each in told]
    return Outcome(outcome, better, lines, time.perf_counter() - began)


def found(name: str, folder: Path) -> Path:
    """The file of a package, in the folder or where it is installed."""
    package, _, rest = name.partition("/")
    if (folder / name).is_file():
        return folder / name
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent / rest


def outcomes(folder: Path, only: list[str]) -> Iterator[tuple[str, str, Outcome]]:
    """Each table with what became of it."""
    with tempfile.TemporaryDirectory() as place:
        for name, target, loss in TABLES:
            if not only or any(word in name for word in only):
                yield name, target, trained(found(name, folder), target, loss, Path(place))


# --- time and memory ------------------------------------------------------------------------------

TURNS, ROWS = 24, 100_000
READ = """
import sys, time, warnings
import polars, sklearn.impute, sklearn.preprocessing
from nnref.data import DATA

def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(key))

warnings.simplefilter("ignore")
who, path, loss = sys.argv[1:]
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here on
wall, processor = time.perf_counter(), time.process_time()
made = polars.read_csv(path) if who == "polars" else DATA["file"](loss, path=path, target="y")
print(time.perf_counter() - wall, time.process_time() - processor, memory("VmHWM") - before)
"""


def large_tables(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Names, files and losses of two large tables."""
    import polars  # pyright: ignore[reportMissingImports]

    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 49))
    y = x.sum(1) + random.normal(size=ROWS)
    numbers = {f"n{place}": column for place, column in enumerate(x.T)}
    minutes = random.integers(0, 3_000_000, ROWS) * np.timedelta64(1, "m")
    moments = (np.datetime64("2015-01-01T00:00") + minutes).astype(str)
    kinds = {name: column.round(4) for name, column in list(numbers.items())[:41]}
    for name in ("n0", "n1", "n2", "n3", "n4"):
        kinds[name] = [
            None if gap else v
            for gap, v in zip(random.random(ROWS) < 0.05, kinds[name], strict=True)
        ]
    kinds |= {f"city{n}": [f"city {k}" for k in random.integers(0, n, ROWS)] for n in (3, 5, 9, 20)}
    kinds["zip"] = [f"zip {k}" for k in random.integers(0, 800, ROWS)]
    kinds |= {"day": [moment[:10] for moment in moments], "moment": moments}
    kinds |= {"member": random.random(ROWS) < 0.5, "visits": random.integers(0, 50, ROWS)}
    for name, table, loss in (
        ("numbers", numbers | {"y": y}, VALUES),
        ("all kinds", kinds | {"y": y > 0}, CLASSES),
    ):
        path = folder / f"{name}.csv"
        polars.DataFrame(table).write_csv(path)
        yield name, path, loss


def speed() -> None:
    """Print medians of wall time, processor time and memory of both, and of their ratios."""
    print("| table | MB | who | s | s of processor | MB taken |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, path, loss in large_tables(Path(folder)):
            figures = np.zeros((TURNS, 2, 3))
            for turn in range(TURNS):
                for place, who in enumerate(("polars", "nnref")):
                    command = [sys.executable, "-c", READ, who, str(path), loss]
                    said = subprocess.run(command, capture_output=True, text=True, check=True)
                    figures[turn, place] = [float(word) for word in said.stdout.split()]
            size = path.stat().st_size / 1e6
            for place, who in enumerate(("polars", "nnref")):
                wall, processor, memory = np.median(figures[:, place], axis=0)
                row = f"{wall:.2f} | {processor:.2f} | {memory:.0f} |"
                print(f"| {name} | {size:.0f} | {who} | {row}")
            wall, processor, _ = np.median(figures[:, 1] / figures[:, 0], axis=0)
            most = figures[:, 1, 2].max()
            print(
                f"{name}: {wall:.2f} times the wall time of polars, {processor:.2f} times its "
                f"processor time; at most {most:.0f} MB, {most / size:.1f} times the file",
                flush=True,
            )


def main() -> None:
    """Print a row for each table, and how many train."""
    if sys.argv[1:] == ["--speed"]:
        speed()
        return
    folder, *only = sys.argv[1:]
    made = []
    print("| table | predicted | validation rows (a constant answer) | told | s |")
    print("|---|---|---|---|---|")
    for name, target, outcome in outcomes(Path(folder), only):
        package, *_, file = name.split("/")
        told = "; ".join(outcome.told).replace("|", "/")
        row = (f"{package}/{file}", target, outcome.figure, told, f"{outcome.seconds:.1f}")
        print(f"| {' | '.join(row)} |", flush=True)
        made.append(outcome.better)
    ended = [better for better in made if better is not None]
    print(f"\n{len(ended)} of {len(made)} train, {sum(ended)} of them to better than a constant")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
