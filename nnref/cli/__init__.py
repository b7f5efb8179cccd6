"""The command `nnref`: parses, calls, prints."""

import argparse
import json
import os
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nnref
from nnref.errors import UserError, nearest

EXPERIMENTS = Path("experiments")
INTERRUPTED = 130
DATA_ABOUT = "prepare data sets of the TensorFlow Datasets catalogue, list them"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 (did not hold), 2 (user's mistake) or 130."""
    sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    warnings.showwarning = show_warning
    options = parser().parse_args(arguments)
    try:
        return options.command(options)
    except UserError as error:
        print(f"nnref: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupted:
        page = getattr(
            interrupted, "page", "the same command goes on where it was"
        )  # of a run, None without
        told = f"to go on: nnref resume {page}" if isinstance(page, Path) else page
        told = told or "nothing was written down"
        print(f"interrupted; {told}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(prog="nnref", description=nnref.__doc__, allow_abbrev=False)
    top.add_argument("--version", action=Version, nargs=0, help="versions and device")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        one.set_defaults(command=command)
        return one

    run = add("run", run_command, "train an experiment for all its seeds, show it, write it down")
    run.add_argument("file", nargs="?", help="experiment file, page, or name of an experiment")
    run.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="set a key")
    run.add_argument("--seed", type=int, nargs="+", metavar="N", help="instead of the file's seeds")
    run.add_argument("--epochs", type=int, metavar="N", help="instead of the file's epochs")
    run.add_argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")
    run.add_argument("--no-logbook", action="store_true", help="write nothing down")
    run.add_argument("--again", action="store_true", help="train what the logbook already has")
    run.add_argument("--json", action="store_true", help="one JSON object, nothing else")

    sweep = add("sweep", sweep_command, "train every variant of a sweep file, as few programs")
    sweep.add_argument("file", nargs="?", help="file with a key sweep, its page, or its name")
    sweep.add_argument("--dry-run", action="store_true", help="show the plan and run nothing")
    sweep.add_argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")
    sweep.add_argument("--no-logbook", action="store_true", help="write nothing down")
    sweep.add_argument("--again", action="store_true", help="run what the logbook already has")
    sweep.add_argument("--json", action="store_true", help="one JSON object, nothing else")

    about = "which learning rates learn: all of them at once, from the same start"
    ranged = add("lr-range", lr_range_command, about)
    ranged.add_argument("file", nargs="?", help="experiment file, or name of an experiment")
    ranged.add_argument("--low", type=float, default=1e-5, metavar="RATE", help="smallest rate")
    ranged.add_argument("--high", type=float, default=10.0, metavar="RATE", help="largest rate")
    ranged.add_argument("--count", type=int, default=25, metavar="N", help="how many rates")
    ranged.add_argument("--seeds", type=int, default=5, metavar="N", help="how many seeds")
    ranged.add_argument("--epochs", type=int, metavar="N", help="else as many as have 100 steps")
    ranged.add_argument("-o", "--output", metavar="PATH", help="a .png or .svg file")
    ranged.add_argument("--json", action="store_true", help="one JSON object, nothing else")

    about = "grow the network of an experiment: the smallest that reaches the claim"
    grow = add("crawl", crawl_command, about)
    grow.add_argument("file", nargs="?", help="experiment file, or name of an experiment")
    grow.add_argument("--widest", type=int, default=128, metavar="N", help="units of a layer")
    grow.add_argument("--deepest", type=int, default=3, metavar="N", help="hidden layers")
    grow.add_argument("--json", action="store_true", help="one JSON object, nothing else")

    about = "compare the alternatives of a sweep file: tuned alike, then run on fresh seeds"
    ablate = add("ablate", ablate_command, about)
    ablate.add_argument("file", nargs="?", help="file with a key sweep, its page, or its name")
    ablate.add_argument("--dry-run", action="store_true", help="show the plan and run nothing")
    ablate.add_argument("-o", "--output", metavar="PATH", help="write a report, a .html file")
    ablate.add_argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")
    ablate.add_argument("--no-logbook", action="store_true", help="write nothing down")
    ablate.add_argument("--json", action="store_true", help="one JSON object, nothing else")

    resume = add("resume", resume_command, "go on with a run that was cut short")
    resume.add_argument("page", help="its page, in the folder of the logbook")
    resume.add_argument("--json", action="store_true", help="one JSON object, nothing else")

    for each in (run, resume):
        each.add_argument("--tensorboard", metavar="DIR", help="write event files there, too")

    sample = add("sample", sample_command, "write text with a trained language model")
    sample.add_argument("run", metavar="RUN", help="page of a run, or name of an experiment")
    sample.add_argument("--length", type=int, default=400, metavar="N", help="characters")
    sample.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0: likeliest")
    sample.add_argument("--prompt", default="\n", metavar="TEXT", help="what stands before")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws")
    sample.add_argument("--samples", type=int, default=1, metavar="N", help="how many texts")
    sample.add_argument("--check", action="store_true", help="look for them in the training text")
    sample.add_argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")
    sample.add_argument("--json", action="store_true", help="one JSON object, nothing else")

    log = add("log", log_command, "the runs of the logbook, one in a line")
    log.add_argument("--where", action="append", default=[], metavar="COND", help="valid_loss<0.1")
    log.add_argument("--sort", metavar="KEY", help="a setting, a measure, best_valid_loss, ...")
    log.add_argument("--reverse", action="store_true", help="the largest or latest first")
    log.add_argument("--json", action="store_true", help="one JSON array, nothing else")
    log.add_argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")
    about = (
        ("near", log_near_command, "FILE", "what was tried before that is nearly the same"),
        ("tree", log_tree_command, "NAME", "how far one has come: attempts as a tree of changes"),
        ("note", log_note_command, "PAGE", "append a remark to a page"),
    )
    doings = log.add_subparsers(metavar="near | tree | note")
    for name, command, what, purpose in about:
        one = doings.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        one.set_defaults(command=command)
        one.add_argument("given", metavar=what)
        if name == "note":
            one.add_argument("text", metavar="TEXT")
        else:
            # The default is that of `log`, which may have been given before the word.
            one.add_argument("--logbook", default=argparse.SUPPRESS, metavar="DIR")
    diff = add("diff", diff_command, "what changed between two experiments, and what it did")
    for letter in "ab":
        help_ = "page, experiment file, name or identity"
        diff.add_argument(letter, metavar=letter.upper(), help=help_)
    diff.add_argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")

    report = add("report", report_command, "one page about runs, which needs nothing else: HTML")
    plot = add("plot", plot_command, "the pictures of a report as PNG or SVG")
    for each, ending in ((report, ".html"), (plot, ".png or .svg")):
        each.add_argument(
            "runs",
            nargs="+",
            metavar="PAGE|NAME",
            help="page, name, identity or experiment file",
        )
        each.add_argument("-o", "--output", metavar="PATH", help=f"a {ending} file")
        each.add_argument(
            "--no-network", action="store_true", help="leave out what takes the trained network"
        )
        each.add_argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")

    add("list", list_command, "every experiment in one line")
    show = add("show", show_command, "the layers, and the complete experiment, defaults filled in")
    show.add_argument("file", help="experiment file, page, or name of an experiment")
    add("schema", schema_command, "JSON Schema of an experiment file")
    add("parts", parts_command, "every part that an experiment can name, as Markdown")
    schedule = add("plot-schedule", plot_schedule_command, "draw the learning rate over the run")
    schedule.add_argument("file", help="experiment file, page, or name of an experiment")
    schedule.add_argument("-o", "--output", metavar="PATH", help="a .png or .svg file")
    data = commands.add_parser("data", help=DATA_ABOUT, description=DATA_ABOUT, allow_abbrev=False)
    doings = data.add_subparsers(required=True, metavar="prepare | list")
    prepare = doings.add_parser("prepare", help="prepare a data set of the catalogue")
    prepare.set_defaults(command=data_prepare_command)
    prepare.add_argument("dataset", help="its name, like mnist")
    prepare.add_argument("--manual-dir", type=Path, metavar="DIR", help="folder of its raw files")
    known = doings.add_parser("list", help="what is prepared, what can be, and where")
    known.set_defaults(command=data_list_command)
    for each in (prepare, known):
        each.add_argument(
            "--data-dir", metavar="DIR", help="folder of prepared data sets, else that of TFDS"
        )
    diagnose = add("diagnose", diagnose_command, "why does a network not learn?")
    diagnose.add_argument("given", help="experiment file or name, or package.module:make_task")
    diagnose.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    diagnose.add_argument("--html", metavar="OUT", help="write a page as well")
    diagnose.add_argument("--seconds", type=float, default=30.0, metavar="S", help="a run may take")
    claims = add("claims", claims_command, "run every experiment with a claim, without logbook")
    claims.add_argument("names", nargs="*", help="these alone")
    return top


class Version(argparse.Action):
    """Print versions and device; JAX is imported only now."""

    def __call__(self, *_: Any) -> None:
        """Print and leave."""
        import flax
        import jax
        import optax

        device = jax.devices()[0]
        print(
            f"nnref {nnref.__version__}, jax {jax.__version__}, flax {flax.__version__}, "
            f"optax {optax.__version__}, {device.platform} ({device.device_kind})"
        )
        raise SystemExit(0)


def show_warning(message: Warning | str, *_: Any) -> None:
    """A warning is one line on stderr, without the place in our code."""
    print(f"nnref: warning: {message}", file=sys.stderr)


def experiment_path(given: str | None) -> Path:
    """The file of an experiment given by path or by bare name.

    Raises:
        UserError: listing the experiments.
    """
    names = experiment_names()
    listed = f"experiments: {', '.join(names) or 'none in ' + str(EXPERIMENTS.resolve())}"
    if not given or Path(given).name == ".json":
        raise UserError(f"which experiment? {listed}")
    path = Path(given)
    by_name = EXPERIMENTS / f"{path.stem}.json"
    if not path.exists() and not path.suffix and by_name.exists():
        return by_name
    if not path.exists():
        raise UserError(f"there is no file {path}{nearest(path.stem, names)}\n{listed}")
    return path


def experiment_names() -> list[str]:
    return sorted(p.stem for p in EXPERIMENTS.glob("*.json") if p.stem != "schema")


def settings(given: Sequence[str]) -> dict[str, Any]:
    """`PATH=VALUE` pairs; a value is JSON where it can be read as such, else text."""
    pairs = {}
    for pair in given:
        path, equals, value = pair.partition("=")
        if not equals or not path:
            raise UserError(f"--set {pair}: give PATH=VALUE, like optimizer.learning_rate=0.1")
        try:
            pairs[path] = json.loads(value)
        except json.JSONDecodeError:
            pairs[path] = value
    return pairs


def run_command(options: argparse.Namespace) -> int:
    """`nnref run`."""
    from nnref.studies.run import run

    folder = None if options.no_logbook else Path(options.logbook)
    given: dict[str, Any] = {"settings": settings(options.set), "seeds": options.seed}
    given |= {"epochs": options.epochs, "again": options.again}
    path = experiment_path(options.file)
    return trained(
        options,
        path,
        folder,
        lambda listener: run(path, logbook=folder, listener=listener, **given),
    )


def resume_command(options: argparse.Namespace) -> int:
    """`nnref resume`."""
    from nnref.studies.run import resume

    path = Path(options.page)
    return trained(options, path, path.parent.parent, lambda listener: resume(path, listener))


def trained(
    options: argparse.Namespace, path: Path, folder: Path | None, train: Callable[[Any], Any]
) -> int:
    """Train, show what came of it, and draw it beside its pages."""
    from rich.console import Console

    from nnref.logbook.pages import page_at
    from nnref.report.terminal.terminal import TerminalListener, show
    from nnref.studies.listeners import Listener, Listeners
    from nnref.studies.run import AlreadyRun
    from nnref.training.compilation import use_cache

    use_cache()
    console = Console(stderr=options.json)
    listener: Listener = TerminalListener(console, folder)
    if options.tensorboard is not None:
        from nnref.report.tensorboard import TensorBoardListener

        page = page_at(path)
        name = page.name if page else path.stem
        listener = Listeners(listener, TensorBoardListener(Path(options.tensorboard), name))
    try:
        done = train(listener)
    except AlreadyRun as already:
        if options.json:
            print(json.dumps(as_json(already.result, None) | {"already_run": True}))
        else:
            print(already)
        return already.result.verdict.exit_code
    if not options.json:
        show(done, console)
    picture = None
    if folder is not None:
        console.print(f"pages    {pages_in_words(done)}", highlight=False, soft_wrap=True)
        from nnref.report.pictures import draw_losses

        picture = draw_losses(done, folder / done.name / f"{done.experiment.identity}.png")
        console.print(f"picture  {picture}", highlight=False, soft_wrap=True)
    if options.json:
        print(json.dumps(as_json(done, picture)))
    return done.verdict.exit_code


def pages_in_words(run: Any) -> str:
    pages = [record.page for record in run.records]
    return str(pages[0]) if len(pages) == 1 else f"{pages[0]} and {len(pages) - 1} more"


def as_json(run: Any, picture: Path | None) -> dict[str, Any]:
    """A run as plain values: no NaN, which JSON does not have."""

    def number(value: float) -> float | None:
        return value if abs(value) < float("inf") else None

    metrics = {} if run.task is None else run.task.functions.metrics
    return {
        "name": run.name,
        "identity": run.experiment.identity,
        "verdict": run.verdict.sentence,
        "held": run.verdict.held,
        "seconds": run.seconds,
        "picture": str(picture) if picture else None,
        "seeds": [
            {
                "seed": record.seed,
                "epochs": record.epochs,
                "ending": record.ending or None,
                "page": str(record.page) if record.page else None,
                "final": {m: number(record.final(m)) for m in (*record.history, *record.test)},
                "best": {m: number(record.best(m, metrics)) for m in record.history},
            }
            for record in run.records
        ],
    }


def sweep_command(options: argparse.Namespace) -> int:
    """`nnref sweep`: the plan, then the runs."""
    path = experiment_path(options.file)
    from rich.console import Console

    from nnref.report.terminal.sweep import (
        TerminalSweepListener,
        plan_as_json,
        show_plan,
        show_swept,
        swept_as_json,
    )
    from nnref.studies.resuming import AlreadyRun
    from nnref.studies.sweep import sweep
    from nnref.studies.sweep_record import plan_sweep
    from nnref.training.compilation import use_cache

    use_cache()
    console = Console(stderr=True) if options.json else wide_console()
    plan = plan_sweep(path)
    if options.dry_run and options.json:
        print(json.dumps(plan_as_json(plan)))
        return 0
    show_plan(plan, console)
    if options.dry_run:
        return 0
    folder = None if options.no_logbook else Path(options.logbook)
    already = False
    try:
        listener = TerminalSweepListener(console)
        done = sweep(plan, logbook=folder, again=options.again, listener=listener)
    except AlreadyRun as known:
        done, already = known.result, True
        if not options.json:
            print(known)
            return 0
    if options.json:
        print(json.dumps(swept_as_json(done) | ({"already_run": True} if already else {})))
    else:
        show_swept(done, console)
    return 0


def ablate_command(options: argparse.Namespace) -> int:
    """`nnref ablate`."""
    path = experiment_path(options.file)
    from rich.console import Console

    from nnref.report.terminal.ablation import (
        comparison_as_json,
        protocol_as_json,
        show_comparison,
        show_protocol,
    )
    from nnref.report.terminal.sweep import TerminalSweepListener
    from nnref.studies.ablation import ablate, read_protocol
    from nnref.training.compilation import use_cache

    use_cache()
    output = output_path(options.output, (".html",)) if options.output else None
    folder = None if options.no_logbook else Path(options.logbook)
    console = Console(stderr=True) if options.json else wide_console()
    asked = read_protocol(path)
    if options.dry_run and options.json:
        print(json.dumps(protocol_as_json(asked)))
        return 0
    show_protocol(asked, console)
    if options.dry_run:
        return 0
    comparison = ablate(asked, logbook=folder, listener=TerminalSweepListener(console))
    if options.json:
        print(json.dumps(comparison_as_json(comparison)))
    else:
        show_comparison(comparison, console)
    for done in (comparison.tuning, comparison.final):
        if done.page is not None:
            console.print(f"page     {done.page}", highlight=False, soft_wrap=True)
    if output is None and folder is not None:
        told = f"report   nnref report {comparison.final.page}"
        console.print(told, highlight=False, soft_wrap=True)
    if output is not None:
        from nnref.report.page.about_ablations import report_of_comparison
        from nnref.report.page.document import write

        console.print(f"report   {write(report_of_comparison(comparison), output)}", soft_wrap=True)
    return 0


def lr_range_command(options: argparse.Namespace) -> int:
    """`nnref lr-range`."""
    path = experiment_path(options.file)
    output = output_path(options.output or f"{path.stem}-lr-range.png", (".png", ".svg"))
    from rich.console import Console

    from nnref.report.terminal.exploration import draw_lr_range, lr_range_as_json
    from nnref.report.terminal.sweep import TerminalSweepListener
    from nnref.studies.lr_range import lr_range
    from nnref.training.compilation import use_cache

    use_cache()
    words = ("low", "high", "count", "seeds", "epochs")
    given = {name: getattr(options, name) for name in words}
    listener = TerminalSweepListener(Console(stderr=options.json))
    found = lr_range(path, **given, listener=listener)
    picture = draw_lr_range(found, output)
    if options.json:
        print(json.dumps(lr_range_as_json(found) | {"picture": str(picture)}))
        return 0
    print(f"{found.name}: {found.sentence}")
    for warning in found.warnings:
        print(f"note: {warning}")
    print(f"picture  {picture}")
    return 0


def crawl_command(options: argparse.Namespace) -> int:
    """`nnref crawl`."""
    path = experiment_path(options.file)
    from rich.console import Console

    from nnref.report.terminal.exploration import crawl_as_json, show_crawl
    from nnref.report.terminal.sweep import TerminalSweepListener
    from nnref.studies.crawl import crawl
    from nnref.training.compilation import use_cache

    use_cache()
    listener = TerminalSweepListener(Console(stderr=options.json))
    found = crawl(path, widest=options.widest, deepest=options.deepest, listener=listener)
    if options.json:
        print(json.dumps(crawl_as_json(found)))
    else:
        show_crawl(found, wide_console())
    return 0


def page_of(given: str, logbook: Path) -> Path:
    """The page of a run: given by its path, or the newest of an experiment's first seed that ended.

    Raises:
        UserError: where the logbook has none.
    """
    path = experiment_path(given)
    from nnref.experiment.experiment import read
    from nnref.logbook.pages import page_at, page_paths, read_page

    if page_at(path) is not None:
        return path
    experiment = read(path)
    folder = logbook / path.stem
    for seed in experiment.seeds:
        pages = page_paths(folder, experiment.identity, seed)
        ended = [page for page in pages if read_page(page).complete]
        if ended:
            return ended[-1]
    raise UserError(
        f"{folder} has no run of {path.stem} ({experiment.identity}) that has ended; first: "
        f"nnref run {given}"
    )


def sample_command(options: argparse.Namespace) -> int:
    """`nnref sample`."""
    page = page_of(options.run, Path(options.logbook))
    from rich.console import Console

    from nnref.data.text import spell
    from nnref.report.terminal.terminal import TerminalListener
    from nnref.studies.run import trained
    from nnref.studies.sampling import check, sample
    from nnref.training.compilation import use_cache

    use_cache()
    network = trained(page, TerminalListener(Console(stderr=True)))
    words = ("length", "temperature", "prompt", "seed", "samples")
    arguments = {name: getattr(options, name) for name in words}
    samples = sample(network, **arguments)
    texts = [spell(network.dataset, tokens) for tokens in samples]
    memory = check(network.dataset, list(samples)) if options.check else None
    if options.json:
        told = arguments | {"page": str(page), "samples": texts}
        print(json.dumps(told | ({"memory": memory.as_json()} if memory else {})))
        return 0
    for number, text in enumerate(texts, 1):
        if number > 1:
            print(f"\n--- {number} ---")
        print(f"{options.prompt}{text}")
    if memory is not None:
        print("\n" + "\n".join(memory.in_words()))
    return 0


def logbook_entries(folder: str, sweeps: bool = False) -> list[Any]:
    """The entries of a logbook; what is skipped is told on stderr."""
    from nnref.logbook.index import entries, everything

    there, skipped = (everything if sweeps else entries)(Path(folder))
    for told in skipped:
        print(f"nnref: skipped {told}", file=sys.stderr)
    return there


def wide_console() -> Any:
    """A console that does not fold lines where the output is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)


def log_command(options: argparse.Namespace) -> int:
    """`nnref log`."""
    from dataclasses import asdict

    from nnref.logbook.index import ordered, where
    from nnref.report.terminal.logbook import listed

    there = where(logbook_entries(options.logbook, sweeps=True), options.where)
    there = ordered(there, options.sort, options.reverse)
    if options.json:
        print(json.dumps([asdict(entry) for entry in there]))
    else:
        listed(there, wide_console())
    return 0


def log_near_command(options: argparse.Namespace) -> int:
    """`nnref log near`."""
    from nnref.experiment.experiment import read
    from nnref.logbook.index import near, settings_of
    from nnref.report.terminal.logbook import nearest_attempts

    settings = settings_of(read(experiment_path(options.given)).to_json())
    told = nearest_attempts(near(settings, logbook_entries(options.logbook)))
    print(told or "nothing was tried that differs in one or two keys")
    return 0


def log_tree_command(options: argparse.Namespace) -> int:
    """`nnref log tree`."""
    from nnref.logbook.index import tree
    from nnref.report.terminal.logbook import grown

    everything = logbook_entries(options.logbook)
    there = [entry for entry in everything if entry.name == options.given]
    if not there:
        names = sorted({entry.name for entry in everything})
        raise UserError(
            f'{options.logbook} has no run of "{options.given}"{nearest(options.given, names)}; '
            f"it has {', '.join(names) or 'none'}"
        )
    wide_console().print(grown(tree(there)))
    return 0


def log_note_command(options: argparse.Namespace) -> int:
    """`nnref log note`."""
    from nnref.logbook.index import note

    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    note(Path(options.given), options.text, now)
    return 0


def diff_command(options: argparse.Namespace) -> int:
    """`nnref diff`."""
    from nnref.report.terminal.logbook import difference

    there = logbook_entries(options.logbook) if Path(options.logbook).is_dir() else []
    a, b = (side(given, Path(options.logbook), there) for given in (options.a, options.b))
    difference(a, b, wide_console())
    return 0


def side(given: str, logbook: Path, there: Sequence[Any]) -> Any:
    """One of two experiments to compare: a page, a file, a name or an identity.

    Raises:
        UserError: for none of these.
    """
    from nnref.logbook.index import attempts, settings_of
    from nnref.logbook.pages import page_at, read_page
    from nnref.report.terminal.logbook import Side

    path = Path(given)
    page = page_at(path)
    if page is not None:
        mine = [e for e in there if (logbook / e.page).resolve() == path.resolve()]
        return Side(given, settings_of(page.text), mine, [page.history])
    same = [e for e in there if given == e.name or e.identity.startswith(given)]
    if path.exists() or not same:
        from nnref.experiment.experiment import read

        experiment = read(experiment_path(given))
        settings = settings_of(experiment.to_json())
        same = [e for e in there if e.identity == experiment.identity]
    else:
        settings = same[-1].settings
    mine = list(attempts(same)[-1].entries) if same else []
    histories = [read_page(logbook / entry.page).history for entry in mine]
    identity = f" {mine[0].identity}" if mine and mine[0].identity != given else ""
    return Side(f"{given}{identity}", mine[0].settings if mine else settings, mine, histories)


def report_command(options: argparse.Namespace) -> int:
    """`nnref report`."""
    output = output_path(options.output or "report.html", (".html",))
    sweeps = sweeps_taken(options)
    shown, told, networks = shown_with_networks(options)
    from nnref.report.page.about_ablations import report_of_comparison
    from nnref.report.page.about_runs import report_of
    from nnref.report.page.about_sweeps import joined, report_of_sweep
    from nnref.report.page.document import write

    reports = [report_of(shown, networks, told)] if shown else []
    for page, comparison in sweeps:
        reports.append(report_of_comparison(comparison) if comparison else report_of_sweep(page))
    print(write(joined(reports), output))
    return 0


def plot_command(options: argparse.Namespace) -> int:
    """`nnref plot`."""
    output = output_path(options.output or "runs.png", (".png", ".svg"))
    sweeps = sweeps_taken(options)
    shown, told, networks = shown_with_networks(options)
    from nnref.report.page.about_ablations import panels_of_comparison
    from nnref.report.page.about_runs import panels_of
    from nnref.report.page.about_sweeps import panels_of_sweep
    from nnref.report.page.panels import save

    for line in told:
        print(f"nnref: {line}", file=sys.stderr)
    panels = panels_of(shown, networks) if shown else []
    for page, comparison in sweeps:
        panels += panels_of_comparison(comparison) if comparison else panels_of_sweep(page)
    if not panels:
        raise UserError("these pages have nothing to draw yet")
    title = ", ".join([*(subject.label for subject in shown), *(page.name for page, _ in sweeps)])
    print(save(panels, title, output))
    return 0


def sweeps_taken(options: argparse.Namespace) -> list[Any]:
    """The sweeps among what is given, which is left without them: page, ablation or None."""
    from nnref.report.page.about_sweeps import sweep_page
    from nnref.studies.ablation import comparison_at

    found = {given: sweep_page(given, Path(options.logbook)) for given in options.runs}
    options.runs = [given for given, page in found.items() if page is None]
    return [(page, comparison_at(page)) for page in found.values() if page is not None]


def output_path(given: str, endings: Sequence[str]) -> Path:
    """Where to write.

    Raises:
        UserError: for another ending.
    """
    if Path(given).suffix not in endings:
        raise UserError(f"-o {given}: give a file that ends in {' or '.join(endings)}")
    return Path(given)


def shown_with_networks(options: argparse.Namespace) -> tuple[list[Any], list[str], list[Any]]:
    """What a report is about, what was left out of it, and the trained networks."""
    from rich.console import Console

    from nnref.report.page.about_networks import NOT_ASKED, network_of
    from nnref.report.page.subjects import subjects
    from nnref.report.terminal.terminal import TerminalListener
    from nnref.training.compilation import use_cache

    use_cache()
    shown, told = subjects(options.runs, Path(options.logbook))
    if options.no_network:
        return shown, told, [NOT_ASKED] * len(shown)
    listener = TerminalListener(Console(stderr=True))
    return shown, told, [network_of(subject, listener) for subject in shown]


def list_command(options: argparse.Namespace) -> int:
    """`nnref list`."""
    from nnref.experiment.text import blank_comments

    names = experiment_names()
    if not names:
        raise UserError(f"no experiments in {EXPERIMENTS.resolve()}")
    width = max(map(len, names))
    for name in names:
        try:
            text = (EXPERIMENTS / f"{name}.json").read_text(encoding="utf-8")
            about = json.loads(blank_comments(text)).get("about", "")
        except (OSError, ValueError, AttributeError) as error:
            about = f"(unreadable: {error})"
        print(f"{name:<{width}}  {about.split('. ')[0]}")
    return 0


def show_command(options: argparse.Namespace) -> int:
    """`nnref show`."""
    path = experiment_path(options.file)
    from nnref.experiment.experiment import read
    from nnref.report.terminal.layers import layers_table

    experiment = read(path)
    print(f"// identity {experiment.identity}")
    try:
        told = layers_table(experiment)
    except UserError as error:  # data that are not here, say: the experiment is shown all the same
        told = f"no table of layers: {error}"
    print("".join(f"// {line}\n" for line in told.splitlines()), end="")
    print(experiment.to_json(), end="")
    return 0


def schema_command(options: argparse.Namespace) -> int:
    """`nnref schema`."""
    from nnref.experiment.experiment import Experiment

    print(json.dumps(Experiment.model_json_schema(by_alias=True), indent=1))
    return 0


def parts_command(options: argparse.Namespace) -> int:
    """`nnref parts`."""
    from nnref.report.terminal.parts import parts_as_markdown

    print(parts_as_markdown(), end="")
    return 0


def plot_schedule_command(options: argparse.Namespace) -> int:
    """`nnref plot-schedule`."""
    path = experiment_path(options.file)
    from nnref.experiment.experiment import read
    from nnref.report.pictures import draw_schedule

    output = output_path(options.output or f"{path.stem}-schedule.png", (".png", ".svg"))
    print(draw_schedule(read(path), path.stem, output))
    return 0


def data_prepare_command(options: argparse.Namespace) -> int:
    """`nnref data prepare`."""
    from nnref.data.catalog import data_folder, prepare, prepared, splits_in_words

    began, data_dir = time.perf_counter(), data_folder(options.data_dir)
    if prepared(options.dataset, data_dir) is None:
        print(f"preparing {options.dataset} in {data_dir} ...", file=sys.stderr, flush=True)
    folder = prepare(options.dataset, data_dir, options.manual_dir)
    seconds = time.perf_counter() - began
    print(f"{options.dataset}: {splits_in_words(folder)}; in {folder} ({seconds:.1f} s)")
    return 0


def data_list_command(options: argparse.Namespace) -> int:
    """`nnref data list`."""
    from nnref.data.catalog import data_folder, known, listed
    from nnref.data.raw import OWN

    folder = data_folder(options.data_dir)
    rows = listed(folder)
    width = max(len(name) for name, *_ in rows)
    print(f"data sets in {folder}:")
    for name, state, place in rows:
        print(f"  {name:<{width}}  {state}" + (f", in {place}" if place else ""))
    there = {name.split("/")[0] for name, *_ in rows} | {*OWN}
    others = ", ".join(name for name in known() if name not in there)
    print("others of the catalogue, to prepare with the extra nnref[prepare]:")
    print(textwrap.fill(others, 96, initial_indent="  ", subsequent_indent="  "))
    return 0


def diagnose_command(options: argparse.Namespace) -> int:
    """`nnref diagnose`: exit code 1 where a fault was found."""
    named = ":" in options.given and not Path(options.given).exists()
    path = None if named else experiment_path(options.given)
    from rich.console import Console

    from nnref.diagnosis.api import diagnose, made_by
    from nnref.training.compilation import use_cache

    use_cache()
    task, arguments = (path, {}) if path is not None else made_by(options.given)
    found = diagnose(task, **{"seconds": options.seconds, **arguments})
    if options.json:
        print(json.dumps(found.to_json()))
    else:
        Console(width=None if sys.stdout.isatty() else 80, highlight=False).print(found)
    if options.html:
        page = found.to_html(options.html)
        if not options.json:
            print(f"page     {page}")
    return found.exit_code


def claims_command(options: argparse.Namespace) -> int:
    """`nnref claims`: a row for each experiment, as it is finished."""
    from nnref.data.raw import DataMissing
    from nnref.experiment.experiment import read
    from nnref.studies.run import run
    from nnref.training.compilation import use_cache

    use_cache()
    paths = [experiment_path(name) for name in options.names or experiment_names()]
    paths = [path for path in paths if read(path).claim]
    if not paths:
        raise UserError("none of these experiments has a claim")
    width = max(len(path.stem) for path in paths)
    failed = skipped = 0
    for path in paths:
        began = time.perf_counter()
        try:
            verdict = run(path, logbook=None).verdict
        except DataMissing as missing:
            skipped += 1
            print(f"{path.stem:<{width}}  skipped   {missing}", flush=True)
            continue
        failed += verdict.exit_code != 0
        word = "held    " if verdict.held else "NOT HELD"
        seconds = time.perf_counter() - began
        print(f"{path.stem:<{width}}  {word}  {seconds:6.1f} s  {verdict.sentence}", flush=True)
    told = f"{failed} of {len(paths)} claims did not hold" if failed else "every claim held"
    print(told + (f"; {skipped} skipped, their data are not here" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
