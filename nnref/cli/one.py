"""Commands about one network: run, resume, predict, export, sample, diagnose, unit-tests."""

import argparse
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from nnref.cli.arguments import (
    console_of,
    experiment_or_maker,
    experiment_path,
    logbook_folder,
    output_path,
    page_of,
    settings,
)
from nnref.errors import UserError


def run_command(options: argparse.Namespace) -> int:
    """Train an experiment for all its seeds, show it, write it down."""
    changes: dict[str, Any] = {"settings": settings(options.set), "seeds": options.seed}
    if options.coordinator is not None:
        from nnref.training import processes

        processes.join(options.coordinator, options.processes, options.process)
        changes["settings"].setdefault("devices", "all")
    elif options.processes is not None or options.process is not None:
        raise UserError("--processes: give --coordinator HOST:PORT, where process 0 can be reached")
    from nnref.studies.run import run

    folder = logbook_folder(options)
    changes |= {"epochs": options.epochs, "again": options.again, "keep": not options.forget}
    path = experiment_path(options.file)
    train = partial(run, path, logbook=folder, **changes)
    return train_and_show(options, path, folder, train)


def resume_command(options: argparse.Namespace) -> int:
    """Go on with a run that was cut short."""
    from nnref.studies.run import resume

    path = Path(options.page)
    return train_and_show(options, path, path.parent.parent, partial(resume, path))


def train_and_show(
    options: argparse.Namespace, path: Path, folder: Path | None, train: Callable[..., Any]
) -> int:
    """Train, show how it ended, and draw the losses beside the pages.

    The folder of the logbook is None where nothing is written down. `train` takes a listener and
    returns the finished run.
    """
    from nnref.report.terminal.terminal import TerminalListener, run_as_json, show
    from nnref.studies.resuming import AlreadyRun
    from nnref.training import processes
    from nnref.training.compilation import use_cache

    use_cache()
    if not processes.leads():  # process 0 writes, draws and prints
        simplefilter("ignore")
        return train().verdict.exit_code
    console = console_of(None, stderr=options.json)
    listener = with_sinks(TerminalListener(console, folder), path, options)
    try:
        done = train(listener=listener)
    except AlreadyRun as already:
        if options.json:
            print(json.dumps(run_as_json(already.result, None) | {"already_run": True}))
        else:
            print(already)
        return already.result.verdict.exit_code
    if not options.json:
        show(done, console)
    picture = None
    if folder is not None:
        from nnref.report.pictures import draw_losses

        first, *others = (str(record.page) for record in done.records)
        pages = f"{first} and {len(others)} more" if others else first
        console.print(f"pages    {pages}", highlight=False, soft_wrap=True)
        picture = draw_losses(done, folder / done.name / f"{done.experiment.identity}.png")
        console.print(f"picture  {picture}", highlight=False, soft_wrap=True)
    if options.json:
        print(json.dumps(run_as_json(done, picture)))
    return done.verdict.exit_code


def unit_tests_command(options: argparse.Namespace) -> int:
    """Write unit tests of a network, from the properties that hold of it."""
    task = str(experiment_or_maker(options.task) or options.task)
    output = output_path(options.output, (".py",))
    from nnref.checks.writing import unit_tests
    from nnref.training.compilation import use_cache

    use_cache()
    names = unit_tests(task, output)
    print(f"{len(names)} properties hold and are tested: {', '.join(names)}")
    print(f"tests    {output}")
    return 0


def with_sinks(listener: Any, path: Path, options: argparse.Namespace) -> Any:
    """The listener, and beside it the trackers that --tensorboard and --track ask for."""
    if not options.tensorboard and not options.track:
        return listener
    from nnref.logbook.pages import page_at
    from nnref.report.sinks import TRACKERS, TensorBoardListener
    from nnref.studies.listeners import Listeners

    page = page_at(path)
    name = page.name if page else path.stem
    sinks = [TRACKERS[tracker](name) for tracker in options.track or ()]
    if options.tensorboard:
        sinks.append(TensorBoardListener(Path(options.tensorboard), name))
    return Listeners(listener, *sinks)


def sample_command(options: argparse.Namespace) -> int:
    """Write text with a trained language model."""
    page = page_of(options.run, Path(options.logbook))
    from nnref.data.text import spell
    from nnref.report.terminal.terminal import TerminalListener
    from nnref.studies.run import trained
    from nnref.studies.sampling import check, sample
    from nnref.training.compilation import use_cache

    use_cache()
    network = trained(page, TerminalListener(console_of(stderr=True)))
    names = ("length", "temperature", "prompt", "seed", "samples")
    arguments = {name: getattr(options, name) for name in names}
    samples = sample(network, **arguments)
    texts = [spell(network.dataset, tokens) for tokens in samples]
    memory = check(network.dataset, list(samples)) if options.check else None
    if options.json:
        content = arguments | {"page": str(page), "samples": texts}
        print(json.dumps(content | ({"memory": memory.as_json()} if memory else {})))
        return 0
    for number, text in enumerate(texts, 1):
        if number > 1:
            print(f"\n--- {number} ---")
        print(f"{options.prompt}{text}")
    if memory is not None:
        print("\n" + "\n".join(memory.in_words()))
    return 0


