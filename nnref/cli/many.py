"""Commands about many networks: sweep, ablate, regularize, lr-range, crawl, claims."""

import argparse
import json
from pathlib import Path
from typing import Any

from nnref.cli.arguments import (
    PICTURES,
    console_of,
    experiment_or_maker,
    experiment_path,
    experiment_paths,
    logbook_folder,
    output_path,
)

TRAINING = ("optimizer", "batch_size", "epochs", "shuffle", "penalty")  # of a task, by a maker


def ready(options: argparse.Namespace) -> Any:
    """Turn on the cache of compiled programs; the console for the plan and the bar.

    With --json the console is stderr, since stdout has one JSON object and nothing else.
    """
    from nnref.training.compilation import use_cache

    use_cache()
    return console_of(stderr=options.json)


def sweep_command(options: argparse.Namespace) -> int:
    """Train every variant of a sweep file, as few programs."""
    path = experiment_path(options.file)
    from nnref.report.terminal import sweep as terminal
    from nnref.studies.cluster import cluster_nodes
    from nnref.studies.resuming import AlreadyRun
    from nnref.studies.sweep import sweep
    from nnref.studies.sweep_record import plan_sweep

    console = ready(options)
    plan = plan_sweep(path)
    nodes = cluster_nodes(options.ray) if options.ray and options.dry_run else []
    if options.dry_run and options.json:
        print(json.dumps(terminal.plan_as_json(plan, nodes)))
        return 0
    terminal.show_plan(plan, console, nodes)
    if options.dry_run:
        return 0
    known = {}
    try:
        listener = terminal.TerminalSweepListener(console)
        folder = logbook_folder(options)
        given = {"again": options.again, "ray": options.ray or False}
        done = sweep(plan, logbook=folder, listener=listener, **given)
    except AlreadyRun as already:
        if not options.json:
            print(already)
            return 0
        done, known = already.result, {"already_run": True}
    if options.json:
        print(json.dumps(terminal.swept_as_json(done) | known))
    else:
        terminal.show_swept(done, console)
    return 0


def ablate_command(options: argparse.Namespace) -> int:
    """Compare the alternatives of a sweep file: tuned alike, then run on fresh seeds."""
    path = experiment_path(options.file)
    from nnref.report.terminal import ablation as terminal
    from nnref.report.terminal.sweep import TerminalSweepListener
    from nnref.studies.ablation import ablate, read_protocol
    from nnref.studies.cluster import cluster_nodes

    console = ready(options)
    output = output_path(options.output, (".html",)) if options.output else None
    folder = logbook_folder(options)
    plan = read_protocol(path)
    nodes = cluster_nodes(options.ray) if options.ray and options.dry_run else []
    if options.dry_run and options.json:
        print(json.dumps(terminal.protocol_as_json(plan, nodes)))
        return 0
    terminal.show_protocol(plan, console, nodes)
    if options.dry_run:
        return 0
    listener, ray = TerminalSweepListener(console), options.ray or False
    comparison = ablate(plan, logbook=folder, listener=listener, ray=ray)
    if options.json:
        print(json.dumps(terminal.comparison_as_json(comparison)))
    else:
        terminal.show_comparison(comparison, console)
    for done in (comparison.tuning, comparison.final):
        if done.page is not None:
            console.print(f"page     {done.page}", highlight=False, soft_wrap=True)
    if output is None and folder is not None:
        command = f"report   nnref report {comparison.final.page}"
        console.print(command, highlight=False, soft_wrap=True)
    if output is not None:
        from nnref.report.page.about_ablations import report_of_comparison
        from nnref.report.page.document import write

        console.print(f"report   {write(report_of_comparison(comparison), output)}", soft_wrap=True)
    return 0


