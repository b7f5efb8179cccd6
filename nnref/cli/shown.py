"""Commands that show what is there: log, diff, report, plot, list, show, schema, parts, data."""

import argparse
import json
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

from nnref.cli.arguments import (
    PICTURES,
    console_of,
    experiment_path,
    experiment_paths,
    logbook_entries,
    output_path,
)
from nnref.errors import UserError, nearest


def log_command(options: argparse.Namespace) -> int:
    """The runs of the logbook, one in a line."""
    from dataclasses import asdict

    from nnref.logbook.index import ordered, where
    from nnref.report.terminal.logbook import show_log

    entries = logbook_entries(options.logbook, sweeps=True)
    if options.name is not None:
        entries = entries_of(options.name, entries, options.logbook)
    entries = where(entries, options.where)
    entries = ordered(entries, options.sort, options.reverse)
    if options.json:
        print(json.dumps([asdict(entry) for entry in entries]))
    else:
        show_log(entries, console_of())
    return 0


def entries_of(name: str, entries: list[Any], logbook: str) -> list[Any]:
    """The entries of one name.

    Raises:
        UserError: where there is none.
    """
    chosen = [entry for entry in entries if entry.name == name]
    if not chosen:
        names = sorted({entry.name for entry in entries})
        raise UserError(
            f'{logbook} has no run of "{name}"{nearest(name, names)}; '
            f"it has {', '.join(names) or 'none'}"
        )
    return chosen


def log_near_command(options: argparse.Namespace) -> int:
    """What was tried before that is nearly the same."""
    from nnref.experiment.experiment import read
    from nnref.logbook.index import near, settings_of
    from nnref.report.terminal.logbook import nearest_attempts

    settings = settings_of(read(experiment_path(options.file)).to_json())
    lines = nearest_attempts(near(settings, logbook_entries(options.logbook)))
    print(lines or "nothing was tried that differs in one or two keys")
    return 0


def log_tree_command(options: argparse.Namespace) -> int:
    """How far one has come: attempts as a tree of changes."""
    from nnref.logbook.index import tree
    from nnref.report.terminal.logbook import tree_of_changes

    entries = entries_of(options.name, logbook_entries(options.logbook), options.logbook)
    console_of().print(tree_of_changes(tree(entries)))
    return 0


def log_note_command(options: argparse.Namespace) -> int:
    """Append a remark to a page."""
    from nnref.logbook.index import note

    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    note(Path(options.page), options.text, now)
    return 0


def diff_command(options: argparse.Namespace) -> int:
    """What changed between two experiments, and what it did."""
    from nnref.report.terminal.logbook import show_difference, side_of

    logbook = Path(options.logbook)
    entries = logbook_entries(options.logbook) if logbook.is_dir() else []
    a, b = (side_of(word, logbook, entries, experiment_path) for word in (options.a, options.b))
    show_difference(a, b, console_of())
    return 0


def report_command(options: argparse.Namespace) -> int:
    """One page about runs, which needs nothing else: HTML."""
    output = output_path(options.output, (".html",))
    from nnref.report.page.document import write

    print(write(report_on(options)[0], output))
    return 0


def plot_command(options: argparse.Namespace) -> int:
    """The pictures of a report as PNG or SVG."""
    output = output_path(options.output or "runs.png", PICTURES)
    from nnref.report.page.panels import panels_in, save

    report, omissions = report_on(options)
    for line in omissions:
        print(f"nnref: {line}", file=sys.stderr)
    names = ", ".join(headline.title for headline in report.headlines)
    print(save(panels_in(report), names, output))
    return 0


def report_on(options: argparse.Namespace) -> tuple[Any, list[str]]:
    """The report on the runs and sweeps of `options.runs`, and what was left out, in words."""
    from nnref.report.page.about_ablations import report_of_comparison
    from nnref.report.page.about_networks import NOT_ASKED, network_of
    from nnref.report.page.about_runs import report_of
    from nnref.report.page.about_sweeps import report_of_sweep, sweep_page
    from nnref.report.page.blocks import joined
    from nnref.report.page.subjects import subjects_of
    from nnref.studies.ablation import comparison_at
    from nnref.training.compilation import use_cache

    use_cache()
    logbook = Path(options.logbook)
    sweeps = {word: sweep_page(word, logbook) for word in options.runs}
    subjects, omissions = subjects_of([w for w, page in sweeps.items() if page is None], logbook)
    networks = [NOT_ASKED if options.no_network else network_of(each) for each in subjects]
    reports = [report_of(subjects, networks, omissions)] if subjects else []
    for page in filter(None, sweeps.values()):
        comparison = comparison_at(page)
        reports.append(report_of_comparison(comparison) if comparison else report_of_sweep(page))
    return joined(reports), omissions


def list_command(options: argparse.Namespace) -> int:
    """Every experiment in one line."""
    from nnref.experiment.text import blank_comments

    paths = experiment_paths()
    if not paths:
        raise UserError(f"no experiments in {Path('experiments').resolve()}")
    width = max(map(len, paths))
    for name, path in paths.items():
        try:
            about = json.loads(blank_comments(path.read_text(encoding="utf-8"))).get("about", "")
        except (OSError, ValueError, AttributeError) as error:
            about = f"(unreadable: {error})"
        print(f"{name:<{width}}  {about.split('. ')[0]}")
    return 0