def predict_command(options: argparse.Namespace) -> int:
    """What a trained network says of rows: classes by name, or values."""
    page = page_of(options.run, Path(options.logbook))
    from nnref.data import DataWarning
    from nnref.data.folders import files_at
    from nnref.studies.kept import rows_in
    from nnref.studies.run import load
    from nnref.training.compilation import use_cache

    use_cache()
    with catch_warnings():  # of the training rows, which were told when they were trained on
        simplefilter("ignore", DataWarning)
        network = load(page)
    rows = Path(options.rows)
    predicted = network.predict(rows_in(rows, network.dataset))
    images = bool(network.dataset.files) and rows.suffix != ".npz"
    names = [[str(file)] if images else [] for file in (files_at(rows) if images else predicted)]
    if options.json:
        print(json.dumps({"page": str(page), "predicted": predicted.tolist()}))
        return 0
    for name, row in zip(names, predicted.reshape(len(predicted), -1).tolist(), strict=True):
        print(",".join(map(str, [*name, *row])))
    return 0


def export_command(options: argparse.Namespace) -> int:
    """Write a trained network as a file that runs without nnref, and try it."""
    page = page_of(options.run, Path(options.logbook))
    from nnref.studies.exported import ENDINGS, ROWS, export
    from nnref.studies.run import load
    from nnref.training.compilation import use_cache

    use_cache()
    ending = ENDINGS[options.to]
    path = output_path(options.output or f"{page.parent.name}{ending}", [ending])
    difference = export(load(page), path, options.to)
    rows = " and ".join(map(str, ROWS))
    print(
        f"{path}     tried with {rows} rows: the same outputs, to {difference:.1g} of the largest"
    )
    return 0


def diagnose_command(options: argparse.Namespace) -> int:
    """Why does a network not learn?

    The exit code is 0 where it learns, 1 where it does not, 3 for a mistake in nnref itself.
    """
    path = experiment_or_maker(options.task)
    page = output_path(options.html, (".html",)) if options.html else None
    if options.logbook and path is None:
        raise UserError("--logbook: a page is of an experiment file, and a task has none")
    from nnref.diagnosis.api import diagnose, made_by
    from nnref.training.compilation import use_cache

    use_cache()
    task, arguments = (path, {}) if path is not None else made_by(options.task)
    with console_of(stderr=True).status("") as status:  # silent where nobody looks
        how = {"effort": options.effort, "progress": lambda doing: status.update(f"{doing} ...")}
        diagnosis = diagnose(task, **how | arguments)
    if options.json:
        print(json.dumps(diagnosis.to_json()))
    else:
        console_of(80).print(diagnosis, highlight=False)
    if page is not None:
        diagnosis.to_html(page)
        if not options.json:
            print(f"page     {page}")
    if options.fix and diagnosis.faults:
        from nnref.diagnosis.patch import as_patch
        from nnref.diagnosis.repair import in_figures, repair

        first = diagnosis.faults[0]
        if path is None:
            unknown = f"no line of your program is known for it; by hand: {first.remedy}"
            print(as_patch(first) or unknown)
        else:
            made = repair(path, diagnosis)
            print(f"repaired {made.path}: {made.difference}")
            if made.after:
                figures = f"{in_figures(made.before)} before, {in_figures(made.after)} after"
                print(f"         skill from {len(made.after)} seeds: {figures}")
            print(f"         nnref diff {path} {made.path}")
    if options.logbook and path is not None and not options.json:
        for line in written_down(path, diagnosis, Path(options.logbook)):
            print(line)
    return diagnosis.exit_code


def written_down(path: Path, diagnosis: Any, logbook: Path) -> list[str]:
    """Train each trial of a diagnosis that a file can say, as pages of the logbook; what to read.

    The run as it is and the one that is the proof are trained from the seeds of the proof.
    """
    from nnref.diagnosis.causes import EDITS
    from nnref.diagnosis.repair import changed_settings
    from nnref.experiment.experiment import read
    from nnref.studies.run import AlreadyRun, run

    experiment = read(path)
    proof = next((f.proof for f in diagnosis.faults if f.edit), None)
    tried = {"": {}} | {name: changed_settings(experiment, name) for name in diagnosis.trials}
    changes = {name: change for name, change in tried.items() if change or not name}
    for name, change in changes.items():
        again = proof is not None and name in ("", proof.edit)
        count = len(proof.before) if again and proof is not None else 1
        seeds = [experiment.seeds[0] + further for further in range(max(count, 1))]
        with suppress(AlreadyRun):
            run(path, settings=change, seeds=seeds, logbook=logbook)
    lines = [f"pages    {len(changes) - 1} trials and the run as it is, in {logbook / path.stem}"]
    lines += [f"         nnref log tree {path.stem} --logbook {logbook}"]
    unsaid = [EDITS[name] for name in tried if name not in changes]
    return lines + ([f"no page  {'; '.join(unsaid)}: no file can say it"] if unsaid else [])
