"""The grammar of the command line: a table of the commands, each with its arguments."""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import nnref
from nnref.cli import many, one, shown
from nnref.errors import SYNONYMS, UserError, nearest

Command = Callable[[argparse.Namespace], int]
Argument = tuple[tuple[str, ...], dict[str, Any]]


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest word."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '(.*?)'.*\(choose from (.*)\)", message)
        if wrong:
            message += nearest(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        super().error(message)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """What a command line says; it ends the program where it is wrong."""
    words = list(arguments)
    if words[:1] == ["log"]:  # argparse would take NAME for a second word
        values = [names[0] for names, about in (*CHOICE, LOGBOOK) if "metavar" in about]
        bare = (i for i in range(1, len(words)) if words[i][:1] != "-")
        at = next((i for i in bare if words[i - 1] not in values), None)
        if at is not None and f"log {words[at]}" not in COMMANDS:
            words.insert(at, "--name")
    options, rest = parser().parse_known_args(words)
    if rest:
        known = [names[-1] for names, _ in COMMANDS[options.words][1:] if names[-1][0] == "-"]
        settings = [name for name in SYNONYMS if "--set" in known and name[:6] == "--set "]
        hint = nearest(rest[0], known, settings) if rest[0].startswith("-") else ""
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return options


def parser() -> argparse.ArgumentParser:
    """The parser of all that stands in `COMMANDS`."""
    top = Parser(prog="nnref", description=nnref.__doc__, allow_abbrev=False)
    top.add_argument("--version", action=Version, nargs=0, help="versions and device")
    groups = {"": top.add_subparsers(required=True, metavar="COMMAND")}
    for words, (command, *arguments) in COMMANDS.items():
        group, _, name = words.rpartition(" ")
        about = command if isinstance(command, str) else help_of(command)
        each = groups[group].add_parser(name, help=about, description=about, allow_abbrev=False)
        each.set_defaults(command=command, words=words, parser=each)
        for names, keywords in arguments:
            added = each.add_argument(*names, **keywords)
            if added.metavar == "DIR":
                vars(added)["complete"] = FOLDERS
            elif not added.choices and (names[0][0] != "-" or added.metavar in ("OUT", "PATH")):
                vars(added)["complete"] = FILES
            if keywords.get("default") not in (None, [], argparse.SUPPRESS):
                added.help = f"{added.help} (default: {json.dumps(added.default)})"
        second = [key.split()[1] for key in COMMANDS if key.startswith(f"{words} ")]
        if second:
            required = isinstance(command, str)
            metavar = " | ".join(second if required else ["NAME", *second])
            groups[words] = each.add_subparsers(required=required, metavar=metavar)
    return top


def completion_command(options: argparse.Namespace) -> int:
    """Print what completes words of this command in a shell.

    For bash, in ~/.bashrc: `eval "$(nnref completion bash)"`; for zsh, a file `_nnref` in a folder
    of `fpath`.
    """
    try:
        import shtab
    except ImportError:
        raise UserError(
            'nnref completion needs shtab; install it: pip install "nnref[completion]"'
        ) from None
    own = NNREF_FILES if options.shell == "bash" else ""
    print(shtab.complete(parser(), options.shell, preamble=own))
    return 0


def help_of(command: Command) -> str:
    """The first line of a command's docstring, as a line of help."""
    line = (command.__doc__ or "").partition("\n")[0].removesuffix(".")
    return line if line[1:2].isupper() else line[:1].lower() + line[1:]


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


def argument(*names: str, **keywords: Any) -> Argument:
    """What argparse's `add_argument` is called with."""
    return names, keywords


def flag(name: str, about: str) -> Argument:
    """An option without a value, off by default."""
    return argument(name, action="store_true", help=about)


def picture(name: str) -> Argument:
    """The option that names a picture; the default is made of the name of the experiment."""
    about = f"a .png or .svg file, else {name}.png"
    return argument("-o", "--output", metavar="PATH", help=about)


def number(
    name: str, default: float | None, metavar: str, about: str, kind: type = int
) -> Argument:
    """An option whose value is a number."""
    return argument(name, type=kind, default=default, metavar=metavar, help=about)


# What completes an argument, as shtab reads it: files and, in bash, names of experiments; folders.
FILES = {"bash": "_nnref_files", "zsh": "_files"}
FOLDERS = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}
NNREF_FILES = """_nnref_files() {
  compgen -f -- "$1"
  compgen -W "$(nnref list 2>/dev/null | cut -d' ' -f1)" -- "$1"
}"""