def copy_command(options: argparse.Namespace) -> int:
    """Copy an experiment into a file of one's own."""
    path = experiment_path(options.file)
    own = Path(options.output or path.name)
    if own.exists():
        raise UserError(f"{own} is there already; give another file: -o PATH")
    try:
        own.write_bytes(path.read_bytes())
    except OSError as error:
        raise UserError(f"{own}: {(error.strerror or 'not writable').lower()}") from None
    print(f"{own}     to run it: nnref run {own}")
    return 0


def show_command(options: argparse.Namespace) -> int:
    """The layers, and the complete experiment, defaults filled in."""
    path = experiment_path(options.file)
    from nnref.experiment.experiment import read
    from nnref.report.terminal.layers import layers_table

    experiment = read(path)
    print(f"// identity {experiment.identity}")
    try:
        table = layers_table(experiment)
    except UserError as error:  # data that are not here, say: the experiment is shown all the same
        table = f"no table of layers: {error}"
    print("".join(f"// {line}\n" for line in table.splitlines()), end="")
    print(experiment.to_json(), end="")
    return 0


def schema_command(options: argparse.Namespace) -> int:
    """JSON Schema of an experiment file."""
    from nnref.experiment.experiment import Experiment

    print(json.dumps(Experiment.model_json_schema(by_alias=True), indent=1))
    return 0


def parts_command(options: argparse.Namespace) -> int:
    """Every part that an experiment can name, as Markdown."""
    from nnref.report.terminal.parts import parts_as_markdown

    print(parts_as_markdown(), end="")
    return 0


def plot_schedule_command(options: argparse.Namespace) -> int:
    """Draw the learning rate over the run."""
    path = experiment_path(options.file)
    from nnref.experiment.experiment import read
    from nnref.report.pictures import draw_schedule

    output = output_path(options.output or f"{path.stem}-schedule.png", PICTURES)
    print(draw_schedule(read(path), path.stem, output))
    return 0


def data_prepare_command(options: argparse.Namespace) -> int:
    """Prepare a data set of the catalogue."""
    from nnref.data.catalog import data_folder, prepare, prepared, splits_in_words

    began, data_dir = time.perf_counter(), data_folder(options.data_dir)
    if prepared(options.dataset, data_dir) is None:
        print(f"preparing {options.dataset} in {data_dir} ...", file=sys.stderr, flush=True)
    folder = prepare(options.dataset, data_dir, options.manual_dir)
    seconds = time.perf_counter() - began
    print(f"{options.dataset}: {splits_in_words(folder)}; in {folder} ({seconds:.1f} s)")
    return 0


def data_look_command(options: argparse.Namespace) -> int:
    """Columns, splits, and what makes their figures doubtful, before anything is trained."""
    output = output_path(options.html, (".html",)) if options.html else None
    from nnref.checks.data import look
    from nnref.data import DATA, DataWarning
    from nnref.data.files import ENDINGS
    from nnref.report.page.about_data import report_of_look
    from nnref.report.page.document import write
    from nnref.report.terminal.data import look_as_json, show_look

    path = Path(options.file)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", DataWarning)
        if path.is_dir() or path.name.lower().endswith(ENDINGS):
            if not options.target and not path.is_dir():
                raise UserError(f"--target: what is to be predicted? {', '.join(names_in(path))}")
            dataset = DATA["file"](path=str(path), target=options.target or "")
        else:
            from nnref.experiment.experiment import read
            from nnref.training.setup import data_of

            dataset = data_of(read(experiment_path(options.file)))
    seen = look(dataset, tuple(str(each.message).removeprefix("data: ") for each in warned))
    if options.json:
        print(json.dumps(look_as_json(seen)))
    else:
        show_look(seen, console_of())
    if output is not None:
        page = write(report_of_look(seen, path.stem), output)
        print(f"page     {page}", file=sys.stderr if options.json else sys.stdout)
    return 0


def names_in(path: Path) -> list[str]:
    """The names of the columns of a table, or of the arrays of an archive."""
    from nnref.data.archives import every_array
    from nnref.data.reading import read_table

    return list(every_array(path) if path.suffix.lower() == ".npz" else read_table(path))


def data_list_command(options: argparse.Namespace) -> int:
    """What is prepared, what can be, and where."""
    from nnref.data.catalog import data_folder, known, listed
    from nnref.data.raw import OWN

    folder = data_folder(options.data_dir)
    rows = listed(folder)
    width = max(len(name) for name, *_ in rows)
    print(f"data sets in {folder}:")
    for name, state, place in rows:
        print(f"  {name:<{width}}  {state}" + (f", in {place}" if place else ""))
    named = {name.split("/")[0] for name, *_ in rows} | {*OWN}
    others = ", ".join(name for name in known() if name not in named)
    print("others of the catalogue, to prepare with the extra nnref[prepare]:")
    print(textwrap.fill(others, 96, initial_indent="  ", subsequent_indent="  "))
    return 0
