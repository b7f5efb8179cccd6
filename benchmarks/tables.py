"""Tables that pip packages ship, as they come: how many train from a file of six lines.

    pip install --no-deps --target tables \\
        palmerpenguins vega_datasets statsmodels lifelines plotly bokeh-sampledata
    python benchmarks/tables.py tables

What to predict, and with which loss, was written down before any table was tried. A table counts
where the run ends, and where the network of the last epoch is no worse on its validation rows than
a constant answer is counted apart.
"""

import importlib.util
import json
import os
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


def main() -> None:
    """Print a row for each table, and how many train."""
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