TRACKERS = ("trackio", "mlflow", "wandb")

# Arguments of several commands.
FILE = argument("file", help="experiment file, page, or name of an experiment")
RUN_FILE = argument("file", nargs="?", help="experiment file, page, or name of an experiment")
SWEEP_FILE = argument("file", nargs="?", help="file with a key sweep, its page, or its name")
EXPERIMENT = argument("file", nargs="?", help="experiment file, or name of an experiment")
RUNS_HELP = "page, name, identity or experiment file"
RUNS = argument("runs", nargs="+", metavar="PAGE|NAME", help=RUNS_HELP)
DRY_RUN = flag("--dry-run", "show the plan and run nothing")
JSON = flag("--json", "one JSON object, nothing else")
LOGBOOK = argument("--logbook", default="logbook", metavar="DIR", help="folder of the pages")
# `nnref log --logbook DIR near FILE`: behind the second word the option has no default of its own.
SAME_LOGBOOK = argument("--logbook", default=argparse.SUPPRESS, metavar="DIR", help="else logbook")
RECORD = LOGBOOK, flag("--no-logbook", "write nothing down")
NO_NETWORK = flag("--no-network", "leave out what takes the trained network")
SINKS = (
    argument("--tensorboard", metavar="DIR", help="write event files there, too"),
    argument("--track", action="append", choices=TRACKERS, help="log there, too"),
)
DATA_HELP = "folder of prepared data sets, else that of TFDS"
DATA_DIR = argument("--data-dir", metavar="DIR", help=DATA_HELP)
SIDE_HELP = "page, experiment file, name or identity"

# Arguments of one command.
TRAINING = (
    argument("--set", action="append", default=[], metavar="PATH=VALUE", help="set a key"),
    argument("--seed", type=int, nargs="+", metavar="N", help="instead of the file's seeds"),
    number("--epochs", None, "N", "instead of the file's epochs"),
)
PROCESSES = (
    argument("--coordinator", metavar="ADDRESS", help="HOST:PORT of process 0, or auto"),
    number("--processes", None, "N", "how many share this run"),
    number("--process", None, "I", "which of them this is, from 0"),
)
RATES = (
    number("--low", 1e-5, "RATE", "smallest rate", float),
    number("--high", 10.0, "RATE", "largest rate", float),
    number("--count", 25, "N", "how many rates"),
    number("--seeds", 5, "N", "how many seeds"),
    number("--epochs", None, "N", "else as many as have 100 steps"),
)
SIZES = (
    number("--widest", 128, "N", "units of a layer"),
    number("--deepest", 3, "N", "hidden layers"),
)
TEXT = (
    argument("run", metavar="RUN", help="page of a run, or name of an experiment"),
    number("--length", 400, "N", "characters"),
    number("--temperature", 0.8, "T", "0: likeliest", float),
    argument("--prompt", default="\n", metavar="TEXT", help="what stands before"),
    number("--seed", 0, "N", "of the draws"),
    number("--samples", 1, "N", "how many texts"),
    flag("--check", "look for them in the training text"),
)
CHOICE = (
    argument("--name", metavar="NAME", help="of this experiment; nnref log NAME is the same"),
    argument("--where", action="append", default=[], metavar="COND", help="valid_loss<0.1"),
    argument("--sort", metavar="KEY", help="a setting, a measure, best_valid_loss, ..."),
    flag("--reverse", "the largest or latest first"),
    flag("--json", "one JSON array, nothing else"),
)
TASK = argument(
    "task", help="experiment file or name, package.module:make_task, or file.py:make_task"
)
DIAGNOSIS = (
    TASK,
    JSON,
    argument("--html", metavar="OUT", help="write a page as well"),
    number("--effort", 1.0, "E", "of the work a diagnosis may take", float),
    flag("--fix", "write the repaired experiment beside the old one; of code, print a patch"),
    argument("--logbook", metavar="DIR", help="train what was tried again, a page there for each"),
)
UNIT_TESTS = (
    TASK,
    argument("-o", "--output", default="test_mine.py", metavar="PATH", help="a .py file"),
)
PIECES = (
    number("--seeds", 10, "N", "how many, paired"),
    picture("NAME-regularize"),
    argument("--html", metavar="OUT", help="write a page as well"),
)
SIDES = argument("a", metavar="A", help=SIDE_HELP), argument("b", metavar="B", help=SIDE_HELP)
NOTE = argument("page", metavar="PAGE"), argument("text", metavar="TEXT")
PAGE = argument("page", help="its page, in the folder of the logbook")
REPORT = argument("-o", "--output", metavar="PATH", default="report.html", help="a .html file")
ABLATION = argument("-o", "--output", metavar="PATH", help="write a report, a .html file")
FORGET = flag("--forget", "keep no trained network beside the page")
ROWS = argument("rows", help="a .csv with a header line, a .npz of arrays, or a folder of images")
FORMAT = argument("--to", choices=("onnx", "stablehlo"), default="onnx", help="what kind")
FORMAT_FILE = argument("-o", "--output", metavar="PATH", help="else NAME.onnx or NAME.stablehlo")
TRAINED = argument("run", metavar="PAGE", help="page of a run, or name of an experiment")
RUN_AGAIN = flag("--again", "train what the logbook already has")
SWEEP_AGAIN = flag("--again", "run what the logbook already has")
DATASET = argument("dataset", help="its name, like mnist")
RAW = argument("--manual-dir", type=Path, metavar="DIR", help="folder of its raw files")
LOOKED_AT = argument(
    "file", help="experiment, folder of images, or a table or archive with --target"
)
TARGET = argument("--target", metavar="COLUMN", help="what is to be predicted")
LOOK = argument("--html", metavar="OUT", help="write a page as well")
OWN_FILE = argument("-o", "--output", metavar="PATH", help="else its name, in this folder")
SHELL = argument("shell", choices=("bash", "zsh"), help="bash or zsh")
RAY_HELP = "train on the Ray cluster at HOST:PORT, else on one that is started here"
RAY = argument("--ray", nargs="?", const=True, metavar="ADDRESS", help=RAY_HELP)
NAMES = argument("names", nargs="*", help="these alone")

