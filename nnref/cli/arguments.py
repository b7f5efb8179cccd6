"""What the words on the command line mean: files, folders, settings, and where output goes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnref.errors import UserError, nearest

PICTURES = (".png", ".svg")


def experiment_path(name: str | None) -> Path:
    """The file of an experiment, by its path or its bare name; the error lists them all."""
    from nnref.experiment.text import experiments_folders

    listed = f"experiments: {', '.join(experiment_paths()) or 'none in ./experiments'}"
    if not name or Path(name).name == ".json":
        raise UserError(f"which experiment? {listed}")
    path = Path(name)
    folder_beside = path.is_dir() and str(path) in experiment_paths()  # as of its images
    if path.suffix or (path.exists() and not folder_beside):
        by_name = [path]
    else:
        by_name = [folder / f"{path.name}.json" for folder in experiments_folders()]
    for each in by_name:
        if each.exists():
            return each
    names = [file.stem for folder in experiments_folders() for file in folder.glob("*.json")]
    raise UserError(f"there is no file {path}{nearest(path.stem, names)}\n{listed}")


def experiment_or_maker(word: str) -> Path | None:
    """The file of an experiment; None where the word names a function that makes a task."""
    return None if ":" in word and not Path(word).exists() else experiment_path(word)


def experiment_paths() -> dict[str, Path]:
    """The file of each experiment by its bare name, without the schema beside them.

    They are those in `experiments/` here; where there is no such folder, those that nnref brings.
    """
    from nnref.experiment.text import experiments_folders

    paths = {path.stem: path for path in experiments_folders()[0].glob("*.json")}
    return {name: paths[name] for name in sorted(paths) if name != "schema"}


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`PATH=VALUE` pairs; a value is JSON where it can be read as such, else text."""
    from nnref.logbook.index import json_or_text

    values = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals or not path:
            raise UserError(f"--set {pair}: give PATH=VALUE, like optimizer.learning_rate=0.1")
        values[path] = json_or_text(value)
    return values


def logbook_folder(options: argparse.Namespace) -> Path | None:
    """The folder of the logbook; None where --no-logbook asks for none."""
    return None if options.no_logbook else Path(options.logbook)


def output_path(name: str, endings: Sequence[str]) -> Path:
    """The file to write; refused where it has none of the endings."""
    if Path(name).suffix not in endings:
        raise UserError(f"{name}: give a file that ends in {' or '.join(endings)}")
    return Path(name)


def page_of(run: str, logbook: Path) -> Path:
    """The page of a run: its own path, or of a named experiment the newest page that is complete.

    Of an experiment whose file is here the first of its seeds that has such a page counts.

    Raises:
        UserError: where the logbook has none.
    """
    from nnref.experiment.experiment import read
    from nnref.logbook.pages import page_at, page_paths

    folder = logbook / run
    known = Path(run).suffix or Path(run).is_file() or run in experiment_paths()
    if known or not folder.is_dir():
        path = experiment_path(run)
        if page_at(path) is not None:
            return path
        experiment, folder = read(path), logbook / path.stem
        what = f"{path.stem} ({experiment.identity})"
        groups = [page_paths(folder, experiment.identity, seed) for seed in experiment.seeds]
    else:  # an experiment whose file is elsewhere
        what, groups = run, [sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)]
    for paths in groups:
        complete = [path for path in paths if (page := page_at(path)) and page.complete]
        if complete:
            return complete[-1]
    raise UserError(f"{folder} has no run of {what} that has ended; first: nnref run {run}")


def logbook_entries(logbook: str, sweeps: bool = False) -> list[Any]:
    """The entries of a logbook; what is skipped is named on stderr."""
    from nnref.logbook.index import entries, everything

    known, skipped = (everything if sweeps else entries)(Path(logbook))
    for line in skipped:
        print(f"nnref: skipped {line}", file=sys.stderr)
    return known


def console_of(width: int | None = 200, stderr: bool = False) -> Any:
    """A console that does not fold lines where the output is no terminal.

    Names, remarks and paths are printed as they are: nothing in them is markup.
    """
    from rich.console import Console

    wide = None if stderr or sys.stdout.isatty() else width
    return Console(width=wide, stderr=stderr, markup=False)