def regularize_command(options: argparse.Namespace) -> int:
    """Switch all regularization off, then each piece on again, alone and together."""
    path = experiment_or_maker(options.task)
    stem = Path(options.task.partition(":")[0]).stem if path is None else path.stem
    picture = output_path(options.output or f"{stem}-regularize.png", PICTURES)
    page = output_path(options.html, (".html",)) if options.html else None
    from nnref.checks.regularize import regularize
    from nnref.diagnosis.api import made_by
    from nnref.report.page.about_regularization import report_of_regularization
    from nnref.report.page.document import write
    from nnref.report.page.panels import panels_in, save
    from nnref.report.terminal import regularization as terminal
    from nnref.report.terminal.sweep import TerminalSweepListener

    console = ready(options)
    if path is None:
        task, arguments = made_by(options.task)
        how = {key: arguments[key] for key in TRAINING if key in arguments}
        with console.status("") as status:
            how["progress"] = lambda piece: status.update(f"{piece} ...")
            done = regularize(task, name=stem, seeds=options.seeds, **how)
    else:
        listener, folder = TerminalSweepListener(console), logbook_folder(options)
        done = regularize(path, seeds=options.seeds, logbook=folder, listener=listener)
    report = report_of_regularization(done)
    save(panels_in(report), done.name, picture)
    if page is not None:
        write(report, page)
    if options.json:
        files = {"picture": str(picture), "page": None if page is None else str(page)}
        print(json.dumps(terminal.regularized_as_json(done) | files))
    else:
        terminal.show_regularized(done, console)
        print(f"picture  {picture}")
        print(f"page     {page}" if page else "page     give --html OUT for one")
    return 0 if done.learns else 1


def lr_range_command(options: argparse.Namespace) -> int:
    """Which learning rates learn: all of them at once, from the same start."""
    path = experiment_path(options.file)
    output = output_path(options.output or f"{path.stem}-lr-range.png", PICTURES)
    from nnref.report.pictures import draw_lr_range
    from nnref.report.terminal.sweep import TerminalSweepListener, lr_range_as_json
    from nnref.studies.lr_range import lr_range

    listener = TerminalSweepListener(ready(options))
    names = ("low", "high", "count", "seeds", "epochs")
    arguments = {name: getattr(options, name) for name in names}
    result = lr_range(path, **arguments, listener=listener)
    picture = draw_lr_range(result, output)
    if options.json:
        print(json.dumps(lr_range_as_json(result) | {"picture": str(picture)}))
        return 0
    print(f"{result.name}: {result.sentence}")
    for warning in result.warnings:
        print(f"note: {warning}")
    print(f"picture  {picture}")
    return 0


def crawl_command(options: argparse.Namespace) -> int:
    """Grow the network of an experiment: the smallest that reaches the claim."""
    path = experiment_path(options.file)
    from nnref.report.terminal.sweep import TerminalSweepListener, crawl_as_json, show_crawl
    from nnref.studies.crawl import crawl

    console = ready(options)
    listener = TerminalSweepListener(console)
    result = crawl(path, widest=options.widest, deepest=options.deepest, listener=listener)
    if options.json:
        print(json.dumps(crawl_as_json(result)))
    else:
        show_crawl(result, console)
    return 0


def claims_command(options: argparse.Namespace) -> int:
    """Run every experiment with a claim, without logbook.

    Each has a row as soon as it is finished; the exit code is 1 where a claim did not hold.
    """
    from nnref.studies.reproduction import reproduce, with_claim
    from nnref.training.compilation import use_cache

    use_cache()
    names = options.names or [*experiment_paths()]
    paths = with_claim([experiment_path(name) for name in names])
    width = max(len(path.stem) for path in paths)
    failed = skipped = 0
    for reproduction in reproduce(paths, options.ray or False):
        failed += reproduction.failed
        skipped += reproduction.verdict is None
        print(f"{reproduction.name:<{width}}  {reproduction}", flush=True)
    summary = f"{failed} of {len(paths)} claims did not hold" if failed else "every claim held"
    print(summary + (f"; {skipped} skipped, their data are not here" if skipped else ""))
    return 1 if failed else 0