COMMANDS: dict[str, tuple[Any, ...]] = {
    "run": (
        one.run_command,
        *(RUN_FILE, *TRAINING, *RECORD, RUN_AGAIN, FORGET, JSON, *SINKS, *PROCESSES),
    ),
    "sweep": (many.sweep_command, SWEEP_FILE, DRY_RUN, RAY, *RECORD, SWEEP_AGAIN, JSON),
    "lr-range": (many.lr_range_command, EXPERIMENT, *RATES, picture("NAME-lr-range"), JSON),
    "crawl": (many.crawl_command, EXPERIMENT, *SIZES, JSON),
    "ablate": (many.ablate_command, SWEEP_FILE, DRY_RUN, RAY, ABLATION, *RECORD, JSON),
    "regularize": (many.regularize_command, TASK, *PIECES, *RECORD, JSON),
    "resume": (one.resume_command, PAGE, JSON, *SINKS),
    "predict": (one.predict_command, TRAINED, ROWS, LOGBOOK, JSON),
    "export": (one.export_command, TRAINED, FORMAT, FORMAT_FILE, LOGBOOK),
    "sample": (one.sample_command, *TEXT, LOGBOOK, JSON),
    "log": (shown.log_command, *CHOICE, LOGBOOK),
    "log near": (shown.log_near_command, argument("file", metavar="FILE"), SAME_LOGBOOK),
    "log tree": (shown.log_tree_command, argument("name", metavar="NAME"), SAME_LOGBOOK),
    "log note": (shown.log_note_command, *NOTE),
    "diff": (shown.diff_command, *SIDES, LOGBOOK),
    "report": (shown.report_command, RUNS, REPORT, NO_NETWORK, LOGBOOK),
    "plot": (shown.plot_command, RUNS, picture("runs"), NO_NETWORK, LOGBOOK),
    "list": (shown.list_command,),
    "show": (shown.show_command, FILE),
    "copy": (shown.copy_command, EXPERIMENT, OWN_FILE),
    "schema": (shown.schema_command,),
    "parts": (shown.parts_command,),
    "plot-schedule": (shown.plot_schedule_command, FILE, picture("NAME-schedule")),
    "data": ("look at data, prepare data sets of the TensorFlow Datasets catalogue, list them",),
    "data prepare": (shown.data_prepare_command, DATASET, RAW, DATA_DIR),
    "data look": (shown.data_look_command, LOOKED_AT, TARGET, LOOK, JSON),
    "data list": (shown.data_list_command, DATA_DIR),
    "diagnose": (one.diagnose_command, *DIAGNOSIS),
    "unit-tests": (one.unit_tests_command, *UNIT_TESTS),
    "completion": (completion_command, SHELL),
    "claims": (many.claims_command, NAMES, RAY),
}
"""For each command the function that it calls, and its arguments in the order of `--help`.

`data` calls nothing by itself: it has its line of help, and takes a second word.
"""
